"""The image files of a data set as a stage reads them: one that is lost costs its row, a lost folder stops the run."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import BadImageError, DataError
from wsolpipe.contract.layout import sha256_bytes
from wsolpipe.images.decode import decode, read_file
from wsolpipe.images.scan import near_file
from wsolpipe.images.video import file_of, open_film, split_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np

#: How the reason of a row begins whose file could not be opened; such rows are tried again once the file is back.
LOST = "cannot be read: "
#: Unreadable files in a row after which the folder counts as unreachable, and no more rows are quarantined.
IN_A_ROW = 16


class ImageFiles:
    """Reads the files below a root, and counts how many in a row could not be read.

    Shared by the threads of a process.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        self._lost = 0
        self._lock = threading.Lock()

    def read(self, path: str, sha256: str | None, orientation: int | None) -> np.ndarray[Any, Any]:
        """Decode a file that the index knows, or a frame of a video file.

        Parameters
        ----------
        path : str
            Relative to the root.
        sha256 : str or None
            Of the file as it was indexed.
        orientation : int or None
            EXIF orientation that makes it upright.

        Returns
        -------
        uint8 array [H, W, 3]

        Raises
        ------
        BadImageError
            If it cannot be opened, has other bytes than were indexed, or cannot be decoded.
        DataError
            If the root is gone, or `IN_A_ROW` files in a row could not be opened.
        """
        frame = split_frame(path)
        try:
            if frame is not None:
                film = open_film(f"{self.root}/{frame[0]}")
                found = film.frame_sha256(frame[1]) if sha256 else None
            else:
                data = read_file(f"{self.root}/{path}")
                found = sha256_bytes(data) if sha256 else None
        except OSError as error:
            self.note_lost(path, error)
            msg = f"{LOST}{error.strerror}"
            raise BadImageError(msg) from error
        self.note_read()
        if sha256 and found != sha256:
            msg = "changed since it was indexed: run stage=index force=true"
            raise BadImageError(msg)
        return decode(data, orientation=orientation) if frame is None else film.read(frame[1])

    def loader(self, columns: Mapping[str, Sequence[Any]]) -> Callable[[int], np.ndarray[Any, Any]]:
        """`read` by position in columns of an index: path, sha256 and orientation."""
        path, sha256, orientation = (columns[name] for name in ("path", "sha256", "orientation"))
        return lambda position: self.read(path[position], sha256[position], orientation[position])

    def note_read(self) -> None:
        """Count anew: a file could be opened."""
        self._lost = 0

    def note_lost(self, path: str, error: OSError | None = None) -> None:
        """Count a file that could not be opened.

        Raises
        ------
        DataError
            If the root is gone, or `IN_A_ROW` files in a row could not be opened.
        """
        with self._lock:
            self._lost += 1
            many = self._lost >= IN_A_ROW
        if many or not os.path.isdir(self.root):
            raise self._out_of_reach(IN_A_ROW, path) from error

    def confirm_lost(self, lost: Sequence[str], read: Iterable[str]) -> None:
        """Make sure that lost files are lost, and not the folder: one of those that were `read` can still be opened.

        Raises
        ------
        DataError
            If none can.
        """
        if lost and not any(is_readable(self.root, path) for path in read):
            raise self._out_of_reach(len(lost), lost[-1])

    def _out_of_reach(self, count: int, path: str) -> DataError:
        msg = f"{count} image files in a row cannot be read, last {self.root}/{path}"
        if not os.path.isdir(self.root):
            msg = f"the folder of images {self.root} is gone"
        elif near := near_file(Path(self.root), path):
            msg = f"{msg}; {near}"
        hint = "nothing was committed of these rows: run again once the files are back; "
        return DataError(msg, hint=hint + "if they were removed for good, run stage=index force=true first")


def is_readable(root: str | Path, path: str) -> bool:
    """Whether the file of a row below the root can be opened."""
    return os.access(f"{os.fspath(root)}/{file_of(path)}", os.R_OK)
