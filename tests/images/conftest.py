"""Data sets of a few rendered images in each layout, and descriptions of the real packs of the shared folder."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from wsolpipe.images.dataset import load_dataset


@pytest.fixture
def save_image():
    """Write an image of random pixels: save(path, width, height)."""

    def save(path, width=12, height=10, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return save


@pytest.fixture
def describe(tmp_path):
    """Write a data set's YAML and load it: describe(layout=…, root=…, …)."""

    def make(folder=tmp_path, **keys):
        keys = {"name": "tiny", "layout": "metadata", "root": "images", **keys}
        path = folder / f"{keys['name']}.yaml"
        path.write_text(yaml.safe_dump(keys))
        return load_dataset(str(path))

    return make


@pytest.fixture
def tiny(tmp_path, save_image, describe):
    """A metadata data set of four images; tiny(file=lines) replaces the lines of a file, or removes it with None."""
    for number in range(4):
        save_image(tmp_path / "images" / "a" / f"{number}.png", 12, 10)
    files = {
        "image_ids": [f"a/{n}.png" for n in range(4)],
        "class_labels": [f"a/{n}.png,{n % 2}" for n in range(4)],
        "image_sizes": [f"a/{n}.png,12,10" for n in range(4)],
        "localization": [f"a/{n}.png,{n},1,8,9.5" for n in range(4)],
        "classes": ["0,cat", "1,dog"],
    }

    def make(keys=None, **changes):
        for name, lines in {**files, **changes}.items():
            path = tmp_path / f"{name}.txt"
            path.unlink(missing_ok=True)
            if lines is not None:
                path.write_text("\n".join(lines))
        return describe(**(keys or {}))

    return make


PACKS = {
    "ilsvrc_val_acuity": {"files": {"image_sizes": None, "localization": "localization_stored227.txt"}, "split": "val"},
    "cub10": {},
    "fewclass5": {},
    "busi_ultrasound": {"masks": "masks", "objectless": ["normal"]},
    "ecssd_masks": {"masks": "masks"},
}


@pytest.fixture
def pack(shared, tmp_path):
    """Describe a pack of the shared folder: pack("cub10")."""

    def make(name, **more):
        folder = shared / "data" / name
        keys = {"name": name, "layout": "metadata", "root": str(folder / "images"), "metadata": str(folder)}
        keys |= PACKS[name] | more
        if "masks" in keys:
            keys["masks"] = str(folder / "masks")
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(keys))
        return load_dataset(str(path))

    return make
