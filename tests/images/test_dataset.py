"""Descriptions of data sets: found, refused with the nearest key, and told where their root should be."""

from __future__ import annotations

import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.dataset import DatasetConfig, data_folder, known_datasets, load_dataset, root_variable
from wsolpipe.images.listing import LAYOUTS


def test_shipped_descriptions_are_found_by_name_and_load(tmp_path):
    assert {"cub", "ilsvrc", "openimages", "folder"} <= set(known_datasets())
    for name in known_datasets():
        config = load_dataset(name, root=str(tmp_path))
        assert config.name == name
        assert config.root == tmp_path
        assert config.splits


def test_ilsvrc_splits_are_those_of_the_evaluation_protocol(tmp_path):
    config = load_dataset("ilsvrc", root=str(tmp_path))
    assert config.split == {"train": "train", "val": "val2", "test": "val"}
    assert config.exif == "ignore"


def test_an_unknown_name_gets_the_nearest_and_the_list():
    with pytest.raises(ConfigError, match=r"unknown data set 'cubs'; did you mean 'cub'\? Valid: .*openimages"):
        load_dataset("cubs")


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no data set description .*mine.yaml"):
        load_dataset(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: a\nlayout: metadata\nmask: m",
            r"a.yaml: unknown key 'mask'; did you mean 'masks'\? Valid: accept, box_format",
        ),
        ("name: a\nlayout: meta", r"layout: unknown layout 'meta'; did you mean 'metadata'\?"),
        ("layout: folder", "missing key 'name'"),
        ("name: a\nlayout: folder\nsplit: 3", "split: .* not 3"),
        ("name: a\nlayout: folder\nclasses: 0", "classes: .*at least 1"),
        ("name: a\nlayout: folder\nfiles: {sizes: x}", r"files: unknown key 'sizes'; did you mean 'image_sizes'\?"),
        ("name: a\nlayout: folder\nexif: no", "exif: .*quote it"),
        ("name: a/b\nlayout: folder", "cannot name a folder"),
        ("name: a\nlayout: folder\nsplit: {../x: y}", "cannot name a folder"),
        ("name: a\nlayout: folder\nsplit: {}", "names no split"),
        ("- a", "not a mapping"),
        ("a: [", "not valid YAML"),
        ("name: a\nlayout: folder\nroot: 3", "root: "),
    ],
)
def test_a_wrong_description_is_explained_with_its_file(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_dataset(str(path))


def test_the_root_is_taken_from_the_argument_then_the_file_then_the_environment(tmp_path, monkeypatch):
    for name in ("given", "own", "env"):
        (tmp_path / name).mkdir()
    path = tmp_path / "a.yaml"
    path.write_text("name: my-birds.2\nlayout: folder\nroot: own")
    assert root_variable("my-birds.2") == "WSOLPIPE_MY_BIRDS_2_ROOT"
    assert load_dataset(str(path)).root == tmp_path / "own"
    monkeypatch.setenv("WSOLPIPE_MY_BIRDS_2_ROOT", str(tmp_path / "env"))
    assert load_dataset(str(path)).root == tmp_path / "own"
    assert load_dataset(str(path), root=str(tmp_path / "given")).root == tmp_path / "given"
    path.write_text("name: my-birds.2\nlayout: folder")
    assert load_dataset(str(path)).root == tmp_path / "env"
    path.write_text("name: my-birds.2\nlayout: folder\nroot: gone")
    assert load_dataset(str(path)).root == tmp_path / "env"


@pytest.mark.parametrize("layout", LAYOUTS.names())
def test_a_missing_root_says_what_was_looked_for_and_how_the_folder_should_look(tmp_path, layout):
    path = tmp_path / "a.yaml"
    path.write_text(f"name: birds\nlayout: {layout}\nroot: nowhere")
    with pytest.raises(ConfigError) as caught:
        load_dataset(str(path))
    text = str(caught.value)
    assert str(tmp_path / "nowhere") in text
    assert f"The {layout} layout looks like this:" in text
    assert "WSOLPIPE_BIRDS_ROOT" in text
    assert load_dataset(str(path), need_root=False).name == "birds"
    path.write_text(f"name: birds\nlayout: {layout}")
    with pytest.raises(ConfigError, match="WSOLPIPE_BIRDS_ROOT is not set"):
        load_dataset(str(path))


def test_weights_beside_the_description_become_absolute(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.safetensors").write_bytes(b"x")
    (tmp_path / "vit").mkdir()  # neither a folder of a model's name is meant nor a file of a word's
    (tmp_path / "log").write_text("x")
    path = tmp_path / "a.yaml"
    path.write_text(
        "name: a\nlayout: folder\nroot: .\n"
        "stages: {cls_maps: {weights: w/a.safetensors, model: vit, scale: log, nested: {weights: w/a.safetensors}},"
        " classifier: {weights: timm}, clipseg_cams: {weights: w}}"
    )
    stages = load_dataset(str(path)).stages
    there = str(tmp_path / "w" / "a.safetensors")
    assert stages["cls_maps"] == {"weights": there, "model": "vit", "scale": "log", "nested": {"weights": there}}
    assert stages["classifier"] == {"weights": "timm"}
    assert stages["clipseg_cams"] == {"weights": str(tmp_path / "w")}


def test_metadata_is_looked_for_beside_the_file_and_in_the_root(tmp_path):
    root = tmp_path / "elsewhere"
    (root / "metadata").mkdir(parents=True)
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nlayout: metadata\nmetadata: metadata")
    config = load_dataset(str(path), root=str(root))
    assert config.locate("metadata", "metadata") == root / "metadata"
    (tmp_path / "metadata").mkdir()
    assert config.locate("metadata", "metadata") == root / "metadata"
    path.write_text("name: a\nlayout: metadata\nmetadata: metadata\nroot: elsewhere")
    assert load_dataset(str(path)).locate("metadata", "metadata") == tmp_path / "metadata"
    with pytest.raises(ConfigError, match="masks: shapes not found; looked for"):
        config.locate("masks", "shapes")


def test_an_unknown_split_gets_the_nearest(tmp_path):
    config = DatasetConfig(name="a", layout="folder", root=tmp_path, split={"train": "t", "val": "v"})
    assert config.splits == ["train", "val"]
    with pytest.raises(ConfigError, match="data set a: unknown split 'vall'; did you mean 'val'"):
        config.split_folder("vall")


def test_the_descriptions_lie_in_one_folder_of_yaml_files():
    assert (data_folder() / "folder.yaml").is_file()
