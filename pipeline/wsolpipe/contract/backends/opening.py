"""From the address of a store to its backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.layout import is_key, subfolders
from wsolpipe.contract.nearest import guess, nearest

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.backends.objects import ObjectBackend


REMOTE = ("s3", "gs", "az", "hf", "http", "https")
VALID = (
    "valid: a folder, file://…, s3://bucket/folder, gs://bucket/folder, az://container/folder, and, to read, "
    "hf://datasets/owner/name, https://…"
)
CREDENTIALS = {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME …", "hf": "HF_TOKEN"}


def open_backend(url: str) -> Backend:
    """Backend of a store's URL or folder.

    Raises
    ------
    ConfigError
        If the URL's scheme is not supported, or what it needs is not installed; or if a file is where the folder
        should be.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return _open_folder(Path(unquote(parts.path)))
    if parts.scheme in REMOTE:
        return open_remote(url)
    if parts.scheme and len(parts.scheme) > 1:
        msg = f"store={url}: stores of scheme {parts.scheme!r} are not supported"
        raise ConfigError(msg, hint=VALID)
    return _open_folder(Path(url))


def _open_folder(path: Path) -> LocalBackend:
    if os.path.isfile(path):  # noqa: PTH113 - a name that is too long for a path is none of a file
        msg = f"{path} is a file, and a store is a folder"
        raise ConfigError(msg, hint=VALID)
    return LocalBackend(path)


def open_remote(url: str) -> ObjectBackend:
    """Backend of a URL whose scheme is one of `REMOTE`.

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
        from wsolpipe.contract.backends.hub import HubBackend

        return HubBackend(url, cache)
    if parts.scheme in {"s3", "gs", "az"}:
        from wsolpipe.contract.backends.objects import ObjectBackend

        return ObjectBackend(url, cache)
    from wsolpipe.contract.backends.http import HttpBackend

    return HttpBackend(url, cache)


def holds_results(backend: Backend) -> bool:
    """Whether there is a folder of any stage, finished or under way: what tells a store from another folder."""
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
