"""The abstract class of every place where a store can be: objects by name, each created atomically."""

from __future__ import annotations

import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import ClassVar, NamedTuple

from wsolpipe.contract.errors import AccessError, ConfigError

#: Ending of the names of what was set aside.
ASIDE = ".damaged"


class Head(NamedTuple):
    """Facts about an object that are known without reading it.

    Attributes
    ----------
    size : int
        In bytes.
    stamp : str
        Changes whenever the object does; empty where the place has nothing of the kind.
    settled : bool
        Whether the stamp would change if the object were changed now: clocks of file systems tick coarsely.
    """

    size: int
    stamp: str = ""
    settled: bool = True


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="wsolpipe-", ignore_cleanup_errors=True)


class Backend(ABC):
    """Objects by name, names as slash-separated paths relative to the store.

    `wsolpipe.testing.BackendTests` is the test suite that every backend passes.

    Attributes
    ----------
    url : str
        Where the store is, without credentials.
    is_local : bool
        Whether `head` costs next to nothing, so that it may be asked before every read.
    """

    url: str
    is_local: ClassVar[bool] = False

    @abstractmethod
    def get(self, name: str, *, limit: int | None = None) -> bytes:
        """Read an object.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        StoreError
            If it has more than `limit` bytes, is not a regular file, or cannot be read.
        """

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Read bytes `start` … `stop` − 1 of an object, fewer where it ends before; raises as `get`."""
        return self.get(name)[start:stop]

    @abstractmethod
    def head(self, name: str) -> Head | None:
        """Size and stamp of an object, None if it does not exist."""

    def size(self, name: str) -> int | None:
        """Size of an object in bytes, None if it does not exist."""
        head = self.head(name)
        return None if head is None else head.size

    @property
    def place(self) -> str:
        """Where the store is, in one form for every spelling."""
        return self.url.rstrip("/")

    @abstractmethod
    def create(self, name: str, data: bytes, *, sync: bool = True) -> bool:
        """Put an object atomically unless it exists; return whether this call made it.

        With ``sync=False`` a power cut may lose it until `sync` was called on it; a killed process loses nothing.
        """

    def first_wins(self) -> bool:
        """Whether of two writers of one object only the first makes it, as work and maintenance rely on; tries it."""
        name = f"probe-{uuid.uuid4().hex}"
        try:
            return self.create(name, b"1") and not self.create(name, b"2") and self.get(name) == b"1"
        finally:
            with suppress(OSError):
                self.delete(name)

    def sync(self, names: Iterable[str]) -> None:  # noqa: B027 - where a put that is answered stays, nothing is to do
        """Return once these objects would outlive a power cut."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Put an object atomically, over an existing one."""

    @abstractmethod
    def swap(self, name: str, expected: bytes, data: bytes) -> bool:
        """Replace an object only if its bytes are still `expected`; return whether this call did."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; quiet if it does not exist."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names directly below `folder`, sorted; a sub-folder's name ends in a slash."""

    @abstractmethod
    def stamps(self, folder: str) -> dict[str, str]:
        """Objects directly below `folder` by name, each with a text that changes when the object does."""

    @abstractmethod
    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Every object below `folder` with its size."""

    def local_file(self, name: str) -> Path:
        """A file of this machine with an object's bytes, to be read only.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        return self._write_copy(self._scratch_folder(), name, self.get(name))

    def fetch_folder(self, folder: str) -> Path:
        """A folder of this machine with the objects below `folder`, to be read only."""
        target = self._scratch_folder()
        for name, _ in self.walk(folder):
            self._write_copy(target, name.removeprefix(f"{folder}/"), self.local_file(name).read_bytes())
        return target

    def _scratch_folder(self) -> Path:
        """A new folder that goes when this process ends: who reads a copy may outlive this object."""
        return Path(tempfile.mkdtemp(dir=_scratch().name))

    @staticmethod
    def _write_copy(base: Path, name: str, data: bytes) -> Path:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def strays(self, folder: str) -> Iterator[str]:  # noqa: ARG002 - only file systems have such things
        """Names below `folder` that are neither objects nor folders: links to nothing or to themselves, pipes."""
        return iter(())

    def set_aside(self, name: str) -> str:
        """Give an object, or whatever is in its place, a name that nothing reads; return that name."""
        aside = f"{name}{ASIDE}"
        self.replace(aside, self.get(name))
        self.delete(name)
        return aside

    def litter(self) -> Iterator[tuple[str, float]]:
        """Half-written objects that killed processes left, with their age in seconds."""
        return iter(())


def require_first_wins(backend: Backend) -> None:
    """Refuse to work in a store behind a URL whose service has no conditional puts; a folder is not asked.

    Raises
    ------
    ConfigError
        If a second put goes over the first, or puts with a condition are not known to the service.
    """
    if "://" not in backend.url or backend.url.startswith("file:"):
        return
    try:
        good = backend.first_wins()
    except AccessError as error:
        if "NotImplemented" not in error.message:
            raise
        good = False
    if not good:
        msg = f"the service behind {backend.url} has no conditional puts: two workers would overwrite each other"
        hint = "run in a folder, store=FOLDER, and copy it there; pull from= and open_store read such a store as it is"
        raise ConfigError(msg, hint=hint)
