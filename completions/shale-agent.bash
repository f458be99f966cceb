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
        --wait)
            mapfile -t COMPREPLY < <(compgen -W 'queue backoff none' -- "$cur")
            return
            ;;
        --distribution)
            mapfile -t COMPREPLY < <(compgen -W 'uniform zipfian latest' -- "$cur")
            return
            ;;
        --driver)
            mapfile -t COMPREPLY < <(compgen -W "$("$1" --drivers 2>/dev/null | cut -f 1)" -- "$cur")
            return
            ;;
        --input | --progress-file | --report)
            _filedir
            return
            ;;
    esac
    if [ "$cword" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'fillseq fillrandom fillsync fillbatch overwrite readrandom readmissing readseq
            readreverse seekrandom deleterandom readwhilewriting mixed ycsb-a ycsb-b ycsb-c ycsb-d ycsb-e ycsb-f mp-write
            mp-write-sync mp-read mp-mixed one-shot compact verify fill read scan open feed watch compare
            --drivers --help' -- "$cur")
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '--batch --check --compressible --device --distribution --driver --drivers
            --duration --except --floor --help --input --json --key-size --keys --live --nexts --ops --option --part
            --processes --procs --progress-file --rate --read-percent --report --rounds --seconds --seed --sequential
            --sync --threads --value-size --version --wait' -- "$cur")
    else
        _filedir -d
    fi
}
complete -F _shale_agent shale-agent
