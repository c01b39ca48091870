"""Reasons to distrust a training that has ended, found on validation alone and without ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.contract.errors import WsolError
from wsoltrain.runs.choice import choose_run
from wsoltrain.runs.score import finished

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.results import StoreResults
    from wsoltrain.training.loop import Trainer


def doubts_of(trainer: Trainer) -> list[str]:
    """Return what makes the chosen weights doubtful, a sentence each, the gravest last.

    The chosen epoch is held against chance, a centred box, and the maps and boxes that the network learned from. These
    are scored as it is, by the annotator that chooses: MaxBoxAcc on validation, maps at their best threshold there.
    Labels of which the annotator's boxes are made are left out, for they agree with them whatever they are worth.

    Parameters
    ----------
    trainer : Trainer
        Of the first process, at its end.

    Returns
    -------
    list of str
        Where figures or labels cannot be read, that is said instead: a training that has ended does not fail by it.
    """
    try:
        return _doubts_of(trainer)
    except WsolError as error:
        return [f"not judged: {error.message}"]


def _doubts_of(trainer: Trainer) -> list[str]:
    from wsolpipe.evaluate.results import StoreResults
    from wsolpipe.evaluate.scored import CENTRED, score_beside
    from wsolpipe.metrics.protocol import score_of

    settings, board = trainer.settings, trainer.scoreboard
    assert board is not None
    by, where = settings.first, settings.labelling
    found = choose_run(settings.out / "runs", by.name, settings.metric)
    entries = found.choice.run.validation
    truth = board.evaluators["val"].truths.get(by.name)
    own = score_of(entries[by.name], "MaxBoxAcc") if truth is not None and truth.found else None
    reasons = [*found.doubts(), *board.weaknesses(own, entries.get("accuracy"))]
    if truth is None or own is None:
        return reasons
    results, reads = StoreResults(where.store, where.dataset, settings.masks), trainer.recipe.reads()
    unfit = _made_of(results, by.word, settings.val)

    def view(word: str | None) -> StageView | None:
        fits = word is not None and word.partition(":")[0] not in unfit
        return finished(results, str(word), settings.val) if fits else None

    boxes = view(reads.boxes)
    for other in score_beside(truth, boxes=[] if boxes is None else [boxes], maps=view(reads.maps)):
        reached = other.line().accuracy
        if other.name != CENTRED and reached is not None and own < reached:
            reasons.append(
                f"below {other.name}, from which it learned: MaxBoxAcc {own:.1f} against {reached:.1f} by {by.name} of "
                f"{settings.val}; use that stage itself, as in wsolpipe export stage={other.name}, or another recipe"
            )
    return reasons


def _made_of(results: StoreResults, word: str, split: str) -> set[str]:
    """Names of the stage of an annotator and of all stages of which it is made."""
    found, open_ends = {word.partition(":")[0]}, [word]
    while open_ends:
        view = finished(results, open_ends.pop(), split)
        upstream = {} if view is None else view.manifest.upstream
        found |= set(upstream)
        open_ends += [f"{name}:{fingerprint[:16]}" for name, fingerprint in upstream.items()]
    return found
