"""Losses of background and foreground maps beside the CRF, each with its keys, and the keys of their pseudo-labels.

Labelled pixels, map sizes, a frozen classifier that sees the image under the map, and a colour CRF over frames of a
video. Every one is a mean over rows, or over the labelled pixels of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError, explain_all, unknown
from wsolpipe.keys.kinds import Named
from wsoltrain.data.keys import Keys
from wsoltrain.data.order import Neighbours
from wsoltrain.losses.crf import crf_loss
from wsoltrain.pseudo.samplers import IGNORE, SAMPLERS, Sampler


class PixelKeys(Keys):
    """Keys of the pseudo-labels and of the pixels drawn from them.

    Attributes
    ----------
    **pseudo-labels and drawn pixels**
    maps
        Stage whose maps are the pseudo-labels
    boxes
        Stage whose boxes say where foreground is drawn; null for a sampler that needs none
    maps_normalised
        Where maps span 0..1: over the whole image, from which crops are cut, or over each crop, as where the authors
        make maps of the crop itself
    sampler
        How pixels are drawn: dips (in one of the boxes), dips_released (as its code), trcam (in an Otsu region), fcam
        (in the eroded Otsu region), tedloc (on the grid of patches)
    pixels
        Keys of the sampler, such as pixels.n_fg and pixels.n_bg (pixels drawn), pixels.fg_share and pixels.bg_share
        (shares that are candidates, 0..1); pixels.draw=once draws the labels of an image once for all epochs
    drawn
        Stage of boxes that people drew, STAGE or STAGE:KEY, such as human_boxes: rows that somebody looked at are
        learned from those, all others from maps and boxes; null: from these alone
    drawn_weight
        Weight of the pixels of such a row beside 1 of a row of pseudo-labels
    pixel_weight
        Weight of the loss of labelled pixels (DiPS: lambda_1, lambda_CPA)
    """

    maps: str = "cls_maps"
    boxes: str | None = "proposals"
    maps_normalised: Literal["image", "crop"] = "image"
    sampler: Annotated[str, Named(SAMPLERS)] = "dips"
    pixels: dict[str, Any] = {}
    drawn: str | None = None
    drawn_weight: float = Field(1.0, ge=0, le=1e6)
    pixel_weight: float = Field(1.0, ge=0)

    def pixel_sampler(self) -> Sampler:
        """Return the sampler of `sampler` and `pixels`.

        Raises
        ------
        ConfigError
            If there is no such sampler, or `pixels` holds a key or a value that it does not take.
        """
        kind = SAMPLERS.find(self.sampler)
        known = [f"pixels.{name}" for name in kind.model_fields]
        for name in self.pixels:
            if f"pixels.{name}" not in known:
                raise ConfigError(unknown(f"key of sampler {self.sampler}", f"pixels.{name}", known))
        try:
            return kind.model_validate(self.pixels)
        except ValidationError as error:
            msg = f"sampler {self.sampler}: {explain_all(error, values=True, prefix='pixels.')}"
            raise ConfigError(
                msg, hint="counts are whole numbers, shares lie in 0..1, sides of squares are odd"
            ) from error

    def check(self) -> None:
        """Refuse keys and values that the sampler does not take."""
        super().check()
        self.pixel_sampler()


def partial_cross_entropy(
    logits: Tensor, labels: Tensor, *, labelled: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the labelled pixels, mean over them; exactly 0, with a zero gradient, where there are none.

    Parameters
    ----------
    logits : float Tensor [B, C, H, W]
        Unnormalised scores.
    labels : int64 Tensor [B, H, W]
        Class of each pixel, `wsoltrain.pseudo.samplers.IGNORE` where it is unknown.
    labelled : Tensor, scalar, optional
        Number to divide by; the labelled pixels of this batch by default. Several processes pass the number of all of
        them over the number of processes, so that averaged gradients are those of one process.
    weights : float Tensor [B], optional
        Factor on the loss of each image's pixels; the number to divide by stays.
    """
    if weights is None:
        total = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    else:
        each = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten(1).sum(1)
        total = (weights * each).sum()
    count = (labels != IGNORE).sum() if labelled is None else labelled
    return total / count.clamp_min(1e-6 if labelled is not None else 1)


class SizeKeys(Keys):
    """Keys of the size losses.

    Attributes
    ----------
    **losses**
    size_weight
        Weight of the absolute size loss of both sides (TrCAM-V: lambda_ASL, 0.01 to 0.05); 0: off
    larger_weight
        Weight of the loss of a foreground larger than the background; 0: off
    """

    size_weight: float = Field(0.0, ge=0)
    larger_weight: float = Field(0.0, ge=0)


def barrier(constraint: Tensor, t: float) -> Tensor:
    """Extended log barrier of ``constraint <= 0``, elementwise (Kervadec et al. 2019).

    ``-log(-f) / t`` up to ``f = -1/t²``, then its tangent ``t f - log(1/t²) / t + 1/t``.
    """
    edge = -1.0 / t**2
    inside = -torch.log(-constraint.clamp_max(edge)) / t
    outside = t * constraint - torch.log(constraint.new_tensor(1.0 / t**2)) / t + 1.0 / t
    return torch.where(constraint <= edge, inside, outside)


def barrier_t(epoch: int, *, initial: float = 1.0, factor: float = 1.01, cap: float = 10.0) -> float:
    """Return the steepness of `barrier` in an epoch: ``initial * factor**epoch``, at most `cap`."""
    return min(cap, initial * factor**epoch)


def absolute_size(prob: Tensor, t: float) -> Tensor:
    """Push both background and foreground to be as large as the rest of the loss lets them (TrCAM-V).

    Mean over both channels and the batch of the barrier of ``-area``, area in pixels.

    Parameters
    ----------
    prob : float Tensor [B, 2, H, W]
        Background and foreground, in 0..1.
    t : float
        `barrier_t`.
    """
    return barrier(-prob.sum((2, 3)), t).mean()


def background_larger(prob: Tensor, t: float) -> Tensor:
    """Barrier of ``foreground area - background area <= 0``, mean over the batch."""
    areas = prob.sum((2, 3))
    return barrier(areas[:, 1] - areas[:, 0], t).mean()


class MaskedClassificationKeys(Keys):
    """Keys of the classification loss on masked images.

    Attributes
    ----------
    **losses**
    cls_weight
        Weight of the frozen classifier's loss on the masked image (DiPS workshop: lambda_CLS); 0: off
    cls_detached
        Mask by the pseudo-label, as the released code does: nothing is learned of it, so it is left out
    classifier
        File model.safetensors of a stage classifier; null: the store's newest classifier
    """

    cls_weight: float = Field(0.0, ge=0)
    cls_detached: bool = False
    classifier: str | None = None


def masked_classification(classifier: Callable[[Tensor], Tensor], image: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of a frozen classifier that sees the image times a mask (DiPS workshop, L_CLS).

    Parameters
    ----------
    classifier : callable
        Images [B, 3, H, W] -> logits [B, classes]; its parameters should not require gradients.
    image : float Tensor [B, 3, H, W]
        Network input.
    mask : float Tensor [B, H, W]
        Foreground, in 0..1: the localizer's own, through which the gradient flows.
    label : int64 Tensor [B]
        True classes.
    """
    return cross_entropy(classifier(image * mask[:, None]), label)


class WindowKeys(Keys):
    """Keys of TCAM's temporal window.

    Attributes
    ----------
    **frames of video**
    window
        Frames of the shot whose maps are taken with a frame's own, at each place the greatest (TCAM)
    window_frames
        Frames of the window on each side (TCAM: n)
    heat
        h of TCAM: maps of a window become exp(h map) over their greatest value; 0: as they are
    joint_crf_weight
        Weight of a CRF loss of a frame and its window side by side, by colour alone (TCAM); 0: off
    """

    window: Literal["none", "before", "after", "both"] = "none"
    window_frames: int = Field(1, ge=1, le=1000)
    heat: float = Field(0.0, ge=0)
    joint_crf_weight: float = Field(0.0, ge=0)

    def check(self) -> None:
        """Refuse keys of a window of frames without such a window."""
        super().check()
        if self.window == "none" and (self.heat or self.joint_crf_weight):
            msg = "heat and joint_crf_weight are of a window of frames, and window=none"
            raise ConfigError(msg, hint="window=both, or leave them out")

    def neighbours(self) -> Neighbours:
        """Frames beside each one that the stream reads."""
        before, after = (self.window_frames if self.window in (side, "both") else 0 for side in ("before", "after"))
        return Neighbours(before, after, self.heat, images=bool(self.joint_crf_weight))


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
