"""Ways to damage a file of a store or of a training, and what an attack notes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

FAILURES = ("rows lost", "wrong in silence", "wedged", "tracebacks", "memory taken")


@dataclass
class Attack:
    """One attack: what was damaged, how and when, and what failed.

    Attributes
    ----------
    kind : str
        Class in the tally.
    failed : list of (str, str)
        One of `FAILURES`, and the details.
    """

    kind: str
    command: str
    how: str
    when: str = ""
    beside: str = ""
    victim: str = ""
    failed: list[tuple[str, str]] = field(default_factory=list)


def cut(path: Path, rng: random.Random) -> None:
    """Keep the first bytes only."""
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(max(1, len(data)))])


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


def other_json(path: Path, rng: random.Random) -> None:
    """Write JSON that does not belong here."""
    path.write_text(rng.choice(["[1]", "{}", "7", "null", '{"schema_version": 1}', "[" * 5000, '{"time": [1]}']))


def unreadable(path: Path, rng: random.Random) -> None:  # noqa: ARG001
    """Replace by a link to a name that no file system takes, at which not even root can look."""
    path.unlink()
    path.symlink_to("x" * 300)


def no_file(path: Path, rng: random.Random) -> None:
    """Put a folder, or a link to itself, where the file was."""
    path.unlink()
    if rng.random() < 0.5:
        path.mkdir()
    else:
        path.symlink_to(path.name)


def siblings(path: Path) -> list[Path]:
    """Other files of the same kind: objects of the same array, records of the same stage, tables of the same index."""
    array = next((parent for parent in path.parents if parent.parent.name == "data.zarr"), None)
    folder = array or path.parent
    same = (item for item in sorted(folder.rglob("*") if array else folder.iterdir()) if item.is_file())
    return [item for item in same if item != path and item.suffix == path.suffix and not item.name.startswith(".")]


def exchange(path: Path, rng: random.Random) -> None:
    """Exchange the file with another one of its kind: each is whole, and in the wrong place."""
    others = siblings(path)
    if others:
        other, aside = rng.choice(others), path.with_name(".aside")
        path.rename(aside)
        other.rename(path)
        aside.rename(other)


def other_values(path: Path, rng: random.Random) -> None:
    """Write a table, or JSON, that is well formed and holds other values; other files are exchanged."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        order = list(range(table.num_rows))
        rng.shuffle(order)
        if table.num_rows < 2:  # a split without ground truth gets some
            row = {"row": 0, "image_id": "x", "kind": "box", "x0": 1.0, "y0": 1.0, "x1": 9.0, "y1": 9.0, "path": ""}
            pq.write_table(pa.Table.from_pylist([row], schema=table.schema), path)
        else:
            pq.write_table(table.take(order), path)
    elif path.suffix == ".json":
        fields = json.loads(path.read_bytes())
        named = dict(enumerate(fields)) if isinstance(fields, list) else fields
        names = [name for name, value in named.items() if isinstance(value, (int, str))]
        if names:
            name = rng.choice(names)
            fields[name] = fields[name] + (1 if isinstance(fields[name], int) else "x")
        path.write_text(json.dumps(fields))
    else:
        exchange(path, rng)


HOW: dict[str, Callable[[Path, random.Random], object]] = {
    "cut": cut,
    "flip": flip,
    "empty": lambda path, rng: path.write_bytes(b""),  # noqa: ARG005
    "delete": lambda path, rng: path.unlink(),  # noqa: ARG005
    "other JSON": other_json,
    "not readable": unreadable,
    "no file": no_file,
    "exchange": exchange,
    "other values": other_values,
}
CLASSES = {
    "exchange": "exchanged objects",
    "other values": "changed tables and records",
    "no file": "folders and links",
}
"""Classes of attacks that are kinds of damage; damage by chance is the others'."""


def restore(kept: dict[Path, bytes]) -> None:
    """Write files anew, whatever is in their place."""
    for path, data in kept.items():
        if not path.is_symlink() and path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
