"""What a user meets every day: errors as JSON, logs, narrow terminals, missing packages, other systems."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import click
import pytest

from stores import build_store
from trained import words
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import ClusterError
from wsolpipe.engine.leases import Leases
from wsolpipe.keys.console import LINE_SECONDS, call, duration, print_table
from wsolpipe.launch import slurm
from wsolpipe.launch.profiles import Profile
from wsolpipe.launch.progress import LogLines, RunProgress
from wsoltrain.cli.fit import FitProgress

HIDDEN = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
sys.argv = {words!r}
from {program}.cli.main import main
main()
"""
OTHER_SYSTEM = """
import importlib, os, pkgutil, signal, sys
del os.sched_getaffinity, os.getuid, signal.SIGUSR1
sys.modules["fcntl"] = sys.modules["pwd"] = sys.modules["resource"] = None
import wsolpipe, wsoltrain
for package in (wsolpipe, wsoltrain):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import wsolpipe.cli.main, wsoltrain.cli.main
from wsolpipe.keys.console import call
for program, words in {commands!r}:
    try:
        code = call(sys.modules[program + ".cli.main"].cli, program, words)
    except SystemExit as ended:
        code = ended.code
    assert not code, (words, code)
"""


def hide(packages: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    code = HIDDEN.format(hidden=packages, words=list(words), program=words[0])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def raises(error: Exception) -> click.Command:
    def body(as_json: bool) -> None:  # noqa: ARG001, FBT001
        raise error

    return click.Command("x", callback=body, params=[click.Option(["--json", "as_json"], is_flag=True)])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ClusterError("no answer\x1b[31m", hint="ask again"), ClusterError.exit_code, r"no answer\x1b[31m"),
        (FileNotFoundError(2, "No such file or directory", "a.yaml"), 3, "a.yaml: no such file or directory"),
        (PermissionError(13, "Permission denied", "a.yaml"), 4, "a.yaml: permission denied"),
        (ModuleNotFoundError("no", name="optuna.storages"), 3, "the package optuna"),
    ],
)
def test_an_error_is_one_line_and_an_object_with_json(capsys, error, code, text):
    assert call(raises(error), "x", []) == code
    plain = capsys.readouterr()
    assert plain.out == ""
    assert plain.err.startswith("x: ")
    assert text in plain.err
    assert "\x1b" not in plain.err
    assert call(raises(error), "x", ["--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert (told["schema_version"], told["exit_code"]) == (1, code)
    assert (told["error"] in str(error)) or text in told["error"]


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        call(raises(ZeroDivisionError()), "x", [])


def test_a_wrong_word_is_an_object_with_json_too(toy):
    done = toy.run("colour=red", "--json")
    assert done.code == 3
    assert "colour" in json.loads(done.out)["error"]


def test_a_run_writes_its_log_and_status_counts_what_is_under_way(toy, tmp_path):
    done = toy.run(f"log={tmp_path / 'run.log'}")
    assert done.code == 0
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert any(re.match(r"\d{4}-\d\d-\d\dT[\d:]+[+-]\d\d:\d\d shade train shard 0: \d+ rows", line) for line in lines)
    assert toy.run(f"log={tmp_path / 'none' / 'run.log'}").code == 3
    lease = Leases(LocalBackend(toy.store)).acquire(
        f"{next(toy.store.glob('*/train/shade/*')).relative_to(toy.store)}/leases/9.json"
    )
    lease.rows = 7
    lease.renew()
    assert toy.call("status", stage="shade").line("shade")["under_way"] == 7
    assert "(+7)" in toy.command_line(["status", f"store={toy.store}"]).out
    lease.release()


def test_a_slow_shard_is_a_line_a_minute():
    now, lines = [0.0], []
    log = LogLines(lines.append, RunProgress(clock=lambda: now[0]))
    log({"event": "index", "split": "val", "rows": 500})
    for done in range(0, 400, 10):
        log({"event": "rows", "stage": "slow", "split": "val", "shard": 0, "done": done, "total": 400})
        now[0] += 10
    assert len(lines) == 390 // LINE_SECONDS
    assert lines[0] == "slow val: 60 of 500 rows, 1.0 img/s, 7 min 20 s left"
    log({"event": "shard", "stage": "slow", "split": "val", "shard": 0, "rows": 400, "quarantined": 0, "seconds": 400})
    assert lines[-1] == "slow val shard 0: 400 rows, 400.0 s"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (85, "1 min 25 s"), (7500, "2 h 5 min")])
def test_durations_read_as_one_says_them(seconds, text):
    assert duration(seconds) == text


def test_a_table_fits_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    columns = ["stage", "split", "key", "rows", "done", "quarantined", "shards", "img/s", "left", "running"]
    row = ["text_anchors", "train", "0123456789abcdef", 1_281_167, 1_281_167, 0, "313/313", 1361.7, None, "0"]
    print_table(columns, [row])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("text_anchors" in line and "01234567 " in line and "1,281,167" in line for line in lines)
    assert "quarantined" not in "".join(lines)
    print_table(columns, [row], wide=True)
    wide = capsys.readouterr().out
    assert "0123456789abcdef" in wide
    assert "quarantined" in wide
    state = "read by proposals 76543210, val_boxes 89abcdef and 3 more; replaced by fedcba98"
    columns = ["stage", "split", "key", "rows", "MiB", "days", "state"]
    print_table(columns, [["text_anchors", "train", "0123456789abcdef", 1_281_167, 12_345.678, "12.5", state]])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(all(word in line for word in ("text_anchors", "train", "01234567", "1,281,167")) for line in lines)


def test_a_terminal_of_another_encoding_is_no_traceback(toy):
    assert toy.run().code == 0
    environment = toy.env(PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    done = subprocess.run(toy.command("status", stage="shade"), env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"shade" in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("packages", "argv", "extra"),
    [
        (
            ["torch"],
            ["wsolpipe", "run", "stage=cls_maps", "dataset=demo", "limit=2", "cls_maps.weights=random:0"],
            "pipeline",
        ),
        (["numba"], ["wsolpipe", "eval", "stage=proposals", "dataset=demo"], "pipeline"),
        (["obstore"], ["wsolpipe", "status", "store=s3://bucket/x"], "s3"),
        (["torch"], ["wsoltrain", "fit", "dataset=demo"], "pipeline"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(packages, argv, extra, tmp_path):
    done = hide(packages, *argv, *([] if argv[-1].startswith("store=") else [f"store={tmp_path}"]))
    assert done.returncode == 3, done.stderr
    assert f"pip install 'wsolpipe[{extra}]'" in done.stderr
    assert packages[0] in done.stderr
    assert "tries" not in done.stderr
    assert "Traceback" not in done.stderr


def test_everything_imports_and_scores_and_trains_where_linux_is_missing(tmp_path):
    store = build_store(tmp_path, rows=8)
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    given = [f"dataset={tmp_path / 'tiny.yaml'}", f"store={store.url}"]
    commands = [
        ("wsolpipe", ["status", f"store={store.url}"]),
        ("wsolpipe", ["eval", "stage=proposals", "split=train", *given]),
        ("wsolpipe", ["export", "stage=proposals", f"out={tmp_path / 'boxes'}", *given]),
        ("wsolpipe", ["report", "split=train", f"out={tmp_path / 'report.html'}", *given]),
        ("wsoltrain", [*words(store, epochs=1), "val=train", "by=proposals", f"out={tmp_path / 'run'}"]),
    ]
    done = subprocess.run(
        [sys.executable, "-c", OTHER_SYSTEM.format(commands=commands)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_slurm_that_does_not_answer_is_given_up_by_the_clock(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text("#!/bin/sh\necho slurm_load_jobs error >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    events = []
    patience = slurm.Patience.of(Profile(start_seconds=0.2), events.append)
    assert patience.ask(slurm.tasks, "x") is None
    time.sleep(0.3)
    with pytest.raises(ClusterError, match="has not answered for"):
        patience.ask(slurm.tasks, "x")
    assert [event["text"] for event in events] == ["squeue does not answer: slurm_load_jobs error; asking again"]
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 0\n")
    assert patience.ask(slurm.tasks, "x") == {}
    assert patience.since is None


def test_a_task_out_of_memory_gets_twice_as_much_up_to_the_bound():
    profile = Profile(memory="8G", most_memory="20G")
    assert profile.more_memory(None) == "16384M"
    assert profile.more_memory("16384M") == "20480M"
    assert Profile(memory="8G").more_memory(None) is None
    assert Profile(memory="0", most_memory="20G").more_memory(None) is None
    with pytest.raises(ValueError, match="size of memory"):
        Profile(memory="8 gigabytes")


def test_a_training_is_a_line_a_minute_in_a_log(caplog):
    now = [0.0]
    shown = FitProgress(600, 6, live=False, clock=lambda: now[0])
    with caplog.at_level("INFO"):
        for step in range(101, 201):
            shown.write("step", step, {"pixels": 0.4, "crf": 0.01, "count short": 3.0, "epoch": 1, "phase": "maps"})
            shown.write("val", step, {"MaxBoxAcc": 50.0})
            now[0] += 2
    shown.close()
    assert [record.getMessage() for record in caplog.records] == [
        "step 131 of 600, epoch 2 of 6, 0.5 steps/s, 15 min 8 s left, loss 0.410",
        "step 161 of 600, epoch 2 of 6, 0.5 steps/s, 14 min 24 s left, loss 0.410",
        "step 191 of 600, epoch 2 of 6, 0.5 steps/s, 13 min 29 s left, loss 0.410",
    ]


def test_the_guide_lists_the_fields_of_json(toy, repo):
    assert toy.run().code == 0
    guide = (repo / "docs/guide/running.md").read_text()
    rows = dict(re.findall(r"^\| `(run|plan|status|verify)` \| (.*) \|$", guide, re.MULTILINE))
    fields = {command: set(re.findall(r"`(\w+)`", text)) - {"run"} for command, text in rows.items()}
    for command, named in fields.items():
        done = (
            toy.call(command) if command != "verify" else toy.command_line(["verify", f"store={toy.store}", "--json"])
        )
        told = done.json
        assert set(told) - {"schema_version"} <= named, command
        inner = told.get("stages") or [{}]
        assert set(inner[0]) <= named | fields["run"], command
