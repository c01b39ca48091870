"""Throughput of the stage ``proposals`` against the bare forward of its classifier.

A: the classifier on the very crops that the stage composites, normalised tensors in memory. B: the whole stage, from
image files and stored maps to ranked boxes. Same batch, dtype, memory format, threads and ``inference_mode``. The
classifier's weights are random: timings do not depend on them; the maps are real where the weights for them are found.

    python tools/bench/proposals.py [--images FOLDER] [--rows 32] [--model resnet50] [--batch 32]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ab import compare, show_parts
from figures import report
from prepare import NETWORK, photographs, read_options, rows_of, shared_folder, write_classifier

from wsolpipe.contract.schema import Status
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import resize
from wsolpipe.models.weight_sources import resolve
from wsolpipe.ops.candidates import find_candidates
from wsolpipe.ops.perturb import blur, blur_matrix, keep_boxes
from wsolpipe.stages.base import Context, Rows, Upstream
from wsolpipe.stages.cls_maps import ClsMaps
from wsolpipe.stages.proposals import Proposals
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from wsolpipe.networks.classifier import ImageClassifier

DEVICES = ("cpu", "cuda")
WANTED = 0.85
VIT = "vit_tiny_patch16_224"


def main() -> int:
    """Measure, print, and return 1 where the stage is slower than it must be."""
    options = read_options(
        __doc__, images=Path, rows=32, repetitions=5, model="resnet50", batch=32, min_area=0.05,
        vit_weights=shared_folder() / f"weights/{VIT}_in1k.safetensors", **NETWORK,
    )  # fmt: skip
    torch.set_num_threads(options.threads)
    paths = photographs(options.images, options.rows)
    with tempfile.TemporaryDirectory() as folder:
        made = build_stage(options, Path(folder))

    def rows() -> Rows:
        sides = {"height": [500] * len(paths), "width": [500] * len(paths)}
        return rows_of(paths, threads=options.decoders, **sides)

    upstream = {"cls_maps": make_maps(options, rows())}
    crops = record_crops(made.classifier, lambda: made.process(rows(), upstream))
    done = rows()
    scored = made.summary(made.process(done, upstream), done)["boxes_scored"]

    def bare() -> None:
        with torch.inference_mode():
            for batch in crops:
                made.classifier(batch)

    result = compare(
        bare, lambda: made.process(rows(), upstream), repetitions=options.repetitions, device=options.device
    )
    layout = "channels_last" if made.classifier.memory_format == torch.channels_last else "contiguous"
    print(f"{options.model}, batch {options.batch}, float32, {layout}, {options.device}, {options.threads} threads,")
    print(f"{options.decoders} decoders, {os.cpu_count()} cores; {len(paths)} images, {scored} crops in {len(crops)}")
    result.show(a="bare forward", b="stage", items=scored, unit="crops")
    with torch.inference_mode():
        show_parts(parts_of(options, made.classifier, paths, upstream["cls_maps"]), scored, options.device)
    speed = result.figure("stage / bare forward", "wall", "cpu", limit=WANTED)
    return report([speed, *result.rates(a="bare forward", b="stage", items=len(paths))])


def build_stage(options: argparse.Namespace, folder: Path) -> Proposals:
    """The stage over a classifier with random weights and 1000 classes, set up."""
    write_classifier(folder, options.model)
    context = Context(
        "bench", 1000, find_device=lambda: options.device, threads=options.decoders, artifacts={"classifier": folder}
    )
    params = load_registry().params("proposals", {"batch": options.batch, "min_area": options.min_area})
    made = Proposals(params, context)  # type: ignore[arg-type]
    made.setup()
    return made


def make_maps(options: argparse.Namespace, rows: Rows) -> Upstream:
    """Class-token maps of the images: log attention of blocks 8 to 11 of a small transformer."""
    spec = str(options.vit_weights) if options.vit_weights.is_file() else "random:0"
    params = {"model": VIT, "weights": spec, "blocks": "8-11", "scale": "log"}
    weights: Any = {"model": resolve(spec)}
    context = Context("bench", find_device=lambda: options.device, weights=weights)
    stage = ClsMaps(load_registry().params("cls_maps", params), context)  # type: ignore[arg-type]
    stage.setup()
    return Upstream(stage.process(rows, {}), np.full(len(rows.numbers), Status.OK, np.uint8), {})


def record_crops(classifier: ImageClassifier, work: Callable[[], object]) -> list[torch.Tensor]:
    """Every batch that the classifier is given during `work`."""
    seen: list[torch.Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    work()
    handle.remove()
    return seen


def parts_of(
    options: argparse.Namespace, classifier: ImageClassifier, paths: list[Path], stored: Upstream
) -> dict[str, Callable[[], object]]:
    """Where the rest of the time goes, on all images."""
    images, size, maps = [decode(path.read_bytes()) for path in paths], classifier.record.size, stored.arrays["maps"]
    raw = torch.from_numpy(np.stack([resize(image, (size, size)) for image in images]))
    found = [find_candidates(own[:5], min_area=options.min_area) for own in maps]
    boxes = torch.from_numpy(np.concatenate([one.boxes for one in found])).to(options.device)
    index = torch.from_numpy(np.repeat(np.arange(len(found)), [len(one.boxes) for one in found])).to(options.device)
    matrix = blur_matrix(size, 65, 20.0).to(options.device)
    pixels = classifier.normalise(raw.to(options.device))

    def blurred() -> torch.Tensor:
        return blur(pixels, matrix, matrix).contiguous(memory_format=classifier.memory_format)

    outside, parts = blurred(), [slice(at, at + options.batch) for at in range(0, len(index), options.batch)]
    return {
        "decode": lambda: [decode(path.read_bytes()) for path in paths],
        "resize": lambda: [resize(image, (size, size)) for image in images],
        "upsample, Otsu, regions": lambda: [find_candidates(own[:5], min_area=options.min_area) for own in maps],
        "normalise": lambda: classifier.normalise(raw.to(options.device)),
        "blur": blurred,
        "composite": lambda: [keep_boxes(pixels, outside, index[part], boxes[part]) for part in parts],
    }


if __name__ == "__main__":
    sys.exit(main())
