/* scratch.h - temporary directories and files for tests.
 *
 * A test program has one root under $TMPDIR (or /tmp), made by test_run() before the first test and removed
 * after the last: a test that is killed leaves nothing behind. Every test makes its own directories below it.
 */
#ifndef TESTS_LIB_SCRATCH_H
#define TESTS_LIB_SCRATCH_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Made once a program; SHALE_TEST_KEEP=1 keeps it, and says where it is. */
int scratch_root_make(const char *program);
void scratch_root_remove(void);
const char *scratch_root(void);

/* A fresh path below the root, "ROOT/name-N"; the first form only names it. The caller frees it. */
char *scratch_name(const char *name);
char *scratch_dir(const char *name);

int scratch_remove(const char *path); /* rm -r; a missing path is fine */
int scratch_copy(const char *from,
                 const char *to);             /* cp -a of a directory of plain files, one level of folders */
uint64_t scratch_disk_bytes(const char *dir); /* allocated blocks of everything below */

/* Small files, whole. data is malloc'ed. 0 or -1 with errno. */
int scratch_read(const char *dir, const char *name, unsigned char **data, size_t *size);
int scratch_write(const char *dir, const char *name, const void *data, size_t size);
int scratch_flip_bit(const char *dir, const char *name,
                     uint64_t bit); /* in place, without a change of size or inode */
int scratch_noise(const char *dir, const char *name, uint64_t from, uint64_t size,
                  uint64_t seed); /* in place */
/* The names in dir that end with suffix, sorted; NULL-terminated, free with scratch_names_free. */
char **scratch_names(const char *dir, const char *suffix);
void scratch_names_free(char **names);

#endif
