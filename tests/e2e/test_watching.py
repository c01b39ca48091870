"""What is to be seen of a run: from any shell, in its table, and in its last line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial


def test_status_is_shown_again_while_it_is_watched(toy):
    """From another shell, without a word about data set or cluster, while the run goes on."""
    runner = toy.start("shade.pause=0.3", stage="shade")
    while not list(toy.store.glob("toy/train/shade/*/commits/0.json")):
        assert runner.poll() is None
        time.sleep(0.02)
    words = [sys.executable, "-m", "wsolpipe.cli.main", "status", f"store={toy.store}", "watch=true", "every=0.1"]
    told = toy.folder / "watched.txt"
    with told.open("w") as file:
        # A shell ignores SIGINT in what it runs in the background, and a child inherits that.
        interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        watcher = subprocess.Popen(
            words, env=toy.env(PYTHONUNBUFFERED="1"), stdout=file, cwd=toy.folder, preexec_fn=interruptible
        )
    out, err = runner.communicate(timeout=120)
    assert runner.returncode == 0, err
    deadline = time.monotonic() + 60
    while "3/3" not in told.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(watcher.pid, signal.SIGINT)
    assert watcher.wait(timeout=30) == 130
    assert "3/3" in told.read_text()
    assert told.read_text().count("shade") > 1


def test_the_index_says_how_long_its_scan_took(toy):
    done = toy.run(stage="shade")
    assert done.line("index")["seconds"] > 0
    assert toy.call("status", stage="index").json["stages"][0]["seconds"] == done.line("index")["seconds"]


def test_the_last_line_of_a_run_that_failed_is_the_command_that_resumes(toy):
    done = toy.run("palette.fault=no-labels", "retries=0")
    assert done.code == 1
    last = done.err.rstrip().splitlines()[-1]
    assert last.startswith("resume with: wsolpipe run stage=frame")
    again = toy.run("retries=0")
    assert again.code == 0, again.err
