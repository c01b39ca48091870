"""Folders, tables, CUB and ILSVRC as published: small copies of each, read as the real ones are."""

from __future__ import annotations

import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.index import list_split, source_stamp


@pytest.fixture
def pets(tmp_path, save_image, describe):
    root = tmp_path / "images"
    for path in ("train/cat/1.jpg", "train/cat/deep/2.PNG", "train/dog/3.jpeg", "val/dog/4.jpg", "val/eel/5.jpg"):
        save_image(root / path)
    (root / "train" / "cat" / "notes.txt").write_text("x")
    (root / "train" / "cat" / ".hidden.jpg").write_text("x")

    def make(**keys):
        return describe(**{"layout": "folder", "split": {"train": "train", "val": "val"}, **keys})

    return make


def test_folder_labels_count_over_all_splits_so_that_they_agree(pets):
    config = pets()
    train, val = list_split(config, "train"), list_split(config, "val")
    names = {0: "cat", 1: "dog", 2: "eel"}
    assert train.class_names == val.class_names == names
    assert train.classes == 3
    assert [(row.path, row.labels) for row in train.rows] == [
        ("train/cat/1.jpg", (0,)),
        ("train/cat/deep/2.PNG", (0,)),
        ("train/dog/3.jpeg", (1,)),
    ]
    assert [row.labels for row in val.rows] == [(1,), (2,)]
    assert train.ignored == {".txt": 1}
    assert config.exif == "apply"


def test_folder_labels_follow_the_class_list(pets, tmp_path):
    (tmp_path / "names.txt").write_text("5,cat\n2,dog\n")
    config = pets(classes="names.txt")
    assert [row.labels for row in list_split(config, "train").rows] == [(5,), (5,), (2,)]
    with pytest.raises(DataError, match="folder 'eel' is not a class of names.txt"):
        list_split(config, "val")


def test_a_folder_of_loose_images_has_no_labels(pets):
    listing = list_split(pets(root="images/train/cat", split="all"), "all")
    assert [(row.path, row.labels) for row in listing.rows] == [("1.jpg", ()), ("deep/2.PNG", (0,))]


def test_a_folder_that_links_to_its_parent_is_refused(pets, tmp_path):
    os.symlink(tmp_path / "images" / "train" / "cat", tmp_path / "images" / "train" / "cat" / "again")
    with pytest.raises(DataError, match="link to a folder above"):
        list_split(pets(), "train")


def test_a_missing_split_folder_is_named(pets):
    with pytest.raises(ConfigError, match="no folder .*images/test for split test"):
        list_split(pets(split={"train": "train", "test": "test"}), "test")


def test_a_file_name_that_is_not_text_is_named(pets, tmp_path):
    folder = os.fsencode(tmp_path / "images" / "train" / "dog")
    with open(os.path.join(folder, b"caf\xe9.jpg"), "wb") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"caf\\udce9.jpg': the file name is not UTF-8"):
        list_split(pets(), "train")


def test_the_stamp_of_a_folder_sees_new_images_new_classes_and_deep_ones(pets, save_image, tmp_path):
    config = pets()
    stamps = [source_stamp(config, "train")]
    for path in ("train/cat/9.jpg", "train/fox/1.jpg", "train/cat/deep/8.jpg", "val/gnu/1.jpg"):
        time.sleep(0.01)
        save_image(tmp_path / "images" / path)
        stamps.append(source_stamp(config, "train"))
    assert len(set(stamps)) == 5


@pytest.fixture
def table(tmp_path, describe):
    (tmp_path / "images").mkdir()

    def make(text, **keys):
        (tmp_path / "t.csv").write_text(text)
        return describe(**{"layout": "csv", "metadata": "t.csv", **keys})

    return make


def test_a_table_has_a_line_a_box_and_labels_by_name(table, tmp_path):
    (tmp_path / "names.txt").write_text("0,cat\n1,dog, wild")
    text = (
        "path,label,width,height,x0,y0,x1,y1,group,frame,other\n"
        'b.jpg,"dog, wild",20,10,1,2,3,4,shot,3,z\n'
        "a.jpg,cat,,,,,,,,,\n"
        'b.jpg,"dog, wild",20,10,5,6,7.5,8,shot,3,z\n'
    )
    listing = list_split(table(text, classes="names.txt"), "train")
    assert [(row.image_id, row.labels, row.width, row.group, row.frame) for row in listing.rows] == [
        ("a.jpg", (0,), None, "", None),
        ("b.jpg", (1,), 20, "shot", 3),
    ]
    assert listing.rows[1].size_where == "t.csv:2"
    assert [(a.x0, a.y0, a.x1, a.y1, a.where) for a in listing.annotations] == [
        (1, 2, 3, 4, "t.csv:2"),
        (5, 6, 7.5, 8, "t.csv:4"),
    ]


def test_columns_may_have_other_names_and_boxes_other_corners(table):
    text = "file,x,y,w,h,set\na.jpg,1,2,3,4,train\nb.jpg,1,2,3,4,val\n"
    columns = {"path": "file", "x0": "x", "y0": "y", "x1": "w", "y1": "h", "split": "set"}
    config = table(text, columns=columns, box_format="xywh", split={"fit": "train", "check": "val"})
    (box,) = list_split(config, "fit").annotations
    assert (box.image_id, box.x0, box.y0, box.x1, box.y1) == ("a.jpg", 1, 2, 4, 6)
    assert [row.path for row in list_split(config, "check").rows] == ["b.jpg"]


def test_a_parquet_table_reads_as_the_same_csv(tmp_path, describe):
    (tmp_path / "images").mkdir()
    columns = {"path": ["a.jpg", "b.jpg"], "label": [1.0, None], "labels": [None, [2, 3]], "x0": [1.5, None]}
    columns |= {"y0": [0, None], "x1": [4, None], "y1": [5.0, float("nan")]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    listing = list_split(describe(layout="csv", metadata="t.parquet"), "train")
    assert [row.labels for row in listing.rows] == [(1,), (2, 3)]
    assert [(a.image_id, a.x0, a.y1, a.where) for a in listing.annotations] == [("a.jpg", 1.5, 5.0, "t.parquet: row 1")]


def test_names_of_a_table_without_a_class_list_are_numbered_over_all_splits(table):
    config = table("path,label,split\na.jpg,dog,train\nb.jpg,cat;owl,val\n", split={"train": "train", "val": "val"})
    found = {split: list_split(config, split) for split in config.splits}
    assert {split: listing.rows[0].labels for split, listing in found.items()} == {"train": (1,), "val": (0, 2)}
    assert found["train"].class_names == found["val"].class_names == {0: "cat", 1: "dog", 2: "owl"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,0\na.jpg,0\n", "t.csv:3: duplicate id 'a.jpg', first at t.csv:2"),
        ("path,label\na.jpg,2\n", "t.csv:2: label 2 is outside the 2 classes"),
        ("path,label\na.jpg,0\nb.jpg,cat\n", "t.csv:3: label 'cat' is not an integer"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,3,\n", "t.csv:2: not a box"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,nan,4\n", "t.csv:2: box .* is not finite"),
        ("path,width,height\na.jpg,5,\n", "t.csv:2: height '' is not a whole number"),
        ("path,width,height,label\na.jpg,5,5,0\na.jpg,6,5,1\n", "t.csv:3: size 6x5 contradicts t.csv:2"),
        ("image_id,path,label\n1,a.jpg,0\n1,b.jpg,1\n", "t.csv:3: path 'b.jpg', but 'a.jpg' at t.csv:2"),
        ("path,label\n../a.jpg,0\n", "t.csv:2: path '../a.jpg' leaves the root"),
        ("path,label\n,0\n", "t.csv:2: empty path"),
        ("path,mask\na.jpg,m.png\n", "t.csv:2: no mask file m.png"),
        ("file,label\na.jpg,0\n", "no column 'path'; it has: file, label"),
        ('path,label\n"a\nb.jpg",0\nc.jpg,9\n', "t.csv:4: label 9"),
    ],
)
def test_a_bad_line_of_a_table_is_named(table, text, message):
    with pytest.raises((DataError, ConfigError), match=message):
        list_split(table(text, classes=2), "train")


def test_a_column_that_is_not_there_gets_the_nearest(table):
    with pytest.raises(ConfigError, match="unknown column 'files'; did you mean 'file'"):
        list_split(table("file\na.jpg\n", columns={"path": "files"}), "train")
    with pytest.raises(ConfigError, match="unknown column 'paths'; did you mean 'path'"):
        list_split(table("file\na.jpg\n", columns={"paths": "file"}), "train")


CUB = {
    "images.txt": "1 001.A/a.jpg\n2 001.A/b.jpg\n3 002.B/c.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n",
    "bounding_boxes.txt": "1 1.0 2.0 5.0 6.0\n2 0.0 0.0 12.0 10.0\n3 2.5 1.0 4.0 4.0\n",
    "classes.txt": "1 001.A\n2 002.B\n",
}


@pytest.fixture
def birds(tmp_path, save_image, describe):
    root = tmp_path / "CUB"
    for line in CUB["images.txt"].splitlines():
        save_image(root / "images" / line.split()[1])

    def make(split=None, **files):
        for name, text in {**CUB, **{f"{key}.txt": text for key, text in files.items()}}.items():
            if text is None:
                (root / name).unlink(missing_ok=True)
            else:
                (root / name).write_text(text)
        return describe(layout="cub", root="CUB", split=split or {"train": "train", "test": "test"}, metadata="meta")

    return make


def test_cub_as_published_is_read(birds):
    config = birds()
    train, test = list_split(config, "train"), list_split(config, "test")
    assert [(row.image_id, row.path, row.labels) for row in train.rows] == [
        ("001.A/a.jpg", "images/001.A/a.jpg", (0,)),
        ("002.B/c.jpg", "images/002.B/c.jpg", (1,)),
    ]
    assert [row.image_id for row in test.rows] == ["001.A/b.jpg"]
    box = train.annotations[0]
    assert (box.x0, box.y0, box.x1, box.y1, box.where) == (1.0, 2.0, 6.0, 8.0, "bounding_boxes.txt:1")
    assert train.classes == 2
    assert (config.image_root() / train.rows[0].path).is_file()
    assert config.exif == "ignore"


def test_cub_segmentations_are_masks_where_they_are_there(birds, tmp_path):
    config = birds()
    stamp = source_stamp(config, "train")
    folder = tmp_path / "CUB" / "segmentations" / "001.A"
    folder.mkdir(parents=True)
    Image.fromarray(np.ones((10, 12), np.uint8)).save(folder / "a.png")
    masks = [item for item in list_split(config, "train").annotations if item.kind == "mask"]
    assert [(item.image_id, item.path) for item in masks] == [("001.A/a.jpg", "segmentations/001.A/a.png")]
    assert (config.mask_root() / masks[0].path).is_file()
    assert source_stamp(config, "train") != stamp


def test_a_further_split_of_cub_comes_from_metadata_files(birds, tmp_path, save_image):
    save_image(tmp_path / "CUB" / "val2" / "9.jpg")
    (tmp_path / "meta" / "val").mkdir(parents=True)
    (tmp_path / "meta" / "val" / "image_ids.txt").write_text("val2/9.jpg")
    (tmp_path / "meta" / "val" / "class_labels.txt").write_text("val2/9.jpg,1")
    config = birds(split={"train": "train", "val": "val"})
    listing = list_split(config, "val")
    assert [(row.path, row.labels) for row in listing.rows] == [("val2/9.jpg", (1,))]
    assert listing.class_names == {0: "001.A", 1: "002.B"}
    assert source_stamp(config, "val") != source_stamp(config, "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"image_class_labels": "1 1\n2 3\n3 2\n"}, r"image_class_labels.txt:2: label 3 is outside the 2 classes"),
        ({"bounding_boxes": "1 1 2 5 6\n3 1 2 3 4\n"}, r"images.txt:2: image 2 has no box"),
        (
            {"bounding_boxes": CUB["bounding_boxes.txt"] + "4 1 2 3 4"},
            r"bounding_boxes.txt:4: image 4 is not in images",
        ),
        ({"bounding_boxes": "1 1 2 nan 6\n2 1 1 1 1\n3 1 1 1 1"}, r"bounding_boxes.txt:1: box .* not finite"),
        ({"images": CUB["images.txt"] + "3 x.jpg"}, r"images.txt:4: duplicate id 3"),
        ({"train_test_split": "one 1\n2 0\n3 1"}, r"train_test_split.txt:1: does not begin with a number"),
        ({"classes": None}, r"no file .*classes.txt\nThe cub layout looks like this"),
    ],
)
def test_a_bad_line_of_cub_is_named(birds, files, message):
    with pytest.raises((DataError, ConfigError), match=message):
        list_split(birds(**files), "train")


XML = """<annotation><filename>x</filename><size><width>12</width><height>10</height></size>
<object><name>{synset}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></object>
<object><name>{synset}</name><bndbox><ymax>5</ymax><ymin>1</ymin><xmin>2</xmin><xmax>4</xmax></bndbox></object>
</annotation>"""


@pytest.fixture
def imagenet(tmp_path, save_image, describe):
    root = tmp_path / "ILSVRC"
    for path in (
        "train/n02/n02_1.JPEG",
        "train/n01/n01_9.JPEG",
        "val/ILSVRC2012_val_1.JPEG",
        "val/ILSVRC2012_val_2.JPEG",
    ):
        save_image(root / "Data" / "CLS-LOC" / path, format="JPEG")
    boxes = root / "Annotations" / "CLS-LOC"
    (boxes / "val").mkdir(parents=True)
    (boxes / "val" / "ILSVRC2012_val_1.xml").write_text(XML.format(synset="n02"))
    (boxes / "train" / "n01").mkdir(parents=True)
    (boxes / "train" / "n01" / "n01_9.xml").write_text(XML.format(synset="n01"))
    (root / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\nn02 goldfish\n")
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_2,n01 1 2 3 4\n")
    for path in ("val2/0/0.jpeg", "val2/1/7.jpeg"):
        save_image(root / path, format="JPEG")

    def make(**keys):
        split = {"train": "train", "val": "val2", "test": "val"}
        return describe(**{"layout": "ilsvrc", "root": "ILSVRC", "split": split, "metadata": "metadata", **keys})

    return make


def test_ilsvrc_as_published_is_read(imagenet):
    config = imagenet()
    train, test = list_split(config, "train"), list_split(config, "test")
    assert [(row.image_id, row.path, row.labels) for row in train.rows] == [
        ("train/n01/n01_9.JPEG", "Data/CLS-LOC/train/n01/n01_9.JPEG", (0,)),
        ("train/n02/n02_1.JPEG", "Data/CLS-LOC/train/n02/n02_1.JPEG", (1,)),
    ]
    assert train.annotations == []
    assert train.class_names == {0: "n01 tench, Tinca tinca", 1: "n02 goldfish"}
    assert [(row.image_id, row.labels) for row in test.rows] == [
        ("val/ILSVRC2012_val_1.JPEG", (1,)),
        ("val/ILSVRC2012_val_2.JPEG", (0,)),
    ]
    assert [(a.image_id, a.x0, a.y0, a.x1, a.y1, a.where) for a in test.annotations] == [
        ("val/ILSVRC2012_val_1.JPEG", 1, 2, 7, 8, "ILSVRC2012_val_1.xml: object 1"),
        ("val/ILSVRC2012_val_1.JPEG", 2, 1, 4, 5, "ILSVRC2012_val_1.xml: object 2"),
    ]
    assert [a.image_id for a in list_split(imagenet(train_boxes=True), "train").annotations] == [
        "train/n01/n01_9.JPEG"
    ] * 2


def test_the_v2_split_reads_labels_from_folders_and_boxes_from_metadata(imagenet, tmp_path):
    listing = list_split(imagenet(), "val")
    assert [(row.image_id, row.path, row.labels) for row in listing.rows] == [
        ("val2/0/0.jpeg", "val2/0/0.jpeg", (0,)),
        ("val2/1/7.jpeg", "val2/1/7.jpeg", (1,)),
    ]
    folder = tmp_path / "ILSVRC" / "metadata" / "val"
    folder.mkdir(parents=True)
    stamp = source_stamp(imagenet(), "val")
    (folder / "image_ids.txt").write_text("val2/0/0.jpeg\nval2/1/7.jpeg")
    (folder / "class_labels.txt").write_text("val2/0/0.jpeg,0\nval2/1/7.jpeg,1")
    (folder / "localization.txt").write_text("val2/1/7.jpeg,1,2,3,4\n")
    listing = list_split(imagenet(), "val")
    assert [(a.image_id, a.x1) for a in listing.annotations] == [("val2/1/7.jpeg", 3.0)]
    assert listing.classes == 2
    assert source_stamp(imagenet(), "val") != stamp


def test_the_devkit_list_gives_the_same_labels_whatever_its_order(imagenet, tmp_path):
    (tmp_path / "ILSVRC" / "LOC_synset_mapping.txt").unlink()
    (tmp_path / "ILSVRC" / "devkit" / "data").mkdir(parents=True)
    (tmp_path / "ILSVRC" / "devkit" / "data" / "map_clsloc.txt").write_text("n02 1 goldfish\nn01 2 tench\n")
    assert list_split(imagenet(), "test").class_names == {0: "n01 tench", 1: "n02 goldfish"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("LOC_synset_mapping.txt", "n01 tench\n", "n02.*synset n02 is not in the list"),
        ("LOC_synset_mapping.txt", "n01 tench\nn02 b\nn01 c\n", "LOC_synset_mapping.txt:3: duplicate synset n01"),
        ("LOC_synset_mapping.txt", "tench\n", "LOC_synset_mapping.txt:1: does not begin with a synset"),
        ("LOC_val_solution.csv", "a,b\n", "val/ILSVRC2012_val_2.JPEG: no label: neither an XML"),
        ("LOC_val_solution.csv", "a,b\nc\n", "LOC_val_solution.csv:2: not 'image,synset box …': 'c'"),
        ("Annotations/CLS-LOC/val/ILSVRC2012_val_1.xml", "<a>\n<b></a>", r"ILSVRC2012_val_1.xml:2: not XML"),
        (
            "Annotations/CLS-LOC/val/ILSVRC2012_val_1.xml",
            XML.replace(">7<", ">x<"),
            r"ILSVRC2012_val_1.xml: object 1: not a box",
        ),
    ],
)
def test_a_bad_file_of_ilsvrc_is_named(imagenet, tmp_path, name, text, message):
    (tmp_path / "ILSVRC" / name).write_text(text.format(synset="n02"))
    with pytest.raises(DataError, match=message):
        list_split(imagenet(), "test" if "val" in name else "train")


def test_another_number_of_synsets_than_described_is_refused(imagenet):
    with pytest.raises(ConfigError, match="classes: 1000, but 2 synsets"):
        list_split(imagenet(classes=1000), "train")


def test_entities_in_annotations_are_refused(imagenet, tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY b "xx"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    (tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC" / "val" / "ILSVRC2012_val_1.xml").write_text(bomb)
    with pytest.raises(DataError, match="document type or entities"):
        list_split(imagenet(), "test")


def test_a_folder_without_images_says_what_it_has(tmp_path, describe):
    for name in ("cat/a.fits", "cat/b.FITS", "cat/notes"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"only 1 without a suffix, 2 \.fits"):
        list_split(describe(layout="folder", split={"train": "."}), "train")
