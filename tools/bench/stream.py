"""Rows per second of `wsoltrain.stream` beside a plain loop that only decodes and resizes the same images.

Both run in one process on the same files, A and B in turns; the plain loop has its file names in memory and goes
through them in order, without crops, maps or boxes, so that at a ratio of 1 everything the stream adds is free. Then
the stream with loader processes, against a plain loop in as many processes. Prints medians.

    python tools/bench/stream.py [--rows 512] [--repeats 5] [--workers 2] [--side 400x500]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch  # noqa: E402 - after the thread count
from ab import compare  # noqa: E402
from figures import Figure, report  # noqa: E402
from prepare import read_options  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from stores import DATASET, TinyStore, build_store  # noqa: E402
from wsolpipe.images.decode import decode  # noqa: E402
from wsolpipe.images.geometry import resize  # noqa: E402
from wsoltrain.stream import ItemConfig, Labelling, Stream  # noqa: E402

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


def figures_of(name: str, given: Any, stream: Stream, plain: DataLoader[torch.Tensor]) -> list[Figure]:
    """The stream beside the plain loop, and its rows a second."""
    found = compare(partial(deque, plain, 0), partial(deque, stream, 0), repetitions=given.repeats)
    print(f"{name}:")
    found.show(a="plain loop", b="stream", items=given.rows, unit="rows")
    print(f"  ratio {found.ratio('wall'):9.3f}")
    limit = LIMIT_RGB if name.endswith(RGB) else LIMIT
    ratio = found.figure(f"stream / plain loop, {name}", "wall", limit=limit)
    return [ratio, found.rates(a="", b=f"stream, {name}", items=given.rows, unit="rows/s")[1]]


def main() -> int:
    """Build a store, measure, print."""
    given = read_options(__doc__, rows=512, repeats=5, workers=2, side="400x500")
    low, high = (int(edge) for edge in given.side.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(
            Path(folder), rows=given.rows, shard_rows=256, n_maps=7, n_boxes=10, sizes=(low, high), image_format="JPEG"
        )
        figures = figures_of("one process", given, stream_of(store, 0), plain_loader(store, 0, draft=True))
        if given.workers:
            name = f"{given.workers} processes"
            for more, changes in (("", {}), (f", {RGB}", {"normalised": False})):
                both = stream_of(store, given.workers, **changes), plain_loader(store, given.workers, draft=True)
                figures += figures_of(name + more, given, *both)
    return report(figures)


if __name__ == "__main__":
    sys.exit(main())
