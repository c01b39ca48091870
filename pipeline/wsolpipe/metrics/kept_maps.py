"""Score maps at the resolution of their network, as they were made: kept, they are scored against any masks later on.

A map of 14 x 14 takes 784 bytes and one of 224 x 224 196 KiB, before compression.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.machine import writing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Array = np.ndarray[Any, Any]

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
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f".{path.name}.half")
            with half.open("wb") as file:
                np.savez_compressed(file, rows=self.rows, side=self.side, unit=self.unit, values=self.values)
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
                made = cls(file["rows"], int(file["side"]), bool(file["unit"]), file["values"])
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            msg = f"{path} holds no maps of a validation split: {error}"
            raise DataError(
                msg, hint="train again with outcomes=true, or remove the file to leave its epoch out"
            ) from error
        if made.values.ndim != 3 or len(made.rows) != len(made.values):
            msg = f"{path} is damaged: its parts are of different lengths"
            raise DataError(msg, hint="train again with outcomes=true, or remove the file to leave its epoch out")
        return made
