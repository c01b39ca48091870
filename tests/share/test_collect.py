"""What a store holds and what may go: nothing that is referred to, young or in use, whoever works on it meanwhile."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shutil
import threading

import pytest

from e2e.toy import PACKAGE
from engine.bench import Bench
from wsolpipe import open_store
from wsolpipe.cli.store import gc_command, ls_command
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.reader import Artifact, StageView
from wsolpipe.engine.leases import GC, Leases, Owner, marked
from wsolpipe.share.collect import Rule, collect, survey
from wsolpipe.share.repair import repair
from wsolpipe.share.selection import References, is_whole
from wsolpipe.share.verify import verify

ROUNDS = 50
SUSPENDED = 0.25
NOW = Rule(days=0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Twelve images, three shards; every stage made in version 1 and, since, in version 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PACKAGE))
        toy = Bench(tmp_path_factory.mktemp("collect"))
        patch.setenv("WSOLPIPE_SCRATCH", str(toy.folder / "scratch"))
        toy.draw([f"class{row % 3}/image{row:03d}.png" for row in range(12)])
        toy.yaml.write_text("name: toy\nlayout: folder\nroot: images\nsplit: train\n")
        assert toy.go("shard_rows=4").code == 0
        first = toy.keys("shard_rows=4")
        toy.write_stages(lambda text: text.replace("version: 1", "version: 2", 1))
        assert toy.go("shard_rows=4").code == 0
        second = toy.keys("shard_rows=4")
    return toy, first, second


@pytest.fixture
def two(small, tmp_path, monkeypatch):
    """A copy of the store, and the keys of both versions."""
    toy, first, second = small
    shutil.copytree(toy.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.setenv("WSOLPIPE_SCRATCH", str(tmp_path / "scratch"))
    bench = Bench(tmp_path)
    bench.stages_file = tmp_path / toy.stages_file.name
    return bench, first, second


def garbage(bench, rule=NOW):
    return {holding.item.key for holding in survey(open_backend(str(bench.store)), rule) if not holding.kept}


def removed(bench, rule=NOW):
    return {item.key for item in collect(open_backend(str(bench.store)), rule).removed}


def test_a_store_is_listed_with_sizes_users_and_what_is_replaced(two, capsys):
    bench, first, second = two
    files = {
        path
        for path in (bench.store / "toy").rglob("*")
        if path.is_file() and not path.name.startswith(("last-run", "check-"))
    }
    lines = call(ls_command, f"store={bench.store}", as_json=True, capsys=capsys)["results"]
    assert sum(line["bytes"] for line in lines) == sum(path.stat().st_size for path in files)
    assert sum(line["files"] for line in lines) == len(files)
    found = {line["key"]: line for line in lines}
    assert found[first["shade"]]["users"] == [f"frame {first['frame'][:8]}"]
    assert found[first["shade"]]["replaced_by"] == second["shade"]
    assert found[second["frame"]]["users"] == []
    assert len(found[first["index"]]["users"]) == 4  # an artifact keeps nothing of its index
    assert {line["whole"] for line in lines} == {True}
    call(ls_command, f"store={bench.store}", "stage=shade", capsys=capsys)


def call(module, *words, capsys, as_json=False):
    with pytest.raises(SystemExit) as ended:
        module.main([*words, *(["--json"] if as_json else [])], standalone_mode=False)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    return json.loads(said) if as_json else said


def test_what_newer_results_replace_goes_and_a_run_afterwards_makes_nothing(two, capsys):
    bench, first, second = two
    said = call(gc_command, f"store={bench.store}", "days=0", capsys=capsys)
    assert "nothing was removed" in said
    assert garbage(bench) == {first["shade"], first["frame"]}
    said = call(gc_command, f"store={bench.store}", "days=0", "remove=true", as_json=True, capsys=capsys)
    assert set(said["removed"]) == {first["shade"], first["frame"]}
    assert said["left"] == []
    assert not [path for path in bench.store.rglob("*") if path.is_file() and first["shade"] in str(path)]
    assert list(verify(open_store(str(bench.store)))) == []
    assert bench.go("shard_rows=4").code == 0
    assert bench.made() == []
    assert bench.keys("shard_rows=4") == second
    assert "every result" in call(gc_command, f"store={bench.store}", "days=0", capsys=capsys)


def test_what_is_young_in_use_named_or_read_by_a_run_stays(two, tmp_path):
    bench, first, second = two
    both = {first["shade"], first["frame"]}
    assert removed(bench, Rule(days=1)) == set()
    assert garbage(bench, Rule(days=0, keep=(first["frame"][:6],))) == set()
    assert garbage(bench, Rule(days=0, keep=(first["shade"],))) == {first["frame"]}
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/run.json").write_text(json.dumps({"keys": {"frame": first["frame"]}}))
    assert garbage(bench, Rule(days=0, runs=(str(tmp_path / "runs"),))) == set()
    assert garbage(bench, Rule(days=0, drop=(second["frame"],))) == {*both, second["frame"]}
    other = Leases(open_backend(str(bench.store)))
    lease = other.acquire(f"toy/train/frame/{first['frame']}/leases/2.json")
    assert removed(bench) == set()
    lease.release()
    assert removed(bench) == both


def test_other_parameters_and_other_rows_are_no_replacement(two):
    bench, first, _ = two
    assert bench.go("shard_rows=4", "shade.gain=2").code == 0
    assert bench.go("shard_rows=4", "limit=4").code == 0
    assert garbage(bench) == {first["shade"], first["frame"]}


def test_nothing_goes_where_a_manifest_cannot_be_read(two):
    bench, _, second = two
    (bench.store / f"toy/train/frame/{second['frame']}/manifest.json").write_text("{")
    assert removed(bench) == set()


def test_a_run_waits_for_gc_and_makes_again_what_it_took(two):
    bench, first, _ = two
    bench.stages_file = PACKAGE / "toy_stages/stages.yaml"  # version 1 again
    backend = open_backend(str(bench.store))
    (bench.store / f"toy/train/frame/{first['frame']}/commits/0.json").unlink()
    with marked(Leases(backend), f"toy/train/shade/{first['shade']}", GC):
        ended = []
        runs = threading.Thread(target=lambda: ended.append(bench.go("shard_rows=4")))
        runs.start()
        runs.join(0.5)
        assert runs.is_alive()
        for path in bench.store.glob(f"toy/train/shade/{first['shade']}/commits/*"):
            path.unlink()
    runs.join(60)
    assert ended[0].code == 0
    assert sorted(bench.made()) == [("frame", 0), ("shade", 0), ("shade", 1), ("shade", 2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [(["dataset=birds"], "birds"), (["keep=zz"], "zz"), (["drop=12345"], "12345"), (["days=-1"], "days"),
     (["runs=/nowhere"], "/nowhere"), (["remove=perhaps"], "remove"), (["stage=shade"], "stage"), (["key=aa"], "key")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_words_of_gc_are_one_line(two, words, said):
    bench, _, _ = two
    with pytest.raises(ConfigError) as caught:
        gc_command.main([f"store={bench.store}", *words], standalone_mode=False)
    assert said in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("words", "said"),
    [(["dataset=birds"], "birds"), (["stage=nothing"], "nothing"), (["runs=run"], "run.json"), (["rows=1"], "rows"),
     (["store=/nowhere"], "/nowhere")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_words_of_ls_are_one_line(two, words, said, monkeypatch):
    bench, _, _ = two
    monkeypatch.chdir(bench.folder)
    (bench.folder / "run").mkdir()
    (bench.folder / "run/run.json").write_text("[]")
    with pytest.raises((ConfigError, StoreError)) as caught:
        ls_command.main([f"store={bench.store}", *words], standalone_mode=False)
    assert said in caught.value.message
    assert "\n" not in caught.value.message


# -- under attack ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """SIGKILL: nothing of this thread changes the store any more, and its leases stay."""


class Attack:
    """Changes of a store, counted a thread; a thread may die at one of its changes."""

    def __init__(self, patch):
        self.here, self.dead = threading.local(), set()
        alive = Owner.is_dead
        patch.setattr(Owner, "is_dead", lambda owner: owner.token in self.dead or alive(owner))
        for verb in ("create", "delete", "replace", "swap"):
            patch.setattr(LocalBackend, verb, self.watched(getattr(LocalBackend, verb)))

    def watched(self, act):
        def watching(backend, name, *data, **how):
            left = getattr(self.here, "left", None)
            if left is not None:
                if "/leases/" in name and data:
                    with contextlib.suppress(ValueError):
                        self.here.tokens.add(json.loads(data[-1])["owner"]["token"])
                self.here.left -= 1
                if self.here.left == 0:
                    self.here.reached.set()
                    self.here.other.wait(SUSPENDED)
                if self.here.left <= 0 and self.here.dies:
                    self.dead |= self.here.tokens
                    raise Killed
            return act(backend, name, *data, **how)

        return watching

    def begin(self, act, left, other, *, dies):
        """Run `act` in a thread.

        At its change number `left` it sets the event that is returned, is suspended until the event `other` is set or
        it is clear that the other thread waits for this one, and goes on or dies. At its end it sets the event too.
        """
        reached, ended = threading.Event(), []

        def run():
            self.here.left, self.here.dies, self.here.tokens = left, dies, set()
            self.here.reached, self.here.other = reached, other
            try:
                ended.append(act())
            except Killed:
                self.dead |= self.here.tokens
                ended.append(None)
            except BaseException as error:  # noqa: BLE001 - shown by the test
                ended.append(error)
            finally:
                reached.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread, reached, ended


def lost(store):
    """Rows that a manifest refers to and that are not there: shards, indexes and artifacts that others were made of."""
    opened = open_store(str(store))
    for holding in survey(opened.backend, NOW):
        item = holding.item
        if item.manifest.kind == "index":
            yield from [] if opened.backend.size(f"{item.folder}/index.parquet") else [item.folder]
            continue
        if item.manifest.kind == "artifact":
            continue
        view = StageView(opened, item.dataset, item.split, item.stage, item.key)
        for record in view.committed().values():
            for stage, contents in record.upstream.items():
                for name, content in contents.items():
                    if stage in item.manifest.artifacts:
                        keys = opened.backend.names(f"toy/artifacts/{stage}")
                        records = [Artifact(opened, "toy", stage, key.rstrip("/")).record for key in keys]
                    else:
                        need = StageView(opened, "toy", item.split, stage, item.manifest.upstream[stage][:16])
                        records = [need.record(int(name))]
                    if content not in {found.content for found in records if found}:
                        yield f"{item.folder} shard {record.shard}: {stage} {name}"


def whole(store):
    """What was asked for and is there in full, whichever key it has."""
    references = References(tuple(holding.item for holding in survey(open_backend(str(store)), NOW)))
    return {references.words(item) for item in references.found if is_whole(item)}


@pytest.mark.timeout(600)
def test_fifty_interleavings_of_runs_kills_and_gc_lose_no_row(two, monkeypatch):
    bench, _, _ = two
    attack, rng = Attack(monkeypatch), random.Random(17)
    versions = [bench.stages_file, PACKAGE / "toy_stages/stages.yaml"]
    died = taken = 0
    for _ in range(ROUNDS):
        bench.stages_file = rng.choice(versions)
        words = ("shard_rows=4", f"frame.spread={rng.choice([1, 2, 3])}", "retries=5")
        asked = whole(bench.store)
        run = functools.partial(bench.go, *words)
        sweep = functools.partial(collect, open_backend(str(bench.store)), NOW)
        first, second = (run, sweep) if rng.random() < 0.5 else (sweep, run)
        at, done = rng.choice([1, 2, 3, rng.randrange(1, 60)]), threading.Event()
        one, reached, ended = attack.begin(first, at, done, dies=rng.random() < 0.3)
        assert reached.wait(60)
        other, _, after = attack.begin(second, rng.randrange(1, 60), reached, dies=rng.random() < 0.4)
        other.join(SUSPENDED)
        done.set()
        for thread in (one, other):
            thread.join(60)
            assert not thread.is_alive()
        results = dict(zip((first, second), (ended[0], after[0]), strict=True))
        for result in results.values():
            assert not isinstance(result, BaseException), result
        died += [results[run], results[sweep]].count(None)
        taken += len(results[sweep].removed) if results[sweep] else 0
        assert list(lost(bench.store)) == []
        assert asked <= whole(bench.store), "what some words gave is not whole any more, and nothing replaced it"
        if results[run] is not None:
            assert results[run].code == 0
    assert died >= 5
    assert taken >= 5
    repair(open_store(str(bench.store)))
    assert list(verify(open_store(str(bench.store)))) == []
