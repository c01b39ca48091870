"""Noise studies: ground truth disturbed by known amounts, to measure how much noise a selection tolerates.

Boxes: ten levels L of 5, 10 … 50 per cent. The thesis fixes the order (scale, shift, aspect) and the ranges but neither
axes, signs nor clipping; these are ours, for a box of centre (cx, cy), width w and height h, with U uniform draws:

1. scale: both sides times one factor ``1 + U(-L, L)``, about the centre;
2. shift: cx by ``s * U(0, L) * w``, cy by ``s' * U(0, L) * h``, signs s and s' by a fair coin each, w and h those of
   the scaled box;
3. aspect: with probability L, w times ``sqrt(r)`` and h divided by it, ``r = exp(U(-a, a))`` with ``a = log(1 + L)``:
   the area stays;
4. clip to the image; a side left shorter than one pixel is made one pixel, inside the image.

Masks: peeled from the outside, a ring of pixels (four neighbours, outside the image counts as background) at a time,
until the wanted share of the area is gone; the last ring goes pixel by pixel in a seeded order, so that the loss is
exact to one pixel. An object keeps at least one pixel.

Every row has a generator of its own, ``default_rng((seed, row, level))``: results depend on no other row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsolpipe.contract.errors import ConfigError
from wsolpipe.metrics.boxes import as_boxes

#: The ten levels of box noise.
LEVELS = tuple(level / 100 for level in range(5, 51, 5))
#: The ten area losses of masks.
LOSSES = (0.05, *(loss / 100 for loss in range(10, 91, 10)))


def _generator(seed: int, row: int, level: float) -> np.random.Generator:
    """Return the random generator of one row at one level."""
    return np.random.default_rng((seed, row, round(level * 1000)))


def noisy_boxes(
    boxes: ArrayLike, size: tuple[float, float], level: float, *, seed: int, row: int
) -> NDArray[np.float64]:
    """Return boxes [M, 4] disturbed by the module's rules.

    Parameters
    ----------
    boxes : array_like [M, 4]
        Half-open boxes in pixels.
    size : (width, height)
        Of the image.
    level : float
        L in 0..1; 0 changes nothing but the clipping.
    seed, row : int

    Raises
    ------
    ConfigError
        If ``level`` is not in 0..1.
    """
    _check_share(level, "level")
    rng = _generator(seed, row, level)
    width, height = size
    noisy = []
    for x0, y0, x1, y1 in as_boxes(boxes):
        w, h = x1 - x0, y1 - y0
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        # All draws are made for every box, so that one rule's outcome never shifts the next box's draws.
        scale, across, down, stretch = 1 + rng.uniform(-level, level), *rng.uniform(0, level, 2), rng.random()
        signs, ratio = rng.choice((-1.0, 1.0), 2), np.exp(rng.uniform(-1, 1) * np.log1p(level))
        w, h = w * scale, h * scale
        cx, cy = cx + signs[0] * across * w, cy + signs[1] * down * h
        if stretch < level:
            w, h = w * np.sqrt(ratio), h / np.sqrt(ratio)
        noisy.append((*_clipped(cx, w, width), *_clipped(cy, h, height)))
    edges = np.array(noisy, dtype=np.float64).reshape(-1, 4)
    return edges[:, [0, 2, 1, 3]]


def _clipped(centre: float, side: float, room: float) -> tuple[float, float]:
    """Return the edges of a side within 0..room, at least one pixel long where there is room."""
    low, high = max(0.0, centre - side / 2), min(room, centre + side / 2)
    if high - low < 1.0:
        least = min(1.0, room)
        low = min(max(0.0, (low + high) / 2 - least / 2), room - least)
        high = low + least
    return low, high


def eroded_mask(mask: ArrayLike, loss: float, *, seed: int, row: int) -> NDArray[np.bool_]:
    """Return a mask bool [H, W] that has lost the share ``loss`` of its area from the outside.

    Raises
    ------
    ConfigError
        If ``loss`` is not in 0..1.
    """
    _check_share(loss, "loss")
    left = np.asarray(mask, dtype=np.bool_).copy()
    area = int(left.sum())
    keep = min(area, max(1, area - round(loss * area)))
    while (count := int(left.sum())) > keep:
        padded = np.pad(left, 1)
        inner = left & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if int(inner.sum()) >= keep:
            left = inner
            continue
        ring = np.flatnonzero(left & ~inner)
        gone = _generator(seed, row, loss).permutation(ring)[: count - keep]
        left.flat[gone] = False
    return left


def _check_share(value: float, name: str) -> None:
    if not 0.0 <= value <= 1.0:
        msg = f"{name} must be a share in 0..1, not {value}"
        raise ConfigError(msg)
