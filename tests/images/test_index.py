"""From listing and files to tables: order is kept, files are checked, digests say what changed and nothing else."""

from __future__ import annotations

import hashlib
import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from whole_index import build_tables, check_listing, scan_rows
from wsolpipe.contract.errors import DataError
from wsolpipe.contract.schema import INDEX_COLUMNS
from wsolpipe.images.index import list_split, order_rows
from wsolpipe.images.index_tables import (
    ANNOTATION_SCHEMA,
    INDEX_SCHEMA,
    column_digests,
    read_parquet,
    rows_digest,
    write_parquet,
    write_parts,
)
from wsolpipe.images.listing import Annotation, ListedRow, Listing
from wsolpipe.images.scan import Scan

GOOD = Scan(100, "ab", 12, 10, 1)


NAMES = st.text("abcdef", min_size=1, max_size=3)


def listing_of(*ids):
    return Listing([ListedRow(name, name) for name in ids])


def test_a_rebuild_keeps_known_rows_in_place_and_appends_new_ones_sorted():
    rows = order_rows(listing_of("a", "b", "c", "d", "e"), listing_of("d", "b").rows)
    assert [row.image_id for row in rows] == ["d", "b", "a", "c", "e"]
    assert [row.reason for row in rows] == [""] * 5


def test_a_row_that_left_keeps_its_place_path_and_labels_and_is_retired(tmp_path):
    rows = order_rows(listing_of("a", "c"), [ListedRow("a", "pa"), ListedRow("b", "pb", (2,))])
    assert [(row.image_id, row.path, row.labels, row.reason) for row in rows] == [
        ("a", "a", (), ""),
        ("b", "pb", (2,), "no longer listed"),
        ("c", "c", (), ""),
    ]
    scans = scan_rows(tmp_path, rows, exif="apply", threads=1)
    assert [scan.reason for scan in scans] == ["missing file", "no longer listed", "missing file"]


def test_a_first_index_is_in_the_order_of_the_listing():
    assert [row.image_id for row in order_rows(listing_of("a", "b"), [])] == ["a", "b"]


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True), st.sets(st.text("abcdef", min_size=1, max_size=3))
)
def test_rebuilding_twice_changes_nothing(previous, current):
    rows = order_rows(listing_of(*sorted(current)), listing_of(*previous).rows)
    assert [row.image_id for row in rows[: len(previous)]] == previous
    assert {row.image_id for row in rows} == set(previous) | current
    again = order_rows(listing_of(*sorted(current)), rows)
    assert [row[0] for row in again] == [row[0] for row in rows]
    assert [row.reason for row in again] == [row.reason for row in rows]


def test_a_scan_is_the_same_with_any_number_of_threads_and_survives_bad_files(tiny, tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True, exist_ok=True)
    config = tiny()
    (tmp_path / "images" / "a" / "1.png").write_bytes(b"not an image")
    (tmp_path / "images" / "a" / "2.png").unlink()
    (tmp_path / "images" / "a" / "2.png").mkdir()
    rows = list_split(config, "train").rows
    scans = scan_rows(config.image_root(), rows, exif="ignore", threads=1)
    assert scans == scan_rows(config.image_root(), rows, exif="ignore", threads=4)
    assert [scan.reason for scan in scans] == ["", "not an image", "unreadable file: Is a directory", ""]
    assert (scans[0].width, scans[0].height, scans[0].orientation) == (12, 10, 1)
    assert len(scans[0].sha256) == 64
    assert scans[1].bytes == 12
    assert len(scans[1].sha256) == 64


def test_a_size_that_disagrees_with_the_file_is_named_with_its_line():
    rows = [
        ListedRow("a", "a.png", (), 12, 10, "image_sizes.txt:1"),
        ListedRow("b", "b.png", (), 12, 11, "image_sizes.txt:2"),
    ]
    with pytest.raises(DataError) as caught:
        check_listing(rows, [GOOD, GOOD], [])
    assert "image_sizes.txt:2: b.png is 12x10 pixels, not 12x11" in str(caught.value)
    assert "image_sizes.txt:1" not in str(caught.value)
    assert "image_sizes: null" in str(caught.value)


def test_a_size_given_for_the_stored_sideways_image_gets_a_hint():
    rows = [ListedRow("a", "a.jpg", (), 10, 12, "image_sizes.txt:1")]
    with pytest.raises(DataError, match="stored sideways: exif: ignore"):
        check_listing(rows, [Scan(1, "", 12, 10, 6)], [])


def test_boxes_are_clipped_and_counted_or_refused_where_they_lie_outside():
    rows = [ListedRow("a", "a"), ListedRow("b", "b")]
    scans = [GOOD, Scan(1, "", 0, 0, 1, "truncated: x")]
    inside, over = Annotation("a", "box", 0, 0, 12, 10, "", "l:1"), Annotation("a", "box", -1, 2, 13, 4, "", "l:2")
    lost = Annotation("b", "box", 500, 500, 600, 600, "", "l:3")
    mask = Annotation("a", "mask", path="m.png", where="l:4")
    checked = check_listing(rows, scans, [inside, over, lost, mask])
    assert checked.clipped == 1
    assert checked.annotations == [inside, over._replace(x0=0, x1=12), lost, mask]
    for box in ((12, 0, 14, 5), (-4, 0, 0, 5), (0, 10, 5, 12), (0, -3, 5, 0)):
        with pytest.raises(DataError, match=r"l:9: box \(.*\) lies wholly outside a, 12x10 pixels"):
            check_listing(rows, scans, [Annotation("a", "box", *box, "", "l:9")])


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_an_image_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (scan,) = scan_rows(tmp_path, [ListedRow("a", "a.jpg")], exif="apply")
    assert scan.reason == "is not a regular file"


def test_an_annotation_of_no_row_is_named():
    with pytest.raises(DataError, match="l:1: 'z' is not an image of this split"):
        check_listing([ListedRow("a", "a")], [GOOD], [Annotation("z", "box", 0, 0, 1, 1, "", "l:1")])


def make_tables():
    rows = [
        ListedRow("b", "x/b.jpg", (3, 1), group="g", frame=0),
        ListedRow("a", "x/a.jpg", ()),
        ListedRow("ü", "x/ü.jpg", (2,), reason="no longer listed"),
    ]
    scans = [GOOD, Scan(7, "cd", 5, 6, 8), Scan(0, "", 0, 0, 1, "no longer listed")]
    truth = [
        Annotation("a", "box", 1, 2, 3, 4.5),
        Annotation("b", "mask", path="m.png"),
        Annotation("b", "box", 0, 0, 1, 1),
    ]
    return build_tables(rows, scans, truth)


def test_tables_have_the_published_columns_and_rows_in_order():
    index, truth = make_tables()
    assert tuple(index.column_names) == INDEX_COLUMNS
    assert index.schema.equals(INDEX_SCHEMA)
    assert truth.schema.equals(ANNOTATION_SCHEMA)
    assert index.column("row").to_pylist() == [0, 1, 2]
    assert index.column("labels").to_pylist() == [[3, 1], [], [2]]
    assert index.column("frame").to_pylist() == [0, None, None]
    assert index.column("reason").to_pylist() == ["", "", "no longer listed"]
    assert list(zip(truth.column("row").to_pylist(), truth.column("kind").to_pylist(), strict=True)) == [
        (0, "mask"),
        (0, "box"),
        (1, "box"),
    ]


def test_a_split_without_ground_truth_has_an_empty_table_of_it():
    _, truth = build_tables([ListedRow("a", "a")], [GOOD], [])
    assert truth.num_rows == 0
    assert read_parquet(write_parquet(truth)).schema.names == ANNOTATION_SCHEMA.names


def test_parquet_bytes_repeat_and_read_back_the_same():
    index, truth = make_tables()
    for table in (index, truth):
        data = write_parquet(table)
        assert data == write_parquet(pa.concat_tables([table.slice(0, 1), table.slice(1)]))
        back = read_parquet(data)
        assert back.to_pylist() == table.to_pylist()
        assert column_digests(back) == column_digests(table)
        assert pq.read_metadata(io.BytesIO(data)).metadata is None


def test_row_groups_hold_a_shard():
    rows = [ListedRow(f"{n:05d}", "p") for n in range(5000)]
    index, _ = build_tables(rows, [GOOD] * 5000, [])
    data = write_parquet(index)
    layout = pq.read_metadata(io.BytesIO(data))
    assert [layout.row_group(n).num_rows for n in range(layout.num_row_groups)] == [4096, 904]
    assert write_parts([index.slice(0, 4096), index.slice(4096)], index.schema) == data


def test_digests_follow_values_and_order_only():
    index, _ = make_tables()
    whole = column_digests(index)
    assert set(whole) == set(INDEX_COLUMNS)
    chunked = pa.concat_tables([index.slice(0, 2), index.slice(2, 1)])
    assert column_digests(chunked) == whole
    padded = pa.concat_tables([index, index]).slice(3, 3)
    assert column_digests(padded) == whole
    wide = index.set_column(4, "width", index.column("width").cast(pa.int64()))
    assert column_digests(wide) == whole
    large = index.set_column(1, "image_id", index.column("image_id").cast(pa.large_string()))
    assert column_digests(large) == whole
    turned = index.take([1, 0, 2])
    assert column_digests(turned)["image_id"] != whole["image_id"]


def test_digests_tell_apart_what_looks_alike():
    def one(values, kind):
        return column_digests(pa.table({"c": pa.array(values, kind)}))["c"]

    text, lists, number = pa.string(), pa.list_(pa.int32()), pa.int32()
    for alike in (
        [(["ab", "c"], text), (["a", "bc"], text), (["abc", ""], text), (["abc", None], text)],
        [([[1, 2], [3]], lists), ([[1], [2, 3]], lists), ([[1, 2, 3], []], lists), ([[1, 2, 3], None], lists)],
        [([0, 1], number), ([None, 1], number), ([0, 1, 0], number)],
        [([0.0, 1.0], pa.float64()), ([0, 1], number), (["0", "1"], text)],
    ):
        assert len({one(*item) for item in alike}) == len(alike)


def test_the_digest_of_rows_is_that_of_their_slice_and_columns():
    index, _ = make_tables()
    first = rows_digest(index.slice(0, 2), ["sha256", "labels"])
    assert first == rows_digest(index.slice(0, 2), ["labels", "sha256"])
    assert first == rows_digest(pa.concat_tables([index.slice(1), index]).slice(2, 2), ["labels", "sha256"])
    assert first != rows_digest(index.slice(1, 2), ["labels", "sha256"])
    assert first != rows_digest(index.slice(0, 2), ["labels"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4), max_size=8), st.integers(0, 8), st.data())
def test_a_slice_digests_like_a_copy_of_itself(values, start, data):
    def table_of(rows):
        texts = [str(row) for row in rows]
        return pa.table({"c": pa.array(rows, pa.list_(pa.int32())), "t": pa.array(texts, pa.string())})

    part = table_of(values).slice(min(start, len(values)), data.draw(st.integers(0, 8)))
    copy = table_of(part["c"].to_pylist())
    assert column_digests(part) == column_digests(copy)


def test_digests_do_not_visit_values_one_by_one():
    import time

    count = 100_000
    table = pa.table(
        {
            "sha256": pa.array([f"{n:064x}" for n in range(count)]),
            "labels": pa.array([[n % 1000] for n in range(count)], pa.list_(pa.int32())),
            "width": pa.array(np.full(count, 500), pa.int32()),
        }
    )

    def value_by_value(table):
        for name in table.column_names:
            hasher = hashlib.sha256()
            for value in table.column(name).to_pylist():
                hasher.update(repr(value).encode())

    def least(work):
        spent = []
        for _ in range(5):
            started = time.thread_time()
            work(table)
            spent.append(time.thread_time() - started)
        return min(spent)

    assert least(column_digests) < least(value_by_value) / 2


def test_exif_decides_whether_boxes_fit_upright_or_stored_pixels(tmp_path, describe):
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.jpg", exif=exif)
    (tmp_path / "image_ids.txt").write_text("a.jpg")
    (tmp_path / "localization.txt").write_text("a.jpg,25,1,29,18\n")
    for how, size in (("ignore", (30, 20, 1)), ("apply", (20, 30, 6))):
        config = describe(exif=how)
        listing = list_split(config, "train")
        scans = scan_rows(config.image_root(), listing.rows, exif=config.exif, threads=1)
        assert (scans[0].width, scans[0].height, scans[0].orientation) == size
        if how == "ignore":
            assert check_listing(listing.rows, scans, listing.annotations).clipped == 0
        else:
            with pytest.raises(DataError, match="wholly outside a.jpg, 20x30"):
                check_listing(listing.rows, scans, listing.annotations)
