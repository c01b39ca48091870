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
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

from wsolpipe.contract.backends.base import Backend, Head
from wsolpipe.contract.backends.cache import Cache, cacheable
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.contract.layout import check_object_name, check_object_size

_SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_TOKEN", "GOOGLE_SERVICE_ACCOUNT_KEY", "HF_TOKEN",
)  # fmt: skip
#: Scheme of a store -> the variables that give access to it.
_ACCESS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true if it is public",
    "hf": "HF_TOKEN",
}
_SERVICES = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure"}
NOT_IMPLEMENTED = 501
_PASSING = {408, 409, 425, 429}


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed when repeated: a broken connection, a busy or failing server."""
    kind = type(error).__name__
    if kind in {"PermissionDeniedError", "UnauthenticatedError", "NotSupportedError", "InvalidPathError"}:
        return False
    if not isinstance(error, OSError) and kind not in {"GenericError", "BaseError", "JoinError"}:
        return False
    text = str(error)
    if "169.254.169.254" in text or "builder error" in text:
        return False
    status = re.search(r"status code: (\d{3})", text)
    return status is None or (int(status[1]) >= 500 and int(status[1]) != NOT_IMPLEMENTED) or int(status[1]) in _PASSING


def diagnose(error: Exception, url: str) -> tuple[str, str | None]:
    """Say what a failure means, in one line without secrets, and what to do about it."""
    text = str(error)
    code = re.search(r"<Code>([^<]{1,80})</Code>", text)
    said = re.search(r"<Message>([^<]{1,200})</Message>", text)
    name, kind = code[1] if code else "", type(error).__name__
    line = f"{name}: {said[1]}" if code and said else text.split("\n", 1)[0][:300]
    for variable in _SECRETS:
        secret = os.environ.get(variable)
        if secret:
            line = line.replace(secret, "***").replace(quote(secret, safe=""), "***")
    access = _ACCESS.get(url.partition(":")[0], _ACCESS["s3"])
    if "169.254.169.254" in text or "metadata.google" in text or "CredentialsNotLoaded" in text:
        return "no credentials found", f"set {access}"
    if "Account must be specified" in text or "Missing bucket name" in text:
        return "the account is not known", f"set {access}"
    if name in {"ExpiredToken", "TokenRefreshRequired", "RequestExpired"}:
        return f"the credentials have expired ({line})", "renew them and run the same command again: it goes on"
    if name in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}:
        return f"the credentials are not valid here ({line})", f"check {access.partition(',')[0]}"
    if kind in {"PermissionDeniedError", "UnauthenticatedError"} or name == "AccessDenied":
        return (
            f"no permission ({line})",
            f"ask the owner of the store for access, or check {access.partition(' ')[0].rstrip(',')}",
        )
    if name in {"NoSuchBucket", "ContainerNotFound"}:
        return "the bucket does not exist", f"create the bucket {urlsplit(url).netloc}, or correct the URL"
    if "error sending request" in text or "connect" in text or "timed out" in text:
        where = {"s3": os.environ.get("AWS_ENDPOINT_URL"), "gs": None, "az": None}.get(url.partition(":")[0], url)
        host = urlsplit(where).netloc.rpartition("@")[2] if where else f"the {_SERVICES[url[:2]]} endpoint"
        host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).netloc if url[:3] == "hf:" else host
        check = " and AWS_ENDPOINT_URL" if url.startswith("s3:") else ""
        return f"{host} cannot be reached", f"check the network{check}, then run again: it goes on"
    return line, None


T = TypeVar("T")
FIRST_PATIENCE = 5.0
PATIENCE = 60.0
LONGEST_PAUSE = 5.0
CLIENT: Any = {"connect_timeout": "5s", "timeout": "120s", "allow_http": True}
#: Seconds for which an object whose tag was read is taken to be unchanged: a batch reads it many times.
FRESH = 5.0
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
        self._tags: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    @cached_property
    def _store(self) -> Any:
        return self._open()

    def _open(self) -> Any:
        def make() -> Any:
            from obstore.store import from_url

            return from_url(self.url.rstrip("/"), client_options=CLIENT, retry_config={"max_retries": 0})

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
            return bytes(answer.bytes()), _stamp(answer.meta)

        data, tag = self._patiently("read", name, fetch)
        if tag and cacheable(name):
            self.cache.put(self.url, name, tag, data)
        return data

    def head(self, name: str) -> Head | None:
        import obstore

        check_object_name(name, self.url)
        try:
            meta = self._patiently("look at", name, lambda: obstore.head(self._store, name))
        except FileNotFoundError:
            return None
        return Head(int(meta["size"]), _stamp(meta), settled=bool(meta["e_tag"]))

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

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        import obstore
        from obstore.exceptions import NotSupportedError

        if self._is_kept(name):
            path = self._cached(name, FRESH)
            if path is None:
                return self.get(name)[start:stop]
            with path.open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        check_object_name(name, self.url)

        def fetch() -> bytes:
            try:
                return bytes(obstore.get_range(self._store, name, start=start, end=stop))
            except NotSupportedError:  # a plain web server
                return bytes(obstore.get(self._store, name).bytes())[start:stop]

        return self._patiently("read", name, fetch)

    def local_file(self, name: str) -> Path:
        path = self._cached(name, 0.0) if self._is_kept(name) else None
        return path or super().local_file(name)

    def _is_kept(self, name: str) -> bool:
        return self.cache.bound > 0 and cacheable(name)

    def _cached(self, name: str, fresh: float) -> Path | None:
        """File of the cache with an object as it was `fresh` seconds ago, fetched if need be; None if none is kept.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        tag, since = self._tags.get(name, ("", 0.0))
        if not tag or time.monotonic() - since > fresh:
            head = self.head(name)
            if head is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{name}")
            tag = head.stamp
            self._tags[name] = (tag, time.monotonic())
        path = self.cache.path(self.url, name, tag) if tag else None
        if tag and path is None:
            self.get(name)
            path = self.cache.path(self.url, name, tag)
        return path

    # -- failures ------------------------------------------------------------------------------------------------

    def _patiently(self, verb: str, name: str, act: Callable[[], T]) -> T:
        """Call `act`, again after failures that may be temporary, and return its result."""
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


def _stamp(meta: Any) -> str:
    """ETag of an object, or where a server gives none its time of change; empty where it gives neither."""
    return str(meta["e_tag"] or meta.get("last_modified") or "")
