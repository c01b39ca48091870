"""Stores made to do harm: whatever they say is refused or harmless, and nothing lands outside the target."""

from __future__ import annotations

import io
import json
import os
import pickle

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wsolpipe import open_store
from wsolpipe.contract.layout import sha256_bytes
from wsolpipe.images.index_tables import column_digests, read_parquet, write_parquet
from wsolpipe.share.verify import verify


def edit(path, change):
    """Change a JSON file in place."""
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields))


@pytest.fixture
def shade(team, done):
    return team.source / done[0].nodes()["shade"].folder


@pytest.fixture
def palette(team, done):
    return team.source / done[0].nodes()["palette"].folder


@pytest.fixture
def index(team):
    (manifest,) = team.source.glob("toy/train/index/*/manifest.json")
    return manifest.parent


def put(folder, array, shard, data):
    """Other bytes for a shard, with a record that agrees with them."""
    path = folder / "data.zarr" / array / "c" / str(shard)
    path.write_bytes(data)
    stored = {"sha256": sha256_bytes(data), "bytes": len(data)}
    edit(folder / "commits" / f"{shard}.json", lambda record: record["objects"].update({array: stored}))


def write_table(index, name, data, digests=None):
    """Other bytes for a table of the index, with a manifest that agrees with them."""
    (index / name).write_bytes(data)

    def change(manifest):
        manifest["objects"][name] = {"sha256": sha256_bytes(data), "bytes": len(data)}
        manifest["digests"].update(digests or {})

    edit(index / "manifest.json", change)


def refused(team, says, *, count=1, **choice):
    """Pull, and find exactly `count` things refused because of `says`; what came is whole, and all that is there."""
    moved = team.pull(**choice)
    assert len(moved.refused) == count, moved.refused
    assert all(says in text for text in moved.refused), moved.refused
    if team.target.exists():
        assert list(verify(open_store(str(team.target)))) == []
    nothing_outside(team)
    return moved


def nothing_outside(team):
    known = {"images", "package", "scratch", "store", "theirs", "toy.yaml", "log.jsonl", "secret", "cache", "elsewhere"}
    assert {path.name for path in team.source.parent.iterdir()} <= known
    for path in team.target.rglob("*"):
        assert not path.is_symlink()
        assert ".." not in path.name


@pytest.mark.parametrize("name", ["../../../../secret", "/etc/cron.d/x", "..", "a/../../b", ".hidden", "a\\b", ""])
def test_a_file_name_that_leaves_the_store(team, palette, name):
    def change(record):
        record["objects"] = {name: next(iter(record["objects"].values()))}

    edit(palette / "commits/artifact.json", change)
    refused(team, "cannot name a folder", stages=("palette",))


@pytest.mark.parametrize("name", ["../../../secret", "/etc/x", "a/b", ".."])
def test_an_array_name_that_leaves_the_store(team, shade, name):
    def change(manifest):
        manifest["arrays"][name] = manifest["arrays"].pop("mean")

    edit(shade / "manifest.json", change)
    refused(team, "cannot name a folder", stages=("shade",))


@pytest.mark.parametrize("field", ["dataset", "split", "stage", "key"])
def test_a_manifest_that_speaks_of_another_place(team, shade, field):
    edit(shade / "manifest.json", lambda manifest: manifest.update({field: "../elsewhere"}))
    refused(team, "names", stages=("shade",))


def test_a_key_that_is_not_made_of_its_fingerprint(team, shade):
    edit(shade / "manifest.json", lambda manifest: manifest.update(fingerprint="0" * 64))
    refused(team, "does not belong to fingerprint", stages=("shade",))


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "a/../../secret"])
@pytest.mark.parametrize("name", ["index.parquet", "annotations.parquet"])
def test_an_image_path_that_leaves_the_folder_of_images(team, index, path, name):
    """With digests that agree, so that only the path gives it away."""
    table = read_parquet((index / name).read_bytes())
    if name == "annotations.parquet":
        row = {"row": 0, "image_id": "x", "kind": "mask", "x0": 0.0, "y0": 0.0, "x1": 0.0, "y1": 0.0, "path": path}
        table = pa.Table.from_pylist([row], schema=table.schema)
    else:
        paths = [path, *table.column("path").to_pylist()[1:]]
        table = table.set_column(table.schema.get_field_index("path"), "path", pa.array(paths))
    write_table(index, name, write_parquet(table), {} if name == "annotations.parquet" else column_digests(table))
    refused(team, "leaves the folder of images", stages=("index",))


@pytest.mark.parametrize("name", ["index.parquet", "annotations.parquet"])
@pytest.mark.parametrize("bomb", ["a long cell in many rows", "many rows"])
def test_tables_that_unpack_to_gigabytes_are_refused_before_they_do(team, index, name, bomb):
    """4 kB of a giver took 6.4 GB here, and 1.2 MB 2.2 GB."""
    table = read_parquet((index / name).read_bytes())
    if bomb == "many rows":
        rows = 10_000_000
        columns = {field.name: pa.nulls(rows, field.type) for field in table.schema}
    else:
        rows = 137
        columns = {field.name: pa.nulls(rows, field.type) for field in table.schema}
        columns["path"] = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 4_000_000])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", store_schema=False)
    write_table(index, name, sink.getvalue())
    refused(team, "would unpack to", stages=("index",))


def test_an_index_whose_columns_are_not_those_of_its_manifest(team, index):
    edit(index / "manifest.json", lambda manifest: manifest["digests"].update(labels="0" * 64))
    refused(team, "does not have the digests", stages=("index",))


def test_tables_that_are_no_parquet(team, index):
    write_table(index, "index.parquet", b"PAR1" + pickle.dumps(print) + b"PAR1")
    refused(team, "cannot be decoded", stages=("index",))


def test_a_symbolic_link_to_a_file_of_this_machine(team, shade):
    """Even one whose bytes are those recorded: what it points to may change between two looks."""
    path = shade / "data.zarr/mean/c/2"
    outside = team.source.parent / "secret"
    path.rename(outside)
    path.symlink_to(outside)
    refused(team, "symbolic link", stages=("shade",))


def test_a_symbolic_link_in_place_of_a_folder(team, shade):
    outside = team.source.parent / "elsewhere"
    (shade / "data.zarr").rename(outside)
    (shade / "data.zarr").symlink_to(outside)
    refused(team, "symbolic link", count=5, stages=("shade",))


def test_a_changed_byte(team, shade):
    path = shade / "data.zarr/mean/c/3"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    moved = refused(team, "other bytes than recorded", stages=("shade",))
    assert [line.moved for line in moved.lines if line.stage == "shade"] == [4]


def test_a_record_of_another_shard(team, shade):
    (shade / "commits/0.json").write_bytes((shade / "commits/1.json").read_bytes())
    refused(team, "names shard 1", stages=("shade",))


def test_records_of_shards_that_are_none(team, shade):
    good = (shade / "commits/0.json").read_bytes()
    for name in ("99999999999999999999.json", "-1.json", "x.json", "5.json"):
        (shade / "commits" / name).write_bytes(good)
    assert team.pull(stages=("shade",)).refused == []
    assert sorted(path.name for path in team.target.glob("toy/train/shade/*/commits/*")) == [
        f"{n}.json" for n in range(5)
    ]


@pytest.mark.parametrize("dtype", ["object", "O", "U100", "datetime64[ns]", "V8", "complex128", "<script>", "float65"])
def test_types_that_are_no_plain_numbers(team, shade, dtype):
    edit(shade / "manifest.json", lambda manifest: manifest["arrays"]["mean"].update(dtype=dtype))
    refused(team, "only plain numbers", stages=("shade",))


def test_a_type_that_the_bytes_are_not_of(team, shade):
    edit(shade / "manifest.json", lambda manifest: manifest["arrays"]["mean"].update(dtype="float64"))
    refused(team, "as its type and shape require", count=5, stages=("shade",))


@pytest.mark.parametrize("shape", [[10**12], [0], [-1], [1] * 9, [10**9, 10**9], [6000, 6000]])
def test_absurd_shapes(team, shade, shape):
    edit(shade / "manifest.json", lambda manifest: manifest["arrays"]["mean"].update(shape=shape))
    refused(team, "array mean", stages=("shade",))


@pytest.mark.parametrize("level", [10**9, -(10**9), "zstd"])
def test_absurd_levels_of_compression(team, shade, level):
    edit(shade / "manifest.json", lambda manifest: manifest["arrays"]["mean"].update(level=level))
    refused(team, "arrays.mean.level")


@pytest.mark.parametrize(
    ("rows", "shard_rows"), [(72, 0), (72, -16), (10**15, 16), (-1, 16), (72, 10**15), (10**12, 1)]
)
def test_absurd_rows_and_shards(team, shade, rows, shard_rows):
    edit(shade / "manifest.json", lambda manifest: manifest.update(rows=rows, shard_rows=shard_rows))
    refused(team, "manifest.json", stages=("shade",))


def test_a_chunk_that_unpacks_to_gigabytes(team, shade):
    """A zstd frame of a few bytes that says it holds 16 GiB, where the record agrees with its digest."""
    path = shade / "data.zarr/mean/c/1"
    good = path.read_bytes()
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + (16 * 2**30).to_bytes(8, "little") + b"\x01\x00\x00"
    table = np.frombuffer(good, "<u8", 2, len(good) - 20).copy()
    table[:] = (0, len(frame))
    put(shade, "mean", 1, frame + table.tobytes() + google_crc32c.value(table.tobytes()).to_bytes(4, "little"))
    refused(team, "as its type and shape require", stages=("shade",))


@pytest.mark.parametrize(
    "data", [b"", b"short", pickle.dumps(print) * 40, b"\xff" * 64], ids=["empty", "short", "pickle", "ones"]
)
def test_bytes_that_are_no_shard(team, shade, data):
    put(shade, "mean", 1, data)
    refused(team, "mean", stages=("shade",))


@pytest.mark.parametrize("name", ["manifest.json", "commits/2.json"])
def test_a_manifest_or_record_of_a_gigabyte(team, shade, name):
    with (shade / name).open("r+b") as file:
        file.truncate(2**30)  # sparse: only its size is real
    refused(team, "over the", stages=("shade",) if name != "manifest.json" else ())


@pytest.mark.parametrize("content", [b"[" * 10**6, b"{}", b"null", b'{"schema_version": "1"}', b"\x80\x04pickle"])
def test_records_that_are_no_json_of_ours(team, shade, content):
    (shade / "commits/2.json").write_bytes(content)
    refused(team, "commits/2.json", stages=("shade",))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a b", "\N{BELL}", "café", "-x"])
def test_html_and_other_odd_names_of_folders(team, shade, name):
    os.makedirs(team.source / "toy" / "train" / name.replace("/", "_") / "0000")  # noqa: PTH103
    moved = team.pull()
    assert moved.refused == []
    assert moved.skipped == [f"toy/train/{name.replace('/', '_')}"]
    assert {line.moved for line in moved.lines if line.stage == "shade"} == {5}
    nothing_outside(team)


def test_array_metadata_is_written_anew_and_never_taken_over(team, shade):
    """A source whose zarr.json asks for other codecs, types or sizes changes nothing."""
    path = shade / "data.zarr/mean/zarr.json"
    good = path.read_bytes()
    edit(path, lambda meta: meta.update(shape=[10**12], data_type="string", codecs=[{"name": "numcodecs.pickle"}]))
    assert team.pull(stages=("shade",)).refused == []
    (arrived,) = team.target.glob("toy/train/shade/*/data.zarr/mean/zarr.json")
    assert arrived.read_bytes() == good


@pytest.mark.parametrize(
    "change",
    [
        {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
        {"data_type": "string", "fill_value": ""},
        {"shape": [10**12]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**12]}}},
        None,
    ],
    ids=["pickled objects", "strings", "shape", "chunks", "no JSON"],
)
def test_a_store_read_in_place_is_read_as_its_manifest_says_and_never_as_its_zarr_metadata(team, shade, change):
    path = shade / "data.zarr/mean/zarr.json"
    wanted = open_store(str(team.source))["toy"]["train"]["shade"]["mean"][:]
    if change is None:
        path.write_text("[" * 100_000)
    else:
        edit(path, lambda meta: meta.update(change))
    np.testing.assert_array_equal(open_store(str(team.source))["toy"]["train"]["shade"]["mean"][:], wanted)
    (problem,) = verify(open_store(str(team.source)))
    assert problem.kind == "metadata"


def test_text_of_a_manifest_is_kept_as_text(team, shade):
    text = "<script>alert(1)</script>"
    edit(shade / "manifest.json", lambda manifest: manifest.update(title=text, licence=text))
    assert team.pull(stages=("shade",)).refused == []
    assert open_store(str(team.target))["toy"]["train"]["shade"].manifest.title == text
