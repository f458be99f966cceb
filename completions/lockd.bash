# bash completion for lockd(1)

_lockd() {
    # shellcheck disable=SC2034 # _init_completion fills them all
    local cur prev words cword
    _init_completion || return
    local i
    if [ "$cword" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'run status --help --version' -- "$cur")
        return
    fi
    # Behind -- stands a command line of its own.
    for ((i = 2; i < cword; i++)); do
        if [ "${words[i]}" = -- ]; then
            _command_offset $((i + 1))
            return
        fi
    done
    case $prev in
        -w | --timeout | -E | --conflict-exit-code | -l | --label) return ;;
    esac
    if [[ $cur == -* ]]; then
        if [ "${words[1]}" = status ]; then
            mapfile -t COMPREPLY < <(compgen -W '--json --help' -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -W '--exclusive --shared --nonblock --timeout --conflict-exit-code --close
                --label --quiet --verbose --help' -- "$cur")
        fi
    else
        _filedir -d
    fi
}
complete -F _lockd lockd
