"""Errors of the file system in the words of a user; while a local file is written, with the file's name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def reason(error: Exception) -> str:
    """Say what went wrong with a file, without the number and the path that an OSError repeats.

    Examples
    --------
    >>> reason(FileExistsError(17, "File exists", "plots"))
    'file exists'
    """
    told = error.strerror if isinstance(error, OSError) else None
    return told.lower() if told else str(error)


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
