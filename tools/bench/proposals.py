"""Throughput of the stage ``proposals`` against the bare forward of its classifier.

A: the classifier on the very crops that the stage composites, normalised tensors in memory. B: the whole stage, from
image files and stored maps to ranked boxes. Same batch, dtype, memory format, threads and ``inference_mode``. The
classifier's weights are random: timings do not depend on them; the maps are real where the weights for them are found.

    python tools/bench/proposals.py --images ../shared/data/cub10
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ab import compare
from figures import report
from photographs import add_network, make_parser, parse, shared_folder

from wsolpipe.contract.schema import Status
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import resize
from wsolpipe.models.weight_sources import resolve
from wsolpipe.ops.candidates import find_candidates
from wsolpipe.ops.perturb import blur, blur_matrix, keep_boxes
from wsolpipe.stages.base import Context, Rows, Upstream
from wsolpipe.stages.classifier import Classifier
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
    options = read_options()
    torch.set_num_threads(options.threads)
    names = (options.images / "image_ids.txt").read_text().split()[: options.rows]
    paths = [options.images / "images" / name for name in names]
    with tempfile.TemporaryDirectory() as folder:
        made = build_stage(options, Path(folder))
    upstream = {"cls_maps": make_maps(options, paths)}
    classifier = made.classifier
    crops = record_crops(classifier, lambda: made.process(rows_of(options, paths), upstream))
    done = rows_of(options, paths)
    scored = made.summary(made.process(done, upstream), done)["boxes_scored"]

    def bare() -> None:
        with torch.inference_mode():
            for batch in crops:
                classifier(batch)
        wait(options.device)

    result = compare(bare, lambda: made.process(rows_of(options, paths), upstream), repetitions=options.repetitions)
    layout = "channels_last" if classifier.memory_format == torch.channels_last else "contiguous"
    print(
        f"{options.model}, batch {options.batch}, float32, {layout}, {options.device}, "
        f"{options.threads} torch threads, {options.decoders} decoding threads, "
        f"{os.cpu_count()} cores; {len(paths)} images, {scored} crops "
        f"in {len(crops)} full batches"
    )
    print("\n".join(result.lines(a="bare forward", b="stage", items=scored, unit="crops")))
    print_parts(options, classifier, paths, upstream["cls_maps"].arrays["maps"], scored)
    rates = result.rates(a="bare forward", b="stage", items=len(paths))
    return report([result.figure("stage / bare forward", "wall", "cpu", limit=WANTED), *rates])


def read_options() -> argparse.Namespace:
    """Command line; the images may also be found through WSOLPIPE_SHARED."""
    parser = make_parser(__doc__, rows=32)
    add_network(parser, model="resnet50", batch=32)
    parser.add_argument(
        "--vit-weights",
        type=Path,
        default=shared_folder() / f"weights/{VIT}_in1k.safetensors",
        help=f"of {VIT}, for the maps",
    )
    parser.add_argument("--min-area", type=float, default=0.05)
    return parse(parser)


def wait(device: str) -> None:
    """Wait until the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def weights_of(needed: dict[str, str]) -> dict[str, Any]:
    """Resolved weights by name."""
    return {name: resolve(spec) for name, spec in needed.items()}


def build_stage(options: argparse.Namespace, folder: Path) -> Proposals:
    """The stage over a classifier with random weights and 1000 classes, set up."""
    registry: Any = load_registry()
    params = registry.params("classifier", {"model": options.model, "weights": "random:0", "measure": []})
    context = Context(dataset="bench", classes=1000, weights=weights_of(Classifier.weights_needed(params)))
    for name, content in Classifier(params, context).produce({}).files.items():
        (folder / name).write_bytes(content)
    made = Proposals(
        registry.params("proposals", {"batch": options.batch, "min_area": options.min_area}),
        Context(
            dataset="bench",
            classes=1000,
            find_device=lambda: options.device,
            threads=options.decoders,
            artifacts={"classifier": folder},
        ),
    )
    made.setup()
    return made


def rows_of(options: argparse.Namespace, paths: list[Path]) -> Rows:
    """A block that decodes its files anew; labels are any."""
    count = len(paths)
    columns: dict[str, list[Any]] = {"labels": [[row % 1000] for row in range(count)]}
    columns |= {"height": [500] * count, "width": [500] * count}
    return Rows(np.arange(count), columns, lambda row: decode(paths[row].read_bytes()), threads=options.decoders)


def make_maps(options: argparse.Namespace, paths: list[Path]) -> Upstream:
    """Class-token maps of the images: log attention of blocks 8 to 11 of a small transformer."""
    found = options.vit_weights.is_file()
    spec = str(options.vit_weights) if found else "random:0"
    if not found:
        print(f"no {options.vit_weights}: maps of random weights", file=sys.stderr)
    registry: Any = load_registry()
    params = registry.params("cls_maps", {"model": VIT, "weights": spec, "blocks": "8-11", "scale": "log"})
    stage = ClsMaps(
        params, Context(dataset="bench", find_device=lambda: options.device, weights=weights_of({"model": spec}))
    )
    stage.setup()
    return Upstream(stage.process(rows_of(options, paths), {}), np.full(len(paths), Status.OK, np.uint8), {})


def record_crops(classifier: ImageClassifier, work: Callable[[], object]) -> list[torch.Tensor]:
    """Every batch that the classifier is given during `work`."""
    seen: list[torch.Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    work()
    handle.remove()
    return seen


def print_parts(
    options: argparse.Namespace, classifier: ImageClassifier, paths: list[Path], maps: np.ndarray, scored: int
) -> None:
    """Print where the rest goes: each part alone, CPU milliseconds a crop."""
    images = [decode(path.read_bytes()) for path in paths]
    size = classifier.record.size
    squashed = np.stack([resize(image, (size, size)) for image in images])
    found = [find_candidates(own[:5], min_area=options.min_area) for own in maps]
    boxes = torch.from_numpy(np.concatenate([one.boxes for one in found])).to(options.device)
    index = torch.from_numpy(np.repeat(np.arange(len(found)), [len(one.boxes) for one in found])).to(options.device)
    matrix = blur_matrix(size, 65, 20.0).to(options.device)
    with torch.inference_mode():
        raw = torch.from_numpy(squashed)
        pixels = classifier.normalise(raw.to(options.device))

        def blurred() -> torch.Tensor:
            return blur(pixels, matrix, matrix).contiguous(memory_format=classifier.memory_format)

        outside, starts = blurred(), range(0, len(index), options.batch)
        parts: dict[str, Callable[[], object]] = {
            "decode": lambda: [decode(path.read_bytes()) for path in paths],
            "resize": lambda: [resize(image, (size, size)) for image in images],
            "upsample, Otsu, regions": lambda: [find_candidates(own[:5], min_area=options.min_area) for own in maps],
            "normalise": lambda: classifier.normalise(raw.to(options.device)),
            "blur": blurred,
            "composite": lambda: [
                keep_boxes(pixels, outside, index[at : at + options.batch], boxes[at : at + options.batch])
                for at in starts
            ],
        }
        milliseconds = {name: spent(work, options, scored) for name, work in parts.items()}
    print("  CPU ms a crop, each part alone:")
    for name, value in milliseconds.items():
        print(f"    {name:<26} {value:8.2f}")


def spent(work: Callable[[], object], options: argparse.Namespace, items: int, rounds: int = 3) -> float:
    """Least CPU milliseconds an item of a call."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        wait(options.device)
        seconds.append(time.process_time() - start)
    return 1e3 * min(seconds) / items


if __name__ == "__main__":
    sys.exit(main())
