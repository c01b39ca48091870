"""Push and pull: only what differs, whole or not at all, and a run that takes what arrived for its own."""

from __future__ import annotations

import json
import shutil
import threading

import pytest

from e2e.toy import object_bytes
from s3 import Plan, Proxy
from wsolpipe import open_store
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.layout import sha256_bytes, sha256_file
from wsolpipe.engine.leases import Leases, Owner
from wsolpipe.share.inspection import Trust
from wsolpipe.share.selection import Selection
from wsolpipe.share.transfer import Transfer, push
from wsolpipe.share.verify import verify

SHARDS = 5


def counts(moved):
    """(moved, there already) by stage."""
    return {line.stage: (line.moved, line.same) for line in moved.lines}


def remote_bytes(url):
    backend = open_backend(url)
    return {name: backend.get(name) for name, _ in backend.walk("") if "/data.zarr/" in name or "/files/" in name}


def make_again(store, folder, shard, array, generation):
    """Shard `shard` of a store as if it was made again with other bytes: those that the next shard has."""
    path = store / folder / "data.zarr" / array / "c"
    other = (path / str(shard + 1)).read_bytes()
    (path / str(shard)).write_bytes(other)
    record = store / folder / "commits" / f"{shard}.json"
    fields = json.loads(record.read_bytes())
    fields["objects"][array] = {"sha256": sha256_bytes(other), "bytes": len(other)}
    record.write_text(json.dumps({**fields, "generation": generation}))


def test_what_arrives_is_what_was_there_and_a_second_push_moves_nothing(team):
    moved = team.push()
    assert counts(moved) == {"index": (1, 0), "palette": (1, 0), "shade": (SHARDS, 0), "frame": (SHARDS, 0)}
    assert object_bytes(team.target) == object_bytes(team.source)
    assert list(verify(open_store(str(team.target)))) == []
    again = team.push()
    assert counts(again) == {"index": (0, 1), "palette": (0, 1), "shade": (0, SHARDS), "frame": (0, SHARDS)}
    assert sum(line.bytes for line in again.lines) == 0


def test_an_artifact_has_no_rows_that_could_be_cut_in_another_way(team):
    team.push()
    (path,) = team.target.glob("toy/artifacts/palette/*/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "shard_rows": 77}))
    assert team.push().refused == []


def test_a_run_takes_pulled_shards_for_its_own(team, bench, done):
    _, before = done
    assert team.pull().refused == []
    shutil.rmtree(bench.store, ignore_errors=True)
    shutil.copytree(team.target, bench.store)
    outcome = bench.go()
    assert outcome.code == 0
    assert bench.made() == []
    assert object_bytes(bench.store) == before


def test_a_run_makes_only_what_was_not_pulled(team, bench, done):
    _, before = done
    team.pull(rows=(0, 40))
    shutil.rmtree(bench.store, ignore_errors=True)
    shutil.copytree(team.target, bench.store)
    assert bench.go().code == 0
    assert sorted(item for item in bench.made() if item[0] != "index") == [
        (stage, shard) for stage in ("frame", "shade") for shard in (3, 4)
    ]
    assert object_bytes(bench.store) == before


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"stages": ("shade",)}, {"index": (1, 0), "shade": (5, 0)}),
        ({"stages": ("frame",), "rows": (20, 50)}, {"index": (1, 0), "frame": (3, 0)}),
        ({"stages": ("frame",), "rows": (70, None)}, {"index": (1, 0), "frame": (1, 0)}),
        ({"splits": ("train",), "stages": ("palette",)}, {"palette": (1, 0)}),
        ({"stages": ("index",)}, {"index": (1, 0)}),
    ],
    ids=lambda value: " ".join(f"{key}={item}" for key, item in value.items()) if "stages" in value else "",
)
def test_stages_splits_and_rows_say_what_goes(team, choice, expected):
    assert counts(team.push(**choice)) == expected


@pytest.mark.parametrize(
    ("choice", "says"),
    [({"dataset": "tot"}, "'toy'"), ({"stages": ("shads",)}, "did you mean 'shade'"), ({"splits": ("val",)}, "train"),
     ({"keys": "zz"}, "newest, all"), ({"keys": "0123"}, "unknown key")],
)  # fmt: skip
def test_what_is_not_there_is_said_with_what_is(team, choice, says):
    with pytest.raises(ConfigError, match=says):
        team.push(**choice)


def test_a_source_that_is_no_store_is_an_error_and_not_a_transfer_of_nothing(team, tmp_path):
    team.source = tmp_path / "typo"
    for move in (team.push, team.pull):
        with pytest.raises(StoreError, match="no store at .*typo"):
            move()


def test_only_the_newest_key_and_what_it_was_made_of_goes_unless_more_is_asked(team, done):
    bench, _ = done
    old = bench.keys()
    assert bench.go("shade.gain=2.0").code == 0
    new = bench.keys("shade.gain=2.0")
    assert {line.key for line in team.push().lines if line.stage == "frame"} == {new["frame"]}
    picked = team.push(keys=str(old["frame"])[:8])
    assert {(line.stage, line.key) for line in picked.lines if line.stage != "index"} == {("frame", old["frame"])}
    everything = team.push(keys="all")
    assert {line.key for line in everything.lines if line.stage == "shade"} == {old["shade"], new["shade"]}


def test_a_shard_with_other_bytes_is_kept_and_told(team, done):
    bench, _ = done
    team.pull()
    name = f"{bench.nodes()['shade'].folder}/commits/2.json"
    ours = json.loads((team.target / name).read_bytes())
    ours["objects"]["mean"]["sha256"] = "0" * 64
    (team.target / name).write_text(json.dumps(ours))
    before = object_bytes(team.target)
    moved = team.pull()
    assert [(line.stage, line.kept) for line in moved.lines if line.kept] == [("shade", [2])]
    assert object_bytes(team.target) == before
    assert json.loads((team.target / name).read_bytes()) == ours


def test_a_push_gives_later_generations_and_a_pull_takes_them_only_when_asked(team, done):
    folder = done[0].nodes()["shade"].folder
    team.push()
    make_again(team.source, folder, 1, "mean", generation=2)
    kept = team.pull()
    assert [(line.stage, line.kept) for line in kept.lines if line.kept] == [("shade", [1])]
    moved = team.push()
    assert counts(moved)["shade"] == (1, 4)
    assert counts(moved)["frame"] == (0, 5)
    assert object_bytes(team.target) == object_bytes(team.source)
    make_again(team.source, folder, 2, "mean", generation=2)
    assert counts(team.pull(newer=True))["shade"] == (1, 4)
    assert object_bytes(team.target) == object_bytes(team.source)
    assert list((team.target / folder).glob("leases/*")) == []
    make_again(team.source, folder, 0, "mean", generation=1)
    assert [line.kept for line in team.push().lines if line.kept] == [[0]]


def test_a_stopped_push_goes_on_where_it_stopped(team):
    stop, seen = threading.Event(), []

    class Slow(LocalBackend):
        def create(self, name, data, *, sync=True):
            if "/commits/" in name:
                seen.append(name)
                if len(seen) == 4:
                    stop.set()
            return super().create(name, data, sync=sync)

    part = Transfer(
        LocalBackend(team.source), Slow(team.target), Selection(), Trust(), newer=True, jobs=1, stop=stop
    ).run()
    assert part.stopped
    assert list(verify(open_store(str(team.target)))) == []
    rest = team.push()
    assert sum(line.moved for line in rest.lines) + len(seen) == 1 + 2 * SHARDS
    assert object_bytes(team.target) == object_bytes(team.source)


def test_objects_that_a_killed_push_left_are_used_and_those_of_others_replaced(team, done):
    folder = done[0].nodes()["shade"].folder
    for array, content in (("mean", None), ("maps", b"half")):
        name = f"{folder}/data.zarr/{array}/c/1" + ("/0/0/0" if array == "maps" else "")
        path = team.target / name
        path.parent.mkdir(parents=True)
        path.write_bytes((team.source / name).read_bytes() if content is None else content)
    assert team.push().refused == []
    assert object_bytes(team.target) == object_bytes(team.source)


def test_the_leases_of_a_killed_push_go_with_the_next_one(team, monkeypatch):
    """Of stages, artifacts and the index alike."""
    team.push()
    leases = Leases(LocalBackend(team.target))
    for manifest in team.target.glob("**/manifest.json"):
        leases.acquire(
            f"{manifest.parent.relative_to(team.target).as_posix()}/leases/transfer-{leases.owner.token}.json"
        )
    left = list(team.target.glob("**/leases/*.json"))
    assert len(left) == 4
    alive, killed = Owner.is_dead, leases.owner.token
    monkeypatch.setattr(Owner, "is_dead", lambda owner: owner.token == killed or alive(owner))
    team.push()
    assert list(team.target.glob("**/leases/*.json")) == []


def test_a_shard_that_a_worker_holds_is_left_to_it(team, done):
    folder = done[0].nodes()["shade"].folder
    target = LocalBackend(team.target)
    target.create(f"{folder}/data.zarr/mean/c/1", b"another device's")
    lease = Leases(target).acquire(f"{folder}/leases/1.json")
    moved = team.push(stages=("shade",))
    assert ["held by a worker" in text for text in moved.refused] == [True]
    assert not (team.target / folder / "commits/1.json").exists()
    lease.release()
    assert team.push(stages=("shade",)).refused == []
    assert list(verify(open_store(str(team.target)))) == []


def test_a_folder_cut_in_other_shards_is_refused_and_the_others_go(team, done):
    assert done[0].go("shard_rows=24", stage="shade", store=team.target).code == 0
    moved = team.push()
    assert ["other shard_rows" in text for text in moved.refused] == [True]
    assert counts(moved)["frame"] == (SHARDS, 0)


def test_a_source_that_is_not_trusted_gives_nothing(team, monkeypatch):
    with pytest.raises(ConfigError, match="not among the trusted: s3://ours"):
        team.pull(trust="s3://ours")
    assert not team.target.exists()
    assert team.pull(trust=f"s3://ours,{team.source.parent}").refused == []
    monkeypatch.setenv("WSOLPIPE_TRUST", "https://elsewhere")
    with pytest.raises(ConfigError, match="not among the trusted"):
        team.pull()


def test_a_published_digest_binds_every_record(team):
    files = [path for path in sorted(team.source.rglob("*")) if path.is_file()]
    lines = [f"{sha256_file(path)}  {path.relative_to(team.source).as_posix()}\n" for path in files]
    checksums = team.source / "checksums.txt"
    checksums.write_text("".join(lines))
    trusted = sha256_file(checksums)
    record = next(team.source.glob("toy/train/shade/*/commits/3.json"))
    record.write_text(record.read_text().replace('"host":', '"host" :'))
    moved = team.pull(trust=trusted)
    assert len(moved.refused) == 1
    assert "3.json does not have the digest of the trusted list" in moved.refused[0]
    with pytest.raises(ConfigError, match="not among the trusted"):
        team.pull(trust="0" * 64)


# -- object stores -----------------------------------------------------------------------------------------------------


@pytest.mark.s3
def test_push_and_pull_end_right_on_a_failing_slow_and_cut_connection_and_count_what_was_sent_again(
    team, s3, monkeypatch, tmp_path
):
    url = s3.store()
    with Proxy(s3.endpoint, Plan(fail=20, slow=20, seconds=0.2, cut=(37,))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        pushed = team.push(url)
        assert pushed.refused == []
        assert sum(pushed.retried.values()) == proxy.done["failed"] + proxy.done["cut"]
        assert proxy.done["failed"] >= 3
        proxy.done.clear()
        proxy.plan = Plan(fail=20, slow=20, seconds=0.2, cut=tuple(range(37, 100_000, 23)))
        pulled = team.pull(url)
        assert pulled.refused == []
        assert sum(pulled.retried.values()) == proxy.done["failed"] + proxy.done["cut"]
        assert proxy.done["cut"] >= 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert remote_bytes(url) == object_bytes(team.source)
    assert object_bytes(team.target) == object_bytes(team.source)
    assert list(verify(open_store(str(team.target)))) == []


@pytest.mark.s3
def test_a_read_only_or_unreachable_target_ends_the_push_with_its_reason(team, s3, monkeypatch):
    with Proxy(s3.endpoint, Plan(answer=(403, "AccessDenied"))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with pytest.raises(StoreError, match="no permission"):
            team.push(s3.store())
    with pytest.raises(StoreError, match="read-only|cannot"):
        push(str(team.source), "http://127.0.0.1:9/x", Selection(), jobs=1, emit=print, stop=threading.Event())
