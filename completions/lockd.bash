# bash completion for lockd(1)

_lockd() {
    # shellcheck disable=SC2034 # _init_completion fills them all
    local cur prev words cword
    _init_completion || return
    local i options
    if [ "$cword" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'run lock unlock hold drop status wait path --help --version' -- "$cur")
        return
    fi
    # Behind -- stands a command line of its own.
    for ((i = 2; i < cword; i++)); do
        if [ "${words[1]}" = run ] && [ "${words[i]}" = -- ]; then
            _command_offset $((i + 1))
            return
        fi
    done
    case $prev in
        --for) _pids; return ;;
        -w | --timeout | -E | --conflict-exit-code | -l | --label | -N | --name | -c | --command | --watch) return ;;
    esac
    if [[ $cur == -* ]]; then
        options='--exclusive --shared --nonblock --timeout --conflict-exit-code --label --name --quiet --verbose --help'
        case ${words[1]} in
            run) options="$options --close --no-fork --command" ;;
            hold) options="$options --for" ;;
            unlock | drop) options='--name --help' ;;
            status) options='--json --watch --name --help' ;;
            wait) options='--nonblock --timeout --conflict-exit-code --name --quiet --verbose --help' ;;
            path) options=--help ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    else
        _filedir -d
    fi
}
complete -F _lockd lockd
