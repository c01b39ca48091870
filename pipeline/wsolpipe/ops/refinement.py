"""Maps made to follow the image: by segments, by a guided filter, or by a dense CRF, each mixed with the map itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsolpipe.maps.levels import minmax
from wsolpipe.maps.resize import upsample
from wsolpipe.maps.segments import mix_segments

By = Literal["segments", "guided", "crf"]


@dataclass(frozen=True)
class Refinement:
    """How maps are refined, beside the weight.

    Attributes
    ----------
    by : {"segments", "guided", "crf"}
    size : int
        Side of the result, pixels.
    guided_radius : int
        Of the window, pixels.
    guided_eps : float
        Variance of colours in 0..1 below which the window is smoothed.
    crf_size : int
        Side at which every pair of pixels is compared.
    crf_iterations : int
    crf_xy, crf_rgb, crf_weight : float
        Deviations, in pixels of the result and levels, and weight of the appearance kernel.
    crf_smooth_xy, crf_smooth_weight : float
        Deviation and weight of the smoothness kernel.
    """

    by: By
    size: int
    guided_radius: int
    guided_eps: float
    crf_size: int
    crf_iterations: int
    crf_xy: float
    crf_rgb: float
    crf_weight: float
    crf_smooth_xy: float
    crf_smooth_weight: float

    def refine(
        self, maps: NDArray[np.float32], seen: NDArray[Any], w: float, device: str = "cpu"
    ) -> NDArray[np.float32]:
        """Refined maps r = (1 - w) · m + w · (what the image makes of m).

        Parameters
        ----------
        maps : float32 array [T, h, w]
            On any scale.
        seen : uint16 array [size, size] or uint8 array [size, size, 3]
            Labels of segments, or for the others the image.
        w : float
            0 gives the stretched maps, 1 what the image makes of them alone.
        device : str
            Of the CRF.

        Returns
        -------
        float32 array [T, size, size]
            On the scale of `maps`.
        """
        if self.by == "segments":
            return mix_segments(maps, seen, w)
        wide = upsample(maps, (self.size, self.size), cubic=True)
        if w == 0:
            return wide
        made = (
            crf(wide, seen, self, device) if self.by == "crf" else np.stack([guided(one, seen, self) for one in wide])
        )
        return np.asarray((1 - w) * wide + w * made, np.float32)


def guided(one: NDArray[np.float32], image: NDArray[np.uint8], plan: Refinement) -> NDArray[np.float32]:
    """A map as the linear function of the image's colours that fits it best in each window (He et al., PAMI 2013)."""
    import cv2

    guide = image.astype(np.float32) / 255
    made = cv2.ximgproc.guidedFilter(guide, one, plan.guided_radius, plan.guided_eps)
    return np.asarray(np.clip(made, one.min(), one.max()), np.float32)


def crf(
    maps: NDArray[np.float32], image: NDArray[np.uint8], plan: Refinement, device: str = "cpu"
) -> NDArray[np.float32]:
    """Maps [T, size, size] as the probability of foreground after mean-field inference, on the scale of each map.

    A map's min-max is the probability before it; the CRF runs on `plan.crf_size`² pixels, whose pairs are weighed once
    for all maps.
    """
    import torch

    from wsolpipe.images.geometry import resize
    from wsolpipe.ops.dense_crf import gaussian, mean_field, pixel_features

    side, made = plan.crf_size, maps.copy()
    colours = torch.from_numpy(resize(image, (side, side))).to(device).float()
    step = plan.size / side
    with torch.no_grad():
        smooth = gaussian(pixel_features(colours, (step, step), plan.crf_smooth_xy)).mul_(plan.crf_smooth_weight)
        alike = gaussian(pixel_features(colours, (step, step), plan.crf_xy, plan.crf_rgb))
        pairs = smooth.add_(alike, alpha=plan.crf_weight)
        for one in made:
            low, high = float(one.min()), float(one.max())
            if high <= low:
                continue
            scores = torch.from_numpy(upsample(minmax(one[None]), (side, side))[0]).to(device).flatten()
            found = mean_field(torch.stack([1 - scores, scores]), pairs, plan.crf_iterations)
            share = found[1].reshape(side, side).cpu().numpy()
            one[:] = low + (high - low) * upsample(share, (plan.size, plan.size))
    return made
