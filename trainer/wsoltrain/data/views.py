"""Inputs of the trainer from the contents of a store: maps through crop and flip, pixels to network input.

A window is int64 (left, top, side, flip): the whole image squashed to side × side, cut at (left, top), then mirrored if
flip has the bit 1 and turned upside down if it has the bit 2. Points count from the outer corner of a pixel, so pixel
centres lie at half-integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

LEFT, TOP, SIDE, FLIP = range(4)
#: Bits of flip.
MIRRORED, UPSIDE_DOWN = 1, 2


def maps_to_view(maps: Tensor, window: Tensor, size: int, *, grid_hw: Tensor | None = None) -> Tensor:
    """Maps as the trainer sees them, from the grid that the store holds.

    Equals ``interpolate(maps, (side, side), mode="bilinear", align_corners=False)`` followed by the crop and the flip,
    without making the part outside of the crop: two small matrix products a map, on whatever device the maps are.

    Parameters
    ----------
    maps : float Tensor [M, h, w] or [B, M, h, w]
        Maps over the whole image.
    window : int64 Tensor [4] or [B, 4]
        (left, top, side, flip) of the view.
    size : int
        Height and width S of the view.
    grid_hw : int64 Tensor [2] or [B, 2], optional
        Rows and columns of the grid that lie on the image, where maps are padded below and right; all by default.

    Returns
    -------
    float Tensor [M, S, S] or [B, M, S, S]
    """
    single = maps.ndim == 3
    if single:
        maps, window = maps[None], window[None]
        grid_hw = None if grid_hw is None else grid_hw[None]
    window = window.to(maps.device)
    height, width = maps.shape[-2:]
    extent = maps.new_tensor([[height, width]]).expand(len(maps), 2) if grid_hw is None else grid_hw.to(maps)
    flips = window[:, FLIP]
    down = _hats(window[:, TOP], window[:, SIDE], flips & UPSIDE_DOWN, extent[:, 0], height, size)
    across = _hats(window[:, LEFT], window[:, SIDE], flips & MIRRORED, extent[:, 1], width, size)
    view = down[:, None] @ maps @ across[:, None].mT
    return view[0] if single else view


def _hats(start: Tensor, side: Tensor, mirrored: Tensor, extent: Tensor, cells: int, size: int) -> Tensor:
    """Share of each grid cell in each pixel of the view along one axis, [B, size, cells]; rows sum to one."""
    at = torch.arange(size, device=extent.device, dtype=extent.dtype) + 0.5
    at = torch.where(mirrored[:, None] > 0, size - at, at) + start[:, None]
    centre = at * (extent / side)[:, None] - 0.5
    centre = torch.minimum(centre.clamp_min(0), extent[:, None] - 1)  # edges are repeated
    cell = torch.arange(cells, device=extent.device, dtype=extent.dtype)
    return (1 - (centre[..., None] - cell).abs()).clamp_min(0)


def places_of(window: Tensor, size: int) -> Tensor:
    """Number of each pixel of views [B, 4] in the whole squashed image, row by row: int64 [B, size * size]."""
    at = torch.arange(size, device=window.device)
    flips = window[:, FLIP, None]
    down = window[:, TOP, None] + torch.where((flips & UPSIDE_DOWN) > 0, size - 1 - at, at)
    across = window[:, LEFT, None] + torch.where((flips & MIRRORED) > 0, size - 1 - at, at)
    return (down[:, :, None] * window[:, SIDE, None, None] + across[:, None]).flatten(1)


def scaled_to_unit(maps: Tensor) -> Tensor:
    """Maps [..., H, W], each between its own lowest and highest value; a constant one is 0."""
    spread = maps - maps.amin((-2, -1), keepdim=True)
    return spread / spread.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def normalise(rgb: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Network input made of pixels: ``(rgb / 255 - mean) / std`` for each colour.

    Parameters
    ----------
    rgb : uint8 Tensor [..., 3, H, W]
        Pixels.
    mean, std : three floats each
        Of the backbone's training, for values in 0..1.

    Returns
    -------
    float32 Tensor, same shape
    """
    scale = torch.tensor([1 / (255 * value) for value in std], device=rgb.device)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=rgb.device)[:, None, None]
    return torch.addcmul(shift, rgb.to(torch.float32), scale)


def jitter_colours(rgb: Tensor, strengths: Sequence[float], rng: np.random.Generator) -> Tensor:
    """Vary the colours of one picture, in a random order of the four changes.

    Parameters
    ----------
    rgb : uint8 Tensor [3, H, W]
    strengths : four floats
        Brightness, contrast, saturation: factors are drawn from 1 ± the strength, at least 0; hue: the shift is drawn
        from ± the strength, in turns of the colour circle. 0 leaves one out.
    rng : numpy Generator

    Returns
    -------
    uint8 Tensor [3, H, W]
    """
    picture = Image.fromarray(rgb.permute(1, 2, 0).contiguous().numpy())
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    draws = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths[:3]]
    shift = rng.uniform(-strengths[3], strengths[3])
    for change in rng.permutation(4).tolist():
        if change < 3 and strengths[change]:
            picture = enhancers[change](picture).enhance(draws[change])
        elif change == 3 and strengths[3]:
            picture = _shift_hue(picture, shift)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _shift_hue(picture: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    moved = np.asarray(hue).astype(np.int64) + round(turns * 255)
    return Image.merge("HSV", (Image.fromarray((moved % 256).astype(np.uint8)), saturation, value)).convert("RGB")
