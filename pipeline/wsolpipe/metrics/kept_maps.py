"""Score maps of an epoch as they are kept, to be scored later on: their boxes at every threshold, or the maps.

A map cut to 8 bits has at most 255 thresholds, and neighbouring ones mostly give one box. So of a map are kept its peak
and, for each box of the largest contour, the first cut at which it appears. `CutBoxes.curves` gives the very numbers of
`wsolpipe.metrics.maxbox.iou_curves` on the maps (largest contour, the standard convention). Against masks, maps are
kept as they were made: one of 14 x 14 takes 784 bytes and one of 224 x 224 196 KiB, before compression.
"""

from __future__ import annotations

import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError, writing
from wsolpipe.metrics.boxes import as_boxes
from wsolpipe.metrics.maxbox import STANDARD, boxes_by_cut, taus, truth_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

    Array = np.ndarray[Any, Any]

#: Ending of the file of an epoch's maps, beside that of its boxes.
SUFFIX = "-maps.npz"
DAMAGED = "train again with outcomes=true, or remove the file to leave its epoch out"
#: Of a file of boxes; steps are from one box to the next, which compress to a quarter.
FIELDS = ("rows", "side", "peaks", "starts", "cut_steps", "box_steps")


def _write(path: Path, **arrays: Any) -> None:
    """Write a compressed npz file, whole or not at all."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.half")
        with half.open("wb") as file:
            np.savez_compressed(file, **arrays)
        half.replace(path)


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[Any]:
    """The arrays of an npz file; whatever a damaged one or one of another kind raises becomes a DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        msg = f"{path} holds no {kind} of a validation split: {error}"
        raise DataError(msg, hint=DAMAGED) from error


def _require_whole(path: Path, whole: Any) -> None:
    if not whole:
        msg = f"{path} is damaged: its parts are of different lengths"
        raise DataError(msg, hint=DAMAGED)


@dataclass(frozen=True)
class CutBoxes:
    """Boxes of N maps at all cuts.

    Attributes
    ----------
    rows : int64 [N]
        Row of each map in its split.
    side : int
        Of the frame, pixels.
    peaks : uint8 [N]
        Highest value of each map; 0 where it is empty.
    starts : int64 [N + 1]
        Where the boxes of each map begin, and the end.
    cuts : uint8 [K]
        First cut of each box; a map's first is 0.
    boxes : uint16 [K, 4]
        (x0, y0, x1, y1) in pixels of the frame.
    """

    rows: Array
    side: int
    peaks: Array
    starts: Array
    cuts: Array
    boxes: Array

    @classmethod
    def of_maps(cls, rows: Iterable[int], side: int, maps: Iterable[ArrayLike]) -> CutBoxes:
        """Take the boxes of maps [side, side] in 0..1.

        Raises
        ------
        DataError
            If a map holds NaN or leaves 0..1.
        """
        peaks, cuts, boxes = [], [], []
        for score in maps:
            found = boxes_by_cut(score)
            fresh = (
                np.flatnonzero(np.append(True, (found[1:] != found[:-1]).any(1))) if len(found) else np.zeros(0, int)
            )
            peaks.append(len(found))
            cuts.append(fresh.astype(np.uint8))
            boxes.append(found[fresh].astype(np.uint16))
        return cls(
            np.fromiter(rows, np.int64),
            side,
            np.array(peaks, np.uint8),
            np.cumsum([0, *map(len, cuts)]),
            np.concatenate([np.zeros(0, np.uint8), *cuts]),
            np.concatenate([np.zeros((0, 4), np.uint16), *boxes]),
        )

    @classmethod
    def joined(cls, parts: Sequence[CutBoxes]) -> CutBoxes:
        """Several, one after the other; all of one side."""
        ends = np.cumsum([0, *(each.starts[-1] for each in parts)])
        starts = [each.starts[:-1] + end for each, end in zip(parts, ends[:-1], strict=True)]
        return cls(
            np.concatenate([each.rows for each in parts]),
            parts[0].side,
            np.concatenate([each.peaks for each in parts]),
            np.concatenate([*starts, ends[-1:]]),
            np.concatenate([each.cuts for each in parts]),
            np.concatenate([each.boxes for each in parts]),
        )

    def curves(self, sets: Sequence[Sequence[ArrayLike]], *, thresholds: int = 1000) -> Array:
        """IoU of each map's box at each threshold with sets of boxes, such as several annotators'.

        Parameters
        ----------
        sets : sequence of A sequences of N arrays [M, 4]
            Boxes in pixels of the frame, in the order of `rows`. Without a box an image scores 0.

        Returns
        -------
        float64 [A, N, thresholds]
            The numbers of ``iou_curves_of`` on the maps themselves.

        Raises
        ------
        DataError
            If a set is not of N images.
        """
        from wsolpipe.metrics import sweep  # numba takes a second to import

        if any(len(each) != len(self.rows) for each in sets):
            msg = f"boxes of {len(self.rows)} maps, but sets of {[len(each) for each in sets]}"
            raise DataError(msg)
        levels = taus(thresholds)
        found = np.zeros((len(sets), len(self.rows), thresholds))
        for number, peak in enumerate(self.peaks.tolist()):
            own = [as_boxes(each[number]) for each in sets]
            place = slice(self.starts[number], self.starts[number + 1])
            boxes = self.boxes[place].astype(np.int32) if peak else np.zeros((1, 4), np.int32)
            best = sweep.iou_by_cut(boxes, len(boxes), truth_of(own, (self.side, self.side), STANDARD))
            cuts = (levels * peak).astype(np.int64)
            found[:, number] = best[:, np.searchsorted(self.cuts[place], cuts, side="right") - 1 if peak else cuts]
        return found

    def write(self, path: Path) -> None:
        """Write a compressed npz file, whole or not at all; raises AccessError if it cannot be written."""
        cuts = np.diff(self.cuts, prepend=np.uint8(0))
        boxes = np.diff(self.boxes.T.astype(np.int16), prepend=np.int16(0))
        plain = {name: getattr(self, name) for name in FIELDS[:4]}
        _write(path, **plain, cut_steps=cuts, box_steps=boxes)

    @classmethod
    def read(cls, path: Path) -> CutBoxes:
        """Read what `write` wrote.

        Raises
        ------
        DataError
            If the file is damaged or of another kind.
        """
        with _reading(path, "boxes") as file:
            rows, side, peaks, starts, cut_steps, box_steps = (file[name] for name in FIELDS)
            boxes = np.cumsum(box_steps, axis=1, dtype=np.int16).T.astype(np.uint16)
            made = cls(rows, int(side), peaks, starts, np.cumsum(cut_steps, dtype=np.uint8), boxes)
        whole = len(made.rows) == len(made.peaks) == len(made.starts) - 1
        _require_whole(path, whole and made.starts[-1] == len(made.cuts) == len(made.boxes))
        return made


@dataclass(frozen=True)
class KeptMaps:
    """N maps of one size.

    Attributes
    ----------
    rows : int64 [N]
        Row of each map in its split.
    side : int
        Of the frame in which they are scored, pixels.
    unit : bool
        Whether they are in 0..1 as they are; otherwise each is scaled by its own range when it is scored.
    values : float32 [N, h, w]
    """

    rows: Array
    side: int
    unit: bool
    values: Array

    @classmethod
    def of_maps(cls, rows: Array, side: int, maps: Sequence[Array], *, unit: bool) -> KeptMaps:
        """Take maps [h, w]."""
        return cls(np.asarray(rows, np.int64), side, unit, np.stack(maps).astype(np.float32))

    @classmethod
    def joined(cls, parts: Sequence[KeptMaps]) -> KeptMaps:
        """Several, one after the other; all of one size."""
        rows, values = (np.concatenate([getattr(each, name) for each in parts]) for name in ("rows", "values"))
        return cls(rows, parts[0].side, parts[0].unit, values)

    def write(self, path: Path) -> None:
        """Write a compressed npz file, whole or not at all; raises AccessError if it cannot be written."""
        _write(path, rows=self.rows, side=self.side, unit=self.unit, values=self.values)

    @classmethod
    def read(cls, path: Path) -> KeptMaps:
        """Read what `write` wrote.

        Raises
        ------
        DataError
            If the file is damaged or of another kind.
        """
        with _reading(path, "maps") as file:
            made = cls(file["rows"], int(file["side"]), bool(file["unit"]), file["values"])
        _require_whole(path, made.values.ndim == 3 and len(made.rows) == len(made.values))
        return made
