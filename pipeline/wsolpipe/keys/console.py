"""How a command ends and prints: one line an error, exit codes, JSON with a version, untrusted text escaped."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsolpipe.contract.errors import WsolError

JSON_VERSION = 1
"""Of what ``--json`` prints; it grows when a field changes its meaning or goes, not when one is added."""

LINE_SECONDS = 60.0
"""Time between two lines about work under way in a log, which is never silent for longer."""
_answered = [False]
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST)
_NAMED_WRONGLY = (errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, *_NO_FOLDER)


def print_json(value: Any) -> None:
    """`value` on standard output, NaN as null; an object gets the field ``schema_version``."""
    import json

    from wsolpipe.contract.canonical import jsonable

    if isinstance(value, dict):
        value = {"schema_version": JSON_VERSION, **value}
    print(json.dumps(jsonable(value), indent=1))
    _answered[0] = True


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
    debug, as_json = "--debug" in words, "--json" in words
    _answered[0] = False
    _survive_narrow_encodings()
    try:
        code = command.main([word for word in words if word != "--debug"], prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        place = getattr(error, "ctx", None)
        hint = f"{place.command_path if place else name} --help lists what it takes; arguments are key=value"
        return _fail(name, error.format_message(), hint, 3, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        known = _as_known(error)
        if debug or known is None:
            raise
        return _fail(name, known.message, known.hint, known.exit_code, as_json=as_json)
    return code if isinstance(code, int) else 0


def _as_known(error: Exception) -> WsolError | None:
    """The error in words for a user; None for a fault of the program."""
    from wsolpipe.contract.errors import AccessError, ConfigError, WsolError
    from wsolpipe.contract.extras import missing_package
    from wsolpipe.contract.nearest import shorten

    if isinstance(error, WsolError):
        return error
    if isinstance(error, ImportError):
        return missing_package(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        kind = ConfigError if error.errno in _NAMED_WRONGLY else AccessError
        hint = "a folder is needed there: name another place" if error.errno in _NO_FOLDER else None
        return kind(f"{shorten(str(error.filename))}: {error.strerror.lower()}", hint=hint)
    return None


def _fail(name: str, message: str, hint: str | None, code: int, *, as_json: bool) -> int:
    if as_json and not _answered[0]:  # a result that says what failed stands for itself
        print_json({"error": message, "hint": hint, "exit_code": code})
    more = f"\n  -> {hint}" if hint else ""
    print(f"{name}: {shown(message + more)}", file=sys.stderr)
    return code


def _survive_narrow_encodings() -> None:
    """Replace characters that the terminal's encoding lacks, such as – in Latin-1, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
