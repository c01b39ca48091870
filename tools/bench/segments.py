"""Segments and refinement beside plain code, in turns on the same rows; bytes of label maps; many networks beside one.

refine: 14 x 14 maps refined to 224² and stored as levels, beside plain numpy, which stretches by four neighbours along
each axis, or by two matrix products, and sums over segments by np.bincount. segments: the stage beside a loop that
decodes, squashes and calls scikit-image, by the time of one thread's processor. dic: as many networks as images at once
beside one image at a time, labels compared.

    python tools/bench/segments.py [--images FOLDER] [--rows 48]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skimage.segmentation
import torch
from ab import compare
from figures import Figure, report
from prepare import photographs, read_options, rows_of

from wsolpipe.contract.layout import Shards
from wsolpipe.contract.schema import CHECKSUM
from wsolpipe.engine.zarr_metadata import encode_shard
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import resize
from wsolpipe.maps.levels import bicubic_taps
from wsolpipe.maps.segments import mix_segments, to_levels
from wsolpipe.metrics.scaling import resize_maps
from wsolpipe.ops.deep_clusters import Clustering, cluster_images
from wsolpipe.stages.base import Context
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.segments import Segments, slic

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, Any]
SIDE, W = 224, 0.5
REFINE, RATE, SEGMENTS, BYTES = 5.0, 5000, 0.95, 4096


def by_taps(maps: Array) -> Array:
    """Maps [T, h, w] stretched to SIDE² by the sum of four neighbours along each axis."""
    for axis in (2, 1):
        places, weights = bicubic_taps(maps.shape[axis], SIDE)
        shape = [1, 1, 1]
        shape[axis] = SIDE
        one, two, three, four = (maps.take(places[:, tap], axis) * weights[:, tap].reshape(shape) for tap in range(4))
        maps = one + two + three + four
    return maps


def by_products(maps: Array) -> Array:
    """The same by two matrix products."""
    return resize_maps(maps, (SIDE, SIDE))


def plain(maps: Array, limits: Array, labels: Array, stretch: Callable[[Array], Array]) -> tuple[Array, Array]:
    """One row's maps refined and stored by numpy alone."""
    low, high = limits[:, :1, None], limits[:, 1:, None]
    wide = stretch(low + maps * ((high - low) / 255))
    flat = labels.ravel()
    sizes = np.maximum(np.bincount(flat), 1)
    means = np.stack([np.bincount(flat, one.ravel()) / sizes for one in wide])
    mixed = (1 - W) * wide + W * means[:, labels]
    low, high = mixed.min(axis=(1, 2), keepdims=True), mixed.max(axis=(1, 2), keepdims=True)
    return np.rint((mixed - low) * (255 / (high - low))).astype(np.uint8), np.concatenate([low, high], 2)[:, 0]


def bench_refine(labels: Array, repetitions: int) -> list[Figure]:
    """Refinement beside numpy, which is judged, and beside the quickest numpy that we know."""
    maps = np.random.default_rng(0).integers(0, 256, (len(labels), 1, 14, 14)).astype(np.uint8)
    limits = np.tile(np.array([-1, 3], np.float32), (len(labels), 1, 1))

    def refined(row: int) -> Array:
        return to_levels(mix_segments(maps[row].astype(np.float32), labels[row], W), limits[row])[0]

    def ours() -> None:
        for row in range(len(labels)):
            refined(row)

    figures = []
    for name, stretch, limit in (("numpy", by_taps, REFINE), ("matrix products", by_products, None)):

        def numpys(stretch: Callable[[Array], Array] = stretch) -> None:
            for row in range(len(labels)):
                plain(maps[row], limits[row], labels[row], stretch)

        for row in range(len(labels)):
            levels = plain(maps[row], limits[row], labels[row], stretch)[0]
            apart = np.abs(levels.astype(int) - refined(row)).max()
            if apart > 1:
                sys.exit(f"refine: levels of row {row} differ from numpy's by {apart}")
        result = compare(numpys, ours, repetitions=repetitions, shortest=0.3)
        result.show(a=name, b="refine", items=len(labels), unit="rows")
        rate = len(labels) / result.median("b", "cpu")
        figures.append(result.figure(f"refine / {name}", "cpu", limit=limit))
    return [*figures, Figure(name="refine, arithmetic on one core", value=rate, unit="rows/s", goal=RATE)]


def bench_segments(files: list[Path], method: str, repetitions: int) -> list[Figure]:
    """The stage beside the plain call, and bytes a row in a store."""
    params = load_registry().params("segments", {"method": method})
    stage = Segments(params, Context(dataset="bench"))  # type: ignore[arg-type]
    made: dict[str, Array] = {}

    def call(image: Array) -> Array:
        if method == "slic":
            found = skimage.segmentation.slic(image, n_segments=100, compactness=10.0, start_label=0)
        else:
            found = skimage.segmentation.felzenszwalb(image, scale=100.0, sigma=0.8, min_size=200)
        return np.asarray(found, np.uint16)

    def plainly() -> None:
        for file in files:
            call(resize(decode(file.read_bytes()), (SIDE, SIDE)))

    def staged() -> None:
        made.update(stage.process(rows_of(files, threads=1), {}))

    result = compare(plainly, staged, repetitions=repetitions)
    shards, specs = Shards(len(files), len(files)), stage.arrays()
    size = sum(len(encode_shard(specs[name], shards, 0, made[name], CHECKSUM)) for name in specs) / len(files)
    result.show(a=f"{method}, library", b=f"{method}, stage", items=len(files))
    return [
        result.figure(f"{method}, stage / library", "cpu", limit=SEGMENTS),
        Figure(name=f"{method}, a row", value=size, unit="bytes", limit=BYTES, at_most=True),
    ]


def bench_dic(files: list[Path], repetitions: int) -> list[Figure]:
    """All at once beside one at a time; refuses labels that differ."""
    side, plan = 64, Clustering(width=16, steps=20)
    images = np.stack([resize(decode(file.read_bytes()), (side, side)) for file in files])
    pieces = [slic(image, pieces=800, compactness=10.0) for image in images]
    seeds = [(0, row) for row in range(len(images))]
    found: dict[str, Array] = {}

    def one_by_one() -> None:
        made = [cluster_images(images[row : row + 1], pieces[row : row + 1], seeds[row : row + 1], plan)[0]
                for row in range(len(images))]  # fmt: skip
        found["one"] = np.stack(made)

    def together() -> None:
        found["many"] = cluster_images(images, pieces, seeds, plan)

    result = compare(one_by_one, together, repetitions=repetitions)
    if (found["one"] != found["many"]).any():
        sys.exit("dic: labels differ between one image at a time and many at once")
    return [result.figure("dic, many at once / one at a time", "cpu")]


def main() -> int:
    """Run all; 1 if a limit is missed."""
    options = read_options(__doc__, images=Path, rows=48, repetitions=9)
    torch.set_num_threads(1)
    files = photographs(options.images, options.rows)
    images = [resize(decode(file.read_bytes()), (SIDE, SIDE)) for file in files]
    labels = [
        skimage.segmentation.felzenszwalb(image, scale=100.0, sigma=0.8, min_size=200).astype(np.uint16)
        for image in images
    ]
    figures = bench_refine(np.stack(labels), options.repetitions)
    for method in ("felzenszwalb", "slic"):
        figures += bench_segments(files, method, options.repetitions)
    return report([*figures, *bench_dic(files[:4], min(options.repetitions, 5))])


if __name__ == "__main__":
    sys.exit(main())
