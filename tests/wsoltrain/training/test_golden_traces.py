"""Training gives the numbers that were recorded before methods were separated from the loop: losses, thresholds, bytes.

``golden_traces.json`` holds for each method the losses of the first 20 steps, the chosen threshold and digests of both
checkpoints of a short run on a drawn store. It was recorded with the commit that its ``recorded`` field names, and
again when samplers, CRF weight, U-Net start and selection were mended. On the machine kind that it was recorded on
(torch version, CPU model and instruction set) numbers must be equal to the last bit. Elsewhere rounding differs, and
training multiplies the difference by about ten a step (measured between AVX2 and AVX512: 1e-7 at a phase's first step,
1e-4 after three, 0.2 after fifteen): there the first steps of each phase are compared within `RTOL`, and neither
thresholds nor digests.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stores import build_store
from trained import lines, tensors
from wsoltrain.inference.model import load_trained
from wsoltrain.training import checkpoint

FILE = Path(__file__).with_name("golden_traces.json")
STEPS = 20
RUN = """
import json, os, sys
import numcodecs, pandas, timm, torch  # what each child would import again
import wsolpipe.metrics.sweep, wsoltrain.inference.model, wsoltrain.losses.crf_loops, wsoltrain.methods.dips
from wsoltrain.cli.main import main
from wsoltrain.training import loop, settings
settings.VALIDATION_THRESHOLDS = 200
for words in json.load(sys.stdin):
    child = os.fork()
    if not child:
        try:
            main(words)
        except SystemExit as ended:
            sys.stderr.flush()
            os._exit(ended.code or 0)  # taking down what the parent imported takes as long as a training
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{words} failed")
"""
"""wsoltrain with as many thresholds on validation as the traces were recorded with, each training in a fork."""
RTOL = (1e-5, 1e-3, 1e-2)
"""Of a loss in the first steps of a phase, on a machine of another kind."""
VIT = {"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "qk_norm": True}
DEMO_VIT = {
    "backbone": "vit_tiny_patch16_224", "model_args": VIT, "weights": "data:demo/weights/demo_vit.safetensors",
    "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "size": 96, "crf_weight": 4e-6, "crf_sigma_xy": 43,
    "crf_scale": 0.5, "batch": 8, "epochs": 3, "head_epochs": 1, "lr": 0.1,
}  # fmt: skip
DEMO_CNN = {
    "backbone": "resnet10t", "model_args": {"channels": [32, 48, 96, 160], "stem_width": 16, "out_indices": [0, 1]},
    "weights": "data:demo/weights/demo_cnn.safetensors", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": 64,
    "temperature": 10, "crf_weight": 2e-5, "crf_sigma_xy": 28, "crf_scale": 0.5, "batch": 8, "epochs": 4, "lr": 0.02,
}  # fmt: skip
PIXELS = {"n_fg": 100, "n_bg": 200, "fg_share": 0.3, "bg_share": 0.9}
CASES = {
    "dips": ["recipe=dips", DEMO_VIT, {"schedule": "cosine", "ema": 0.9, "clip": 5.0}],
    "dips_workshop": ["recipe=dips_workshop", DEMO_CNN, {"larger_weight": 1e-5, "cls_weight": 0.3, "lr_step": 2}],
    "trcam": ["recipe=trcam", DEMO_VIT, {"maps": "cls_maps", "lr_step": 1}],
    "trcam_attention": ["recipe=trcam", DEMO_VIT, {"maps": "cls_maps", "model": "trcam_attention", "lr_step": 2}],
}


def words(name, classifier):
    recipe, shared, own = CASES[name]
    pixels = PIXELS | ({"top_n": 2} if name.startswith("dips") else {})
    keys = {**shared, **own, "pixels": pixels}
    if "cls_weight" in keys:
        keys["classifier"] = str(classifier)
    return [recipe, *(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in keys.items())]


def make_inputs(folder):
    """Write the store, the data set's YAML and a classifier, all drawn from seeds; the first words of every run."""
    import timm

    for split in ("train", "val"):  # the same images, as in `trainable`
        build_store(folder, rows=40, sizes=(30, 50), split=split)
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=5)
    record = {"model": "test_resnet.r160_in1k", "outputs": 5, "size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    save_file(net.state_dict(), folder / "model.safetensors", metadata={"wsolpipe.classifier": json.dumps(record)})
    return [f"store={folder}/store", f"dataset={folder}/tiny.yaml", "workers=0", "device=cpu", "gt=true"]


def digest(path):
    """sha256 of names, shapes and bytes of a checkpoint's tensors."""
    total = hashlib.sha256()
    for name, value in sorted(tensors(path).items()):
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode() + value.contiguous().numpy().tobytes())
    return total.hexdigest()


def train_all(given, folder):
    """Train every case, each into the folder of its name."""
    # In processes of their own: what ran before in this one must not change rounding.
    cases = [["fit", *given, f"out={folder / name}", *words(name, folder / "model.safetensors")] for name in CASES]
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(cases), env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def trace(out):
    """What is recorded of a training."""
    steps = lines(out, "step")[:STEPS]
    best = checkpoint.state_of(out / "best-proposals.safetensors")
    return {
        "steps": [{key: value for key, value in step.items() if key not in ("kind", "step")} for step in steps],
        "val": [{key: value for key, value in line.items() if key != "kind"} for line in lines(out, "val")],
        "best": {key: best[key] for key in ("epoch", "tau", "score")},
        "digests": {file: digest(out / f"{file}.safetensors") for file in ("best-proposals", "last")},
    }


def machine():
    """What must be equal for numbers to be equal to the last bit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return {
        "torch": torch.__version__,
        "cpu": ", ".join(sorted(models)),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def check_recorded_state(state, folder, out):
    """Load the run's tensors under the header that the recorded run wrote: an old checkpoint in all that matters."""
    if state["recipe"]["classifier"] is not None:
        state["recipe"]["classifier"] = str(folder / "model.safetensors")
    old = out / "old.safetensors"
    values = tensors(out / "best-proposals.safetensors")
    save_file(values, old, metadata={"format": "wsoltrain/1", "state": json.dumps(state)})
    trained = load_trained(str(old), device=torch.device("cpu"))
    assert (trained.tau, trained.class_names) == (state["tau"], state["class_names"])
    for name, value in trained.model.saved().items():
        assert torch.equal(value, values[f"model.{name}"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a classifier, and a run of each case."""
    made = tmp_path_factory.mktemp("golden")
    train_all(make_inputs(made), made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_losses_thresholds_and_checkpoints_are_those_that_were_recorded(name, folder):
    golden = json.loads(FILE.read_text())
    expected, got = golden["traces"][name], trace(folder / name)
    assert len(got["steps"]) == STEPS
    check_recorded_state(golden["states"][name], folder, folder / name)
    if machine() == golden["machine"]:
        assert got == expected
        return
    for phase in ("head", "maps"):
        both = zip(got["steps"], expected["steps"], strict=True)
        pairs = [(own, recorded) for own, recorded in both if recorded["phase"] == phase]
        assert all(own.keys() == recorded.keys() for own, recorded in pairs)
        for rtol, (own, recorded) in zip(RTOL, pairs, strict=False):
            for key, value in recorded.items():
                assert own[key] == (value if isinstance(value, str) else pytest.approx(value, rel=rtol, abs=rtol)), key
    assert [line["epoch"] for line in got["val"]] == [line["epoch"] for line in expected["val"]]
