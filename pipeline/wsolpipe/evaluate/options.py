"""Options of an evaluation, beyond which stage of which split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.evaluate.frame import Frame
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.metrics.maxbox import CONVENTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.class_ranks import Ranks
    from wsolpipe.evaluate.map_sources import StoredSource
    from wsolpipe.evaluate.rows import RowTable
    from wsolpipe.keys.row_list import RowList


@dataclass(frozen=True)
class Options:
    """Choice of what to score, against what, and how.

    Attributes
    ----------
    slot : int
        Which map of a stage of maps.
    key : str or None
        Which of several results of a stage.
    maps : str or None
        Folder of score maps instead of a stage.
    labels : {"true", "predicted"}
        Whose class the maps of a folder are of; a stage knows.
    against : str
        See `wsolpipe.evaluate.truth.find_truth`.
    convention : {"standard", "clean"}
    resolution : int
        Side of the frame; anything but 224 only with ``clean``.
    normalise : bool
        Min-max each map.
    tau : float or None
        Threshold chosen beforehand.
    tau_from : str or None
        What to estimate the threshold on, in the split `tau_split`, with the maps of `tau_maps` (a folder) or of the
        same stage with the same parameters; the words of `against`.
    metric : str or None
        What `tau_from` maximises; default MaxBoxAcc, PxAP's counterpart (pixel IoU) on masks.
    corloc : str or None
        ``pooled`` or ``class``: CorLoc of the maps at one threshold, or (an oracle) at each class's own best.
    interval : bool
        Bootstrap intervals; memory grows with the rows then.
    beside : str or None
        For a paired test: another key, another stage (``STAGE`` or ``STAGE:KEY``), or another folder of maps.
    noise : str or None
        ``boxes`` or ``masks``: what thresholds become when what they are chosen by (`tau_from`, else `against`) is
        disturbed.
    threads : int or None
        Threads that score maps and read masks; one a core by default.
    seed : int
        Of the noise.
    rows : RowList or None
        The only images that are scored; all by default. A threshold is chosen on all rows of its split.
    source : callable
        From a stage of maps, a slot and the rows to a `StoredSource`: `StageMaps`, or one that chooses among slots.
    ranks : callable or None
        From the rows to their classes by another network, for Top-1 and Top-5 figures; None for what the maps say.
    """

    slot: int = 0
    key: str | None = None
    maps: str | None = None
    labels: str = "true"
    against: str = "truth"
    convention: str = "standard"
    resolution: int = 224
    normalise: bool = True
    tau: float | None = None
    tau_from: str | None = None
    tau_split: str = "val"
    tau_maps: str | None = None
    metric: str | None = None
    corloc: str | None = None
    interval: bool = False
    beside: str | None = None
    noise: str | None = None
    threads: int | None = None
    seed: int = 0
    rows: RowList | None = None
    source: Callable[[StageView, int, RowTable], StoredSource] = StageMaps
    ranks: Callable[[RowTable], Ranks] | None = None

    def frame(self) -> Frame:
        """How maps and boxes meet."""
        return Frame(CONVENTIONS[self.convention], self.resolution, self.normalise)

    def of_predictions(self, params: Mapping[str, Any]) -> Options:
        """Options for a stage of a localizer's maps, scored as the trainer scores them.

        Its frame and scaling are those of its parameters `side` and `unit`, and its own threshold `tau` is taken where
        none is asked for. Of any other stage, these options.
        """
        if not {"tau", "unit", "side"} <= params.keys():
            return self
        tau = params["tau"] if self.tau is None and self.tau_from is None else self.tau
        return replace(self, normalise=not params["unit"], resolution=int(params["side"]), tau=tau)
