"""The alarm where results are below a centred box, and what to try then; for the report and for ``eval`` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.glossary import format_figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.contract.reader import StageView
    from wsolpipe.stages.base import Advice
    from wsolpipe.stages.registry import StageRegistry

#: Figure and that of the centred box beside it, of boxes, of masks and of maps.
PAIRS = (("iou_top1", "iou_centre"), ("mask_iou", "mask_iou_centre"), ("iou_at_tau", "iou_centre"))


@dataclass(frozen=True)
class Alarm:
    """Results that are worse than a box in the middle of every image.

    Attributes
    ----------
    iou, centre : float
        Mean IoU of the results and of the centred box, fractions.
    advice : tuple of Advice
        What to try, the likeliest first; may be empty.
    """

    iou: float
    centre: float
    advice: tuple[Advice, ...]

    def lines(self, what: str) -> list[str]:
        """Return what a terminal shows of `what`."""
        iou, centre = (format_figure("iou", value) for value in (self.iou, self.centre))
        return [
            f"WARNING: {what}: BELOW A CENTRED BOX",
            f"  mean IoU {iou}; a box in the middle of every image, which looks at nothing, has {centre}",
            "  what learns from these labels learns to be worse than no labels",
            *(f"  try {words}: {why}" for words, why in self.advice),
            "  look at the rows: wsolpipe report draws them",
        ]


def raise_alarm(
    iou: float | None, centre: float | None, view: StageView | None, registry: StageRegistry
) -> Alarm | None:
    """The alarm, None where results are not below the centred box or there is no ground truth.

    Parameters
    ----------
    view : StageView or None
        The stage that made the results; None for files.
    """
    if iou is None or centre is None or iou >= centre:
        return None
    found = dict.fromkeys(_advice(view, registry)) if view is not None else {}
    return Alarm(iou, centre, tuple(each for each in found if view is None or each[0] != f"stage={view.stage}"))


def alarm_of(figures: Mapping[str, Any], view: StageView | None, registry: StageRegistry) -> Alarm | None:
    """The alarm of an evaluation: of its boxes, else of its masks, else of its maps at the threshold that it names."""
    shown = figures.get("boxes", figures)
    iou, centre = next((pair for pair in PAIRS if pair[0] in shown), PAIRS[0])
    return raise_alarm(shown.get(iou), shown.get(centre), view, registry)


def _advice(view: StageView, registry: StageRegistry) -> Iterator[Advice]:
    """Advice of a stage, then of the stages and artifacts that it read."""
    yield from _own_advice(view.stage, view.manifest.params, registry)
    for stage, fingerprint in view.manifest.upstream.items():
        for key in view.store[view.dataset][view.split].keys(stage):
            if fingerprint.startswith(key):
                yield from _advice(view.store[view.dataset][view.split].stage(stage, key), registry)
    for stage in view.manifest.artifacts:
        yield from _own_advice(stage, {}, registry)


def _own_advice(stage: str, stored: Mapping[str, Any], registry: StageRegistry) -> tuple[Advice, ...]:
    """Advice of a stage; none of one that is not installed here."""
    try:
        found: tuple[Advice, ...] = registry.load(stage).advice(registry.stored_params(stage, stored))
    except ConfigError:
        return ()
    return found
