"""Images that gave no labels in an epoch: how many, why, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 0.05
"""Share of images without any label from which on an epoch is reported."""
REMEDIES = {
    "no_region": "no box within the crop, or a constant map: look at the labels with wsoltrain preview",
    "no_foreground": "no foreground candidate: pixels.erosion=1, or larger boxes",
    "no_background": "no background candidate: pixels.background=anywhere or a smaller pixels.top_n for dips, "
    "pixels.keep_out=false for trcam",
}
"""Count of a sampler -> reason and what to change."""


def describe_missing(counts: Mapping[str, float], images: int) -> str | None:
    """Return a sentence where more than `MOST` of an epoch's images gave no labels, else None.

    Parameters
    ----------
    counts : mapping of str to float
        Sums over the epoch, under the names ``count <name>`` of the samplers' counts; without ``count unlabelled``
        nothing is reported.
    images : int
        Images of the epoch.
    """
    unlabelled = counts.get("count unlabelled", 0)
    if unlabelled <= MOST * images:
        return None
    reasons = {name: counts.get(f"count {name}", 0) for name in REMEDIES}
    main = max(reasons, key=lambda name: reasons[name])
    advice = REMEDIES[main] if reasons[main] else "both sides were drawn at the same pixels: pixels.dilation=1"
    return f"{unlabelled:.0f} of {images} images ({unlabelled / images:.0%}) gave no labels; {advice}"
