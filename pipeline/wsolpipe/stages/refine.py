"""Maps of any stage of the store, refined by the image: r = (1 - w) · m + w · (what the image makes of m)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit
from wsolpipe.ops.refinement import Refinement
from wsolpipe.stages.base import Advice, Array, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.map_stage import level_arrays
from wsolpipe.stages.marks import AsBefore, NamesStage, require_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.contract.reader import StageView
    from wsolpipe.contract.schema import ArraySpec

_BATCH = 16  # images decoded side by side; results do not depend on it
WEIGHT = "weight.json"
#: What is said of the maps of a row and holds of refined ones too.
SAID = ("class_ids", "classes")
#: What a map is read from, beside its levels; with weight 0 all of it stays as it is.
READ = ("range", "grid_hw", "values")
#: What has one entry a slot.
SLOTTED = ("maps", "range", "values", "class_ids")


#: Parameters that each way reads, beside `size`.
READ_BY = {
    "segments": (),
    "guided": ("guided_radius", "guided_eps"),
    "crf": ("crf_size", "crf_iterations", "crf_xy", "crf_rgb", "crf_weight", "crf_smooth_xy", "crf_smooth_weight"),
}


class RefinementParams(StageParams):
    """Which maps are refined, and how.

    Attributes
    ----------
    maps
        Stage of maps that is refined, such as cams, cls_maps or one of your own
    by
        What maps follow: segments (mean over each segment of the stage segments), guided (guided filter on the image)
        or crf (dense CRF on the image)
    size
        Side of the refined maps; with by=segments that of segments.size
    guided_radius
        guided: half side of the window
    guided_eps
        guided: variance of colours in 0..1 below which a window is smoothed
    crf_size
        crf: side at which it runs; time and memory grow with its fourth power
    crf_iterations
        crf: steps of mean-field inference
    crf_xy
        crf: spatial standard deviation of the appearance kernel
    crf_rgb
        crf: colour standard deviation of the appearance kernel
    crf_weight
        crf: weight of the appearance kernel
    crf_smooth_xy
        crf: standard deviation of the smoothness kernel
    crf_smooth_weight
        crf: weight of the smoothness kernel
    """

    maps: Annotated[str, NamesStage("maps")]
    by: Literal["segments", "guided", "crf"]
    size: Annotated[int, Field(ge=8, le=4096), Unit("pixels")]
    guided_radius: Annotated[int, Field(ge=1, le=4096), Unit("pixels")]
    guided_eps: Annotated[float, Field(ge=1e-9, le=1e6)]
    crf_size: Annotated[int, Field(ge=8, le=112), Unit("pixels")]
    crf_iterations: Annotated[int, Field(ge=0, le=1000), Unit("steps")]
    crf_xy: Annotated[float, Field(ge=1e-3, le=1e6), Unit("pixels")]
    crf_rgb: Annotated[float, Field(ge=1e-3, le=1e6), Unit("levels")]
    crf_weight: Annotated[float, Field(ge=0, le=1e6)]
    crf_smooth_xy: Annotated[float, Field(ge=1e-3, le=1e6), Unit("pixels")]
    crf_smooth_weight: Annotated[float, Field(ge=0, le=1e6)]

    def in_key(self) -> dict[str, Any]:
        """Without what the other ways read."""
        values = super().in_key()
        unread = {name for by, names in READ_BY.items() if by != self.by for name in names}
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
    known = "refine.maps=cams, cls_maps, clip_cams, clipseg_cams, text_maps or your own"
    require_array(view, "maps", " to refine", known)
    if segments is not None and segments.manifest.params["size"] != params.size:
        own = segments.manifest.params["size"]
        msg = f"refine.size={params.size}, but the segments have {own} pixels a side"
        raise ConfigError(msg, hint=f"leave refine.size out, or set segments.size={params.size}")


class RefineParams(RefinementParams):
    """Parameters of `Refine`.

    Attributes
    ----------
    w
        Share of what the image makes of a map, 0 to 1; auto: chosen on validation pseudo-boxes by the artifact
        refine_weight, 0 allowed
    map
        Slot of the maps that is refined, and kept alone; null: all, which take as many times the room
    """

    w: Annotated[float, Field(ge=0, le=1)] | Literal["auto"]
    map: Annotated[int | None, Field(ge=0), AsBefore(None)]


class Refine(Stage[RefineParams]):
    """Refines every map of a row; which ones and how many is up to the stage that they come from.

    With weight 0 the maps of that stage are kept at their own grid, so that they score as they do there. A row that has
    no segments is quarantined with their reason, and one whose maps are not finite with that. One segment alone leaves
    maps as they are; a map without contrast stays so; a slot without a map stays empty. All are counted in the record
    of a shard.

    References
    ----------
    Means of segments: as MOLT refines its maps. Guided filter: He et al., PAMI 2013. Dense CRF: Krähenbühl and Koltun,
    NeurIPS 2011.
    """

    w: float
    slots: slice

    @classmethod
    def needs(cls, params: RefineParams, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stage of maps, the segments, and the chosen weight, as far as they are read."""
        return (*params.read_stages(), *(("refine_weight",) if params.w == "auto" else ()))

    @classmethod
    def advice(cls, params: RefineParams) -> tuple[Advice, ...]:
        """The maps as they were."""
        return ((f"wsolpipe eval stage={params.maps}", "the maps before they were refined: better ones come first"),)

    def setup(self) -> None:
        """Read the weight.

        Raises
        ------
        ConfigError
            If the stage holds no maps, or no such slot, or the segments have another size.
        """
        upstream, params = self.context.upstream, self.params
        self.source = upstream[params.maps].manifest
        require_maps(upstream[params.maps], params, upstream.get("segments"))
        if params.map is not None:
            require_slot(upstream[params.maps], params.map, key="refine.map")
        self.slots = slice(None) if params.map is None else slice(params.map, params.map + 1)
        if params.w == "auto":
            found = json.loads((self.context.artifacts["refine_weight"] / WEIGHT).read_text(encoding="utf-8"))
            self.w = float(found["w"])
        else:
            self.w = params.w

    def arrays(self) -> dict[str, ArraySpec]:
        """Maps, their range, and the classes of the stage that they come from."""
        size, source = self.params.size, self._source_arrays()
        slots = source["maps"].shape[0]
        how = f"{self.source.stage} refined by {self.params.by}, w {self.w:g}"
        said = {name: source[name] for name in SAID if name in source}
        if not self.w:
            same = source["maps"].model_copy(update={"meaning": f"{how}: {source['maps'].meaning}"})
            return {"maps": same} | {name: source[name] for name in READ if name in source} | said
        unit = source["range"].unit if "range" in source else ""
        meaning = f"{how}: {source['maps'].meaning}"
        return level_arrays(slots, (size, size), meaning, unit, optional=True) | said

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Refine the maps of these rows."""
        from wsolpipe.maps.segments import to_levels

        maps, plan = inputs[self.params.maps].arrays, self.params.plan()
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        same = [name for name in made if name in SAID or not self.w]
        counts = dict.fromkeys(("rows_of_one_segment", "maps_without_contrast", "slots_without_map"), 0)
        for position, seen in self._seen(rows, inputs):
            levels = maps["maps"][position, self.slots]
            limits = maps["range"][position, self.slots] if "range" in maps else None
            if "grid_hw" in maps:
                height, width = maps["grid_hw"][position]
                levels = levels[:, :height, :width]
            if limits is None:
                limits = np.tile(np.array([0, 255], np.float32), (len(levels), 1))
            present = np.isfinite(limits).all(axis=1)
            if not np.isfinite(levels[present]).all():
                rows.quarantine(position, f"maps of {self.source.stage} hold NaN or infinite values")
                continue
            if self.w:
                refined = plan.refine(levels[present].astype(np.float32), seen, self.w, self.context.device)
                made["maps"][position, present], made["range"][position, present] = to_levels(refined, limits[present])
            for name in same:
                made[name][position] = maps[name][position][self.slots] if name in SLOTTED else maps[name][position]
            counts["slots_without_map"] += int((~present).sum())
            counts["maps_without_contrast"] += int((np.ptp(levels[present], axis=(1, 2)) == 0).sum())
            counts["rows_of_one_segment"] += int(self.params.by == "segments" and seen.max() == 0)
        rows.counts = counts
        return made

    def _source_arrays(self) -> dict[str, ArraySpec]:
        """Arrays of the stage of maps, with the slots that are refined."""
        arrays = dict(self.source.arrays)
        if self.params.map is not None:
            for name in arrays.keys() & set(SLOTTED):
                arrays[name] = arrays[name].model_copy(update={"shape": (1, *arrays[name].shape[1:])})
        return arrays

    def _seen(self, rows: Rows, inputs: Mapping[str, Upstream]) -> Iterator[tuple[int, Array]]:
        """Each usable row with its labels of segments, or its image."""
        size = self.params.size
        if self.params.by == "segments":
            labels = inputs["segments"].arrays["labels"]
            for position in range(len(rows)):
                if rows.usable(position):
                    yield position, labels[position]
            return
        for batch in rows.batches(_BATCH, lambda image, _: resize(image, (size, size))):
            for _, position, image in batch.present():
                self.context.check()
                yield position, image
            self.context.progress(batch.stop, len(rows))

    def grain(self) -> int:
        """Whole batches."""
        return _BATCH
