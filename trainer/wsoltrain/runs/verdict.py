"""Reasons to distrust a training that has ended, found on validation alone and without ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsoltrain.runs.choice import choose_run

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsoltrain.training.loop import Trainer


def doubts_of(trainer: Trainer) -> list[str]:
    """Return what makes the chosen weights doubtful, a sentence each, the gravest last.

    The chosen epoch is held against chance, a centred box, and the maps and boxes that the network learned from. These
    are scored as it is, by the annotator that chooses: MaxBoxAcc on validation, maps at their best threshold there.
    Boxes by which the annotator itself chooses are left out.

    Parameters
    ----------
    trainer : Trainer
        Of the first process, at its end.

    Raises
    ------
    WsolError
        If figures or labels cannot be read.
    """
    from wsolpipe.evaluate.results import StoreResults
    from wsolpipe.evaluate.scored import CENTRED, score_beside
    from wsolpipe.metrics.protocol import score_of

    settings, board = trainer.settings, trainer.scoreboard
    assert board is not None
    by, where = settings.first, settings.labelling
    found = choose_run(settings.out, by.name, settings.metric)
    entries = found.choice.run.validation
    truth = board.evaluators["val"].truths.get(by.name)
    own = score_of(entries[by.name], "MaxBoxAcc") if truth is not None and truth.found else None
    reasons = [*found.doubts(), *board.weaknesses(own, entries.get("accuracy"))]
    if truth is None or own is None:
        return reasons
    results, reads = StoreResults(where.store, where.dataset, settings.masks), trainer.recipe.reads()
    made = results.split(settings.val).stages()

    def view(word: str | None) -> StageView | None:
        stage = (word or "").partition(":")[0]
        return (
            results.view(word, settings.val) if word and stage in made and stage != by.word.partition(":")[0] else None
        )

    boxes = view(reads.boxes)
    for other in score_beside(truth, boxes=[] if boxes is None else [boxes], maps=view(reads.maps)):
        reached = other.line().accuracy
        if other.name != CENTRED and reached is not None and own < reached:
            reasons.append(
                f"below {other.name}, from which it learned: MaxBoxAcc {own:.1f} against {reached:.1f} by {by.name} of "
                f"{settings.val}; use that stage itself, as in wsolpipe export stage={other.name}, or another recipe"
            )
    return reasons
