"""The shipped demo data set: what it promises, and that its tool still draws it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import make_demo_data as demo
import numpy as np
import pytest
import yaml
from PIL import Image
from render import AREA, CLASSES, render_scene

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = [("train", 0), ("val", 13), ("test", 95)]


@pytest.fixture(scope="module")
def data(repo: Path) -> Path:
    return repo / "data" / "demo"


def metadata(data: Path, split: str, kind: str) -> list[list[str]]:
    """Lines of a metadata file, split at commas."""
    return [line.split(",") for line in (data / "metadata" / split / f"{kind}.txt").read_text().splitlines()]


def boxes_by_image(data: Path, split: str) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = {}
    for name, *box in metadata(data, split, "localization"):
        found.setdefault(name, []).append([int(v) for v in box])
    return found


def test_shipped_folder_stays_within_eight_megabytes_and_its_clip_within_eight_more(data: Path) -> None:
    """The film clips are counted by `test_demo_clips`."""
    films = data / "clips"
    files = [path.stat().st_size for path in data.rglob("*") if path.is_file() and films not in path.parents]
    assert 800 < len(files) < 1200
    clip = (data / "weights" / "demo_clip.safetensors").stat().st_size
    assert clip < 8e6
    assert sum(files) - clip < 8e6


def test_yaml_names_folders_that_exist(repo: Path, data: Path) -> None:
    config = yaml.safe_load((repo / "data" / "demo.yaml").read_text())
    for key in ("root", "metadata", "masks"):
        assert (repo / "data" / config[key]).is_dir()
    assert config["classes"] == len(CLASSES)
    assert all((data / "metadata" / folder).is_dir() for folder in config["split"].values())


@pytest.mark.parametrize("split", list(demo.SPLITS))
def test_metadata_agrees_with_image_files(data: Path, split: str) -> None:
    ids = [name for (name,) in metadata(data, split, "image_ids")]
    assert len(ids) == len(set(ids)) == demo.SPLITS[split]
    assert [name for name, _ in metadata(data, split, "class_labels")] == ids
    assert [(i, n) for i, n in metadata(data, split, "classes")] == [(str(i), n) for i, n in enumerate(CLASSES)]
    labels = [int(label) for _, label in metadata(data, split, "class_labels")]
    assert set(np.bincount(labels, minlength=8)) == {demo.SPLITS[split] // 8}
    for name, width, height in metadata(data, split, "image_sizes"):
        with Image.open(data / "images" / name) as image:
            assert image.size == (int(width), int(height))
            assert image.mode == "RGB"


@pytest.mark.parametrize("split", list(demo.SPLITS))
def test_masks_fill_exactly_their_boxes(data: Path, split: str) -> None:
    for name, boxes in boxes_by_image(data, split).items():
        mask = np.asarray(Image.open((data / "masks" / name).with_suffix(".png")))
        assert set(np.unique(mask)) == {0, 255}
        outside = mask > 0
        assert outside.mean() >= AREA[0]
        for x0, y0, x1, y1 in boxes:
            window = mask[y0:y1, x0:x1] > 0
            assert window[0].any(), name
            assert window[-1].any(), name
            assert window[:, 0].any(), name
            assert window[:, -1].any(), name
            assert window.size <= AREA[1] * mask.size
            outside[y0:y1, x0:x1] = False
        assert not outside.any(), name


def test_some_images_hold_two_objects_and_centres_spread(data: Path) -> None:
    boxes = boxes_by_image(data, "test")
    assert 0.05 < np.mean([len(b) == 2 for b in boxes.values()]) < 0.3
    sizes = {name: (int(w), int(h)) for name, w, h in metadata(data, "test", "image_sizes")}
    centres = np.array(
        [((b[0] + b[2]) / 2 / sizes[n][0], (b[1] + b[3]) / 2 / sizes[n][1]) for n, bs in boxes.items() for b in bs]
    )
    assert centres.min() < 0.25
    assert centres.max() > 0.75
    assert (centres.std(axis=0) > 0.12).all()


@pytest.mark.parametrize("split", list(demo.SPLITS))
def test_demo_is_neither_rigged_nor_trivial(data: Path, split: str) -> None:
    centre, colour = [], []
    for name, boxes in boxes_by_image(data, split).items():
        image = np.asarray(Image.open(data / "images" / name))
        height, width = image.shape[:2]
        truth = np.array(boxes, np.float32)
        centre.append(demo.best_overlap((0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height), truth))
        colour.append(demo.best_overlap(demo.box_by_colour(image), truth))
    assert np.mean(centre) >= 0.25
    assert np.mean(colour) < 0.35


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def write_sample(folder: Path) -> None:
    for split, number in SAMPLE:
        demo.write_scene(folder, demo.image_id(split, number), demo.draw_scene(demo.SEED, split, number))


def test_drawing_again_in_another_process_gives_identical_bytes(repo: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "here")
    code = "import sys, pathlib, make_demo_data as d\nfor s, n in (('train', 0), ('val', 13), ('test', 95)):\n"
    code += "    d.write_scene(pathlib.Path(sys.argv[1]), d.image_id(s, n), d.draw_scene(d.SEED, s, n))"
    environment = {**os.environ, "PYTHONPATH": str(repo / "tools" / "demo"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True, env=environment)
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_a_split_without_an_image_is_refused_before_anything_is_drawn(
    count: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        demo.main(["--out", str(tmp_path / "drawn"), f"--train={count}"])
    assert end.value.code == 2
    assert f"{count} is not a number of images, 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "drawn").exists()


def test_tool_still_draws_the_shipped_images(data: Path, tmp_path: Path) -> None:
    # Another processor or library build may round differently, so pixels may differ by a level or two.
    write_sample(tmp_path)
    for split, number in SAMPLE:
        name = demo.image_id(split, number)
        shipped, drawn = (np.asarray(Image.open(folder / "images" / name)).astype(float) for folder in (data, tmp_path))
        assert np.abs(shipped - drawn).mean() < 2
        mask, drawn = (
            np.asarray(Image.open((folder / "masks" / name).with_suffix(".png"))) for folder in (data, tmp_path)
        )
        assert (mask != drawn).mean() < 0.001
        boxes = demo.draw_scene(demo.SEED, split, number).boxes
        assert np.abs(boxes - boxes_by_image(data, split)[name]).max() <= 1


def test_scenes_depend_on_the_seed_alone() -> None:
    first, second = (render_scene(np.random.default_rng(7), 3, 60, 80) for _ in range(2))
    other = render_scene(np.random.default_rng(8), 3, 60, 80)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.boxes, second.boxes)
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (60, 80, 3)


def test_eight_classes_have_structure_inside() -> None:
    for label in range(len(CLASSES)):
        scene = render_scene(np.random.default_rng(label), label, 96, 96, pair=0.0)
        inside = scene.image[scene.alpha == 255].astype(float)
        assert len(scene.boxes) == 1
        assert inside.std(axis=0).max() > 15
