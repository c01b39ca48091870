"""Draw the shipped demo data set from a seed: images, boxes, masks and the field's metadata files.

    python tools/demo/make_demo_data.py --out data/demo

Prints how far a centred box and a colour threshold get, so that the set can be seen to be neither rigged nor trivial.
The same machine and library versions give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image
from render import CLASSES, Scene, render_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Box = tuple[float, float, float, float]

SPLITS = {"train": 288, "val": 64, "test": 96}
SEED = 21
QUALITY = 88


def draw_scene(seed: int, split: str, number: int) -> Scene:
    """Scene `number` of a split; classes take turns, sizes and aspects vary."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), number])
    long = int(rng.integers(112, 177))
    short = int(long * rng.uniform(0.66, 1.0))
    height, width = (long, short) if rng.random() < 0.4 else (short, long)
    return render_scene(rng, number % len(CLASSES), height, width)


def image_id(split: str, number: int) -> str:
    """Path of an image below the root, its class as the sub-folder."""
    return f"{split}/{CLASSES[number % len(CLASSES)]}/{number:03d}.jpg"


def write_scene(root: Path, name: str, scene: Scene) -> None:
    """Write `images/<name>` as JPEG and its mask as an 8-bit PNG below `masks`."""
    picture, mask = root / "images" / name, (root / "masks" / name).with_suffix(".png")
    for path in (picture, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(picture, quality=QUALITY, subsampling=0, optimize=True)
    Image.fromarray(scene.mask).save(mask, optimize=True)


def write_split(root: Path, seed: int, split: str, count: int) -> dict[str, float]:
    """Draw and write one split; returns the means that `main` prints."""
    lines: dict[str, list[str]] = {"image_ids": [], "class_labels": [], "image_sizes": [], "localization": []}
    figures = []
    for number in range(count):
        scene, name = draw_scene(seed, split, number), image_id(split, number)
        write_scene(root, name, scene)
        height, width = scene.image.shape[:2]
        lines["image_ids"].append(name)
        lines["class_labels"].append(f"{name},{scene.label}")
        lines["image_sizes"].append(f"{name},{width},{height}")
        lines["localization"] += [f"{name},{','.join(str(int(v)) for v in box)}" for box in scene.boxes]
        centre = (0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height)
        largest = float(np.prod(scene.boxes[:, 2:] - scene.boxes[:, :2], axis=1).max()) / (height * width)
        scores = best_overlap(centre, scene.boxes), best_overlap(box_by_colour(scene.image), scene.boxes)
        figures.append((*scores, largest, float(len(scene.boxes) > 1)))
    folder = root / "metadata" / split
    folder.mkdir(parents=True, exist_ok=True)
    for kind, rows in lines.items():
        (folder / f"{kind}.txt").write_text("".join(f"{row}\n" for row in rows))
    (folder / "classes.txt").write_text("".join(f"{index},{name}\n" for index, name in enumerate(CLASSES)))
    return dict(
        zip(
            ("centred box", "colour threshold", "largest object's area", "with two objects"),
            np.mean(figures, axis=0).tolist(),
            strict=True,
        )
    )


def best_overlap(box: Box, truth: NDArray[np.float32]) -> float:
    """Highest intersection over union of a box with any of the true boxes [n, 4]."""
    low, high = np.maximum(truth[:, :2], box[:2]), np.minimum(truth[:, 2:], box[2:])
    shared = np.prod((high - low).clip(0), axis=1)
    sizes = np.prod(truth[:, 2:] - truth[:, :2], axis=1) + (box[2] - box[0]) * (box[3] - box[1])
    return float((shared / (sizes - shared)).max())


def box_by_colour(image: NDArray[np.uint8]) -> Box:
    """Box of the largest region whose colour is far, by Otsu's threshold, from the border's mean colour."""
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    border = np.concatenate([colours[:3].reshape(-1, 3), colours[-3:].reshape(-1, 3)])
    border = np.concatenate([border, colours[:, :3].reshape(-1, 3), colours[:, -3:].reshape(-1, 3)])
    far = cv2.GaussianBlur(np.linalg.norm(colours - border.mean(0), axis=2), (0, 0), 1.5)
    levels = ((far - far.min()) / max(float(np.ptp(far)), 1e-6) * 255).astype(np.uint8)
    _, above = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    _, _, regions, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    if len(regions) < 2:
        return 0.0, 0.0, float(image.shape[1]), float(image.shape[0])
    x, y, w, h, _ = (float(v) for v in regions[1 + regions[1:, 4].argmax()])
    return x, y, x + w, y + h


def image_count(text: str) -> int:
    """A number of images from the command line, at least one."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"{text} is not a number of images, 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Write all splits below `--out` and print the baselines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "data" / "demo")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--train", type=image_count, default=SPLITS["train"], help="images to train on")
    options = parser.parse_args(argv)
    for split, count in {**SPLITS, "train": options.train}.items():
        mean = write_split(options.out, options.seed, split, count)
        figures = "  ".join(f"{name} {value:.3f}" for name, value in mean.items())
        print(f"{split:5} {count:3} images: {figures}")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{size / 1e6:.2f} MB in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
