"""The errors a user can meet, their exit codes, the nearest known names, and what this machine says of a file."""

from __future__ import annotations

import difflib
import getpass
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


#: How libraries say that memory is full: Python, Arrow, torch, cuBLAS, cuDNN (which then finds no algorithm), NVRTC.
_NO_MEMORY = re.compile(
    r"out of memory|out_of_memory|alloc(ation)?_failed|(cannot|can't|unable to) allocate|insufficient memory"
    r"|can't start new thread|valid cudnn algorithm",
    re.IGNORECASE,
)


class WsolError(Exception):
    """Root of every error that wsolpipe raises on purpose.

    Parameters
    ----------
    message : str
        What went wrong and where (file, line, row, shard …).
    hint : str, optional
        What to do next, best as a command that can be typed.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not cross process borders by themselves.
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: type[WsolError], message: str, hint: str | None) -> WsolError:
    return kind(message, hint=hint)


class ConfigError(WsolError, ValueError):
    """A key, value, stage, data set or model that cannot be used; found before work starts."""

    exit_code = 3


class DataError(WsolError, ValueError):
    """Metadata of a data set contradicts itself or its files."""

    exit_code = 3


class BadImageError(DataError):
    """One image file cannot be decoded; its row is quarantined and the run goes on."""


class WeightsError(WsolError):
    """A weights file is missing, is not what it claims, or does not fit the architecture."""

    exit_code = 3


class StoreError(WsolError, OSError):
    """A store is unreadable, damaged or of another schema."""

    exit_code = 4


class NotFoundError(StoreError):
    """A store, or a data set, split, stage, key or array of it, is not there: mistyped, or not made yet."""

    exit_code = 3


class AccessError(StoreError):
    """A store or an object of it could not be read or written (permission, network, disk); its bytes are not known."""


class SchemaMismatch(StoreError):
    """A store was written by a newer schema than this version reads."""


class TornShardError(StoreError):
    """A shard's objects do not agree with its commit record."""


class FingerprintMismatch(StoreError):
    """A store folder holds another stage key than its name says."""


class ClusterError(WsolError):
    """Workers could not be started or were lost for good."""

    exit_code = 1


class DeviceError(ClusterError):
    """A GPU, its driver or the link between GPUs failed: the worker ends, no row is to blame, and another goes on."""


class RunFailed(WsolError):
    """A run ended without finishing its stages."""

    exit_code = 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of this machine or of a device ran out, however a library says it.

    Extension modules whose allocation fails may raise a SystemError instead of a MemoryError.
    """
    return any(
        isinstance(each, (MemoryError, SystemError))
        or "OutOfMemory" in type(each).__name__
        or _NO_MEMORY.search(str(each))
        for each in error_chain(error)
    )


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:  # an error raised again may name itself
        seen.append(each)
        yield each
        each = each.__cause__


def first_line(error: BaseException) -> str:
    """First line of an error's text, or its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def because(error: BaseException) -> str:
    """Say why a file could not be read or written, without its number and path; of other errors their text."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def raise_as(
    kind: type[WsolError],
    message: str,
    *caught: type[Exception],
    hint: str | None = None,
    say: Callable[[Exception], str] | None = because,
) -> Iterator[None]:
    """Turn errors of the types `caught` into one of `kind`: the message, a colon and why.

    Parameters
    ----------
    kind : type of WsolError
        What is raised instead.
    message : str
        What went wrong and where.
    *caught : types of exceptions
        Others pass.
    hint : str, optional
        As that of `WsolError`.
    say : callable, optional
        Words for the error; None where the message says all.
    """
    try:
        yield
    except caught as error:
        raise kind(f"{message}: {say(error)}" if say else message, hint=hint) from error


#: Characters of a user's word that an error message repeats.
LONGEST = 80

#: Likeness from which on a name may have been meant.
CUTOFF = 0.5
#: Name of a split -> how else it is called.
_LONGER = {"train": ("training",), "val": ("valid", "validation", "dev"), "test": ("testing",)}
#: Names that an error message lists; of more, only those that are near.
MOST_LISTED = 60


def shorten(text: str) -> str:
    """`text` as an error message shows it: cut after `LONGEST` characters, with its length.

    Examples
    --------
    >>> shorten("proposals"), shorten("a" * 5000)[-23:]
    ('proposals', 'a… (5,000 characters)')
    """
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def nearest(given: str, valid: Iterable[str], *, cutoff: float = CUTOFF) -> str | None:
    """The nearest of `valid`: equal but for case, else begun by it, else as like it as `cutoff` (1: equal) or None.

    Examples
    --------
    >>> nearest("SAM", ["cams", "sam_boxes"]), nearest("validation", ["train", "val"]), nearest("x", ["train"])
    ('sam_boxes', 'val', None)
    """
    if len(given) > LONGEST:
        return None
    names, low = sorted(set(valid)), given.lower()
    same = [name for name in names if name.lower() == low]
    begun = [name for name in names if name.lower().startswith(f"{low}_") or low in _LONGER.get(name, ())]
    close = same or begun[:1] or difflib.get_close_matches(given, names, n=1, cutoff=cutoff)
    return close[0] if close else None


def guess(given: str, valid: Iterable[str], *, cutoff: float = CUTOFF) -> str:
    """``; did you mean 'NAME'?`` with the nearest of `valid`, empty where none is near.

    Examples
    --------
    >>> guess("lables", ["labels", "photos"]), guess("x", ["photos"])
    ("; did you mean 'labels'?", '')
    """
    close = nearest(given, valid, cutoff=cutoff)
    return f"; did you mean {close!r}?" if close else ""


def guess_path(given: str | Path, pattern: str = "*") -> str:
    """As `guess`, among what else lies in the same folder and matches `pattern`."""
    path = Path(given)
    try:
        names = {entry.stem: entry.name for entry in path.parent.glob(pattern) if entry.name != path.name}
    except OSError:
        return ""
    close = nearest(path.name, names.values(), cutoff=0.9) or names.get(nearest(path.stem, names) or "")
    return f"; did you mean {close!r}?" if close else ""


def unknown(kind: str, given: str, valid: Iterable[str]) -> str:
    """Say that `given` is not a known `kind`, name the nearest of `valid`, and list them all up to `MOST_LISTED`.

    Examples
    --------
    >>> unknown("stage", "proposal", ["cls_maps", "proposals"])
    "unknown stage 'proposal'; did you mean 'proposals'? Valid: cls_maps, proposals"
    """
    names = sorted(set(valid))
    listed = f"Valid: {', '.join(names) or 'none'}"
    if len(names) > MOST_LISTED:
        part = sorted((name for name in names if given and given.lower() in name.lower()), key=len)
        close = difflib.get_close_matches(given, names, n=6, cutoff=CUTOFF) if len(given) <= LONGEST else []
        close = part[:6] or close
        listed = f"Near: {', '.join(close)}" if close else f"There are {len(names):,}, none of a name like it"
    return f"unknown {kind} {shorten(given)!r}{guess(given, names) or '.'} {listed}"


#: First word of a pydantic error type -> the kind of value that was expected.
_EXPECTED = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text", "list": "a list",
    "tuple": "a list", "dict": "a mapping such as {name: value}", "model": "a mapping such as {name: value}",
    "none": "null", "path": "a path", "finite_number": "a finite number", "decimal": "a number",
}  # fmt: skip
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"), "greater_than": ("above", "gt"), "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}  # fmt: skip


def explain(item: ErrorDetails | Mapping[str, Any]) -> str:
    """One error of ``ValidationError.errors()`` without its place: ``expected a whole number``, ``must be above 0``."""
    kind, context = str(item["type"]), item.get("ctx") or {}
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}"
    if kind in {"too_short", "too_long"}:
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"needs {bound} items"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "unknown key"
    expected = _EXPECTED.get(kind) or _EXPECTED.get(kind.partition("_")[0])
    if expected is not None:
        return f"expected {expected}"
    return str(item["msg"]).removeprefix("Value error, ")


def _spelled(value: Any) -> str:
    """A value as it is typed."""
    return shorten(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def explain_one(items: Iterable[ErrorDetails]) -> str:
    """The errors of one value without its place; a key of several kinds has an error for each."""
    first, *others = dict.fromkeys(map(explain, items))
    return first + "".join(f" or {text.removeprefix('expected ')}" for text in others)


def explain_all(error: ValidationError, *, values: bool = False, prefix: str = "") -> str:
    """Every error in one line, each with its place.

    Parameters
    ----------
    values : bool
        Show the value that was refused, as ``key=value``.
    prefix : str
        Goes before each place, such as ``cls_maps.``.
    """
    lines = []
    for _, group in groupby(error.errors(), key=lambda item: (item["loc"][:1], repr(item["input"]))):
        items = list(group)
        place = ".".join(str(part) for part in commonprefix([item["loc"] for item in items]))
        text = explain_one(items)
        shown = f"={_spelled(items[0]['input'])}" if values and place and items[0]["type"] != "missing" else ""
        where = f"{prefix}{place}{shown}" if place else prefix.rstrip(".")
        lines.append(f"{where}: {text}" if where else text)
    return "; ".join(lines)


def cores() -> int:
    """Cores that this process may run on; all of the machine's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def user() -> str:
    """The user in names of private folders: the numeric id, or the login name on systems without one."""
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


def reason(error: Exception) -> str:
    """Say what went wrong with a file, without the number and the path that an OSError repeats.

    Examples
    --------
    >>> reason(FileExistsError(17, "File exists", "plots"))
    'file exists'
    """
    text = error.strerror if isinstance(error, OSError) else None
    return text.lower() if text else str(error)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise AccessError with the path and the next step where the block meets a full disk or a missing permission.

    Raises
    ------
    ConfigError
        If a file is where a folder should be, or the other way round: the path was mistyped.
    """
    try:
        yield
    except AccessError:
        raise
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        msg = f"{path} cannot be written: {reason(error)}"
        raise ConfigError(msg, hint="name another place with out=") from error
    except OSError as error:
        msg = f"{path} cannot be written: {reason(error)}"
        hint = f"df -h {path.parent} shows the free space; the same command continues from the last saved state"
        raise AccessError(msg, hint=hint) from error
