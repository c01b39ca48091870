"""Class activation maps of a CLIP, batched: everything before the last block once, its gradient for all classes.

Softmax-GradCAM of CLIP-ES (Lin et al., CVPR 2023, section 3.1): logits that compete, and maps from the gradient. What
is small is done in float64, whatever comes in: the gradient of a probability near 1 and the sum over channels are small
differences of large numbers, and both cost next to nothing beside a block of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import normalize

from wsolpipe.maps.foreground import tight_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from wsolpipe.models.clip import Clip


#: Of the denominator of min-max, as the authors have it.
EPSILON = 1e-7
#: A map whose span is a smaller share of its highest value holds only rounding errors: it counts as flat.
FLAT = 1e-5


def compete(features: Tensor, background: Tensor, names: Tensor, present: Tensor, *, scale: float) -> Tensor:
    """Logits of an image against background words and the classes that are present in it.

    Parameters
    ----------
    features : float tensor [B, D]
        Of the images, of any length.
    background : float tensor [M, D]
        Unit vectors of the background words; M may be 0.
    names : float tensor [B, P, D]
        Unit vectors of the classes that are present, padded at will.
    present : bool tensor [B, P]
        Which of them are there.
    scale : float
        Factor of cosines.

    Returns
    -------
    float64 tensor [B, M + P]
        Background first; -inf where a class is padding.
    """
    unit = normalize(features.double(), dim=-1)
    classes = (names.double() @ unit[:, :, None])[..., 0].masked_fill(~present, -torch.inf)
    return scale * torch.cat([unit @ background.double().T, classes], dim=1)


def target_scores(logits: Tensor, names: int, targets: int, *, softmax: bool) -> Tensor:
    """Scores whose gradients make the maps: of the first `targets` of the `names` classes at the end of `logits`.

    Parameters
    ----------
    logits : float tensor [B, M + names]
    names, targets : int
    softmax : bool
        Probabilities among all of `logits`, or the logits themselves.

    Returns
    -------
    float tensor [B, targets]
    """
    scores = logits.softmax(dim=1) if softmax else logits
    first = logits.shape[1] - names
    return scores[:, first : first + targets]


def class_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Grad-CAM of patch tokens: features weighted by the spatial mean of their gradient, summed, cut at 0.

    Parameters
    ----------
    features : float tensor [B, N, C]
    weights : float64 tensor [B, T, C]
        Mean over the patches of the gradient of each class.

    Returns
    -------
    float64 tensor [B, T, N]
    """
    return (weights @ features.double().mT).relu()


def _stretch(maps: Tensor, *, times: int = 2) -> Tensor:
    """Min-max over the last axis, as the authors have it: with 1e-7 in the denominator; flat maps become 0.

    Parameters
    ----------
    maps : float tensor [..., N]
        Not negative.
    times : int
        How often: the authors' code does it twice with a class activation map, once with a refined one.

    Returns
    -------
    float tensor [..., N]
        In [0, 1]. A map that is constant (up to `FLAT`) becomes 0. NaN stays NaN.
    """
    low, high = maps.amin(dim=-1, keepdim=True), maps.amax(dim=-1, keepdim=True)
    flat = high - low <= FLAT * high.abs()
    stretched = (maps - low) / (high - low + EPSILON)
    for _ in range(times - 1):  # the lowest is 0 now: only the height changes
        stretched = stretched / (stretched.amax(dim=-1, keepdim=True) + EPSILON)
    return stretched.masked_fill(flat, 0)


@dataclass(frozen=True)
class _Opened:
    """One batch of images, with the graph from the last block's attention on.

    Attributes
    ----------
    normed : float tensor [B, P + hw, C]
        Output of the last block's first layer norm.
    joint : float tensor [B, P + hw, 3C]
        q, k and v made of it, where the graph begins: see `ClipCam.maps`.
    pooled : float tensor [B, D]
        Mean of the patch tokens after the final norm, projected: what the maps explain.
    image : float tensor [B, D]
        The class token, projected: CLIP's own embedding of the image, without graph.
    attention : float tensor [B, hw, hw] or None
        Sum over the last blocks of the attention of patches to patches, averaged over heads.
    grid : (h, w)
    """

    normed: Tensor
    joint: Tensor
    pooled: Tensor
    image: Tensor
    attention: Tensor | None
    grid: tuple[int, int]


class ClipCam:
    """CLIP-ES maps of batches.

    Parameters
    ----------
    clip : Clip
    background : float tensor [M, D]
        Unit vectors of the background words; M may be 0.
    softmax : bool
        Explain the probability among present classes and background, or the class's own logit.
    temperature : float
        Divides the logits.
    attention_blocks : int
        Blocks, from the end, whose attention makes the affinity; 0 for maps that are not refined.
    threshold : float
        Of the boxes of the affinity, as a share of the map's highest level.
    """

    def __init__(
        self,
        clip: Clip,
        background: Tensor,
        *,
        softmax: bool = True,
        temperature: float = 1.0,
        attention_blocks: int = 8,
        threshold: float = 0.4,
    ) -> None:
        self.clip, self.background, self.softmax = clip, background, softmax
        self.scale = clip.logit_scale / temperature
        self.attention_blocks, self.threshold = attention_blocks, threshold

    def open(self, images: Tensor) -> _Opened:
        """Run the network, with a graph in the last block only.

        Parameters
        ----------
        images : float tensor [B, 3, H, W]
            Normalised; sides are multiples of the patch.
        """
        clip = self.clip
        reached = clip.reach(images, attention=self.attention_blocks)
        with torch.no_grad():
            normed = clip.last.norm(reached.tokens)
            joint = clip.last.joint(normed)
        joint.requires_grad_()
        with torch.enable_grad():
            tokens, own = clip.last.after_joint(reached.tokens, joint, reached.rope)
            pooled = clip.tower.embed_mean(clip.patches(tokens))
        attention = None
        if self.attention_blocks:
            attention = own if reached.attention is None else reached.attention.add_(own)
            attention = attention[:, clip.tower.prefix :, clip.tower.prefix :]
        with torch.no_grad():
            image = clip.embed(tokens[:, :1].detach())[:, 0]
        return _Opened(normed, joint, pooled, image, attention, reached.grid)

    def maps(self, opened: _Opened, names: Tensor, present: Tensor, targets: int) -> Tensor:
        """Maps of the first `targets` of the present classes, min-max, not refined.

        A map is weighted by the mean over patches of the gradient at the layer norm. All that comes of that norm is one
        linear layer, so the mean is taken behind it and sent through its weight once an image, not once a patch.

        Parameters
        ----------
        opened : Opened
            Its graph is freed.
        names : float tensor [B, P, D]
            Unit vectors of the present classes, those with a map first.
        present : bool tensor [B, P]
            False where a row has fewer.
        targets : int
            T, at most P.

        Returns
        -------
        float64 tensor [B, T, hw]
            In [0, 1].
        """
        with torch.enable_grad():
            logits = compete(opened.pooled, self.background, names, present, scale=self.scale)
            scores = target_scores(logits, names.shape[1], targets, softmax=self.softmax)
        gradients = _gradients(scores, opened.joint)
        with torch.no_grad():
            behind = gradients[:, :, self.clip.tower.prefix :].mean(dim=2, dtype=torch.float64)
            weights = behind @ self.clip.last.weight.double()
            return _stretch(class_maps(self.clip.patches(opened.normed), weights))

    @torch.no_grad()
    def refined(self, opened: _Opened, maps: Tensor) -> Tensor:
        """Maps [B, T, hw] spread by the attention between patches, min-max once more."""
        assert opened.attention is not None
        on_grid = maps.reshape(*maps.shape[:2], *opened.grid)
        masks = torch.from_numpy(box_masks(on_grid.cpu().numpy(), self.threshold)).to(maps.device)
        return _stretch(refine(maps, opened.attention, masks.reshape(maps.shape)), times=1)


def _gradients(scores: Tensor, at: Tensor) -> Tensor:
    """d scores[:, t] / d at for every t, [B, T, *at.shape[1:]]; images do not mix."""
    count = scores.shape[1]
    if count == 1:
        (only,) = torch.autograd.grad(scores.sum(), at)
        return only[:, None]
    chosen = torch.eye(count, dtype=scores.dtype, device=scores.device)[:, None].expand(-1, len(scores), -1)
    (found,) = torch.autograd.grad(scores, at, chosen, is_grads_batched=True)
    return found.movedim(0, 1)


def balance(attention: Tensor, rounds: int = 3) -> tuple[Tensor, Tensor]:
    """Factors of rows and columns after dividing by column sums, then by row sums, `rounds` times.

    Parameters
    ----------
    attention : float tensor [B, N, N]
        Positive.
    rounds : int
        Pairs of divisions.

    Returns
    -------
    rows, columns : float tensor [B, N, 1]
        ``rows * attention * columns.mT`` is the divided matrix; its rows sum to one. Not finite where a sum is 0.
    """
    rows = columns = torch.ones_like(attention[..., :1])
    for _ in range(rounds):
        columns = 1 / (attention.mT @ rows)
        rows = 1 / (attention @ columns)
    return rows, columns


def spread(values: Tensor, attention: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Product of the symmetrised matrix (W + Wᵀ) / 2 with vectors.

    Parameters
    ----------
    values : float tensor [B, N, T]
    attention : float tensor [B, N, N]
    rows, columns : float tensor [B, N, 1]
        As `balance` returns them.

    Returns
    -------
    float tensor [B, N, T]
    """
    return (rows * (attention @ (columns * values)) + columns * (attention.mT @ (rows * values))) / 2


def refine(maps: Tensor, attention: Tensor, masks: Tensor) -> Tensor:
    """Maps refined by the squared affinity inside their masks.

    Parameters
    ----------
    maps : float tensor [B, T, N]
        Class activation maps of N patches.
    attention : float tensor [B, N, N]
        Mean attention of patches to patches; scale does not matter.
    masks : float tensor [B, T, N]
        Columns that count: see `box_masks`.

    Returns
    -------
    float64 tensor [B, T, N]
        Not normalised.
    """
    attention = attention.double()
    rows, columns = balance(attention)
    values = (maps * masks).double().mT
    for _ in range(2):
        values = spread(values, attention, rows, columns)
    return values.mT


def box_masks(maps: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    """Boxes around the high regions of maps.

    As the authors' code has it: the map is cut to 256 levels; what is above ``threshold`` times the highest level is
    foreground; each 8-connected region gives its tight box, whose far edges are held at one less than the map's size:
    the last row and the last column are in no box.

    Parameters
    ----------
    maps : float array [..., h, w]
        In [0, 1].
    threshold : float
        Share of the highest level; 0.4 for VOC, 0.7 for COCO.

    Returns
    -------
    bool array [..., h, w]
        The union of the boxes; empty where the map is 0 or not finite.
    """
    height, width = maps.shape[-2:]
    levels = (np.nan_to_num(maps).reshape(-1, height, width) * 255).astype(np.uint8)
    masks = np.zeros(levels.shape, np.bool_)
    for mask, level in zip(masks, levels, strict=True):
        boxes, _ = tight_boxes(level > int(threshold * int(level.max())))
        for x0, y0, x1, y1 in boxes.astype(np.intp):
            mask[y0 : min(y1, height - 1), x0 : min(x1, width - 1)] = True
    return masks.reshape(maps.shape)
