"""Errors of the file system while a local file is written, as one line that names the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise AccessError with the path and the next step where the block meets a full disk or a missing permission."""
    try:
        yield
    except AccessError:
        raise
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        hint = f"df -h {path.parent} shows the free space; the same command continues from the last saved state"
        raise AccessError(msg, hint=hint) from error
