"""`check` of 1.28 million rows beside the time that their index takes, and its memory.

The index of small JPEG files is timed a row; the check reads the tables of an index of all rows, a box each, that are
written here. Small files make the index fast, so the ratio of real photographs is lower.

    python tools/bench/check_scale.py [--rows 1281167] [--files 4000] [--folder DIR]
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from figures import Figure, report
from PIL import Image
from prepare import read_options

from wsolpipe.contract.layout import sha256_bytes, stage_folder
from wsolpipe.contract.manifest import IndexManifest, StoredObject
from wsolpipe.contract.reader import open_store
from wsolpipe.engine.indexing import SCAN_ROWS
from wsolpipe.images.check import find_faults, read_facts
from wsolpipe.images.dataset import load_dataset
from wsolpipe.images.index_tables import column_digests, index_part, truth_table, write_parquet
from wsolpipe.images.listing import Annotation, ListedRow
from wsolpipe.images.scan import Scan, scan_rows

ROWS, CLASSES, SIDE = 1_281_167, 1000, 224
LIMIT_RATIO, LIMIT_MIB = 1.2, 400.0
KEY = "1" * 16


def seconds_of_index(folder: Path, files: int) -> float:
    """Seconds a row of hashing and decoding files of 224 x 224 pixels, in four threads."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE)).save(data, "JPEG")
    rows = [ListedRow(f"{number}.jpg", f"{number}.jpg") for number in range(files)]
    for row in rows:
        (folder / "images" / row.path).write_bytes(data.getvalue())
    began = time.perf_counter()
    assert not any(scan.reason for scan in scan_rows(folder / "images", rows, exif="apply", threads=4))
    return (time.perf_counter() - began) / files


def build(folder: Path, rows: int) -> None:
    """Write the tables of an index of `rows` images with a box each."""
    (folder / "scale.yaml").write_text(f"name: scale\nlayout: folder\nroot: {folder}/images\nsplit: train\n")
    parts, truths = [], []
    for start in range(0, rows, SCAN_ROWS):
        numbers = range(start, min(start + SCAN_ROWS, rows))
        listed = [
            ListedRow(f"n{at % CLASSES:04d}/{at:08d}.JPEG", f"n{at % CLASSES:04d}/{at:08d}.JPEG", (at % CLASSES,))
            for at in numbers
        ]
        scans = [Scan(1000, hashlib.sha256(b"%d" % at).hexdigest(), 500, 375, 1) for at in numbers]
        parts.append(index_part(start, listed, scans))
        boxes = [Annotation(row.image_id, "box", 10.0, 10.0, 400.0, 300.0, "", "box") for row in listed]
        truths.append(truth_table(boxes, {row.image_id: at for at, row in zip(numbers, listed, strict=True)}))
    index, truth = pa.concat_tables(parts), pa.concat_tables(truths)
    home = folder / "store" / stage_folder("scale", "train", "index", KEY)
    home.mkdir(parents=True)
    tables = {"index.parquet": write_parquet(index), "annotations.parquet": write_parquet(truth)}
    for name, data in tables.items():
        (home / name).write_bytes(data)
    manifest = IndexManifest(
        dataset="scale", split="train", key=KEY, fingerprint="1" * 64, rows=rows, quarantined=0, shard_rows=SCAN_ROWS,
        objects={name: StoredObject(sha256=sha256_bytes(data), bytes=len(data)) for name, data in tables.items()},
        digests=column_digests(index), classes=CLASSES, boxes=rows, created="2025-01-01T00:00:00+00:00",
        label_counts={str(label): rows // CLASSES for label in range(CLASSES)},
        class_names={str(label): f"n{label:04d}" for label in range(CLASSES)},
    )  # fmt: skip
    (home / "manifest.json").write_bytes(manifest.to_bytes())


def check(folder: Path) -> None:
    """Time the check; called in a process of its own, so that the memory is that of the check alone."""
    index = open_store(str(folder / "store"))["scale"]["train"].index(KEY)
    began = time.perf_counter()
    faults = find_faults(load_dataset(str(folder / "scale.yaml")), [read_facts(index)])
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()  # unlike getrusage it knows nothing of the process that began it
    peak = int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps([seconds, peak / 1024, [item.name for item in faults]]))


def main() -> int:
    """Print the figures."""
    if sys.argv[1:2] == ["check"]:
        check(Path(sys.argv[2]))
        return 0
    options = read_options(__doc__, rows=ROWS, files=4000, folder="")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch)
        row = seconds_of_index(folder, options.files)
        build(folder, options.rows)
        pool = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # as the program does
        done = subprocess.run(
            [sys.executable, __file__, "check", str(folder)], capture_output=True, text=True, check=True, env=pool
        )
        seconds, mib, *_ = json.loads(done.stdout)
    whole = row * options.rows
    return report([
        Figure(name="index of all rows, by its rate", value=whole, unit="s"),
        Figure(name="check of all rows", value=seconds, unit="s"),
        Figure(name="index and check / index", value=(whole + seconds) / whole, limit=LIMIT_RATIO, at_most=True),
        Figure(name="check, most memory", value=mib, unit="MiB", limit=LIMIT_MIB, at_most=True),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
