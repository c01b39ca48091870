"""Opening the files of an index: size, digest, dimensions and orientation of each, or why it cannot be used."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wsolpipe.contract.errors import BadImageError, DataError
from wsolpipe.images.decode import decode_oriented, read_file
from wsolpipe.images.members import split_member
from wsolpipe.images.video import map_ahead, open_film, split_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from wsolpipe.images.listing import ListedRow


#: Prefixes of the reason of a row whose file could not be opened; it is scanned again once the file is back.
MISSING, UNREADABLE = "missing file", "unreadable file: "


@dataclass(frozen=True, slots=True)
class Scan:
    """Facts about one image file.

    Attributes
    ----------
    bytes : int
        Size of the file; 0 if it could not be read.
    sha256 : str
        Of the file; empty if it could not be read.
    width, height : int
        Of the upright image in pixels; 0 if it could not be decoded.
    orientation : int
        EXIF orientation that makes it upright; 1 where EXIF is ignored.
    reason : str
        Why the row is quarantined; empty for a good file.
    """

    bytes: int
    sha256: str
    width: int
    height: int
    orientation: int
    reason: str = ""


def scan_rows(
    root: Path,
    rows: Iterable[ListedRow],
    *,
    exif: Literal["apply", "ignore"],
    threads: int = 2,
    check: Callable[[], None] = lambda: None,
) -> Generator[Scan]:
    """Hash and fully decode the files of `rows`, in threads; only a full decode finds a truncated file.

    Parameters
    ----------
    check : callable
        Called after every file; may raise to end the scan.

    Yields
    ------
    Scan
        One a row, in order. A bad file raises no error: its scan has a reason.

    Raises
    ------
    DataError
        If the root itself is missing.
    """
    top = os.fspath(root)

    def scan(row: ListedRow) -> Scan:
        if row.reason:
            return Scan(0, "", 0, 0, 1, row.reason)
        found = scan_file(os.path.join(top, row.path), exif=exif)
        if found.reason.startswith((MISSING, UNREADABLE)) and not os.path.isdir(top):
            msg = f"the folder of images {top} is gone"
            raise DataError(msg, hint="nothing was committed of these rows: run again once it is back")
        return found

    with closing(map_ahead(scan, rows, threads=threads)) as results:
        for found in results:
            check()
            yield found


def scan_file(path: str, *, exif: Literal["apply", "ignore"]) -> Scan:
    """Hash and fully decode one file, or one frame of a video file; of a frame, `bytes` is its share of the file."""
    frame = split_frame(path)
    try:
        if frame is not None:
            return _scan_frame(*frame)
        data = read_file(path)
    except FileNotFoundError:
        return Scan(0, "", 0, 0, 1, MISSING)
    except OSError as error:
        return Scan(0, "", 0, 0, 1, f"{UNREADABLE}{error.strerror or type(error).__name__}")
    except BadImageError as error:
        return Scan(0, "", 0, 0, 1, error.message)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        pixels, orientation = decode_oriented(data, exif=exif)
    except BadImageError as error:
        return Scan(len(data), sha256, 0, 0, 1, error.message)
    return Scan(len(data), sha256, pixels.shape[1], pixels.shape[0], orientation)


def _scan_frame(path: str, number: int) -> Scan:
    film = open_film(path)
    pixels = film.read(number)
    return Scan(film.size // len(film), film.frame_sha256(number), pixels.shape[1], pixels.shape[0], 1)


def near_file(root: Path, path: str) -> str:
    """Advice that names the file which a path may mean: without a prefix, with another ending, or in another folder."""
    if split_member(path) or split_frame(path):
        return ""
    if "\\" in path and (root / path.replace("\\", "/")).is_file():
        return f"{path.replace(chr(92), '/')} is there: paths have / between their folders"
    parts = path.split("/")
    for place in range(1, len(parts)):
        if (root / "/".join(parts[place:])).is_file():
            return f"{'/'.join(parts[place:])} is there: leave {'/'.join(parts[:place])}/ out of the paths"
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    with suppress(OSError):
        near = [item.name for item in sorted((root / folder).iterdir()) if item.stem == stem and item.is_file()]
        if near:
            return f"{near[0]} is there: the paths have another ending"
    with suppress(OSError):
        for found in sorted(item.name for item in root.iterdir() if (item / path).is_file()):
            return f"{found}/{path} is there: root: is one folder too high"
    return f"paths are looked for below {root}"
