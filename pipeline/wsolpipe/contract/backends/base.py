"""Where the bytes of a store lie: a small protocol with atomic creation, and its file system form."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.contract.layout import check_object_name, check_object_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GUARD_PATIENCE = 10.0
GUARD_POLL = 0.02


class Backend(Protocol):
    """Objects by name, names as slash-separated paths relative to the store."""

    url: str

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        """Bytes of an object; FileNotFoundError if there is none, StoreError if it has more than `limit` bytes."""

    def size(self, name: str) -> int | None:
        """Size of an object in bytes, None if there is none."""

    def create(self, name: str, data: bytes, *, sync: bool = True) -> bool:
        """Put an object atomically unless it exists; tell whether this call made it.

        With ``sync=False`` a power cut may lose it until `sync` was called on it; a killed process loses nothing.
        """

    def sync(self, names: Iterable[str]) -> None:
        """Return once these objects would outlive a power cut."""

    def replace(self, name: str, data: bytes) -> None:
        """Put an object atomically, over an existing one."""

    def swap(self, name: str, expected: bytes, data: bytes) -> bool:
        """Replace an object only if its bytes are still `expected`."""

    def delete(self, name: str) -> None:
        """Remove an object; quiet if there is none."""

    def names(self, folder: str) -> list[str]:
        """Names directly below `folder`, sorted; a sub-folder's name ends in a slash."""

    def stamps(self, folder: str) -> dict[str, str]:
        """Objects directly below `folder` by name, each with a text that is another one once the object is."""

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Every object below `folder` with its size."""

    def zarr_store(self, folder: str) -> Any:
        """A read-only Zarr store over `folder`."""

    def local_file(self, name: str) -> Path:
        """A file of this machine with an object's bytes, to be read only; FileNotFoundError if there is none."""

    def fetch_folder(self, folder: str) -> Path:
        """A folder of this machine with the objects below `folder`, to be read only."""

    def litter(self) -> Iterator[tuple[str, float]]:
        """Half-written objects that killed processes left, with their age in seconds."""


class LocalBackend:
    """A store in a folder. Objects appear by hard link (or exclusive rename), so no reader ever sees half of one."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._root = str(self.root).rstrip("/")
        self.url = str(root)
        self._guards: dict[Path, tuple[int, float]] = {}

    def _path(self, name: str) -> Path:
        return Path(self._plain_path(name))

    def _plain_path(self, name: str) -> str:
        return f"{self._root}/{check_object_name(name, self.url)}"

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        with self._explain("read", name), open(self._plain_path(name), "rb") as file:  # noqa: PTH123 - as in `size`
            check_object_size(name, os.fstat(file.fileno()).st_size, limit, self.url)
            return file.read()

    def size(self, name: str) -> int | None:
        try:
            return os.stat(self._plain_path(name)).st_size  # noqa: PTH116 - asked of every object; pathlib doubles it
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            with self._explain("look at", name):
                raise

    def create(self, name: str, data: bytes, *, sync: bool = True) -> bool:
        path = self._path(name)
        with self._explain("write", name):
            if path.exists():
                return False
            with self._aside(path, data, sync=sync) as aside:
                made = self._put_new(aside, path)
            if made and sync:
                _sync(path.parent)
            return made

    def sync(self, names: Iterable[str]) -> None:
        # The names of new files go with them: ext4, XFS and Btrfs write out what leads to a file before they answer.
        for name in names:
            with self._explain("write", name), contextlib.suppress(FileNotFoundError):
                _sync(self._plain_path(name))

    def _put_new(self, aside: Path, path: Path) -> bool:
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
                raise
        else:
            return True
        while not path.exists():  # no hard links here: exclude other writers, then rename
            with self._guard(path) as alone:
                if alone and not path.exists():
                    aside.rename(path)
                    return True
            time.sleep(GUARD_POLL)
        return False

    def replace(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._explain("write", name), self._aside(path, data) as aside:
            aside.replace(path)

    def swap(self, name: str, expected: bytes, data: bytes) -> bool:
        path = self._path(name)
        with self._explain("write", name), self._guard(path) as alone:
            if not alone or not path.exists() or path.read_bytes() != expected:
                return False
            self.replace(name, data)
            return True

    def delete(self, name: str) -> None:
        with self._explain("delete", name), contextlib.suppress(FileNotFoundError):
            os.unlink(self._plain_path(name))  # noqa: PTH108 - as in `size`

    def names(self, folder: str) -> list[str]:
        with self._explain("list", folder):
            try:
                with os.scandir(self._path(folder) if folder else self.root) as entries:
                    return sorted(
                        entry.name + ("/" if entry.is_dir() else "")
                        for entry in entries
                        if not entry.name.startswith(".")
                    )
            except (FileNotFoundError, NotADirectoryError):
                return []

    def stamps(self, folder: str) -> dict[str, str]:
        found = {}
        with (
            self._explain("list", folder),
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self._path(folder)) as entries,
        ):
            for entry in entries:
                if not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        found[entry.name] = f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
        return found

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        base = self._path(folder) if folder else self.root
        for path in sorted(base.rglob("*")):
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                yield path.relative_to(self.root).as_posix(), path.stat().st_size

    def zarr_store(self, folder: str) -> Any:
        from zarr.storage import LocalStore

        return LocalStore(self._path(folder), read_only=True)

    def local_path(self, name: str) -> Path:
        """Path of an object on this machine's file system."""
        return self._path(name)

    def local_file(self, name: str) -> Path:
        path = self._path(name)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path

    def fetch_folder(self, folder: str) -> Path:
        return self._path(folder)

    def litter(self) -> Iterator[tuple[str, float]]:
        now = time.time()
        for path in sorted(self.root.rglob(".*")):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self.root).as_posix(), now - path.stat().st_mtime

    @contextlib.contextmanager
    def _aside(self, path: Path, data: bytes, *, sync: bool = True) -> Iterator[Path]:
        """A complete file beside `path`, removed in the end."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            msg = f"store {self.url}: folder {path.parent} cannot be made: {error.strerror}"
            raise AccessError(msg, hint="choose a writable folder with store=…") from error
        aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with aside.open("xb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explain(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            hints = {
                errno.ENOSPC: "free some space and run the same command again: finished shards are kept",
                errno.EDQUOT: "raise the quota and run the same command again: finished shards are kept",
                errno.EROFS: "choose a writable folder with store=…",
                errno.EACCES: "choose a writable folder with store=…, or ask its owner for access",
            }
            if isinstance(error, StoreError) or error.errno is None:
                raise
            msg = f"cannot {verb} {name} in store {self.url}: {error.strerror}"
            raise AccessError(msg, hint=hints.get(error.errno)) from error

    @contextlib.contextmanager
    def _guard(self, path: Path) -> Iterator[bool]:
        """Hold a marker beside `path` that one process can hold at a time; yield whether this one does.

        Its maker may have been killed at it: a marker that stands still for a while *by this process's own clock* is
        broken.
        """
        marker = path.with_name(f".{path.name}.guard")
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                made, now = marker.stat().st_mtime_ns, time.monotonic()
                seen, since = self._guards.setdefault(path, (made, now))
                if seen != made:
                    self._guards[path] = (made, now)
                elif now - since > GUARD_PATIENCE:
                    marker.unlink()
            yield False
            return
        except FileNotFoundError:  # not even a folder to hold it
            yield False
            return
        self._guards.pop(path, None)
        try:
            yield True
        finally:
            marker.unlink(missing_ok=True)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_backend(url: str) -> Backend:
    """Backend of a store's URL or folder.

    Raises
    ------
    ConfigError
        If the URL's scheme is not supported, or what it needs is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalBackend(Path(unquote(parts.path)))
    if parts.scheme in {"s3", "http", "https"}:
        from wsolpipe.contract.backends.objects import open_remote

        return open_remote(url)
    if parts.scheme and len(parts.scheme) > 1:
        msg = f"store={url}: stores of scheme {parts.scheme!r} are not supported"
        raise ConfigError(msg, hint="valid: a folder, file://…, s3://bucket/folder, https://… (read-only)")
    return LocalBackend(Path(url))
