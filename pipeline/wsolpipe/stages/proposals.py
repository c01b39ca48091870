"""DiPS proposals: boxes around what the maps light up, ranked by what the classifier says of each (Algorithm 2.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import Advice, Array, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.marks import AsBefore, ExecutionOnly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.ops.candidates import Candidates


class ProposalsParams(StageParams):
    """Parameters of `Proposals`.

    Attributes
    ----------
    maps
        Maps of cls_maps that are thresholded: mean, mean+N (the mean and the first N heads), all, or positions such as
        [0, 2], where 0 is the mean and 1 the first head
    size
        Side of the grid to which maps are stretched before Otsu's threshold
    min_area
        Share of the image that a box must exceed; if none does, the largest is kept
    blur_kernel
        Width of the Gaussian that blurs what is outside a box, at 224 pixels; scaled with the classifier's input
    blur_sigma
        Standard deviation of that Gaussian, at 224 pixels; scaled likewise
    score
        Score of a box: class (posterior of the row's label), size (density of its area among the image's candidates) or
        the product of both
    rank
        Order of the boxes: posterior (by score alone, as the paper), agreement (score times the IoU with the largest
        region of the mean map) or margin (mean of two ranks, of the logit's margin over the best other class and of
        that IoU; for score=class)
    wbf
        The first box becomes the score-weighted mean of the boxes that overlap it by at least this IoU; 0 leaves it as
        it is
    min_score
        Score that a box must reach to be kept; the best one of a row is kept whatever its score
    threshold
        Threshold of all maps as a share of their span, beside their own Otsu threshold; null: Otsu's
    perturb
        What is outside a box when it is scored: the blurred image, black, or the classifier's mean colour
    top_k
        Boxes kept a row
    batch
        Crops scored at once
    images
        Images blurred at once
    """

    maps: str | tuple[int, ...]
    size: Annotated[int, Field(ge=8), Unit("pixels")]
    min_area: Annotated[float, Field(ge=0, lt=1)]
    blur_kernel: Annotated[int, Field(ge=1), Unit("pixels")]
    blur_sigma: Annotated[float, Field(gt=0), Unit("pixels")]
    score: Literal["class", "size", "product"]
    rank: Annotated[Literal["posterior", "agreement", "margin"], AsBefore("posterior")]
    wbf: Annotated[float, Field(ge=0, le=1), AsBefore(0.0)]
    min_score: Annotated[float, Field(ge=0, le=1), AsBefore(0.0)]
    threshold: Annotated[float | None, Field(ge=0, lt=1), AsBefore(None)]
    perturb: Annotated[Literal["blur", "black", "mean"], AsBefore("blur")]
    top_k: Annotated[int, Field(ge=1, le=255), Unit("boxes")]
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("crops")]
    images: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")]

    @field_validator("maps")
    @classmethod
    def _known(cls, value: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(value, str) and value not in {"mean", "all"} and not re.fullmatch(r"mean\+\d+", value):
            msg = "valid are mean, mean+N, all, or a list of positions such as [0,2] (0 is the mean)"
            raise ValueError(msg)
        if isinstance(value, tuple) and (not value or min(value) < 0 or len(set(value)) < len(value)):
            msg = "positions are 0 or more, none of them twice"
            raise ValueError(msg)
        return value

    @field_validator("blur_kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            msg = "a kernel has an odd number of pixels"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _has_margins(self) -> ProposalsParams:
        if self.rank == "margin" and self.score != "class":
            msg = f"rank=margin is of the classifier's logits; give score=class, not {self.score}, or rank=agreement"
            raise ValueError(msg)
        return self

    def positions(self, available: int) -> list[int]:
        """Positions on the maps' axis that are used, of `available` ones.

        Raises
        ------
        ConfigError
            If a listed position is not there.
        """
        if self.maps == "mean":
            return [0]
        if self.maps == "all":
            return list(range(available))
        if isinstance(self.maps, str):
            return list(range(min(available, 1 + int(self.maps.removeprefix("mean+")))))
        if max(self.maps) >= available:
            msg = f"proposals.maps={list(self.maps)}: cls_maps holds positions 0 … {available - 1}"
            raise ConfigError(msg, hint="see cls_maps.heads")
        return list(self.maps)


@dataclass(frozen=True)
class _Prepared:
    """One row before scoring: pixels at the classifier's size, uint8 [S, S, 3], and its boxes."""

    pixels: Array
    found: Candidates


class Proposals(Stage[ProposalsParams]):
    """Makes ``boxes``, ``scores``, ``source`` and ``count``; see `ProposalsParams` for what is chosen how.

    References
    ----------
    DiPS: Murtaza et al., Image and Vision Computing 2023; thesis, chapter 2, algorithm 2.1.
    """

    @classmethod
    def needs(cls, params: ProposalsParams, declared: tuple[str, ...]) -> tuple[str, ...]:
        """No classifier where boxes are scored by their size alone."""
        return tuple(name for name in declared if name != "classifier" or params.score != "size")

    @classmethod
    def advice(cls, params: ProposalsParams) -> tuple[Advice, ...]:  # noqa: ARG003
        """The maps that proposals are regions of."""
        return (("wsolpipe eval stage=cls_maps", "proposals are regions of these maps: better maps come first"),)

    def setup(self) -> None:
        """Load the classifier."""
        if self.params.score != "size":
            self.classifier = self.context.load_classifier()

    def arrays(self) -> dict[str, ArraySpec]:
        """Boxes of a row from best to worst."""
        slots = self.params.top_k
        unit = {"class": "posterior", "size": "density", "product": "posterior times density"}[self.params.score]
        if self.params.rank != "posterior":
            unit = "share of ranks" if self.params.rank == "margin" else f"{unit} times IoU with the mean map's region"
        return {
            "boxes": boxes_spec(slots, "proposals, best first; clipped to the image"),
            "scores": ArraySpec(dtype="float32", shape=(slots,), fill="nan", unit=unit, meaning="score of each box"),
            "source": ArraySpec(
                dtype="int8",
                shape=(slots,),
                fill=-1,
                meaning="position on the axis of cls_maps' maps (0: mean); -1: no box",
            ),
            "count": ArraySpec(dtype="uint8", meaning="boxes of this row"),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Find candidates, score them in full batches across the block, keep the best of each row.

        Raises
        ------
        ConfigError
            If a label has no output of the classifier, or `maps` names a map that is not there.
        """
        maps = inputs["cls_maps"]
        positions = np.array(self.params.positions(maps.arrays["maps"].shape[1]))
        self._settle(rows, maps)
        found, scores = self._scored(rows, maps.arrays["maps"], positions)
        arrays = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        for position, candidates in found.items():
            if not np.isfinite(scores[position]).all():
                rows.quarantine(position, "the classifier gave a score that is not a number")
                continue
            self._keep(arrays, position, candidates, positions, scores[position], rows.sizes()[position])
        kinds = [candidates.fallback for candidates in found.values()]
        rows.counts = {
            "boxes_scored": sum(len(candidates.boxes) for candidates in found.values()),
            "fallback_largest": kinds.count("largest"),
            "fallback_whole_image": kinds.count("whole"),
        }
        return arrays

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Any]:
        """Boxes kept and scored, and rows whose box stands in for one that passed."""
        return {"boxes_kept": int(arrays["count"].sum()), **rows.counts}

    def _settle(self, rows: Rows, maps: Upstream) -> None:
        """Mark the rows that can have no proposals."""
        from wsolpipe.networks.classifier import refuse_label

        rows.mark_objectless(self.context.objectless)
        rows.need(maps, "cls_maps holds no maps of this row")
        if self.params.score != "size":
            rows.need_labels(
                "no label: a box is scored by the class of its image",
                lambda label: refuse_label(label, self.classifier.record, self.context.dataset),
            )

    def _candidates(self, maps: Array) -> Candidates:
        from wsolpipe.ops.candidates import find_candidates

        return find_candidates(
            maps, size=self.params.size, min_area=self.params.min_area, threshold=self.params.threshold
        )

    def _scored(self, rows: Rows, maps: Array, positions: Array) -> tuple[dict[int, Candidates], dict[int, Array]]:
        """Candidates and float32 scores of every usable row."""
        from wsolpipe.ops.candidates import agree, mean_region
        from wsolpipe.ops.perturb import normal_density

        if self.params.score == "size":
            usable = [position for position in range(len(rows)) if rows.usable(position)]
            found = {position: self._candidates(maps[position][positions]) for position in usable}
            scores = {position: np.ones(len(candidates.boxes)) for position, candidates in found.items()}
        else:
            found, scores = self._classified(rows, maps, positions)
        params = self.params
        for position, candidates in found.items():
            if params.score != "class":
                scores[position] = scores[position] * normal_density(candidates.areas() / params.size**2)
            if params.rank != "posterior":
                region = mean_region(maps[position][0], size=params.size, threshold=params.threshold)
                scores[position] = agree(scores[position], candidates.boxes, region, by=params.rank)
        return found, {position: values.astype(np.float32) for position, values in scores.items()}

    def _classified(self, rows: Rows, maps: Array, positions: Array) -> tuple[dict[int, Candidates], dict[int, Array]]:
        """Candidates of every usable row and the posterior of its label for each."""
        from wsolpipe.images.geometry import resize
        from wsolpipe.ops.perturb import cover_pixels
        from wsolpipe.ops.scoring import BoxScorer

        params, size = self.params, self.classifier.record.size
        scorer = BoxScorer(
            self.classifier,
            size=size,
            device=self.context.device,
            kernel=params.blur_kernel,
            sigma=params.blur_sigma,
            batch=params.batch,
            outside=params.perturb,
            parts=rows.parts,
            check=self.context.check,
            measure="margin" if params.rank == "margin" else "posterior",
        )
        factor = (size / params.size, size / params.size)

        def prepare(image: Array, position: int) -> _Prepared:
            return _Prepared(resize(image, (size, size)), self._candidates(maps[position][positions]))

        found: dict[int, Candidates] = {}
        labels = rows.labels()
        for batch in rows.batches(params.images, prepare):
            present = batch.present()
            found.update((position, item.found) for _, position, item in present)
            if present:
                scorer.add(
                    np.stack([item.pixels for _, _, item in present]),
                    [cover_pixels(item.found.boxes, factor, (size, size)) for _, _, item in present],
                    [int(labels[position] or 0) for _, position, _ in present],
                    [int(rows.numbers[position]) for _, position, _ in present],
                )
            self.context.progress(batch.stop, len(rows))
        ends = np.cumsum([len(candidates.boxes) for candidates in found.values()])
        return found, dict(zip(found, np.split(scorer.finish(), ends[:-1]), strict=True)) if found else {}

    def _keep(
        self,
        arrays: Mapping[str, Array],
        position: int,
        found: Candidates,
        positions: Array,
        scores: Array,
        image_size: tuple[int, int],
    ) -> None:
        """Write the best boxes of one row, in pixels of the original image."""
        from wsolpipe.ops.candidates import fuse_boxes, order_boxes

        source = positions[found.source]
        best = order_boxes(scores, source, found.boxes)[: self.params.top_k]
        best = best[: max(1, int((scores[best] >= self.params.min_score).sum()))]
        height, width = image_size
        limit = np.array([width, height, width, height], np.float64)
        chosen = found.boxes[best].astype(np.float64)
        if self.params.wbf:
            chosen[0] = fuse_boxes(chosen, scores[best], least=self.params.wbf)
        boxes = np.clip(chosen * (limit / self.params.size), 0, limit)
        arrays["boxes"][position, : len(best)] = boxes
        arrays["scores"][position, : len(best)] = scores[best]
        arrays["source"][position, : len(best)] = source[best]
        arrays["count"][position] = len(best)
