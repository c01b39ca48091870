"""Data sets with masks in the layout of their published folds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from wsolpipe.evaluate.map_sources import list_rows
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.images.dataset import load_dataset

GLAS = "Warwick_QU_Dataset_(Released_2016_07_08)"


def fold(root, name, split, lines):
    """Metadata of one split; lines are (image, label, mask)."""
    folder = root / "folds" / "wsol-done-right-splits" / name / "fold-0" / split
    folder.mkdir(parents=True)
    (folder / "image_ids.txt").write_text("".join(f"{image}\n" for image, _, _ in lines))
    (folder / "class_labels.txt").write_text("".join(f"{image},{label}\n" for image, label, _ in lines))
    (folder / "localization.txt").write_text("".join(f"{image},{mask},\n" for image, _, mask in lines if mask))


def draw(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def glas(tmp_path):
    instances = np.zeros((40, 60), np.uint8)
    instances[5:15, 5:25], instances[20:35, 30:50] = 1, 7  # two glands, by number
    draw(tmp_path / GLAS / "train_71.bmp", np.full((40, 60, 3), 200, np.uint8))
    draw(tmp_path / GLAS / "train_71_anno.bmp", instances)
    for split in ("train", "valcl", "valpx", "test"):
        fold(tmp_path, "GLAS", split, [(f"{GLAS}/train_71.bmp", 1, f"{GLAS}/train_71_anno.bmp")])
    return load_dataset("glas", root=str(tmp_path)), instances


class NoStore:
    """Truth of a data set that was never indexed."""

    def __init__(self, dataset):
        self.mask_root = dataset.mask_root


def test_glas_counts_every_gland_of_an_instance_mask_as_object(glas):
    dataset, instances = glas
    assert set(dataset.splits) == {"train", "val", "valcl", "test"}
    rows = list_rows(dataset, "val")
    truth = find_truth(NoStore(dataset), rows, "gt")
    assert (rows.ids, rows.labels) == ([f"{GLAS}/train_71.bmp"], [[1]])
    mask, ignore = truth.mask(0, 224)
    assert ignore is None
    assert mask.mean() == pytest.approx((instances > 0).mean(), abs=0.01)


def test_normal_patches_of_camelyon_hold_no_object_and_count_as_true_negatives(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:60] = 255
    for name in ("tumor_1", "normal_1"):
        draw(tmp_path / "patches" / f"{name}.png", np.full((64, 64, 3), 180, np.uint8))
    draw(tmp_path / "masks" / "tumor_1.png", mask)
    lines = [("patches/tumor_1.png", 1, "masks/tumor_1.png"), ("patches/normal_1.png", 0, "")]
    for split in ("train", "valcl", "valpx", "test"):
        fold(tmp_path, "CAMELYON512", split, lines)
    dataset = load_dataset("camelyon512", root=str(tmp_path))
    rows = list_rows(dataset, "test")
    truth = find_truth(NoStore(dataset), rows, "gt")
    normal = rows.places["patches/normal_1.png"]
    assert rows.objectless(normal)
    assert not truth.mask(normal, 224)[0].any()
    assert truth.mask(1 - normal, 224)[0].mean() == pytest.approx(30 * 40 / 64**2, abs=0.01)
