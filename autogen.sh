#!/bin/sh
# Makes ./configure from configure.ac. Needed in a checkout only; a release tarball carries it.
set -eu
cd "$(dirname "$0")"
exec autoreconf --force --install "$@"
