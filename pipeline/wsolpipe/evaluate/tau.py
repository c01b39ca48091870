"""The threshold, chosen on a validation split by pseudo-labels, and what noise in those does to the choice.

The realistic protocol (thesis, chapter 4): everything is chosen without ground truth, whose files are
not read. Only the words ``truth`` and ``gt`` open it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.map_scores import score_maps
from wsolpipe.evaluate.map_sources import FolderMaps
from wsolpipe.evaluate.results import counterpart
from wsolpipe.evaluate.rows import rows_of_index
from wsolpipe.evaluate.truth import TRUTH, find_truth
from wsolpipe.metrics.noise import LEVELS, LOSSES
from wsolpipe.metrics.scoremaps import ScoreMaps

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.frame import Frame
    from wsolpipe.evaluate.map_scores import MapScores
    from wsolpipe.evaluate.map_sources import MapSource
    from wsolpipe.evaluate.options import Options
    from wsolpipe.evaluate.results import Results
    from wsolpipe.evaluate.rows import RowTable
    from wsolpipe.evaluate.truth import Truth
    from wsolpipe.metrics.protocol import Metric


@dataclass(frozen=True)
class Threshold:
    """Where the threshold of a figure comes from; shown beside the figure.

    Attributes
    ----------
    tau : float or None
        None where each figure takes its own best one, each map its own, or boxes need none.
    by : str
        What chose it, such as ``pseudo-boxes of proposals 1f2e of val``; empty for figures without a threshold.
    oracle : bool
        Whether the truth of the very images that are scored chose it.
    """

    tau: float | None = None
    by: str = ""
    oracle: bool = False

    def __str__(self) -> str:
        """Return words for a table: ``0.312 by proposals of val``."""
        return self.by if self.tau is None or self.oracle else f"{self.tau:.3f} by {self.by}"


BEST = Threshold(by="each figure's best on the scored images", oracle=True)
OTSU = Threshold(by="Otsu of each map")


@dataclass(frozen=True)
class Chooser:
    """Basis on which a threshold is chosen: maps of some split and what they are scored against there.

    Attributes
    ----------
    source : MapSource
    truth : Truth
    frame : Frame
    metric : str or None
        What is maximised; None for MaxBoxAcc, or pixel IoU (PxAP's counterpart) where there are only masks.
    threads : int or None
    """

    source: MapSource
    truth: Truth
    frame: Frame
    metric: Metric | None = None
    threads: int | None = None

    def choose(self) -> tuple[float, MapScores]:
        """Threshold and the scores that it was chosen by.

        Raises
        ------
        ConfigError
            If the truth holds nothing that the metric is of.
        """
        scores = score_maps(self.source, self.truth, self.frame, threads=self.threads, details=False)
        return scores.choose_tau(self.metric), scores


def make_chooser(results: Results, options: Options, view: StageView | None) -> Chooser:
    """Find what ``tau_from=`` asks for; ground truth is read only where it is asked for by name.

    Parameters
    ----------
    view : StageView or None
        What is scored; its counterpart in ``tau_split`` is looked up. None for a folder of maps.
    """
    word = str(options.tau_from)
    if view is None:
        rows = results.rows(options.tau_split, without_truth=word not in TRUTH)
        source: MapSource = folder_source(options, rows, options.tau_maps)
    else:
        twin = counterpart(results, view, options.tau_split)
        rows = rows_of_index(results.index_of(twin))
        source = options.source(twin, options.slot, rows)
    truth = find_truth(results, rows, word)
    return Chooser(source, truth, options.frame(), cast("Metric | None", options.metric), options.threads)


def select_tau(chooser: Chooser) -> tuple[float, dict[str, Any]]:
    """Threshold, and its origin for the figures."""
    tau, scores = chooser.choose()
    name = f"{chooser.truth.name} of {chooser.truth.rows.split}"
    counted = scores.boxes.rows_scored or len(chooser.truth.masks)
    return tau, {"tau_from": name, "tau_rows": counted, "tau_metric": chooser.metric or scores.metric}


def folder_source(options: Options, rows: RowTable, folder: str | None = None) -> FolderMaps:
    """Maps of a folder, by default of the one that is scored."""
    return FolderMaps(ScoreMaps(str(folder or options.maps)), rows, options.labels)


def noise_study(chooser: Chooser, scores: MapScores, kind: str, seed: int) -> list[dict[str, Any]]:
    """Figures at thresholds that disturbed boxes or masks chose, by the rules of `wsolpipe.metrics.noise`.

    Parameters
    ----------
    chooser : Chooser
        Its truth is disturbed.
    scores : MapScores
        Of the scored rows, against the undisturbed truth.
    kind : {"boxes", "masks"}

    Returns
    -------
    list of dict
        One a level: ``tau``, what the disturbed truth says of it (``…_by_noisy``), and the figures at it.

    Raises
    ------
    ConfigError
        If the truth has none of that kind.
    """
    names, levels = (("MaxBoxAcc", "iou"), LEVELS) if kind == "boxes" else (("PxAP", "pixel_iou"), LOSSES)
    if not (chooser.truth.found if kind == "boxes" else chooser.truth.masks):
        msg = f"noise={kind}: {chooser.truth.name} of {chooser.truth.rows.split} holds no {kind}"
        raise ConfigError(msg)
    if kind == "masks" and chooser.metric is None:
        chooser = replace(chooser, metric="PxAP")
    found = []
    for level in levels:
        tau, seen = replace(chooser, truth=chooser.truth.disturbed(level, seed)).choose()
        noisy, true = seen.result(tau), scores.result(tau)
        line = {"level": level, "tau": tau, **{f"{name}_by_noisy": noisy[name] for name in names}}
        found.append({**line, **{f"{name}_at_tau": true[name] for name in names}})
    return found
