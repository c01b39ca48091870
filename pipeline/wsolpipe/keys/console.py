"""How a command ends and prints: an error in one line, exit codes, JSON with a version, tables, escaped text."""

from __future__ import annotations

import errno
import re
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from wsolpipe.contract.errors import WsolError

#: Of what ``--json`` prints; it grows when a field changes its meaning or goes, not when one is added.
JSON_VERSION = 1

#: Time between two lines about work under way in a log, which is never silent for longer.
LINE_SECONDS = 60.0
_KEY = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{8}\b")
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?")
#: Characters that a column of text keeps beside columns of single words.
LEAST_TEXT = 14
#: Commands that go on where they stopped when they are typed again.
RESUMES = frozenset({"run", "push", "pull", "publish", "fit", "search", "compare", "reproduce", "predict"})
_NOTHING = ("–", "", "0", "0.000", "0 s")
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST)
_NAMED_WRONGLY = (errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, *_NO_FOLDER)


class Answer:
    """Whether the command of a call has printed its result."""

    printed = False


def print_json(value: Any) -> None:
    """`value` on standard output, NaN as null; an object gets the field ``schema_version``."""
    import json

    from wsolpipe.contract.layout import jsonable

    if isinstance(value, dict):
        value = {"schema_version": JSON_VERSION, **value}
    print(json.dumps(jsonable(value), indent=1))
    if (place := click.get_current_context(silent=True)) and isinstance(place.obj, Answer):
        place.obj.printed = True


def shown(text: str) -> str:
    """`text` with control and formatting characters spelled out: names and notes of a store may hold terminal codes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


def duration(seconds: float) -> str:
    """Like ``45 s``, ``1 min 25 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def call(command: click.Command, name: str, words: Sequence[str]) -> int:
    """Run a command line; return its exit code.

    An error that a user can meet is one line on standard error, or with ``--json`` an object with ``error``, ``hint``
    and ``exit_code`` on standard output. ``--debug`` shows the traceback.
    """
    debug, as_json, answer = "--debug" in words, "--json" in words, Answer()
    known: WsolError | None
    _survive_narrow_encodings()
    try:
        words = [word for word in words if word != "--debug"]
        code = command.main(words, prog_name=name, standalone_mode=False, obj=answer)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        from wsolpipe.contract.errors import ConfigError

        place = getattr(error, "ctx", None)
        option = getattr(error, "option_name", "").lstrip("-")
        like = f", as in {option}=…" if len(option) > 1 else ""
        hint = f"{place.command_path if place else name} --help lists what it takes; arguments are key=value{like}"
        known = ConfigError(error.format_message(), hint=hint)
    except (click.Abort, KeyboardInterrupt):
        import shlex

        resume = f"\n  -> resume with: {shlex.join([name, *words])}" if words and words[0] in RESUMES else ""
        print(f"interrupted{resume}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        known = _as_known(error)
        if debug or known is None:
            raise
    else:
        return code if isinstance(code, int) else 0
    if as_json and not answer.printed:  # a result that says what failed stands for itself
        print_json({"error": known.message, "hint": known.hint, "exit_code": known.exit_code})
    more = f"\n  -> {known.hint}" if known.hint else ""
    print(f"{name}: {shown(known.message + more)}", file=sys.stderr)
    return known.exit_code


def _as_known(error: Exception) -> WsolError | None:
    """The error as a user reads it; None for a fault of the program."""
    from wsolpipe.contract.errors import AccessError, ConfigError, RunFailed, WsolError, is_out_of_memory, shorten
    from wsolpipe.contract.named import missing_package

    if isinstance(error, WsolError):
        return error
    if is_out_of_memory(error):
        msg = f"not enough memory: {shorten(str(error)) or 'the system gives no more'}"
        return RunFailed(msg, hint="free memory or raise its limit; smaller batches and fewer workers need less")
    if isinstance(error, ImportError):
        return missing_package(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        kind = ConfigError if error.errno in _NAMED_WRONGLY else AccessError
        hint = "a folder is needed there: name another place" if error.errno in _NO_FOLDER else None
        return kind(f"{shorten(str(error.filename))}: {error.strerror.lower()}", hint=hint)
    return None


def _survive_narrow_encodings() -> None:
    """Replace characters that the terminal's encoding lacks, such as – in Latin-1, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def print_table(columns: list[str], rows: list[list[Any]], *, title: str | None = None, wide: bool = False) -> None:
    """A table on standard output, numbers to the right.

    Where it is wider than the terminal, keys are cut to their first eight digits, and columns in which no row says
    anything are left out.

    Parameters
    ----------
    wide : bool
        Show everything, however long the lines.
    """
    from rich.console import Console

    numeric = [bool(rows) and all(_is_number(row[number]) for row in rows) for number in range(len(columns))]
    cells = [[_text(value) for value in row] for row in rows]
    console = Console()
    width = console.width if console.is_terminal else 160
    if not wide and _width(columns, cells) > width:
        cells = [[_KEY.sub(r"\1", text) for text in row] for row in cells]
        columns, cells, numeric = _without_empty_columns(columns, cells, numeric)
    if wide:
        width = max(width, _width(columns, cells))
    Console(width=width).print(_build_table(columns, cells, numeric, title, width))


def _build_table(
    columns: list[str], cells: list[list[str]], numeric: list[bool], title: str | None, width: int
) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right, whole in zip(columns, numeric, _unbroken(columns, cells, width), strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*map(escape, row))
    return table


def _unbroken(columns: list[str], cells: list[list[str]], width: int) -> list[bool]:
    """Columns of single words, which stay on one line where that leaves the others `LEAST_TEXT` characters each."""
    words = [not any(" " in cell for cell in column) for column in zip(columns, *cells, strict=True)]
    own = [max(map(len, column)) + 3 for column in zip(columns, *cells, strict=True)]
    needed = sum(size if whole else min(size, LEAST_TEXT + 3) for size, whole in zip(own, words, strict=True))
    return words if needed <= width else [False] * len(columns)


def _width(columns: list[str], cells: list[list[str]]) -> int:
    """Characters of a line: the longest cell of each column, a space on either side, and one between columns."""
    return sum(max(map(len, column)) + 3 for column in zip(columns, *cells, strict=True))


def _without_empty_columns(
    columns: list[str], cells: list[list[str]], numeric: list[bool]
) -> tuple[list[str], list[list[str]], list[bool]]:
    """Leave out the columns in which every row says nothing."""
    kept = [at for at in range(len(columns)) if any(row[at] not in _NOTHING for row in cells)]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in cells], [numeric[at] for at in kept]


def print_skipped(folders: Iterable[str]) -> None:
    """A line on standard error for each foreign folder of a store."""
    for name in folders:
        print(f"skipped: folder {shown(name)}: its name cannot belong to a store", file=sys.stderr)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return shown(str(value))
