"""Pictures to predict on: files of a folder or pattern, frames of videos; unreadable ones are reported, not raised."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsolpipe.contract.errors import BadImageError, ConfigError
from wsolpipe.images.decode import decode, read_file
from wsolpipe.images.importers.lines import IMAGE_ENDINGS
from wsolpipe.images.video import VIDEO_ENDINGS, frame_path, is_video, map_ahead, need_av

#: That decode images ahead.
THREADS = 4


@dataclass(frozen=True)
class Picture:
    """One picture, or why there is none.

    Attributes
    ----------
    name : str
        Path relative to the folder that was named; a frame adds ``#`` and its number.
    pixels : uint8 array [H, W, 3] or None
        Upright.
    reason : str
        Why there are no pixels.
    """

    name: str
    pixels: NDArray[np.uint8] | None
    reason: str = ""


def find_files(source: str) -> tuple[Path, list[Path]]:
    """Files of a source and the folder that their names are relative to.

    Parameters
    ----------
    source : str
        A folder, with all its sub-folders; one file; or a pattern such as ``photos/**/*.jpg``.

    Raises
    ------
    ConfigError
        If no image or video is found.
    """
    path = Path(source)
    if path.is_dir():
        base, found = path, [each for each in path.rglob("*") if each.is_file()]
    elif path.is_file():
        base, found = path.parent, [path]
    else:
        found = [Path(each) for each in glob.glob(source, recursive=True) if Path(each).is_file()]
        parts = Path(source).parts
        fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        base = Path(*parts[:fixed]) if fixed else Path()
    wanted = sorted(each for each in found if each.suffix.lower() in (*IMAGE_ENDINGS, *VIDEO_ENDINGS))
    if path.is_file():
        wanted = found  # what is named by itself is tried whatever its ending
    if not wanted:
        msg = f"source={source}: no image or video there"
        raise ConfigError(msg, hint="a folder, a file, or a quoted pattern such as 'photos/**/*.jpg'")
    return base, wanted


def read_pictures(source: str, *, every: int = 1) -> Iterator[Picture]:
    """Pictures of a source, one after the other.

    Parameters
    ----------
    every : int
        Of a video each n-th frame, from the first on.

    Raises
    ------
    ConfigError
        If nothing is found, or there is a video and the package ``av`` is missing.
    """
    base, files = find_files(source)
    if any(is_video(file.name) for file in files):
        need_av()
    for videos, group in groupby(files, lambda file: is_video(file.name)):
        named = ((file, file.relative_to(base).as_posix()) for file in group)
        if videos:
            for file, name in named:
                yield from _frames(file, name, every)
        else:
            yield from map_ahead(lambda each: _image(*each), named, threads=THREADS)


def _image(file: Path, name: str) -> Picture:
    try:
        return Picture(name, decode(read_file(file)))
    except BadImageError as error:
        return Picture(name, None, error.message)
    except OSError as error:
        return Picture(name, None, f"cannot be read: {error.strerror}")


def _frames(file: Path, name: str, every: int) -> Iterator[Picture]:
    """Frames of the first video stream, turned as the file says; what follows a broken place is left out."""
    import av

    number = 0
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                yield Picture(name, None, "holds no video")
                return
            container.streams.video[0].thread_type = "AUTO"
            for number, frame in enumerate(container.decode(video=0)):
                if number % every == 0:
                    pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    yield Picture(frame_path(name, number), np.ascontiguousarray(pixels))
    except (av.FFmpegError, ValueError) as error:
        yield Picture(frame_path(name, number) if number else name, None, f"broken: {error}")
