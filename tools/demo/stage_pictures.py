"""Draw what each stage makes of some demo images: one strip a stage, for the reference pages.

python tools/demo/stage_pictures.py STORE [SPLIT [FOLDER]]

Reads the newest result of every stage with maps, boxes, masks, segments or pixels in the split (default test) of data
set demo in the store, and of those that look at neighbouring frames in data set demo_video, where it is there. Maps are
drawn under the colours of the report, their own boxes vermilion, ground truth nowhere. The shipped pictures are of the
demo's own parameters, but for ``val_boxes.annotator=clip``, ``refine.w=0.5`` (the weight that is chosen for the demo's
CAMs is 0) and predictions of ``recipe=dips_workshop``, one training.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.map_sources import MapBlock
from wsolpipe.images.dataset import load_dataset
from wsolpipe.images.video import read_picture
from wsolpipe.pages.pictures import MASK_COLOURS
from wsolpipe.stages.registry import load_registry
from wsoltrain.inference.drawing import overlay

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView

Array = np.ndarray[Any, Any]
ROWS = (0, 9, 18, 27)
SIDE, GAP = 168, 6
TOP, OTHER = (255, 90, 46), (255, 181, 156)
SHOWN = ("maps", "boxes", "masks", "labels", "rgb")


def main() -> None:
    """Draw the strips."""
    store, split, folder = [*sys.argv[1:], *["", "test", "docs/images/stages"][len(sys.argv) - 1 :]]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    drawn, entries = open_store(store), load_registry().entries
    for name in ("demo", "demo_video"):
        if name not in drawn:
            continue
        found, root = drawn[name][split], load_dataset(name).image_root()
        table = found.index().table(["path"]).column("path")
        photos = {row: Image.fromarray(read_picture(f"{root}/{table[row]}")) for row in ROWS}
        for stage in found.stages():
            view, over_frames = found.stage(stage), "frame" in entries[stage].columns
            if over_frames == (name == "demo_video") and any(each in view.manifest.arrays for each in SHOWN):
                draw_stage(view, photos).save(target / f"{stage}.webp", quality=72, method=6)
                print(target / f"{stage}.webp", (target / f"{stage}.webp").stat().st_size)


def draw_stage(view: StageView, photos: dict[int, Image.Image]) -> Image.Image:
    """A strip of panels, one a row; a row without a result stays a plain photograph."""
    strip = Image.new("RGB", (len(photos) * (SIDE + GAP) - GAP, SIDE), (255, 255, 255))
    rows, arrays = np.array(sorted(photos)), view.manifest.arrays
    status = view["status"][rows]
    maps = MapBlock(view, rows) if "maps" in arrays else None
    for place, row in enumerate(rows.tolist()):
        panel = photos[row].resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        if status[place] == Status.OK:
            if "rgb" in arrays:
                pixels = np.moveaxis(view["rgb"][row : row + 1][0], 0, -1)
                panel = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            values = maps.map(place, 0) if maps is not None else None
            if values is not None:
                panel = Image.fromarray(overlay(np.asarray(panel), stretched(values)))
            for name in ("masks", "labels"):
                if name in arrays and len(arrays[name].shape) == 2:
                    panel = label_image(panel, view[name][row : row + 1][0], borders=name == "labels")
            if "boxes" in arrays:
                draw_boxes(panel, view["boxes"][row : row + 1][0].reshape(-1, 4), photos[row].size)
        strip.paste(panel, (place * (SIDE + GAP), 0))
    return strip


def stretched(values: Array) -> Array:
    """A map at the size of a panel, in 0..1."""
    image = Image.fromarray(values.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    found = np.asarray(image)
    return np.asarray((found - found.min()) / max(float(np.ptp(found)), 1e-12))


def label_image(panel: Image.Image, labels: Array, *, borders: bool) -> Image.Image:
    """A panel under its masks, in colours, or under the borders of its segments."""
    places = np.arange(SIDE) * len(labels) // SIDE
    small, pixels = labels[places[:, None], places].astype(np.int64), np.asarray(panel).astype(float)
    if borders:
        edge = np.zeros(small.shape, bool)
        edge[1:] |= small[1:] != small[:-1]
        edge[:, 1:] |= small[:, 1:] != small[:, :-1]
        pixels[edge] = 255
    else:
        colours = np.array(MASK_COLOURS, float)[(small - 1) % len(MASK_COLOURS)]
        shown = (small > 0) & (small < 255)
        pixels[shown] = 0.4 * pixels[shown] + 0.6 * colours[shown]
    return Image.fromarray(pixels.round().astype(np.uint8))


def draw_boxes(panel: Image.Image, boxes: Array, size: tuple[int, int]) -> None:
    """Boxes over a panel, the first one last and thickest."""
    pen, scale = ImageDraw.Draw(panel), np.array([SIDE / size[0], SIDE / size[1]] * 2)
    there = [box for box in boxes if np.isfinite(box).all()]
    for number in range(min(len(there), 6) - 1, -1, -1):
        x0, y0, x1, y1 = (there[number] * scale).round().astype(int).tolist()
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        pen.rectangle(corners, outline=OTHER if number else TOP, width=1 if number else 3)


if __name__ == "__main__":
    main()
