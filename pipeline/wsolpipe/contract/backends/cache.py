"""A read-through cache for stores behind a URL: whole objects, by URL, name and ETag, within a size bound.

``WSOLPIPE_CACHE`` names the folder (default: ``wsolpipe`` in the user's cache folder) and ``WSOLPIPE_CACHE_GB`` the
bound (default 16; 0 turns the cache off). Only objects that never change in place are kept: array shards, artifact
files, tables. What is evicted was looked at first: the store still has those bytes.
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

from wsolpipe.contract.canonical import digest
from wsolpipe.contract.errors import ConfigError, WsolError

if TYPE_CHECKING:
    from wsolpipe.contract.backends.objects import ObjectBackend

DEFAULT_GB = 16.0
SWEEP_SHARE = 0.05


def cacheable(name: str) -> bool:
    """Whether the object is one of those worth keeping: shards, artifact files and tables."""
    return "/data.zarr/" in name or "/files/" in name or name.endswith(".parquet")


@dataclass
class Cache:
    """Files named by a digest of (URL, name, ETag), each with a note of what it is; shared by processes."""

    folder: Path
    bound: int
    _added: int = -1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_environment(cls) -> Cache:
        """The cache that the environment asks for.

        Raises
        ------
        ConfigError
            If ``WSOLPIPE_CACHE_GB`` is no number.
        """
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - no home is fine here
        folder = Path(os.environ.get("WSOLPIPE_CACHE") or Path(base) / "wsolpipe")
        text = os.environ.get("WSOLPIPE_CACHE_GB", str(DEFAULT_GB))
        try:
            return cls(folder, int(float(text) * 2**30))
        except ValueError as error:
            msg = f"WSOLPIPE_CACHE_GB={text}: expected a number of GiB, 0 for no cache"
            raise ConfigError(msg) from error

    def _entry(self, url: str, name: str, tag: str) -> Path:
        entry = digest([url, name, tag])
        return self.folder / entry[:2] / entry

    def path(self, url: str, name: str, tag: str) -> Path | None:
        """File with the bytes of an object, None if they are not here."""
        entry = self._entry(url, name, tag)
        try:
            os.utime(entry)  # the time of last use
        except OSError:
            return None
        return entry

    def put(self, url: str, name: str, tag: str, data: bytes) -> None:
        """Keep the bytes of an object. A cache that cannot be written costs speed, nothing else."""
        if len(data) > self.bound:
            return
        entry = self._entry(url, name, tag)
        with contextlib.suppress(OSError):
            if entry.exists():
                return
            if not self._make_room(len(data)):
                return
            note = {"url": url, "name": name, "tag": tag, "bytes": len(data)}
            entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path, content in ((entry.with_suffix(".json"), json.dumps(note).encode()), (entry, data)):
                aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
                try:
                    aside.write_bytes(content)
                    aside.replace(path)
                finally:
                    aside.unlink(missing_ok=True)

    def _make_room(self, size: int) -> bool:
        """Sweep if this process wrote enough since it last looked; tell whether `size` bytes fit."""
        with self._lock:
            if 0 <= self._added < SWEEP_SHARE * self.bound - size:
                self._added += size
                return True
            kept = self._sweep(self.bound - size)
            fits = kept + size <= self.bound
            # With less than the share left before the bound, look again at the next put.
            self._added = size if fits and kept + size <= (1 - SWEEP_SHARE) * self.bound else -1
            return fits

    def _sweep(self, wanted: int) -> int:
        """Evict what was not used for longest until at most `wanted` bytes are here; return how many there are."""
        entries = []
        for path in self.folder.glob("??/" + "[0-9a-f]" * 64):
            with contextlib.suppress(OSError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        stores: dict[str, ObjectBackend] = {}
        for _, size, path in sorted(entries):
            if total <= wanted:
                break
            if _can_be_fetched_again(path, stores):
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                total -= size
        return total


def _can_be_fetched_again(entry: Path, stores: dict[str, ObjectBackend]) -> bool:
    """Whether the store still has exactly these bytes. Out of reach means no. Opened `stores` are kept for the next."""
    from wsolpipe.contract.backends.objects import open_remote

    try:
        note = json.loads(entry.with_suffix(".json").read_bytes())
        store = stores.setdefault(note["url"], open_remote(note["url"]))
        return store.tag(note["name"]) == str(note["tag"])
    except (OSError, ValueError, KeyError, TypeError, WsolError):
        return False
