"""CLIP: texts and patches in one space, and what lies between them.

Any CLIP of open_clip whose vision tower is a transformer with a class token: OpenAI's and open_clip's ViTs, EVA02-CLIP.
Only the last block ever needs a gradient for a class activation map (Lin et al., "CLIP is also an efficient segmenter",
CVPR 2023), so the network is open there: `Clip.reach` runs everything before it, `Clip.last` is the block itself, and
`Clip.embed` leads from its tokens to the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from wsolpipe.models.clip_texts import ClipTexts, load_network
from wsolpipe.models.clip_tower import Block, Tower, open_tower

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsolpipe.models.clip_config import ClipConfig
    from wsolpipe.networks.positions import Positions
    from wsolpipe.networks.sources import Triple, Weights


@dataclass(frozen=True)
class Reached:
    """Where the last block begins.

    Attributes
    ----------
    tokens : float tensor [B, P + hw, C]
        What enters the last block; P prefix tokens (the class token first), then patches row by row.
    rope : float tensor or None
        Rotary embedding of the grid, where the network has one.
    grid : (h, w)
    attention : float tensor [B, P + hw, P + hw] or None
        Attention of the blocks asked for, averaged over heads and *summed* over blocks.
    blocks : int
        How many blocks it is summed over.
    """

    tokens: Tensor
    rope: Tensor | None
    grid: tuple[int, int]
    attention: Tensor | None
    blocks: int


class Clip(ClipTexts):
    """A loaded CLIP, frozen, in evaluation mode; see `load_clip`. Beside its texts:

    Attributes
    ----------
    tower : Tower
        Access to the parts of its vision tower.
    mean, std : three floats
        Of the input on the scale 0..1.
    """

    def __init__(self, model: nn.Module, config: ClipConfig, *, positions: Positions = "bilinear") -> None:
        super().__init__(model, config)
        self.mean: Triple = config.mean
        self.std: Triple = config.std
        self.tower: Tower = open_tower(self.model.visual, config.name, positions)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.tower.patch

    @property
    def size(self) -> int:
        """Longer side of the images of training, in pixels."""
        return max(self.tower.size)

    @property
    def last(self) -> Block:
        """The last block."""
        return self.tower.blocks[-1]

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Input of the network, float [B, 3, H, W] on its device, from uint8 [B, H, W, 3]."""
        kind = {"device": self.device, "dtype": self.model.logit_scale.dtype}
        mean, std = (torch.tensor(values, **kind).view(3, 1, 1) * 255 for values in (self.mean, self.std))
        return (torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).to(mean.dtype) - mean) / std

    @torch.no_grad()
    def reach(self, images: Tensor, *, attention: int = 0) -> Reached:
        """Run every block but the last, without gradient.

        Parameters
        ----------
        images : float tensor [B, 3, H, W]
            Normalised; sides are multiples of the patch, and need be neither square nor those of training.
        attention : int
            Of how many blocks, counted from the end and the last one included, attention is wanted. The last block's
            own is not in the sum: it is not run here.
        """
        tokens, rope = self.tower.tokens(images)
        before = self.tower.blocks[:-1]
        first = max(0, len(before) + 1 - attention)
        seen: Tensor | None = None
        for number, block in enumerate(before):
            if number < first:
                tokens = block.whole(tokens, rope)
                continue
            tokens, own = block.after_joint(tokens, block.joint(block.norm(tokens)), rope)
            seen = own if seen is None else seen.add_(own)
        return Reached(tokens, rope, self.tower.grid(images), seen, max(0, len(before) - first))

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [..., C] after the last block -> joint space [..., D], token by token; not of unit length."""
        return self.tower.embed(tokens)

    def patches(self, tokens: Tensor) -> Tensor:
        """The patch tokens [B, hw, C] among all."""
        return tokens[:, self.tower.prefix :]


def load_clip(
    model: str | None,
    weights: Weights,
    *,
    device: str = "cpu",
    quick_gelu: bool | None = None,
    positions: Positions = "bilinear",
) -> Clip:
    """Load a CLIP.

    Parameters
    ----------
    model : str or None
        open_clip's name, the path of a JSON configuration, or None for what the tensors of a file of OpenAI's kind say.
    weights : Weights
        See `wsolpipe.models.weight_sources.resolve`; ``open_clip:MODEL/TAG``, a file in a layout of
        `wsolpipe.models.clip_files`, or ``random:SEED``.
    device : str
    quick_gelu : bool, optional
        Overrules what layout, tag or name say.
    positions : "bilinear", "timm" or "dino"
        How position embeddings are stretched to a grid other than that of training: as CLIP-ES, open_clip or SCLIP do.

    Raises
    ------
    ConfigError
        If there is no such model, or its vision tower is not a transformer with a class token and plain attention.
    WeightsError
        If the file cannot be read or does not fit; names missing, unexpected and misshapen keys.
    """
    built, config = load_network(model, weights, quick_gelu=quick_gelu)
    return Clip(built.to(device), config, positions=positions)


def vanilla_patches(clip: Clip, reached: Reached) -> Tensor:
    """Patch tokens of CLIP as it was trained (Radford et al., ICML 2021), float [B, hw, D], not of unit length."""
    return clip.embed(clip.patches(clip.last.whole(reached.tokens, reached.rope)))


def sclip_patches(clip: Clip, reached: Reached) -> Tensor:
    """Patches by correlative self-attention (Wang, Mei and Yuille, "SCLIP", ECCV 2024, equation 3), [B, hw, D].

    A patch gathers from those whose query is like its own, and from those whose key is like its own. The two softmaxes
    are added, not averaged, as the paper and its code have it.
    """
    block = clip.last
    query, key, value = block.heads(block.joint(block.norm(reached.tokens)), reached.rope)
    weights = block.attention(query, query) + block.attention(key, key)
    return clip.embed(clip.patches(block.finish(reached.tokens, block.merge(weights @ value))))


def naclip_patches(clip: Clip, reached: Reached, *, sigma: float = 5.0) -> Tensor:
    """Patches by neighbourhood-aware attention (Hajimiri et al., "Pay attention to your neighbours", WACV 2025).

    Attention of keys and neighbourhood alone, without residual and MLP: the paper's reduced architecture.

    Parameters
    ----------
    sigma : float
        Deviation of the Gaussian, in patches; the paper's is 5.

    Returns
    -------
    float tensor [B, hw, D]
        Not of unit length.
    """
    block, prefix = clip.last, clip.tower.prefix
    _, key, value = block.heads(block.joint(block.norm(reached.tokens)), reached.rope)
    scores = (key * block.scale) @ key.transpose(-2, -1)
    scores[..., prefix:, prefix:] += neighbourhood(reached.grid, sigma).to(scores)
    return clip.embed(clip.patches(block.merge(scores.softmax(dim=-1) @ value)))


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
