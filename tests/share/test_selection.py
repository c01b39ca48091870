"""What is moved where nothing more is said: the newest key that holds something, and all that it was made of."""

from __future__ import annotations

import shutil

import pytest

from e2e.toy import object_bytes
from wsolpipe import open_store
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.views import warn_of_unfinished
from wsolpipe.share.card import About
from wsolpipe.share.publish import publish
from wsolpipe.share.selection import Selection, select
from wsolpipe.share.verify import verify


def begin_and_fail(bench, *words, stage):
    """A key whose run failed before its first shard: as newer than all others as a store can hold it."""
    keys = bench.keys(*words, stage=stage)
    bench.go(*words, stage=stage)
    folder = bench.store / bench.nodes(*words, stage=stage)[stage].folder
    for part in ("commits", "data.zarr", "files"):
        for path in folder.rglob(f"{part}/**/*"):
            if path.is_file() and path.name != "zarr.json":
                path.unlink()
    return keys[stage]


def moved_keys(moved):
    return {line.stage: line.key for line in moved.lines if line.moved}


def test_a_newer_key_without_a_shard_hides_no_finished_one(team, done):
    bench, _ = done
    good = bench.keys()
    begin_and_fail(bench, "palette.seed=9", stage="palette")
    begin_and_fail(bench, "shade.gain=7.0", stage="shade")
    assert moved_keys(team.push()) == good
    assert list(verify(open_store(str(team.target)))) == []


def test_a_newer_key_that_is_unfinished_is_named_and_taken_only_by_its_own_name(team, done, caplog):
    bench, _ = done
    good, newer = bench.keys(), bench.keys("shade.gain=7.0", stage="shade")["shade"]
    assert bench.go("shade.gain=7.0", stage="shade").code == 0
    for shard in (1, 3):
        (bench.store / bench.nodes("shade.gain=7.0", stage="shade")["shade"].folder / f"commits/{shard}.json").unlink()
    warn_of_unfinished.cache_clear()
    assert moved_keys(team.push()) == good
    assert f"shade of train has a newer key, {newer}, that is unfinished (3 of 5 shards)" in caplog.text
    assert moved_keys(team.push(keys=newer)) == {"shade": newer}


def test_the_artifact_that_a_stage_was_made_of_goes_with_it_though_a_newer_one_is_finished(team, done):
    bench, _ = done
    good = bench.keys()
    assert bench.go("palette.seed=9", stage="palette").code == 0
    newer = bench.keys("palette.seed=9", stage="palette")["palette"]
    moved = {(line.stage, line.key) for line in team.push().lines if line.moved}
    assert {("palette", good["palette"]), ("palette", newer), ("frame", good["frame"])} <= moved


def test_a_stage_that_was_asked_for_and_has_nothing_is_refused(team, done):
    bench, _ = done
    shutil.rmtree((bench.store / bench.nodes()["shade"].folder) / "commits")
    for ask in ({"stages": ("shade",)}, {"stages": ("shade",), "keys": "all"}, {"keys": bench.keys()["shade"][:8]}):
        with pytest.raises(ConfigError, match="has no finished shard"):
            team.push(**ask)
    assert not team.target.exists()


def test_a_publication_holds_and_names_what_was_finished_and_nothing_newer(team, done):
    bench, _ = done
    good = bench.keys()
    failed = begin_and_fail(bench, "palette.seed=9", stage="palette")
    about = About("toy", licence="CC-BY-4.0")
    publish(str(team.source), str(team.target), Selection(dataset="toy"), about, jobs=2, emit=print, stop=team.stop())
    card = (team.target / "toy/README.md").read_text()
    assert good["palette"] in card
    assert failed not in card


def test_a_store_is_not_moved_to_itself_nor_into_itself(team, tmp_path):
    before = object_bytes(team.source)
    (tmp_path / "link").symlink_to(team.source)
    for to in (team.source, f"{team.source}/", tmp_path / "link", team.source / "inner"):
        with pytest.raises(ConfigError, match="one store"):
            team.push(str(to))
    team.target = team.source
    with pytest.raises(ConfigError, match="one store"):
        team.pull()
    assert object_bytes(team.source) == before


def test_a_backup_copy_beside_a_key_is_skipped_and_named(team, done):
    bench, _ = done
    folder = bench.store / bench.nodes()["shade"].folder
    for name in ("backup copy", f"{folder.name}.bak"):
        shutil.copytree(folder, folder.parent / name)
    moved = team.push()
    assert moved.refused == []
    assert sorted(moved.skipped) == sorted(f"toy/train/shade/{name}" for name in ("backup copy", f"{folder.name}.bak"))
    assert {item.key for item in select(LocalBackend(team.source), Selection()).found if item.stage == "shade"} == {
        folder.name
    }
