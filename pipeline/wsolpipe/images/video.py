"""Frames of video files as images: row paths such as ``film.mp4#000012``, each frame decoded once where read in order.

A frame's number is its place in the order of presentation, from 0, counted over the packets of the first video stream;
one that cannot be decoded keeps its number and is a broken image. A file is entered at the key frame before the first
frame that is wanted, so that two workers on two parts of a film decode no more than one group of pictures twice.
"""

from __future__ import annotations

import os
import re
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from fractions import Fraction
from functools import cached_property, lru_cache
from hashlib import file_digest, sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wsolpipe.contract.errors import BadImageError, ConfigError, raise_as
from wsolpipe.images.decode import decode, read_file
from wsolpipe.images.members import split_member

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


#: Endings of files that may be videos; compared in lower case.
VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts")
_FRAME = re.compile(rf"(.+(?:{'|'.join(map(re.escape, VIDEO_ENDINGS))}))#(\d{{6,}})", re.IGNORECASE)
#: Files that a process keeps open.
OPEN_FILMS = 4
#: Decoded frames that stay at hand for threads which ask out of order.
KEPT = 16
#: Frames that are decoded rather than skipped by a seek.
WORTH_A_SEEK = 16


def frame_path(video: str, number: int) -> str:
    """Path of a row that is a frame of a video file."""
    return f"{video}#{number:06d}"


def split_frame(path: str) -> tuple[str, int] | None:
    """Video file and number of a frame's path; None for the path of an image."""
    found = _FRAME.fullmatch(path) if "#" in path else None
    return None if found is None else (found[1], int(found[2]))


def file_of(path: str) -> str:
    """File in which a row's pixels are."""
    inside = split_frame(path) or split_member(path)
    return path if inside is None else inside[0]


def read_picture(path: str, *, orientation: int | None = None, draft: tuple[int, int] | None = None) -> Pixels:
    """Decode an image file, upright, or a frame of a video file: uint8 [H, W, 3].

    Parameters
    ----------
    path : str
    orientation, draft
        Of an image file; see `wsolpipe.images.decode.decode`.

    Raises
    ------
    BadImageError
        If it cannot be read or decoded.
    """
    frame = split_frame(path)
    with raise_as(BadImageError, "cannot be read", OSError):
        if frame is not None:
            return open_film(frame[0]).read(frame[1])
        return decode(read_file(path), orientation=orientation, draft=draft)


def is_video(name: str) -> bool:
    """Whether a file may be a video, by its name."""
    return name.lower().endswith(VIDEO_ENDINGS)


def need_av() -> None:
    """Make sure that videos can be read.

    Raises
    ------
    ConfigError
        If the package ``av`` is missing.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        msg = "videos are read with the package av, which is missing"
        raise ConfigError(msg, hint='pip install "wsolpipe[video]"') from error


def open_film(path: str | os.PathLike[str]) -> Film:
    """The film of a file, kept open while it is among the last `OPEN_FILMS` and the file does not change.

    Raises
    ------
    OSError
        If the file cannot be opened.
    BadImageError
        If it holds no video.
    """
    name = os.fspath(path)
    facts = os.stat(name)
    return _open_film(name, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=OPEN_FILMS)
def _open_film(path: str, size: int, modified: int) -> Film:
    del modified  # a file that was written again is another film
    return Film(path, size)


class Film:
    """The first video stream of a file; frames are read in any order and by any thread, in order at the decoder's pace.

    Parameters
    ----------
    path : str
        The file.
    size : int
        Its bytes.

    Attributes
    ----------
    stamps : list of int
        Time of each frame in units of the stream's time base, ascending.

    Raises
    ------
    OSError
        If it cannot be opened.
    BadImageError
        If it is no video.
    """

    def __init__(self, path: str, size: int) -> None:
        need_av()
        self.path, self.size = path, size
        with open(path, "rb"):  # so that a missing file is an OSError with its reason
            pass
        self._open()
        stamps, keys = [], []
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and packet.size:
                    stamps.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        except _failures() as error:
            if not stamps:
                msg = f"not a video: {_reason(error)}"
                raise BadImageError(msg) from error
        if not stamps:
            msg = "holds no video frame with a time"
            raise BadImageError(msg)
        self.stamps, self._keys = sorted(set(stamps)), sorted(keys)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._next, self._frames = 0, self._decode()
        self._enter(0)

    def __len__(self) -> int:
        return len(self.stamps)

    @cached_property
    def sha256(self) -> str:
        """Digest of the file's bytes."""
        with open(self.path, "rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def frame_sha256(self, number: int) -> str:
        """Digest that names one frame: of the file's digest and the number."""
        return sha256(f"{self.sha256}#{number}".encode()).hexdigest()

    @property
    def rate(self) -> Fraction:
        """Frames per second, as the file says or by its length."""
        return Fraction(self._stream.average_rate or 25)

    def seconds(self, number: int) -> float:
        """Time of a frame from the beginning of the stream."""
        return float((self.stamps[number] - self.stamps[0]) * self._stream.time_base)

    def read(self, number: int) -> Pixels:
        """One frame, uint8 [H, W, 3], turned as the file says.

        Raises
        ------
        BadImageError
            If it cannot be decoded, or the film is shorter.
        """
        with self._lock:
            frame = self._find(number)
        pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        return np.ascontiguousarray(pixels)

    def _find(self, number: int) -> Any:
        if not 0 <= number < len(self.stamps):
            msg = f"frame {number} is past the end: the film has {len(self.stamps)}"
            raise BadImageError(msg)
        if number in self._kept:
            return self._kept[number]
        key = self._keys[max(0, bisect_right(self._keys, self.stamps[number]) - 1)] if self._keys else self.stamps[0]
        entry = bisect_left(self.stamps, key)
        if number < self._next or entry > self._next + WORTH_A_SEEK:
            self._enter(entry)
        for at, frame in self._frames:
            self._next = at + 1
            self._kept[at] = frame
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            if at >= number:
                break
        else:
            self._next = len(self.stamps)
        found = self._kept.get(number)
        if found is None or found.is_corrupt:
            msg = f"broken: frame {number} cannot be decoded"
            raise BadImageError(msg)
        return found

    def _enter(self, number: int) -> None:
        """Begin to decode at a key frame."""
        if number:
            try:
                self._container.seek(self.stamps[number], stream=self._stream)
            except _failures():
                number = 0
        if not number:
            self._open()
        self._next = number
        self._frames = self._decode()

    def _open(self) -> None:
        import av

        try:
            self._container: Any = av.open(self.path)
        except _failures() as error:
            msg = f"not a video: {_reason(error)}"
            raise BadImageError(msg) from error
        if not self._container.streams.video:
            msg = "holds no video"
            raise BadImageError(msg)
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"

    def _decode(self) -> Iterator[tuple[int, Any]]:
        """Numbers and frames from where the container stands; what does not decode is left out."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except _failures():
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except _failures():
                continue
            for frame in frames:
                if frame.pts is not None:
                    at = bisect_left(self.stamps, frame.pts)
                    if at < len(self.stamps) and self.stamps[at] == frame.pts:
                        yield at, frame


def _failures() -> tuple[type[Exception], ...]:
    import av

    return (av.FFmpegError, ValueError)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)


T = TypeVar("T")
R = TypeVar("R")
#: Default number of items per thread submitted before the first result is taken.
ITEMS_A_THREAD = 4


def map_ahead(work: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int | None = None) -> Generator[R]:
    """Results of `work` in the order of `items`, computed in threads before they are asked for.

    Parameters
    ----------
    work : callable
        Runs in a thread; its exceptions are raised here, in place of its result.
    items : iterable
        Read as far as work is submitted.
    threads : int
        Items worked on at once.
    ahead : int, optional
        Items submitted beyond those whose results were taken; default `ITEMS_A_THREAD` a thread.
    """
    from concurrent.futures import ThreadPoolExecutor

    window = max(1, ITEMS_A_THREAD * threads if ahead is None else ahead)
    source = iter(items)
    with ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:
        pending = deque(pool.submit(work, item) for item in islice(source, window))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(source, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def prepare_ahead(
    chosen: Sequence[int],
    load: Callable[[int], Pixels],
    prepare: Callable[[Pixels, int], NDArray[Any]],
    *,
    batch: int,
    threads: int,
    failed: Callable[[int, str], None],
) -> Iterator[tuple[list[int], NDArray[Any]]]:
    """Load and prepare images in threads, two batches ahead.

    Parameters
    ----------
    chosen : sequence of int
        Positions in the order wanted.
    load : callable
        Position -> uint8 [H, W, 3]; may raise BadImageError.
    prepare : callable
        (image, position) -> array of one shape for all.
    batch : int
        Positions a batch; the last may be shorter.
    threads : int
        Images worked on at once.
    failed : callable
        Called with (position, reason) for each image that cannot be decoded; it is left out.

    Yields
    ------
    positions, images
        Positions that could be decoded, and their arrays stacked. A batch without any is not yielded.
    """

    def attempt(position: int) -> NDArray[Any] | BadImageError:
        try:
            return prepare(load(position), position)
        except BadImageError as error:
            return error

    results = map_ahead(attempt, chosen, threads=threads, ahead=2 * batch)
    for start in range(0, len(chosen), batch):
        good: list[tuple[int, NDArray[Any]]] = []
        for position, result in zip(chosen[start : start + batch], results, strict=False):
            if isinstance(result, BadImageError):
                failed(position, result.message)
            else:
                good.append((position, result))
        if good:
            yield [position for position, _ in good], np.stack([image for _, image in good])
