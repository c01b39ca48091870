"""Throughput of the stage ``cams`` against the bare forward and backward of its classifier.

A: the classifier on the very batches that the stage makes, normalised tensors in memory, and the gradient of one logit
of each image at the stage's layer. B: the whole stage, from image files to stored maps. Same batch, dtype, memory
format and threads. The weights are random: timings do not depend on them.

    python tools/bench/cams.py --images ../shared/data/cub10
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ab import compare
from figures import report
from photographs import add_network, make_parser, parse

from wsolpipe.images.decode import decode
from wsolpipe.models.weight_sources import resolve
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.cams import Cams
from wsolpipe.stages.classifier import Classifier
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    import argparse

DEVICES = ("cpu", "cuda")
WANTED = 0.8
METHODS = ["cam", "gradcam", "gradcam++", "xgradcam", "layercam", "nl-ccam"]


def main() -> int:
    """Measure, print, and return 1 where the stage is slower than it must be."""
    options = read_options()
    torch.set_num_threads(options.threads)
    names = (options.images / "image_ids.txt").read_text().split()[: options.rows]
    paths = [options.images / "images" / name for name in names]
    with tempfile.TemporaryDirectory() as folder:
        stage = build_stage(options, Path(folder))
    batches = recorded(stage, rows_of(options, paths))

    def bare() -> None:
        for inputs in batches:
            run = stage.maker(inputs)
            run.gradients(torch.zeros(len(inputs), 1, dtype=torch.int64, device=inputs.device))
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()

    result = compare(bare, lambda: stage.process(rows_of(options, paths), {}), repetitions=options.repetitions)
    layout = "channels_last" if stage.classifier.memory_format == torch.channels_last else "contiguous"
    print(
        f"{options.model}, batch {options.batch}, float32, {layout}, {options.device}, {options.threads} threads, "
        f"{options.decoders} decoders, {os.cpu_count()} cores; {len(METHODS)} methods: {', '.join(METHODS)}"
    )
    print("\n".join(result.lines(a="bare forward-backward", b="stage", items=len(paths), unit="images")))
    rates = result.rates(a="bare forward-backward", b="stage", items=len(paths))
    return report([result.figure("stage / bare forward-backward", "wall", "cpu", limit=WANTED), *rates])


def read_options() -> argparse.Namespace:
    """Command line; the images may also be found through WSOLPIPE_SHARED."""
    parser = make_parser(__doc__, rows=64)
    add_network(parser, model="resnet50", batch=32)
    parser.add_argument("--weights", default="random:0")
    return parse(parser)


def build_stage(options: argparse.Namespace, folder: Path) -> Cams:
    """The stage over a classifier with random weights and 1000 classes, set up."""
    registry: Any = load_registry()
    params = registry.params("classifier", {"model": options.model, "weights": options.weights, "measure": []})
    weights: dict[str, Any] = {name: resolve(spec) for name, spec in Classifier.weights_needed(params).items()}
    made = Classifier(params, Context(dataset="bench", classes=1000, weights=weights)).produce({})
    for name, content in made.files.items():
        (folder / name).write_bytes(content)
    context = Context(
        dataset="bench", classes=1000, find_device=lambda: options.device, artifacts={"classifier": folder}
    )
    stage = Cams(registry.params("cams", {"methods": METHODS, "batch": options.batch}), context)
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


def rows_of(options: argparse.Namespace, paths: list[Path]) -> Rows:
    """A block that decodes its files anew; labels are any."""
    columns = {"labels": [[row % 1000] for row in range(len(paths))]}
    return Rows(np.arange(len(paths)), columns, lambda row: decode(paths[row].read_bytes()), threads=options.decoders)


if __name__ == "__main__":
    sys.exit(main())
