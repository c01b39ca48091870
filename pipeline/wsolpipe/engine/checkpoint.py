"""Checkpoints inside a shard: finished blocks on local scratch, so that a kill never costs more than a minute or so."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import user
from wsolpipe.contract.layout import digest, read_json
from wsolpipe.engine.image_files import LOST
from wsolpipe.networks.saved_state import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsolpipe.engine.graph import Node
    from wsolpipe.keys.run_keys import RunConfig

Array = np.ndarray[Any, Any]
#: Errors that reading a missing or damaged file of arrays raises.
UNUSABLE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


def scratch_path(config: RunConfig, node: Node, unit: int | None, *inputs: Any) -> Path:
    """Place of unfinished work on one unit, without a suffix, in ``WSOLPIPE_SCRATCH`` or the temporary folder.

    Parameters
    ----------
    inputs : JSON values
        What the result depends on beside the key: rows, upstream contents, generation.
    """
    assert node.made_of is not None
    what = [os.path.abspath(config.store), node.folder, unit, node.made_of.fingerprint(), *inputs]  # noqa: PTH100
    scratch = Path(os.environ.get("WSOLPIPE_SCRATCH") or Path(tempfile.gettempdir()) / f"wsolpipe-{user()}")
    return scratch / digest(what)[:32]


@dataclass
class Checkpoint:
    """Blocks of one shard that are done but not committed, in a file of this machine.

    The file's name holds the digest of everything that the result depends on, so a stale one is never read.

    Attributes
    ----------
    spent : float
        Seconds that went into the blocks that were restored.
    """

    path: Path
    every: float
    spent: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, config: RunConfig, node: Node, shard: int, *inputs: Any) -> Checkpoint:
        """Checkpoint of a shard; `inputs` as of `scratch_path`."""
        return cls(scratch_path(config, node, shard, *inputs).with_suffix(".npz"), config.checkpoint)

    def restore(
        self, arrays: dict[str, Array], status: Array, reasons: dict[int, str], summary: dict[str, float]
    ) -> int:
        """Fill in what is done; return the number of rows done, 0 without a usable file."""
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                notes = read_json(str(saved["notes"]))
                done, spent = int(notes["done"]), float(notes["spent"])
                parts = {name: saved[f"array_{name}"] for name in arrays}
                parts_status = saved["status"]
        except UNUSABLE:
            return 0
        for name, part in parts.items():
            arrays[name][:done] = part
        status[:done] = parts_status
        self.spent = spent
        reasons.update({int(position): reason for position, reason in notes["reasons"].items()})
        summary.update(notes["summary"])
        return done

    def save(
        self,
        done: int,
        arrays: dict[str, Array],
        status: Array,
        reasons: dict[int, str],
        summary: dict[str, float],
        *,
        at_once: bool = False,
    ) -> None:
        """Write what is done, if the last time is long enough ago. Scratch out of space costs nothing but safety.

        Rows whose file was lost are not kept, nor is anything beside them: whoever goes on tries them again.
        """
        if not at_once and time.monotonic() - self._last < self.every:
            return
        if any(reason.startswith(LOST) for reason in reasons.values()):
            return
        spent = self.spent + time.monotonic() - self._began
        notes = json.dumps({"done": done, "spent": spent, "reasons": reasons, "summary": summary})
        parts = {f"array_{name}": values[:done] for name, values in arrays.items()}
        with contextlib.suppress(OSError):
            _save_npz(self.path, {"notes": np.array(notes), "status": status[:done], **parts})
        self._last = time.monotonic()

    def parts(self, first: int, stopping: Callable[[], bool]) -> SavedParts:
        """Where a stage keeps what it finished of the rows from `first` on, before they are done."""
        return SavedParts(self.path.with_suffix(f".{first}.npz"), self.every, stopping)

    def drop(self) -> None:
        """Remove the file: the shard is about to be committed."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


class SavedParts(Parts):
    """Parts of one block in a file of this machine, beside the checkpoint of its shard.

    Parameters
    ----------
    path : Path
        Names the block by everything that its result depends on.
    every : float
        Seconds between two savings.
    stopping : callable
        Whether this process was asked to stop: then it is time to save.
    """

    def __init__(self, path: Path, every: float, stopping: Callable[[], bool]) -> None:
        self._path, self._every, self._stopping = path, every, stopping
        self._last = time.monotonic()
        self._kept: dict[str, Array] | None = None

    def get(self, name: str) -> Array | None:
        """The part `name` as the file has it; None without a usable file."""
        return self._load().get(name)

    def due(self) -> bool:
        """Whether the last saving is long enough ago, or this process is to stop."""
        return time.monotonic() - self._last >= self._every or self._stopping()

    def keep(self, parts: Mapping[str, Array]) -> None:
        """Write these parts and all before them. Scratch out of space costs nothing but safety."""
        kept = self._load()
        kept.update(parts)
        with contextlib.suppress(OSError):
            _save_npz(self._path, kept)
        self._last = time.monotonic()

    def drop(self) -> None:
        """Remove the file: its rows are done."""
        if self._kept:
            self._kept = {}
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _load(self) -> dict[str, Array]:
        if self._kept is None:
            self._kept = {}
            with contextlib.suppress(*UNUSABLE), np.load(self._path, allow_pickle=False) as saved:
                self._kept = {name: saved[name] for name in saved.files}
        return self._kept


def _save_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to a file at once: a kill leaves either the old file or the new one."""
    aside = path.with_suffix(f".{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    aside.replace(path)
