"""A stage whose work on a row is counted, for tests of what a stop or a kill costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from wsolpipe.contract.schema import ArraySpec
from wsolpipe.stages.base import Stage, StageParams
from wsolpipe.stages.marks import ExecutionOnly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.stages.base import Rows, Upstream

WORKED: list[int] = []
"""Numbers of the rows that were worked on, in order; a test clears it."""

STAGES = """
slow:
  class: engine.slow_stage:Slow
  version: 1
  kind: rows
  columns: []
  params: {keeps: false, cuts: false}
  outputs: {value: the row's number}
"""


class SlowParams(StageParams):
    """`keeps` its rows one by one; `cuts` its blocks anywhere."""

    keeps: Annotated[bool, ExecutionOnly()]
    cuts: Annotated[bool, ExecutionOnly()]


class Slow(Stage[SlowParams]):
    """The row's own number."""

    def arrays(self) -> dict[str, ArraySpec]:
        return {"value": ArraySpec(dtype="int64", fill=-1)}

    def grain(self) -> int | None:
        return 1 if self.params.cuts else None

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Any]:  # noqa: ARG002
        values = np.zeros(len(rows), np.int64)
        for position, number in enumerate(rows.numbers.tolist()):
            kept = rows.parts.get(str(number)) if self.params.keeps else None
            if kept is None:
                WORKED.append(number)
                kept = np.array(number)
            values[position] = kept
            if self.params.keeps and rows.parts.due():
                rows.parts.keep({str(number): kept})
            self.context.progress(position + 1, len(rows))
        return {"value": values}
