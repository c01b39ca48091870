"""Predictions on a film or a stream: decoded ahead, written behind, in parts that a killed run keeps.

A film is cut into parts of `PART` frames. A part's boxes and its piece of the overlay are put into place together when
it is done; a run that is called again does the parts that are missing, and the last step joins them. Memory does not
grow with the film. A stream (a camera, a URL) has no end and cannot be entered again: it is one run from its first
frame until it ends, `frames` are reached or it is interrupted.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError, ConfigError, raise_as, reason
from wsolpipe.images.video import frame_path, is_video, map_ahead, need_av, open_film
from wsoltrain.inference.pictures import Picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from wsoltrain.inference.localizer import Forwarded, Localization, Localizer

#: Frames of a part.
PART = 240
#: That decode and squash ahead of the network.
THREADS = 3
COLUMNS = (
    "path", "frame", "seconds", "width", "height", "x0", "y0", "x1", "y1", "label", "class", "probability", "broken",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Work to do on a film.

    Attributes
    ----------
    localizer : Localizer
    tau : float or None
        Threshold of the map.
    batch : int
        Frames at once.
    out : Path
        Folder to write.
    every : int
        Each n-th frame.
    frames : int or None
        Frames to read; all where None.
    overlay : bool
        Whether ``overlay.mp4`` is written.
    maps : bool
        Whether ``maps/<frame>.npy`` are written.
    """

    localizer: Localizer
    tau: float | None
    batch: int
    out: Path
    every: int = 1
    frames: int | None = None
    overlay: bool = True
    maps: bool = False


@dataclass
class _Pace:
    """Frames of this run, and seconds of all of it and of the network's forward passes alone."""

    frames: int = 0
    seconds: float = 0.0
    forward: float = 0.0

    def result(self) -> dict[str, float | int | None]:
        """Frames per second of the run and of the forward passes; None where nothing was left to do."""
        known = self.frames > 0
        return {
            "frames": self.frames,
            "frames_per_second": self.frames / self.seconds if known else None,
            "forward_per_second": self.frames / self.forward if known else None,
        }


@dataclass(frozen=True)
class _Frame:
    """A frame on its way to the network: number, seconds from the beginning, picture and its pixels squashed."""

    number: int
    seconds: float
    picture: Picture
    squashed: NDArray[np.uint8] | None = field(repr=False, default=None)


def is_stream(source: str) -> bool:
    """Whether a source is a URL or a camera, which PyAV opens and which cannot be read again."""
    return "://" in source or source.startswith("/dev/video")


def is_film(source: str) -> bool:
    """Whether a source is one video."""
    return is_stream(source) or (is_video(source) and Path(source).is_file())


def predict_film(job: Job, source: str) -> tuple[list[dict[str, Any]], _Pace]:
    """Predict on a film or stream; see the module.

    Returns
    -------
    rows : list of dict
        As of `Localization.row`, with ``frame`` and ``seconds``; ``broken`` says why a frame has no box. In the order
        of the frames.
    pace : _Pace
        Of this run.

    Raises
    ------
    ConfigError
        If the source cannot be opened, or parts of another film or of other arguments are in the folder.
    """
    need_av()
    parts = job.out / "parts"
    pace = _Pace()
    began = time.perf_counter()
    if is_stream(source):
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        frames, rate = _stream_frames(job, source)
        _make_parts(job, frames, rate, parts, pace, number=0)
    else:
        with raise_as(
            ConfigError, f"source={source}", BadImageError, OSError, hint="a video that PyAV opens", say=reason
        ):
            film = open_film(source)
        _claim(job, parts, f"{film.size} {len(film)} {film.sha256}")
        numbers = range(0, min(len(film), job.frames or len(film)), job.every)
        for number, start in enumerate(range(0, len(numbers), PART)):
            if not (parts / f"{number:06d}.jsonl").exists():
                part = numbers[start : start + PART]
                frames = map_ahead(lambda at: _film_frame(job, source, at), part, threads=THREADS, ahead=2 * job.batch)
                _make_parts(job, frames, film.rate / job.every, parts, pace, number=number)
    pace.seconds = time.perf_counter() - began
    rows = _join(job, parts)
    return rows, pace


def _claim(job: Job, parts: Path, film: str) -> None:
    """Make the folder of parts, or refuse one of another film or other arguments."""
    own = {
        "film": film, "checkpoint": str(job.localizer.path.absolute()), "tau": job.tau, "every": job.every,
        "frames": job.frames, "overlay": job.overlay, "batch": job.batch,
    }  # fmt: skip
    note = parts / "words.json"
    if note.exists():
        before = json.loads(note.read_text())
        changed = [name for name, value in own.items() if before.get(name) != value]
        if changed:
            msg = f"{parts} holds an unfinished run with another {', '.join(changed)}"
            raise ConfigError(
                msg, hint=f"the same command resumes it; remove {parts} or give another out= to begin anew"
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(own))


def _film_frame(job: Job, source: str, number: int) -> _Frame:
    film = open_film(source)
    name = frame_path(Path(source).name, number)
    try:
        pixels = film.read(number)
    except BadImageError as error:
        return _Frame(number, film.seconds(number), Picture(name, None, error.message))
    return _Frame(number, film.seconds(number), Picture(name, pixels), job.localizer.squash(pixels))


def _stream_frames(job: Job, source: str) -> tuple[Iterator[_Frame], Fraction]:
    """Frames as they come, and their rate."""
    import av

    camera = {"format": "v4l2"} if source.startswith("/dev/video") else {}
    try:
        container = av.open(source, **camera)
        video = container.streams.video[0]
    except (av.FFmpegError, IndexError, ValueError) as error:
        msg = f"source={source} cannot be opened as a video: {error}"
        raise ConfigError(msg, hint="a URL or camera that PyAV opens") from error
    name = Path(source).name

    def frames() -> Iterator[_Frame]:
        first = None
        decoded = islice(container.decode(video), 0, job.frames, job.every)
        try:
            for count, frame in enumerate(decoded):
                pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
                first = frame.time if first is None else first
                picture = Picture(frame_path(name, count * job.every), pixels)
                seconds = float((frame.time or 0) - (first or 0))
                yield _Frame(count * job.every, seconds, picture, job.localizer.squash(pixels))
        except KeyboardInterrupt:
            return
        except av.FFmpegError:
            return

    return map_ahead(lambda frame: frame, frames(), threads=1, ahead=2 * job.batch), Fraction(
        video.average_rate or 25
    ) / job.every


def _make_parts(job: Job, frames: Iterable[_Frame], rate: Fraction, parts: Path, pace: _Pace, *, number: int) -> None:
    """Make one part after the other until the frames end."""
    source = iter(frames)
    while True:
        left = islice(source, PART)
        first = next(left, None)
        if first is None:
            return
        with _Part(job, parts, number, rate) as part, ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
            waiting = None
            for batch in _batches(first, left, job.batch):
                good = [frame for frame in batch if frame.squashed is not None]
                began = time.perf_counter()
                found = job.localizer.forward([frame.squashed for frame in good]) if good else None  # type: ignore[misc]
                pace.forward += time.perf_counter() - began
                pace.frames += len(batch)
                if waiting is not None:
                    waiting.result()
                waiting = writer.submit(part.write, batch, good, found)
            if waiting is not None:
                waiting.result()
        number += 1


def _batches(first: _Frame, left: Iterator[_Frame], size: int) -> Iterator[list[_Frame]]:
    batch = [first, *islice(left, size - 1)]
    while batch:
        yield batch
        batch = list(islice(left, size))


class _Part:
    """Files of one part, put into place together when it is closed without an error."""

    def __init__(self, job: Job, parts: Path, number: int, rate: Fraction) -> None:
        self.job, self.rate = job, rate
        self.rows, self.film = parts / f"{number:06d}.jsonl", parts / f"{number:06d}.mp4"
        self.stack = ExitStack()
        self.container: Any = None
        self.stream: Any = None

    def __enter__(self) -> _Part:
        self.file = self.stack.enter_context(self.rows.with_suffix(".new").open("w", encoding="utf-8"))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.container is not None:
            if kind is None:
                self.container.mux(self.stream.encode())
            self.container.close()
        self.stack.close()
        if kind is None:
            if self.container is not None:
                self.film.with_suffix(".new.mp4").replace(self.film)
            self.rows.with_suffix(".new").replace(self.rows)  # last: it says that the part is whole

    def write(self, batch: Sequence[_Frame], good: Sequence[_Frame], found: Forwarded | None) -> None:
        """Write the rows of a batch, and its frames with maps and boxes drawn."""
        job = self.job
        pictures = [frame.picture for frame in good]
        answers = iter(job.localizer.read_out(found, pictures, tau=job.tau) if found is not None else ())
        for frame in batch:
            row = {"path": frame.picture.name, "frame": frame.number, "seconds": round(frame.seconds, 4)}
            if frame.squashed is None:
                self.file.write(json.dumps({**row, "broken": frame.picture.reason}) + "\n")
                continue
            one = next(answers)
            self.file.write(json.dumps({**row, **one.row()}) + "\n")
            if job.maps:
                path = job.out / "maps" / f"{frame.picture.name}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, one.map, allow_pickle=False)
            if job.overlay:
                self._draw(one)

    def _draw(self, one: Localization) -> None:
        import av

        image = one.draw()
        if self.container is None:
            self.container = av.open(str(self.film.with_suffix(".new.mp4")), "w")
            self.stream = self.container.add_stream("libx264", rate=self.rate, options={"preset": "veryfast"})
            self.stream.width, self.stream.height = (max(2, side - side % 2) for side in image.size)
            self.stream.pix_fmt = "yuv420p"
            self.stream.codec_context.thread_count = 1
        size = (self.stream.width, self.stream.height)
        if image.size != size:  # odd sides, and frames of another size further on
            image = image.resize(size)
        self.container.mux(self.stream.encode(av.VideoFrame.from_image(image)))


def _cells(row: dict[str, Any]) -> list[Any]:
    """A row as a line of ``boxes.csv``, by `COLUMNS`."""
    edges = [f"{edge:.2f}" for edge in row["box"]] if row.get("box") else [""] * 4
    cells = {**row, **dict(zip(("x0", "y0", "x1", "y1"), edges, strict=True)), "seconds": f"{row['seconds']:.4f}"}
    if row.get("probability") is not None:
        cells["probability"] = f"{row['probability']:.6f}"
    return [cells.get(name) for name in COLUMNS]


def _join(job: Job, parts: Path) -> list[dict[str, Any]]:
    """Join the parts to boxes.csv and overlay.mp4, and remove them; their rows."""
    names = sorted(parts.glob("*.jsonl"))
    rows = [json.loads(line) for name in names for line in name.read_text(encoding="utf-8").splitlines()]
    with (job.out / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *map(_cells, rows)])
    films = [name.with_suffix(".mp4") for name in names if name.with_suffix(".mp4").exists()]
    if films:
        _join_films(films, job.out / "overlay.mp4")
    shutil.rmtree(parts)
    return rows


def _join_films(films: Sequence[Path], out: Path) -> None:
    """Put films of one encoder one after the other, without decoding them."""
    import av

    with av.open(str(out.with_suffix(".new.mp4")), "w") as whole:
        target, shift = None, 0
        for film in films:
            with av.open(str(film)) as part:
                source = part.streams.video[0]
                if target is None:
                    target = whole.add_stream_from_template(source)
                length = 0
                for packet in part.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    length = max(length, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, target
                    whole.mux(packet)
                shift += length
    out.with_suffix(".new.mp4").replace(out)
