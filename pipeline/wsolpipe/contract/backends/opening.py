"""From the address of a store to its backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.layout import is_key, subfolders
from wsolpipe.contract.named import Registry
from wsolpipe.contract.nearest import guess, nearest, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.backends.objects import ObjectBackend


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
        from wsolpipe.contract.backends.http import HubBackend

        return HubBackend(url, cache)
    if parts.scheme in {"s3", "gs", "az"}:
        from wsolpipe.contract.backends.objects import ObjectBackend

        return ObjectBackend(url, cache)
    from wsolpipe.contract.backends.http import HttpBackend

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
