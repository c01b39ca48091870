"""Validation pseudo-boxes without annotation: one box a row from regions, the classifier's map and its opinion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec, Fallback, Status, boxes_spec
from wsolpipe.metrics.boxes import iou_matrix
from wsolpipe.stages.base import Advice, Array, Rows, Stage, Upstream
from wsolpipe.stages.val_boxes_params import METHODS, ValBoxesParams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsolpipe.ops.box_choice import Shortlist


class ValBoxes(Stage[ValBoxesParams]):
    """Makes one box a row, and keeps what each step left, so that every step can be scored afterwards.

    Where a step leaves nothing it is skipped and counted in the summary: no region at all, or a map of CLIP without
    contrast, gives the whole image; a floor that no region reaches is not applied; a peak outside all regions that are
    left, or a map without a peak, skips the pointing game; scores that are all zero leave the order of the step before.

    References
    ----------
    The protocol of the thesis, chapter 4; its pointing game: Zhang et al., IJCV 2018, section 4.1.
    """

    @classmethod
    def needs(cls, params: ValBoxesParams, declared: tuple[str, ...]) -> tuple[str, ...]:
        """Name the stages that the annotator reads.

        Raises
        ------
        ConfigError
            If it reads a stage that is not there.
        """
        wanted = params.needs
        missing = [name for name in wanted if name not in (*declared, params.maps)]
        if missing:
            msg = f"val_boxes.annotator={params.annotator} reads {', '.join(missing)}, which val_boxes does not declare"
            raise ConfigError(msg, hint="use val_boxes.annotator=ss or =rpn")
        return wanted

    @classmethod
    def ranked_by(cls, params: ValBoxesParams, declared: tuple[str, ...]) -> tuple[str, ...]:
        """The classifier and a map's peak; with final=agreement the map decides, and its boxes may not judge it."""
        return ("classifier",) if params.final == "agreement" else (*declared, params.maps)

    @classmethod
    def advice(cls, params: ValBoxesParams) -> tuple[Advice, ...]:
        """The file where boxes are given, else another annotator."""
        if params.annotator == "file":
            return (("val_boxes.file=FILE", "boxes of these very images, in pixels of the originals"),)
        other = {"ss": "clip", "rpn": "clip", "clip": "ss"}.get(params.annotator)
        return ((f"val_boxes.annotator={other}", "another annotator"),) if other else ()

    def setup(self) -> None:
        """Load the classifier, or the box file.

        Raises
        ------
        ConfigError
            If the classifier's classes are not the data set's.
        DataError
            If the box file is malformed.
        """
        context, params = self.context, self.params
        if params.annotator == "file":
            from wsolpipe.images.label_lines import read_boxes

            self.released = read_boxes(Path(str(params.file)).expanduser())
            if not context.lists_any(self.released):
                example = next(iter(self.released), "nothing")
                msg = f"{params.file} holds boxes of {example!r}, and of no image of this split of {context.dataset}"
                raise ConfigError(msg, hint="val_boxes.file=FILE of the same data set and split")
        elif params.annotator in METHODS and params.asks_classifier:
            self.classifier = context.load_classifier()

    def arrays(self) -> dict[str, ArraySpec]:
        """The box, its score, and what the steps saw."""
        slots = self.params.slots if self.params.annotator in METHODS else 1
        each = {"dtype": "float32", "shape": (slots,), "fill": "nan"}
        more = {"agreement": ArraySpec(**each, unit="IoU", meaning="with the largest Otsu region of the map")}
        return (more if self.params.final == "agreement" else {}) | {
            "boxes": boxes_spec(1, f"pseudo-box of annotator {self.params.annotator}"),
            "scores": ArraySpec(dtype="float32", shape=(1,), fill="nan", meaning="score of the last step"),
            "count": ArraySpec(dtype="uint8", meaning="boxes of this row"),
            "top_box": boxes_spec(1, "best box by the score of the first step alone"),
            "candidates": boxes_spec(slots, "regions that took part"),
            "objectness": ArraySpec(**each, meaning="score that the regions came with"),
            "posterior": ArraySpec(**each, unit="posterior", meaning="classifier's, NaN where no step asked for it"),
            "steps": ArraySpec(
                dtype="uint8", shape=(slots,), meaning="bits: 1 in the share by score, 2 holds the peak, 4 finalist"
            ),
            "peak": ArraySpec(
                dtype="float32", shape=(2,), fill="nan", unit="pixel of the original image", meaning="x, y of the peak"
            ),
            "fallback": ArraySpec(
                dtype="uint8",
                meaning="bits: 1 no region, 2 peak outside all boxes, 4 scores all zero, 8 no peak, 16 all below floor",
            ),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Choose a box for each of these rows.

        Raises
        ------
        ConfigError
            If the regions are not of this annotator, or a label has no output of the classifier.
        """
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        rows.mark_objectless(self.context.objectless)
        for name, item in inputs.items():
            rows.need(item, f"{name} holds nothing of this row")
        if self.params.annotator == "file":
            self._take_released(rows, made)
        elif self.params.annotator == "clip":
            self._take_maps(rows, made, inputs["clip_cams"])
        elif self.params.annotator == "human":
            self._take_drawn(rows, made, inputs["human_boxes"])
        else:
            self._select(rows, made, inputs["regions"], inputs[self.params.maps])
        if self.params.prefer_drawn and self.params.annotator != "human":
            self._prefer_drawn(rows, made, inputs["human_boxes"])
        kinds = {f"fallback_{kind.name.lower()}": int((made["fallback"] & kind > 0).sum()) for kind in Fallback}  # type: ignore[union-attr]
        without = int((made["count"][rows.status == Status.OK] == 0).sum())
        rows.counts = {**kinds, "rows_without_pseudo_box": without}
        return made

    # -- annotators -------------------------------------------------------------------------------------------------

    def _take_released(self, rows: Rows, made: dict[str, Array]) -> None:
        from wsolpipe.images.geometry import clip_boxes

        names = rows.columns["image_id"]
        if len(rows) and not any(name in self.released for name in names):
            example = next(iter(self.released), "nothing")
            self.context.warn(f"{self.params.file} holds {example!r}, and no row of this block, such as {names[0]!r}")
        for position, (name, size) in enumerate(zip(names, rows.sizes(), strict=True)):
            if rows.usable(position) and name in self.released:
                box = clip_boxes(self.released[name][:1], size)
                made["boxes"][position], made["candidates"][position], made["top_box"][position] = box, box, box
                made["count"][position] = 1

    def _take_drawn(self, rows: Rows, made: dict[str, Array], drawn: Upstream) -> None:
        for position in np.flatnonzero(drawn.arrays["count"] > 0).tolist():
            if rows.usable(position):
                box = drawn.arrays["boxes"][position, :1]
                made["boxes"][position], made["candidates"][position], made["top_box"][position] = box, box, box
                made["count"][position], made["scores"][position] = 1, drawn.arrays["scores"][position, :1]

    def _prefer_drawn(self, rows: Rows, made: dict[str, Array], drawn: Upstream) -> None:
        """Put the drawn box, or none, in the place of the annotator's; the record of its steps stays."""
        for position in np.flatnonzero(drawn.arrays["drawn"] == 1).tolist():
            if rows.usable(position):
                made["boxes"][position] = drawn.arrays["boxes"][position, :1]
                made["count"][position] = drawn.arrays["count"][position] > 0
                made["scores"][position] = drawn.arrays["scores"][position, :1]

    def _take_maps(self, rows: Rows, made: dict[str, Array], maps: Upstream) -> None:
        from wsolpipe.maps.foreground import largest_otsu_box

        for position, (label, size) in enumerate(zip(rows.labels(), rows.sizes(), strict=True)):
            if rows.usable(position):
                known = maps.arrays["class_ids"][position].tolist()
                levels = self._map(maps, position, known.index(label) if label in known else self.params.map)
                found = largest_otsu_box(levels, size, side=self.params.size)
                box, fallback = (found, 0) if found is not None else ([0, 0, *size[::-1]], Fallback.NO_REGION)
                made["boxes"][position], made["candidates"][position], made["top_box"][position] = box, box, box
                made["count"][position], made["fallback"][position] = 1, fallback

    def _select(self, rows: Rows, made: dict[str, Array], regions: Upstream, cams: Upstream) -> None:
        from wsolpipe.maps.foreground import largest_otsu_box
        from wsolpipe.networks.classifier import refuse_label

        params = self.params
        method = regions.params.get("method")
        if method not in METHODS[params.annotator]:
            wanted = METHODS[params.annotator][0]
            msg = f"val_boxes.annotator={params.annotator} chooses among regions of {wanted}, and these are of {method}"
            raise ConfigError(msg, hint=f"regions.method={wanted}, or another val_boxes.annotator")
        if params.asks_classifier:
            rows.need_labels(
                "no label: a box is chosen by the class of its image",
                lambda label: refuse_label(label, self.classifier.record, self.context.dataset),
            )
        sizes = rows.sizes()
        for position in self._usable(rows):
            count = min(int(regions.arrays["count"][position]), params.slots)
            made["candidates"][position, :count] = regions.arrays["boxes"][position, :count]
            made["objectness"][position, :count] = regions.arrays["scores"][position, :count]
            peak = self._peak(cams, position, sizes[position])
            if peak is not None:
                made["peak"][position] = peak
            if "agreement" in made:
                box = largest_otsu_box(self._map(cams, position, params.map), sizes[position], side=params.size)
                whole = np.zeros((1, 4)) if box is None else box.astype(np.float64)[None]
                found_here = iou_matrix(made["candidates"][position, :count].astype(np.float64), whole)[:, 0]
                made["agreement"][position, :count] = np.nan_to_num(found_here)
        if params.first_score == "classifier":
            self._score(rows, made, lambda position: np.arange(self._count(made, position)))
        found = {position: self._shortlist(made, position) for position in self._usable(rows)}
        if params.final in ("classifier", "product") and params.first_score != "classifier":
            self._score(rows, made, lambda position: found[position].finalists())
        for position in self._usable(rows):
            self._choose(made, position, found[position], sizes[position])

    def _shortlist(self, made: Mapping[str, Array], position: int) -> Shortlist:
        from wsolpipe.ops.box_choice import Shortlist, shortlist

        count, peak = self._count(made, position), made["peak"][position]
        everything = self.params.final == "agreement"
        least = 0 if everything else self.params.least
        found = shortlist(
            made["candidates"][position, :count],
            self._scores(made, self.params.first_score)[position, :count],
            None if everything or np.isnan(peak).any() else peak,
            keep=1 if everything else self.params.keep,
            order=self.params.order,
            enough=made["objectness"][position, :count] >= least if least else None,
        )
        if everything:  # where the peak lies does not count
            found = Shortlist(found.steps, found.fallback & ~Fallback.NO_PEAK)
        made["steps"][position, :count] = found.steps
        made["fallback"][position] = found.fallback
        return found

    def _choose(self, made: dict[str, Array], position: int, found: Shortlist, size: tuple[int, int]) -> None:
        """Write the box of one row."""
        from wsolpipe.ops.box_choice import best_finalist

        made["count"][position] = 1
        count = self._count(made, position)
        if not count:
            made["boxes"][position] = made["top_box"][position] = [0, 0, size[1], size[0]]
            return
        first = self._scores(made, self.params.first_score)[position, :count]
        final = self._scores(made, self.params.final)[position, :count]
        best, fallback = best_finalist(found, final, first)
        made["fallback"][position] |= fallback
        made["boxes"][position] = made["candidates"][position, best]
        made["scores"][position] = final[best]
        made["top_box"][position] = made["candidates"][position, int(np.argmax(first))]

    def _score(self, rows: Rows, made: dict[str, Array], chosen: Callable[[int], Array]) -> None:
        """Posterior of each row's label for its `chosen` candidates; the row of an unreadable image is quarantined."""
        from wsolpipe.images.geometry import resize
        from wsolpipe.ops.perturb import cover_pixels
        from wsolpipe.ops.scoring import BoxScorer

        params, side = self.params, self.classifier.record.size
        scorer = BoxScorer(
            self.classifier,
            size=side,
            device=self.context.device,
            kernel=params.blur_kernel,
            sigma=params.blur_sigma,
            batch=params.batch,
            parts=rows.parts,
            check=lambda: self.context.progress(asked[scorer.done - 1][0] + 1 if scorer.done else 0, len(rows)),
        )
        asked: list[tuple[int, Array]] = []
        labels, sizes = rows.labels(), rows.sizes()
        for batch in rows.batches(params.images, lambda image, position: resize(image, (side, side))):
            present = [item for item in batch.present() if len(chosen(item[1]))]
            boxes = []
            for _, position, _ in present:
                asked.append((position, chosen(position)))
                height, width = sizes[position]
                boxes.append(
                    cover_pixels(
                        made["candidates"][position, asked[-1][1]], (side / height, side / width), (side, side)
                    )
                )
            if present:
                pixels = np.stack([item for _, _, item in present])
                scorer.add(
                    pixels,
                    boxes,
                    [int(labels[position] or 0) for _, position, _ in present],
                    [int(rows.numbers[position]) for _, position, _ in present],
                )
            self.context.progress(batch.stop, len(rows))
        posteriors, start = scorer.finish(), 0
        for position, slots in asked:
            own = posteriors[start : start + len(slots)]
            start += len(slots)
            if np.isfinite(own).all():
                made["posterior"][position, slots] = own
            else:
                rows.quarantine(position, "the classifier gave a score that is not a number")

    def _scores(self, made: Mapping[str, Array], kind: str) -> Array:
        if kind == "agreement":
            rooted = np.sqrt(np.maximum(made["objectness"], 0)) if self.params.annotator == "rpn" else 1
            return np.asarray(rooted * made["agreement"])
        if kind == "product":
            return np.asarray(made["posterior"] * made["objectness"])
        return made["posterior" if kind == "classifier" else "objectness"]

    def _count(self, made: Mapping[str, Array], position: int) -> int:
        return int((~np.isnan(made["objectness"][position])).sum())

    def _usable(self, rows: Rows) -> list[int]:
        return [position for position in range(len(rows)) if rows.usable(position)]

    def _map(self, maps: Upstream, position: int, slot: int) -> Array:
        slots = maps.arrays["maps"].shape[1]
        if slot >= slots:
            msg = f"val_boxes.map={slot}: the maps have slots 0 … {slots - 1}"
            raise ConfigError(msg)
        levels: Array = maps.arrays["maps"][position, slot]
        if "grid_hw" in maps.arrays:  # kept-aspect grids are padded at the bottom and right
            height, width = maps.arrays["grid_hw"][position]
            levels = levels[:height, :width]
        return levels

    def _peak(self, cams: Upstream, position: int, size: tuple[int, int]) -> Array | None:
        from wsolpipe.ops.box_choice import map_peak

        return map_peak(self._map(cams, position, self.params.map), size, side=self.params.size)
