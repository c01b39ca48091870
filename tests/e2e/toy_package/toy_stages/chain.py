"""Cheap, deterministic stages of somebody else's package: shades, boxes, and a palette of the whole split."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.stages.base import ArtifactStage, Context, Made, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.marks import ExecutionOnly, WeightsSource

if TYPE_CHECKING:
    from collections.abc import Mapping

SLOTS = 3


def note(what: str, **fields: Any) -> None:
    """Append a line to the file that the test watches."""
    path = os.environ.get("TOY_LOG")
    if path:
        with open(path, "a") as file:  # noqa: PTH123
            file.write(json.dumps({"what": what, "pid": os.getpid(), **fields}) + "\n")


def wait_at(gate: str) -> None:
    """Hang until the file `gate` exists, whatever signals come."""
    deadline = time.monotonic() + 100
    while gate and not os.path.exists(gate) and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.01)


DEAD: list[str] = []


def use_device(dies: str) -> None:
    """Fail as a GPU does: once for all processes, by the file `dies`, but from then on for ever in this one."""
    if dies and not os.path.exists(dies):  # noqa: PTH110
        DEAD.append(dies)
        open(dies, "x").close()  # noqa: PTH123
    if DEAD:
        msg = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported late"
        raise RuntimeError(msg)


class ShadeParams(StageParams):
    """`pause` and `batch` change nothing but the time; `bad` names rows on which the stage raises.

    Set-up waits until the file `gate` exists, so that a test knows how many workers are at work.
    """

    grid: int = 8
    gain: float = 1.0
    weights: Annotated[str | None, WeightsSource()] = None
    batch: Annotated[int, ExecutionOnly()] = 4
    pause: Annotated[float, ExecutionOnly()] = 0.0
    bad: Annotated[list[int], ExecutionOnly()] = []
    fault: Annotated[str, ExecutionOnly()] = ""
    gate: Annotated[str, ExecutionOnly()] = ""
    dies: Annotated[str, ExecutionOnly()] = ""


class Shade(Stage[ShadeParams]):
    """A grid of mean grey values a row."""

    Params = ShadeParams

    @classmethod
    def weights_needed(cls, params: ShadeParams) -> dict[str, str]:
        return {"tensors": params.weights} if params.weights else {}

    def setup(self) -> None:
        note("setup")
        wait_at(self.params.gate)
        if self.params.fault == "setup":
            msg = "no such model"
            raise RuntimeError(msg)

    def arrays(self) -> dict[str, ArraySpec]:
        shape = (2, self.params.grid, self.params.grid)
        return {"maps": ArraySpec(dtype="uint8", shape=shape), "mean": ArraySpec(dtype="float32", fill="nan")}

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, np.ndarray]:
        note("shade", first=int(rows.numbers[0]), rows=len(rows))
        grid, fault = self.params.grid, self.params.fault
        if rows.numbers[0] >= 20:
            use_device(self.params.dies)
        maps = np.zeros((len(rows), 2, grid, grid), np.uint8)
        mean = np.full(len(rows), np.nan, np.float32)

        def prepare(image: np.ndarray, position: int) -> np.ndarray:
            if int(rows.numbers[position]) in self.params.bad:
                msg = f"row {rows.numbers[position]} is too dark"
                raise ValueError(msg)
            y = np.linspace(0, image.shape[0] - 1, grid).astype(int)
            x = np.linspace(0, image.shape[1] - 1, grid).astype(int)
            return image.mean(axis=2)[y][:, x] * self.params.gain

        for batch in rows.batches(self.params.batch, prepare):
            for _, position, grey in batch.present():
                maps[position] = np.stack([grey, 255 - grey]).clip(0, 255).astype(np.uint8)
                mean[position] = grey.mean()
        time.sleep(self.params.pause)
        if fault == "process":
            msg = "the kernel is broken"
            raise RuntimeError(msg)
        if fault == "shape":
            maps = maps[:, :1]
        if fault == "dtype":
            mean = mean.astype(np.float64)
        if fault == "names":
            return {"maps": maps}
        return {"maps": maps, "mean": mean}

    def summary(self, arrays: Mapping[str, np.ndarray], rows: Rows) -> dict[str, Any]:
        return {"brightness": int(arrays["maps"][:, 0].sum())}


class FrameParams(StageParams):
    """`spread` widens the boxes."""

    spread: float = 1.0
    pause: Annotated[float, ExecutionOnly()] = 0.0


class Frame(Stage[FrameParams]):
    """Boxes from the brightest cells, their scores mixed with the palette: reads a rows stage and an artifact."""

    Params = FrameParams

    def __init__(self, params: FrameParams, context: Context) -> None:
        super().__init__(params, context)
        self.palette: dict[str, float] = {}

    def setup(self) -> None:
        self.palette = json.loads((self.context.artifacts["palette"] / "palette.json").read_text())

    def arrays(self) -> dict[str, ArraySpec]:
        return {
            "boxes": boxes_spec(SLOTS, "frames"),
            "scores": ArraySpec(dtype="float32", shape=(SLOTS,), fill="nan"),
            "count": ArraySpec(dtype="uint8"),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, np.ndarray]:
        note("frame", first=int(rows.numbers[0]), rows=len(rows))
        maps = inputs["shade"].arrays["maps"]
        boxes = np.full((len(rows), SLOTS, 4), np.nan, np.float32)
        scores = np.full((len(rows), SLOTS), np.nan, np.float32)
        count = np.zeros(len(rows), np.uint8)
        for position, ((height, width), label) in enumerate(zip(rows.sizes(), rows.labels(), strict=True)):
            if not rows.usable(position):
                continue
            cells = np.argwhere(maps[position, 0] >= np.quantile(maps[position, 0], 0.9))
            low, high = cells.min(0) / maps.shape[2], (cells.max(0) + 1) / maps.shape[2]
            for slot in range(SLOTS):
                room = slot * 0.02 * self.params.spread
                edges = np.clip([low[1] - room, low[0] - room, high[1] + room, high[0] + room], 0, 1)
                boxes[position, slot] = edges * [width, height, width, height]
                scores[position, slot] = self.palette[str(label)] / (1 + slot)
            count[position] = SLOTS
        time.sleep(self.params.pause)
        return {"boxes": boxes, "scores": scores, "count": count}


class PaletteParams(StageParams):
    """`seed` salts the palette, which waits until the file `gate` exists."""

    seed: int = 0
    pause: Annotated[float, ExecutionOnly()] = 0.0
    gate: Annotated[str, ExecutionOnly()] = ""
    fault: Annotated[str, ExecutionOnly()] = ""
    dies: Annotated[str, ExecutionOnly()] = ""


class Palette(ArtifactStage[PaletteParams]):
    """A number for every label, made from the labels of the train split."""

    Params = PaletteParams

    @classmethod
    def splits_needed(cls, params: PaletteParams) -> tuple[str, ...]:
        return ("train",)

    def produce(self, splits: Mapping[str, Rows]) -> Made:
        note("palette")
        use_device(self.params.dies)
        wait_at(self.params.gate)
        time.sleep(self.params.pause)
        if self.params.fault:
            raise RuntimeError(self.params.fault)
        labels = sorted({label for label in splits["train"].labels() if label is not None})
        salt = f"{self.params.seed} {len(splits['train'])}"
        values = {str(label): hashlib.sha256(f"{salt} {label}".encode()).digest()[0] / 255 for label in labels}
        return Made(
            files={"palette.json": json.dumps(values).encode(), "salt.txt": salt.encode()},
            summary={"labels": len(labels)},
        )
