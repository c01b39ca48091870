"""Where weights come from: a specification becomes one file that is known by its sha256.

Both halves write weights in one grammar:

- ``file:PATH``, or just ``PATH``: a .safetensors, .pth, .pth.tar, .pt, .bin or .onnx file;
- ``data:PATH``: a file that ships with the data sets of wsolpipe;
- ``timm``: pretrained weights of the model that is named beside it;
- ``timm:NAME[.TAG]``: pretrained weights of a timm model, from its cache or fetched;
- ``random:SEED``: no file, a seeded initialisation (for tests and timings).

Packages above this one add sources of their own (see `wsolpipe.models.weight_sources`). Neither torch nor timm is
imported here, so that planning a run stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wsolpipe.contract.errors import WeightsError
from wsolpipe.networks.digests import file_sha256, words_sha256

SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".onnx")
FORMS = "write weights=FILE (.safetensors, .pth, .pth.tar, .pt, .bin), weights=timm:NAME or weights=random:SEED"


@dataclass(frozen=True)
class Weights:
    """One resolved weights file.

    Attributes
    ----------
    sha256 : str
        Of the file's bytes (for random weights: of the specification).
    source : str
        File name, ``timm:NAME``, ``torchvision:NAME``, ``open_clip:MODEL/TAG`` or ``random:SEED``; never a path of
        this machine.
    path : Path or None
        The local file; None for random weights.
    """

    sha256: str
    source: str
    path: Path | None

    @property
    def seed(self) -> int | None:
        """Seed of random weights, None for a file."""
        return int(self.source.removeprefix("random:")) if self.path is None else None


class Finder(Protocol):
    """Finds the file behind the part of a specification that follows ``KIND:``."""

    def __call__(self, name: str, *, fetch: bool) -> Weights | None:
        """Return the file; None where it is not on this machine and must not be fetched."""


def resolve(
    spec: str, *, fetch: bool = True, model: str | None = None, finders: Mapping[str, Finder] | None = None
) -> Weights | None:
    """Find the file that a specification means, and its sha256.

    Parameters
    ----------
    spec : str
        See the module.
    fetch : bool
        Whether pretrained weights that are not in the cache may be downloaded.
    model : str, optional
        Model whose pretrained weights a bare ``timm`` means.
    finders : mapping of str to Finder, optional
        Further kinds of sources, by the word before the colon.

    Returns
    -------
    Weights or None
        None only where `fetch` is false and the file is not here yet.

    Raises
    ------
    WeightsError
        If the file, the model or the network is missing; the message says what to give instead.
    """
    spec = named(spec, model)
    kind, _, rest = spec.partition(":")
    if kind == "random":
        return _resolve_random(spec, rest)
    if kind == "timm":
        from wsolpipe.networks.pretrained import find_pretrained

        found = find_pretrained(rest, fetch=fetch)
        return None if found is None else Weights(file_sha256(found[1]), f"timm:{found[0]}", found[1])
    if finders and kind in finders:
        return finders[kind](rest, fetch=fetch)
    path = local_file(spec)
    assert path is not None
    return _resolve_file(path)


def local_file(spec: str) -> Path | None:
    """Path of the file that a specification names; None for weights of another source. The file need not exist."""
    kind, _, rest = spec.partition(":")
    if kind in ("random", "timm"):
        return None
    if kind == "data":
        from wsolpipe.images.dataset import data_folder

        return data_folder() / rest
    return Path(rest if kind == "file" else spec).expanduser()


def named(spec: str | None, model: str | None) -> str:
    """Specification with the model's own pretrained weights written out: None and ``timm`` mean ``timm:MODEL``."""
    return f"timm:{model}" if model is not None and spec in (None, "timm") else str(spec)


def _resolve_random(spec: str, seed: str) -> Weights:
    if not seed.isdecimal():
        msg = f"random weights need a seed, a whole number from 0 on; got {spec!r}"
        raise WeightsError(msg, hint="write weights=random:0")
    return Weights(words_sha256(f"random:{int(seed)}"), f"random:{int(seed)}", None)


def _resolve_file(path: Path) -> Weights:
    if not path.exists():
        msg = f"no weights file at {path}"
        raise WeightsError(msg, hint=FORMS)
    if path.is_dir() or not path.name.lower().endswith(SUFFIXES):
        kind = "a folder" if path.is_dir() else f"a {path.suffix or 'suffixless'} file"
        msg = f"{path} is {kind}, not weights; known are {', '.join(SUFFIXES)}"
        raise WeightsError(msg, hint=FORMS)
    try:
        if path.suffix.lower() == ".onnx":
            from wsolpipe.networks.onnx_files import refuse_external_data

            refuse_external_data(path)
        return Weights(file_sha256(path), path.name, path)
    except OSError as error:
        msg = f"cannot read the weights file {path}: {error.strerror}"
        raise WeightsError(msg, hint="check its permissions, or give another file") from error
