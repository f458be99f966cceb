# bash completion for shale-agent(1)

_shale_agent() {
    # shellcheck disable=SC2034 # _init_completion fills them all
    local cur prev words cword
    _init_completion || return
    case $prev in
        --sync)
            mapfile -t COMPREPLY < <(compgen -W 'commit interval off' -- "$cur")
            return
            ;;
        --input | --progress-file | --report)
            _filedir
            return
            ;;
    esac
    if [ "$cword" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'fill overwrite read mixed scan verify open feed watch compare --help' -- "$cur")
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '--batch --check --device --except --floor --help --input --json --key-bytes --keys --ops
            --option --part --processes --progress-file --read-percent --report --rounds --seconds --seed --sequential
            --sync --threads --value-bytes --version' -- "$cur")
    else
        _filedir -d
    fi
}
complete -F _shale_agent shale-agent
