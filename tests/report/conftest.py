"""A finished store with ground truth, untrusted names and rows that were given up, made without running a stage."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stores import DATASET, INDEX_KEY, TinyStore, build_store, write_table
from wsolpipe.keys.run_keys import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable

EVIL = "<script>alert('x')</script><img src=http://evil.example/a.png onerror=alert(1)>\"'&"


@dataclass
class Example:
    """A tiny store, its folder, and a configuration that names it."""

    tiny: TinyStore
    folder: Path
    config: RunConfig

    @property
    def index_folder(self) -> Path:
        return Path(self.tiny.url) / DATASET / "train" / "index" / INDEX_KEY

    def write_truth(self, rows: np.ndarray, boxes: np.ndarray) -> None:
        """Replace the ground truth of the index."""
        columns = {"row": pa.array(rows, pa.int64()), "kind": ["box"] * len(rows)}
        for place, name in enumerate(("x0", "y0", "x1", "y1")):
            columns[name] = pa.array(boxes[:, place], pa.float64())
        write_table(self.index_folder, "annotations.parquet", pa.table(columns))

    def change_index(self, **columns: list[str]) -> None:
        """Replace columns of the index's table."""
        path = self.index_folder / "index.parquet"
        table = pq.read_table(path)
        for name, values in columns.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        write_table(self.index_folder, "index.parquet", table)

    def change_manifest(self, **fields: object) -> None:
        """Replace fields of the index's manifest."""
        path = self.index_folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def build_example(folder: Path, **options: Any) -> Example:
    """Build one, with the options of `stores.build_store`; by default forty rows, three of them without a result."""
    usual = {"quarantined": {3: "truncated: file ends early", 7: EVIL}, "no_object": (5,)}
    tiny = build_store(folder, **{"rows": 40, "n_maps": 4, **(options or usual)})
    example = Example(tiny, folder, RunConfig(dataset=DATASET, store=tiny.url, root=tiny.root))
    # Every other row has ground truth; row 0 has two boxes.
    wanted = np.arange(0, len(tiny.labels), 2)
    boxes = np.concatenate([[[0, 0, 5, 5]], tiny.objects[wanted]]).astype(float)
    boxes[1:, 2] -= 3
    # The store's own index holds digests of the paths; a real one holds those of the files.
    files = [folder / "images" / path for path in tiny.paths]
    if options.get("images", True):
        example.change_index(sha256=[hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    example.write_truth(np.concatenate([[0], wanted]), boxes)
    return example


@pytest.fixture
def make_example(tmp_path: Path) -> Callable[..., Example]:
    """Build one: make_example(rows=…, quarantined=…), with the options of `stores.build_store`."""

    def make(**options: Any) -> Example:
        return build_example(tmp_path, **{"rows": 40, **options})

    return make


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """Forty rows, three of them without a result."""
    return build_example(tmp_path)


@pytest.fixture(scope="module")
def kept_example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """The same for tests that change nothing in it."""
    return build_example(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def evil() -> str:
    """Text that would run, load or break out if it reached a page as it is."""
    return EVIL
