"""Show the classifier the masks of maps: Otsu's mask of each map, the rest of the image blurred.

The rule by which the thesis scores attention maps without a localizer (Table 2.4): of the maps of an image, the one
inside whose mask the posterior of the class is highest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from wsolpipe.maps.foreground import otsu_thresholds
from wsolpipe.ops.candidates import stretch_levels
from wsolpipe.ops.perturb import blur, blur_matrix, scale_blur

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsolpipe.ops.scoring import ScoringModel

#: Kernel and standard deviation of the blur in pixels at 224², those of the proposals.
KERNEL, SIGMA = 65, 20.0


def otsu_masks(maps: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Pixels above each map's own Otsu threshold.

    Parameters
    ----------
    maps : array [M, h, w]
        Finite.
    size : int
        Side of the grid to which maps are stretched before they are thresholded.

    Returns
    -------
    bool array [M, size, size]
        Nothing of a constant map.
    """
    levels = stretch_levels(maps, size)
    found: NDArray[np.bool_] = levels > otsu_thresholds(levels)[:, None, None]
    return found


def mask_posteriors(
    classifier: ScoringModel, pixels: NDArray[np.uint8], masks: NDArray[np.bool_], *, device: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Posteriors of an image, and of it with all but a mask blurred.

    Parameters
    ----------
    classifier : ScoringModel
        On `device`, in evaluation mode.
    pixels : uint8 array [S, S, 3]
        RGB, at the classifier's size.
    masks : bool array [M, S, S]
    device : str
        Torch device.

    Returns
    -------
    whole : float32 array [K]
    inside : float32 array [M, K]
    """
    with torch.inference_mode():
        image = classifier.normalise(torch.from_numpy(pixels[None]).to(device))
        matrix = blur_matrix(len(pixels), *scale_blur(KERNEL, SIGMA, len(pixels))).to(device)
        kept = torch.from_numpy(masks)[:, None].to(device)
        crops = torch.cat([image, torch.where(kept, image, blur(image, matrix, matrix))])
        posteriors = classifier(crops.contiguous(memory_format=classifier.memory_format)).float().softmax(1)
    values = posteriors.cpu().numpy()
    return values[0], values[1:]
