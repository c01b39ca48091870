"""A method's maps scored on a split, and a run's epochs scored on validation.

Figures go to ``select``, and the weights that each annotator likes best are kept.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from wsolpipe.contract.errors import ConfigError, DataError, writing
from wsolpipe.evaluate.box_scores import score_centred
from wsolpipe.evaluate.figures import Frame, FramedBatch
from wsolpipe.evaluate.map_scores import MapScores, score_against
from wsolpipe.evaluate.map_sources import TOP, MapBatch, rows_of_index
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import Truth
from wsolpipe.metrics.kept_maps import SUFFIX, CutBoxes, KeptMaps
from wsolpipe.metrics.protocol import Metric, Run, doubt_threshold, rank, write_run
from wsolpipe.networks.saved_state import previous
from wsoltrain.data.config import ItemConfig, Labelling
from wsoltrain.data.stream import Stream
from wsoltrain.methods.base import Method, checked
from wsoltrain.training import checkpoint
from wsoltrain.training.annotators import CLS, read_annotators

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings

_log = logging.getLogger(__name__)
#: Folder of a run with `CutBoxes` of the validation split, `KeptMaps` where its truth is masks, a file an epoch.
OUTCOMES = "outcomes"
#: An accuracy below this many times that of chance is warned of.
NEAR_CHANCE = 1.5


class Scoreboard:
    """Scores epochs of one run.

    Parameters
    ----------
    recipe : Recipe
        What is learned.
    settings : Settings
        Splits, annotators and the run's folder.
    class_names : list of str
        Kept with the best weights, for predictions.
    artifacts : mapping of str to bytes, optional
        Files that the method is built from; kept likewise.

    Attributes
    ----------
    best : dict of str to float
        Best score so far by each annotator: the settings' metric; accuracy for ``cls``.
    ranks : dict of str to list of float
        That score and what breaks ties (`wsolpipe.metrics.protocol.rank`).
    latest : dict of str to MapScores
        Scores of the last epoch on validation, by annotator.

    Raises
    ------
    WsolError
        As `Evaluator`.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: Settings,
        class_names: list[str],
        artifacts: Mapping[str, bytes] | None = None,
    ) -> None:
        self.recipe, self.settings, self.class_names, self.artifacts = recipe, settings, class_names, artifacts
        splits = {"val": (settings.val, settings.annotators)}
        if settings.test:
            splits["test"] = (settings.test, ["gt"])
        self.annotators = {each.name: each for each in read_annotators(settings.annotators)}
        self.evaluators = {
            kind: Evaluator(
                recipe, replace(settings.labelling, split=split), settings.root, names, settings.workers,
                settings.masks, settings.metric, settings.val_rows_per_class if kind == "val" else None,
            )
            for kind, (split, names) in splits.items()
        }  # fmt: skip
        self.ranks: dict[str, list[float]] = {}
        first = self.evaluators["val"].truths.get(settings.first.name)
        self._centred = score_centred(first).as_maps()["MaxBoxAcc"] if first is not None and first.found else None
        self.latest: dict[str, MapScores] = {}

    @property
    def best(self) -> dict[str, float]:
        """Best score so far by each annotator."""
        return {name: height[0] for name, height in self.ranks.items()}

    def _weights(self, annotator: str) -> Path:
        """File of the best weights by an annotator."""
        return self.settings.out / self.annotators[annotator].file_name

    def restore(self, best: Mapping[str, float], ranks: Mapping[str, list[float]] | None) -> None:
        """Take up the best scores of a run that continues, and what breaks ties, which older checkpoints lack.

        Weights and scores of annotators that are not asked for now stay as they are.

        Raises
        ------
        ConfigError
            If the annotator that decides now has seen no epoch so far, and others have.
        DataError
            If the weights with one of these scores are damaged or gone: no later epoch brings them back.
        """
        first = self.settings.first.name
        if best and first not in best:
            was = " and ".join(sorted(best))
            msg = f"the epochs of {self.settings.out} so far were judged by {was}; {first} has seen none of them"
            raise ConfigError(msg, hint="by= as before to go on, or out=FOLDER for a new run")
        for name, score in best.items():
            if name not in self.annotators:
                continue
            path = self._weights(name)
            try:
                found = checkpoint.read_last(path).state["score"]
            except DataError:
                found = -math.inf
            if found < score:
                msg = f"{path} is damaged or missing: it held the best weights so far, {score:.2f} by {name}"
                raise DataError(msg, hint=f"put it back from a backup, or remove {path.parent} to train again")
            if not path.exists():  # stopped between the two renames of a save, or set aside as damaged just now
                previous(path).replace(path)
        self.ranks.update(ranks or {name: [score] for name, score in best.items()})

    def score(self, model: Method[Any], device: torch.device, epoch: int) -> list[dict[str, Any]]:
        """Score an epoch; a line of figures on validation for each annotator, the one that chooses first."""
        settings = self.settings
        boxes: list[CutBoxes] = []
        masks: list[KeptMaps] = []
        truths, side = self.evaluators["val"].truths.values(), model.frame_side
        unit = settings.outcomes and self.evaluators["val"].has_unit_maps(model, device)

        def keep(batch: FramedBatch) -> None:
            if any(truth.found for truth in truths) or not truths:
                maps = [np.zeros((side,) * 2) if each is None else each for each in batch.framed]
                boxes.append(CutBoxes.of_maps(batch.rows, side, maps))
            if any(truth.masks for truth in truths):
                raw = [np.zeros((side,) * 2) if each is None else each for each in batch.raw]
                masks.append(KeptMaps.of_maps(batch.rows, side, raw, unit=unit))

        watches = {"val": keep} if settings.outcomes else {}
        numbers = dict(zip(("val", "test"), settings.thresholds, strict=True))
        scores = {
            kind: each.run(model, device, thresholds=numbers[kind], more=("otsu",), watch=watches.get(kind))
            for kind, each in self.evaluators.items()
        }
        if boxes:
            CutBoxes.joined(boxes).write(settings.out / OUTCOMES / f"{epoch:04d}.npz")
        if masks:
            KeptMaps.joined(masks).write(settings.out / OUTCOMES / f"{epoch:04d}{SUFFIX}")
        self.latest = scores["val"]
        entries, test = (self._entries(kind, scores.get(kind, {})) for kind in ("val", "test"))
        if "gt" in test:
            test["otsu"] = test["gt"].pop("otsu")
        parameters = self.recipe.model_dump(mode="json")
        with writing(settings.out / "runs"):
            run = Run(settings.out.name, epoch, entries, test, parameters, settings.labelling.dataset)
            write_run(settings.out / "runs", run)
        lines = []
        for name in self.annotators:
            if name == CLS:
                height, line = [float(entries["accuracy"]), float(epoch)], {"accuracy": entries["accuracy"]}
            else:
                height, line = self._judge(scores["val"][name], entries[name], epoch)
            chosen = {"epoch": epoch, "tau": line.get("tau"), "score": height[0], "annotator": name}
            lines.append({"annotator": name, "epoch": epoch, **line})
            at = "" if chosen["tau"] is None else f" at tau {chosen['tau']:.3f}"
            if name != CLS and "accuracy" in entries:
                at += f", accuracy {entries['accuracy']:.1f}"
            _log.info("epoch %d: %s %.2f against %s%s", epoch, next(iter(line)), height[0], name, at)
            if height > self.ranks.get(name, [-1.0]):
                self.ranks[name] = height
                state = {**chosen, "recipe": parameters, "classes": len(self.class_names)}
                state["class_names"] = self.class_names
                checkpoint.save(self._weights(name), model, state, {}, artifacts=self.artifacts)
        weak = doubt_threshold(lines[0].get("tau")) + self.weaknesses(
            lines[0].get("MaxBoxAcc"), entries.get("accuracy")
        )
        if weak:
            _log.warning("epoch %d: %s", epoch, "; ".join(weak))
        return lines

    def weaknesses(self, score: float | None, accuracy: float | None) -> list[str]:
        """Return what an epoch does worse than no training, by its MaxBoxAcc and accuracy on validation, per cent."""
        found, classes = [], len(self.class_names)
        if score is not None and self._centred is not None and score < self._centred:
            found.append(f"MaxBoxAcc {score:.1f} is below a centred box ({self._centred:.1f})")
        if accuracy is not None and classes > 1 and accuracy < NEAR_CHANCE * 100 / classes:
            found.append(f"accuracy {accuracy:.1f} is near chance ({100 / classes:.1f}): another lr, or more epochs")
        return found

    def _entries(self, kind: str, scores: Mapping[str, MapScores]) -> dict[str, Any]:
        """Figures of a split by annotator, and the accuracy of a method that classifies."""
        if not scores:
            return {}
        evaluator = self.evaluators[kind]
        entries: dict[str, Any] = {
            name: each.entry(evaluator.metric_of(each)) for name, each in scores.items() if name != CLS
        }
        accuracy = next(iter(scores.values())).result()["accuracy_top1"]
        if accuracy is not None:
            entries["accuracy"] = accuracy
        return entries

    def _judge(self, scores: MapScores, entry: Mapping[str, Any], epoch: int) -> tuple[list[float], dict[str, Any]]:
        """Return the figures by which epochs are compared, and the line that is logged."""
        metric = self.evaluators["val"].metric_of(scores)
        found = scores.result()
        height = [float(value) for value in rank(entry, metric, epoch)]
        if metric in ("MaxBoxAcc", "PxAP"):
            height[0] = float(found[metric])
        iou = found["pixel_iou" if metric == "PxAP" else "iou"]
        return height, {metric: height[0], "iou": iou, "tau": scores.choose_tau(metric)}


class NetworkMaps:
    """Maps of a method, of each row's label, as a source of the evaluator.

    See `wsolpipe.evaluate.map_sources.MapSource`. `name` is the method's, for messages; maps of `rows` are kept in
    `seen`.
    """

    labels = "true"

    def __init__(
        self, model: Method[Any], stream: Stream, device: torch.device, name: str, rows: Iterable[int] = ()
    ) -> None:
        self.model, self.stream, self.device, self.name, self.quarantined = model, stream, device, name, 0
        self.rows, self.seen = frozenset(rows), dict[int, np.ndarray[Any, Any]]()

    @torch.no_grad()
    def has_unit_maps(self) -> bool:
        """Whether the method's maps are in 0..1 as they are; learned from one blank image."""
        size = self.stream.config.size
        return self.model.eval().predict(torch.zeros(1, 3, size, size, device=self.device)).unit

    def frame(self) -> Frame:
        """Return the frame of the method's maps: without min-max where they are in 0..1, as in the papers."""
        return Frame(side=self.model.frame_side, normalise=not self.has_unit_maps())

    def batches(self) -> Iterator[MapBatch]:
        """Score maps and, of a method that classifies, its first five classes."""
        self.model.eval()
        self.stream.set_epoch(0)
        for batch in self.stream:
            with torch.no_grad():
                found = self.model.predict(batch["image"].to(self.device), batch["label"].to(self.device))
            checked(found, len(batch["row"]), self.name, rows=batch["row"].tolist())
            top = None
            if found.scores is not None:
                self._check_classes(found.scores.shape[1])
                top = found.scores.float().topk(min(TOP, found.scores.shape[1])).indices.cpu().numpy()
            maps = list(found.maps.float().cpu().numpy())
            self.seen |= {row: raw for row, raw in zip(batch["row"].tolist(), maps, strict=True) if row in self.rows}
            yield MapBatch(np.asarray(batch["row"], np.int64), maps, top)
        self.quarantined = self.stream.counts["quarantined"] + self.stream.counts["broken"]

    def _check_classes(self, outputs: int) -> None:
        """Refuse a network of other classes than the data set's."""
        rows = self.stream.items.rows
        if rows.classes is not None and rows.classes != outputs:
            where = rows.labelling.dataset
            msg = f"the network knows {outputs} classes, and {where} has {rows.classes}"
            raise ConfigError(msg, hint=f"a network that was trained on {where}")


class Evaluator:
    """Evaluates a method on one split, epoch after epoch.

    Parameters
    ----------
    recipe : Recipe
        Size and normalisation.
    labelling : Labelling
        Store, data set and split; of its stages only that of the images is read.
    root : str
        Folder of the image files.
    annotators : sequence of str
        What to score against: words of `wsoltrain.training.annotators`.
    workers : int
        Loader processes.
    masks : Path, optional
        Folder of the ground truth's mask files.
    metric : str
        Figure that the truth must allow; ``auto`` for whichever it does.
    per_class : int, optional
        Rows of each class that are evaluated, the first ones; default all.

    Attributes
    ----------
    truths : dict of str to Truth
        By name of the annotator; ``cls`` has none.
    choosing : list of str
        Names of all annotators, in their order.

    Raises
    ------
    StoreError
        If a stage is missing; names the command that makes it.
    ConfigError
        If an annotator has neither a box nor a mask of any row, or not what the metric is of.
    """

    def __init__(
        self,
        recipe: Recipe,
        labelling: Labelling,
        root: str,
        annotators: list[str],
        workers: int,
        masks: Path | None = None,
        metric: str = "auto",
        per_class: int | None = None,
    ) -> None:
        plain = replace(labelling, maps=None, boxes=None, where=None, drawn=None)
        config = ItemConfig(
            plain, root=root, size=recipe.size, mean=recipe.mean, std=recipe.std, train=False, need_label=False,
            rows_per_class=per_class,
        )  # fmt: skip
        self.stream = Stream(config, batch_size=recipe.batch, workers=workers)
        results = StoreResults(plain.store, plain.dataset, masks)
        rows = rows_of_index(self.stream.items.rows.index)
        self.method = recipe.method
        self.metric = metric
        known = read_annotators(annotators)
        self.choosing = [each.name for each in known]
        self.truths = {each.name: each.find(results, rows) for each in known if each.name != CLS}
        for name, truth in self.truths.items():
            self._check(name, truth)
        self._judged = self.truths or {CLS: Truth("class names", rows)}

    def _check(self, name: str, truth: Truth) -> None:
        where = f"split {truth.rows.split} of {self.stream.config.labelling.dataset}"
        if not truth.found and not truth.masks:
            msg = f"{where} has no {name} box or mask to be scored against"
            raise ConfigError(msg, hint="by=STAGE scores against pseudo-boxes, by=cls by the accuracy of the classes")
        kind = {"auto": "box or mask", "PxAP": "mask"}.get(self.metric, "box")
        if (kind == "mask" and not truth.masks) or (kind == "box" and not truth.found):
            other = "boxes" if kind == "mask" else "masks"
            msg = f"metric={self.metric}: {truth.name} ({name}) of {where} holds {other} and no {kind}"
            raise ConfigError(msg, hint="metric=auto scores each annotator by what it holds")

    def has_unit_maps(self, model: Method[Any], device: torch.device) -> bool:
        """Whether a method's maps are in 0..1 as they are."""
        return NetworkMaps(model, self.stream, device, self.method).has_unit_maps()

    def metric_of(self, scores: MapScores) -> Metric:
        """The metric asked for, or the one that suits the truth."""
        return scores.metric if self.metric == "auto" else cast("Metric", self.metric)

    def run(
        self,
        model: Method[Any],
        device: torch.device,
        *,
        thresholds: int,
        more: Collection[str] = (),
        watch: Callable[[FramedBatch], None] | None = None,
    ) -> dict[str, MapScores]:
        """Score maps against each annotator in one pass.

        Parameters
        ----------
        thresholds : int
            Of boxes.
        more : collection of str
            Further figures (`wsolpipe.evaluate.figures.FIGURES`).
        watch : callable, optional
            Called once with each batch of maps in the frame.

        Returns
        -------
        dict of str to MapScores
            By annotator; only that of ``cls`` where there is no other, with the accuracy and no localization.
        """
        source = NetworkMaps(model, self.stream, device, self.method)
        return score_against(
            source, self._judged, source.frame(), thresholds=thresholds, details=False, more=more, watch=watch
        )
