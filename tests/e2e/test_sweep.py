"""Sweeps: each value is run, what they share is made once, nothing is made twice, and one table ends them."""

from __future__ import annotations

import json

import pytest

from engine.conftest import bench, done, drawn, finished  # noqa: F401 - fixtures
from wsolpipe.cli.main import cli
from wsolpipe.contract.errors import ConfigError


def call(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        cli.main(list(argv), standalone_mode=False)
    return end.value.code, capsys.readouterr()


def words(toy, *more):
    return toy.words(*more, "retries=0")


def test_a_sweep_from_a_file_shares_what_is_upstream_resumes_and_ends_with_one_table(done, capsys):  # noqa: F811
    toy, _ = done
    made = len(toy.calls("shade"))
    file = toy.folder / "sweep.yaml"
    file.write_text("sweep: {frame.spread: [1.0, 2.0, 4.0]}\n")
    code, shown = call(capsys, "plan", *words(toy, f"config={file}"), "--json")
    plan = json.loads(shown.out)["stages"]
    assert code == 0
    assert [line["stage"] for line in plan].count("shade") == 1
    assert [line["reason"] for line in plan if line["stage"] == "frame"].count("done") == 1  # 1.0 is the default

    code, shown = call(capsys, "run", *words(toy, f"config={file}"), "--json")
    assert code == 0, shown.err
    found = json.loads(shown.out)
    assert [line["frame.spread"] for line in found["lines"]] == ["1.0", "2.0", "4.0"]
    assert len({line["key"] for line in found["lines"]}) == 3
    assert all(line["done"] == line["rows"] == 72 for line in found["lines"])
    assert len(toy.calls("shade")) == made
    assert "3 of 3: frame.spread=4.0" in shown.err

    frames = len(toy.calls("frame"))
    code, shown = call(capsys, "run", *words(toy, f"config={file}"))
    assert code == 0
    assert len(toy.calls("frame")) == frames
    lines = [line for line in shown.out.splitlines() if " frame " in line]
    assert [line.split()[0] for line in lines] == ["1.0", "2.0", "4.0"]


def test_every_combination_is_checked_before_any_is_run_and_other_commands_take_one_value(bench, capsys):  # noqa: F811
    for command, told in (("run", "frame.spread=wide"), ("plan", "frame.spread=wide"), ("eval", "one value a key")):
        with pytest.raises(ConfigError, match=told):
            call(capsys, command, *words(bench, "sweep.frame.spread=2.0,wide"))
    assert not bench.store.exists()
