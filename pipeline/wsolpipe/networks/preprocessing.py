"""Preprocessing of a network: mean and standard deviation as given, as recorded with the weights, or as in timm."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import WeightsError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from wsolpipe.networks.sources import Weights

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
