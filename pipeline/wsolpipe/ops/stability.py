"""How stable maps are: a score of a way to make maps that needs no label and no box.

The box of a map should be that of the mirrored image, mirrored back, and that of the cropped image, put back. The score
compares ways of reading *one* network: a network of random weights may be as stable as a trained one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.maps.foreground import largest_otsu_box
from wsolpipe.metrics.boxes import iou_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CROP = 0.08
"""Share of each side that the cropped image lacks at each end."""


def cropped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of an image [H, W, 3], without `CROP` of each side; at least a pixel."""
    height, width = image.shape[:2]
    top, left = int(round(CROP * height)), int(round(CROP * width))
    return image[top : max(height - top, top + 1), left : max(width - left, left + 1)]


def otsu_box_of(score: NDArray[Any]) -> Floats:
    """Box [4] of a map's largest Otsu region as shares of the image; the whole image for a constant map."""
    found = largest_otsu_box(score, (1, 1))
    return np.array([0.0, 0.0, 1.0, 1.0]) if found is None else found.astype(np.float64)


def stability(plain: Floats, mirrored: Floats, cut: Floats) -> float:
    """The smaller of two overlaps: with the box of the mirrored image and with that of the cropped one.

    Parameters
    ----------
    plain, mirrored, cut : float64 [4]
        Boxes of the three maps, each as shares of the image that the network saw.

    Returns
    -------
    float
        In [0, 1].
    """
    back = np.array([1 - mirrored[2], mirrored[1], 1 - mirrored[0], mirrored[3]])
    inside = np.clip(plain, CROP, 1 - CROP)
    whole = CROP + cut * (1 - 2 * CROP)
    return float(min(_iou(plain, back), _iou(inside, whole)))


def _iou(one: Floats, other: Floats) -> float:
    return float(np.nan_to_num(iou_matrix(one[None], other[None])[0, 0]))


def block_sets(depth: int) -> list[tuple[int, ...]]:
    """Sets of blocks that are tried: the last one, two, four and so on, and the one before the last.

    Examples
    --------
    >>> [(first[0], first[-1]) for first in block_sets(12)]
    [(11, 11), (10, 10), (10, 11), (9, 11), (8, 11), (6, 11), (0, 11)]
    """
    sizes = (1, 2, max(depth // 4, 1), max(depth // 3, 1), max(depth // 2, 1), depth)
    sets = [tuple(range(depth - min(size, depth), depth)) for size in sizes]
    return list(dict.fromkeys([sets[0], (max(depth - 2, 0),), *sets[1:]]))


def most_stable(scores: Sequence[float]) -> int:
    """Place of the greatest score, the first of equals."""
    return int(np.argmax(np.asarray(scores, np.float64)))
