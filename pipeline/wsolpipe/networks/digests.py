"""sha256 of weights files, and the cache folder, which may be deleted at any time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path

#: A file touched this recently is hashed every time: clocks of file systems are coarse, and it may still be written.
SETTLED_SECONDS = 2.0


def cache_folder() -> Path:
    """Folder of what may be forgotten: ``$XDG_CACHE_HOME/wsolpipe``, or ``~/.cache/wsolpipe``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "wsolpipe"


def words_sha256(words: str) -> str:
    """sha256 of a text, for what is made from words and not from a file."""
    return hashlib.sha256(words.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes.

    The digest is kept in `cache_folder` under (real path, size, modification time); a cache that cannot be read or
    written costs time and nothing else.

    Raises
    ------
    OSError
        If the file itself cannot be read.
    """
    path = path.resolve()
    facts = path.stat()
    entry = cache_folder() / "sha256" / words_sha256(f"{path}|{facts.st_size}|{facts.st_mtime_ns}")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = entry.read_text()
        if re.fullmatch(r"[0-9a-f]{64}", known):
            return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - facts.st_mtime > SETTLED_SECONDS:
        with contextlib.suppress(OSError):
            remember(entry, digest)
    return digest


def remember(entry: Path, text: str) -> None:
    """Write a file of `cache_folder` in one step, so that no reader sees half of it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=entry.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(entry)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
