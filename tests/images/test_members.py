"""Images inside tar archives and Parquet tables: listed, scanned, read and exported as if they were files."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from whole_index import scan_rows
from wsolpipe.cli.main import cli
from wsolpipe.contract.errors import BadImageError, ConfigError, DataError, WsolError
from wsolpipe.engine.image_files import is_readable
from wsolpipe.images.dataset import load_dataset
from wsolpipe.images.decode import decode, read_file
from wsolpipe.images.index import list_split, source_stamp
from wsolpipe.pages.pictures import photo


def picture(seed, size=(20, 16)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue(), pixels


def pack(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))


def describe(folder, **content):
    path = folder / "d.yaml"
    path.write_text(yaml.safe_dump({"name": "d", "root": "images", **content}))
    return load_dataset(str(path))


@pytest.fixture
def shards(tmp_path):
    """Two tar files of a webdataset: three samples with labels, of which one has a box and one no label."""
    root = tmp_path / "images"
    beside = json.dumps({"label": 2, "boxes": [[1, 2, 9, 12]], "caption": "x"}).encode()
    pack(root / "train-000.tar", {"a/0.png": picture(0)[0], "a/0.cls": b"1", "1.png": picture(1)[0], "1.json": beside})
    pack(root / "train-001.tar", {"./2.jpg.txt": b"a caption", "./2.png": picture(2)[0]})
    return root


def test_samples_of_archives_are_rows_with_the_bytes_of_their_members(shards, tmp_path):
    config = describe(tmp_path, layout="tar", split={"train": "train-"}, classes=3)
    listing = list_split(config, "train")
    assert [(row.image_id, row.path, row.labels) for row in listing.rows] == [
        ("1.png", "train-000.tar#1.png", (2,)), ("2.png", "train-001.tar#2.png", ()),
        ("a/0.png", "train-000.tar#a/0.png", (1,)),
    ]  # fmt: skip
    assert [(item.image_id, item.x1) for item in listing.annotations] == [("1.png", 9)]
    scans = scan_rows(shards, listing.rows, exif="apply")
    assert [(scan.width, scan.height, scan.reason) for scan in scans] == [(16, 20, "")] * 3
    np.testing.assert_array_equal(decode(read_file(shards / "train-000.tar#a/0.png")), picture(0)[1])
    assert is_readable(shards, "train-000.tar#a/0.png")
    assert not is_readable(shards, "train-009.tar#a/0.png")
    before = source_stamp(config, "train")
    pack(shards / "train-002.tar", {"9.png": picture(9)[0]})
    assert source_stamp(config, "train") != before


def test_a_report_shows_an_image_inside_an_archive(shards):
    assert photo(shards, "train-000.tar#a/0.png", orientation=1).startswith("data:image/")
    with pytest.raises(BadImageError):
        photo(shards, "train-000.tar#a/7.png", orientation=1)


def test_class_folders_in_an_archive_are_labels(tmp_path):
    pack(tmp_path / "images" / "all.tar", {"dog/1.png": picture(0)[0], "cat/1.png": picture(1)[0]})
    listing = list_split(describe(tmp_path, layout="tar", split="train"), "train")
    assert [(row.image_id, row.labels) for row in listing.rows] == [("cat/1.png", (0,)), ("dog/1.png", (1,))]
    assert listing.class_names == {0: "cat", 1: "dog"}


@pytest.fixture
def table(tmp_path):
    """A Parquet file as `datasets` writes it: images as structs, class names in its metadata, boxes as objects."""
    rows = [{"bytes": picture(row)[0], "path": f"{row}.png"} for row in range(5)]
    objects = [{"bbox": [[1.0, 2.0, 3.0, 4.0]] * (row % 2)} for row in range(5)]
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    content = pa.table({"image": rows, "label": [0, 1, 0, 1, 1], "objects": objects})
    content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (tmp_path / "images" / "data").mkdir(parents=True)
    pq.write_table(content, tmp_path / "images" / "data" / "train-00000-of-00001.parquet", row_group_size=2)
    return tmp_path / "images"


def test_rows_of_tables_are_images_with_the_names_of_their_classes(table, tmp_path):
    config = describe(tmp_path, layout="parquet", split={"train": "data/train-"}, box_format="xywh")
    listing = list_split(config, "train")
    assert [(row.image_id, row.labels) for row in listing.rows] == [
        (f"{row}.png", (int(row in (1, 3, 4)),)) for row in range(5)
    ]  # noqa: E501
    assert listing.class_names == {0: "cat", 1: "dog"}
    assert [(item.image_id, item.x1, item.y1) for item in listing.annotations] == [("1.png", 4, 6), ("3.png", 4, 6)]
    scans = scan_rows(table, listing.rows, exif="apply")
    assert not [scan.reason for scan in scans if scan.reason]
    for row in listing.rows:
        np.testing.assert_array_equal(decode(read_file(table / row.path)), picture(int(row.image_id[0]))[1])


def test_a_pipeline_runs_on_members_and_exports_them(shards, tmp_path, capsys):
    describe(tmp_path, layout="tar", split={"train": "train-"}, classes=3, accept=["missing_labels"])
    for command, *words in (
        ("run", "stage=pixels", "pixels.size=8"),
        ("import", "format=csv", f"in={tmp_path / 'boxes.csv'}"),
        ("export", "stage=human_boxes", "format=yolo", f"out={tmp_path / 'out'}"),
    ):
        (tmp_path / "boxes.csv").write_text("image_id,x0,y0,x1,y1\na/0.png,1,1,9,9\n")
        with pytest.raises(SystemExit) as end:
            cli.main([command, *words, f"dataset={tmp_path / 'd.yaml'}", f"store={tmp_path / 'store'}"],
                     standalone_mode=False)  # fmt: skip
        assert end.value.code == 0, capsys.readouterr().err
    placed = tmp_path / "out" / "images" / "train" / "train-000.tar__a__0.png"
    np.testing.assert_array_equal(np.asarray(Image.open(placed)), picture(0)[1])
    labels = tmp_path / "out" / "labels" / "train" / "train-000.tar__a__0.txt"
    assert len(labels.read_text().splitlines()) == 1


def test_what_is_not_there_or_damaged_is_told(shards, table):
    with pytest.raises(FileNotFoundError):
        read_file(shards / "train-000.tar#none.png")
    with pytest.raises(FileNotFoundError):
        read_file(shards / "none.tar#1.png")
    for member in ("image/77", "image/x", "none/1"):
        with pytest.raises((FileNotFoundError, BadImageError)):
            read_file(table / "data" / f"train-00000-of-00001.parquet#{member}")
    (shards / "train-000.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(BadImageError, match=r"broken archive train-000.tar"):
        read_file(shards / "train-000.tar#1.png")


@pytest.mark.parametrize(
    ("keys", "members", "told"),
    [
        ({"classes": 3}, {"1.png": b"x", "1.cls": b"7"}, "1.png: label 7 is outside the 3 classes"),
        ({}, {"1.png": b"x", "1.cls": b"dog"}, "label 'dog' is not an integer"),
        ({}, {"1.png": b"x", "1.json": b'{"boxes": [[1, 2]]}'}, "not a box"),
        ({}, {"1.png": b"x", "1.json": b"{"}, "x.tar#1.png"),
        ({}, {"../1.png": b"x"}, "leaves the root"),
        ({}, {"1.txt": b"x"}, "no image in"),
        ({"split": {"val": "val"}}, {"1.png": b"x"}, "no .tar file of split val"),
        ({"layout": "parquet"}, {"1.png": b"x"}, "no .parquet file of split train"),
    ],
)
def test_wrong_archives_are_refused(tmp_path, keys, members, told):
    pack(tmp_path / "images" / "x.tar", members)
    config = describe(tmp_path, **{"layout": "tar", "split": "train", **keys})
    with pytest.raises(WsolError) as caught:
        list_split(config, config.splits[0])
    assert told in str(caught.value)
    assert isinstance(caught.value, (ConfigError, DataError))


@pytest.mark.parametrize(
    ("columns", "keys", "told"),
    [
        ({"picture": [b"x"]}, {}, "no column 'image'"),
        ({"image": ["a.png"]}, {}, "holds string, not the bytes"),
        ({"image": [b"x"], "label": ["dog"]}, {}, "label 'dog' is not an integer"),
        ({"image": [b"x"]}, {"columns": {"imag": "image"}}, "unknown column 'imag'; did you mean 'image'"),
        ({"image": [b"x"]}, {"columns": {"label": "class"}}, "unknown column 'class'"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, columns, keys, told):
    (tmp_path / "images").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "images" / "x.parquet")
    with pytest.raises(WsolError) as caught:
        list_split(describe(tmp_path, layout="parquet", split="train", **keys), "train")
    assert told in str(caught.value)
