"""Throughput of the stage ``cams`` against the bare forward and backward of its classifier.

A: the classifier on the very batches that the stage makes, normalised tensors in memory, and the gradient of one logit
of each image at the stage's layer. B: the whole stage, from image files to stored maps. Same batch, dtype, memory
format and threads. The weights are random: timings do not depend on them.

    python tools/bench/cams.py [--images FOLDER] [--rows 64] [--model resnet50] [--batch 32]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ab import compare
from figures import report
from prepare import NETWORK, photographs, read_options, rows_of, write_classifier

from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.cams import Cams
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    import argparse

DEVICES = ("cpu", "cuda")
WANTED = 0.8
METHODS = ["cam", "gradcam", "gradcam++", "xgradcam", "layercam", "nl-ccam"]


def main() -> int:
    """Measure, print, and return 1 where the stage is slower than it must be."""
    options = read_options(
        __doc__, images=Path, rows=64, repetitions=5, model="resnet50", batch=32, weights="random:0", **NETWORK
    )
    torch.set_num_threads(options.threads)
    paths = photographs(options.images, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        stage = build_stage(options, Path(folder))
    batches = recorded(stage, rows_of(paths, threads=options.decoders))

    def bare() -> None:
        for inputs in batches:
            stage.maker(inputs).gradients(torch.zeros(len(inputs), 1, dtype=torch.int64, device=inputs.device))

    def staged() -> None:
        stage.process(rows_of(paths, threads=options.decoders), {})

    result = compare(bare, staged, repetitions=options.repetitions, device=options.device)
    layout = "channels_last" if stage.classifier.memory_format == torch.channels_last else "contiguous"
    print(f"{options.model}, batch {options.batch}, float32, {layout}, {options.device}, {options.threads} threads,")
    print(f"{options.decoders} decoders, {os.cpu_count()} cores; {len(METHODS)} methods: {', '.join(METHODS)}")
    sides: dict[str, Any] = {"a": "bare forward-backward", "b": "stage", "items": len(paths)}
    result.show(**sides)
    return report([result.figure("stage / bare forward-backward", "wall", "cpu", limit=WANTED), *result.rates(**sides)])


def build_stage(options: argparse.Namespace, folder: Path) -> Cams:
    """The stage over a classifier with 1000 classes, set up."""
    write_classifier(folder, options.model, options.weights)
    context = Context("bench", 1000, find_device=lambda: options.device, artifacts={"classifier": folder})
    params = load_registry().params("cams", {"methods": METHODS, "batch": options.batch})
    stage = Cams(params, context)  # type: ignore[arg-type]
    stage.setup()
    return stage


def recorded(stage: Cams, rows: Rows) -> list[torch.Tensor]:
    """Normalised batches that the stage makes of these rows."""
    batches: list[torch.Tensor] = []
    plain = stage.classifier.normalise

    def keep(images: torch.Tensor) -> torch.Tensor:
        batches.append(plain(images))
        return batches[-1]

    stage.classifier.normalise = keep  # type: ignore[method-assign]
    stage.process(rows, {})
    stage.classifier.normalise = plain  # type: ignore[method-assign]
    return batches


if __name__ == "__main__":
    sys.exit(main())
