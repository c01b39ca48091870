"""What every command shares: ``key=value`` words with completion, ``--json``, ``--debug``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Body = Callable[[tuple[str, ...], bool], int]


def make_command(name: str, *, keys: tuple[str, ...] = ()) -> Callable[[Body], click.Command]:
    """Turn a function of (words, as_json) that returns an exit code into a command; its docstring is the help.

    Parameters
    ----------
    keys : tuple of str
        Keys of this command, for completion.
    """

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
        from click.shell_completion import CompletionItem

        from wsolpipe.engine.config import RUN_KEYS

        return [CompletionItem(f"{key}=") for key in sorted({*RUN_KEYS, *keys}) if key.startswith(incomplete)]

    def decorate(body: Body) -> click.Command:
        @click.command(name, help=body.__doc__, context_settings={"help_option_names": ["-h", "--help"]})
        @click.argument("words", nargs=-1, metavar="[KEY=VALUE]…", shell_complete=complete)
        @click.option("--json", "as_json", is_flag=True, help="Result as JSON on standard output; all else on stderr.")
        @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
        def command(words: tuple[str, ...], as_json: bool, debug: bool) -> None:  # noqa: ARG001, FBT001
            sys.exit(body(words, as_json))

        return command

    return decorate


def print_json(value: Any) -> None:
    """`value` on standard output, NaN as null."""
    from wsolpipe.contract.canonical import jsonable

    print(json.dumps(jsonable(value), indent=1))


def print_table(columns: list[str], rows: list[list[Any]], *, title: str | None = None) -> None:
    """A table on standard output: numbers to the right, as wide as it must be."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[number]) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_text(value)) for value in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def shown(text: str) -> str:
    """`text` with control and formatting characters spelled out: names and notes of a store may hold terminal codes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return shown(str(value))
