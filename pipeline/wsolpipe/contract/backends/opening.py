"""Stores opened by their folder or URL, and the one read over HTTP."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.backends.objects import CLIENT, ObjectBackend
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError, guess, nearest, unknown
from wsolpipe.contract.layout import check_object_name, is_key, subfolders
from wsolpipe.contract.named import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.base import Backend, Head


#: File at the root of a published store: a line ``sha256  name`` for every object.
CHECKSUMS = "checksums.txt"
MAX_LIST_BYTES = 512 * 2**20


class HttpBackend(ObjectBackend):
    """A published store behind a web server, read-only: names come from its list of checksums."""

    def _open(self) -> Any:
        options: Any = {**CLIENT, **self.client_options()}

        def make() -> Any:
            from obstore.store import HTTPStore

            return HTTPStore.from_url(self.address(), client_options=options, retry_config={"max_retries": 0})

        return self._opened(make)

    def address(self) -> str:
        """Where the files are served, without a slash at its end: names are joined with one."""
        return self.url.rstrip("/")

    def client_options(self) -> dict[str, Any]:
        """Options of the connection beside the time-outs."""
        return {}

    @cached_property
    def listed(self) -> dict[str, str]:
        """Name -> sha256 of every object, as published.

        Raises
        ------
        StoreError
            If the list is missing or too large, or names anything outside the store.
        """
        try:
            data = self.get(CHECKSUMS, limit=MAX_LIST_BYTES)
        except FileNotFoundError as error:
            msg = f"{self.url} has no {CHECKSUMS}, so its contents are unknown"
            hint = "its owner publishes it with wsolpipe publish, or gives an s3:// address"
            raise StoreError(msg, hint=hint) from error
        return parse_checksums(data, self.url)

    @cached_property
    def _folders(self) -> dict[str, set[str]]:
        folders: dict[str, set[str]] = {}
        for name in self.listed:
            parts = name.split("/")
            for depth in range(len(parts)):
                suffix = "/" if depth < len(parts) - 1 else ""
                folders.setdefault("/".join(parts[:depth]), set()).add(parts[depth] + suffix)
        return folders

    def get(self, name: str, *, limit: int | None = None) -> bytes:
        if not self._is_listed(name):  # a server may answer with a page of its own, such as what a folder holds
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{name}")
        return super().get(name, limit=limit)

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        return super().get_range(name, start, stop) if self._is_listed(name) else self.get(name)

    def head(self, name: str) -> Head | None:
        return super().head(name) if self._is_listed(name) else None

    def _is_listed(self, name: str) -> bool:
        return name == CHECKSUMS or check_object_name(name, self.url) in self.listed

    def names(self, folder: str) -> list[str]:
        return sorted(name for name in self._folders.get(folder, ()) if not name.startswith("."))

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        for name in sorted(self.listed):
            if not folder or name.startswith(f"{folder}/"):
                yield name, self.size(name) or 0

    def stamps(self, folder: str) -> dict[str, str]:
        base = f"{folder}/"
        return {name: self.listed[base + name] for name in self.names(folder) if base + name in self.listed}

    def create(self, name: str, data: bytes, *, sync: bool = True) -> bool:  # noqa: ARG002
        self._refuse("write", name)

    def replace(self, name: str, data: bytes) -> None:  # noqa: ARG002
        self._refuse("write", name)

    def swap(self, name: str, expected: bytes, data: bytes) -> bool:  # noqa: ARG002
        self._refuse("write", name)

    def delete(self, name: str) -> None:
        self._refuse("delete", name)

    def _refuse(self, verb: str, name: str) -> NoReturn:
        msg = f"cannot {verb} {name} in store {self.url}: published stores are read-only"
        hint = f"wsolpipe pull from={self.url} store=FOLDER, then work on FOLDER"
        raise AccessError(msg, hint=hint) from OSError(errno.EROFS, os.strerror(errno.EROFS))


def parse_checksums(data: bytes, where: str) -> dict[str, str]:
    """Name -> sha256 of a list of lines ``sha256  name``.

    Raises
    ------
    StoreError
        If a line is of another form or names anything outside the store.
    """
    listed: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line)
        if not match:
            msg = f"line {number} of {where}/{CHECKSUMS} is not of the form: sha256, two spaces, name"
            raise StoreError(msg)
        check_object_name(match[2], where)
        listed[match[2]] = match[1]
    return listed


_ADDRESS = re.compile(r"hf://datasets/([\w.-]{1,96}/[\w.-]{1,96})(?:@([\w./-]{1,255}?))?(?:/([^@]*))?/?")
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class HubPlace:
    """Where in the Hub a store is: ``owner/name``, revision (branch, tag or commit), folder in the repository."""

    repository: str
    revision: str
    folder: str


def parse_hub_url(url: str) -> HubPlace:
    """Parts of ``hf://datasets/owner/name@revision/folder``; the revision is ``main`` and the folder empty by default.

    Raises
    ------
    ConfigError
        If the URL is of another form.

    Examples
    --------
    >>> parse_hub_url("hf://datasets/lab/birds@v1/labels")
    HubPlace(repository='lab/birds', revision='v1', folder='labels')
    """
    found = _ADDRESS.fullmatch(url)
    if not found or ".." in url:
        msg = f"store={url} is not the address of a data set in the Hub"
        raise ConfigError(
            msg, hint="write hf://datasets/owner/name, hf://datasets/owner/name@revision or …/name/folder"
        )
    return HubPlace(found[1], found[2] or "main", (found[3] or "").strip("/"))


class HubBackend(HttpBackend):
    """A published store in the Hub, read-only; ``wsolpipe publish to=hf://…`` writes one."""

    def address(self) -> str:
        """Where the Hub serves the files of the repository."""
        place = parse_hub_url(self.url)
        folder = f"/{quote(place.folder)}" if place.folder else ""
        endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
        return f"{endpoint}/datasets/{place.repository}/resolve/{quote(place.revision, safe='')}{folder}"

    def client_options(self) -> dict[str, Any]:
        """The token of the environment, if there is one."""
        token = os.environ.get("HF_TOKEN", "").strip()
        return {"default_headers": {"authorization": f"Bearer {token}"}} if token else {}


VALID = (
    "valid: a folder, file://…, s3://bucket/folder, gs://bucket/folder, az://container/folder, and, to read, "
    "hf://datasets/owner/name, https://…"
)
_HERE = "wsolpipe.contract.backends.opening"
#: Opens a store, by the scheme of its URL; other packages declare a class or function in the group of entry points.
BACKENDS: Registry[Callable[[str], Backend]] = Registry(
    "store scheme",
    "wsolpipe.backends",
    {
        "file": f"{_HERE}:open_folder",
        **dict.fromkeys(("s3", "gs", "az", "hf", "http", "https"), f"{_HERE}:open_remote"),
    },
)
CREDENTIALS = {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME …", "hf": "HF_TOKEN"}


def open_backend(url: str) -> Backend:
    """Backend of a store's URL or folder.

    Raises
    ------
    ConfigError
        If nothing opens the URL's scheme (names the nearest), or what it needs is not installed; or if a file is where
        the folder should be.
    """
    scheme = urlsplit(url).scheme
    if len(scheme) < 2:
        return open_folder(url)
    if scheme not in BACKENDS:
        msg = f"store={url}: {unknown('store scheme', scheme, BACKENDS.names())}"
        raise ConfigError(msg, hint=VALID)
    return BACKENDS.find(scheme)(url)


def open_folder(url: str) -> LocalBackend:
    """Backend of a folder of this machine, given as its path or as ``file://…``."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(url)
    if os.path.isfile(path):  # noqa: PTH113 - a name that is too long for a path is none of a file
        msg = f"{path} is a file, and a store is a folder"
        raise ConfigError(msg, hint=VALID)
    return LocalBackend(path)


def open_remote(url: str) -> ObjectBackend:
    """Backend of an object store or of a web server.

    Raises
    ------
    ConfigError
        If obstore is not installed, or the URL names no bucket or carries a user, password or query.
    """
    from wsolpipe.contract.backends.cache import Cache

    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        msg = f"a store URL of {parts.scheme}:// carries a user, password or query, which would be written to logs"
        variable = CREDENTIALS.get(parts.scheme, "AWS_ACCESS_KEY_ID …")
        raise ConfigError(msg, hint=f"leave them out; credentials come from the environment ({variable})")
    if not parts.netloc:
        msg = f"store={url}: no {'host' if parts.scheme.startswith('http') else 'bucket'} named"
        raise ConfigError(msg, hint="write s3://bucket/folder or https://host/folder")
    cache = Cache.from_environment(open_remote)
    if parts.scheme == "hf":
        return HubBackend(url, cache)
    if parts.scheme in {"s3", "gs", "az"}:
        from wsolpipe.contract.backends.objects import ObjectBackend

        return ObjectBackend(url, cache)

    return HttpBackend(url, cache)


def holds_results(backend: Backend) -> bool:
    """Whether there is a folder of any stage, finished or under way, which only a store has."""
    return any(
        any(map(is_key, subfolders(backend.names(f"{dataset}/{part}/{stage}"))))
        for dataset in subfolders(backend.names(""))
        for part in subfolders(backend.names(dataset))
        for stage in subfolders(backend.names(f"{dataset}/{part}"))
    )


def guess_store(url: str) -> str:
    """Return ``; did you mean 'NAME'?`` with the nearest store of the same folder, empty where none is near."""
    path = Path(url)
    try:
        near = [entry for entry in path.parent.iterdir() if entry.is_dir() and nearest(path.name, [entry.name])]
    except OSError:
        return ""
    stores = [entry.name for entry in near if entry.name != path.name and holds_results(LocalBackend(entry))]
    return guess(path.name, stores)


def check_place(url: str) -> None:
    """Refuse to begin a store in a folder that holds other things, such as photographs.

    Raises
    ------
    ConfigError
        If the folder holds files or folders of other kinds, and nothing that a stage made; hidden ones do not count.
    """
    backend = open_backend(url)
    if not isinstance(backend, LocalBackend) or holds_results(backend):
        return
    if held := backend.names(""):
        msg = f"{url} holds other things, such as {held[0]}, and nothing that a stage made: labels would go among them"
        raise ConfigError(msg, hint="name a new or empty folder with store=, such as store=wsol-store")
