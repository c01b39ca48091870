"""Data sets of photographs: splits that depend on names alone, and a YAML that the product reads."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "experiments"))
import pytest
import real_data
import students

from wsolpipe.images.dataset import load_dataset
from wsoltrain.training.recipe_file import load_recipe

RECIPES = sorted((Path(real_data.__file__).parent / "photographs").glob("*.yaml"))

LABELS = {f"{label}/{number:03d}.jpg": str(label) for label in range(3) for number in range(20)}


def test_splits_share_no_file_and_keep_every_class_at_its_share():
    splits = real_data.split_ids(LABELS)
    assert set().union(*splits.values()) == set(LABELS)
    assert sum(map(len, splits.values())) == len(LABELS)
    for split, share in real_data.SHARES.items():
        assert all(sum(name.startswith(f"{label}/") for name in splits[split]) == 20 * share for label in range(3))
    assert real_data.split_ids(dict(reversed(LABELS.items()))) == splits


@pytest.mark.parametrize(
    ("classes", "mode", "held"),
    [(3, "probe", {"train": 72, "val": 18, "test": 30}), (99, "import", {"val": 40, "test": 80})],
)
def test_written_set_is_read_by_the_product_and_one_of_more_classes_than_images_only_scores(
    tmp_path, classes, mode, held
):
    pack = tmp_path / "packs" / "few"
    (pack / "images").mkdir(parents=True)
    lines = {
        "image_ids": [*LABELS],
        "class_labels": [f"{name},{label}" for name, label in LABELS.items()],
        "image_sizes": [f"{name},40,30" for name in LABELS],
        "localization": [f"{name},1,2,30,20" for name in LABELS for _ in range(2)],
        "classes": [f"{label},class{label}" for label in range(classes)],
    }
    for kind, rows in lines.items():
        (pack / f"{kind}.txt").write_text("".join(f"{row}\n" for row in rows))
    words = [f"packs={pack.parent}", f"weights={tmp_path}", f"out={tmp_path / 'out'}", "sets=few"]
    assert real_data.main(words) == 0
    dataset = load_dataset(str(tmp_path / "out" / "few.yaml"))
    assert dataset.stages["classifier"]["mode"] == mode
    folder = tmp_path / "out" / "few"
    boxes = [(folder / split / "localization.txt").read_text().splitlines() for split in dataset.splits]
    assert dict(zip(dataset.splits, map(len, boxes), strict=True)) == held


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_photographs_are_valid(path):
    assert load_recipe(str(path), dataset="photographs", changes={}).size == 128


def test_students_are_averaged_over_seeds_and_their_interval_is_over_images():
    seeds = [{name: [0.0, 1.0, 1.0, 1.0] for name in students.FIGURES} for _ in range(2)]
    seeds[1]["iou"] = [0.0, 1.0, 0.0, 1.0]
    accuracy, _, iou = students.student_cells(seeds)
    assert accuracy.startswith("0.8 ± 0.0 [")
    assert iou.startswith("62.5 ± 17.7 [")  # means 0.75 and 0.5
    low, high = map(float, iou[iou.index("[") + 1 : -1].split(","))
    assert 0 <= low < 62.5 < high <= 100
