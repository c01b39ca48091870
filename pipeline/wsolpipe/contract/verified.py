"""Objects of a store that were held against their records: once a process, and noted for the next one.

The notes lie in this user's cache folder, a file a store: a line ``sha256 size stamp name`` says which bytes an object
had when its size and stamp (of a file: inode and times) were these. They are not part of the store, nothing that is
pulled brings them along, and losing them costs only that objects are hashed again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from wsolpipe.contract.backends.cache import cache_folder
from wsolpipe.contract.errors import TornShardError
from wsolpipe.contract.layout import digest, sha256_bytes, sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wsolpipe.contract.backends.base import Backend, Head
    from wsolpipe.contract.manifest import StoredObject

#: Bytes of notes from which on they are begun anew: more lines than any store has objects.
MOST_BYTES = 64 * 2**20


@dataclass
class Verified:
    """Knowledge about the objects of one store."""

    backend: Backend
    _known: dict[str, Head] = field(default_factory=dict)
    _noted: dict[str, str] = field(default_factory=dict)
    _read: int = 0

    def known_size(self, name: str) -> int | None:
        """Size of an object that was verified in this process and, where that is cheap to see, not changed since."""
        known = self._known.get(name)
        if known is None or (self.backend.is_local and (self.backend.head(name) or ())[:2] != known[:2]):
            return None
        return known.size

    def data(self, name: str, stored: StoredObject) -> bytes | None:
        """Verify an object; return its bytes if they had to be read for that.

        Raises
        ------
        TornShardError
            If it is missing or has other bytes than recorded.
        AccessError
            If it cannot be read.
        """
        read: list[bytes] = []

        def hashed() -> str:
            read.append(self.backend.get(name, limit=stored.bytes))
            return sha256_bytes(read[0])

        self._verify(name, stored, hashed)
        return read[0] if read else None

    def bytes(self, name: str, stored: StoredObject) -> bytes:
        """All bytes of an object, verified; raises as `data`."""
        data = self.data(name, stored)
        return self.backend.get(name, limit=stored.bytes) if data is None else data

    def file(self, name: str, stored: StoredObject) -> Path:
        """A file of this machine with the bytes of an object, verified, to be read only; raises as `data`."""
        found: list[Path] = []

        def hashed() -> str:
            found.append(self.backend.local_file(name))
            return sha256_file(found[0])

        self._verify(name, stored, hashed)
        return found[0] if found else self.backend.local_file(name)

    def judge(self, name: str, stored: StoredObject, part: str, judge: Callable[[], None]) -> None:
        """Call `judge`, which raises where a part of a verified object may not be read, once for each content."""
        head, entry = self._known.get(name), f"judged:{part}:{name}"
        note = f"{stored.sha256} {head.size} {head.stamp}" if head else ""
        if not note or self._note_of(entry) != note:
            judge()
            if head:
                self._add_note(entry, note, head)

    def _verify(self, name: str, stored: StoredObject, hashed: Callable[[], str]) -> None:
        head, wrong = self.backend.head(name), ""
        try:
            if head is None:
                self.backend.get(name, limit=stored.bytes)  # says what is there if it is not a file
                wrong = "is missing"
            elif head.size != stored.bytes:
                wrong = f"has {head.size} bytes, {stored.bytes} are recorded"
            elif self._note_of(name) != (note := f"{stored.sha256} {head.size} {head.stamp}"):
                if hashed() == stored.sha256:
                    self._add_note(name, note, head)
                else:
                    wrong = "has other bytes than recorded"
        except FileNotFoundError:
            wrong = "is missing"
        if wrong:
            self._known.pop(name, None)
            msg = f"{self.backend.url}/{name} {wrong}"
            raise TornShardError(
                msg, hint=f"wsolpipe repair store={self.backend.url} removes what is torn, run remakes it"
            )
        assert head is not None
        self._known[name] = head

    # -- notes of earlier processes, and of others that run now -----------------------------------------------------

    @cached_property
    def _path(self) -> Path:
        return cache_folder() / "verified" / digest(self.backend.place)[:32]

    def _note_of(self, name: str) -> str:
        """Return the last note of an object; empty without one."""
        with contextlib.suppress(OSError):
            size = os.stat(self._path).st_size  # noqa: PTH116 - asked for every object
            self._read = 0 if size < self._read else self._read  # begun anew by another process
            if size > self._read:
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    data, _, _ = file.read().rpartition(b"\n")
                self._read += len(data)
                for line in data.decode("utf-8", "replace").split("\n"):
                    note, _, noted = line.rpartition(" ")
                    self._noted[noted] = note
        return self._noted.get(name, "")

    def _add_note(self, name: str, note: str, head: Head) -> None:
        if not head.stamp or not head.settled or " " in name:
            return
        self._noted[name] = note
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if self._read > MOST_BYTES else os.O_APPEND)
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, f"\n{note} {name}\n".encode())
            finally:
                os.close(descriptor)
