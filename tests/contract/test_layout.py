"""Row and shard arithmetic, names of folders, canonical JSON."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsolpipe.contract.errors import ConfigError, unknown
from wsolpipe.contract.layout import (
    Shards,
    canonical,
    check_name,
    commit_name,
    digest,
    jsonable,
    lease_name,
    shard_object,
    short_key,
    stage_folder,
)

SIZES = st.integers(0, 5_000_000), st.integers(1, 10_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(*SIZES)
def test_shards_tile_the_rows_without_gap_or_overlap(rows, shard_rows):
    shards = Shards(rows, shard_rows)
    spans = [shards.span(shard) for shard in (0, len(shards) // 2, len(shards) - 1) if len(shards)]
    assert len(shards) == math.ceil(rows / shard_rows)
    assert all(0 < stop - start <= shard_rows for start, stop in spans)
    assert not spans or (spans[0][0] == 0 and spans[-1][1] == rows)
    assert all(start == shard_rows * (start // shard_rows) for start, _ in spans)


@given(*SIZES, st.data())
def test_a_row_lies_in_the_span_of_its_shard(rows, shard_rows, data):
    shards = Shards(rows + 1, shard_rows)
    row = data.draw(st.integers(0, rows))
    start, stop = shards.span(shards.of(row))
    assert start <= row < stop


@given(*SIZES, st.data())
def test_covering_shards_hold_every_row_of_a_range_and_no_shard_more(rows, shard_rows, data):
    shards = Shards(rows + 1, shard_rows)
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(0, rows + 1))
    covering = shards.covering(start, stop)
    if stop <= start:
        assert len(covering) == 0
        return
    assert shards.span(covering[0])[0] <= start < shards.span(covering[0])[1]
    assert shards.span(covering[-1])[0] < stop <= shards.span(covering[-1])[1]


@pytest.mark.parametrize("shard", [-1, 3])
def test_a_shard_out_of_range_is_refused(shard):
    with pytest.raises(IndexError, match=f"shard {shard} of 3"):
        Shards(10, 4).span(shard)


@pytest.mark.parametrize("row", [-1, 10])
def test_a_row_out_of_range_is_refused(row):
    with pytest.raises(IndexError, match=f"row {row} of 10"):
        Shards(10, 4).of(row)


def test_shard_rows_below_one_are_refused():
    with pytest.raises(ConfigError, match="shard_rows=0"):
        Shards(10, 0)


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b", "ä", "-x", "a\0", "a\n"])
def test_a_name_that_could_leave_the_store_is_refused(name):
    with pytest.raises(ConfigError):
        check_name("data set", name)
    with pytest.raises(ConfigError):
        stage_folder("birds", "train", name, "0" * 16)
    with pytest.raises(ConfigError):
        stage_folder(name, None, "classifier", "0" * 16)


def test_places_in_a_store_are_those_that_the_schema_publishes():
    folder = stage_folder("birds", "train", "cls_maps", "0123456789abcdef")
    assert folder == "birds/train/cls_maps/0123456789abcdef"
    assert stage_folder("birds", None, "classifier", "aa") == "birds/artifacts/classifier/aa"
    assert commit_name(folder, 7) == f"{folder}/commits/7.json"
    assert commit_name(folder, None) == f"{folder}/commits/artifact.json"
    assert lease_name(folder, 7) == f"{folder}/leases/7.json"
    assert shard_object(folder, "maps", 7, 4) == f"{folder}/data.zarr/maps/c/7/0/0/0"
    assert shard_object(folder, "count", 7, 1) == f"{folder}/data.zarr/count/c/7"


@given(st.dictionaries(st.text(), JSON, max_size=6), st.randoms())
def test_canonical_json_forgets_the_order_of_keys(value, rng):
    items = list(value.items())
    random.Random(rng.random()).shuffle(items)
    assert canonical(dict(items)) == canonical(value)
    assert json.loads(canonical(value)) == value


def test_a_digest_is_the_same_in_another_process_with_another_hash_seed():
    value = {"b": [1, 2.5, None, True, "ü\u2028"], "a": {"y": 1e-7, "x": -0.0}}
    code = f"from wsolpipe.contract.layout import digest; print(digest({value!r}))"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert told == [digest(value)] * 2
    # sha256 of {"a":{"x":-0.0,"y":1e-07},"b":[1,2.5,null,true,"ü\u2028"]} as UTF-8, by sha256sum
    assert digest(value) == "0383fe351e90a3f7ec1086d35c34c7cda47aef74465af7a281d7fdcfc6d57dd2"
    assert short_key(digest(value)) == digest(value)[:16]


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": object()}, {"a": {1, 2}}])
def test_what_json_cannot_say_exactly_never_gets_into_a_key(value):
    with pytest.raises(ConfigError, match="canonical JSON"):
        canonical(value)


def test_results_for_scripts_say_null_for_nan():
    assert jsonable({"a": math.nan, 1: [math.inf, 2.0]}) == {"a": None, "1": [None, 2.0]}


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list():
    told = unknown("stage", "proposal", ["cls_maps", "proposals"])
    assert told == "unknown stage 'proposal'; did you mean 'proposals'? Valid: cls_maps, proposals"
    assert unknown("stage", "zzz", ["cls_maps"]) == "unknown stage 'zzz'. Valid: cls_maps"
