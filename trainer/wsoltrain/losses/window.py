"""Keys of the frames beside a frame of a video, and the colour CRF over all of them (TCAM, WACV 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.keys import Keys
from wsoltrain.data.order import Window
from wsoltrain.losses.crf import crf_loss

if TYPE_CHECKING:
    from torch import Tensor


class WindowKeys(Keys):
    """Keys of TCAM's temporal window."""

    window: Literal["none", "before", "after", "both"] = Field(
        "none",
        description="Frames of the shot whose maps are taken with a frame's own, at each place the greatest (TCAM)",
    )
    window_frames: int = Field(1, ge=1, le=1000, description="Frames of the window on each side (TCAM: n)")
    heat: float = Field(
        0.0, ge=0, description="h of TCAM: maps of a window become exp(h map) over their greatest value; 0: as they are"
    )
    joint_crf_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of a CRF loss of a frame and its window side by side, by colour alone (TCAM); 0: off",
    )

    def check(self) -> None:
        """Refuse keys of a window where there is none."""
        super().check()
        if self.window == "none" and (self.heat or self.joint_crf_weight):
            msg = "heat and joint_crf_weight are of a window of frames, and window=none"
            raise ConfigError(msg, hint="window=both, or leave them out")

    def window_of(self) -> Window:
        """Window that the stream reads."""
        before, after = (self.window_frames if self.window in (side, "both") else 0 for side in ("before", "after"))
        return Window(before, after, self.heat, images=bool(self.joint_crf_weight))


def joint_crf(prob: Tensor, image: Tensor, there: Tensor, *, sigma_rgb: float, scale: float) -> Tensor:
    """CRF energy of frames side by side with a kernel of colour alone, mean over the batch.

    Parameters
    ----------
    prob : float Tensor [B, n, 2, H, W]
        Background and foreground of each frame.
    image : Tensor [B, n, 3, H, W]
        Colours in 0..255.
    there : bool Tensor [B, n]
        Frames that there are; the others take no part.
    sigma_rgb : float
        Width of the kernel, levels.
    scale : float
        Share of the resolution at which it is computed.

    Returns
    -------
    float Tensor, scalar
        ``Σ_r S^rᵀ W (1 − S^r)`` over the pixels of all frames of a row.
    """
    total = prob.new_zeros(())
    for maps, colours, known in zip(prob, image, there, strict=True):
        if bool(known.any()):
            strip = torch.cat(list(maps[known]), -1)[None], torch.cat(list(colours[known]), -1)[None]
            total = total + crf_loss(
                *strip, sigma_rgb=sigma_rgb, sigma_xy=math.inf, scale=scale, sums_to_one=True,
                normalisation="reference",
            )  # fmt: skip
    return total / len(prob)
