"""Random numbers of a row in an epoch, pixels drawn by them, and regions of maps to draw from, on any device.

A number is a hash of (seed, epoch, row, purpose, pixel). So draws are fresh every time a row comes round, resuming
needs no generator's state, and several processes draw for a row what one process would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from wsolpipe.maps.compilation import compiled

#: Purposes from here on belong to `RowDraws`; samplers use those below.
AUGMENTATION = 1000
#: Share of images without any label from which on an epoch is reported.
MOST = 0.05
#: Count of a sampler -> reason and what to change.
REMEDIES = {
    "no_region": "no box within the crop, or a constant map: look at the labels with wsoltrain preview",
    "no_foreground": "no foreground candidate: pixels.erosion=1, or larger boxes",
    "no_background": "no background candidate: pixels.background=anywhere or a smaller pixels.top_n for dips, "
    "pixels.keep_out=false for trcam",
}
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def uniform(seed: int, epoch: int, rows: Tensor, purpose: int, count: int, places: Tensor | None = None) -> Tensor:
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
    places : int64 Tensor [B, count], optional
        Places whose numbers are wanted, such as those of a crop's pixels in the whole image; the first ones by default.
    """
    start = _mix(_mix(_mix(rows * _GOLDEN + purpose) + epoch) + seed)
    pixels = torch.arange(1, count + 1, device=rows.device) if places is None else places + 1
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

    The same distribution as drawing one by one with probabilities proportional to the remaining weights.

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


LEVELS = 256


def otsu(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Otsu's threshold of each map over 256 levels.

    Parameters
    ----------
    maps : float Tensor [B, H, W]
        In 0..1; levels are ``floor(255 * map)``.

    Returns
    -------
    levels : int64 Tensor [B, H, W]
        The quantised maps.
    thresholds : int64 Tensor [B]
        Level t that parts {0 … t} from {t + 1 … 255} best, the lowest on ties; −1 for a constant map.
    """
    levels = (maps * 255).floor().clamp(0, 255).to(torch.int64)
    flat = levels.flatten(1)
    counts = torch.zeros(len(maps), LEVELS, dtype=torch.float64, device=maps.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))
    below, total = counts.cumsum(1), flat.shape[1]
    sums = (counts * torch.arange(LEVELS, device=maps.device)).cumsum(1)
    difference = total * sums - below * sums[:, -1:]
    variance = difference**2 / (below * (total - below)).clamp_min(1)
    best, found = variance.max(1)  # empty levels repeat a variance to the bit, and the first index wins
    return levels, torch.where(best > 0, found, -1)


def erode(mask: Tensor, side: int) -> Tensor:
    """Erode [B, H, W] by a square of odd `side`; what lies beyond the border erodes nothing."""
    return max_pool2d((~mask).float()[:, None], side, 1, side // 2)[:, 0] == 0


def components(mask: Tensor) -> Tensor:
    """Number 4-connected regions, in tensor operations alone: a GPU is not waited for.

    Horizontal runs begin as regions; then each region takes the largest number beside it, until all are joined. In two
    rounds each region joins another one, so twice the binary logarithm of their number is enough, whatever the mask.

    Parameters
    ----------
    mask : bool Tensor [B, H, W]
        Foreground.

    Returns
    -------
    int64 Tensor [B, H, W]
        0 outside; inside, 1 + the largest flat pixel index of the region.
    """
    batch, height, width = mask.shape
    numbers = torch.arange(height * width, device=mask.device).view(1, height, width)
    ends = torch.where(mask, height * width, numbers).flip(2).cummin(2).values.flip(2)  # the next pixel outside
    root = torch.where(mask, torch.minimum(ends - 1, numbers[..., -1:]), numbers).flatten(1)
    joined = (mask[:, :-1] & mask[:, 1:]).flatten(1)
    rounds = max(1, (height * width).bit_length() - 1)
    for _ in range(2 * rounds):
        upper, lower = root[:, :-width], root[:, width:]
        low, high = torch.minimum(upper, lower), torch.maximum(upper, lower)
        root = root.scatter_reduce(1, low, torch.where(joined, high, low), "amax")
        for _ in range(rounds):
            root = root.gather(1, root)
    return torch.where(mask, root.view(batch, height, width) + 1, 0)


@compiled
def _choose(mask: Any, maps: Any, densest: bool, least: float) -> Any:
    """As `chosen_region`, of arrays: one pass that joins each pixel with those left of it and above it."""
    batch, height, width = mask.shape
    chosen = np.empty((batch, height * width), np.bool_)
    parent = np.empty(height * width, np.int32)
    area, total = np.empty(height * width, np.float32), np.empty(height * width, np.float32)
    for image in range(batch):
        there, values = mask[image].ravel(), maps[image].ravel()
        for pixel in range(height * width):
            parent[pixel], area[pixel], total[pixel] = pixel, 0, 0
        for pixel in range(height * width):
            if not there[pixel]:
                continue
            for other in (pixel - 1 if pixel % width else -1, pixel - width):
                if other < 0 or not there[other]:
                    continue
                while parent[other] != other:
                    parent[other] = parent[parent[other]]
                    other = parent[other]
                parent[other] = pixel  # the last pixel of a region stands for it
        for pixel in range(height * width - 1, -1, -1):
            parent[pixel] = parent[parent[pixel]]
        root, count, summed = 0, np.float32(0), np.float32(0)  # of the run of pixels of one region, in registers
        for pixel in range(height * width):
            if there[pixel]:
                if parent[pixel] != root:
                    area[root], total[root] = count, summed
                    root = parent[pixel]
                    count, summed = area[root], total[root]
                count += np.float32(1)
                summed += values[pixel]
        area[root], total[root] = count, summed
        largest, dense = 0, 0
        widest, highest = np.float32(0), np.float32(-1)
        for root in range(height * width):  # the first of equal regions wins
            if area[root] == 0:
                continue
            if area[root] > widest:
                largest, widest = root, area[root]
            mean = total[root] / area[root]
            if mean > highest:
                dense, highest = root, mean
        best = dense if densest and area[dense] >= least else largest
        for pixel in range(height * width):
            chosen[image, pixel] = there[pixel] & (parent[pixel] == best)
    return chosen.reshape(mask.shape)


def chosen_region(mask: Tensor, maps: Tensor, *, densest: bool, least_share: float) -> Tensor:
    """One region a map: the largest, or the one of highest mean value.

    Parameters
    ----------
    mask : bool Tensor [B, H, W]
        Foreground.
    maps : float Tensor [B, H, W]
        Values.
    densest : bool
        By mean value instead of area.
    least_share : float
        Share of the image below which the densest region gives way to the largest.

    Returns
    -------
    bool Tensor [B, H, W]
        Part of `mask`; empty where that is.
    """
    pixels = mask[0].numel()
    if mask.device.type == "cpu":
        values = maps.detach().to(torch.float32).numpy()
        return torch.from_numpy(_choose(mask.numpy(), values, densest, least_share * pixels))
    labels = components(mask).flatten(1)
    areas = torch.zeros(len(mask), pixels + 1, device=mask.device).scatter_add_(1, labels, mask.flatten(1).float())
    best = areas.argmax(1)
    if densest:
        sums = torch.zeros_like(areas).scatter_add_(1, labels, (maps * mask).flatten(1).to(areas))
        dense = torch.where(areas > 0, sums / areas.clamp_min(1), -1.0).argmax(1)
        wide = areas.gather(1, dense[:, None])[:, 0] >= least_share * pixels
        best = torch.where(wide, dense, best)
    return (labels == best[:, None]).view_as(mask) & mask
