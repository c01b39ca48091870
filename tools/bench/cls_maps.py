"""Throughput of the stage ``cls_maps`` against the bare forward of its transformer.

A: ``vit(images)`` of timm, normalised tensors in memory. B: the whole stage from image files to stored maps. Same
batch, dtype, memory format, threads and ``inference_mode``. Random weights: timings do not depend on them.

    python tools/bench/cls_maps.py [--images FOLDER] [--rows 64] [--model NAME] [--batch 16]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ab import compare, show_parts
from figures import report, skip
from prepare import NETWORK, photographs, read_options, rows_of

from wsolpipe.images.decode import decode
from wsolpipe.maps.levels import quantise
from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.attention import class_token_row
from wsolpipe.stages.base import Context
from wsolpipe.stages.cls_maps import ClsMaps
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    import argparse

DEVICES = ("cpu", "cuda")
WANTED, GOAL = 0.9, 0.97


def main() -> int:
    """Measure, print, and return 1 where the stage is slower than it must be."""
    options = read_options(
        __doc__, images=Path, rows=64, repetitions=5, model="vit_small_patch16_224.dino", batch=16, **NETWORK
    )
    torch.set_num_threads(options.threads)
    made = build_stage(options)
    paths = photographs(options.images, options.rows)
    paths = paths[: len(paths) // options.batch * options.batch]  # whole batches: padding is not what is measured
    if not paths:
        skip(f"fewer than {options.batch} images; lower --batch")
    pixels = np.stack([made.fit(decode(path.read_bytes()), 0) for path in paths])
    batches = [made.normalise(pixels[at : at + options.batch]) for at in range(0, len(paths), options.batch)]

    def bare() -> None:
        with torch.inference_mode():
            for images in batches:
                made.reader.vit(images)

    def staged() -> None:
        made.process(rows_of(paths, threads=options.decoders), {})

    result = compare(bare, staged, repetitions=options.repetitions, device=options.device)
    print(f"{options.model}, batch {options.batch}, float32, {options.device}, {options.threads} torch threads,")
    print(f"{options.decoders} decoding threads, {os.cpu_count()} cores")
    sides: dict[str, Any] = {"a": "bare forward", "b": "stage", "items": len(paths)}
    result.show(**sides)
    with torch.inference_mode():
        show_parts(parts_of(made, paths[: options.batch], batches[0]), options.batch, options.device)
    speed = result.figure("stage / bare forward", "wall", "cpu", limit=WANTED, goal=GOAL)
    return report([speed, *result.rates(**sides)])


def build_stage(options: argparse.Namespace) -> ClsMaps:
    """The stage with random weights, set up."""
    params = {"model": options.model, "weights": "random:0", "batch": options.batch}
    weights: Any = {"model": resolve("random:0")}
    context = Context("bench", find_device=lambda: options.device, threads=options.decoders, weights=weights)
    made = ClsMaps(load_registry().params("cls_maps", params), context)  # type: ignore[arg-type]
    made.setup()
    return made


def parts_of(made: ClsMaps, paths: list[Path], batch: torch.Tensor) -> dict[str, Any]:
    """Where the rest of the time goes, on one batch."""
    images = [decode(path.read_bytes()) for path in paths]
    pixels = np.stack([made.fit(image, 0) for image in images])
    maps, vit = made.attend(pixels), made.reader.vit
    last, tokens = vit.blocks[-1], vit._pos_embed(vit.patch_embed(batch))
    return {
        "bare forward": lambda: vit(batch),
        "forward to the row": lambda: made.reader(batch),
        "decode": lambda: [decode(path.read_bytes()) for path in paths],
        "resize": lambda: [made.fit(image, 0) for image in images],
        "to the device, normalise": lambda: made.normalise(pixels),
        "q·k of the class row": lambda: class_token_row(last.attn, last.norm1(tokens)),
        "last block, not needed": lambda: last(tokens),
        "quantise": lambda: [quantise(one) for one in maps],
    }


if __name__ == "__main__":
    sys.exit(main())
