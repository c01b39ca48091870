"""Completion in bash: no blank after ``key=``, a folder or an item of a list, so that one can type on."""

from __future__ import annotations

from click.shell_completion import BashComplete, add_completion_class

_END = "    return 0\n"
_NO_BLANK = "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/.] ]] && compopt -o nospace\n"


class KeyBash(BashComplete):
    """Bash as click knows it, without the blank after an unfinished word."""

    source_template = BashComplete.source_template.replace(_END, _NO_BLANK + _END, 1)


def register() -> None:
    """Use it for ``bash_source`` and ``bash_complete``."""
    add_completion_class(KeyBash)
