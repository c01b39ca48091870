"""Parameters that the stages ``refine`` and ``refine_weight`` share: which maps, and how they are refined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.kinds import Unit
from wsolpipe.ops.refinement import Refinement
from wsolpipe.stages.base import StageParams
from wsolpipe.stages.marks import NamesStage

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView

#: Parameters that each way reads, beside `size`.
READS = {
    "segments": (),
    "guided": ("guided_radius", "guided_eps"),
    "crf": ("crf_size", "crf_iterations", "crf_xy", "crf_rgb", "crf_weight", "crf_smooth_xy", "crf_smooth_weight"),
}


class RefinementParams(StageParams):
    """Which maps are refined, and how."""

    maps: Annotated[str, NamesStage("maps")] = Field(
        description="Stage of maps that is refined, such as cams, cls_maps or one of your own"
    )
    by: Literal["segments", "guided", "crf"] = Field(
        description="What maps follow: segments (mean over each segment of the stage segments), guided (guided filter "
        "on the image) or crf (dense CRF on the image)"
    )
    size: Annotated[int, Field(ge=8, le=4096), Unit("pixels")] = Field(
        description="Side of the refined maps; with by=segments that of segments.size"
    )
    guided_radius: Annotated[int, Field(ge=1, le=4096), Unit("pixels")] = Field(
        description="guided: half side of the window"
    )
    guided_eps: Annotated[float, Field(ge=1e-9, le=1e6)] = Field(
        description="guided: variance of colours in 0..1 below which a window is smoothed"
    )
    crf_size: Annotated[int, Field(ge=8, le=112), Unit("pixels")] = Field(
        description="crf: side at which it runs; time and memory grow with its fourth power"
    )
    crf_iterations: Annotated[int, Field(ge=0, le=1000), Unit("steps")] = Field(
        description="crf: steps of mean-field inference"
    )
    crf_xy: Annotated[float, Field(ge=1e-3, le=1e6), Unit("pixels")] = Field(
        description="crf: spatial standard deviation of the appearance kernel"
    )
    crf_rgb: Annotated[float, Field(ge=1e-3, le=1e6), Unit("levels")] = Field(
        description="crf: colour standard deviation of the appearance kernel"
    )
    crf_weight: Annotated[float, Field(ge=0, le=1e6)] = Field(description="crf: weight of the appearance kernel")
    crf_smooth_xy: Annotated[float, Field(ge=1e-3, le=1e6), Unit("pixels")] = Field(
        description="crf: standard deviation of the smoothness kernel"
    )
    crf_smooth_weight: Annotated[float, Field(ge=0, le=1e6)] = Field(description="crf: weight of the smoothness kernel")

    def in_key(self) -> dict[str, Any]:
        """Without what the other ways read."""
        values = super().in_key()
        unread = {name for by, names in READS.items() if by != self.by for name in names}
        return {name: value for name, value in values.items() if name not in unread}

    def plan(self) -> Refinement:
        """How maps are refined."""
        return Refinement(**{name: getattr(self, name) for name in Refinement.__dataclass_fields__})

    def read_stages(self) -> tuple[str, ...]:
        """The stage of maps, and the segments where maps follow them."""
        return (self.maps, "segments") if self.by == "segments" else (self.maps,)


def require_slot(view: StageView, slot: int, *, key: str) -> None:
    """Refuse a slot that the stage of maps does not have.

    Raises
    ------
    ConfigError
        Says how many there are.
    """
    slots = view.manifest.arrays["maps"].shape[0]
    if slot >= slots:
        msg = f"{key}={slot}: stage {view.stage} holds {slots} maps, numbered from 0"
        raise ConfigError(msg)


def require_maps(view: StageView, params: RefinementParams, segments: StageView | None) -> None:
    """Refuse a stage without maps, and segments of another size.

    Raises
    ------
    ConfigError
        Says what the stage holds, or both sizes.
    """
    if "maps" not in view.manifest.arrays:
        msg = f"stage {view.stage} holds no maps to refine, but {', '.join(sorted(view.manifest.arrays))}"
        raise ConfigError(msg, hint="refine.maps=cams, cls_maps, clip_cams, clipseg_cams, text_maps or your own")
    if segments is not None and segments.manifest.params["size"] != params.size:
        own = segments.manifest.params["size"]
        msg = f"refine.size={params.size}, but the segments have {own} pixels a side"
        raise ConfigError(msg, hint=f"leave refine.size out, or set segments.size={params.size}")
