"""Rows per second of `wsoltrain.stream` beside litdata and mosaicml-streaming, on the same decoded pixels and maps.

All three store the same uint8 images (the stage ``pixels``, as planes) and maps, shuffle, and hand over the same crops
with as many loader processes; each goes through some epochs, of which the first is dropped. The three take turns, each
in a process of its own, so that other load on the machine meets all of them. With ``--s3`` the samples lie behind an S3
server on this host and every loader begins with an empty cache of its own.

    make .venv-bench/.installed   # once
    python tools/bench/stream_beside_others.py [--rows 4096] [--workers 2] [--repetitions 3] [--s3]
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from figures import Figure, report
from prepare import peer, read_options, shared_folder

from s3 import serve_s3
from stores import DATASET, build_store, write_stage
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import resize
from wsolpipe.stages.base import Context
from wsolpipe.stages.pixels import Pixels, PixelsParams

if TYPE_CHECKING:
    import argparse

    from s3 import Server

PEERS = ("litdata", "mosaicml")
LIMITS = {"wsoltrain / litdata": 2.0, "wsoltrain / mosaicml": 1.0}
"""From a folder; from S3, where all three wait for one server, figures are only shown."""
PEER_SCRIPT = Path(__file__).with_name("peer_streams.py")
SIDE, CROP, BATCH, EPOCHS = 256, 224, 32, 3


def make_samples(folder: Path, rows: int) -> tuple[str, Path]:
    """A store with images and maps of `rows` rows; its URL, and the folder of the same arrays as ``.npy``."""
    store = build_store(folder, rows=rows, shard_rows=256, n_maps=7, n_boxes=10, images=False)
    photographs = sorted((shared_folder() / "data/cub10/images").rglob("*.jpg"))[:512]
    if photographs:
        kept = [resize(decode(path.read_bytes()), (SIDE, SIDE)).transpose(2, 0, 1) for path in photographs]
    else:
        kept = list(np.random.default_rng(0).integers(0, 256, (64, 3, SIDE, SIDE), dtype=np.uint8))
    rgb = np.stack([kept[row % len(kept)] for row in range(rows)])
    spec = Pixels(PixelsParams(size=SIDE), Context(dataset=DATASET)).arrays()["rgb"]
    write_stage(store.url, "pixels", "eeee000011112222", {"rgb": (spec, rgb)}, status=store.status, shard_rows=256)
    source = folder / "arrays"
    source.mkdir()
    for name, array in (("rgb", rgb), ("maps", store.maps), ("labels", np.array(store.labels))):
        np.save(source / f"{name}.npy", array)
    return store.url, source


def read_ours(url: str, workers: int, epochs: int) -> dict[str, Any]:
    """Seconds of each epoch of our own stream; runs in a process of its own."""
    from wsoltrain.stream import ItemConfig, Labelling, Stream

    labelling = Labelling(url, DATASET, boxes=None, images="pixels")
    config = ItemConfig(labelling, size=CROP, resize=SIDE, normalised=False, memory=0)  # no epoch is kept in memory
    stream = Stream(config, batch_size=BATCH, workers=workers)
    seconds, rows = [], 0
    for _ in range(epochs):
        begun, rows = time.perf_counter(), 0
        for batch in stream:
            rows += len(batch["label"])
        seconds.append(time.perf_counter() - begun)
    return {"seconds": seconds, "rows": rows}


def run_json(command: list[str], **environment: str) -> dict[str, Any]:
    """Run a command and read the last line that it printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def write_peers(python: Path, folder: Path, source: Path) -> dict[str, Path]:
    """The same samples in the formats of the others."""
    written = {}
    for kind in PEERS:
        written[kind] = folder / kind
        command = [str(python), str(PEER_SCRIPT), "write", kind, str(source), str(written[kind])]
        subprocess.run(command, check=True, capture_output=True)
    return written


def measure(
    python: Path, url: str, written: dict[str, str], options: argparse.Namespace, scratch: Path
) -> dict[str, list[float]]:
    """Rows per second of the epochs after the first, by loader, over the repetitions in turns."""
    rates: dict[str, list[float]] = {"wsoltrain": [], **{kind: [] for kind in PEERS}}
    names = list(rates)
    for repetition in range(options.repetitions):
        for name in names[repetition % 3 :] + names[: repetition % 3]:
            cache = Path(tempfile.mkdtemp(dir=scratch))
            if name == "wsoltrain":
                command = [sys.executable, __file__, "--ours", url, "--workers", str(options.workers)]
                found = run_json(command, WSOLPIPE_CACHE=str(cache))
            else:
                where = [str(cache), *map(str, (options.workers, BATCH, CROP, EPOCHS)), written[name]]
                if not written[name].startswith("s3://"):
                    where = [written[name], *where[1:-1]]
                found = run_json([str(python), str(PEER_SCRIPT), "read", name, *where])
            rates[name].append(found["rows"] * (EPOCHS - 1) / sum(found["seconds"][1:]))
            shutil.rmtree(cache)
    return rates


def upload(server: Server, url: str, written: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Copy all samples to an S3 server; their URLs there. The environment then holds what its clients need."""
    from wsolpipe.contract.backends.opening import open_backend

    os.environ.update(server.environment, S3_ENDPOINT_URL=server.endpoint, AWS_ALLOW_HTTP="true")
    moved = {}
    for name, folder in (("wsoltrain", url), *written.items()):
        moved[name] = server.store()
        source, target = open_backend(folder), open_backend(moved[name])
        for item, _ in source.walk(""):
            target.create(item, source.get(item))
        shutil.rmtree(folder)
    return moved.pop("wsoltrain"), moved


def main() -> int:
    """Write the samples, take turns, print."""
    options = read_options(__doc__, rows=4096, workers=os.cpu_count() or 1, repetitions=3, s3=False, ours=str)
    if options.ours:
        print(json.dumps(read_ours(options.ours, options.workers, EPOCHS)))
        return 0
    python = peer("python")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        url, source = make_samples(folder, options.rows)
        written = {kind: str(path) for kind, path in write_peers(python, folder, source).items()}
        shutil.rmtree(source)
        if options.s3:
            url, written = upload(stack.enter_context(serve_s3()), url, written)
        rates = measure(python, url, written, options, folder)
    print(f"{options.rows} rows of {SIDE}x{SIDE}, {options.workers} loader processes, batch {BATCH}")
    where = ", S3" if options.s3 else ""
    ratios = {
        f"wsoltrain / {kind}{where}": [a / b for a, b in zip(rates["wsoltrain"], rates[kind], strict=True)]
        for kind in PEERS
    }
    return report(
        [
            *(Figure.of(name, found, limit=LIMITS.get(name)) for name, found in ratios.items()),
            *(Figure.of(f"{name}{where}", found, unit="rows/s") for name, found in rates.items()),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
