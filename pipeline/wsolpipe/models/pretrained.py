"""Pretrained weights of timm models: which file it is, whether it is here, and fetching it."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from wsolpipe.contract.errors import WeightsError
from wsolpipe.contract.nearest import unknown

FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Found:
    """A pretrained file in this machine's cache, with timm's full name of it."""

    name: str
    path: Path


@overload
def configuration(name: str, *, required: Literal[True] = True) -> Any: ...
@overload
def configuration(name: str, *, required: bool) -> Any | None: ...
def configuration(name: str, *, required: bool = True) -> Any | None:
    """Return timm's record of pretrained weights: mean, std, input_size, where the file is.

    Parameters
    ----------
    name : str
        Model with or without tag; without, timm's default tag.
    required : bool
        Whether an unknown name is an error; else None is returned.

    Raises
    ------
    WeightsError
        If timm knows no such weights; names the nearest.
    """
    import timm
    from timm.models import get_pretrained_cfg

    try:
        found = get_pretrained_cfg(name)
    except RuntimeError:  # a known model, an unknown tag
        found = None
    if found is None and required:
        near = timm.list_models(f"{name.partition('.')[0]}*", pretrained=True)
        msg = unknown("pretrained timm model", name, near or timm.list_models(f"{name[:4]}*", pretrained=True))
        raise WeightsError(msg, hint="or give a file: weights=FILE")
    return found


def find_pretrained(name: str, *, fetch: bool) -> Found | None:
    """Find the file of pretrained weights, in the cache of the Hugging Face hub or of torch.

    Parameters
    ----------
    name : str
        Model with or without tag.
    fetch : bool
        Whether it may be downloaded.

    Returns
    -------
    Found or None
        None where it is not here and must not be fetched.

    Raises
    ------
    WeightsError
        If the name is unknown, its format is foreign, or it cannot be fetched.
    """
    known = configuration(name)
    full = f"{known.architecture}.{known.tag}" if known.tag else str(known.architecture)
    if not known.hf_hub_id and not known.url:
        msg = f"timm knows {full} but has no weights for it"
        raise WeightsError(msg, hint="give a file: weights=FILE, or another tag: weights=timm:NAME.TAG")
    path = _cached(known) or (_fetched(known, full) if fetch else None)
    return None if path is None else Found(full, path)


def _files(known: Any) -> tuple[str, ...]:
    return (known.hf_hub_filename,) if known.hf_hub_filename else FILES


def _cached(known: Any) -> Path | None:
    if known.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        repo, _, revision = known.hf_hub_id.partition("@")
        for file in _files(known):
            path = try_to_load_from_cache(repo, file, revision=revision or None)
            if isinstance(path, str):
                return Path(path)
    if known.url and not known.custom_load:
        from torch.hub import get_dir

        path = Path(get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(known.url).path).name
        if path.is_file():
            return path
    return None


def _fetched(known: Any, full: str) -> Path:
    try:
        return _from_hub(known) if known.hf_hub_id else _from_address(known)
    except Exception as error:  # a failing network raises differently with each client and its version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = f"cannot fetch timm:{full}: {reason}"
        hint = "give a file that you have: weights=FILE; or run once with network, the cache is used ever after"
        raise WeightsError(msg, hint=hint) from error


def _from_hub(known: Any) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    _require_host(constants.ENDPOINT)
    repo, _, revision = known.hf_hub_id.partition("@")
    files = _files(known)
    for file in files[:-1]:
        try:
            return Path(hf_hub_download(repo, file, revision=revision or None))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repo, files[-1], revision=revision or None))


def _from_address(known: Any) -> Path:
    if known.custom_load:
        msg = "its file is in a foreign format that only timm's own code reads"
        raise WeightsError(msg)
    from timm.models import _hub

    _require_host(known.url)
    return Path(_hub.download_cached_file(known.url))


def _require_host(address: str) -> None:
    """Fail at once where the name does not resolve; clients would try again for half a minute."""
    parts = urllib.parse.urlparse(address)
    if parts.scheme in urllib.request.getproxies() or "all" in urllib.request.getproxies():
        return  # names are resolved by the proxy
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 443)
    except OSError as error:
        msg = f"no network: the host {parts.hostname} cannot be found"
        raise WeightsError(msg) from error
