"""Stores of many rows or many shards: what reads them reads little, and workers share them."""

from __future__ import annotations

from bench.null_stage import dataset_words, prepare, share
from bench.plan_scale import LIMIT_FILES, LIMIT_MIB, build, measure, words
from wsolpipe.contract.layout import commit_name
from wsolpipe.contract.manifest import standing_record
from wsolpipe.engine import commit
from wsolpipe.engine.config import build_config
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.plan import State, examine, retry_name
from wsolpipe.engine.session import Session
from wsolpipe.stages.registry import load_registry


def test_plan_and_status_of_a_million_rows_need_little_memory_and_no_table(tmp_path):
    files = build(tmp_path)
    assert files <= LIMIT_FILES
    assert not list(tmp_path.rglob("*.parquet"))
    for command, arguments in (("plan", words(tmp_path)), ("status", [f"store={tmp_path / 'store'}"])):
        measured = measure(command, arguments, tmp_path)
        print(f"{command}: {measured.seconds:.2f} s, {measured.mib:.0f} MiB, {files:,} files")
        assert measured.mib <= LIMIT_MIB


def test_four_processes_share_shards_fairly_and_make_next_to_none_twice(tmp_path):
    """As `tools/bench/null_stage.py` does with 5,000; the stage rests a little, so that nobody can do all alone."""
    shards = 200
    prepare(tmp_path, shards)
    found = share(tmp_path, shards, 4, "nothing.pause=0.01")
    print(f"{found.overhead_ms:.1f} ms a shard, {found.twice:.1%} twice, least share {found.least_share:.2f}")
    assert found.twice < 0.01
    assert found.least_share >= 0.5


def test_a_round_reads_only_records_that_it_has_not_read(tmp_path, monkeypatch):
    prepare(tmp_path, 30)
    share(tmp_path, 30, 1)
    words = [*dataset_words(tmp_path), "stage=nothing", f"store={tmp_path / 'by1' / 'store'}", "shard_rows=1"]
    session = Session.open(build_config(words, load_registry(str(tmp_path / "stages.yaml")))[0])
    (node,) = resolve(session).nodes
    before = examine(session, node, {})
    read = []
    monkeypatch.setattr(commit, "standing_record", lambda *place: read.append(place[2]) or standing_record(*place))
    session.backend.delete(commit_name(node.folder, 3))
    record = session.backend.get(commit_name(node.folder, 4))
    session.backend.replace(commit_name(node.folder, 4), record)  # another object, of the same bytes
    session.backend.replace(retry_name(node.folder, 5), b'{"generation": 2}')
    after = examine(session, node, {}, before)
    assert read == [4, 5]
    assert after.states == examine(session, node, {}).states
    assert (after.states[3], after.states[4], after.states[5]) == (State.MISSING, State.DONE, State.RETRY)
