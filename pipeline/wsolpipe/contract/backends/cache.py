"""A read-through cache for stores behind a URL: whole objects, by URL, name and ETag, within a size bound.

``WSOLPIPE_CACHE`` names the folder (default: ``wsolpipe`` in the user's cache folder) and ``WSOLPIPE_CACHE_GB`` the
bound (default 16; 0 turns the cache off). Only objects that never change in place are kept: array shards, artifact
files, tables. An entry is hashed before its first use in a process: a damaged one is removed and fetched again.
Before an entry is evicted, its store is checked to hold those bytes still.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.contract.layout import digest, read_json, sha256_bytes, sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsolpipe.contract.backends.base import Backend

DEFAULT_GB = 16.0
SWEEP_SHARE = 0.05


def cache_folder() -> Path:
    """Folder of this user for what can be had again, as ``WSOLPIPE_CACHE`` or ``XDG_CACHE_HOME`` names it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - no home is fine here
    return Path(os.environ.get("WSOLPIPE_CACHE") or Path(base) / "wsolpipe")


def cacheable(name: str) -> bool:
    """Whether the cache keeps the object: shards, artifact files and tables."""
    return "/data.zarr/" in name or "/files/" in name or name.endswith(".parquet")


@dataclass
class Cache:
    """Files named by a digest of (URL, name, ETag), each with a note of what it is; shared by processes.

    Parameters
    ----------
    folder : Path
    bound : int
        Bytes; 0 keeps nothing.
    open_store : callable
        From a URL to the store whose objects are kept, asked before an entry is evicted.
    """

    folder: Path
    bound: int
    open_store: Callable[[str], Backend]
    _added: int = -1
    _checked: set[Path] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_environment(cls, open_store: Callable[[str], Backend]) -> Cache:
        """The cache that the environment asks for.

        Raises
        ------
        ConfigError
            If ``WSOLPIPE_CACHE_GB`` is not a number.
        """
        text = os.environ.get("WSOLPIPE_CACHE_GB", str(DEFAULT_GB))
        try:
            return cls(cache_folder(), int(float(text) * 2**30), open_store)
        except (ValueError, OverflowError) as error:
            msg = f"WSOLPIPE_CACHE_GB={text}: expected a number of GiB, 0 for no cache"
            raise ConfigError(msg) from error

    def _entry(self, url: str, name: str, tag: str) -> Path:
        entry = digest([url, name, tag])
        return self.folder / entry[:2] / entry

    def path(self, url: str, name: str, tag: str) -> Path | None:
        """File with the bytes of an object, None if the cache does not hold them intact."""
        entry = self._entry(url, name, tag)
        try:
            os.utime(entry)  # the time of last use
            if entry not in self._checked:
                if sha256_file(entry) != _note(entry)["sha256"]:
                    self._remove(entry)
                    return None
                self._checked.add(entry)
        except (OSError, ValueError, KeyError, TypeError):  # not there, or without the digest that tells it is intact
            self._remove(entry)
            return None
        return entry

    def _remove(self, entry: Path) -> None:
        self._checked.discard(entry)
        with contextlib.suppress(OSError):
            entry.unlink(missing_ok=True)
            entry.with_suffix(".json").unlink(missing_ok=True)

    def put(self, url: str, name: str, tag: str, data: bytes) -> None:
        """Keep the bytes of an object; a cache that cannot be written only costs speed."""
        if len(data) > self.bound:
            return
        entry = self._entry(url, name, tag)
        with contextlib.suppress(OSError):
            if entry.exists():
                return
            if not self._make_room(len(data)):
                return
            note = {"url": url, "name": name, "tag": tag, "bytes": len(data), "sha256": sha256_bytes(data)}
            entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path, content in ((entry.with_suffix(".json"), json.dumps(note).encode()), (entry, data)):
                aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
                try:
                    aside.write_bytes(content)
                    aside.replace(path)
                finally:
                    aside.unlink(missing_ok=True)

    def _make_room(self, size: int) -> bool:
        """Sweep if this process wrote enough since the last sweep; return whether `size` bytes fit."""
        with self._lock:
            if 0 <= self._added < SWEEP_SHARE * self.bound - size:
                self._added += size
                return True
            kept = self._sweep(self.bound - size)
            fits = kept + size <= self.bound
            # With less than that share left below the bound, sweep again at the next put.
            self._added = size if fits and kept + size <= (1 - SWEEP_SHARE) * self.bound else -1
            return fits

    def _sweep(self, wanted: int) -> int:
        """Evict the least recently used entries until at most `wanted` bytes are left; return how many are left."""
        entries = []
        for path in self.folder.glob("??/" + "[0-9a-f]" * 64):
            with contextlib.suppress(OSError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        stores: dict[str, Backend] = {}
        for _, size, path in sorted(entries):
            if total <= wanted:
                break
            if self._can_be_fetched_again(path, stores):
                self._remove(path)
                total -= size
        return total

    def _can_be_fetched_again(self, entry: Path, stores: dict[str, Backend]) -> bool:
        """Whether the store still has exactly these bytes; not if it is out of reach. `stores` keeps opened ones."""
        try:
            note = _note(entry)
            if note["url"] not in stores:
                stores[note["url"]] = self.open_store(note["url"])
            head = stores[note["url"]].head(note["name"])
            return head is not None and head.stamp == str(note["tag"])
        except (OSError, ValueError, KeyError, TypeError, WsolError):
            return False


def _note(entry: Path) -> dict[str, str]:
    note = read_json(entry.with_suffix(".json").read_bytes())
    if not isinstance(note, dict):
        msg = f"{entry} has no note"
        raise TypeError(msg)
    return note
