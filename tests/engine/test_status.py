"""`status` tells what is there whatever else is damaged, and prints no code of a terminal that a store holds."""

from __future__ import annotations

import json
import shutil

import pytest

from wsolpipe import open_store
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import ConfigError
from wsolpipe.engine.leases import LONGEST_TTL, Leases
from wsolpipe.engine.status import last_command, survey
from wsolpipe.keys.console import shown

NOTES = {
    "a list": "[1]", "a number": "7", "deep": "[" * 100_000, "without time": '{"command": "wsolpipe run"}',
    "time is a list": '{"command": "wsolpipe run", "time": [1]}', "no command": '{"time": "2025"}', "empty": "",
    "command is a list": '{"command": [1], "time": "2025"}', "not text": "\x00\ufffd",
}  # fmt: skip


def lines(bench):
    return {line["stage"]: line for line in survey(open_store(str(bench.store)))[0]}


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_a_damaged_note_of_the_last_run_or_of_a_failure_stops_nobody(done, note):
    bench, _ = done
    store = open_store(str(bench.store))
    bench.store.joinpath("toy/last-run.json").write_text(note)
    assert last_command(store, None) == ("wsolpipe run" if '"wsolpipe run"' in note else None)
    failures = bench.store / bench.nodes()["shade"].folder / "failures"
    failures.mkdir()
    (failures / "1.json").write_text(note)
    assert lines(bench)["shade"]["failures"] == {}


def test_one_damaged_record_or_manifest_hides_no_other(done):
    bench, _ = done
    nodes = bench.nodes()
    (bench.store / nodes["shade"].folder / "commits/2.json").write_text("[1]")
    (bench.store / nodes["palette"].folder / "commits/artifact.json").write_text("{}")
    (bench.store / nodes["frame"].folder / "manifest.json").write_text("{")
    found = lines(bench)
    assert (found["shade"]["shards_done"], found["shade"]["rows"]) == (4, 72)
    assert ["commits/2.json" in text for text in found["shade"]["damaged"]] == [True]
    assert ["artifact.json" in text for text in found["palette"]["damaged"]] == [True]
    assert ["manifest.json" in text for text in found["frame"]["damaged"]] == [True]
    assert found["index"]["damaged"] == []


def test_odd_names_beside_keys_and_records_stop_nobody(done):
    bench, _ = done
    folder = bench.store / bench.nodes()["shade"].folder
    for name in ("backup copy", f"{folder.name}.bak", "\x1b[31m"):
        shutil.copytree(folder, folder.parent / name)
        (bench.store / name).mkdir()
    assert sum("backup copy" in name for name in survey(open_store(str(bench.store)))[2]) == 2
    for name in ("²³.json", "notes.txt"):
        (folder / "commits" / name).write_text("x")
    assert lines(bench)["shade"]["shards_done"] == 5


def test_a_key_whose_first_run_failed_is_told_apart_with_its_reason(bench):
    assert bench.go("shade.fault=process", "retries=0", stage="shade").code != 0
    found, failed, _ = survey(open_store(str(bench.store)))
    assert [line["stage"] for line in found] == ["index"]
    assert {line["stage"] for line in failed} == {"shade"}
    assert "kernel is broken" in failed[0]["failures"]["0"]


@pytest.mark.parametrize(
    ("text", "safe"),
    [  # colour, direction, CSI, and plain letters
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"), ("a\u202eb", "a\\u202eb"), ("\x9b2J", "\\x9b2J"),
        ("Zürich 鳥", None),
    ],
)  # fmt: skip
def test_codes_of_a_terminal_are_spelled_out(text, safe):
    assert shown(text) == (safe or text)


def test_no_command_prints_a_code_of_a_terminal_that_a_store_holds(toy_of_done):
    toy = toy_of_done
    evil = "\x1b]0;owned\x07"
    (toy.store / "toy/last-run.json").write_text(json.dumps({"command": f"wsolpipe {evil}", "time": "2030"}))
    failures = next(toy.store.glob("toy/train/shade/*")) / "failures"
    failures.mkdir()
    (failures / "1.json").write_text(json.dumps({"error": evil}))
    (toy.store / f"toy/train/shade/{evil}").mkdir()
    for argv in (["status"], ["verify"], ["repair"], ["push", f"to={toy.folder / 'theirs'}"]):
        done = toy.command_line([argv[0], f"store={toy.store}", *argv[1:]])
        assert done.code == 0, done.err
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err


@pytest.fixture
def toy_of_done(done):
    bench, _ = done
    return bench


@pytest.mark.parametrize("ttl", ["NaN", "1e308", "Infinity", "-5", "0", '"x"', "[1]"])
def test_a_lease_that_never_ends_is_taken_over_like_a_silent_one(tmp_path, monkeypatch, ttl):
    backend = LocalBackend(tmp_path)
    content = Leases(backend)._content(0).decode().replace('"ttl": 60.0', f'"ttl": {ttl}')
    backend.create("l.json", content.replace('"boot": "', '"boot": "elsewhere').encode())
    leases, clock = Leases(backend, ttl=0.1), [0.0]
    monkeypatch.setattr("wsolpipe.engine.leases.time.monotonic", lambda: clock[0])
    assert leases.acquire("l.json") is None
    clock[0] += LONGEST_TTL + 1
    assert leases.acquire("l.json") is not None


@pytest.mark.parametrize("owner", ["{}", "[1]", '{"pid": "../../x"}', "null", "7"])
def test_a_lease_that_names_nobody_counts_as_silent(tmp_path, monkeypatch, owner):
    backend = LocalBackend(tmp_path)
    backend.create("l.json", f'{{"owner": {owner}, "ttl": 60}}'.encode())
    leases, clock = Leases(backend, ttl=0.1), [0.0]
    monkeypatch.setattr("wsolpipe.engine.leases.time.monotonic", lambda: clock[0])
    assert leases.acquire("l.json") is None
    clock[0] += 1
    assert leases.acquire("l.json") is not None


@pytest.mark.parametrize("ttl", [float("nan"), float("inf"), 0.0, LONGEST_TTL + 1])
def test_no_lease_longer_than_the_bound_is_asked_for(tmp_path, ttl):
    with pytest.raises(ConfigError, match="lease="):
        Leases(LocalBackend(tmp_path), ttl=ttl)
