"""The real packs: list, scan, check and build, and hold the counts against the packs' own files."""

from __future__ import annotations

import csv
import json

import pytest

from whole_index import build_tables, check_listing, scan_rows
from wsolpipe.images.index import list_split, order_rows, source_stamp
from wsolpipe.images.index_tables import column_digests


def lines(path):
    return [line for line in path.read_text().splitlines() if line]


@pytest.mark.parametrize("name", ["ilsvrc_val_acuity", "cub10", "fewclass5", "busi_ultrasound", "ecssd_masks"])
def test_a_real_pack_is_listed_and_scanned_without_loss(pack, shared, name):
    config = pack(name)
    (split,) = config.splits
    listing = list_split(config, split)
    folder = shared / "data" / name
    boxes = "localization_stored227.txt" if name == "ilsvrc_val_acuity" else "localization.txt"
    assert [row.image_id for row in listing.rows] == sorted(lines(folder / "image_ids.txt"))
    assert sum(item.kind == "box" for item in listing.annotations) == len(lines(folder / boxes))
    masks = list((folder / "masks").rglob("*.png")) if (folder / "masks").is_dir() else []
    assert sum(item.kind == "mask" for item in listing.annotations) == len(masks)
    rows = order_rows(listing, [])
    scans = scan_rows(config.image_root(), rows, exif=config.exif, threads=2)
    assert not [scan.reason for scan in scans if scan.reason]
    checked = check_listing(rows, scans, listing.annotations)
    index, truth = build_tables(rows, scans, checked.annotations)
    assert index.num_rows == len(rows)
    assert truth.num_rows == len(listing.annotations)
    known = json.loads((folder / "annotations.json").read_text())
    assert len(known) >= 1
    assert source_stamp(config, split) == source_stamp(config, split)
    assert set(column_digests(index)) == set(index.column_names)


def test_classes_without_an_object_are_named_by_label(pack):
    listing = list_split(pack("busi_ultrasound"), "train")
    assert listing.objectless == (2,)
    assert listing.class_names == {0: "benign", 1: "malignant", 2: "normal"}


def test_original_sizes_are_refused_for_squashed_files(pack):
    config = pack("ilsvrc_val_acuity", files={"localization": "localization_stored227.txt"})
    rows = list_split(config, "val").rows[:3]
    scans = scan_rows(config.image_root(), rows, exif=config.exif, threads=1)
    with pytest.raises(ValueError, match=r"image_sizes.txt:1: ILSVRC2012_val_00000355.JPEG is 227x227 pixels"):
        check_listing(rows, scans, [])


def odd_files(shared):
    with (shared / "data" / "odd_files" / "files.csv").open(newline="") as file:
        return list(csv.DictReader(file))


#: What the reference reader said when it refused a file -> what our reason must begin with.
REASONS = {
    "UnidentifiedImageError": "not an image",
    "DecompressionBombError": "decompression bomb",
    "truncated": "truncated",
    "unrecognized data stream": "broken: unrecognized data stream",
}


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_odd_files_are_decoded_or_quarantined_with_their_reason(shared, tmp_path, describe, exif):
    folder = shared / "data" / "odd_files"
    config = describe(name="odd", layout="folder", root=str(folder / "images"), exif=exif)
    listing = list_split(config, "train")
    expected = {line["file"]: line for line in odd_files(shared)}
    assert {row.path for row in listing.rows} == set(expected)
    assert len(expected) == 31
    scans = scan_rows(config.image_root(), listing.rows, exif=config.exif, threads=2)
    for row, scan in zip(listing.rows, scans, strict=True):
        line = expected[row.path]
        assert scan.bytes == int(line["bytes"])
        if line["load"] != "ok":
            wanted = next(ours for theirs, ours in REASONS.items() if theirs in line["load"])
            assert scan.reason.startswith(wanted), (row.path, scan.reason)
            assert (scan.width, scan.height) == (0, 0)
            continue
        assert scan.reason == "", row.path
        orientation = int(line["exif_orientation"] or 1) if exif == "apply" else 1
        size = (int(line["w"]), int(line["h"]))
        assert scan.orientation == orientation, row.path
        assert (scan.width, scan.height) == (size[::-1] if orientation >= 5 else size), row.path
