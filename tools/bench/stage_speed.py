"""Throughput of stages that run a network beside the bare network, on the very batches that the stage makes.

The network gets normalised tensors in memory; the stage begins with image files, and stored maps where it reads some,
and ends with what it stores. Both have the same batch, dtype, memory format and threads. Weights are random: timings do
not depend on them.

cams
    forward and backward of a classifier, with the gradient of one logit of each image at the stage's layer;
cls_maps
    forward of a vision transformer;
proposals
    forward of a classifier on the crops that the stage composites, of the boxes of real maps where their weights are
    found.

    python tools/bench/stage_speed.py [--only cams,cls_maps,proposals] [--images FOLDER] [--rows 64] [--batch 32]
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ab import compare
from figures import Figure, report, skip
from prepare import NETWORK, photographs, read_options, rows_of, shared_folder, write_classifier

from wsolpipe.contract.schema import Status
from wsolpipe.images.decode import decode
from wsolpipe.models.weight_sources import resolve
from wsolpipe.stages.base import Context, Rows, Upstream
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

DEVICES = ("cpu", "cuda")
METHODS = ["cam", "gradcam", "gradcam++", "xgradcam", "layercam", "nl-ccam"]
VIT = "vit_tiny_patch16_224"


@dataclass(frozen=True)
class Case:
    """A stage and its network.

    Attributes
    ----------
    bare, staged : callable
        The network on all batches, and the stage on all images.
    network : str
        What the network does.
    limit, goal : float
        Of the stage's throughput as a share of the network's.
    items : int
        Images of both; 0: all.
    """

    bare: Callable[[], object]
    staged: Callable[[], object]
    limit: float
    goal: float | None = None
    network: str = "bare forward"
    items: int = 0


def cams(options: argparse.Namespace, paths: list[Path], folder: Path) -> Case:
    """Six methods of one classifier."""
    from wsolpipe.stages.cams import Cams

    write_classifier(folder, options.classifier)
    params = {"methods": METHODS, "batch": options.batch}
    stage = set_up(Cams, "cams", params, options, artifacts={"classifier": folder})
    batches = recorded(stage, rows_of(paths, threads=options.decoders))

    def staged() -> None:
        stage.process(rows_of(paths, threads=options.decoders), {})

    def bare() -> None:
        for inputs in batches:
            stage.maker(inputs).gradients(torch.zeros(len(inputs), 1, dtype=torch.int64, device=inputs.device))

    return Case(bare, staged, 0.8, network="bare forward-backward")


def cls_maps(options: argparse.Namespace, paths: list[Path], _: Path) -> Case:
    """Attention of the class token; of whole batches, since padding is not what is measured."""
    from wsolpipe.stages.cls_maps import ClsMaps

    paths = paths[: len(paths) // options.batch * options.batch]
    if not paths:
        skip(f"fewer than {options.batch} images; lower --batch")
    params = {"model": options.vit, "weights": "random:0", "batch": options.batch}
    made = set_up(ClsMaps, "cls_maps", params, options, weights={"model": resolve("random:0")})
    pixels = np.stack([made.fit(decode(path.read_bytes()), 0) for path in paths])
    batches = [made.normalise(pixels[at : at + options.batch]) for at in range(0, len(paths), options.batch)]

    def bare() -> None:
        with torch.inference_mode():
            for images in batches:
                made.reader.vit(images)

    return Case(bare, lambda: made.process(rows_of(paths, threads=options.decoders), {}), 0.9, 0.97, items=len(paths))


def proposals(options: argparse.Namespace, paths: list[Path], folder: Path) -> Case:
    """Boxes of five maps an image, scored by a classifier; half of the images, which have many crops each."""
    from wsolpipe.stages.cls_maps import ClsMaps
    from wsolpipe.stages.proposals import Proposals

    paths = paths[: max(1, len(paths) // 2)]
    write_classifier(folder, options.classifier)
    params = {"batch": options.batch, "min_area": 0.05}
    made = set_up(Proposals, "proposals", params, options, artifacts={"classifier": folder})
    sides = {"height": [500] * len(paths), "width": [500] * len(paths)}

    def rows() -> Rows:
        return rows_of(paths, threads=options.decoders, **sides)

    real = shared_folder() / f"weights/{VIT}_in1k.safetensors"
    spec = str(real) if real.is_file() else "random:0"
    params = {"model": VIT, "weights": spec, "blocks": "8-11", "scale": "log"}
    maps = set_up(ClsMaps, "cls_maps", params, options, weights={"model": resolve(spec)}).process(rows(), {})
    upstream = {"cls_maps": Upstream(maps, np.full(len(paths), Status.OK, np.uint8), {})}
    crops: list[torch.Tensor] = []
    hook = made.classifier.register_forward_pre_hook(lambda _, inputs: crops.append(inputs[0]))
    made.process(rows(), upstream)
    hook.remove()
    print(f"{sum(map(len, crops))} crops of {len(paths)} images in {len(crops)} batches")

    def bare() -> None:
        with torch.inference_mode():
            for batch in crops:
                made.classifier(batch)

    return Case(bare, lambda: made.process(rows(), upstream), 0.85, items=len(paths))


CASES = {"cams": cams, "cls_maps": cls_maps, "proposals": proposals}


def set_up(kind: Any, name: str, params: dict[str, Any], options: argparse.Namespace, **given: Any) -> Any:
    """A stage of 1000 classes, ready."""
    context = Context("bench", 1000, find_device=lambda: options.device, threads=options.decoders, **given)
    made = kind(load_registry().params(name, params), context)
    made.setup()
    return made


def recorded(stage: Any, rows: Rows) -> list[torch.Tensor]:
    """Normalised batches that the stage ``cams`` makes of these rows."""
    batches: list[torch.Tensor] = []
    plain = stage.classifier.normalise

    def keep(images: torch.Tensor) -> torch.Tensor:
        batches.append(plain(images))
        return batches[-1]

    stage.classifier.normalise = keep
    stage.process(rows, {})
    stage.classifier.normalise = plain
    return batches


def measure(name: str, options: argparse.Namespace, paths: list[Path]) -> list[Figure]:
    """Figures of a stage."""
    with tempfile.TemporaryDirectory() as folder:
        case = CASES[name](options, paths, Path(folder))
    found = compare(case.bare, case.staged, repetitions=options.repetitions, device=options.device)
    sides: dict[str, Any] = {"a": f"{case.network} of {name}", "b": name, "items": case.items or len(paths)}
    found.show(**sides)
    speed = found.figure(f"{name} / {case.network}", "wall", "cpu", limit=case.limit, goal=case.goal)
    return [speed, *found.rates(**sides)]


def main() -> int:
    """Measure, print, and return 1 where a stage is slower than it must be."""
    options = read_options(
        __doc__, only=",".join(CASES), images=Path, rows=64, repetitions=5, batch=32, classifier="resnet50",
        vit="vit_small_patch16_224.dino", **NETWORK,
    )  # fmt: skip
    torch.set_num_threads(options.threads)
    paths = photographs(options.images, options.rows)
    print(f"batch {options.batch}, float32, {options.device}, {options.threads} threads, {options.decoders} decoders,")
    print(f"{os.cpu_count()} cores, {options.classifier}, {options.vit}")
    return report([figure for name in options.only.split(",") for figure in measure(name, options, paths)])


if __name__ == "__main__":
    sys.exit(main())
