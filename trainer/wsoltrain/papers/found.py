"""Figures found here for the cells of a table, and their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wsolpipe.evaluate.scored import OTSU, Threshold
from wsolpipe.metrics.protocol_tables import wilson
from wsoltrain.papers.table import BY_CLASS, FIGURES

#: Figure -> its bootstrap interval, where the two are not named alike.
INTERVALS = {"IoU-30": "MaxBoxAccV2_30", "IoU-50": "MaxBoxAccV2_50", "IoU-70": "MaxBoxAccV2_70", "IoU": "iou"}
#: Figures that depend on a threshold.
AT_THRESHOLD = (
    "MaxBoxAcc", "MaxBoxAccV2", "IoU-30", "IoU-50", "IoU-70", "IoU", "Top-1", "Top-5", "LPE", "LME", "MIns",
)  # fmt: skip
#: Figures that are shares of images, whose interval follows from their number (Wilson's).
SHARES = ("MaxBoxAcc", "Top-1", "Top-5", "CL", "LPE", "LME", "MIns")


@dataclass(frozen=True)
class Found:
    """Finding for a cell.

    Attributes
    ----------
    value : float, str or None
        In the published unit; None where nothing was found.
    low, high : float or None
        Of its 95 % interval.
    note : str
        Why there is no value.
    threshold : Threshold
        Where its threshold comes from.
    """

    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""
    threshold: Threshold = Threshold()

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def find_figure(scored: Mapping[str, Any], figure: str) -> Found:
    """Figure of a result.

    Parameters
    ----------
    scored : mapping
        ``figures``, nested mappings of numbers; ``intervals`` by name, with ``low`` and ``high``; ``rows``; `Threshold`
        as ``threshold``.
    figure : str
        Of `FIGURES`, or a place in ``figures``.
    """
    place, factor = FIGURES.get(figure, (figure, 100.0 if figure.startswith("iou") else 1.0))
    at_threshold = figure in AT_THRESHOLD or figure.startswith(BY_CLASS)
    threshold = scored.get("threshold", Threshold()) if at_threshold else Threshold()
    value: Any = scored["figures"]
    for name in place.split("."):
        value = {str(key): each for key, each in value.items()}.get(name) if isinstance(value, dict) else None
    if not isinstance(value, (int, float)):
        return Found(note=f"{figure} is not measured of this")
    number = factor * value
    known = scored.get("intervals", {}).get(INTERVALS.get(figure, place.partition(".")[0]))
    if known is not None:
        return Found(number, factor * known["low"], factor * known["high"], threshold=threshold)
    if figure in SHARES and scored.get("rows"):
        low, high = wilson(number / 100 * scored["rows"], scored["rows"])
        return Found(number, low, high, threshold=threshold)
    return Found(number, threshold=threshold)


def figure_of_cell(line: Mapping[str, Any], figure: str) -> Found:
    """Return the figure of a line of the protocol's table; an interval where it has one."""
    value = line.get("iou" if figure == "IoU" else figure)
    if value is None:
        return Found(note=f"{line['annotator']} has no {figure}: it gives no threshold")
    threshold = _threshold_of(line, figure)
    if figure == "MaxBoxAcc":
        return Found(value, line["low"], line["high"], threshold=threshold)
    return Found(100 * value if figure == "IoU" else value, threshold=threshold)


def _threshold_of(line: Mapping[str, Any], figure: str) -> Threshold:
    """Threshold of a figure of the protocol's table; an oracle too where the test split chose the run."""
    if figure not in AT_THRESHOLD:
        return Threshold()
    run = f"run by {'test' if line['model'] == 'BT' else 'val'}"
    if line["tau"] == "otsu":
        return replace(OTSU, by=f"{OTSU.by}, {run}", oracle=line["oracle"])
    tau = line.get("taus", {}).get(figure.removeprefix("IoU-"), None if figure == "MaxBoxAccV2" else line["tau"])
    chosen = "ground truth of test" if "TT" in line["threshold"] else f"{line['annotator']} of val"
    return Threshold(tau, f"{chosen}, {run}", oracle=line["oracle"])
