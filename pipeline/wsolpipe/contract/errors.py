"""The errors a user can meet, one root for all of them, each with the exit code that the command line returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

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
