"""Throughput of the stage ``cls_maps`` against the bare forward of its transformer.

A: ``vit(images)`` of timm, normalised tensors in memory. B: the whole stage from image files to stored maps. Same
batch, dtype, memory format, threads and ``inference_mode``. Random weights: timings do not depend on them.

    python tools/bench/cls_maps.py --images ../shared/data/cub10
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from ab import compare
from figures import report
from photographs import add_network, make_parser, parse

from wsolpipe.images.decode import decode
from wsolpipe.maps import quantise
from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.attention import class_token_row
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.cls_maps import ClsMaps
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

DEVICES = ("cpu", "cuda")
WANTED, GOAL = 0.9, 0.97


def main() -> int:
    """Measure, print, and return 1 where the stage is slower than it must be."""
    options = read_options()
    torch.set_num_threads(options.threads)
    made = build_stage(options)
    names = (options.images / "image_ids.txt").read_text().split("\n")
    paths = [options.images / "images" / name for name in names if name][: options.rows]
    paths = paths[: len(paths) // options.batch * options.batch]  # whole batches: padding is not what is measured
    if not paths:
        print(f"fewer than {options.batch} images in {options.images}; lower --batch", file=sys.stderr)
        return 2
    pixels = [made.fit(decode(path.read_bytes()), 0) for path in paths]
    batches = [
        made.normalise(np.stack(pixels[start : start + options.batch])) for start in range(0, len(paths), options.batch)
    ]
    vit = made.reader.vit

    def bare() -> None:
        with torch.inference_mode():
            for images in batches:
                vit(images)
        wait(options.device)

    def stage() -> None:
        rows = Rows(np.arange(len(paths)), {}, lambda row: decode(paths[row].read_bytes()), threads=options.decoders)
        made.process(rows, {})

    result = compare(bare, stage, repetitions=options.repetitions)
    print(
        f"{options.model}, batch {options.batch}, float32, {options.device}, {options.threads} torch threads, "
        f"{options.decoders} decoding threads, {os.cpu_count()} cores"
    )
    print("\n".join(result.lines(a="bare forward", b="stage", items=len(paths))))
    print_parts(options, made, paths, pixels, batches)
    rates = result.rates(a="bare forward", b="stage", items=len(paths))
    return report([result.figure("stage / bare forward", "wall", "cpu", limit=WANTED, goal=GOAL), *rates])


def read_options() -> argparse.Namespace:
    """Command line; the images may also be found through WSOLPIPE_SHARED."""
    parser = make_parser(__doc__, rows=64)
    add_network(parser, model="vit_small_patch16_224.dino", batch=16)
    return parse(parser)


def build_stage(options: argparse.Namespace) -> ClsMaps:
    """The stage with random weights, set up."""
    params = {"model": options.model, "weights": "random:0", "batch": options.batch}
    weights = resolve("random:0")
    assert weights is not None
    context = Context(
        dataset="bench", find_device=lambda: options.device, threads=options.decoders, weights={"model": weights}
    )
    made = ClsMaps(load_registry().params("cls_maps", params), context)  # type: ignore[arg-type]
    made.setup()
    return made


def wait(device: str) -> None:
    """Wait until the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def print_parts(
    options: argparse.Namespace,
    made: ClsMaps,
    paths: list[Path],
    pixels: list[np.ndarray],
    batches: list[torch.Tensor],
) -> None:
    """Print where the rest goes: each part alone, CPU milliseconds an image."""
    images = [decode(path.read_bytes()) for path in paths]
    maps = made.attend(np.stack(pixels[: options.batch]))
    vit = made.reader.vit
    last = vit.blocks[-1]
    with torch.inference_mode():
        tokens = vit._pos_embed(vit.patch_embed(batches[0]))
        row = spent(lambda: class_token_row(last.attn, last.norm1(tokens)), options)
        block = spent(lambda: last(tokens), options)
        forward = spent(lambda: vit(batches[0]), options)
        reader = spent(lambda: made.reader(batches[0]), options)
    parts = {
        "decode": spent(lambda: [decode(path.read_bytes()) for path in paths[: options.batch]], options),
        "resize": spent(lambda: [made.fit(image, 0) for image in images[: options.batch]], options),
        "to the device, normalise": spent(lambda: made.normalise(np.stack(pixels[: options.batch])), options),
        "q·k of the class row": row,
        "last block, not needed": -block,
        "quantise": spent(lambda: [quantise(one) for one in maps], options),
    }
    print("  CPU ms an image, each part alone:")
    for name, value in ({"bare forward": forward, "forward to the row": reader} | parts).items():
        print(f"    {name:<26} {value:8.2f}")


def spent(work: Callable[[], object], options: argparse.Namespace, rounds: int = 3) -> float:
    """Least CPU milliseconds an image of a call that handles one batch."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        wait(options.device)
        seconds.append(time.process_time() - start)
    return 1e3 * min(seconds) / int(options.batch)


if __name__ == "__main__":
    sys.exit(main())
