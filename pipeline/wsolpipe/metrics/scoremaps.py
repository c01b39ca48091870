"""A folder of score maps in the field's layout: ``<root>/<image_id>.npy`` or ``.npz``, the image's suffix or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolpipe.contract.errors import DataError


class ScoreMaps:
    """Maps of a folder by image id; a missing map is None, never an error.

    An ``.npz`` file holds one array, or one named ``scoremap``, ``cam`` or ``map``. Nothing is unpickled.

    Parameters
    ----------
    root : path
        Folder; image ``val2/995/0.jpeg`` is looked for as ``val2/995/0.jpeg.npy``, ``val2/995/0.npy`` and the same
        with ``.npz``.

    Raises
    ------
    DataError
        If the folder is not there.
    """

    NAMES = ("scoremap", "cam", "map")

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            msg = f"the folder of score maps {self.root} does not exist"
            raise DataError(msg, hint="name the folder that holds <image_id>.npy")

    def path(self, image_id: str) -> Path | None:
        """Return the file that holds an image's map, or None."""
        plain = PurePosixPath(image_id)
        if plain.is_absolute() or ".." in plain.parts:
            msg = f"image id {image_id!r} leads out of the folder of score maps"
            raise DataError(msg)
        for stem in (image_id, str(plain.with_suffix(""))):
            for suffix in (".npy", ".npz"):
                candidate = self.root / f"{stem}{suffix}"
                if candidate.is_file():
                    return candidate
        return None

    def read(self, image_id: str) -> NDArray[np.floating[Any]] | None:
        """Return an image's map float [h, w], or None if there is no file for it.

        Raises
        ------
        DataError
            If the file cannot be read as numbers, or is not [h, w] (a leading axis of one is taken off).
        """
        path = self.path(image_id)
        if path is None:
            return None
        try:
            with np.load(path, allow_pickle=False) as packed:
                array = self._only_array(packed, path)
        except TypeError:  # an .npy array is no context manager
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            if isinstance(error, DataError):
                raise
            msg = f"{path} is not a readable score map: {error}"
            raise DataError(msg) from error
        while array.ndim > 2 and array.shape[0] == 1:
            array = array[0]
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
            msg = f"{path} holds {array.dtype} {list(array.shape)}, want numbers of the shape [h, w]"
            raise DataError(msg)
        return array if array.dtype.kind == "f" else array.astype(np.float64)

    def _only_array(self, packed: Any, path: Path) -> NDArray[Any]:
        names = list(packed.files)
        named = [name for name in self.NAMES if name in names]
        if len(names) != 1 and not named:
            msg = f"{path} holds {names}: want one array, or one named {', '.join(self.NAMES)}"
            raise DataError(msg)
        return np.asarray(packed[named[0] if named else names[0]])

    def items(self, image_ids: Iterable[str]) -> Iterator[tuple[str, NDArray[np.floating[Any]] | None]]:
        """Yield (image id, map or None) one at a time."""
        for image_id in image_ids:
            yield image_id, self.read(image_id)
