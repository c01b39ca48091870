"""The stage ``cams`` beside the package grad-cam: the same maps where the definitions agree, and throughput.

A: grad-cam, in a process of its own environment, one method after the other on normalised tensors in memory, without
stretching its maps to the image. B: the whole stage, from image files to stored maps, with two methods more. The same
network, weights, images, targets, batch and threads; in turns. Maps are compared at the layer's own resolution after
ReLU and min-max, which is what grad-cam gives.

    make .venv-bench/.installed   # once
    python tools/bench/cams_beside_grad_cam.py [--model resnet50 --layer layer4 --weights random:0]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ab import Timing, compare
from figures import Figure, report
from prepare import NETWORK, peer, photographs, read_options, rows_of, shared_folder, write_classifier
from stage_speed import METHODS, recorded, set_up

from wsolpipe.stages.cams import Cams

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

WANTED = 3.0
#: Greatest difference of maps scaled to 0..1 that counts as equal.
EQUAL = 1e-4
PEER_SCRIPT = Path(__file__).with_name("peer_cams.py")
SHARED = ("gradcam", "gradcam++", "xgradcam", "layercam")


def main() -> int:
    """Compare, print, and return 1 where maps that should be equal are not, or the stage is not fast enough."""
    weights = shared_folder() / "weights/mobilenetv2_100_tf_in1k.safetensors"
    options = read_options(
        __doc__, images=Path, rows=32, repetitions=3, model="mobilenetv2_100", batch=16, layer="bn2",
        weights=str(weights) if weights.is_file() else "random:0", **NETWORK,
    )  # fmt: skip
    python = peer("python")
    torch.set_num_threads(options.threads)
    paths = photographs(options.images, options.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_classifier(folder, options.model, options.weights)
        params = {"methods": METHODS, "batch": options.batch}
        stage: Cams = set_up(Cams, "cams", params, options, artifacts={"classifier": folder})
        batches = recorded(stage, rows_of(paths, threads=options.decoders))
        labels = [row % 1000 for row in range(len(paths))]
        inputs = torch.cat(batches)[: len(paths)]
        write_job(folder, stage, options, inputs, labels)
        with grad_cam(python, folder) as ask:
            ask("maps")
            apart = print_differences(dict(np.load(folder / "maps.npz")), our_maps(stage, inputs, labels))
            result = compare(
                lambda: Timing(*json.loads(ask("run"))),
                lambda: stage.process(rows_of(paths, threads=options.decoders), {}),
                repetitions=options.repetitions,
            )
    print(f"{options.model}, batch {options.batch}, {options.threads} threads; grad-cam makes {', '.join(SHARED)};")
    print(f"the stage {', '.join(METHODS)}")
    result.show(a="grad-cam", b="stage", items=len(paths))
    speed = result.figure("stage / grad-cam", "wall", "cpu", limit=WANTED)
    return report([speed, Figure(name="greatest difference from its maps", value=apart, limit=EQUAL, at_most=True)])


def write_job(folder: Path, stage: Cams, options: argparse.Namespace, inputs: torch.Tensor, labels: list[int]) -> None:
    """Write what the other process needs beside the classifier's file, which is a plain timm state."""
    record = stage.classifier.record
    job = {
        "model": record.model,
        "model_args": dict(record.model_args),
        "outputs": record.outputs,
        "layer": options.layer,
        "threads": options.threads,
        "batch": options.batch,
        "channels_last": stage.classifier.memory_format == torch.channels_last,
    }
    (folder / "job.json").write_text(json.dumps(job))
    np.save(folder / "inputs.npy", inputs.contiguous().numpy())
    np.save(folder / "labels.npy", np.array(labels))


@contextmanager
def grad_cam(python: Path, folder: Path) -> Iterator[Any]:
    """A function that sends the other process a word and gives its answer."""
    command = [str(python), str(PEER_SCRIPT), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(word: str) -> str:
            print(word, file=process.stdin, flush=True)
            answer = process.stdout.readline() if process.stdout else ""
            if not answer:
                sys.exit(f"{' '.join(command)} ended with {process.wait()}")
            return answer

        yield ask
        process.stdin.close()


def our_maps(stage: Cams, inputs: torch.Tensor, labels: list[int]) -> dict[str, Any]:
    """Maps of the same inputs by the stage's own functions; ``gradcam++ + 1e-6`` has grad-cam's constant in it."""
    from wsolpipe.ops import cam as ops

    run = stage.maker(inputs)
    gradients, features = run.gradients(torch.tensor(labels)[:, None]), run.features
    made = {
        "gradcam": ops.gradcam(features, gradients),
        "gradcam++": ops.gradcam_plus_plus(features, gradients),
        "xgradcam": ops.xgradcam(features, gradients),
        "layercam": ops.layercam(features, gradients),
        "gradcam++ + 1e-6": with_constant(features, gradients),
    }
    return {name: scaled(maps[:, 0].numpy()) for name, maps in made.items()}


def with_constant(features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM++ with 1e-6 added to the denominator of equation 19, and no other change."""
    from wsolpipe.ops import cam as ops

    total = features.sum(dim=(-2, -1))[:, None, :, None, None]
    share = gradients.square() / (2 * gradients.square() + total * gradients.pow(3) + 1e-6)
    return ops.weighted(features, (share * gradients.relu()).sum(dim=(-2, -1)))


def scaled(maps: Any) -> Any:
    """ReLU, then each map [N, h, w] to 0..1."""
    positive = np.maximum(maps, 0)
    low, high = positive.min(axis=(1, 2), keepdims=True), positive.max(axis=(1, 2), keepdims=True)
    return (positive - low) / np.maximum(high - low, 1e-30)


def print_differences(theirs: dict[str, Any], ours: dict[str, Any]) -> float:
    """Print a line a method; the greatest difference of those that should be equal."""
    print(f"greatest difference of {len(theirs['gradcam'])} maps scaled to 0..1 (a storage level is 0.004)")
    worst = {}
    for name, maps in ours.items():
        apart = np.abs(maps - theirs[name.removesuffix(" + 1e-6")]).max(axis=(1, 2))
        worst[name] = float(apart.max())
        print(f"  {name:<18} {worst[name]:.2e}  (median map {np.median(apart):.2e})")
    print("  gradcam++ differs by a constant: grad-cam adds 1e-6 to the denominator of equation 19, which is not small")
    print("  beside squared gradients of 1e-8 after pooling; with it in ours as well, the maps are the same.")
    return max(value for name, value in worst.items() if name != "gradcam++")


if __name__ == "__main__":
    sys.exit(main())
