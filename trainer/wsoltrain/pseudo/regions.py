"""Otsu's threshold, erosion and connected regions of whole batches of maps, on the training device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from wsolpipe.maps.compilation import compiled

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
    chosen = np.zeros(mask.shape, np.bool_)
    for image in range(batch):
        there, values = mask[image].ravel(), maps[image].ravel()
        parent = np.arange(height * width)
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
        area, total = np.zeros(height * width, np.float32), np.zeros(height * width, np.float32)
        for pixel in range(height * width - 1, -1, -1):
            parent[pixel] = parent[parent[pixel]]
        for pixel in range(height * width):
            if there[pixel]:
                area[parent[pixel]] += np.float32(1)
                total[parent[pixel]] += values[pixel]
        largest = np.argmax(area)
        best = largest
        if densest:
            best = np.argmax(np.where(area > 0, total / np.maximum(area, np.float32(1)), np.float32(-1)))
            best = best if area[best] >= least else largest
        for pixel in range(height * width):
            chosen[image, pixel // width, pixel % width] = there[pixel] and parent[pixel] == best
    return chosen


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
