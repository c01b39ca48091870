"""Small real video files for tests: a bright square that moves over noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def draw_frame(number: int, size: tuple[int, int] = (64, 96)) -> tuple[np.ndarray, np.ndarray]:
    """A grey frame of (height, width) with a red square that moves to the right, and the square's xyxy box."""
    height, width = size
    rng = np.random.default_rng(number)
    pixels = rng.integers(80, 90, (height, width, 3), dtype=np.uint8)
    x = (4 + 3 * number) % (width - 24)
    pixels[20:44, x : x + 24] = (230, 30, 30)
    return pixels, np.array([x, 20, x + 24, 44], np.float64)


def write_video(
    path: Path, frames: int, *, size: tuple[int, int] = (64, 96), rate: int = 10, every_key: int = 12
) -> Path:
    """Write an H.264 file of `frames` frames with B-frames and a key frame every `every_key`."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "g": str(every_key)})
        stream.width, stream.height, stream.pix_fmt = (
            size[1],
            size[0],
            "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p",
        )
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw_frame(number, size)[0], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tear(path: Path, after: int) -> None:
    """Overwrite the first key frame past packet `after` of a file with zeros."""
    import av

    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    broken = next(packet for packet in packets[after:] if packet.is_keyframe)
    start = broken.pos + 4
    data[start : start + broken.size - 4] = bytes(broken.size - 4)
    path.write_bytes(data)
