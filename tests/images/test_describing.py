"""A folder as somebody has it becomes a description that lists it; splits are drawn where there are none."""

from __future__ import annotations

import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

import wsolpipe.cli.main
from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.dataset import load_dataset
from wsolpipe.images.describing import describe_folder, draw_splits, near_groups
from wsolpipe.images.index import list_split
from wsolpipe.keys.console import call
from wsolpipe.stages.registry import load_registry

VOC = (
    "<annotation><size><width>48</width><height>40</height></size><object><name>cat</name><bndbox><xmin>2</xmin>"
    "<ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"
)
BOX = (1.0, 2.0, 20.0, 30.0)


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((48, 40)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def class_folders(folder):
    for kind in ("cat", "dog"):
        for number in range(8):
            save(folder / kind / f"{number}.jpg", hash((kind, number)) % 1000)


def splits_of_folders(folder):
    for number, place in enumerate(("training/cat", "training/dog", "valid/cat", "valid/dog")):
        save(folder / place / "1.jpg", number)


def one_too_high(folder):
    splits_of_folders(folder / "birds")


def flat(folder):
    save(folder / "1.jpg")
    save(folder / "2.jpg", 1)


def table(folder):
    lines = ["filename;class;set;xmin;ymin;xmax;ymax"]
    for number, split in enumerate(("train", "validation", "train")):
        save(folder / "pictures" / f"{number}.jpg", number)
        lines.append(f"pictures/{number}.jpg;{'cat' if number else 'dog'};{split};1;2;20;30")
    write(folder / "labels.csv", "\n".join(lines))


def table_without_splits(folder):
    lines = ["image,label,x,y,w,h"]
    for number in range(8):
        save(folder / f"{number}.jpg", number)
        lines.append(f"{number}.jpg,cat,1,2,19,28")
    write(folder / "labels.csv", "\n".join(lines))


def coco(folder):
    for number, split in enumerate(("train2017", "val2017")):
        save(folder / split / "1.jpg", number)
        image = {"id": 1, "file_name": "1.jpg", "width": 48, "height": 40}
        box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 19, 28]}
        content = {"images": [image], "annotations": [box], "categories": [{"id": 7, "name": "cat"}]}
        write(folder / "annotations" / f"instances_{split}.json", json.dumps(content))
        write(folder / "annotations" / f"captions_{split}.json", json.dumps({"images": [], "annotations": []}))


def roboflow(folder):
    coco(folder / "made")
    for name in ("train", "valid"):
        (folder / name).mkdir(parents=True)
        source = "train2017" if name == "train" else "val2017"
        shutil.copy(folder / "made" / source / "1.jpg", folder / name)
        shutil.copy(folder / f"made/annotations/instances_{source}.json", folder / name / "_annotations.coco.json")
    shutil.rmtree(folder / "made")


def voc(folder):
    for stem in ("a", "b"):
        save(folder / f"VOCdevkit/VOC2012/JPEGImages/{stem}.jpg", ord(stem))
        write(folder / f"VOCdevkit/VOC2012/Annotations/{stem}.xml", VOC)
    write(folder / "VOCdevkit/VOC2012/ImageSets/Main/train.txt", "a\n")
    write(folder / "VOCdevkit/VOC2012/ImageSets/Main/val.txt", "b\n")


def yolo(folder):
    for number, split in enumerate(("train", "val")):
        save(folder / f"images/{split}/1.jpg", number)
        write(folder / f"labels/{split}/1.txt", "1 0.21875 0.4 0.395833 0.7\n")
    write(folder / "data.yaml", "names: [dog, cat]\ntrain: images/train\nval: images/val\n")


def yolo_by_split(folder):
    for number, split in enumerate(("train", "valid")):
        save(folder / f"{split}/images/1.jpg", number)
        write(folder / f"{split}/labels/1.txt", "1 0.02 0.05 0.416 0.05 0.416 0.75 0.02 0.75\n")
    write(folder / "data.yaml", "names: [dog, cat]\ntrain: ../train/images\nval: ../valid/images\n")


def cub(folder):
    for number, name in enumerate(("001.Gull/1.jpg", "001.Gull/2.jpg"), 1):
        save(folder / "CUB_200_2011/images" / name, number)
    texts = {
        "images": "1 001.Gull/1.jpg\n2 001.Gull/2.jpg\n", "image_class_labels": "1 1\n2 1\n", "classes": "1 001.Gull\n",
        "train_test_split": "1 1\n2 0\n", "bounding_boxes": "1 1 2 19 28\n2 1 2 19 28\n",
    }  # fmt: skip
    for name, text in texts.items():
        write(folder / f"CUB_200_2011/{name}.txt", text)


def tar(folder):
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        save(folder / "1.jpg", number)
        with tarfile.open(folder / f"{split}-000.tar", "w") as file:
            for name, data in (("cat/1.jpg", (folder / "1.jpg").read_bytes()),):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    (folder / "1.jpg").unlink()


KINDS = {  # builder: layout, images by split, classes, boxes
    class_folders: ("csv", {"train": 12, "val": 2, "test": 2}, 2, 0),
    splits_of_folders: ("folder", {"train": 2, "val": 2}, 2, 0),
    one_too_high: ("folder", {"train": 2, "val": 2}, 2, 0),
    flat: ("folder", {"train": 2}, 1, 0),
    table: ("csv", {"train": 2, "val": 1}, 2, 3),
    table_without_splits: ("csv", {"train": 6, "val": 1, "test": 1}, 1, 8),
    coco: ("coco", {"train": 1, "val": 1}, 1, 2),
    roboflow: ("coco", {"train": 1, "val": 1}, 1, 2),
    voc: ("voc", {"train": 1, "val": 1}, 1, 2),
    yolo: ("yolo", {"train": 1, "val": 1}, 2, 2),
    yolo_by_split: ("yolo", {"train": 1, "val": 1}, 2, 2),
    cub: ("cub", {"train": 1, "test": 1}, 1, 2),
    tar: ("tar", {"train": 1, "val": 1}, 1, 0),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def typed(*words):
    """Exit code of wsolpipe with these words."""
    try:
        return call(wsolpipe.cli.main.cli, "wsolpipe", list(words))
    except SystemExit as end:
        return end.code


def init(*words):
    return typed("init", *words)


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_init_writes_a_description_that_lists_every_image_of_a_folder(here, capsys, build):
    layout, splits, classes, boxes = KINDS[build]
    build(here / "mine")
    before = {path: path.read_bytes() for path in (here / "mine").rglob("*") if path.is_file()}
    assert init("mine") == 0
    printed = capsys.readouterr().out
    assert "wsolpipe check dataset=mine.yaml" in printed
    assert {path: path.read_bytes() for path in (here / "mine").rglob("*") if path.is_file()} == before
    config = load_dataset("mine.yaml")
    listed = {split: list_split(config, split) for split in config.splits}
    assert (config.layout, {split: len(found.rows) for split, found in listed.items()}) == (layout, splits)
    assert {found.classes for found in listed.values()} == {classes}
    assert sum(len(found.annotations) for found in listed.values()) == boxes
    for found in listed.values():
        assert all(row.labels for row in found.rows)
        assert all((config.image_root() / row.path.partition("#")[0]).is_file() for row in found.rows)
        for item in found.annotations:
            assert np.allclose(item[2:6], BOX, atol=0.51)


def test_init_lets_maps_choose_themselves_where_the_weights_are_within_reach(here, capsys, monkeypatch):
    monkeypatch.setattr("wsolpipe.cli.init._published", lambda: True)
    class_folders(here / "mine")
    assert init("mine") == 0
    stages = load_dataset("mine.yaml").stages
    assert stages["cls_maps"] == {"blocks": "auto", "scale": "auto", "size": "auto"}
    assert stages["proposals"] == {"rank": "margin", "min_area": 0.02}
    assert "map_choice" not in stages
    flat(here / "plain")
    assert init("plain") == 0
    config = load_dataset("plain.yaml")
    assert config.stages["proposals"] == {"score": "size", "rank": "agreement", "min_area": 0.02}
    chosen_on = config.stages.get("map_choice", {"split": "train"})["split"]
    assert chosen_on in config.splits
    for stage in ("cls_maps", "proposals", "map_choice"):
        assert load_registry().params(stage, config.stages.get(stage, {}))


def test_init_says_what_a_stand_in_is_worth_and_what_changes_it(here, capsys):
    class_folders(here / "mine")
    assert init("mine") == 0
    assert "for trying commands alone" in capsys.readouterr().out
    text = (here / "mine.yaml").read_text()
    assert "worth less than a box in the middle" in text
    assert load_dataset("mine.yaml").stages["cls_maps"]["weights"].endswith("demo_vit.safetensors")


def test_images_without_classes_have_the_one_class_object(here):
    flat(here / "mine")
    assert init("mine") == 0
    listing = list_split(load_dataset("mine.yaml"), "train")
    assert listing.class_names == {0: "object"}
    assert {row.labels for row in listing.rows} == {(0,)}
    assert load_dataset("mine.yaml").stages["proposals"] == {"score": "size"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "init looks at one folder"),
        (("nowhere",), "no folder nowhere"),
        (("mine/1.jpg",), "mine/1.jpg is a file"),
        (("empty",), "empty holds no image: it is empty"),
        (("texts",), "texts holds no image, only notes.txt"),
        (("mine", "out=mine.txt"), "takes a file that ends in .yaml"),
        (("mine", "out=there.yaml"), "there.yaml exists already"),
        (("mine", "out=no/such/x.yaml"), "no/such/x.yaml cannot be written"),
        (("mine", "sed=1"), "did you mean 'seed'"),
    ],
)
def test_what_init_cannot_describe_is_one_message_and_writes_nothing(here, capsys, words, told):
    flat(here / "mine")
    (here / "empty").mkdir()
    write(here / "texts" / "notes.txt", "")
    write(here / "there.yaml", "name: mine\n")
    before = sorted(here.rglob("*"))
    assert init(*words) == 3
    assert told in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_a_folder_without_an_image_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="it is empty"):
        describe_folder(tmp_path)


def test_splits_are_drawn_by_class_and_keep_images_that_look_alike_together(tmp_path):
    for number in range(6):
        save(tmp_path / f"{number}.png", number)
        Image.open(tmp_path / f"{number}.png").resize((96, 80)).save(tmp_path / f"{number}-large.jpg")
    paths = sorted(path.name for path in tmp_path.iterdir())
    groups = near_groups(tmp_path, paths)
    alike = {path.partition(".")[0].partition("-")[0]: set() for path in paths}
    for path, group in zip(paths, groups, strict=True):
        alike[path.partition(".")[0].partition("-")[0]].add(group)
    assert sorted(len(found) for found in alike.values()) == [1] * 6
    assert len(set(groups)) == 6
    labels = ["cat"] * 40 + ["dog"] * 20
    splits = draw_splits(labels, list(range(60)), seed=3)
    assert splits == draw_splits(labels, list(range(60)), seed=3) != draw_splits(labels, list(range(60)), seed=4)
    for label, counts in (("cat", (28, 6, 6)), ("dog", (14, 3, 3))):
        mine = [split for split, own in zip(splits, labels, strict=True) if own == label]
        assert tuple(mine.count(split) for split in ("train", "val", "test")) == counts


def test_demo_copies_what_ships_and_refuses_a_folder_with_files(here, capsys):
    assert typed("demo", "try") == 0
    assert "wsolpipe run stage=proposals dataset=demo.yaml" in capsys.readouterr().out
    assert len(list_split(load_dataset("try/demo.yaml"), "val").rows) > 10
    assert load_dataset("try/demo.yaml").stages["cls_maps"]["weights"].startswith(str(here / "try"))
    assert typed("demo", "try") == 3
    assert "try exists already" in capsys.readouterr().err


def test_the_program_alone_shows_the_commands_of_a_first_hour(capsys):
    assert typed() == 0
    printed = capsys.readouterr().out
    assert printed.count("\n  wsolpipe ") == 5
    assert len(printed.splitlines()) < 12
