"""The threshold, chosen on a validation split by pseudo-boxes or pseudo-masks, and what noise in those does to it.

The realistic protocol (thesis, chapter 4): whatever is chosen is chosen without ground truth, which is not even opened
then. Only the word ``truth`` opens it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.engine.lookup import index_of, require_complete
from wsolpipe.metrics.noise import LEVELS, LOSSES
from wsolpipe.metrics.protocol import estimate_tau, figures
from wsolpipe.metrics.scoremaps import ScoreMaps
from wsolpipe.report.maps import score_maps
from wsolpipe.report.mapsources import FolderMaps, StageMaps
from wsolpipe.report.reference import TRUTH, Reference, make_reference
from wsolpipe.report.rows import RowTable, rows_of_index, rows_of_split

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.engine.session import Session
    from wsolpipe.metrics.protocol import Metric
    from wsolpipe.report.maps import Frame, MapScores
    from wsolpipe.report.mapsources import MapSource
    from wsolpipe.report.options import Options


@dataclass(frozen=True)
class Chooser:
    """What a threshold is chosen by: maps of some split and what they are held against there.

    Attributes
    ----------
    source : MapSource
    reference : Reference
    frame : Frame
    metric : str or None
        What is maximised; None for MaxBoxAcc, or pixel IoU (PxAP's counterpart) where there are only masks.
    threads : int or None
    """

    source: MapSource
    reference: Reference
    frame: Frame
    metric: str | None
    threads: int | None

    def choose(self) -> tuple[float, MapScores]:
        """Threshold and the scores that it was chosen by.

        Raises
        ------
        ConfigError
            If the reference holds nothing that the metric is of.
        """
        scores = score_maps(self.source, self.reference, self.frame, threads=self.threads)
        metric = self.metric_of(scores)
        kind = scores.pixels if metric == "PxAP" else scores.boxes if scores.boxes.rows_scored else None
        if kind is None:
            split = self.reference.rows.split
            msg = (
                f"{self.reference.name} hold nothing for the rows of {split} that {metric} could choose a threshold by"
            )
            raise ConfigError(msg)
        return estimate_tau(figures(kind), cast("Metric", metric)), scores

    def metric_of(self, scores: MapScores) -> str:
        """What is maximised."""
        return self.metric or ("MaxBoxAcc" if scores.boxes.rows_scored else "PxAP")


def make_chooser(session: Session, options: Options, view: StageView | None) -> Chooser:
    """What ``tau_from=`` asks for; ground truth stays closed unless it is asked for by name.

    Parameters
    ----------
    view : StageView or None
        What is scored; its counterpart in ``tau_split`` is looked up. None for a folder of maps.
    """
    word = str(options.tau_from)
    if view is None:
        rows = rows_of_split(session, options.tau_split, without_truth=word != TRUTH)
        source: MapSource = folder_source(options, rows, options.tau_maps)
    else:
        twin = twin_of(session, view, options.tau_split)
        rows = rows_of_index(index_of(session, twin))
        source = StageMaps(twin, options.slot, rows)
    reference = make_reference(session, rows, word)
    return Chooser(source, reference, options.frame(), options.metric, session.config.threads or None)


def select_tau(chooser: Chooser) -> tuple[float, dict[str, Any]]:
    """Threshold, and what to say of it beside the figures."""
    tau, scores = chooser.choose()
    name = f"{chooser.reference.name} of {chooser.reference.rows.split}"
    counted = scores.boxes.rows_scored or len(chooser.reference.masks)
    return tau, {"tau_from": name, "tau_rows": counted, "tau_metric": chooser.metric_of(scores)}


def folder_source(options: Options, rows: RowTable, folder: str | None = None) -> FolderMaps:
    """Maps of a folder, by default of the one that is scored."""
    return FolderMaps(ScoreMaps(str(folder or options.maps)), rows, options.labels)


def twin_of(session: Session, view: StageView, split: str) -> StageView:
    """The same stage of another split, made with the same parameters."""
    name = session.dataset.name
    command = f"wsolpipe run stage={view.stage} dataset={session.config.dataset} split={split}"
    if split not in session.store[name].splits():
        msg = f"store {session.config.store} holds no {split} split of {name}"
        raise StoreError(msg, hint=f"{command} store={session.config.store}, or tau_split=… for another")
    twins = [session.store[name][split].stage(view.stage, key) for key in session.store[name][split].keys(view.stage)]
    same = [twin for twin in twins if twin.manifest.params == view.manifest.params]
    if not same:
        msg = f"{view.stage} of {split} is not made with the parameters of {view.key} of {view.split}"
        raise StoreError(msg, hint=f"{command} store={session.config.store}")
    require_complete(same[-1])
    return same[-1]


def noise_study(chooser: Chooser, scores: MapScores, kind: str, seed: int) -> list[dict[str, Any]]:
    """What a threshold is worth that disturbed boxes or masks chose, by the rules of `wsolpipe.metrics.noise`.

    Parameters
    ----------
    chooser : Chooser
        Whose reference is disturbed.
    scores : MapScores
        Of the rows that are scored: the undisturbed judge.
    kind : {"boxes", "masks"}

    Returns
    -------
    list of dict
        One a level: ``tau``, what the disturbed reference says of it (``…_by_noisy``), and the figures at it.

    Raises
    ------
    ConfigError
        If the reference has none of that kind.
    """
    names, levels = (("MaxBoxAcc", "iou"), LEVELS) if kind == "boxes" else (("PxAP", "pixel_iou"), LOSSES)
    if not (chooser.reference.found if kind == "boxes" else chooser.reference.masks):
        msg = f"noise={kind}: {chooser.reference.name} of {chooser.reference.rows.split} holds no {kind}"
        raise ConfigError(msg)
    if kind == "masks" and chooser.metric is None:
        chooser = replace(chooser, metric="PxAP")
    found = []
    for level in levels:
        tau, seen = replace(chooser, reference=chooser.reference.disturbed(level, seed)).choose()
        noisy, true = seen.result(tau), scores.result(tau)
        line = {"level": level, "tau": tau, **{f"{name}_by_noisy": noisy[name] for name in names}}
        found.append({**line, **{f"{name}_at_tau": true[name] for name in names}})
    return found
