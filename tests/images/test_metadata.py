"""The field's metadata layout: every bad line is named with its file and number, every legal form is read."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.index import list_split, source_stamp
from wsolpipe.images.listing import ListedRow

IDS = [f"a/{n}.png" for n in range(4)]


def test_rows_labels_sizes_and_boxes_are_read(tiny):
    listing = list_split(tiny(), "train")
    assert [row.image_id for row in listing.rows] == IDS
    assert [row.labels for row in listing.rows] == [(0,), (1,), (0,), (1,)]
    assert (listing.rows[2].width, listing.rows[2].height) == (12, 10)
    assert listing.rows[2].size_where == "image_sizes.txt:3"
    box = listing.annotations[1]
    assert (box.kind, box.x0, box.y0, box.x1, box.y1) == ("box", 1.0, 1.0, 8.0, 9.5)
    assert box.where == "localization.txt:2"
    assert listing.classes == 2
    assert listing.class_names == {0: "cat", 1: "dog"}


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"class_labels": [*[f"{i},0" for i in IDS[:3]], "a/3.png,2"]},
            ["class_labels.txt:4: label 2 is outside the 2"],
        ),
        ({"class_labels": [*[f"{i},0" for i in IDS[:3]], "a/3.png,-1"]}, ["class_labels.txt:4: label -1 is outside"]),
        (
            {"class_labels": [*[f"{i},0" for i in IDS[:3]], "a/3.png,x"]},
            ["class_labels.txt:4: label 'x' is not an integer"],
        ),
        (
            {"class_labels": [*[f"{i},0" for i in IDS], "a/9.png,0"]},
            ["class_labels.txt:5: 'a/9.png' is not in the image"],
        ),
        ({"class_labels": [f"{i},0" for i in IDS[:3]]}, ["image_ids.txt:4: 'a/3.png' has no line in class_labels.txt"]),
        ({"class_labels": [*[f"{i},0" for i in IDS], "a/0.png,0"]}, ["class_labels.txt:5: duplicate id 'a/0.png'"]),
        (
            {"class_labels": [*[f"{i},0" for i in IDS], "nonsense"]},
            ["class_labels.txt:5: not 'path,label': 'nonsense'"],
        ),
        ({"image_ids": [*IDS, "a/1.png"]}, ["image_ids.txt:5: duplicate id 'a/1.png', first in line 2"]),
        ({"image_ids": ["/etc/passwd", *IDS]}, ["image_ids.txt:1: absolute path '/etc/passwd'"]),
        ({"image_ids": [*IDS, "a/../../x.png"]}, ["image_ids.txt:5: path 'a/../../x.png' leaves the root"]),
        ({"image_ids": [*IDS, "C:\\x.png"]}, ["image_ids.txt:5: absolute path"]),
        ({"image_sizes": ["a/0.png,12,ten"]}, ["image_sizes.txt:1: not 'path,width,height': 'a/0.png,12,ten'"]),
        ({"image_sizes": ["a/0.png,12,0"]}, ["image_sizes.txt:1: size 12x0 is not a size of an image"]),
        ({"image_sizes": ["a/0.png,12,10", "a/0.png,12,10"]}, ["image_sizes.txt:2: duplicate id 'a/0.png'"]),
        ({"image_sizes": ["a/7.png,12,10"]}, ["image_sizes.txt:1: 'a/7.png' is not in the image ids"]),
        ({"localization": ["", "a/0.png,1,2,nan,4"]}, ["localization.txt:2: box (1, 2, nan, 4) is not finite"]),
        ({"localization": ["a/0.png,1,2,inf,4"]}, ["localization.txt:1: box (1, 2, inf, 4) is not finite"]),
        ({"localization": ["a/0.png,5,2,3,4"]}, ["localization.txt:1: box (5, 2, 3, 4) ends before it begins"]),
        ({"localization": ["a/0.png,1,2,x,4"]}, ["localization.txt:1: not a box: '1,2,x,4'"]),
        ({"localization": ["a/0.png;1;2"]}, ["localization.txt:1: neither a box nor a mask"]),
        ({"localization": ["b/0.png,1,2,3,4"]}, ["localization.txt:1: 'b/0.png' is not in the image ids"]),
        ({"localization": ["a/0.png,m.png,"]}, ["localization.txt:1: no mask file m.png in"]),
        ({"localization": ["a/0.png,../m.png"]}, ["localization.txt:1: path '../m.png' leaves the root"]),
        ({"classes": ["0,cat", "one,dog"]}, ["classes.txt:2: not 'label,name': 'one,dog'"]),
        ({"classes": ["0,cat", "0,dog"]}, ["classes.txt:2: label 0 is named twice"]),
        (
            {"class_labels": [f"{i},7" for i in IDS], "localization": ["a/0.png,1"]},
            ["5 problems", *[f"class_labels.txt:{n}: label 7" for n in range(1, 5)], "localization.txt:1: "],
        ),
    ],
)
def test_every_bad_line_is_named_with_file_and_number(tiny, changes, messages):
    with pytest.raises(DataError) as caught:
        list_split(tiny(**changes), "train")
    for message in messages:
        assert message in str(caught.value)
    assert caught.value.exit_code == 3


def test_one_error_lists_twenty_lines_and_stops(tiny):
    with pytest.raises(DataError) as caught:
        list_split(tiny(class_labels=[f"x/{n}.png,0" for n in range(500)]), "train")
    assert str(caught.value).count("class_labels.txt:") == 20
    assert "stopped" in str(caught.value)


def test_windows_line_ends_a_missing_final_newline_and_a_byte_order_mark_are_read(tiny, tmp_path):
    config = tiny()
    (tmp_path / "image_ids.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(IDS).encode() + b"\r\n\r\n")
    assert [row.image_id for row in list_split(config, "train").rows] == IDS


def test_a_line_that_is_not_text_is_named(tiny, tmp_path):
    config = tiny()
    (tmp_path / "class_labels.txt").write_bytes(b"a/0.png,0\n\xff\xfe,0\n")
    with pytest.raises(DataError, match=r"class_labels.txt:2: not UTF-8 text"):
        list_split(config, "train")


def test_several_labels_stand_on_one_line_or_on_several(tiny):
    labels = ["a/0.png,1;0", "a/1.png,1", "a/2.png,0", "a/1.png,0", "a/3.png,1"]
    assert [row.labels for row in list_split(tiny(class_labels=labels), "train").rows] == [(1, 0), (1, 0), (0,), (1,)]


def test_files_that_are_not_there_leave_their_part_empty(tiny):
    none = dict.fromkeys(("class_labels", "image_sizes", "localization", "classes"))
    listing = list_split(tiny(**none), "train")
    assert [row.labels for row in listing.rows] == [()] * 4
    assert listing.rows[0].width is None
    assert listing.annotations == []
    assert listing.classes is None


def test_a_file_that_the_description_names_must_be_there(tiny):
    with pytest.raises(ConfigError, match="localization: no file .*boxes.txt"):
        list_split(tiny(keys={"files": {"localization": "boxes.txt"}}), "train")


def test_null_says_that_a_file_does_not_count(tiny):
    listing = list_split(tiny(keys={"files": {"image_sizes": None, "localization": None}}), "train")
    assert listing.rows[0].width is None
    assert listing.annotations == []


def test_ids_may_come_from_the_labels_alone(tiny):
    listing = list_split(tiny(keys={"files": {"image_ids": None}}, image_ids=None), "train")
    assert [row.image_id for row in listing.rows] == IDS


def test_a_named_file_of_ids_chooses_a_subset(tiny, tmp_path):
    (tmp_path / "image_ids_proxy.txt").write_text("a/3.png\na/1.png\n")
    listing = list_split(tiny(keys={"files": {"image_ids": "image_ids_proxy.txt"}}), "train")
    assert [row.image_id for row in listing.rows] == ["a/1.png", "a/3.png"]
    assert [item.image_id for item in listing.annotations] == ["a/1.png", "a/3.png"]


def test_a_count_of_classes_wins_over_a_list_that_names_only_some(tiny):
    labels = [f"{i},4" for i in IDS]
    listing = list_split(tiny(keys={"classes": 5}, class_labels=labels), "train")
    assert listing.classes == 5
    with pytest.raises(DataError, match="label 4 is outside the 3 classes"):
        list_split(tiny(keys={"classes": 3}, class_labels=labels), "train")


def test_classes_without_object_are_found_by_name_or_refused_with_the_nearest(tiny):
    assert list_split(tiny(keys={"objectless": ["dog", 0]}), "train").objectless == (0, 1)
    with pytest.raises(ConfigError, match="unknown class 'dogs'; did you mean 'dog'"):
        list_split(tiny(keys={"objectless": ["dogs"]}), "train")
    with pytest.raises(ConfigError, match="label 2 is outside the 2 classes"):
        list_split(tiny(keys={"objectless": [2]}), "train")


def test_masks_are_read_from_lines_with_the_ignore_mask_on_the_first(tiny, tmp_path):
    for name in ("m0.png", "m1.png", "i.png"):
        Image.fromarray(np.ones((10, 12), np.uint8)).save(tmp_path / "images" / name)
    lines = ["a/0.png,m0.png,i.png", "a/0.png,m1.png,", "a/1.png,m1.png"]
    found = [
        (item.image_id, item.kind, item.path) for item in list_split(tiny(localization=lines), "train").annotations
    ]
    assert found == [
        ("a/0.png", "mask", "m0.png"),
        ("a/0.png", "ignore", "i.png"),
        ("a/0.png", "mask", "m1.png"),
        ("a/1.png", "mask", "m1.png"),
    ]


def test_masks_of_the_same_stem_are_found_in_their_folder(tiny, tmp_path):
    (tmp_path / "shapes" / "a").mkdir(parents=True)
    Image.fromarray(np.ones((10, 12), np.uint8)).save(tmp_path / "shapes" / "a" / "2.bmp")
    config = tiny(keys={"masks": "shapes"})
    masks = [item for item in list_split(config, "train").annotations if item.kind == "mask"]
    assert [(item.image_id, item.path) for item in masks] == [("a/2.png", "a/2.bmp")]
    assert (config.mask_root() / masks[0].path).is_file()
    shutil.rmtree(tmp_path / "shapes" / "a")
    with pytest.raises(DataError, match=r"no image has a mask there; for a/0.png one would be a/0.png"):
        list_split(config, "train")


def test_groups_and_frames_are_read(tiny, tmp_path):
    (tmp_path / "groups.txt").write_text("a/0.png,shot 1,7\na/1.png,shot 1,\n")
    rows = list_split(tiny(), "train").rows
    assert [(row.group, row.frame) for row in rows] == [("shot 1", 7), ("shot 1", None), ("", None), ("", None)]


def test_splits_have_folders_of_their_own_and_share_the_class_list(tiny, tmp_path):
    config = tiny(keys={"split": {"train": "train", "val": "val2"}}, classes=["0,cat", "1,dog"])
    for folder, count in (("train", 4), ("val2", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "image_ids.txt").write_text("\n".join(IDS[:count]))
        (tmp_path / folder / "class_labels.txt").write_text("\n".join(f"{i},1" for i in IDS[:count]))
    assert [len(list_split(config, split).rows) for split in config.splits] == [4, 2]
    assert list_split(config, "val").class_names == {0: "cat", 1: "dog"}
    (tmp_path / "train" / "class_labels.txt").write_text("a/0.png,x\n")
    with pytest.raises(DataError, match=r"split train: .*\n  train/class_labels.txt:1"):
        list_split(config, "train")
    shutil.rmtree(tmp_path / "val2")
    with pytest.raises(ConfigError, match="no folder .*val2 with the metadata of split val"):
        list_split(config, "val")


def test_an_empty_split_is_refused(tiny):
    with pytest.raises(DataError, match="no image"):
        list_split(tiny(image_ids=[], class_labels=[], image_sizes=[], localization=[]), "train")


def test_the_stamp_changes_with_the_files_and_with_the_description(tiny, tmp_path):
    config = tiny()
    first = source_stamp(config, "train")
    assert source_stamp(tiny(keys={"exif": "apply"}), "train") != first
    config = tiny()
    first = source_stamp(config, "train")
    assert source_stamp(config, "train") == first
    (tmp_path / "groups.txt").write_text("a/0.png,g,0\n")
    second = source_stamp(config, "train")
    assert second != first
    with (tmp_path / "localization.txt").open("a") as file:
        file.write("\na/0.png,0,0,1,1")
    assert source_stamp(config, "train") != second


def test_a_hundred_thousand_lines_are_listed_about_as_fast_as_they_can_be_parsed(tmp_path, describe):
    (tmp_path / "images").mkdir()
    ids = [f"train/n{n % 1000:08d}/n{n % 1000:08d}_{n}.JPEG" for n in range(100_000)]
    (tmp_path / "image_ids.txt").write_text("\n".join(ids))
    (tmp_path / "class_labels.txt").write_text("\n".join(f"{name},{n % 1000}" for n, name in enumerate(ids)))
    import time

    config = describe(classes=1000)
    started = time.thread_time()
    listing = list_split(config, "train")
    spent, started = time.thread_time() - started, time.thread_time()
    parsed = {}
    for line in (tmp_path / "class_labels.txt").read_text().split("\n"):
        name, _, label = line.rpartition(",")
        parsed[name] = ListedRow(name, name, (int(label),))
    sorted(parsed.values())
    assert spent < 6 * (time.thread_time() - started)
    assert len(listing.rows) == 100_000
