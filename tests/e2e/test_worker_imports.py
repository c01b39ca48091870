"""What a worker imports: torch takes seconds, and a stage that asks for no device needs none of it."""

from __future__ import annotations

import json
import subprocess
import sys

WORK = """
import sys, threading
sys.path[:0] = {path!r}
from wsolpipe.cli.command import configure
from wsolpipe.engine.session import Session
from wsolpipe.engine.worker import Worker
config, _ = configure(sys.argv[1:])
Worker(Session.open(config), lambda event: None, threading.Event()).run()
print("torch" in sys.modules)
"""


def test_a_worker_of_a_stage_without_a_device_imports_no_torch(toy):
    words = ["limit=4", "device=auto"]
    assert toy.run("limit=4", stage="index").code == 0
    argv = [sys.executable, "-c", WORK.format(path=sys.path), *toy.words(*words, stage="shade")]
    done = subprocess.run(argv, env=toy.env(), capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
    (commit,) = toy.store.glob("toy/train/shade/*/commits/*")
    assert json.loads(commit.read_bytes())["device"] == "cpu"


def test_a_plan_waits_for_nothing_that_only_workers_need(toy):
    """pyarrow alone costs a quarter of the time of a plan."""
    assert toy.run("limit=4", stage="index").code == 0
    ask = "import sys; from wsolpipe.cli.main import main; main()"
    tell = "import atexit, sys; atexit.register(lambda: print({'pyarrow', 'torch'} & set(sys.modules)))"
    argv = [sys.executable, "-c", f"{tell}; sys.path[:0] = {sys.path!r}; {ask}", "plan", *toy.words("limit=4")]
    done = subprocess.run(argv, env=toy.env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
