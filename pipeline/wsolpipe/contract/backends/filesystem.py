"""A store in a folder of this machine's file system."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from wsolpipe.contract.backends.base import ASIDE, Backend, Head
from wsolpipe.contract.errors import AccessError, StoreError
from wsolpipe.contract.layout import check_object_name, check_object_size

GUARD_PATIENCE = 10.0
GUARD_POLL = 0.02
#: Nanoseconds after which a second change of a file surely gives it another time.
SETTLED = 2_000_000_000


class LocalBackend(Backend):
    """A store in a folder. Objects appear by hard link (or exclusive rename), so no reader ever sees half of one."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._root = str(self.root).rstrip("/")
        self.url = str(root)
        self._guards: dict[Path, tuple[int, float]] = {}

    def _path(self, name: str) -> Path:
        return Path(self._plain_path(name))

    def _plain_path(self, name: str) -> str:
        return f"{self._root}/{check_object_name(name, self.url)}"

    @property
    def place(self) -> str:
        return os.path.realpath(self._root)

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        with self._opened(name) as (descriptor, size):
            check_object_size(name, size, limit, self.url)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        with self._opened(name) as (descriptor, _):
            return os.pread(descriptor, stop - start, start)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """Descriptor and size of an object's file, which is opened without waiting for a writer, as a pipe would."""
        path = self._plain_path(name)
        with self._explain("read", name):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link to itself, a socket
                    raise self._no_file(path) from error
                raise
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise self._no_file(path)
                yield descriptor, status.st_size
            finally:
                os.close(descriptor)

    def _no_file(self, path: str) -> StoreError:
        msg = f"{path} is not a regular file"
        return StoreError(msg, hint=f"wsolpipe repair store={self.url} moves it out of the way")

    def head(self, name: str) -> Head | None:
        path = self._plain_path(name)
        try:
            status = os.stat(path)  # noqa: PTH116 - called for every object; pathlib doubles its cost
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            raise self._explained(error, "look at", name) from error
        if not stat.S_ISREG(status.st_mode):
            return None
        stamp = f"{status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
        return Head(status.st_size, stamp, settled=time.time_ns() - status.st_ctime_ns > SETTLED)

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
            if not alone or not path.exists() or self.get(name) != expected:
                return False
            self.replace(name, data)
            return True

    def delete(self, name: str) -> None:
        path = self._plain_path(name)
        with self._explain("delete", name):
            try:
                os.unlink(path)  # noqa: PTH108 - as in `head`
            except FileNotFoundError:
                return
            except (IsADirectoryError, PermissionError) as error:
                if os.path.isdir(path):  # noqa: PTH112
                    raise self._no_file(path) from error
                raise

    def strays(self, folder: str) -> Iterator[str]:
        for path, mode in sorted(self._listed(self._path(folder))):
            if not stat.S_ISREG(mode):
                yield path.relative_to(self.root).as_posix()

    def set_aside(self, name: str) -> str:
        aside = self._path(f"{name}{ASIDE}")
        with self._explain("write", name):
            if aside.exists() or aside.is_symlink():
                aside = aside.with_name(f"{aside.name}-{secrets.token_hex(4)}")
            os.rename(self._plain_path(name), aside)  # noqa: PTH104 - a folder or a broken link too
        return aside.relative_to(self.root).as_posix()

    def names(self, folder: str) -> list[str]:
        with self._explain("list", folder or "names"):
            return sorted(entry.name + ("/" if _is_folder(entry) else "") for entry in self._entries(folder))

    def stamps(self, folder: str) -> dict[str, str]:
        found = {}
        for entry in self._entries(folder):
            with self._explain("look at", f"{folder}/{entry.name}"), contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                found[entry.name] = f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
        return found

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        place = self._path(folder) if folder else self.root
        try:
            with os.scandir(place) as entries:
                return [entry for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._explained(error, "list", folder or "names") from error

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        for path in sorted(self._files(self._path(folder) if folder else self.root)):
            if not path.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(self.root).as_posix(), path.stat().st_size

    def _files(self, base: Path) -> Iterator[Path]:
        """Regular files below a folder, symbolic links left out."""
        return (path for path, mode in self._listed(base) if stat.S_ISREG(mode) and not path.is_symlink())

    def _listed(self, base: Path) -> Iterator[tuple[Path, int]]:
        """Everything below a folder except folders, with its mode, 0 of a link to nothing or to itself.

        A folder that cannot be listed is an error.
        """

        def refuse(error: OSError) -> None:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise self._explained(error, "list", str(error.filename)) from error

        for folder, _, names in os.walk(base, onerror=refuse):
            for name in names:
                path = Path(folder, name)
                try:
                    yield path, path.stat().st_mode
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.ELOOP}:
                        raise self._explained(error, "look at", str(path)) from error
                    if path.is_symlink():
                        yield path, 0

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
        for path in sorted(self._files(self.root)):
            if path.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(self.root).as_posix(), now - path.stat().st_mtime

    @contextlib.contextmanager
    def _aside(self, path: Path, data: bytes, *, sync: bool = True) -> Iterator[Path]:
        """A complete file beside `path`, removed in the end."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            msg = f"store {self.url}: folder {path.parent} cannot be made: {error.strerror}"
            raise AccessError(msg, hint="choose a writable folder with store=FOLDER") from error
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
            if isinstance(error, StoreError) or error.errno is None:
                raise
            raise self._explained(error, verb, name) from error

    def _explained(self, error: OSError, verb: str, name: str) -> AccessError:
        """The error of a file system with object, store and next step."""
        hints = {
            errno.ENOSPC: "free some space and run the same command again: finished shards are kept",
            errno.EDQUOT: "raise the quota and run the same command again: finished shards are kept",
            errno.EROFS: "choose a writable folder with store=FOLDER",
            errno.EACCES: "choose a folder that you may use with store=…, or ask its owner for access",
        }
        msg = f"cannot {verb} {name} in store {self.url}: {error.strerror}"
        return AccessError(msg, hint=hints.get(error.errno or 0))

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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
