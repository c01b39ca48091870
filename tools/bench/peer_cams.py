"""Runs in the environment of the package grad-cam; see cams_beside_grad_cam.py.

    python peer_cams.py FOLDER

FOLDER holds ``job.json`` (model, its arguments, outputs, layer, threads, batch), ``model.safetensors``, and
``inputs.npy`` and ``labels.npy``. Each line of the standard input is a word: ``maps`` writes ``maps.npz`` (one array
[N, h, w] a method, as the package scales them, not stretched) and answers ``done``; ``run`` makes all maps once, as the
package makes them, and answers with the seconds by the clock and of the processor.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM, XGradCAM  # type: ignore[import-not-found]
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # type: ignore[import-not-found]
from safetensors.torch import load_file

METHODS = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus, "xgradcam": XGradCAM, "layercam": LayerCAM}


def load(folder: Path) -> tuple[Any, Any, list[tuple[torch.Tensor, list[Any]]]]:
    """Network, its layer, and (inputs, targets) of each batch."""
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    net = timm.create_model(job["model"], num_classes=job["outputs"], **job["model_args"]).eval()
    net.load_state_dict(load_file(folder / "model.safetensors"))
    if job["channels_last"]:
        net = net.to(memory_format=torch.channels_last)
    inputs, labels = torch.from_numpy(np.load(folder / "inputs.npy")), np.load(folder / "labels.npy").tolist()
    batches = []
    for start in range(0, len(labels), job["batch"]):
        own = slice(start, start + job["batch"])
        pixels = inputs[own]
        if job["channels_last"]:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        batches.append((pixels, [ClassifierOutputTarget(label) for label in labels[own]]))
    return net, net.get_submodule(job["layer"]), batches


def make(net: Any, layer: Any, batches: list[tuple[torch.Tensor, list[Any]]], *, stretch: bool) -> dict[str, Any]:
    """Maps of every method, each with a forward and backward of its own, which is how the package works."""
    made = {}
    for name, method in METHODS.items():
        with method(model=net, target_layers=[layer]) as maps:
            if not stretch:
                maps.get_target_width_height = lambda _: None
            made[name] = np.concatenate([maps(input_tensor=pixels, targets=targets) for pixels, targets in batches])
    return made


def main() -> None:
    """Answer line by line."""
    folder = Path(sys.argv[1])
    net, layer, batches = load(folder)
    for line in sys.stdin:
        if line.strip() == "maps":
            np.savez(folder / "maps.npz", **make(net, layer, batches, stretch=False))
            print("done", flush=True)
        else:
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            make(net, layer, batches, stretch=False)
            print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


if __name__ == "__main__":
    main()
