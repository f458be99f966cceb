# bash completion for shale(1)

_shale() {
    # shellcheck disable=SC2034 # _init_completion fills them all
    local cur prev words cword
    _init_completion || return
    local commands='get put del scan load dump stat who verify compact checkpoint repair'
    local all='--help --option --version --wait' own=''

    if [ "$cword" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$cur")
        return
    fi
    case $prev in
        -o | --option)
            mapfile -t COMPREPLY < <(compgen -S = -W 'block_bytes bloom_bits cache_bytes compression create durable
                error_if_exists l0_compact l0_stop level_ratio lock_fd max_sealed mem_dir memtable_bytes mode readonly
                sync_interval_ms target_table_bytes threads timeout_ms verify_checksums wait' -- "$cur")
            compopt -o nospace
            return
            ;;
        --into)
            _filedir -d
            return
            ;;
        -w | --wait | -l | --limit | --from | --to | --prefix) return ;;
    esac
    case ${words[1]} in
        get) own='--hex --json --no-newline --quiet --tuple' ;;
        put | del) own='--hex --tuple' ;;
        scan) own='--from --hex --json --keys-only --limit --prefix --reverse --to --tuple' ;;
        load) own='--durable --progress' ;;
        dump) own='--mapsize --print --progress' ;;
        stat | who) own='--json' ;;
        verify) own='--progress --quiet' ;;
        compact) own='--from --hex --progress --quiet --to --tuple' ;;
        checkpoint) own='--progress --quiet' ;;
        repair) own='--into --progress --quiet' ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$all $own" -- "$cur")
    elif [ "$cword" -eq 2 ] || [ "${words[1]}" = checkpoint ]; then
        _filedir -d
    elif [ "${words[1]}" = load ]; then
        _filedir
    fi
}
complete -F _shale shale
