"""Dense Gaussian filtering in colour and position, and the CRF loss made of it; CPU and CUDA, batched.

The kernel is ``W_ij = exp(-|xy_i - xy_j|² / 2σ_xy² - |rgb_i - rgb_j|² / 2σ_rgb²)``, self term included, not
normalised. Its spatial factor is so wide that a few products of eigenvectors of both axes' 1-D Gaussians hold it. Each
product times the values is splatted into a 3-D colour grid with trilinear weights, blurred along the axes, sliced, and
weighted by the product again. The grid lies along the principal axes of the picture's own colours: a Gaussian is the
same in any orientation, and the box around a photograph's colours is several times smaller there than in RGB. How wide
a splat spreads depends on where in its cell a colour lies, so both ends are scaled to give each colour the weight one
with itself.

W is symmetric here as well, to rounding, so one filtering gives both the value and the gradient of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate, pad

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.keys import Keys

#: Strength of the filter with which λ = 2e-9 was tuned, as a share of the exact kernel.
#: The permutohedral filter that the papers' code shares gives 0.48 to 0.62 of the true magnitude, by size and picture.
#: This module filters exactly; ``normalisation="reference"`` multiplies the energy by this factor, and a weight of 2e-9
#: then pulls as hard as theirs does on average.
REFERENCE_SCALE = 0.55

#: Cells of the colour grid, in σ_rgb.
STEP = 0.5
#: Spatial products below this share of the strongest one are left out.
TOLERANCE = 1e-2
#: Cells of a colour grid; more means a σ_rgb of less than about two levels.
MAX_CELLS = 2**22


class CrfKeys(Keys):
    """Keys of the CRF loss.

    Attributes
    ----------
    **losses**
    crf_weight
        Weight of the CRF loss (DiPS: lambda_2, lambda_CRF); 0: off
    crf_sigma_rgb
        Width of its kernel in colour, levels of 0..255
    crf_sigma_xy
        Width of its kernel in position, pixels of the full size
    crf_scale
        Share of the resolution at which it is computed
    crf_normalisation
        Strength of its filter: reference (that of the papers' filter, for which they give their weight) or exact (1.8
        times as strong)
    """

    crf_weight: float = Field(2e-9, ge=0)
    crf_sigma_rgb: float = Field(15.0, ge=1, le=1e6)
    crf_sigma_xy: float = Field(100.0, ge=1e-3, le=1e6)
    crf_scale: float = Field(1.0, ge=0.01, le=4)
    crf_normalisation: Literal["reference", "exact"] = "reference"


def dense_filter(values: Tensor, image: Tensor, *, sigma_rgb: float = 15.0, sigma_xy: float = 100.0) -> Tensor:
    """Multiply by the dense colour-position Gaussian kernel W.

    Differentiable in `values` (W is its own transpose), not in `image`.

    Parameters
    ----------
    values : float Tensor [B, C, H, W]
        What to filter.
    image : Tensor [B, 3, H, W]
        Colours in 0..255, of any dtype, on the device of `values`.
    sigma_rgb : float
        Width in colour, levels.
    sigma_xy : float
        Width in position, pixels; ``inf`` leaves position out.

    Returns
    -------
    float Tensor [B, C, H, W]
        ``W @ values`` for each image and channel. On photographs its sum is within 1 % of the exact one, and the cosine
        of ``W·1 - 2 W·S`` with the exact one above 0.999.

    Raises
    ------
    ConfigError
        If shapes do not fit, a sigma is not positive, or σ_rgb is too small for a colour grid.
    """
    _check(values, image, sigma_rgb, sigma_xy)
    filtered: Tensor = _Filter.apply(values, image, sigma_rgb, sigma_xy)
    return filtered


def crf_loss(
    prob: Tensor,
    image: Tensor,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 1.0,
    sums_to_one: bool | None = None,
    normalisation: Literal["exact", "reference"] = "exact",
) -> Tensor:
    """Relaxed Potts energy of a soft segmentation, ``mean_b Σ_r S^rᵀ W (1 - S^r)`` (Tang et al. 2018).

    Value and gradient ``W·1 - 2 W·S^r`` come from one filtering.

    Parameters
    ----------
    prob : float Tensor [B, 2, H, W]
        Background and foreground, in 0..1.
    image : Tensor [B, 3, H, W]
        Colours in 0..255 of the same crop.
    sigma_rgb, sigma_xy : float
        As in `dense_filter`.
    scale : float
        Computes at this share of the resolution: image by nearest, map bilinear, σ_xy scaled along.
    sums_to_one : bool, optional
        Whether both channels add up to one, as a softmax's do; then two channels are filtered instead of three.
        Looked up where None, which makes a GPU wait.
    normalisation : "exact" or "reference"
        The exact kernel, or times `REFERENCE_SCALE`: as strong as the filter for which the papers give λ = 2e-9.

    Returns
    -------
    float Tensor, scalar
        Energy. It grows with the square of the number of pixels: a weight for S x S pixels pulls as hard at T x T when
        multiplied by ``(S / T) ** 4``, `sigma_xy` changing along.

    Raises
    ------
    ConfigError
        As `dense_filter`, or if `prob` has not two channels.
    """
    if prob.ndim != 4 or prob.shape[1] != 2:
        msg = f"crf_loss wants prob of [B, 2, H, W], background and foreground; got {list(prob.shape)}"
        raise ConfigError(msg)
    _check(prob, image, sigma_rgb, sigma_xy)
    if scale != 1.0:
        prob = interpolate(prob, scale_factor=scale, mode="bilinear", align_corners=False)
        image = interpolate(image.to(prob.dtype), size=prob.shape[-2:], mode="nearest")
    if sums_to_one is None:
        off = (prob.detach().sum(1) - 1).abs().max()
        sums_to_one = bool(off <= 16 * torch.finfo(prob.dtype).eps)
    loss: Tensor = _Energy.apply(prob, image, sigma_rgb, sigma_xy * scale, sums_to_one)
    return loss * REFERENCE_SCALE if normalisation == "reference" else loss


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, image: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
        ctx.save_for_backward(image)
        ctx.sigmas = sigma_rgb, sigma_xy
        return _filter(values, image, sigma_rgb, sigma_xy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (image,) = ctx.saved_tensors
        return _Filter.apply(grads[0], image, *ctx.sigmas), None, None, None


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prob: Tensor, image: Tensor, sigma_rgb: float, sigma_xy: float, sums_to_one: bool) -> Tensor:
        kept = prob[:, 1:] if sums_to_one else prob
        filtered = _filter(torch.cat([torch.ones_like(prob[:, :1]), kept], 1), image, sigma_rgb, sigma_xy)
        ones, rest = filtered[:, :1], filtered[:, 1:]
        smooth = torch.cat([ones - rest, rest], 1) if sums_to_one else rest  # W S^r
        ctx.save_for_backward((ones - 2 * smooth) / len(prob))
        return (prob * (ones - smooth)).sum() / len(prob)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None, None, None


def _check(values: Tensor, image: Tensor, sigma_rgb: float, sigma_xy: float) -> None:
    fits = values.ndim == 4 and image.shape == (len(values), 3, *values.shape[2:])
    if not fits or not values.is_floating_point():
        given = f"{values.dtype} {list(values.shape)} and {list(image.shape)}"
        msg = f"values [B, C, H, W] of floats and image [B, 3, H, W] wanted, got {given}"
        raise ConfigError(msg)
    if not (sigma_rgb > 0 and sigma_xy > 0):
        msg = f"sigma_rgb={sigma_rgb} and sigma_xy={sigma_xy} must be positive"
        raise ConfigError(msg)


def _filter(values: Tensor, image: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    values = values.detach()
    if values.dtype in (torch.float16, torch.bfloat16):
        return _filter(values.float(), image, sigma_rgb, sigma_xy).to(values.dtype)
    down, across = _spatial_terms(values.shape[2], values.shape[3], sigma_xy)
    terms = down.to(values), across.to(values)
    cells, size = _colour_cells(image, values.dtype, STEP * sigma_rgb)
    even = _evening(cells).view(len(values), 1, *values.shape[2:])
    compiled = values.device.type == "cpu" and values.dtype == torch.float32
    return even * (_filter_compiled if compiled else _filter_tensors)(even * values, cells, size, terms)


@lru_cache(maxsize=16)
def _spatial_terms(height: int, width: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Factors [R, H] and [R, W] whose products, squared and summed, are the spatial Gaussian; strongest first."""
    (low, down), (high, across) = (_eigen(length, sigma) for length in (height, width))
    weight = low[:, None] * high[None, :]
    kept = (weight > TOLERANCE * weight.max()).nonzero()
    kept = kept[torch.argsort(weight[kept[:, 0], kept[:, 1]], descending=True)]
    rows, columns = kept.unbind(1)
    return low[rows].sqrt()[:, None] * down[:, rows].T, high[columns].sqrt()[:, None] * across[:, columns].T


def _eigen(length: int, sigma: float) -> tuple[Tensor, Tensor]:
    at = torch.arange(length, dtype=torch.float64)
    gaussian = torch.exp(-0.5 * ((at[:, None] - at[None, :]) / sigma) ** 2)
    values, vectors = torch.linalg.eigh(gaussian)
    return values.clamp_min(0), vectors


def _colour_cells(image: Tensor, dtype: torch.dtype, step: float) -> tuple[Tensor, Tensor]:
    """Colours in cells of the grid along each picture's principal colour axes: [B, 3, P] >= 0, and sizes [B, 3]."""
    colours = image.detach().flatten(2).to(dtype)
    centred = colours - colours.mean(2, keepdim=True)
    _, axes = torch.linalg.eigh((centred @ centred.mT).double() / centred.shape[2])
    cells = axes.flip(2).mT.to(dtype) @ centred / step  # the longest axis first
    cells = cells - cells.amin(2, keepdim=True)
    size = cells.amax(2).to(torch.int64).cpu() + 2
    if int(size.prod(1).max()) > MAX_CELLS:
        msg = f"sigma_rgb={step / STEP:g} needs a colour grid of {size.max(0).values.tolist()} cells"
        raise ConfigError(msg, hint="sigma_rgb=4 or more; 15 is usual")
    return cells, size


def _evening(cells: Tensor) -> Tensor:
    """Factor of each pixel that makes its weight with itself one, [B, P]; about one on the average."""
    level = _blur_matrix(2, cells.dtype, cells.device)
    part = cells - cells.floor()
    return (level[0, 0] - 2 * (level[0, 0] - level[0, 1]) * part * (1 - part)).prod(1).rsqrt()


@lru_cache(maxsize=256)
def _blur_matrix(cells: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaussian along one axis of the grid, narrower than σ by what splat and slice spread (step²/6 each)."""
    sigma = 1 / STEP
    narrow = math.sqrt(sigma**2 - 1 / 3)
    at = torch.arange(cells, dtype=torch.float64)
    gaussian = torch.exp(-0.5 * ((at[:, None] - at[None, :]) / narrow) ** 2)
    return gaussian.to(device=device, dtype=dtype)


def _blur(grid: Tensor) -> Tensor:
    """Blur [..., n0, n1, n2, K] along its three colour axes."""
    n0, n1, n2, _ = grid.shape[-4:]
    first, second, third = (_blur_matrix(n, grid.dtype, grid.device) for n in (n0, n1, n2))
    blurred = (second @ (third @ grid).flatten(-2)).flatten(-2)
    return torch.reshape(first @ blurred, grid.shape)


def _groups(terms: tuple[Tensor, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Terms as [H, LANES] and [W, LANES], a few at a time, which bounds memory where σ_xy is small."""
    from wsoltrain.losses.crf_loops import LANES

    for down, across in zip(*(torch.split(factor, LANES) for factor in terms), strict=True):
        lacking = LANES - len(down)
        yield pad(down.mT, (0, lacking)).contiguous(), pad(across.mT, (0, lacking)).contiguous()


def _filter_compiled(values: Tensor, cells: Tensor, size: Tensor, terms: tuple[Tensor, Tensor]) -> Tensor:
    """One image a thread through the two compiled loops of `wsoltrain.losses.crf_loops`."""
    from wsoltrain.losses.crf_loops import LANES, slice_grid, splat

    _, channels, height, width = values.shape
    pixels = values.permute(0, 2, 3, 1).contiguous().numpy()
    colours = cells.mT.contiguous().view(len(values), height, width, 3).numpy()
    filtered = torch.zeros(len(values), height, width, channels)

    def run(number: int) -> None:
        shape = tuple(size[number].tolist())
        for down, across in _groups(terms):
            grid = torch.zeros(*shape, channels * LANES)
            kinds = down.numpy(), across.numpy(), grid.view(*shape, channels, LANES).numpy()
            splat(pixels[number], colours[number], *kinds)
            blurred = _blur(grid).view(*shape, channels, LANES)
            slice_grid(blurred.numpy(), colours[number], kinds[0], kinds[1], filtered[number].numpy())

    threads = min(torch.get_num_threads(), len(values))
    if threads <= 1:
        for number in range(len(values)):
            run(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, range(len(values))))
    return filtered.permute(0, 3, 1, 2).contiguous()


def _filter_tensors(values: Tensor, cells: Tensor, size: Tensor, terms: tuple[Tensor, Tensor]) -> Tensor:
    """The same in plain tensor operations, the whole batch in one grid; for CUDA and for float64."""
    batch, channels, height, width = values.shape
    n0, n1, n2 = size.max(0).values.tolist()
    low = cells.floor()
    part = cells - low
    strides = torch.tensor([n1 * n2, n2, 1], device=cells.device)
    first = (low.to(torch.int64) * strides[:, None]).sum(1)
    first = first + torch.arange(batch, device=cells.device)[:, None] * (n0 * n1 * n2)
    corners = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    weights = [
        math.prod((part[:, axis] if up else 1 - part[:, axis] for axis, up in enumerate(corner)), start=torch.ones(()))
        for corner in corners
    ]
    places = [first + corner[0] * n1 * n2 + corner[1] * n2 + corner[2] for corner in corners]
    pixels = values.flatten(2).mT  # [B, P, C]
    filtered = torch.zeros_like(pixels)
    for down, across in _groups(terms):
        product = (down[:, None] * across[None]).flatten(0, 1)  # [P, R]
        spread = (pixels[..., None] * product[None, :, None, :]).flatten(2)  # [B, P, C R]
        grid = spread.new_zeros(batch * n0 * n1 * n2, spread.shape[-1])
        for place, weight in zip(places, weights, strict=True):
            grid.index_add_(0, place.flatten(), (spread * weight[..., None]).flatten(0, 1))
        grid = _blur(grid.view(batch, n0, n1, n2, -1)).flatten(0, 3)
        back = torch.zeros_like(spread)
        for place, weight in zip(places, weights, strict=True):
            back += grid[place] * weight[..., None]
        filtered += (back.view(*pixels.shape, -1) * product[None, :, None, :]).sum(-1)
    return filtered.mT.reshape(values.shape)
