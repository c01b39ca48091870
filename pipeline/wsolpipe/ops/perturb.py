"""Keep the inside of a box and blur the rest: what the scoring classifier sees of a candidate (DiPS, Algorithm 2.1)."""

from __future__ import annotations

import math

import numpy as np
import torch

#: Resolution at which kernel and sigma of the blur are given.
REFERENCE_SIZE = 224


def scale_blur(kernel: int, sigma: float, size: int) -> tuple[int, float]:
    """Give kernel and sigma at `size` that blur as `kernel` and `sigma` do at 224 pixels.

    Parameters
    ----------
    kernel : int
        Odd extent in pixels at 224².
    sigma : float
        Standard deviation in pixels at 224².
    size : int
        Side of the image that is to be blurred.

    Returns
    -------
    kernel, sigma : int, float
        The nearest odd extent (at least 1) and the scaled deviation.
    """
    factor = size / REFERENCE_SIZE
    half = round((kernel - 1) / 2 * factor)
    return 2 * half + 1, sigma * factor


def blur_matrix(size: int, kernel: int, sigma: float) -> torch.Tensor:
    """Write a 1-D Gaussian blur with mirrored borders as one matrix.

    A matrix, because two dense products an image are faster than a depthwise convolution with a wide kernel on every
    device, and because mirroring then works for kernels wider than the image too.

    Parameters
    ----------
    size : int
        Length of the axis.
    kernel : int
        Odd number of taps; they are normalised to sum 1.
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    Tensor [size, size], float32
        Row i holds the weights of the input pixels in output pixel i. Borders mirror without repeating the edge pixel.

    Raises
    ------
    ValueError
        If `kernel` is even or `sigma` is not positive.
    """
    if kernel < 1 or kernel % 2 == 0 or not sigma > 0:
        msg = f"a blur needs an odd kernel and a positive sigma, got kernel={kernel} sigma={sigma}"
        raise ValueError(msg)
    offsets = np.arange(kernel) - kernel // 2
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    taps /= taps.sum()
    period = max(2 * (size - 1), 1)
    source = np.abs(np.arange(size)[:, None] + offsets) % period
    source = np.minimum(source, period - source) if size > 1 else np.zeros_like(source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], source), taps)
    return torch.from_numpy(matrix.astype(np.float32))


def blur(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Blur images along both axes.

    Parameters
    ----------
    images : Tensor [N, C, H, W], float32
        In any affine scale: the weights sum to 1, so blurring commutes with normalisation.
    rows, columns : Tensor [H, H] and [W, W]
        From `blur_matrix`, on the device of `images`.

    Returns
    -------
    Tensor [N, C, H, W], float32
    """
    return rows @ (images @ columns.T)


def cover_pixels(boxes: np.ndarray, scale: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Scale boxes to another grid and grow them to whole pixels.

    Parameters
    ----------
    boxes : array [B, 4]
        xyxy, half-open.
    scale : (float, float)
        Factors (height, width).
    size : (int, int)
        (height, width) of the target grid.

    Returns
    -------
    int64 array [B, 4]
        xyxy, half-open, clipped: the near edges rounded down and the far edges up, so a pixel that the scaled box
        touches is inside. Edges within 1e-6 of a whole pixel count as whole.
    """
    factors = np.array([scale[1], scale[0], scale[1], scale[0]])
    scaled = np.asarray(boxes, np.float64).reshape(-1, 4) * factors
    near, far = np.floor(scaled[:, :2] + 1e-6), np.ceil(scaled[:, 2:] - 1e-6)
    limit = np.array([size[1], size[0]])
    return np.concatenate([np.clip(near, 0, limit), np.clip(far, 0, limit)], axis=1).astype(np.int64)


def keep_boxes(images: torch.Tensor, blurred: torch.Tensor, index: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Composite one image a box: the image inside the box, its blur outside.

    Parameters
    ----------
    images, blurred : Tensor [N, C, H, W]
        Of one dtype (float32 or uint8) and memory format, which the result keeps.
    index : int64 Tensor [B]
        Which image each box belongs to.
    boxes : int64 Tensor [B, 4]
        xyxy in whole pixels of `images`, half-open: pixel (y, x) is inside where y0 <= y < y1 and x0 <= x < x1.

    Returns
    -------
    Tensor [B, C, H, W]
    """
    height, width = images.shape[-2:]
    ys = torch.arange(height, device=images.device)
    xs = torch.arange(width, device=images.device)
    x0, y0, x1, y1 = (edge[:, None] for edge in boxes.unbind(1))  # [B, 1] each
    inside_y = (ys >= y0) & (ys < y1)  # [B, H]
    inside_x = (xs >= x0) & (xs < x1)  # [B, W]
    mask = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]  # [B, 1, H, W]
    return torch.where(mask, images[index], blurred[index])


def normal_density(areas: np.ndarray) -> np.ndarray:
    """Score boxes by how usual their area is among the boxes of the same image (DiPS, size probability).

    Parameters
    ----------
    areas : float array [B]
        Areas of all candidate boxes of one image, as shares of the image.

    Returns
    -------
    float64 array [B]
        Density of the normal distribution with the mean and (population) standard deviation of `areas`. Where all
        areas are equal, every score is 1.
    """
    areas = np.asarray(areas, np.float64)
    if len(areas) == 0:
        return areas
    mean, deviation = areas.mean(), areas.std()
    if deviation < 1e-9:
        return np.ones_like(areas)
    result: np.ndarray = np.exp(-0.5 * ((areas - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    return result
