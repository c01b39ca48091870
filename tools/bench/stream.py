"""Rows per second of `wsoltrain.stream` beside a plain loop that only decodes and resizes the same images.

Both run in one process on the same files, A and B in turns; the plain loop has its file names in memory and goes
through them in order, without crops, maps or boxes, so that at a ratio of 1 everything the stream adds is free. Then
the stream with loader processes, against a plain loop in as many processes. Prints medians and where a row's time goes.

    python tools/bench/stream.py [rows=512] [repeats=5] [workers=2] [side=400x500]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402 - after the thread count
from figures import Figure, report  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from stores import DATASET, TinyStore, build_store  # noqa: E402
from wsolpipe.images.decode import decode  # noqa: E402
from wsolpipe.images.geometry import resize  # noqa: E402
from wsoltrain.stream import ItemConfig, Labelling, Stream  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BATCH, SIDE, CROP = 32, 256, 224
RGB = "image made of rgb by the loop"
LIMIT, LIMIT_RGB = 0.55, 0.75
"""Shares of the plain loop, which neither reads a store nor normalises; the second where the stream does not either."""


class PlainImages(Dataset[torch.Tensor]):
    """Decode and squash, nothing else."""

    def __init__(self, files: list[str], draft: tuple[int, int] | None) -> None:
        self.files = files
        self.draft = draft

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(resize(decode(Path(self.files[number]).read_bytes(), draft=self.draft), (SIDE, SIDE)))


def plain_loader(store: TinyStore, workers: int, *, draft: bool) -> DataLoader[torch.Tensor]:
    """The plain loop as a DataLoader in file order."""
    images = PlainImages([f"{store.root}/{path}" for path in store.paths], (SIDE, SIDE) if draft else None)
    extra: dict[str, Any] = {"multiprocessing_context": "forkserver", "persistent_workers": True} if workers else {}
    return DataLoader(images, batch_size=BATCH, num_workers=workers, **extra)


def stream_of(store: TinyStore, workers: int, **changes: Any) -> Stream:
    """The stream as a trainer would make it."""
    config = ItemConfig(Labelling(store.url, DATASET), root=store.root, size=CROP, resize=SIDE, **changes)
    return Stream(config, batch_size=BATCH, workers=workers)


def run_once(batches: Iterable[Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one pass."""
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        del batch
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(rows: int, repeats: int, stream: Stream, plain: DataLoader[torch.Tensor]) -> dict[str, float]:
    """Median rows per second of both, and of the ratio of neighbouring passes, its lowest and its highest."""
    run_once(plain), run_once(stream)
    plain_seconds, stream_seconds, cpu_ratios = [], [], []
    for number in range(repeats):
        passes: list[tuple[str, Callable[[], Iterable[Any]]]] = [("plain", lambda: plain), ("stream", lambda: stream)]
        taken = {name: run_once(make()) for name, make in (passes if number % 2 == 0 else passes[::-1])}
        plain_seconds.append(taken["plain"][0])
        stream_seconds.append(taken["stream"][0])
        cpu_ratios.append(taken["plain"][1] / max(taken["stream"][1], 1e-9))
    ratios = [a / b for a, b in zip(plain_seconds, stream_seconds, strict=True)]
    medians = {
        "plain_rows_per_second": rows / statistics.median(plain_seconds),
        "stream_rows_per_second": rows / statistics.median(stream_seconds),
        "ratio": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
    }
    # Processor time of loader processes is not this process's to measure.
    return medians if plain.num_workers else medians | {"ratio_cpu": statistics.median(cpu_ratios)}


def split_time(store: TinyStore, rows: int) -> dict[str, float]:
    """CPU milliseconds a row of the stream in this process, with parts left out or done otherwise."""
    parts: dict[str, dict[str, Any]] = {
        "all": {},
        "without normalising": {"normalised": False},
        "without maps and boxes": {"labelling": Labelling(store.url, DATASET, maps=None, boxes=None)},
        "maps at crop size": {"resolution": "view"},
        "without images": {"root": None},
        "without images, store read anew": {"root": None, "memory": 0},
    }
    times: dict[str, float] = {}
    for name, changes in parts.items():
        config = ItemConfig(Labelling(store.url, DATASET), root=store.root, size=CROP, resize=SIDE)
        stream = Stream(replace(config, **changes), batch_size=BATCH)
        run_once(stream)
        times[name] = 1000 * statistics.median(run_once(stream)[1] for _ in range(3)) / rows
    return times


def figures_of(name: str, found: dict[str, float]) -> list[Figure]:
    """The stream beside the plain loop, and its rows a second."""
    spread = found["ratio_lowest"], found["ratio_highest"]
    limit = LIMIT_RGB if name.endswith(RGB) else LIMIT
    return [
        Figure(name=f"stream / plain loop, {name}", value=found["ratio"], limit=limit, spread=spread),
        Figure(name=f"stream, {name}", value=found["stream_rows_per_second"], unit="rows/s"),
    ]


def main() -> int:
    """Build a store, measure, print."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    rows, repeats, workers = (
        int(given.get(name, value)) for name, value in (("rows", 512), ("repeats", 5), ("workers", 2))
    )
    low, high = (int(edge) for edge in given.get("side", "400x500").split("x"))
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        store = build_store(
            Path(folder), rows=rows, shard_rows=256, n_maps=7, n_boxes=10, sizes=(low, high), image_format="JPEG"
        )
        made = time.perf_counter() - begun
        result: dict[str, Any] = {"rows": rows, "batch": BATCH, "repeats": repeats, "store_seconds": round(made, 1)}
        result["one process"] = compare(rows, repeats, stream_of(store, 0), plain_loader(store, 0, draft=True))
        if workers:
            name = f"{workers} processes"
            result[name] = compare(rows, repeats, stream_of(store, workers), plain_loader(store, workers, draft=True))
            grids = stream_of(store, workers, normalised=False)
            result[f"{name}, {RGB}"] = compare(rows, repeats, grids, plain_loader(store, workers, draft=True))
        result["CPU ms a row"] = split_time(store, rows)
    figures = []
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, number in value.items():
                print(f"  {key:<34} {number:9.3f}")
            figures += figures_of(name, value) if "ratio" in value else []
        else:
            print(f"{name}: {value}")
    return report(figures)


if __name__ == "__main__":
    sys.exit(main())
