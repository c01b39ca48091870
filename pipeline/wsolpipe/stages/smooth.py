"""Maps of any stage, smoothed over the frames of a video: each with those of the frames before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import Stage, StageParams
from wsolpipe.stages.beside import Beside
from wsolpipe.stages.marks import NamesStage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsolpipe.stages.base import Array, Rows, Upstream

WAYS: dict[str, Callable[..., Array]] = {"mean": np.mean, "median": np.median, "max": np.max}


class SmoothParams(StageParams):
    """Parameters of `Smooth`."""

    maps: Annotated[str, NamesStage("maps")] = Field(
        description="Stage of maps that is smoothed, such as clip_cams, cams or refine"
    )
    by: Literal["mean", "median", "max"] = Field(
        description="What each place of a map becomes: mean, median or greatest value over the frames"
    )
    frames: Annotated[int, Field(ge=1, le=64), Unit("frames")] = Field(
        description="Frames before and after each that take part, of the same group; fewer at its ends"
    )


class Smooth(Stage[SmoothParams]):
    """Takes maps at one place of successive frames together, without following motion.

    Every frame counts by its own levels, 0 to 255. Frames without a result, without a map in the slot, of another
    class there, of another grid or with a map that is not finite take no part; the last are quarantined themselves. A
    slot that is empty stays empty, an image without group as it is.
    """

    Params: ClassVar[type[StageParams]] = SmoothParams

    @classmethod
    def needs(cls, params: SmoothParams, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stage of maps."""
        return (params.maps,)

    @classmethod
    def frames_beside(cls, params: SmoothParams) -> int:
        """`SmoothParams.frames`."""
        return params.frames

    def setup(self) -> None:
        """Look at the stage of maps.

        Raises
        ------
        ConfigError
            If it holds none.
        """
        self.source = self.context.upstream[self.params.maps].manifest
        if "maps" not in self.source.arrays:
            msg = f"stage {self.source.stage} holds no maps to smooth, but {', '.join(sorted(self.source.arrays))}"
            raise ConfigError(msg, hint="smooth.maps=clip_cams, cams, cls_maps, text_maps or your own")

    def arrays(self) -> dict[str, ArraySpec]:
        """Maps, their range, and what that stage says of their classes and grids."""
        source = self.source.arrays
        how = f"{self.params.by} over {self.params.frames} frames before and after: {source['maps'].meaning}"
        limits = ArraySpec(
            dtype="float32",
            shape=(source["maps"].shape[0], 2),
            fill="nan",
            unit=source["range"].unit if "range" in source else "",
            meaning="low and high of each map: levels 0 and 255; NaN where there is no map",
        )
        kept: dict[str, ArraySpec] = {name: source[name] for name in ("class_ids", "grid_hw") if name in source}
        return {"maps": source["maps"].model_copy(update={"meaning": how}), "range": limits, **kept}

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Smooth the maps of these rows."""
        from wsolpipe.maps.segments import to_levels

        near = Beside(self.context.upstream[self.params.maps], inputs[self.params.maps], rows)
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        levels = near.array("maps")
        like = {name: near.array(name) for name in ("class_ids", "grid_hw") if name in made}
        limits = near.array("range") if "range" in self.source.arrays else _full_range(levels)
        there = np.asarray(np.isfinite(limits).all(axis=2))
        whole = np.asarray(~there | np.isfinite(levels).all(axis=(2, 3)))
        for position in range(len(rows)):
            if not rows.usable(position):
                continue
            self.context.check()
            if not whole[position].all():
                rows.quarantine(position, f"maps of {self.source.stage} hold NaN or infinite values")
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
