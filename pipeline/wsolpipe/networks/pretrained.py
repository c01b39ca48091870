"""Pretrained weights of timm models: the file, the cache, and fetching it."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import socket
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, overload

from wsolpipe.contract.errors import WeightsError, first_line, raise_as, unknown

#: A file touched this recently is hashed every time: clocks of file systems are coarse, and it may still be written.
SETTLED_SECONDS = 2.0


def cache_folder() -> Path:
    """Folder of what may be forgotten: ``$XDG_CACHE_HOME/wsolpipe``, or ``~/.cache/wsolpipe``."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "wsolpipe"


def words_sha256(words: str) -> str:
    """sha256 of a text, for what is made from words and not from a file."""
    return hashlib.sha256(words.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes.

    The digest is kept in `cache_folder` under (real path, size, modification time); a cache that cannot be read or
    written costs time and nothing else.

    Raises
    ------
    OSError
        If the file itself cannot be read.
    """
    path = path.resolve()
    facts = path.stat()
    entry = cache_folder() / "sha256" / words_sha256(f"{path}|{facts.st_size}|{facts.st_mtime_ns}")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        known = entry.read_text()
        if re.fullmatch(r"[0-9a-f]{64}", known):
            return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - facts.st_mtime > SETTLED_SECONDS:
        with contextlib.suppress(OSError):
            remember(entry, digest)
    return digest


def remember(entry: Path, text: str) -> None:
    """Write a file of `cache_folder` in one step, so that no reader sees half of it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=entry.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(entry)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Record:
    """Facts that timm knows of pretrained weights.

    Attributes
    ----------
    name : str
        Architecture and tag.
    hub, file : str or None
        Repository on the Hugging Face hub, ``@revision`` included, and its file where that is not the usual one.
    url : str or None
        Address of the file elsewhere.
    foreign : bool
        Whether only timm's own code reads that file.
    mean, std : list of float
        Of the input, on the scale 0..1.
    size : int
        Side of the images of training, in pixels.
    """

    name: str
    hub: str | None
    file: str | None
    url: str | None
    foreign: bool
    mean: list[float]
    std: list[float]
    size: int


@overload
def configuration(name: str, *, required: Literal[True] = True) -> Record: ...
@overload
def configuration(name: str, *, required: bool) -> Record | None: ...
def configuration(name: str, *, required: bool = True) -> Record | None:
    """Return what timm knows of pretrained weights.

    Importing timm takes seconds and hundreds of megabytes, so the answer is kept in the cache folder for each version
    of timm; planning a run then needs neither timm nor torch.

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
    entry = cache_folder() / "timm" / words_sha256(f"{version('timm')}|{name}")
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Record(**json.loads(entry.read_text()))
    from timm.models import get_pretrained_cfg

    try:
        known = get_pretrained_cfg(name)
    except RuntimeError:  # a known model, an unknown tag
        known = None
    if known is None:
        if not required:
            return None
        msg = unknown("pretrained timm model", name, similar_models(name))
        raise WeightsError(msg, hint="or give a file: weights=FILE")
    record = Record(
        name=f"{known.architecture}.{known.tag}" if known.tag else str(known.architecture),
        hub=known.hf_hub_id,
        file=known.hf_hub_filename,
        url=known.url or None,
        foreign=bool(known.custom_load),
        mean=list(known.mean),
        std=list(known.std),
        size=int(known.input_size[-1]),
    )
    with contextlib.suppress(OSError):
        remember(entry, json.dumps(asdict(record)))
    return record


def similar_models(name: str, count: int = 8) -> list[str]:
    """Names of timm's models that hold parts of a name, those most like it first; without any, all of its names.

    A tag of pretrained weights is kept where it holds a part itself.

    Examples
    --------
    >>> similar_models("dinov2_vits14", 2)
    ['vit_base_patch14_dinov2', 'vit_giant_patch14_dinov2']
    """
    import timm

    known: list[str] = timm.list_models()
    tags: list[str] = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
    if tags:
        return tags
    parts = [part for part in re.split(r"[^a-z0-9]+", name.lower()) if len(part) > 2]
    tagged = (model.partition(".") for model in timm.list_models(pretrained=True))
    names = {f"{base}.{tag}" if any(part in tag for part in parts) else base for base, _, tag in tagged} | {*known}

    def likeness(model: str) -> tuple[int, int, float]:
        own = re.split(r"[._]", model)
        held, whole = sum(part in model for part in parts), sum(part in own for part in parts)
        return held, whole, difflib.SequenceMatcher(a=name, b=model).ratio()

    found = sorted(
        (model for model in sorted(names) if any(part in model for part in parts)), key=likeness, reverse=True
    )
    return found[:count] or known


def find_pretrained(name: str, *, fetch: bool) -> tuple[str, Path] | None:
    """Find the file of pretrained weights, in the cache of the Hugging Face hub or of torch.

    Parameters
    ----------
    name : str
        Model with or without tag.
    fetch : bool
        Whether it may be downloaded.

    Returns
    -------
    tuple of (str, Path) or None
        timm's full name and the file; None where it is not here and must not be fetched.

    Raises
    ------
    WeightsError
        If the name is unknown, its format is foreign, or it cannot be fetched.
    """
    known = configuration(name)
    if not known.hub and not known.url:
        msg = f"timm knows {known.name} but has no weights for it"
        raise WeightsError(msg, hint="give a file: weights=FILE, or another tag: weights=timm:NAME.TAG")
    path = _cached(known) or (_fetched(known) if fetch else None)
    return None if path is None else (known.name, path)


def within_reach(name: str) -> str:
    """Where pretrained weights would come from: their file, ``network``, or empty where there is neither."""
    from huggingface_hub import constants

    found = find_pretrained(name, fetch=False)
    if found is not None:
        return str(found[1])
    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        require_host(constants.ENDPOINT)
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=3):
            return "network"
    except (WeightsError, OSError):
        return ""


def _files(known: Record) -> tuple[str, ...]:
    return (known.file,) if known.file else FILES


def _torch_folder() -> Path:
    """Where torch keeps downloads (as ``torch.hub.get_dir()``), found without importing torch."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or f"{base}/torch").expanduser() / "hub" / "checkpoints"


def _cached(known: Record) -> Path | None:
    if known.hub:
        repo, _, revision = known.hub.partition("@")
        if path := hub_cached(repo, _files(known), revision or None):
            return path
    if known.url and not known.foreign:
        path = _torch_folder() / Path(urllib.parse.urlparse(known.url).path).name
        if path.is_file():
            return path
    return None


def _fetched(known: Record) -> Path:
    with fetching(f"timm:{known.name}"):
        if known.hub:
            repo, _, revision = known.hub.partition("@")
            return hub_fetched(repo, _files(known), revision or None)
        if known.foreign or not known.url:
            msg = "its file is in a foreign format that only timm's own code reads"
            raise WeightsError(msg)
        from timm.models import _hub

        require_host(known.url)
        return Path(_hub.download_cached_file(known.url))


@contextlib.contextmanager
def fetching(name: str, what: str = "file") -> Iterator[None]:
    """Say in one line why weights could not be fetched; a failing network raises differently with each client.

    Raises
    ------
    WeightsError
        If the block fails; its hint asks for `what`, a file or a folder.
    """
    try:
        yield
    except Exception as error:
        msg = f"cannot fetch {name}: {first_line(error)}"
        own = f"give a {what} that you have: weights={what.upper()}"
        raise WeightsError(msg, hint=f"{own}; or run once with network, the cache is used ever after") from error


def hub_cached(repo: str, files: Sequence[str], revision: str | None = None) -> Path | None:
    """The first of some files of a repository that the cache of the Hugging Face hub holds."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repo, file, revision=revision) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def hub_fetched(repo: str, files: Sequence[str], revision: str | None = None) -> Path:
    """The first of some files that a repository of the Hugging Face hub has, fetched into its cache."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    require_host(constants.ENDPOINT)
    for file in files[:-1]:
        try:
            return Path(hf_hub_download(repo, file, revision=revision))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repo, files[-1], revision=revision))


def require_host(address: str) -> None:
    """Fail at once where the name does not resolve; clients would try again for half a minute."""
    parts = urllib.parse.urlparse(address)
    if parts.scheme in urllib.request.getproxies() or "all" in urllib.request.getproxies():
        return  # names are resolved by the proxy
    with raise_as(WeightsError, f"no network: the host {parts.hostname} cannot be found", OSError, say=None):
        socket.getaddrinfo(parts.hostname, parts.port or 443)
