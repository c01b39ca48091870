"""Running a stage on a block so that a bad row affects no other row, and how many rows it is given at once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import BadImageError, StoreError, WsolError, is_out_of_memory
from wsolpipe.contract.named import missing_package
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.networks.devices import is_device_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.stages.base import Rows, Stage, Upstream


Array = np.ndarray[Any, Any]
FAILURES_IN_A_ROW = 8


@dataclass
class Streak:
    """Rows in a row that made stages raise in this process, over the borders of blocks and shards."""

    rows: int = 0


def process_guarded(
    stage: Stage[Any],
    rows: Rows,
    inputs: Mapping[str, Upstream],
    specs: Mapping[str, ArraySpec],
    streak: Streak | None = None,
) -> dict[str, Array]:
    """Run a stage on a block; a row that makes it raise is quarantined and the others go on.

    Where the device runs out of memory, the stage's batch is halved, which changes no result, and it begins anew.

    Raises
    ------
    Exception
        The stage's own, if it says that the device failed, or if row after row fails: then no row is to blame.
    """
    streak = streak or Streak()
    while True:
        before, reasons = rows.status.copy(), dict(rows.reasons)
        try:
            return _process_around_bad_rows(stage, rows, inputs, specs, streak)
        except Exception as error:
            if not (is_out_of_memory(error) and _halve_batch(stage)):
                raise
            rows.status, rows.reasons = before, reasons


def _process_around_bad_rows(
    stage: Stage[Any],
    rows: Rows,
    inputs: Mapping[str, Upstream],
    specs: Mapping[str, ArraySpec],
    streak: Streak,
) -> dict[str, Array]:
    before = rows.status.copy()
    try:
        made = _checked(stage.process(rows, inputs), rows, specs)
    except Exception as error:
        usable = np.flatnonzero(before == Status.OK)
        if not len(usable) or _beyond_rows(error):
            raise
        bad = _find_bad_rows(stage, rows, inputs, before, usable, error, streak)
    else:
        if (before == Status.OK).any():
            streak.rows = 0
        return made
    rows.status = before
    for position, reason in bad.items():
        rows.quarantine(position, reason)
    return _checked(stage.process(rows, inputs), rows, specs)


def _find_bad_rows(
    stage: Stage[Any],
    rows: Rows,
    inputs: Mapping[str, Upstream],
    before: Array,
    usable: Array,
    first: Exception,
    streak: Streak,
) -> dict[int, str]:
    """Halve the block, widest parts first, until each failing row is isolated.

    Raises `first` where `FAILURES_IN_A_ROW` rows failed alone, and no part of the block or of those before ever passed.
    """
    bad: dict[int, str] = {}
    passed = False
    parts = deque([usable] if len(usable) == 1 else [usable[: len(usable) // 2], usable[len(usable) // 2 :]])
    while parts:
        part = parts.popleft()
        rows.status = np.where(np.isin(np.arange(len(rows)), part), before, np.uint8(Status.QUARANTINED)).astype(
            np.uint8
        )
        try:
            stage.process(rows, inputs)
            passed, streak.rows = True, 0
        except Exception as error:
            if _beyond_rows(error):
                raise
            if len(part) == 1:
                known = isinstance(error, BadImageError)
                bad[int(part[0])] = str(error) if known else f"stage failed: {type(error).__name__}: {error}"
                streak.rows += not known and not passed
                if streak.rows >= FAILURES_IN_A_ROW:
                    raise first from error
            else:
                parts += [part[: len(part) // 2], part[len(part) // 2 :]]
    return bad


def _beyond_rows(error: Exception) -> bool:
    """Whether an error is about the run or the machine, so that no row is to blame."""
    if isinstance(error, WsolError):
        return not isinstance(error, BadImageError)
    if isinstance(error, ImportError) and missing_package(error):
        return True
    return is_out_of_memory(error) or is_device_fault(error)


def _halve_batch(stage: Stage[Any]) -> bool:
    """Halve the batch of a stage that has one and say so; False where it cannot be smaller."""
    key = stage.batch_key()
    batch = getattr(stage.params, key, None)
    if not isinstance(batch, int) or batch < 2:
        return False
    stage.params = stage.params.model_copy(update={key: batch // 2})
    device = stage.context.device
    name = type(stage).__name__
    stage.context.warn(f"{name}: {device} ran out of memory with {key}={batch}; going on with {key}={batch // 2}")
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
    return True


def _checked(made: dict[str, Array], rows: Rows, specs: Mapping[str, ArraySpec]) -> dict[str, Array]:
    if set(made) != set(specs):
        msg = f"the stage returned arrays {sorted(made)} where {sorted(specs)} were declared"
        raise StoreError(msg)
    for name, spec in specs.items():
        expected = (len(rows), *spec.shape)
        if made[name].shape != expected or made[name].dtype != np.dtype(spec.dtype):
            msg = f"array {name} is {made[name].shape} {made[name].dtype}; declared: {expected} {spec.dtype}"
            raise StoreError(msg)
        if not made[name].flags.writeable:
            made[name] = made[name].copy()
        made[name][rows.status != Status.OK] = spec.fill_value()
    return made


#: Work between two places at which a shard can be left and taken up again, where the stage's grain allows it.
SECONDS = 10.0


@dataclass
class Pace:
    """Rows at once for one stage in this process, learned from how long its rows take.

    Attributes
    ----------
    block : int
        Rows of a block, whose boundaries are never crossed.
    grain : int or None
        Rows after each of which a block may be cut without changing a result; None where it may not be.
    """

    block: int
    grain: int | None
    _rows: int = FAILURES_IN_A_ROW

    def stop(self, first: int, rows: int) -> int:
        """One past the last row to hand over with `first`, of a shard of `rows`."""
        end = min((first // self.block + 1) * self.block, rows)
        if self.grain is None:
            return end
        return min(end, first + -(-self._rows // self.grain) * self.grain)

    def learn(self, rows: int, seconds: float) -> None:
        """Note how long some rows took; at most four times as many are handed over next.

        Never fewer than it takes to tell a broken stage from a bad row.
        """
        if self.grain is not None:
            fitting = int(rows * min(4.0, SECONDS / max(seconds, 1e-6)))
            self._rows = max(FAILURES_IN_A_ROW, fitting // self.grain * self.grain)
