"""Figures of maps beside MaxBoxAcc, IoU and PxAP: a class each, found by its name; other packages may add theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from wsolpipe.contract.named import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.evaluate.frame import FramedBatch
    from wsolpipe.evaluate.truth import Truth


class MapFigure(ABC):
    """Counts of maps from which figures follow; memory may grow by a few numbers for each row.

    One is made without arguments for each truth that maps are scored against. `wsolpipe.testing.FigureTests` is the
    suite that each of them must pass.

    Attributes
    ----------
    explained : mapping of str to mapping of str to str
        What the glossary says of each figure that it does not hold: ``shown`` (in tables), ``kind`` (``fraction``,
        ``per cent``, ``threshold``, ``weight``, ``count`` or ``text``) and ``meaning``.
    """

    explained: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    @abstractmethod
    def add(self, batch: FramedBatch, truth: Truth) -> None:
        """Count a batch of maps; each row of a split comes once, in any batch."""

    @abstractmethod
    def result(self, tau: float | None) -> dict[str, Any]:
        """Return figures by name, None where no row could be counted.

        Parameters
        ----------
        tau : float or None
            Threshold in 0..1 that was chosen beforehand; None: each figure takes its best one of these rows.
        """


FIGURES: Registry[type[MapFigure]] = Registry(
    "figure",
    "wsolpipe.figures",
    {
        "otsu": "wsolpipe.evaluate.otsu_scores:OtsuScores",
        "values": "wsolpipe.evaluate.map_figures:ValueHistograms",
        "errors": "wsolpipe.evaluate.map_figures:ErrorDissection",
    },
    "wsolpipe.evaluate.figures:MapFigure",
)
"""Every figure by its name; a package of its own declares one in the entry-point group ``wsolpipe.figures``."""
