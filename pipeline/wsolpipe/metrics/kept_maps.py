"""Score maps at the resolution of their network, two bytes a value: kept, they are scored against any masks later on.

Values are levels 0 … 65,535 between a map's lowest and highest, or of 0 … 1 where a network's maps are in that range as
they are. A map of 14 x 14 takes 392 bytes and one of 224 x 224 98 KiB, before compression.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.writing import writing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Array = np.ndarray[Any, Any]

LEVELS = 65535
SUFFIX = "-maps.npz"
"""Ending of the file of an epoch, beside that of its boxes."""


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
    levels : uint16 [N, h, w]
    """

    rows: Array
    side: int
    unit: bool
    levels: Array

    @classmethod
    def of_maps(cls, rows: Array, side: int, maps: Sequence[Array], *, unit: bool) -> KeptMaps:
        """Take maps [h, w]; values that are not finite become the lowest."""
        made = []
        for raw in maps:
            values = np.asarray(raw, np.float64)
            low, high = (0.0, 1.0) if unit else (np.min(values), np.max(values))
            scaled = (values - low) / (high - low) if np.isfinite(values).all() and high > low else values * 0
            made.append(np.nan_to_num(np.round(scaled * LEVELS)).clip(0, LEVELS).astype(np.uint16))
        return cls(np.asarray(rows, np.int64), side, unit, np.stack(made))

    @classmethod
    def joined(cls, parts: Sequence[KeptMaps]) -> KeptMaps:
        """Several, one after the other; all of one size."""
        rows, levels = (np.concatenate([getattr(each, name) for each in parts]) for name in ("rows", "levels"))
        return cls(rows, parts[0].side, parts[0].unit, levels)

    def map(self, place: int) -> Array:
        """Return a map in 0..1, float32 [h, w]."""
        found: Array = self.levels[place].astype(np.float32) / np.float32(LEVELS)
        return found

    def write(self, path: Path) -> None:
        """Write a compressed npz file, whole or not at all; raises AccessError if it cannot be written."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f".{path.name}.half")
            with half.open("wb") as file:
                np.savez_compressed(file, rows=self.rows, side=self.side, unit=self.unit, levels=self.levels)
            half.replace(path)

    @classmethod
    def read(cls, path: Path) -> KeptMaps:
        """Read what `write` wrote.

        Raises
        ------
        DataError
            If the file is damaged or of another kind.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                made = cls(file["rows"], int(file["side"]), bool(file["unit"]), file["levels"])
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            msg = f"{path} holds no maps of a validation split: {error}"
            raise DataError(
                msg, hint="train again with outcomes=true, or remove the file to leave its epoch out"
            ) from error
        if made.levels.ndim != 3 or len(made.rows) != len(made.levels):
            msg = f"{path} is damaged: its parts are of different lengths"
            raise DataError(msg, hint="train again with outcomes=true, or remove the file to leave its epoch out")
        return made
