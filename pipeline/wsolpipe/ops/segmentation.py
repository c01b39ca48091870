"""Segments of an image by their published algorithms, as scikit-image has them.

``cv2.ximgproc`` has a Felzenszwalb too, three times as fast: on photographs it gives about as many segments, but never
the same ones, so its results would be others than the published algorithm's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def felzenszwalb(image: NDArray[np.uint8], *, scale: float, sigma: float, min_size: int) -> NDArray[np.uint16]:
    """Segments that grow where colours differ little (Felzenszwalb and Huttenlocher, IJCV 2004).

    Parameters
    ----------
    image : uint8 array [H, W, 3]
    scale : float
        Higher values give larger segments.
    sigma : float
        Of the Gaussian that smooths the image first, pixels.
    min_size : int
        Smaller segments are merged into a neighbour, pixels.

    Returns
    -------
    uint16 array [H, W]
        Labels from 0.
    """
    from skimage.segmentation import felzenszwalb as segment

    return _small(segment(image, scale=scale, sigma=sigma, min_size=min_size))


def slic(image: NDArray[np.uint8], *, pieces: int, compactness: float) -> NDArray[np.uint16]:
    """Superpixels of about equal size (Achanta et al., "SLIC superpixels", PAMI 2012).

    Parameters
    ----------
    image : uint8 array [H, W, 3]
    pieces : int
        About how many.
    compactness : float
        Higher values give squarer ones.

    Returns
    -------
    uint16 array [H, W]
        Labels from 0.
    """
    from skimage.segmentation import slic as segment

    return _small(segment(image, n_segments=pieces, compactness=compactness, start_label=0, channel_axis=-1))


def _small(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
    most = np.iinfo(np.uint16).max  # of the number of segments too, which is one more than the last label
    if labels.max() >= most:
        msg = f"{labels.max() + 1} segments are more than the {most} that a store counts"
        raise ConfigError(msg, hint="ask for larger segments")
    return labels.astype(np.uint16)
