"""This machine: differences between operating systems, and errors of the file system in the words of a user."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsolpipe.contract.errors import AccessError, ConfigError


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
