"""Random changes of brightness, contrast, saturation and hue, as torchvision's ColorJitter makes them of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageEnhance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


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
