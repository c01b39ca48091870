"""Draw the shipped video set from a seed: short H.264 clips of one moving object each, and its box in every frame.

    python tools/demo/make_demo_clips.py --out data/demo/clips

An object of the demo's classes moves along a line over a still background while the camera pans; grain is new in every
frame. Boxes are exact up to what compression does to an edge.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from render import (
    CLASSES,
    OVERSAMPLE,
    Layer,
    draw_canvas,
    draw_light,
    draw_objects,
    paste,
    shrink,
    tight_box,
    to_bytes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLIPS = {"train": 6, "val": 2, "test": 3}
"""Clips of each class."""
SEED, FRAMES, RATE = 33, 12, 12
SIZE = (96, 128)
PAN = 0.25
"""Share by which the drawn canvas is larger than a frame."""
QUALITY = "27"


def draw_clip(seed: int, split: str, label: int, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Frames uint8 [n, h, w, 3] of a clip and the object's box in each, float32 [n, 4], xyxy, half-open, pixels."""
    rng = np.random.default_rng([seed, list(CLIPS).index(split), label, number])
    height, width = (int(side * (1 + PAN)) for side in SIZE)
    canvas, _ = draw_canvas(rng, height * OVERSAMPLE, width * OVERSAMPLE)
    layer = draw_objects(rng, label, canvas, 1)[0]
    light = draw_light(rng, *canvas.shape[:2])[..., None]
    shadow, noise = int(rng.integers(2**31)), rng.uniform(1, 4)
    camera = [rng.permutation([0.0, 1.0]) * (own - side) for own, side in zip((height, width), SIZE, strict=True)]
    paths = [_path(rng, span, room) for span, room in zip(layer.window, canvas.shape[:2], strict=True)]
    frames, boxes = [], []
    for at in np.linspace(0, 1, FRAMES):
        top, left = (round(first + (last - first) * at) for first, last in camera)
        window = tuple(
            slice(span.start + (step := round(low + (high - low) * at)), span.stop + step)
            for span, (low, high) in zip(layer.window, paths, strict=True)
        )
        scene, cover = canvas.copy(), np.zeros(canvas.shape[:2], np.float32)
        moved = Layer((window[0], window[1]), layer.paint, layer.cover)
        paste(np.random.default_rng(shadow), scene, moved)
        cover[moved.window] = moved.cover
        view = (slice(top, top + SIZE[0]), slice(left, left + SIZE[1]))
        seen = shrink(cover, height, width)[view] >= 0.5
        if not seen.any():
            return draw_clip(seed + 1, split, label, number)
        grain = rng.normal(0, noise, (*SIZE, 3)).astype(np.float32)
        frames.append(to_bytes(shrink(scene * light, height, width)[view] + grain))
        boxes.append(tight_box(seen))
    return np.stack(frames), np.stack(boxes)


def _path(rng: np.random.Generator, span: slice, room: int) -> tuple[float, float]:
    """First and last shift of a window along an axis, inside the canvas."""
    first, last = rng.uniform(-span.start, room - span.stop, 2)
    return float(first), float(last)


def write_clip(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write H.264 with a key frame at the beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": QUALITY, "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on any machine with this encoder
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def main(argv: list[str] | None = None) -> int:
    """Write all splits below `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "data" / "demo" / "clips")
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    for split, count in CLIPS.items():
        lines, sides = [], []
        for label, name in enumerate(CLASSES):
            for number in range(count):
                frames, boxes = draw_clip(SEED, split, label, number)
                clip = f"{split}/{name}/{number:02d}.mp4"
                write_clip(options.out / clip, frames)
                lines += [f"{clip}#{at:06d},{','.join(str(int(edge)) for edge in box)}" for at, box in enumerate(boxes)]
                sides.append(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).mean() / np.prod(SIZE))
        folder = options.out / "boxes" / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "localization.txt").write_text("".join(f"{line}\n" for line in lines))
        print(f"{split:5} {len(lines)} frames, boxes of {np.mean(sides):.3f} of the frame")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{size / 2**20:.2f} MiB in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
