"""Random numbers of a row in an epoch, on any device and without state; pixels drawn by them, and what could not be.

A number is a hash of (seed, epoch, row, purpose, pixel). So draws are fresh every time a row comes round, resuming
needs no generator's state, and several processes draw for a row what one process would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

AUGMENTATION = 1000
"""Purposes from here on belong to `RowDraws`; samplers use those below."""
MOST = 0.05
"""Share of images without any label from which on an epoch is reported."""
REMEDIES = {
    "no_region": "no box within the crop, or a constant map: look at the labels with wsoltrain preview",
    "no_foreground": "no foreground candidate: pixels.erosion=1, or larger boxes",
    "no_background": "no background candidate: pixels.background=anywhere or a smaller pixels.top_n for dips, "
    "pixels.keep_out=false for trcam",
}
"""Count of a sampler -> reason and what to change."""
_GOLDEN, _FIRST, _SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def uniform(seed: int, epoch: int, rows: Tensor, purpose: int, count: int) -> Tensor:
    """Uniform numbers in (0, 1), float32 [B, count].

    Parameters
    ----------
    seed, epoch : int
        Of the run.
    rows : int64 Tensor [B]
        Rows of the index.
    purpose : int
        Keeps the draws of one use apart from another's.
    count : int
        Numbers a row.
    """
    start = _mix(_mix(_mix(rows * _GOLDEN + purpose) + epoch) + seed)
    pixels = torch.arange(1, count + 1, device=rows.device)
    bits = _mix(start[:, None] + pixels * _GOLDEN) >> 41 & 0x7FFFFF  # 23 bits: a half-step more is still exact
    return (bits.to(torch.float32) + 0.5) * 2.0**-23


class RowDraws(NamedTuple):
    """Random numbers of the rows of a batch in an epoch: of (seed, epoch, row, purpose), whatever the batch.

    Attributes
    ----------
    seed, epoch : int
        Of the run.
    rows : int64 Tensor [B]
        Rows of the index.
    """

    seed: int
    epoch: int
    rows: Tensor

    def uniform(self, count: int, *, purpose: int = 0) -> Tensor:
        """Uniform numbers in (0, 1), float32 [B, count]; another `purpose` gives other numbers."""
        return uniform(self.seed, self.epoch, self.rows, AUGMENTATION + purpose, count)


def _mix(value: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014); int64 arithmetic wraps around."""
    value = (value ^ (value >> 30 & 0x3FFFFFFFF)) * _FIRST
    value = (value ^ (value >> 27 & 0x1FFFFFFFFF)) * _SECOND
    return value ^ (value >> 31 & 0x1FFFFFFFF)


def extreme(values: Tensor, among: Tensor, count: Tensor, *, largest: bool) -> Tensor:
    """Mask of the `count` largest or smallest values of each row that lie in a mask; of equal ones the first.

    Found digit by digit of the values' bits, highest first, where a histogram tells in which digit the last one lies:
    no sort of a row, and a GPU is not waited for.

    Parameters
    ----------
    values : float Tensor [B, P]
        What is ranked.
    among : bool Tensor [B, P]
        Which take part.
    count : int64 Tensor [B]
        How many; all that take part where those are fewer.
    largest : bool
        Which end.

    Returns
    -------
    bool Tensor [B, P]
    """
    bits = (values.to(torch.float32) + 0.0).view(torch.int32)  # + 0.0: both zeros alike
    keys = bits ^ (bits >> 31 & 0x7FFFFFFF)  # integers in the order of the numbers
    keys = ~keys if largest else keys
    digits = (keys >> 21) + 1024, keys >> 10 & 2047, keys & 1023
    left, unsure, taken = torch.minimum(count, among.sum(1))[:, None], among, torch.zeros_like(among)
    for digit in digits:
        bins = torch.zeros(len(keys), 2048, dtype=torch.int32, device=keys.device)
        reached = bins.scatter_add_(1, digit.long(), unsure.int()).cumsum(1)
        at = (reached < left).sum(1, keepdim=True)
        below = reached.gather(1, (at - 1).clamp_min(0)).where(at > 0, 0)
        taken = taken | (unsure & (digit < at))
        unsure, left = unsure & (digit == at), left - below
    return taken | (unsure & (unsure.cumsum(1) <= left))


def race(noise: Tensor, among: Tensor, weight: Tensor | None, count: Tensor, most: int) -> Tensor:
    """Draw without replacement: pixels whose exponential clock rings first.

    The same law as drawing one by one with probabilities proportional to what is left of the weights.

    Parameters
    ----------
    noise : float Tensor [B, P]
        `uniform`.
    among : bool Tensor [B, P]
        Candidates.
    weight : float Tensor [B, P] or None
        Positive weights; equal ones where None.
    count : int64 Tensor [B]
        How many of each row, at most `most` and at most as many as there are candidates.
    most : int
        Largest count.

    Returns
    -------
    bool Tensor [B, P]
    """
    clock = -noise.log()
    clock = (clock if weight is None else clock / weight).masked_fill(~among, torch.inf)
    first = clock.topk(min(most, clock.shape[1]), dim=1, largest=False, sorted=True).indices
    taken = torch.arange(first.shape[1], device=first.device) < count[:, None]
    return torch.zeros_like(among).scatter_(1, first, taken) & among


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
