"""The abstract class of every place where a store can be: objects by name, each created atomically."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Backend(ABC):
    """Objects by name, names as slash-separated paths relative to the store.

    `wsolpipe.testing.BackendTests` is the test suite that every backend passes.

    Attributes
    ----------
    url : str
        Where the store is, without credentials.
    """

    url: str

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

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Size of an object in bytes, None if it does not exist."""

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

    @abstractmethod
    def zarr_store(self, folder: str) -> Any:
        """A read-only Zarr store over `folder`, in which a missing shard object is an error (see `zarr`)."""

    @abstractmethod
    def local_file(self, name: str) -> Path:
        """A file of this machine with an object's bytes, to be read only.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """

    @abstractmethod
    def fetch_folder(self, folder: str) -> Path:
        """A folder of this machine with the objects below `folder`, to be read only."""

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
