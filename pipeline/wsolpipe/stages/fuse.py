"""Maps of several stages joined into one map a row, by weights that are given or chosen without ground truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.schema import Status
from wsolpipe.keys.kinds import Unit
from wsolpipe.maps.levels import minmax, quantise
from wsolpipe.maps.resize import upsample
from wsolpipe.stages.base import Advice, Array, ArtifactStage, Made, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.map_choice import cropped, mirrored, otsu_box_of, rows_seen, search, stability
from wsolpipe.stages.map_stage import level_arrays
from wsolpipe.stages.marks import NamesStage, require_array
from wsolpipe.stages.refine_weight import BATCH, MadeMaps, judge, rows_to_judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wsolpipe.contract.schema import ArraySpec

CHOICE = "weights.json"
_STREAM = 43  # of random draws
#: Arrays that a map is read from.
READ = ("maps", "range", "grid_hw", "values")
Weights = tuple[float, ...]
#: Figures of fused maps by their weights, and what each row adds to the one that decides.
Scorer = Callable[[Weights], tuple[dict[str, float], Array]]


class FusionParams(StageParams):
    """Which maps are joined, and how.

    Attributes
    ----------
    maps
        Stages of maps, two or more, such as [cls_maps,cams]; one may stand twice, with two slots
    slots
        Slot of each stage's maps; null: the first of each
    by
        geometric: the product of the maps, each to the power of its weight; arithmetic: their weighted sum
    norm
        What each map is before it is joined: minmax (its values from 0 to 1) or rank (at each pixel, the share of the
        map that lies below)
    size
        Side of the fused map, to which each map is stretched first
    """

    maps: Annotated[tuple[str, ...], Field(min_length=2), NamesStage("maps")]
    slots: tuple[Annotated[int, Field(ge=0)], ...] | None
    by: Literal["geometric", "arithmetic"]
    norm: Literal["minmax", "rank"]
    size: Annotated[int, Field(ge=8, le=4096), Unit("pixels")]

    @model_validator(mode="after")
    def _one_slot_each(self) -> FusionParams:
        if len(self.sources) < len(self.maps) or len(set(self.sources)) < len(self.maps):
            msg = f"slots names one map of each of the {len(self.maps)} stages, none of them twice"
            raise ValueError(msg)
        return self

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        """Stage and slot of each map."""
        slots = (0,) * len(self.maps) if self.slots is None else self.slots
        return tuple(zip(self.maps, slots, strict=False)) if len(slots) == len(self.maps) else ()

    def in_key(self) -> dict[str, Any]:
        """The slots as numbers."""
        return {**super().in_key(), "slots": [slot for _, slot in self.sources]}

    def scale(self, one: Array) -> Array | None:
        """A map [h, w] as it is joined, float32 [size, size] from 0 to 1; None for one without contrast."""
        if np.ptp(one) <= 0:
            return None
        wide = minmax(upsample(one, (self.size, self.size), cubic=True))
        if self.norm == "rank":
            wide = minmax(np.searchsorted(np.sort(wide, axis=None), wide).astype(np.float32))
        return np.asarray(wide)

    def join(self, scaled: Sequence[Array | None], weights: Sequence[float]) -> Array:
        """Fused map, float64 [size, size]; a map without contrast, or of weight 0, takes no part."""
        geometric = self.by == "geometric"
        pairs = [(one.astype(np.float64), w) for one, w in zip(scaled, weights, strict=True) if one is not None and w]
        if not pairs:
            return np.zeros((self.size, self.size))
        terms = [one**w if geometric else one * w for one, w in pairs]
        return np.asarray(np.prod(terms, axis=0) if geometric else np.sum(terms, axis=0))


def read_map(arrays: Mapping[str, Array], at: int, slot: int) -> Array | None:
    """Map [h, w] of a row, on any scale; None where the slot holds none."""
    if "range" in arrays and not np.isfinite(arrays["range"][at, slot]).all():
        return None
    found: Array = arrays["values" if "values" in arrays else "maps"][at, slot]
    if "grid_hw" in arrays and "values" not in arrays:
        height, width = arrays["grid_hw"][at]
        found = found[:height, :width]
    return found.astype(np.float32)


def _require_sources(stage: Stage[Any] | ArtifactStage[Any], sources: Sequence[tuple[str, int]]) -> None:
    """Refuse sources without such a map, and maps of different classes; see `Fuse.setup`."""
    targets: dict[str, str] = {}
    for name, slot in sources:
        manifest = stage.context.upstream[name].manifest
        require_array(
            stage.context.upstream[name], "maps", " to fuse", "fuse.maps=[cls_maps,cams], or stages of your own"
        )
        slots = manifest.arrays["maps"].shape[0]
        if slot >= slots:
            msg = f"fuse.slots: stage {name} holds {slots} maps, numbered from 0, and not {slot}"
            raise ConfigError(msg, hint="fuse.slots=[0,0] takes the first map of two stages")
        if "target" in manifest.params:
            targets.setdefault(manifest.params["target"], name)
    if len(targets) > 1:
        (one, first), (other, second) = list(targets.items())[:2]
        msg = f"{first}.target={one} and {second}.target={other}: the maps of a row would be of two classes"
        raise ConfigError(msg, hint=f"{second}.target={one}")


class FuseParams(FusionParams):
    """Parameters of `Fuse`.

    Attributes
    ----------
    weights
        Weight of each map, 0 or more: [0.5,1] by=geometric is the root of the first map times the second; auto: as the
        artifact fuse_choice finds, of sum 1, where any may be 0
    """

    weights: tuple[Annotated[float, Field(ge=0, le=100)], ...] | Literal["auto"]

    @model_validator(mode="after")
    def _one_weight_each(self) -> FuseParams:
        if self.weights != "auto" and (len(self.weights) != len(self.maps) or not any(self.weights)):
            msg = f"weights names one number for each of the {len(self.maps)} maps, not all of them 0"
            raise ValueError(msg)
        return self


class Fuse(Stage[FuseParams]):
    """Joins the maps of a row into one: g = Π norm(m)^w, or g = Σ w · norm(m).

    A map without contrast, which shows no place, takes no part. A row in which a map of a weight above 0 is missing has
    no fused map. A row that a source quarantined is quarantined with that reason, and one whose maps are not finite
    with that. The fused map is of the class of the first map that has one. Records of shards count what was left out.

    References
    ----------
    The rules of product and sum: Kittler et al., "On combining classifiers", PAMI 1998.
    """

    weights: Weights

    @classmethod
    def needs(cls, params: FuseParams, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stages of maps, and the chosen weights where they are auto."""
        return (*dict.fromkeys(params.maps), *(("fuse_choice",) if params.weights == "auto" else ()))

    @classmethod
    def advice(cls, params: FuseParams) -> tuple[Advice, ...]:
        """Return the choice and another rule for it, where it was made."""
        if params.weights != "auto":
            return (("fuse.weights=auto", "weights that fuse_choice finds, which leave a harmful map out"),)
        return (("wsolpipe eval stage=fuse_choice", "the score of each map alone, and of every mixture"),)

    def setup(self) -> None:
        """Read the weights.

        Raises
        ------
        ConfigError
            If a stage holds no such map, or their maps are of different classes.
        """
        _require_sources(self, self.params.sources)
        given = self.params.weights
        if given == "auto":
            given = tuple(json.loads((self.context.artifacts["fuse_choice"] / CHOICE).read_text(encoding="utf-8"))["w"])
        self.weights = given
        views = self.context.upstream
        self.read = [source for source, w in zip(self.params.sources, self.weights, strict=True) if w]
        self.classed = [each for each in self.read if "class_ids" in views[each[0]].manifest.arrays][:1]

    def arrays(self) -> dict[str, ArraySpec]:
        """One map, its range, and its class where a map that is read has one."""
        size, params = self.params.size, self.params
        parts = ", ".join(f"{name} {slot}: {w:g}" for (name, slot), w in zip(params.sources, self.weights, strict=True))
        meaning = f"{params.by} mean of maps ({params.norm}) with weights {parts}; min-max per map"
        found = level_arrays(1, (size, size), meaning, optional=True)
        for name, _ in self.classed:
            spec = self.context.upstream[name].manifest.arrays["class_ids"]
            found["class_ids"] = spec.model_copy(update={"shape": (1,)})
        return found

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Join the maps of these rows."""
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        weights = [w for w in self.weights if w]
        counts = dict.fromkeys(("rows_without_map", "maps_without_contrast"), 0)
        for position in range(len(rows)):
            if not rows.usable(position):
                continue
            self.context.check()
            maps = [read_map(inputs[name].arrays, position, slot) for name, slot in self.read]
            present = [one for one in maps if one is not None]
            found = zip(maps, self.read, strict=True)
            if bad := [name for one, (name, _) in found if one is not None and not np.isfinite(one).all()]:
                rows.quarantine(position, f"maps of {bad[0]} hold NaN or infinite values")
                continue
            if len(present) < len(maps):
                counts["rows_without_map"] += 1
                continue
            scaled = [self.params.scale(one) for one in present]
            counts["maps_without_contrast"] += sum(one is None for one in scaled)
            fused = self.params.join(scaled, weights).astype(np.float32)
            made["maps"][position], made["range"][position] = quantise(fused[None])
            for name, slot in self.classed:
                made["class_ids"][position, 0] = inputs[name].arrays["class_ids"][position, slot]
        rows.counts = counts
        return made

    def grain(self) -> int:
        """Some rows, so that a stop is obeyed; every row stands alone."""
        return 16


class FuseChoiceParams(FusionParams):
    """Parameters of `FuseChoice`; those that fuse has too follow it.

    Attributes
    ----------
    rule
        stability: how little the Otsu box of the fused map changes when images are mirrored or cropped by 8 % a side;
        not for stages that read maps of others, such as refine and smooth. boxes: a figure on pseudo-boxes
    split
        Split that it is chosen on; the stages of maps are made of all of it
    images
        stability: images that are drawn from the split; 64 to 128 are enough
    against
        boxes: stage of pseudo-boxes in that split, not made of these maps
    metric
        boxes: figure that decides, at the threshold that is best for each mixture
    rows
        boxes: rows of the split that take part, evenly spread; they are kept in memory, 4 bytes a pixel of each map
    shares
        Shares of a further map that are tried, the best map alone first, then one more at a time while it gains
    """

    rule: Literal["stability", "boxes"]
    split: str
    images: Annotated[int, Field(ge=2, le=10_000), Unit("images")]
    against: Annotated[
        str,
        NamesStage(
            "boxes",
            apart_from="maps",
            instead="name boxes of something else, such as fuse_choice.against=val_boxes val_boxes.annotator=ss, or "
            "give the weights: fuse.weights=[1,0.5]",
        ),
    ]
    metric: Literal["MaxBoxAcc", "MaxBoxAccV2", "iou"]
    rows: Annotated[int, Field(ge=1, le=100_000)]
    shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)

    def in_key(self) -> dict[str, Any]:
        """Without what the other rule reads."""
        unread = ("against", "metric", "rows") if self.rule == "stability" else ("images",)
        return {name: value for name, value in super().in_key().items() if name not in unread}


class FuseChoice(ArtifactStage[FuseChoiceParams]):
    """Finds the weights of fuse without ground truth: of each map alone, then of the best with one more at a time.

    References
    ----------
    Forward selection of what joins a mean: Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
    """

    @classmethod
    def needs(cls, params: FuseChoiceParams, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """The stages of maps, and the pseudo-boxes where they decide."""
        return (*dict.fromkeys(params.maps), *((params.against,) if params.rule == "boxes" else ()))

    @classmethod
    def splits_needed(cls, params: FuseChoiceParams) -> tuple[str, ...]:
        """The split that the weights are chosen on."""
        return (params.split,)

    @classmethod
    def rows_read(cls, params: FuseChoiceParams, rows: int) -> int:
        """At most `FuseChoiceParams.images`, or ``rows``."""
        return min(rows, params.images if params.rule == "stability" else params.rows)

    @classmethod
    def without_split(cls, params: FuseChoiceParams, split: str) -> str | None:  # noqa: ARG003
        """Advise another split, or given weights."""
        return "choose on another split, fuse_choice.split=NAME, or give the weights, fuse.weights=[1,0.5]"

    def produce(self, splits: Mapping[str, Rows]) -> Made:
        """Score each map and each mixture.

        Raises
        ------
        ConfigError
            If a stage holds no such map, or cannot be run on other pixels.
        DataError
            If no row has every map.
        """
        params = self.params
        _require_sources(self, params.sources)
        curve: list[dict[str, Any]] = []
        score, count, against = self._by_stability(splits) if params.rule == "stability" else self._by_boxes()

        def values(weights: Weights) -> Array:
            self.context.check()
            figures, by_row = score(weights)
            curve.append({"w": list(weights), **figures})
            return by_row

        best = search(len(params.maps), params.shares, values)
        metric = "stability" if params.rule == "stability" else params.metric
        summary = {"w": list(best), "metric": metric, "against": against, "rows": count, "curve": curve}
        text = json.dumps({"maps": params.sources, "split": params.split, **summary}, indent=1)
        return Made(files={CHOICE: f"{text}\n".encode()}, summary=summary)

    def _arrays(self, name: str, numbers: Array) -> dict[str, Array]:
        view = self.context.upstream[name]
        return {each: view[each][numbers] for each in READ if each in view.manifest.arrays}

    def _nothing(self) -> DataError:
        msg = f"no row of {self.params.split} has every map of {', '.join(self.params.maps)}"
        return DataError(msg, hint="give the weights: fuse.weights=[1,0.5]")

    def _by_stability(self, splits: Mapping[str, Rows]) -> tuple[Scorer, int, str]:
        """Score of weights, number of images, and what maps are held against."""
        params, rows = self.params, splits[self.params.split]
        names = tuple(dict.fromkeys(params.maps))
        usable = np.flatnonzero(np.all([self.context.upstream[name].status() == Status.OK for name in names], axis=0))
        drawn = np.random.default_rng((self.context.seed, _STREAM)).permutation(usable)[: params.images]
        drawn.sort()
        found: list[dict[str, dict[str, Array]]] = [{name: self._arrays(name, drawn) for name in names}, {}, {}]
        good = np.ones(len(drawn), np.bool_)
        for name in names:
            stage = self.context.open_stage(name)
            if stage is None:
                msg = f"stage {name} reads rows of other stages: its maps of mirrored and cropped images cannot be made"
                hint = "fuse_choice.rule=boxes, which chooses on pseudo-boxes, or give fuse.weights=[1,0.5]"
                raise ConfigError(msg, hint=hint)
            for place, change in ((1, mirrored), (2, cropped)):
                seen = rows_seen(rows, drawn, change)
                found[place][name] = stage.process(seen, {})
                good &= seen.status == Status.OK
            self.context.progress(names.index(name) + 1, len(names))
        views = []
        for at in np.flatnonzero(good).tolist():
            maps = [[read_map(arrays[name], at, slot) for name, slot in params.sources] for arrays in found]
            if all(one is not None and np.isfinite(one).all() for each in maps for one in each):
                views.append([[params.scale(one) for one in each] for each in maps])  # type: ignore[arg-type]
        if not views:
            raise self._nothing()

        def score(weights: Weights) -> tuple[dict[str, float], Array]:
            boxes = [[otsu_box_of(params.join(scaled, weights)) for scaled in each] for each in views]
            values = np.array([stability(*three) for three in boxes])
            return {"stability": round(float(values.mean()), 6)}, values

        return score, len(views), "mirrored and cropped images"

    def _by_boxes(self) -> tuple[Scorer, int, str]:
        params, upstream = self.params, self.context.upstream
        sources = [(upstream[name], slot) for name, slot in params.sources]
        truth, chosen = rows_to_judge(sources, upstream[params.against], params.rows)
        kept, maps = list[int](), list[list[Array | None]]()
        for start in range(0, len(chosen), BATCH):
            numbers = chosen[start : start + BATCH]
            arrays = {name: self._arrays(name, numbers) for name in dict.fromkeys(params.maps)}
            for at, number in enumerate(numbers.tolist()):
                found = [read_map(arrays[name], at, slot) for name, slot in params.sources]
                if all(one is not None for one in found):
                    kept.append(number)
                    maps.append([params.scale(one) for one in found])  # type: ignore[arg-type]
            self.context.progress(start + len(numbers), len(chosen))
        if not kept:
            raise self._nothing()

        def score(weights: Weights) -> tuple[dict[str, float], Array]:
            def join(part: slice) -> list[Array]:
                return [params.join(scaled, weights).astype(np.float32) for scaled in maps[part]]

            return judge(MadeMaps(np.array(kept), join), truth, params.metric, self.context.threads)

        return score, len(kept), truth.name
