"""The chosen weights of a run, opened and scored on a split."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import StoreError
from wsolpipe.evaluate.scored import BEST, OTSU, Chooser, Scored, Threshold, score
from wsoltrain.inference.model import Trained, load_trained
from wsoltrain.inference.shown import Compared, pick_rows, show
from wsoltrain.training.annotators import CLS
from wsoltrain.training.scoreboard import Evaluator, NetworkMaps

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.results import StoreResults
    from wsolpipe.evaluate.truth import Truth
    from wsoltrain.data.config import Labelling
    from wsoltrain.training.settings import Settings


@dataclass(frozen=True)
class Opened:
    """A trained localizer and the rows that it is scored on.

    Attributes
    ----------
    trained : Trained
    evaluator : Evaluator
        Of one truth.
    device : torch.device
    """

    trained: Trained
    evaluator: Evaluator
    device: torch.device

    @property
    def truth(self) -> Truth:
        """Return the truth that it is scored against."""
        (truth,) = self.evaluator.truths.values()
        return truth

    def rule(self, tau: float | None = None) -> Threshold:
        """Return the threshold that was chosen with the weights; `tau` goes before it.

        Each map's own (Otsu) where accuracy chose the weights and there are boxes, else the best one of the scored
        images where nothing chose.
        """
        if tau is not None:
            return Threshold(tau, "given")
        if self.trained.tau is not None:
            return Threshold(self.trained.tau, f"{self.trained.annotator or 'proposals'} of validation")
        return OTSU if self.trained.annotator == CLS and self.truth.found else BEST

    def score(self, rule: Threshold, *, name: str = "", rows: Iterable[int] = (), **options: Any) -> Compared:
        """Score it, and keep the maps of some rows.

        Parameters
        ----------
        rule : Threshold
        rows : iterable of int
            Whose maps and boxes are kept.
        **options
            As `wsolpipe.evaluate.scored.score` takes them.
        """
        model = self.trained.model
        source = NetworkMaps(model, self.evaluator.stream, self.device, name or self.evaluator.method, rows)
        frame = source.frame()
        scored = score(source, self.truth, rule, name=name, frame=frame, **options)
        assert scored.maps is not None
        cut = scored.maps.best_tau() if rule == BEST else rule.tau
        shown = {row: show(raw, frame, cut) for row, raw in source.seen.items()}
        return Compared(name, self.trained.annotator, scored, shown)


def open_run(
    named: str | Path, labelling: Labelling, root: str, *, device: torch.device, workers: int, masks: Path | None,
    against: str = "gt",
) -> Opened:  # fmt: skip
    """Load weights and open the rows that they are scored on.

    Parameters
    ----------
    named : str or Path
        A file of weights or a run's folder.
    labelling : Labelling
        Store, data set and split.
    root : str
        Folder of the image files.
    against : str
        What counts as true: a word of `wsoltrain.training.annotators`.

    Raises
    ------
    WsolError
        As `load_trained` and `Evaluator` raise it.
    """
    trained = load_trained(str(named), device=device)
    return Opened(trained, Evaluator(trained.recipe, labelling, root, [against], workers, masks), device)


def open_chosen(settings: Settings, split: str) -> Opened:
    """Open the weights that the first annotator of a training chose, on a split with its ground truth."""
    import torch

    labelling = replace(settings.labelling, split=split)
    return open_run(
        settings.out / settings.first.file_name, labelling, settings.root, device=torch.device(settings.device),
        workers=settings.workers, masks=settings.masks,
    )  # fmt: skip


def compare_chosen(name: str, settings: Settings, split: str, shown: int) -> tuple[Compared, Evaluator]:
    """Score a training's chosen weights with what single rows add, and keep the maps of some rows."""
    opened = open_chosen(settings, split)
    rows = pick_rows(opened.truth, shown)
    return opened.score(opened.rule(), name=name, rows=rows, keep=True, details=False), opened.evaluator


def kept_figures(settings: Settings, split: str, *, best: bool, classes: bool = False) -> dict[str, Any]:
    """Score a training's chosen weights on a split, all figures with intervals; read from a file if done before.

    Parameters
    ----------
    best : bool
        Whether each figure takes the best threshold of these images, or the one that was chosen with the weights.
    classes : bool
        Whether CorLoc by class is measured.

    Returns
    -------
    dict
        ``figures``, ``intervals``, ``rows``, ``threshold``.
    """
    path = settings.out / settings.first.file_name
    kept = settings.out / f"{path.stem}-{split}-{'best' if best else 'own'}{'-classes' * classes}.figures"
    digest = sha256(path.read_bytes()).hexdigest()
    if kept.exists():
        before: dict[str, Any] = json.loads(kept.read_text())
        if before.pop("weights") == digest and "threshold" in before:
            return {**before, "threshold": Threshold(**before["threshold"])}
    opened = open_chosen(settings, split)
    scored = opened.score(BEST if best else opened.rule(), keep=True, classes=classes).scored
    found = figures_of(scored)
    kept.write_text(json.dumps({**found, "threshold": asdict(scored.threshold), "weights": digest}) + "\n")
    return found


def figures_of(scored: Scored) -> dict[str, Any]:
    """Return what cells of tables are read from: ``figures``, ``intervals``, ``rows`` and ``threshold``.

    CorLoc is at each class's own best threshold where the others are at their best too.
    """
    figures = scored.figures()
    if scored.threshold == BEST and "CorLoc" in figures and scored.maps is not None:
        figures["CorLoc"] = scored.maps.boxes.corloc(class_oracle=True)
    return {"figures": figures, "intervals": scored.intervals(), "rows": scored.rows, "threshold": scored.threshold}


def choose_by(results: StoreResults, view: StageView, by: str, split: str) -> Chooser:
    """Return the chooser of a threshold for a stage's maps: their counterpart in a split, and an annotator there."""
    from wsolpipe.evaluate.figures import Frame
    from wsolpipe.evaluate.map_sources import StageMaps, rows_of_index
    from wsolpipe.evaluate.results import counterpart
    from wsolpipe.evaluate.truth import find_truth

    twin = counterpart(results, view, split)
    rows = rows_of_index(results.index_of(twin))
    return Chooser(StageMaps(twin, 0, rows), find_truth(results, rows, by), Frame())


def finished(results: StoreResults, word: str, split: str) -> StageView | None:
    """A stage by ``STAGE`` or ``STAGE:KEY``; None where the split does not hold all of it."""
    stage, _, key = word.partition(":")
    try:
        return results.view(stage, split, key or None) if stage in results.split(split).stages() else None
    except StoreError:
        return None
