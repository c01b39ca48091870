"""What is believed is checked: objects against their records, tables against their manifest, sizes against bounds."""

from __future__ import annotations

import logging
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stores import INDEX_KEY, MAPS_KEY, build_store, write_stage, write_table
from wsolpipe import open_store
from wsolpipe.contract import views
from wsolpipe.contract.backends import filesystem
from wsolpipe.contract.errors import NotFoundError, StoreError, TornShardError
from wsolpipe.contract.manifest import StageManifest
from wsolpipe.contract.verified import Verified
from wsolpipe.contract.views import warn_of_unfinished


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLPIPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path):
    return build_store(tmp_path, rows=40, images=False)


def split_of(tiny):
    return open_store(tiny.url)["tiny"]["train"]


def shard(tiny, array, number):
    base = next(Path(tiny.url).glob(f"tiny/train/*/*/data.zarr/{array}/c/{number}"))
    return base if base.is_file() else next(path for path in base.rglob("*") if path.is_file())


def exchange(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def age(monkeypatch):
    """Let files of this moment count as old, as those of any real store are."""
    monkeypatch.setattr(filesystem, "SETTLED", -1)


@pytest.mark.parametrize(("stage", "array"), [("cls_maps", "maps"), ("proposals", "scores"), ("proposals", "boxes")])
@pytest.mark.parametrize("index", [0, slice(None), [3, 17], slice(39, None, -3)], ids=str)
def test_exchanged_shards_are_torn_though_every_chunk_is_whole(tiny, stage, array, index):
    exchange(shard(tiny, array, 0), shard(tiny, array, 1))
    view = split_of(tiny)[stage]
    with pytest.raises(TornShardError, match="recorded") as caught:
        view[array][index]
    assert "wsolpipe repair" in str(caught.value.hint)
    view[array][32:]  # the third shard is as it was


def test_shards_that_are_exchanged_after_they_were_verified_are_found_in_this_process_and_the_next(tiny, monkeypatch):
    age(monkeypatch)
    view = split_of(tiny)["cls_maps"]
    view["maps"][:]
    exchange(shard(tiny, "maps", 0), shard(tiny, "maps", 1))
    for again in (view, split_of(tiny)["cls_maps"]):
        with pytest.raises(TornShardError, match="recorded"):
            again["maps"][:]


def count_hashing(monkeypatch):
    """Names of the objects that are hashed from now on."""
    hashed = []
    verify = Verified._verify

    def counted(self, name, stored, act):
        verify(self, name, stored, lambda: hashed.append(name) or act())

    monkeypatch.setattr(Verified, "_verify", counted)
    return hashed


def test_an_object_is_hashed_once_and_its_note_serves_other_processes(tiny, monkeypatch, tmp_path):
    age(monkeypatch)
    hashed = count_hashing(monkeypatch)
    view = split_of(tiny)["cls_maps"]
    for _ in range(2):
        view["maps"][:]
        view["maps"][3:9]
    assert len(hashed) == len(view.shards)
    again = split_of(tiny)["cls_maps"]
    np.testing.assert_array_equal(again["maps"][:], tiny.maps)
    assert len(hashed) == len(view.shards)
    shutil.rmtree(tmp_path / "cache")  # safe to lose
    split_of(tiny)["cls_maps"]["maps"][:]
    assert len(hashed) == 2 * len(view.shards)


def test_notes_that_were_cut_or_changed_cost_time_and_are_never_believed(tiny, monkeypatch, tmp_path):
    age(monkeypatch)
    split_of(tiny)["cls_maps"]["maps"][:]
    (notes,) = (tmp_path / "cache" / "verified").iterdir()
    whole, hashed = notes.read_bytes(), count_hashing(monkeypatch)
    draw = random.Random(0)
    for data in (b"", whole[:-30], bytes(draw.randbytes(500)), whole.replace(b" ", b"  "), b"\xff" + whole):
        notes.write_bytes(data)
        view = split_of(tiny)["cls_maps"]
        np.testing.assert_array_equal(view["maps"][:], tiny.maps)
    assert hashed
    notes.write_bytes(whole)
    exchange(shard(tiny, "maps", 0), shard(tiny, "maps", 1))
    with pytest.raises(TornShardError):
        split_of(tiny)["cls_maps"]["maps"][:]


def test_a_file_that_has_just_changed_is_not_noted_since_its_times_could_hide_another_change(tiny, tmp_path):
    split_of(tiny)["cls_maps"]["maps"][:]
    assert not (tmp_path / "cache" / "verified").exists()


def test_notes_of_one_store_say_nothing_of_a_copy(tiny, monkeypatch, tmp_path):
    age(monkeypatch)
    split_of(tiny)["cls_maps"]["maps"][:]
    copy = tmp_path / "copy"
    shutil.copytree(tiny.url, copy)
    other = replace(tiny, url=str(copy))
    exchange(shard(other, "maps", 0), shard(other, "maps", 1))
    with pytest.raises(TornShardError):
        open_store(str(copy))["tiny"]["train"]["cls_maps"]["maps"][:]


@pytest.mark.parametrize("name", ["index.parquet", "annotations.parquet"])
def test_a_flipped_bit_anywhere_in_a_table_of_the_index_is_found(tiny, name):
    path = Path(tiny.url) / "tiny" / "train" / "index" / INDEX_KEY / name
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        index = split_of(tiny).index()
        with pytest.raises(TornShardError, match=f"{name} has other bytes than recorded"):
            index.table(["row"]) if name == "index.parquet" else index.annotations()


def test_a_table_of_another_size_or_none_is_named(tiny):
    path = Path(tiny.url) / "tiny" / "train" / "index" / INDEX_KEY / "annotations.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(TornShardError, match="annotations.parquet has .* bytes, .* are recorded"):
        split_of(tiny).index().annotations()
    path.unlink()
    with pytest.raises(TornShardError, match="annotations.parquet is missing"):
        split_of(tiny).index().annotations()


BOMBS = {
    "a long cell in many rows": lambda: {
        "row": range(300), "path": pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), ["x" * 10**6])
    },
    "many rows of one value": lambda: {"row": pa.array(np.zeros(20_000_000, np.int64))},
    "many rows of nothing": lambda: {"row": pa.nulls(2 * 10**7, pa.int64()), "path": pa.nulls(2 * 10**7, pa.string())},
    "a long list": lambda: {"row": [0], "labels": pa.array([np.zeros(20_000_000, np.int32)])},
    "one huge cell": lambda: {"row": [0], "path": ["x" * 10**8]},
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_table_that_would_unpack_to_far_more_than_its_size_is_refused_before_it_is(tiny, bomb):
    folder = Path(tiny.url) / "tiny" / "train" / "index" / INDEX_KEY
    write_table(folder, "annotations.parquet", pa.table(BOMBS[bomb]()))
    assert (folder / "annotations.parquet").stat().st_size < 1_100_000
    with pytest.raises(StoreError, match="would unpack to .* and more; at most .* are read"):
        split_of(tiny).index().annotations()


def test_columns_are_judged_when_they_are_read_once_for_each_content(tiny, monkeypatch):
    age(monkeypatch)
    folder = Path(tiny.url) / "tiny" / "train" / "index" / INDEX_KEY
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * 10**5])
    write_table(folder, "annotations.parquet", pa.table({"row": range(1000), "kind": long}))
    judged = []
    check = views.check_parquet
    monkeypatch.setattr(
        views, "check_parquet", lambda *given, **more: judged.append(given[-1]) or check(*given, **more)
    )
    for _ in range(2):  # the second as another process, which finds the notes of the first
        index = split_of(tiny).index()
        assert index.annotations(["row"]).num_rows == 1000
        with pytest.raises(StoreError, match="would unpack to"):
            index.annotations(["row", "kind"])
    assert judged == [["row"], ["row", "kind"], ["row", "kind"]]
    assert split_of(tiny).index().annotations([]).num_columns == 0
    with pytest.raises(StoreError, match="would unpack to"):  # no column is not every column
        split_of(tiny).index().annotations()


def test_a_young_table_is_judged_once_by_a_reader_though_no_note_of_it_is_kept(tiny, monkeypatch):
    judged = []
    monkeypatch.setattr(views, "check_parquet", lambda *given, **_: judged.append(given[-1]))
    index = split_of(tiny).index()
    spans = index.spans()
    for start in (0, 10, 20):
        spans._kept = None  # as where each span lies in a row group of its own
        spans.table(["row"], start=start, stop=start + 10)
    index.store.verified._known.clear()  # as after an object was found torn
    spans.table(["row", "path"], start=0, stop=10)
    assert judged == [["row"], ["row", "path"]]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"shape": [1, 6000, 6000]}, r"array maps of shape \(1, 6000, 6000\) has 36,000,000 bytes a row"),
        ({"shape": [2**40]}, "bytes a row"),
        ({"shape": [0]}, "shape"),
        ({"dtype": "object"}, "only plain numbers"),
        ({"fill": "x"}, "cannot hold its fill"),
    ],
)
def test_arrays_that_claim_more_than_a_store_may_hold_are_refused_by_every_reader(tiny, monkeypatch, changed, told):
    path = Path(tiny.url) / "tiny" / "train" / "cls_maps" / MAPS_KEY / "manifest.json"
    manifest = StageManifest.model_validate_json(path.read_bytes())
    fields = manifest.model_dump(mode="json")
    fields["arrays"]["maps"].update(changed)
    path.write_bytes(StageManifest.model_validate(fields).to_bytes())
    with pytest.raises(StoreError, match=told) as caught:
        split_of(tiny)["cls_maps"]
    if "6000" in told:
        assert str(caught.value.hint).endswith("WSOLPIPE_MAX_ROW_MIB=35")
        monkeypatch.setenv("WSOLPIPE_MAX_ROW_MIB", "35")
        assert split_of(tiny)["cls_maps"]["maps"].shape == (40, 1, 6000, 6000)


@pytest.fixture
def newer(tiny):
    """A newer key of the maps, begun and left after one shard."""
    key = "dddd000011112222"
    write_again(tiny, key, skip=(1, 2))
    return key


def write_again(tiny, key, **more):
    """The maps under another key, made later."""
    spec = split_of(tiny)["cls_maps"].manifest.arrays["maps"]
    arrays = {"maps": (spec, tiny.maps)}
    write_stage(tiny.url, "cls_maps", key, arrays, status=tiny.status, created="2999-01-01T00:00:00Z", **more)


def test_a_complete_key_goes_before_a_newer_unfinished_one_which_is_named(tiny, newer, caplog):
    warn_of_unfinished.cache_clear()
    with caplog.at_level(logging.WARNING):
        view = split_of(tiny)["cls_maps"]
    assert view.key == MAPS_KEY
    (line,) = caplog.messages
    assert f"newer key, {newer}, that is unfinished (1 of 3 shards): the newest complete one, {MAPS_KEY}" in line
    by_word = split_of(tiny).stage("cls_maps", newer[:4])
    assert (by_word.key, by_word.missing()) == (newer, [1, 2])
    with pytest.raises(NotFoundError, match="2 of 3 shards of cls_maps of train are not made"):
        by_word.require_complete()


def test_where_nothing_is_complete_the_newest_that_has_a_shard_is_taken(tiny, newer):
    os.unlink(f"{tiny.url}/tiny/train/cls_maps/{MAPS_KEY}/commits/2.json")
    assert split_of(tiny)["cls_maps"].key == newer


def test_the_beginning_of_several_keys_names_none(tiny):
    write_again(tiny, "aaaa999911112222")
    with pytest.raises(NotFoundError, match="several keys of cls_maps .* aaaa: aaaa0000.*, aaaa9999") as caught:
        split_of(tiny).stage("cls_maps", "aaaa")
    assert "how one of these keys begins" in str(caught.value.hint)
