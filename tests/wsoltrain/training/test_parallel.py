"""Several training processes give what one gives, and end when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trained import VIT, build, lines, run_pair, tensors, trainer, words
from wsolpipe.contract.errors import ConfigError
from wsoltrain.training.parallel import Group, GroupBatchNorm, open_group, synchronised

ALL_LOSSES = {
    "crf_weight": 2e-7, "size_weight": 0.01, "larger_weight": 0.001, "cls_weight": 0.1, "ema": 0.9, "clip": 5.0,
    "amp": False,
}  # fmt: skip


def test_batch_that_cannot_be_shared_is_refused_with_one_that_can():
    with pytest.raises(ConfigError, match="batch=7 cannot be shared by 2") as caught:
        Group(0, 2).share(7)
    assert "batch=6" in str(caught.value)
    assert Group(1, 2).share(8) == 4


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = open_group("cpu")
    assert (group.rank, group.world, group.first) == (0, 1, True)
    value = torch.tensor([2.0])
    assert group.sum(value) is value


def test_processes_on_one_named_gpu_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="each takes the GPU of its number"):
        open_group("cuda:0")


@pytest.mark.parametrize(
    ("kind", "backbone", "args"),
    [("dips", "vit_tiny_patch16_224", VIT), ("dips_workshop", "resnet10t", {"channels": [8, 8, 8, 8]})],
)
def test_batch_statistics_are_shared_under_the_same_names(kind, backbone, args):
    model = build(kind, backbone, weights=None, size=32, classes=3, model_args=args)
    names = list(model.state_dict())
    synchronised(model, Group(0, 2), torch.device("cpu"))
    assert list(model.state_dict()) == names
    layers = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert layers
    assert all(isinstance(layer, GroupBatchNorm) for layer in layers)


def test_batch_statistics_that_a_cpu_cannot_share_are_refused():
    from timm.layers import BatchNormAct2d

    with pytest.raises(ConfigError, match="0 is a BatchNormAct2d"):
        synchronised(torch.nn.Sequential(BatchNormAct2d(3)), Group(0, 2), torch.device("cpu"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    from wsolpipe.networks.classifier import ClassifierRecord, ImageClassifier, save_classifier

    torch.manual_seed(0)
    statistics = ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    made = ImageClassifier(ClassifierRecord("test_resnet.r160_in1k", 5, 40, *statistics))
    path = tmp_path_factory.mktemp("classifier") / "model.safetensors"
    path.write_bytes(save_classifier(made)["model.safetensors"])
    return path


def children(process: int) -> list[int]:
    told = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(number) for number in told]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_two_processes_equal_one_also_after_one_was_killed(trainable, classifier, tmp_path):
    given = [*words(trainable, classifier=str(classifier), **ALL_LOSSES), "workers=1", "save_every=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone, both = tmp_path / "alone", tmp_path / "both"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "wsoltrain"]
    torchrun = subprocess.Popen([*launch, *given, f"out={both}"], env=environment, stderr=subprocess.PIPE)
    told, end = both / "metrics.jsonl", time.monotonic() + 200
    while not (told.exists() and told.read_text().count('"kind": "step"') >= 7):
        assert time.monotonic() < end
        assert torchrun.poll() is None, torchrun.stderr.read()
        time.sleep(0.02)
    ranks = children(torchrun.pid)
    os.kill(ranks[-1], signal.SIGKILL)
    torchrun.communicate(timeout=60)
    assert torchrun.returncode != 0
    assert not any(alive(rank) for rank in ranks)
    again = run_pair([*given, f"out={both}"])
    assert again.returncode == 0, again.stderr
    assert "resumed at step 6" in again.stderr
    assert again.stdout.count("15 steps") == 1  # the first process alone tells
    trainer(trainable, alone, classifier=str(classifier), **ALL_LOSSES).fit()
    expected, got = tensors(alone / "last.safetensors"), tensors(both / "last.safetensors")
    assert expected.keys() == got.keys()
    assert any(name.startswith("average.") for name in got)
    for name, value in expected.items():
        torch.testing.assert_close(
            got[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    final = [{line["step"]: line for line in lines(out, "step")} for out in (alone, both)]
    assert final[0].keys() == final[1].keys() == set(range(1, 16))
    for step, line in final[0].items():
        for name, value in line.items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=1e-4)
            assert final[1][step][name] == same, (step, name)
    assert {"pixels", "crf", "size", "larger", "judged"} <= final[0][15].keys()
    assert {line["annotator"] for line in lines(both, "val")} == {"proposals"}
