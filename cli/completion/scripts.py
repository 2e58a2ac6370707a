"""The completion script of each shell. It asks the command itself, so it fits each later version."""

from __future__ import annotations

from typing import Final

ASK: Final = "__complete"
"""The hidden first word of `morphisms __complete WORD…`."""

# The last line of an answer, as kubectl and every program made with cobra have it: a sum of flags.
FILES_FIT: Final = ":0"
NO_FILES: Final = ":4"

_BASH: Final = r"""# bash completion for morphisms: source <(morphisms completion bash)
_morphisms() {
    local words=() word="" joined="" line last="" index
    # bash splits --option=value into three words; put them together again.
    for ((index = 1; index <= COMP_CWORD; index++)); do
        word="${COMP_WORDS[index]}"
        if [[ $word == = && ${#words[@]} -gt 0 ]]; then
            words[-1]+="="
            joined=1
        elif [[ -n $joined ]]; then
            words[-1]+="$word"
            joined=""
        else
            words+=("$word")
        fi
    done
    local current="${words[-1]}" prefix=""
    [[ $current == --*=* ]] && prefix="${current%%=*}="
    COMPREPLY=()
    while IFS= read -r line; do
        [[ -n $last ]] && COMPREPLY+=("${last%%$'\t'*}")
        last="$line"
    done < <(morphisms __complete "${words[@]}" 2>/dev/null)
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    if [[ $last == :0 ]]; then
        compopt -o filenames
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(compgen -f -- "${current#"$prefix"}")
    elif [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
}
complete -F _morphisms morphisms
"""

_ZSH: Final = r"""#compdef morphisms
# zsh completion for morphisms: source <(morphisms completion zsh), after compinit
_morphisms() {
    local -a lines described
    local line
    lines=("${(@f)$(morphisms __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in "${(@)lines[1,-2]}"; do
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    (( ${#described} )) && _describe morphisms described
    [[ ${lines[-1]} == :0 ]] && _files
}
compdef _morphisms morphisms
"""

_FISH: Final = r"""# fish completion for morphisms: morphisms completion fish | source
function __morphisms_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (morphisms __complete $before[2..-1] "$current" 2>/dev/null)
    for line in $lines
        switch $line
            case ':0'
                __fish_complete_path "$current"
            case ':*'
            case '*'
                echo $line
        end
    end
end
complete -c morphisms -f -a '(__morphisms_complete)'
"""

SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
