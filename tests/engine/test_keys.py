"""What changes a key and what does not."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from wsolpipe.engine.fingerprint import Ingredients, differences, expand_columns

INGREDIENTS = Ingredients(
    stage="s", version=1, params={"a": 1}, upstream={"u": "1"}, artifacts={"c": "2"}, weights={"w": "3"},
    columns={"sha256": "4"}, bases={"u": "5"},
)  # fmt: skip


@pytest.fixture
def made(done):
    """A bench whose run is done, and the keys it has."""
    bench, _ = done
    return bench, bench.keys()


def test_how_work_is_done_is_not_in_a_key(made):
    bench, keys = made
    for word in (
        "shade.batch=7", "shade.pause=0.001", "workers=3", "threads=4", "cluster=dask-local", "lease=5", "checkpoint=0",
        "max_failed=0.5", "retries=0", "device=cuda", "cluster=slurm-array", "profile.time=5", "wall_time=60",
    ):  # fmt: skip
        assert bench.keys(word) == keys, word


def test_a_parameter_changes_its_stage_and_whatever_reads_it(made):
    bench, keys = made
    for word, changed in {
        "shade.gain=1.5": {"shade", "frame"},
        "shade.grid=4": {"shade", "frame"},
        "frame.spread=2.0": {"frame"},
        "palette.seed=1": {"palette", "frame"},
    }.items():
        found = bench.keys(word)
        assert {name for name in keys if found[name] != keys[name]} == changed, word


def test_a_bumped_version_changes_the_key(made):
    bench, keys = made
    bench.write_stages(lambda text: text.replace("Shade\n  version: 1", "Shade\n  version: 2"))
    found = bench.keys()
    assert {name for name in keys if found[name] != keys[name]} == {"shade", "frame"}


def test_keys_wait_for_the_artifact_that_they_depend_on(made):
    bench, _ = made
    node = bench.nodes("palette.seed=5")["frame"]
    assert node.key is None
    assert node.blocked == "key after palette"


def test_an_artifact_counts_by_what_was_produced_not_by_its_recipe(made):
    """Seeds 0 and 00 of a palette differ as recipes; where they produce the same bytes, readers need not know."""
    bench, keys = made
    bench.write_stages(lambda text: text.replace("Palette\n  version: 1", "Palette\n  version: 2"))
    assert bench.go().code == 0
    found = bench.keys()
    assert found["palette"] != keys["palette"]
    assert found["frame"] == keys["frame"]
    assert bench.made() == [("palette", None)]


def test_the_place_of_images_and_store_is_not_in_a_key(made, tmp_path):
    bench, keys = made
    moved = tmp_path / "elsewhere"
    shutil.move(bench.images, moved)
    assert bench.go(f"root={moved}", store=tmp_path / "other").code == 0
    for name, key in keys.items():
        folders = list((tmp_path / "other" / "toy").glob(f"*/{name}/*"))
        assert [folder.name for folder in folders] == [key]


def test_an_images_bytes_change_the_keys_of_stages_that_see_it(made):
    bench, keys = made
    path = bench.images / "class0/image003.png"
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 7)).save(path)
    os.utime(path, (1, 1))
    bench.go("force=true", stage="index")
    found = bench.keys()
    assert found["shade"] != keys["shade"]
    assert found["palette"] == keys["palette"]


def test_weights_count_by_content_not_by_name(bench, tmp_path):
    bench.go("limit=4", stage="shade")
    names = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path, value in zip(names, (1.0, 1.0, 2.0), strict=True):
        save_file({"w": np.full(3, value, np.float32)}, path)
    plain = bench.keys("limit=4")["shade"]
    a, b, c = (bench.keys("limit=4", f"shade.weights={path}")["shade"] for path in names)
    assert a == b
    assert len({plain, a, c}) == 3


def metadata_layout(bench, boxes: str, labels: dict[str, int] | None = None) -> None:
    """Describe the same images by metadata files instead of folders."""
    ids = sorted(path.relative_to(bench.images).as_posix() for path in bench.images.rglob("*.png"))
    folder = bench.folder / "meta" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image_ids.txt").write_text("".join(f"{name}\n" for name in ids))
    (folder / "class_labels.txt").write_text(
        "".join(f"{name},{(labels or {}).get(name, int(name[5]))}\n" for name in ids)
    )
    (folder / "localization.txt").write_text(boxes)
    bench.yaml.write_text(
        "name: toy\nlayout: metadata\nroot: images\nmetadata: meta\nsplit: {train: train}\n"
        "files: {image_sizes: null}\nclasses: 3\n"
    )


def test_adding_boxes_changes_no_key(bench):
    metadata_layout(bench, "class0/image000.png,2,2,12,12\n")
    bench.go()
    keys = bench.keys()
    metadata_layout(bench, "class0/image000.png,2,2,12,12\nclass1/image001.png,1,1,9,9\n")
    assert bench.go().code == 0
    found = bench.keys()
    assert {name for name in keys if found[name] != keys[name]} <= {"index"}
    assert [event for event in bench.events if event["event"] == "shard" and event["stage"] != "index"] == []


def test_a_new_label_changes_only_stages_that_read_labels(bench):
    metadata_layout(bench, "")
    bench.go()
    keys = bench.keys()
    metadata_layout(bench, "", {"class0/image000.png": 2})
    assert bench.go().code == 0
    found = bench.keys()
    # the palette reads labels and changes its key, but produces the same bytes; frame reads the labels of its rows
    assert {name for name in keys if found[name] != keys[name]} == {"index", "palette", "frame"}
    assert ("shade", 0) not in bench.made()
    assert bench.taken_over() == [("frame", shard) for shard in (1, 2, 3, 4)]


@pytest.mark.parametrize("field", ["stage", "version", "params", "upstream", "artifacts", "weights", "columns"])
def test_every_ingredient_is_in_the_fingerprint(field):
    from dataclasses import replace

    changed = {"stage": "t", "version": 2}.get(field, {"other": "9"})
    assert replace(INGREDIENTS, **{field: changed}).fingerprint() != INGREDIENTS.fingerprint()


def test_a_fingerprint_is_the_one_that_older_stores_hold():
    # computed once with this schema; a change here makes every store of every user outdated
    assert INGREDIENTS.fingerprint() == "ebefa44b660da9af25c1a51ada103a431fa4cfa7721f1d7a057a09abd6f954d7"
    assert INGREDIENTS.basis() == "87cd8b5fa129a20e0677ae784371a0be953ac11efe17fe28b59e757df2cdb35c"


def test_image_stands_for_the_columns_that_say_which_pixels_are_seen():
    assert expand_columns(["image", "labels"]) == ("height", "labels", "orientation", "sha256", "width")


def test_differences_name_the_field_and_both_values():
    old = {"params": {"a": 1, "b": {"c": 2}}, "version": 1}
    new = {"params": {"a": 1, "b": {"c": 3}}, "version": 1, "weights": {"w": "0" * 64}}
    assert differences(old, new) == ["params.b.c: 2 -> 3", "weights: None -> {'w': '00000…"]
