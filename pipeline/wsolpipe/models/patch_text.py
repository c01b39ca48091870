"""Patches in the space of texts: CLIP as it is, SCLIP, and NACLIP, which change the attention of the last block.

Each class takes what enters the last block of the vision tower and gives one vector a patch; the map of a class is the
cosine of these with the class's text. With C, q, k, v of the last block and d the width of a head:

- `VanillaPatches`: softmax(q·kᵀ/√d)·v, the block as it was trained;
- `SclipPatches`: (softmax(q·qᵀ/√d) + softmax(k·kᵀ/√d))·v, then the residuals and the MLP as they are;
- `NaclipPatches`: softmax(k·kᵀ/√d + ω)·v and nothing more: no residual, no MLP; ω is a Gaussian of the distance between
  two patches, zero where the class token takes part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import normalize

if TYPE_CHECKING:
    from torch import Tensor

    from wsolpipe.models.clip import Clip, Reached


class Patches(Protocol):
    """One way from the tokens that enter the last block to patches in the joint space."""

    def __call__(self, reached: Reached) -> Tensor:
        """Embed patches, float tensor [B, hw, D], not of unit length."""


class VanillaPatches:
    """Patch tokens of CLIP as it was trained (Radford et al., ICML 2021).

    Parameters
    ----------
    clip : Clip
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def __call__(self, reached: Reached) -> Tensor:
        """Run the last block as it is."""
        tokens = self.clip.last.whole(reached.tokens, reached.rope)
        return self.clip.embed(self.clip.patches(tokens))


class SclipPatches:
    """Correlative self-attention (Wang, Mei and Yuille, "SCLIP", ECCV 2024, equation 3).

    A patch gathers from those whose query is like its own, and from those whose key is like its own. The two softmaxes
    are added, not averaged, as the paper and its code have it.

    Parameters
    ----------
    clip : Clip
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def __call__(self, reached: Reached) -> Tensor:
        """Run the last block with the other attention."""
        block = self.clip.last
        query, key, value = block.heads(block.joint(block.norm(reached.tokens)), reached.rope)
        weights = block.attention(query, query) + block.attention(key, key)
        tokens = block.finish(reached.tokens, block.merge(weights @ value))
        return self.clip.embed(self.clip.patches(tokens))


class NaclipPatches:
    """Neighbourhood-aware attention (Hajimiri, Ben Ayed and Dolz, "Pay attention to your neighbours", WACV 2025).

    Parameters
    ----------
    clip : Clip
    sigma : float
        Deviation of the Gaussian, in patches; the paper's is 5.
    """

    def __init__(self, clip: Clip, *, sigma: float = 5.0) -> None:
        self.clip, self.sigma = clip, sigma

    def __call__(self, reached: Reached) -> Tensor:
        """Attention of keys and neighbourhood alone, without residual and MLP (the paper's reduced architecture)."""
        block, prefix = self.clip.last, self.clip.tower.prefix
        _, key, value = block.heads(block.joint(block.norm(reached.tokens)), reached.rope)
        scores = (key * block.scale) @ key.transpose(-2, -1)
        near = neighbourhood(reached.grid, self.sigma).to(scores)
        scores[..., prefix:, prefix:] += near
        return self.clip.embed(self.clip.patches(block.merge(scores.softmax(dim=-1) @ value)))


def neighbourhood(grid: tuple[int, int], sigma: float) -> Tensor:
    """Gaussian of the distance between any two patches, one at zero distance.

    Parameters
    ----------
    grid : (h, w)
    sigma : float
        In patches.

    Returns
    -------
    float64 tensor [hw, hw]
        ``exp(-|a - b|² / 2σ²)``, patches row by row.
    """
    rows, columns = (torch.arange(count, dtype=torch.float64) for count in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)
    return (-(places[:, None] - places[None]).square().sum(dim=-1) / (2 * sigma**2)).exp()


def text_maps(patches: Tensor, texts: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cosines of patches and texts, as maps.

    Parameters
    ----------
    patches : float tensor [B, hw, D]
        Of any length but zero; a zero vector gives NaN.
    texts : float tensor [B, T, D]
        Unit vectors, T for each image.
    grid : (h, w)

    Returns
    -------
    float32 tensor [B, T, h, w]
        In [-1, 1].
    """
    lengths = patches.norm(dim=-1, keepdim=True)
    maps = torch.einsum("bpd,btd->btp", patches / lengths, texts)
    return maps.reshape(*maps.shape[:2], *grid).float()


def image_vectors(clip: Clip, reached: Reached) -> Tensor:
    """CLIP's own embedding of each image, the class token after the last block as it was trained.

    Returns
    -------
    float tensor [B, D]
        Unit vectors.
    """
    tokens = clip.last.whole(reached.tokens, reached.rope)
    return normalize(clip.embed(tokens[:, :1])[:, 0], dim=-1)
