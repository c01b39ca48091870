"""Maps, boxes and classes of pictures by a trained localizer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from wsolpipe.evaluate.otsu_scores import otsu_box
from wsolpipe.images.geometry import View, resize
from wsolpipe.metrics import Convention, largest_box, standard_maps
from wsoltrain.data.views import normalise
from wsoltrain.methods.base import checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from wsoltrain.inference.model import Trained
    from wsoltrain.inference.pictures import Picture

HALF_OPEN = Convention("half-open", eight_bit=True, inclusive=False, clip=False, holes=False)
"""Thresholds as the evaluation that chose τ cuts, boxes half-open."""


@dataclass(frozen=True)
class Prediction:
    """Result for one picture.

    Attributes
    ----------
    picture : Picture
        The picture.
    map : float32 array [h, w]
        Scores in 0..1, of the whole picture squashed to a square, at the method's own resolution.
    box : float64 array [4] or None
        xyxy, half-open, pixels of the picture: the largest region above τ; None where the map is zero everywhere.
    label : int or None
        Most likely class; None where the method does not classify.
    probability : float or None
        Of that class.
    """

    picture: Picture
    map: NDArray[np.float32]
    box: NDArray[np.float64] | None
    label: int | None
    probability: float | None


def predict(
    trained: Trained, pictures: Iterable[Picture], *, tau: float | None, batch: int, device: torch.device
) -> Iterator[Prediction]:
    """Predict on pictures that have pixels, in their order.

    Parameters
    ----------
    trained : Trained
        The localizer.
    pictures : iterable of Picture
        With pixels.
    tau : float or None
        Threshold of the map in 0..1, relative to its peak as in the evaluation.
    batch : int
        Pictures at once.
    device : torch.device
        Where the localizer is.
    """
    waiting = iter(pictures)
    while chunk := list(islice(waiting, batch)):
        pixels = [squash(picture.pixels, trained.recipe.size) for picture in chunk if picture.pixels is not None]
        yield from read_out(trained, forward(trained, pixels, device), chunk, tau=tau)


class Forwarded(NamedTuple):
    """Return the network's answer to some pictures: maps [B, h, w], as they are and in 0..1, and classes."""

    maps: NDArray[np.float32]
    scaled: NDArray[np.float32]
    unit: bool
    labels: NDArray[np.int64] | None
    probabilities: NDArray[np.float32] | None


def squash(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """All of a picture as the network sees it, uint8 [size, size, 3]."""
    return resize(pixels, (size, size))


def forward(trained: Trained, squashed: Sequence[NDArray[np.uint8]], device: torch.device) -> Forwarded:
    """Run the network on squashed pictures."""
    recipe = trained.recipe
    pixels = torch.from_numpy(np.stack(squashed)).permute(0, 3, 1, 2).to(device)
    with torch.inference_mode():
        found = checked(trained.model.predict(normalise(pixels, recipe.mean, recipe.std)), len(pixels), recipe.method)
        labels = probabilities = None
        if found.scores is not None:
            best = found.scores.float().softmax(1).max(1)
            labels, probabilities = best.indices.cpu().numpy(), best.values.cpu().numpy()
        return Forwarded(
            found.maps.float().cpu().numpy(), found.scaled().cpu().numpy(), found.unit, labels, probabilities
        )


def read_out(
    trained: Trained, found: Forwarded, pictures: Sequence[Picture], *, tau: float | None
) -> Iterator[Prediction]:
    """Boxes and classes of what the network said, a picture each; without `tau` at each map's own Otsu threshold."""
    framed = standard_maps(found.maps, side=trained.model.frame_side, normalise=not found.unit)
    for number, picture in enumerate(pictures):
        label = probability = None
        if found.labels is not None and found.probabilities is not None:
            label, probability = int(found.labels[number]), float(found.probabilities[number])
        assert picture.pixels is not None  # noqa: S101 - only such are predicted on
        size = (picture.pixels.shape[0], picture.pixels.shape[1])
        region = find_region(found.maps[number], framed[number], size, tau)
        yield Prediction(picture, found.scaled[number], None if region is None else region[0], label, probability)


def find_region(
    raw: NDArray[np.floating], framed: NDArray[np.floating], size: tuple[int, int], tau: float | None
) -> tuple[NDArray[np.float64], float] | None:
    """Box of the largest region above τ, or above the map's own Otsu threshold where `tau` is None; see `cut_box`.

    `raw` is the map as the network gave it, of which `wsolpipe.evaluate.otsu_scores` takes the threshold too.
    """
    if tau is not None:
        return cut_box(framed, size, tau)
    height, width = size
    found = otsu_box(raw, width, height).astype(np.float64)
    if not len(found):
        return None
    scale = np.array([framed.shape[1] / width, framed.shape[0] / height] * 2)
    x0, y0, x1, y1 = (found[0] * scale).round().astype(int)
    return found[0], float(np.clip(framed, 0, 1)[y0:y1, x0:x1].mean())


def cut_box(
    framed: NDArray[np.floating], size: tuple[int, int], tau: float
) -> tuple[NDArray[np.float64], float] | None:
    """Box of the largest region above τ.

    Parameters
    ----------
    framed : float array [side, side]
        Map in the evaluator's frame.
    size : (height, width)
        Of the picture.
    tau : float
        Threshold in 0..1, relative to the map's peak.

    Returns
    -------
    box : float64 array [4]
        xyxy, half-open, pixels of the picture.
    score : float
        Mean of the map inside the box.

    None where the map is zero everywhere.
    """
    values = np.clip(framed, 0, 1)
    box = largest_box(values, tau, convention=HALF_OPEN)
    if not (box[2] > box[0] and box[3] > box[1]):
        return None
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    view = View.squash(size, (framed.shape[0], framed.shape[1]))
    found = np.asarray(view.boxes_from_view(box[None], clip=True)[0], np.float64)
    return found, float(values[y0:y1, x0:x1].mean())
