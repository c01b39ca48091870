"""Published stores on a web server or in the Hugging Face Hub: read-only; a list of checksums says what they hold.

The Hub serves the files of a data set repository, ``hf://datasets/owner/name``, by HTTP. ``HF_ENDPOINT`` names another
Hub, ``HF_TOKEN`` gives access to private repositories.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from wsolpipe.contract.backends.objects import CLIENT, ObjectBackend
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError
from wsolpipe.contract.layout import check_object_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.backends.base import Head


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
