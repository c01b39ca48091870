"""Stores that plain readers open: groups with named axes, boxes as tables, descriptions; and stores made before."""

from __future__ import annotations

import io
import json
import threading

import mlcroissant
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from e2e.toy import object_bytes
from stores import DATASET, build_store
from wsolpipe import open_store
from wsolpipe.contract.box_table import BOX_SCHEMA, box_table
from wsolpipe.contract.schema import ArraySpec, axis_names, boxes_spec
from wsolpipe.share.card import About
from wsolpipe.share.publish import publish
from wsolpipe.share.repair import repair
from wsolpipe.share.selection import Selection
from wsolpipe.share.verify import verify

ABOUT = About(DATASET, licence="CC0-1.0")
WANTED = Selection(dataset=DATASET, stages=("proposals", "cls_maps"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny store with rows of every status and label, and its published copy."""
    folder = tmp_path_factory.mktemp("open")
    tiny = build_store(folder, images=False, quarantined={17: "broken"}, no_object=(3,), unlabelled=(5,))
    give(tiny.url, folder / "published")
    return tiny, folder / "published"


def give(store, target, about=ABOUT):
    wanted = Selection(dataset=about.dataset) if about.dataset != DATASET else WANTED
    stop = threading.Event()
    return publish(str(store), str(target), wanted, about, jobs=2, emit=lambda event: None, stop=stop)


def age(store):
    """Make a store's metadata that of earlier versions: no group, no axis with a name but the first."""
    for path in store.glob("*/*/*/*/data.zarr/zarr.json"):
        path.unlink()
    for path in store.glob("*/*/*/*/data.zarr/*/zarr.json"):
        metadata = json.loads(path.read_bytes())
        metadata["dimension_names"] = ["row", *(None for _ in metadata["shape"][1:])]
        path.write_text(json.dumps(metadata, indent=2))


def metadata_of(store):
    return {path.relative_to(store): path.read_bytes() for path in store.glob("*/*/*/*/data.zarr/**/zarr.json")}


def test_axes_have_one_extent_a_name_and_unknown_ones_are_the_arrays_own():
    specs = {
        "boxes": boxes_spec(10, ""), "scores": ArraySpec(dtype="float32", shape=(10,)),
        "mean": ArraySpec(dtype="uint8"),
        "maps": ArraySpec(dtype="uint8", shape=(5, 14, 14)), "masks": ArraySpec(dtype="uint8", shape=(28, 14)),
        "source": ArraySpec(dtype="int8", shape=(9,)), "tokens": ArraySpec(dtype="float32", shape=(3, 8)),
        "range": ArraySpec(dtype="float32", shape=(5, 3, 2)),
    }  # fmt: skip
    named = axis_names(specs)
    assert named == {
        "boxes": ("row", "box", "edge"), "scores": ("row", "box"), "mean": ("row",), "maps": ("row", "map", "y", "x"),
        "masks": ("row", "masks_1", "x"), "source": ("row", "source_1"), "tokens": ("row", "tokens_1", "tokens_2"),
        "range": ("row", "range_1", "range_2", "range_3"),
    }  # fmt: skip


def test_plain_zarr_opens_data_zarr_as_a_group_and_makes_nothing(made):
    tiny, _ = made
    view = open_store(tiny.url)[DATASET]["train"]["proposals"]
    before = object_bytes_of(tiny.url)
    group = zarr.open(f"{tiny.url}/{view.folder}/data.zarr", mode="r")
    assert sorted(group.array_keys()) == ["boxes", "count", "scores", "source", "status"]
    assert group.metadata.consolidated_metadata is not None
    assert dict(group.attrs) == {"dataset": DATASET, "split": "train", "stage": "proposals", "key": view.key}
    assert group["boxes"].metadata.dimension_names == ("row", "box", "edge")
    np.testing.assert_array_equal(group["boxes"][:], view["boxes"][:])
    assert object_bytes_of(tiny.url) == before


def object_bytes_of(url):
    from pathlib import Path

    return {path: path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}


def test_the_table_of_boxes_holds_every_box_and_no_other(made):
    tiny, published = made
    view = open_store(tiny.url)[DATASET]["train"]["proposals"]
    table = pq.read_table(io.BytesIO(box_table(view)))
    assert table.schema.equals(BOX_SCHEMA)
    (path,) = published.glob("*/train/proposals/*/boxes.parquet")
    assert pq.read_table(path).equals(table)
    boxes, scores, source = (view[name][:] for name in ("boxes", "scores", "source"))
    wanted = [(row, rank) for row in range(40) for rank in range(4) if not np.isnan(boxes[row, rank]).any()]
    lines = table.to_pylist()
    assert [(line["row"], line["rank"]) for line in lines] == wanted
    assert {3, 17}.isdisjoint(row for row, _ in wanted)
    for line in lines:
        row, rank = line["row"], line["rank"]
        assert [line["x0"], line["y0"], line["x1"], line["y1"]] == boxes[row, rank].tolist()
        assert (line["score"], line["source"]) == (scores[row, rank], source[row, rank])
        label = None if row == 5 else tiny.labels[row]
        assert (line["label"], line["name"]) == (label, None if label is None else f"class {label}")
        assert line["image_id"] == line["path"] == tiny.paths[row]


def test_croissant_gives_boxes_as_records_and_every_column_of_the_index(made, caplog):
    tiny, published = made
    described = mlcroissant.Dataset(jsonld=str(published / DATASET / "croissant.json"))
    assert not described.metadata.issues.errors
    assert not described.metadata.issues.warnings
    records = {record.id: record for record in described.metadata.record_sets}
    (boxes,) = [name for name in records if name.endswith("-boxes")]
    found = list(described.records(boxes))
    (path,) = published.glob("*/train/proposals/*/boxes.parquet")
    assert [item[f"{boxes}/x1"] for item in found] == pq.read_table(path).column("x1").to_pylist()
    (index,) = [name for name in records if name.startswith("train-index")]
    rows = list(described.records(index))
    assert [list(row[f"{index}/labels"]) for row in rows] == [
        [] if at == 5 else [label] for at, label in enumerate(tiny.labels)
    ]  # noqa: E501
    assert len(records[index].fields) == 12


def test_the_address_is_never_a_path_of_this_machine(made, tmp_path):
    tiny, published = made
    text = (published / DATASET / "croissant.json").read_text() + (published / DATASET / "README.md").read_text()
    assert str(published) not in text
    assert '"url":' not in text
    give(tiny.url, tmp_path / "other", About(DATASET, licence="CC0-1.0", url="https://example.org/tiny"))
    assert (
        json.loads((tmp_path / "other" / DATASET / "croissant.json").read_text())["url"] == "https://example.org/tiny"
    )


def test_a_store_made_before_is_whole_and_done_and_repair_gives_it_groups_without_computing(done):
    bench, before = done
    new, keys = metadata_of(bench.store), bench.keys()
    age(bench.store)
    store = open_store(str(bench.store))
    assert list(verify(store)) == []
    assert bench.go().code == 0
    assert bench.made() == []
    assert bench.keys() == keys
    mended = repair(store)
    assert {problem.kind for problem, _ in mended} == {"outdated"}
    assert len(mended) == 2  # shade and frame
    assert metadata_of(bench.store) == new
    assert object_bytes(bench.store) == before
    assert repair(store) == []


def test_publishing_from_and_over_a_store_made_before_gives_groups(team):
    give(team.source, team.target, About("toy", licence="CC0-1.0"))
    wanted = metadata_of(team.target)
    for old in (team.source, team.target):
        age(old)
    give(team.source, team.target, About("toy", licence="CC0-1.0"))
    assert metadata_of(team.target) == wanted
    assert list(verify(open_store(str(team.target)))) == []


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data.replace(b"72", b"73"), lambda data: b"[1]",
     lambda data: data.replace(b'"group"', b'"array"')],
    ids=["empty", "other rows", "no object", "no group"],
)  # fmt: skip
def test_a_damaged_group_is_found_and_written_again(done, damage):
    bench, _ = done
    (path,) = bench.store.glob("toy/train/shade/*/data.zarr/zarr.json")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    store = open_store(str(bench.store))
    (problem,) = verify(store)
    assert (problem.kind, problem.text) == ("metadata", "data.zarr/zarr.json does not agree with the manifest")
    assert [text for _, text in repair(store)] == ["written again from the manifest"]
    assert path.read_bytes() == good


@pytest.mark.parametrize("names", [["row"], ["line", "map", "y", "x"], ["row", 1, "y", "x"], "rows"])
def test_axes_that_no_reader_understands_are_damage(done, names):
    bench, _ = done
    (path,) = bench.store.glob("toy/train/shade/*/data.zarr/maps/zarr.json")
    good = path.read_bytes()
    path.write_text(json.dumps({**json.loads(good), "dimension_names": names}))
    store = open_store(str(bench.store))
    assert [problem.kind for problem in verify(store)] == ["metadata"]
    repair(store)
    assert path.read_bytes() == good
