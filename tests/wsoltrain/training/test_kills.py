"""Training that is killed again and again ends with the bytes of training that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partialmethod

import pytest
import torch

from trained import lines, tensors, words
from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.engine.leases import Leases
from wsoltrain.training import checkpoint
from wsoltrain.training.run_folder import hold

CHAIN = """
import json, os, random, signal, sys, time
from pathlib import Path
from types import SimpleNamespace

import numcodecs, pandas, timm, torch, wsoltrain.methods.dips  # what each child would import again
import numpy as np
import PIL.Image
from trained import trainer
from wsolpipe.metrics import iou_curves
from wsoltrain.losses.crf import crf_loss

given = json.loads(sys.argv[1])
PIL.Image.init()
torch.set_num_threads(1)
for contours in ("largest", "all"):  # what is compiled is loaded once, and not by each child
    iou_curves(np.eye(9)[None], [np.array([[0, 0, 4, 4.0]])], contours=contours, threads=1)
crf_loss(torch.rand(1, 2, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8), sums_to_one=True).backward()
store = SimpleNamespace(url=given["url"], root=given["root"])


class Killer:
    def __init__(self, kind, step):
        self.at = (kind, step)

    def write(self, kind, step, figures):
        if (kind, step) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self):
        pass


def train(out, killer=None, seconds=None):
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert sum(not name.startswith("jemalloc") for name in threads) == 1  # pyarrow's, which provides for forks
    child = os.fork()
    if not child:
        run = trainer(store, Path(out), clip=1.0, ema=0.9)
        run.trackers += [killer] if killer else []
        run.fit()
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL), f"a trainer failed with {ended}"
    return ended != 0


assert not train(given["whole"])
points = [("step", step) for step in range(1, 16)]
for kind, step in sorted([*points, ("val", 10), ("val", 15)], key=lambda point: (point[1], point[0])):
    print(kind, step, train(given["stepwise"], Killer(kind, step)), flush=True)
assert not train(given["stepwise"])
chance = random.Random(0)
for _ in range(2):
    train(given["timed"], seconds=chance.uniform(0.1, 1.2))
assert not train(given["timed"])
"""


@pytest.mark.slow
def test_killed_at_every_step_training_ends_with_the_same_bytes(repo, trainable, tmp_path):
    given = {name: str(tmp_path / name) for name in ("whole", "stepwise", "timed")}
    given |= {"url": trainable.url, "root": trainable.root}
    found = [str(repo / "tests"), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}
    done = subprocess.run(
        [sys.executable, "-c", CHAIN, json.dumps(given)], env=environment,
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("True") == 17  # each step of head and maps, and each evaluation, ended its process
    expected = tensors(tmp_path / "whole/last.safetensors")
    assert {name.partition(".")[0] for name in expected} == {"model", "average", "optimiser"}
    for other in ("stepwise", "timed"):
        for file in ("last.safetensors", "best-proposals.safetensors"):
            expected, got = tensors(tmp_path / "whole" / file), tensors(tmp_path / other / file)
            assert expected.keys() == got.keys()
            assert all(torch.equal(value, got[name]) for name, value in expected.items()), (other, file)
            whole, state = (checkpoint.state_of(tmp_path / run / file) for run in ("whole", other))
            assert state == whole
        told = [{line["step"]: line for line in lines(tmp_path / run, "step")} for run in ("whole", other)]
        assert told[0] == told[1]


def test_a_run_folder_is_held_by_one_training_and_taken_over_from_a_dead_one(trainable, tmp_path):
    """A second fit is refused before it writes anything; after a kill the next one resumes at once."""
    holding = (
        "import time; from pathlib import Path; from wsoltrain.training.run_folder import hold\n"
        f"with hold(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(600)"
    )
    first = subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    from wsoltrain.runs.many import train_words

    given = [*words(trainable, epochs=1, head_epochs=0)[1:], f"out={tmp_path}", "workers=0"]
    with pytest.raises(ConfigError, match=rf"held by another training: process {first.pid} on"):
        train_words(given)
    assert [path.name for path in tmp_path.iterdir()] == ["run.lease"]
    first.kill()
    first.wait()
    train_words(given)
    assert (tmp_path / "best-proposals.safetensors").exists()
    assert not (tmp_path / "run.lease").exists()


def test_a_lease_of_another_machine_is_taken_over_once_it_is_not_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(Leases, "__init__", partialmethod(Leases.__init__, ttl=0.2))
    owner = {"host": "far", "boot": "other", "pids": "other", "pid": 7, "started": "1", "token": "t"}
    (tmp_path / "run.lease").write_text(json.dumps({"owner": owner, "ttl": 0.2, "beat": 0}))
    with hold(tmp_path) as lock:
        assert not lock.lease.lost
        lock.lease.lost = True
        with pytest.raises(RunFailed, match="taken over by another training at step 3"):
            lock.write("step", 3, {})
