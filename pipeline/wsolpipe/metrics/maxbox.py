"""MaxBoxAcc and MaxBoxAccV2: boxes of score maps at many thresholds against ground-truth boxes.

Definitions (Choe et al., CVPR 2020, sections 4.1 and 4.3, and the authors' evaluator): a map in [0, 1] is cut to 8
bits, ``u = trunc(255 * map)``; at threshold tau the pixels with ``u > int(tau * max(u))`` are kept; a contour's box is
``(x, y, x + w, y + h)`` with the far edges clipped to ``side - 1``; IoU counts both edges as pixels. ``"largest"``
takes the contour with the greatest polygon area (MaxBoxAcc), ``"all"`` the best of all contours, hole contours
included (MaxBoxAccV2). A map without any pixel above zero gives the box (0, 0, 0, 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsolpipe.contract.errors import ConfigError, DataError, cores
from wsolpipe.metrics.boxes import as_boxes
from wsolpipe.metrics.rings import GAIN, Main, Truth, steps

Floats = NDArray[np.float64]
Contours = Literal["largest", "all"]


@dataclass(frozen=True)
class Convention:
    """How maps become boxes and boxes become areas.

    Parameters
    ----------
    name : str
    eight_bit : bool
        Cut the map to 256 levels first. Otherwise pixels with ``value > tau * max(map)`` are kept, in float64.
    inclusive : bool
        Boxes count both edges as pixels in areas.
    clip : bool
        Clip far edges to ``side - 1``. Otherwise boxes are half-open and end at ``side`` at most.
    holes : bool
        Contours of holes count as boxes in ``"all"``.
    """

    name: str
    eight_bit: bool
    inclusive: bool
    clip: bool
    holes: bool


#: The field's evaluator, to the last count.
STANDARD = Convention("standard", eight_bit=True, inclusive=True, clip=True, holes=True)
#: Half-open boxes of regions, no quantisation, any resolution.
CLEAN = Convention("clean", eight_bit=False, inclusive=False, clip=False, holes=False)
CONVENTIONS = {convention.name: convention for convention in (STANDARD, CLEAN)}


def taus(thresholds: int = 1000) -> Floats:
    """Return the thresholds 0, 1/n, 2/n … (float64 [n]) as ``numpy.arange(0, 1, 1/n)`` gives them."""
    if thresholds < 1:
        msg = f"thresholds must be at least 1, not {thresholds}"
        raise ConfigError(msg)
    return np.asarray(np.arange(thresholds) * (1.0 / thresholds), dtype=np.float64)


def iou_curves(
    maps: ArrayLike,
    boxes: Sequence[ArrayLike],
    *,
    thresholds: int = 1000,
    contours: Contours = "largest",
    convention: Convention = STANDARD,
    threads: int | None = None,
) -> Floats:
    """Return the IoU of each map's box with its ground truth at each threshold.

    Parameters
    ----------
    maps : float [N, H, W]
        Score maps in [0, 1].
    boxes : sequence of N arrays [M, 4]
        Ground-truth boxes (x0, y0, x1, y1) in map pixels, used as they are. Without a box an image scores 0.
    thresholds : int
        Number of thresholds in [0, 1).
    contours : "largest" or "all"
        Box of the largest contour, or the best over all contours.
    convention : Convention
    threads : int, optional
        Images are shared among this many threads; default one a core. Results do not depend on it.

    Returns
    -------
    float64 [N, thresholds]

    Raises
    ------
    DataError
        If a map is not [H, W], holds NaN or leaves [0, 1], or the numbers of maps and boxes differ.
    ConfigError
        If ``contours`` or ``thresholds`` is not legal.
    """
    settings: Any = {"thresholds": thresholds, "contours": contours, "convention": convention, "threads": threads}
    return np.asarray(iou_curves_of(maps, [boxes], **settings)[0])


def iou_curves_of(
    maps: ArrayLike,
    sets: Sequence[Sequence[ArrayLike]],
    *,
    thresholds: int = 1000,
    contours: Contours = "largest",
    convention: Convention = STANDARD,
    threads: int | None = None,
) -> Floats:
    """Return the curves of ``iou_curves`` for several sets of boxes, such as several annotators', in one sweep a map.

    Parameters
    ----------
    sets : sequence of A sequences of N arrays [M, 4]

    Returns
    -------
    float64 [A, N, thresholds]
        The same numbers as A calls of ``iou_curves``.
    """
    if any(len(boxes) != len(sets[0]) for boxes in sets):
        msg = f"sets of boxes of different numbers of maps: {[len(boxes) for boxes in sets]}"
        raise DataError(msg)
    images = list(zip(*sets, strict=True))
    curves = list(_in_chunks(maps, images, thresholds, contours, convention, threads))
    return np.concatenate(curves, axis=1) if curves else np.zeros((len(sets), 0, thresholds))


def maxbox_counts(
    maps: ArrayLike,
    boxes: Sequence[ArrayLike],
    *,
    thresholds: int = 1000,
    contours: Contours = "largest",
    ious: Sequence[float] = (0.5,),
    convention: Convention = STANDARD,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Return the number of images whose box is correct at each threshold.

    Parameters are those of ``iou_curves``; an image without boxes is never correct, leaving it out of a denominator is
    the caller's business (``MaxBoxEvaluation`` does and counts it).

    Parameters
    ----------
    ious : sequence of float
        IoU levels at and above which a box is correct.

    Returns
    -------
    int64 [len(ious), thresholds]
        MaxBoxAcc at a level is the maximum of its row over the number of images.
    """
    levels = np.asarray(ious, dtype=np.float64).reshape(-1, 1, 1)
    counts = np.zeros((len(levels), thresholds), dtype=np.int64)
    # A chunk at a time: memory does not grow with the number of images.
    for curves in _in_chunks(maps, [(own,) for own in boxes], thresholds, contours, convention, threads):
        counts += (curves[0] >= levels).sum(axis=1)
    return counts


def largest_boxes(score: ArrayLike, *, thresholds: int = 1000, convention: Convention = STANDARD) -> Floats:
    """Return the box of the largest contour of one map [H, W] at each threshold (float64 [thresholds, 4])."""
    array = np.asarray(score)
    if not convention.eight_bit:
        blocks = _clean_blocks(checked_map(array), taus(thresholds), "largest", convention, None)
        return np.concatenate([boxes for boxes, _ in blocks])
    framed, peak = _quantised(array)
    cuts = (taus(thresholds) * peak).astype(np.int64)
    if peak == 0:
        return np.zeros((thresholds, 4))
    return np.asarray(_boxes_by_cut(framed, peak, _clip(array.shape, convention))[cuts], dtype=np.float64)


def largest_box(score: ArrayLike, tau: float, *, convention: Convention = STANDARD) -> Floats:
    """Return the box [4] of the largest contour of one map [H, W] at threshold ``tau``."""
    array = np.asarray(score)
    if not convention.eight_bit:
        ((boxes, _),) = _clean_blocks(checked_map(array), np.array([tau]), "largest", convention, None)
        return np.asarray(boxes[0])
    framed, peak = _quantised(array)
    if peak == 0:
        return np.zeros(4)
    return np.asarray(_boxes_by_cut(framed, peak, _clip(array.shape, convention))[int(tau * peak)], dtype=np.float64)


def box_at_level(score: ArrayLike, level: int, *, convention: Convention = STANDARD) -> Floats:
    """Return the box [4] of the largest contour of ``trunc(255 * map) > level``; zeros where nothing is above it."""
    array = np.asarray(score)
    framed, peak = _quantised(array)
    if level >= peak:
        return np.zeros(4)
    return np.asarray(_boxes_by_cut(framed, peak, _clip(array.shape, convention))[level], dtype=np.float64)


def boxes_by_cut(score: ArrayLike) -> NDArray[np.int32]:
    """Return the box of the largest contour of a map [H, W] at each cut below its peak (int32 [peak, 4]).

    Of ``trunc(255 * map) > cut``, by `STANDARD`; empty for a map without any pixel above zero.
    """
    array = np.asarray(score)
    framed, peak = _quantised(array)
    return _boxes_by_cut(framed, peak, _clip(array.shape, STANDARD))[:peak] if peak else np.zeros((0, 4), np.int32)


def checked_map(score: ArrayLike, *, number: int | None = None) -> Floats:
    """Return a score map as contiguous float64 [H, W] or say what is wrong with it.

    Raises
    ------
    DataError
        If the shape is not [H, W], or a value is NaN or outside [0, 1].
    """
    array = np.ascontiguousarray(score, dtype=np.float64)
    place = "map" if number is None else f"map {number}"
    if array.ndim != 2 or array.size == 0:
        msg = f"{place} must have the shape [H, W], not {list(array.shape)}"
        raise DataError(msg)
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):
        problem = "holds NaN" if np.isnan(low) or np.isnan(high) else f"leaves [0, 1]: {low:g} to {high:g}"
        msg = f"{place} {problem}"
        raise DataError(msg, hint="normalise it first, e.g. with wsolpipe.metrics.minmax, which turns NaN into zeros")
    return array


def _in_chunks(
    maps: ArrayLike,
    boxes: Sequence[Sequence[ArrayLike]],
    thresholds: int,
    contours: Contours,
    convention: Convention,
    threads: int | None,
) -> Iterator[Floats]:
    """Yield the curves [A, n, thresholds] of 64 images a thread at a time; each image has A sets of boxes."""
    array = np.asarray(maps)
    if array.ndim != 3:
        msg = f"maps must have the shape [N, H, W], not {list(array.shape)}"
        raise DataError(msg)
    if len(boxes) != len(array):
        msg = f"{len(array)} maps but {len(boxes)} sets of boxes: one set an image, possibly empty"
        raise DataError(msg)
    if contours not in ("largest", "all"):
        msg = f'contours must be "largest" or "all", not {contours!r}'
        raise ConfigError(msg)
    levels = taus(thresholds)
    workers = threads or cores()

    def curve(number: int) -> Floats:
        sets = [as_boxes(own) for own in boxes[number]]
        truth = truth_of(sets, array.shape[1:], convention)
        return _curve(array[number], number, truth, levels, contours, convention)

    step = 64 * workers
    if workers == 1 or len(array) < 2:
        for first in range(0, len(array), step):
            yield np.stack([curve(number) for number in range(first, min(first + step, len(array)))], axis=1)
        return
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(array), step):
            yield np.stack(list(pool.map(curve, range(first, min(first + step, len(array))))), axis=1)


def _curve(
    score: Floats, number: int, truth: Truth, levels: Floats, contours: Contours, convention: Convention
) -> Floats:
    """Return the best IoU [A, thresholds] of one map."""
    from wsolpipe.metrics import sweep

    if not convention.eight_bit:
        checked = checked_map(score, number=number)
        return np.concatenate([best for _, best in _clean_blocks(checked, levels, contours, convention, truth)], axis=1)
    framed, peak = _quantised(score, number)
    if peak == 0:
        empty = [sweep.best_iou_of(0.0, 0.0, 0.0, 0.0, truth, own) for own in range(len(truth.starts) - 1)]
        return np.repeat(np.array(empty)[:, None], len(levels), axis=1)
    return _best_by_cut(framed, peak, truth, contours, convention).take((levels * peak).astype(np.int64), axis=1)


def _clean_blocks(
    score: Floats, levels: Floats, contours: Contours, convention: Convention, truth: Truth | None
) -> Iterator[tuple[Floats, Floats]]:
    """Yield boxes and IoU for 255 thresholds at a time, on maps of ranks: exact without quantisation."""
    from wsolpipe.metrics.pixel_loops import framed

    peak, clip = score.max(), _clip(score.shape, convention)
    for first in range(0, len(levels), 255):
        block = levels[first : first + 255]
        sets = 1 if truth is None else len(truth.starts) - 1
        boxes, best = np.zeros((len(block), 4)), np.zeros((sets, len(block)))
        if peak > 0:
            # rank > k exactly where value > block[k] * peak
            ranks = framed(np.searchsorted(block * peak, score, side="left").astype(np.uint8))
            if truth is None:
                boxes = _boxes_by_cut(ranks, len(block), clip)[: len(block)].astype(np.float64)
            else:
                best = _best_by_cut(ranks, len(block), truth, contours, convention)[:, : len(block)]
        yield boxes, best


def _quantised(score: ArrayLike, number: int | None = None) -> tuple[NDArray[np.uint8], int]:
    """Return a map cut to 8 bits, framed, and its highest value."""
    from wsolpipe.metrics.pixel_loops import (
        quantised,
    )  # numba takes a second to import: only those who sweep wait for it

    array = np.ascontiguousarray(score, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        checked_map(array, number=number)
    framed, legal = quantised(array)
    if not legal:
        checked_map(array, number=number)
    return framed, int(framed.max())


def _clip(size: Sequence[int], convention: Convention) -> NDArray[np.int64]:
    height, width = size
    return np.array([width - convention.clip, height - convention.clip])


def truth_of(sets: Sequence[Floats], size: Sequence[int], convention: Convention) -> Truth:
    """Sets of boxes [M, 4] that a map of `size` (height, width) is held against."""
    starts = np.array([0, *accumulate(map(len, sets))])
    return Truth(np.concatenate(sets), starts, float(convention.inclusive), _clip(size, convention))


def _best_by_cut(
    framed: NDArray[np.uint8], peak: int, truth: Truth, contours: Contours, convention: Convention
) -> Floats:
    """Return the best IoU at each cut below ``peak`` (float64 [A, 256])."""
    from wsolpipe.metrics import flood, sweep

    if contours == "largest":
        return np.asarray(sweep.iou_by_cut(_boxes_by_cut(framed, peak, truth.clip), peak, truth))
    level, codes, stride = flood.main_level(framed), flood.ring_codes(framed), framed.shape[1]
    best: Floats = sweep.iou_by_cut(flood.main_boxes(level, peak, truth.clip), peak, truth)
    sweep.raise_by(framed, level, codes, steps("region", stride), False, truth, best)
    if convention.holes:
        sweep.raise_by(framed, flood.filled(framed), codes, steps("hole", stride), True, truth, best)
    return best


def _boxes_by_cut(framed: NDArray[np.uint8], peak: int, clip: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the box of the largest contour at each cut below ``peak`` (int32 [256, 4])."""
    from wsolpipe.metrics import flood, sweep

    roof = flood.filled(framed)
    level = flood.main_level(roof)
    main = Main(level, flood.main_areas(level), flood.main_boxes(level, peak, clip), clip)
    sweep.take_larger_islands(roof, flood.ring_codes(roof), main, steps("first", roof.shape[1]), GAIN)
    return main.boxes
