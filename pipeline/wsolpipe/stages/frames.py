"""Maps and boxes of any stage over the frames of a video: each with those of the frames before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from wsolpipe.contract.schema import ArraySpec, Status, boxes_spec
from wsolpipe.keys.kinds import Unit
from wsolpipe.metrics.boxes import iou_matrix
from wsolpipe.stages.base import Array, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.map_stage import range_spec
from wsolpipe.stages.marks import NamesStage, require_array

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsolpipe.contract.reader import StageView

WAYS: dict[str, Callable[..., Array]] = {"mean": np.mean, "median": np.median, "max": np.max}


class Beside:
    """Rows that a stage of frames reads of another stage.

    Parameters
    ----------
    view : StageView
        The other stage, for the rows outside of the block.
    own : Upstream
        Its arrays for the rows of the block.
    rows : Rows
        The block.

    Attributes
    ----------
    places : int64 array [n, 2k + 1]
        Position in what `array` returns of the frames around each row, itself in the middle; −1 where there is none,
        or none with a result.
    """

    def __init__(self, view: StageView, own: Upstream, rows: Rows) -> None:
        self._view, self._own = view, own
        self._outside = np.setdiff1d(rows.beside[rows.beside >= 0], rows.numbers)
        numbers = np.concatenate([rows.numbers, self._outside])
        half = rows.beside.shape[1] // 2
        wanted = np.concatenate([rows.beside[:, :half], rows.numbers[:, None], rows.beside[:, half:]], axis=1)
        order = np.argsort(numbers)
        places = order[np.searchsorted(numbers[order], np.maximum(wanted, numbers.min()))]
        good = (wanted >= 0) & (self._with_outside("status", own.status)[places] == Status.OK)
        self.places = np.where(good, places, -1)

    def array(self, name: str) -> Array:
        """An array of the other stage: the rows of the block, then those of its frames outside."""
        return self._with_outside(name, self._own.arrays[name])

    def around(self, position: int) -> Array:
        """Places of the frames around a row that have a result, its own included, earliest first."""
        near = self.places[position]
        found: Array = near[near >= 0]
        return found

    def _with_outside(self, name: str, inside: Array) -> Array:
        return np.concatenate([inside, self._view[name][self._outside]]) if len(self._outside) else inside


class FrameParams(StageParams):
    """Parameters of a `FrameStage`.

    Attributes
    ----------
    frames
        Frames before and after each that take part, of the same group; fewer at its ends
    """

    frames: Annotated[int, Field(ge=1, le=64), Unit("frames")]


P = TypeVar("P", bound=FrameParams)


class FrameStage(Stage[P]):
    """Reads another stage for each row and for the frames around it.

    Attributes
    ----------
    source : str
        Parameter that names the other stage.
    """

    source: ClassVar[str]

    @classmethod
    def needs(cls, params: P, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stage that it reads."""
        return (getattr(params, cls.source),)

    @classmethod
    def frames_beside(cls, params: P) -> int:
        """`FrameParams.frames`."""
        return params.frames


class SmoothParams(FrameParams):
    """Parameters of `Smooth`.

    Attributes
    ----------
    maps
        Stage of maps that is smoothed, such as clip_cams, cams or refine
    by
        What each place of a map becomes: mean, median or greatest value over the frames
    """

    maps: Annotated[str, NamesStage("maps")]
    by: Literal["mean", "median", "max"]


class Smooth(FrameStage[SmoothParams]):
    """Takes maps at one place of successive frames together, without following motion.

    Every frame counts by its own levels, 0 to 255. Frames without a result, without a map in the slot, of another
    class there, of another grid or with a map that is not finite take no part; the last are quarantined themselves. A
    slot that is empty stays empty, an image without group as it is.
    """

    source: ClassVar[str] = "maps"

    def setup(self) -> None:
        """Look at the stage of maps.

        Raises
        ------
        ConfigError
            If it holds none.
        """
        view = self.context.upstream[self.params.maps]
        require_array(view, "maps", " to smooth", "smooth.maps=clip_cams, cams, cls_maps, text_maps or your own")
        self.manifest = view.manifest

    def arrays(self) -> dict[str, ArraySpec]:
        """Maps, their range, and what that stage says of their classes and grids."""
        source = self.manifest.arrays
        how = f"{self.params.by} over {self.params.frames} frames before and after: {source['maps'].meaning}"
        unit = source["range"].unit if "range" in source else ""
        limits = range_spec(source["maps"].shape[0], unit, optional=True)
        kept: dict[str, ArraySpec] = {name: source[name] for name in ("class_ids", "grid_hw") if name in source}
        return {"maps": source["maps"].model_copy(update={"meaning": how}), "range": limits, **kept}

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Smooth the maps of these rows."""
        from wsolpipe.maps.segments import to_levels

        near = Beside(self.context.upstream[self.params.maps], inputs[self.params.maps], rows)
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        levels = near.array("maps")
        like = {name: near.array(name) for name in ("class_ids", "grid_hw") if name in made}
        limits = near.array("range") if "range" in self.manifest.arrays else _full_range(levels)
        there = np.asarray(np.isfinite(limits).all(axis=2))
        whole = np.asarray(~there | np.isfinite(levels).all(axis=(2, 3)))
        for position in range(len(rows)):
            if not rows.usable(position):
                continue
            self.context.check()
            if not whole[position].all():
                rows.quarantine(position, f"maps of {self.manifest.stage} hold NaN or infinite values")
                continue
            around = near.around(position)
            area: tuple[slice, ...] = (slice(None), slice(None))
            if "grid_hw" in like:
                around = around[(like["grid_hw"][around] == like["grid_hw"][position]).all(axis=1)]
                area = tuple(slice(int(side)) for side in like["grid_hw"][position])
            for slot in np.flatnonzero(there[position]):
                chosen = around[there[around, slot] & whole[around, slot]]
                if "class_ids" in like:
                    chosen = chosen[like["class_ids"][chosen, slot] == like["class_ids"][position, slot]]
                values = WAYS[self.params.by](levels[chosen, slot][:, *area].astype(np.float32), axis=0)
                smoothed, between = to_levels(values[None].astype(np.float32), limits[position, slot][None])
                made["maps"][position, slot][area] = smoothed[0]
                made["range"][position, slot] = between[0]
            for name, values in like.items():
                made[name][position] = values[position]
        return made


def _full_range(levels: Array) -> Array:
    return np.broadcast_to(np.array([0, 255], np.float32), (*levels.shape[:2], 2))


class PropagateParams(FrameParams):
    """Parameters of `Propagate`.

    Attributes
    ----------
    boxes
        Stage of boxes that are carried, such as val_boxes, proposals or predictions
    by
        Box of a frame: median (each side's median over the first boxes of the frames) or vote (of all boxes of the
        frames, the one with the greatest mean IoU with its nearest box in each)
    """

    boxes: Annotated[str, NamesStage("boxes")]
    by: Literal["median", "vote"]


class Propagate(FrameStage[PropagateParams]):
    """Gives each frame one box from those of the frames around it, without optical flow; a frame without one gets one.

    Boxes keep their pixels from frame to frame, and are clipped to the image. A quarantined row stays so.
    """

    source: ClassVar[str] = "boxes"

    def setup(self) -> None:
        """Look at the stage of boxes.

        Raises
        ------
        ConfigError
            If it holds none.
        """
        view = self.context.upstream[self.params.boxes]
        require_array(view, "boxes", " to carry", "propagate.boxes=val_boxes, proposals, predictions or your own")

    def arrays(self) -> dict[str, ArraySpec]:
        """One box a row, and how well the frames agree on it."""
        params = self.params
        meaning = f"{params.by} of the boxes of {params.boxes}, {params.frames} frames before and after"
        support = "mean over these frames of the box's IoU with its nearest there; NaN without a box"
        return {
            "boxes": boxes_spec(1, meaning),
            "support": ArraySpec(dtype="float32", fill="nan", unit="IoU", meaning=support),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Choose the boxes of these rows."""
        near = Beside(self.context.upstream[self.params.boxes], inputs[self.params.boxes], rows)
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        boxes = near.array("boxes").astype(np.float64)
        boxes = boxes.reshape(len(boxes), -1, 4)
        for position, (height, width) in enumerate(rows.sizes()):
            if not rows.usable(position):
                continue
            frames = [found[np.isfinite(found).all(axis=1)] for found in boxes[near.around(position)]]
            frames = [found for found in frames if len(found)]
            if frames:
                box = np.median([found[0] for found in frames], axis=0)[None]
                candidates = box if self.params.by == "median" else np.concatenate(frames)
                support = np.mean([iou_matrix(candidates, found).max(axis=1) for found in frames], axis=0)
                best = int(np.argmax(support))
                made["boxes"][position, 0] = candidates[best].clip(0, [width, height, width, height])
                made["support"][position] = support[best]
        return made
