"""Stores behind a URL: S3, Google Cloud Storage and Azure Blob Storage through obstore, with conditional puts.

Endpoint, region and credentials come from the environment: ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``
…, ``AWS_SKIP_SIGNATURE=true`` for public buckets; ``GOOGLE_APPLICATION_CREDENTIALS`` or ``GOOGLE_SERVICE_ACCOUNT``;
``AZURE_STORAGE_ACCOUNT_NAME`` and ``AZURE_STORAGE_ACCOUNT_KEY``. They are held in memory by obstore and written
nowhere; a URL that carries one is refused, because URLs are written.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import threading
import time
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from wsolpipe.contract.backends.base import Backend
from wsolpipe.contract.backends.cache import cacheable
from wsolpipe.contract.diagnosis import diagnose, may_pass
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.contract.layout import check_object_name, check_object_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.cache import Cache

T = TypeVar("T")
FIRST_PATIENCE = 5.0
PATIENCE = 60.0
LONGEST_PAUSE = 5.0
_answered: set[tuple[str, str | None]] = set()  # servers that this process reached before, by any of its handles


class ObjectBackend(Backend):
    """A store in a bucket. `create` is a put that fails where the object exists, `swap` one that names the ETag.

    Requests that fail for a passing reason are sent again for up to a minute, so that a link may be down for a while;
    `retried` counts them. A put whose answer was lost is recognised by its bytes.
    """

    def __init__(self, url: str, cache: Cache) -> None:
        self.url = url
        self.retried: Counter[str] = Counter()
        self.cache = cache
        self._lock = threading.Lock()

    @cached_property
    def _store(self) -> Any:
        return self._open(max_retries=0)

    def _open(self, *, max_retries: int) -> Any:
        options: Any = {"connect_timeout": "5s", "timeout": "120s", "allow_http": True}
        retry: Any = {"max_retries": max_retries}

        def make() -> Any:
            from obstore.store import from_url

            return from_url(self.url.rstrip("/"), client_options=options, retry_config=retry)

        return self._opened(make)

    def _opened(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ImportError as error:
            msg = f"stores behind a URL need obstore: {error}"
            raise ConfigError(msg, hint="pip install 'wsolpipe[s3]'") from error
        except Exception as error:
            self.fail("open", "", error)

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        import obstore

        check_object_name(name, self.url)

        def fetch() -> tuple[bytes, str]:
            answer = obstore.get(self._store, name)
            check_object_size(name, answer.meta["size"], limit, self.url)
            return bytes(answer.bytes()), str(answer.meta["e_tag"])

        data, tag = self._patiently("read", name, fetch)
        if cacheable(name):
            self.cache.put(self.url, name, tag, data)
        return data

    def _head(self, name: str) -> tuple[int, str] | None:
        """Size and ETag of an object, None if there is none."""
        import obstore

        check_object_name(name, self.url)
        try:
            meta = self._patiently("look at", name, lambda: obstore.head(self._store, name))
        except FileNotFoundError:
            return None
        return int(meta["size"]), str(meta["e_tag"])

    def tag(self, name: str) -> str | None:
        """ETag of an object: changes with its bytes; None if there is none."""
        head = self._head(name)
        return head[1] if head else None

    def size(self, name: str) -> int | None:
        head = self._head(name)
        return head[0] if head else None

    def create(self, name: str, data: bytes, *, sync: bool = True) -> bool:  # noqa: ARG002 - a put that is answered stays
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        check_object_name(name, self.url)
        unsure = False

        def put() -> bool:
            nonlocal unsure
            try:
                obstore.put(self._store, name, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return unsure and self.get(name) == data  # an earlier try may have arrived though its answer did not
            except Exception:
                unsure = True
                raise
            return True

        return self._patiently("write", name, put)

    def replace(self, name: str, data: bytes) -> None:
        import obstore

        check_object_name(name, self.url)
        self._patiently("write", name, lambda: obstore.put(self._store, name, data, use_multipart=False))

    def swap(self, name: str, expected: bytes, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        check_object_name(name, self.url)
        unsure = False

        def exchange() -> bool:
            nonlocal unsure
            try:
                answer = obstore.get(self._store, name)
                present = bytes(answer.bytes())
                if present != expected:
                    return unsure and present == data
                known = {name: answer.meta.get(name) for name in ("e_tag", "version")}  # Google compares versions
                mode: Any = {name: str(value) for name, value in known.items() if value is not None}
                obstore.put(self._store, name, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return False
            except Exception:
                unsure = True
                raise
            return True

        return self._patiently("write", name, exchange)

    def delete(self, name: str) -> None:
        import obstore

        check_object_name(name, self.url)
        try:
            self._patiently("delete", name, lambda: obstore.delete(self._store, name))
        except FileNotFoundError:
            return

    def names(self, folder: str) -> list[str]:
        import obstore

        if folder:
            check_object_name(folder, self.url)
        found = self._patiently("list", folder, lambda: obstore.list_with_delimiter(self._store, folder or None))
        names = [item["path"].rpartition("/")[2] for item in found["objects"]]
        names += [path.rstrip("/").rpartition("/")[2] + "/" for path in found["common_prefixes"]]
        return sorted(name for name in names if not name.startswith("."))

    def stamps(self, folder: str) -> dict[str, str]:
        import obstore

        check_object_name(folder, self.url)
        found = self._patiently("list", folder, lambda: obstore.list_with_delimiter(self._store, folder))
        return {item["path"].rpartition("/")[2]: str(item["e_tag"]) for item in found["objects"]}

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        import obstore

        def gather() -> list[tuple[str, int]]:
            listed = obstore.list(self._store, folder or None)
            return [(item["path"], item["size"]) for part in listed for item in part]

        for name, size in sorted(self._patiently("list", folder, gather)):
            if not name.rpartition("/")[2].startswith("."):
                yield name, size

    def zarr_store(self, folder: str) -> Any:
        from wsolpipe.contract.backends.zarr import remote_store

        return remote_store(self._open(max_retries=10), self, folder)

    def keeps(self, name: str) -> bool:
        """Whether the cache keeps this object."""
        return self.cache.bound > 0 and cacheable(name)

    def cached_file(self, name: str, tag: str) -> Path | None:
        """File of the cache with the bytes that an object has under this tag, None if they are not kept."""
        return self.cache.path(self.url, name, tag)

    def local_file(self, name: str) -> Path:
        """A file of this machine with the bytes of an object, in the cache or in a folder that goes with this object.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        head = self._head(name)
        if head is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{name}")
        cached = self.cached_file(name, head[1])
        if cached is not None:
            return cached
        data = self.get(name)
        cached = self.cached_file(name, head[1])
        if cached is not None:
            return cached
        return self._write_copy(self._scratch_path("file", head[1]), name, data)

    def fetch_folder(self, folder: str) -> Path:
        """A folder of this machine with copies of the objects directly or deeper below `folder`."""
        target = self._scratch_path("folder", "")
        target.mkdir()
        for name, _ in self.walk(folder):
            self._write_copy(target, name.removeprefix(f"{folder}/"), self.local_file(name).read_bytes())
        return target

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="wsolpipe-", ignore_cleanup_errors=True)

    def _scratch_path(self, kind: str, tag: str) -> Path:
        with self._lock:
            base = Path(self._scratch.name)
            return base / f"{kind}-{len(list(base.iterdir()))}-{re.sub('[^0-9A-Za-z]', '', tag)[:16]}"

    @staticmethod
    def _write_copy(base: Path, name: str, data: bytes) -> Path:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    # -- failures ------------------------------------------------------------------------------------------------

    def _patiently(self, verb: str, name: str, act: Callable[[], T]) -> T:
        """Result of `act`, called again while its failures may pass."""
        began, pause, tries = time.monotonic(), 0.1, 0
        server = (urlsplit(self.url).netloc, os.environ.get("AWS_ENDPOINT_URL"))
        while True:
            tries += 1
            try:
                result = act()
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                    self.fail(verb, name, error)
                _answered.add(server)
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{name}") from None
            except Exception as error:
                patience = PATIENCE if server in _answered else FIRST_PATIENCE
                if isinstance(error, StoreError):
                    raise
                # Once more in any case: on a busy machine one try alone may take all of the patience.
                if not may_pass(error) or (tries > 1 and time.monotonic() - began > patience):
                    self.fail(verb, name, error)
                with self._lock:
                    self.retried[verb] += 1
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                _answered.add(server)
                return result

    def fail(self, verb: str, name: str, error: Exception) -> NoReturn:
        """Raise what a failed request means as a StoreError."""
        text, hint = diagnose(error, self.url)
        msg = f"cannot {verb} {name or 'names'} in store {self.url}: {text}"
        raise AccessError(msg, hint=hint) from ConnectionError(text)
