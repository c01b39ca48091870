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

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wsolpipe.contract.errors import WeightsError, first_line
from wsolpipe.networks.pretrained import file_sha256, words_sha256

Triple = tuple[float, float, float]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Scaling that a model expects of its input: ``(rgb / 255 - mean) / std``."""

    mean: Triple
    std: Triple


def recorded_preprocessing(weights: Weights) -> Preprocessing | None:
    """Preprocessing that comes with the weights themselves.

    Returns
    -------
    Preprocessing or None
        From the metadata ``mean`` and ``std`` of a safetensors file, the recipe of a training's checkpoint, or timm's
        configuration of ``timm:`` weights; None where none of them says.

    Raises
    ------
    WeightsError
        If the file's metadata cannot be parsed.
    """
    if weights.source.startswith("timm:"):
        from wsolpipe.networks.pretrained import configuration

        known = configuration(weights.source.removeprefix("timm:"))
        return Preprocessing(triple(known.mean, "mean"), triple(known.std, "std"))
    metadata = _metadata(weights.path)
    metadata |= _trained_with(metadata)
    if "mean" not in metadata or "std" not in metadata:
        return None
    where = f"the metadata of {weights.path}"
    values = [triple(_numbers(metadata[name], f"{name} in {where}"), f"{name} in {where}") for name in ("mean", "std")]
    return Preprocessing(*values)


def choose_preprocessing(
    weights: Weights,
    *,
    model: str,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    stage: str,
    warn: Callable[[str], None],
) -> Preprocessing:
    """Decide how pixels are normalised: as given, else as the weights record it, else as timm has it for the model.

    Parameters
    ----------
    weights : Weights
        What the model was loaded from.
    model : str
        timm's name of the model.
    mean, std : float, sequence of 3 floats or None
        Explicit values on the scale 0..1; each overrules what is recorded.
    stage : str
        Name of the stage, for the warning's ``stage.mean=``.
    warn : callable
        Receives one line where a file records nothing and nothing was given.

    Raises
    ------
    WeightsError
        If a value is not one or three finite numbers, or a deviation is not positive.
    """
    recorded = None if mean is not None and std is not None else recorded_preprocessing(weights)
    if recorded is None:
        from wsolpipe.networks.pretrained import configuration

        known = configuration(model, required=False)
        mean_std = (triple(known.mean, "mean"), triple(known.std, "std")) if known else IMAGENET
        recorded = Preprocessing(*mean_std)
        if (mean is None or std is None) and weights.path is not None:
            warn(
                f"{weights.source} does not record its preprocessing; using timm's for {model}: "
                f"mean {_spelt(recorded.mean)}, std {_spelt(recorded.std)}. "
                f"If it was trained otherwise, set {stage}.mean= and {stage}.std="
            )
    chosen = Preprocessing(
        recorded.mean if mean is None else triple(mean, f"{stage}.mean"),
        recorded.std if std is None else triple(std, f"{stage}.std"),
    )
    if min(chosen.std) <= 0:
        msg = f"{stage}.std must be positive; got {_spelt(chosen.std)}"
        raise WeightsError(msg)
    return chosen


def triple(value: float | Sequence[float], what: str) -> Triple:
    """Spread one number over three channels, or check that there are three.

    Raises
    ------
    WeightsError
        If there are neither one nor three finite numbers.
    """
    numbers = [float(value)] if isinstance(value, int | float) else [float(number) for number in value]
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        msg = f"{what} must be one number or three, one a channel; got {value}"
        raise WeightsError(msg, hint="write 0.5 or [0.485,0.456,0.406]")
    return numbers[0], numbers[1], numbers[2]


def _spelt(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _metadata(path: Path | None) -> dict[str, str]:
    if path is None or path.suffix.lower() != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        msg = f"cannot read {path} as weights: {first_line(error)}"
        raise WeightsError(msg, hint="fetch or copy the file again; it may be truncated") from error


def _trained_with(metadata: Mapping[str, str]) -> dict[str, str]:
    """``mean`` and ``std`` of the recipe that a checkpoint of a training holds, as metadata spells them."""
    try:
        recipe = json.loads(metadata.get("state", "{}")).get("recipe") or {}
        return {name: json.dumps(recipe[name]) for name in ("mean", "std") if name in recipe}
    except (ValueError, AttributeError, TypeError):
        return {}


def _numbers(text: str, what: str) -> list[float]:
    try:
        numbers = json.loads(text if text.lstrip().startswith("[") else f"[{text}]")
        return [float(number) for number in numbers]
    except (ValueError, TypeError) as error:
        msg = f"{what} must be one number or three; got {text!r}"
        raise WeightsError(msg, hint="set mean= and std= of the stage, or write the file's metadata anew") from error


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
