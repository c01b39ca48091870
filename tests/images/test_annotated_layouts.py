"""Data sets annotated as COCO and Pascal VOC: rows, labels and boxes of their own files, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.dataset import load_dataset
from wsolpipe.images.index import list_split, source_stamp

IMAGES = [{"id": number, "file_name": f"b/{number}.png", "width": 40, "height": 30} for number in (4, 2, 9)]
COCO = {
    "images": IMAGES,
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 18, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 4, "category_id": 3, "bbox": [5, 5, 20, 20.5]},
        {"id": 3, "image_id": 4, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        {"id": 4, "image_id": 2, "category_id": 18, "bbox": [0, 0, 10, 10], "score": 0.5},
    ],
}
XML = """<annotation><filename>1.png</filename><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>4</xmax><ymax>6</ymax></bndbox>
<part><name>head</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part></object>
<object><name>car</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>
"""


def describe(folder, **content):
    path = folder / "d.yaml"
    path.write_text(yaml.safe_dump({"name": "d", "root": "images", **content}))
    return load_dataset(str(path))


@pytest.fixture
def coco(tmp_path, save_image):
    for item in IMAGES:
        save_image(tmp_path / "images" / item["file_name"])

    def make(content=None, **more):
        (tmp_path / "val.json").write_text(json.dumps(COCO if content is None else content))
        return describe(tmp_path, layout="coco", metadata=".", split={"val": "val.json"}, **more)

    return make


@pytest.fixture
def voc(tmp_path, save_image):
    for stem in ("1", "2", "sub/3"):
        save_image(tmp_path / "images" / "JPEGImages" / f"{stem}.png")
    (tmp_path / "images" / "Annotations").mkdir()
    (tmp_path / "images" / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "images" / "Annotations" / "1.xml").write_text(XML)
    (tmp_path / "images" / "ImageSets" / "Main" / "trainval.txt").write_text("1  1\n2 -1\n")
    return lambda **more: describe(tmp_path, layout="voc", **{"split": {"train": "trainval"}, **more})


def boxes(listing):
    return {(item.image_id, item.x0, item.y0, item.x1, item.y1) for item in listing.annotations}


def test_a_coco_file_gives_rows_labels_by_area_and_boxes_without_groups(coco):
    config = coco()
    listing = list_split(config, "val")
    assert [(row.image_id, row.labels, row.width) for row in listing.rows] == [
        ("b/2.png", (1,), 40), ("b/4.png", (0, 1), 40), ("b/9.png", (), 40),
    ]  # fmt: skip
    assert listing.class_names == {0: "car", 1: "dog"}
    assert boxes(listing) == {("b/4.png", 1, 2, 4, 6), ("b/4.png", 5, 5, 25, 25.5), ("b/2.png", 0, 0, 10, 10)}
    assert config.exif == "ignore"
    before = source_stamp(config, "val")
    (config.source.parent / "val.json").write_text(json.dumps({**COCO, "annotations": []}))
    assert source_stamp(config, "val") != before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": [], "annotations": []}, "no image in"),
        ({"images": [*IMAGES, IMAGES[0]]}, "id 4 is given twice"),
        ({"images": [*IMAGES, {"id": 7, "file_name": "b/4.png"}]}, "two images have the file name 'b/4.png'"),
        ({"images": [{"id": 7, "file_name": "../4.png"}], "annotations": []}, "leaves the root"),
        ({"categories": []}, "category 3 is not among the categories"),
        ({"annotations": [{"image_id": 5, "category_id": 3, "bbox": [1, 1, 1, 1]}]}, "no image has the id 5"),
        ({"annotations": [{"image_id": 4, "bbox": [1, 1, 1, 1]}]}, "annotations[0] has no image_id, category_id"),
    ],
)
def test_a_wrong_coco_file_is_refused_with_its_entry(coco, change, told):
    config = coco({**COCO, **change})
    with pytest.raises(DataError) as caught:
        list_split(config, "val")
    assert told in str(caught.value)


def test_voc_folders_give_rows_of_a_list_labels_by_area_and_boxes_from_zero(voc):
    config = voc()
    listing = list_split(config, "train")
    assert [(row.image_id, row.path, row.labels, row.width) for row in listing.rows] == [
        ("1", "JPEGImages/1.png", (0, 1), 40), ("2", "JPEGImages/2.png", (), None),
    ]  # fmt: skip
    assert listing.class_names == {0: "car", 1: "dog"}
    assert boxes(listing) == {("1", 1, 2, 4, 6), ("1", 0, 0, 20, 20)}
    assert [row.image_id for row in list_split(voc(split="all"), "all").rows] == ["1", "2", "sub/3"]
    assert np.unique([source_stamp(config, "train"), source_stamp(config, "train")]).size == 1


def test_wrong_voc_folders_are_refused(voc, tmp_path):
    with pytest.raises(ConfigError, match="no list .*test.txt of split b"):
        list_split(voc(split={"a": "trainval", "b": "test"}), "b")
    (tmp_path / "names.txt").write_text("0,dog\n")
    with pytest.raises(DataError, match=r"1.xml: class 'car' is not in names.txt"):
        list_split(voc(classes="names.txt"), "train")
    (tmp_path / "images" / "Annotations" / "2.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(DataError, match=r"2.xml: object 1: not a box"):
        list_split(voc(), "train")
    (tmp_path / "images" / "ImageSets" / "Main" / "trainval.txt").write_text("1\n8\n")
    with pytest.raises(DataError, match=r"trainval.txt:2: no image 8"):
        list_split(voc(), "train")
