"""TS-CAM, SCM and MOLT: vision transformers trained by the mean class scores of their patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize, tanhshrink

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.vit import block_numbers, require_tiling
from wsoltrain.data.views import scaled_to_unit
from wsoltrain.methods.base import Batch, Losses, Method, Phase, Prediction, Task, Weighted, map_of_class
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.token_maps import TokenMaps, build_token_network, read_token_maps

K = TypeVar("K", bound=BackboneKeys)
#: Parameters without weight decay beside biases and vectors (``no_weight_decay`` of the released networks).
SPARED = ("pos_embed", "cls_token")


def decayed(*nets: nn.Module, spared: Sequence[str] = ()) -> list[Weighted]:
    """All parameters of networks, weight decay on matrices alone: not on biases, vectors and the names in `spared`."""
    from timm.optim import param_groups_weight_decay

    found = [each for net in nets for each in param_groups_weight_decay(net, 1.0, no_weight_decay_list=spared)]
    shares = {
        share: [each for group in found if group["weight_decay"] == share for each in group["params"]]
        for share in (1.0, 0.0)
    }
    return [Weighted(parameters, weight_decay=share) for share, parameters in shares.items()]


class TokenMethod(Method[K]):
    """A vision transformer trained by the mean class scores of its patch tokens."""

    def __init__(self, keys: K, task: Task) -> None:
        super().__init__(keys, task)
        self.net = build_token_network(keys, size=task.size, classes=task.classes, add=self.add_parts)

    def add_parts(self, net: object) -> None:
        """Give the network parts that the published checkpoints hold beside those of TS-CAM; none by default."""

    def phases(self) -> list[Phase]:
        """Return one phase; biases, vectors, position embeddings and the class token are not decayed."""
        return [Phase("train", decayed(self.net, spared=SPARED))]

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes."""
        del phase, epoch
        with self.task.autocast():
            scores = self.train_scores(batch["image"])
        self.task.lap("forward")
        return Losses({"classes": cross_entropy(scores.float(), batch["label"])})

    def train_scores(self, image: Tensor) -> Tensor:
        """Class logits [B, C] of normalised images [B, 3, S, S] in training."""
        return read_token_maps(self.net, image, attention=False).scores


class TsCamKeys(BackboneKeys):
    """Keys of TS-CAM.

    Attributes
    ----------
    blocks
        Blocks whose attention the map sums: a number from 0 (negative: from the end), a list, or a range such as 8-11;
        null: all, as published
    """

    blocks: int | str | tuple[int, ...] | None = None


class TsCam(TokenMethod[TsCamKeys]):
    """TS-CAM (Gao et al., ICCV 2021): a transformer trained by mean class scores of patches; its maps add attention.

    "Token semantic coupled attention map". A convolution classifies patch tokens, and their mean scores are trained.
    The map of a class is its score map times the class token's attention to each patch, averaged over heads and summed
    over all blocks.
    """

    def __init__(self, keys: TsCamKeys, task: Task) -> None:
        super().__init__(keys, task)
        if keys.blocks is not None:
            block_numbers(keys.blocks, len(self.net.blocks))  # refused before anything is trained

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the class's score map times attention, and class logits."""
        maps = read_token_maps(self.net, image, attention=True, blocks=self.keys.blocks)
        assert maps.attention is not None  # noqa: S101 - asked for
        scores = maps.scores
        return Prediction(map_of_class(maps.classes, labels, scores) * maps.attention, False, scores)


#: Factor of the transposed matrix, where the iteration begins.
FIRST_STEP = 0.002


def grid_laplacian(rows: int, columns: int) -> Tensor:
    """Degrees minus adjacency of a grid's cells, row by row, each joined to 4 neighbours: float32 [N, N]."""
    cells = torch.arange(rows * columns).view(rows, columns)
    adjacent = torch.zeros(rows * columns, rows * columns)
    for first, second in ((cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:])):
        adjacent[first.flatten(), second.flatten()] = 1
    adjacent = adjacent + adjacent.T
    return torch.diag(adjacent.sum(0)) - adjacent


def newton_schulz(matrices: Tensor, steps: int) -> Tensor:
    """Truncated Newton-Schulz iteration Y <- Y (2 I - X Y) towards the inverse of X, from 0.002 X^T.

    Parameters
    ----------
    matrices : float32 Tensor [B, N, N]
        X. No gradient flows through the beginning, as in the released code.
    steps : int
        Of the iteration.

    Returns
    -------
    float32 Tensor [B, N, N]
    """
    inverse = FIRST_STEP * matrices.detach().mT
    for _ in range(steps):
        inverse = 2 * inverse - inverse @ (matrices @ inverse)
    return inverse


class Fuse(nn.Module):
    """The matrix that spreads a map; `_loss_rate` is the weight of similarity, by the name of published checkpoints.

    Parameters
    ----------
    grid : two ints
        Rows and columns of cells.
    steps : int
        Of `newton_schulz`.
    """

    laplacian: Tensor

    def __init__(self, grid: tuple[int, int], steps: int) -> None:
        super().__init__()
        self.steps = steps
        self._loss_rate = nn.Parameter(torch.ones(1))
        self.register_buffer("laplacian", grid_laplacian(*grid), persistent=False)

    def forward(self, similarity: Tensor) -> Tensor:
        """Return the matrix [B, N, N] for the similarity of cells [B, N, N]."""
        return newton_schulz(self.laplacian * (self._loss_rate * similarity - 1), self.steps).mT


class Calibration(nn.Module):
    """One block: class maps and a map of attention, both drawn towards regions of like cells.

    Parameters
    ----------
    grid : two ints
        Rows and columns of cells.
    steps : int
        Of `newton_schulz`.
    """

    def __init__(self, grid: tuple[int, int], steps: int) -> None:
        super().__init__()
        self.fuse = Fuse(grid, steps)
        self.thred = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, classes: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Return both after the block.

        Parameters
        ----------
        classes : float32 Tensor [B, C, h, w]
            Class scores of cells.
        attention : float32 Tensor [B, h, w]
            Not negative, its highest value above 0.
        """
        cells = normalize(classes.flatten(2), dim=1)
        spread = self.fuse(cells.mT @ cells) @ attention.flatten(1)[..., None]  # [B, N, 1]
        threshold = self.thred * attention.amax((1, 2))
        spread = scaled_to_unit(tanhshrink(spread.view_as(attention) / threshold[:, None, None]))
        return classes + classes * spread[:, None], attention + spread


class ScmKeys(BackboneKeys):
    """Keys of SCM.

    Attributes
    ----------
    iterations
        Newton-Schulz steps in training, one number for each calibration block (as released)
    """

    iterations: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field((16, 4, 4, 4), min_length=1)


class Scm(TokenMethod[ScmKeys]):
    """SCM (Bai et al., ECCV 2022): TS-CAM trained through blocks that spread its maps over regions of like cells.

    "… via transformer with implicit spatial calibration". The blocks spread class maps and attention; the network
    learns what they would do, and prediction goes without them. A block spreads maps along the grid where neighbouring
    cells agree on their classes. The similarity of cells and the graph of neighbours make a matrix X; a few steps of
    Newton-Schulz towards its inverse filter the map. They are not replaced by an exact solve: X may be singular, and n
    steps are the filter s -> (1 - (1 - 0.002 s^2)^(2^n)) / s of its singular values, which is what was published.
    """

    def add_parts(self, net: Any) -> None:
        """Add the blocks, by the names of published checkpoints."""
        rows, columns = net.patch_embed.grid_size
        if rows != columns:
            msg = f"backbone={self.keys.backbone} has a grid of {rows} x {columns} patches, and SCM needs a square one"
            raise ConfigError(msg, hint="a backbone with square patches, or method=ts_cam")
        net.layers = nn.ModuleList(Calibration((rows, columns), steps) for steps in self.keys.iterations)

    def train_scores(self, image: Tensor) -> Tensor:
        """Class logits [B, C] after the blocks."""
        maps = read_token_maps(self.net, image, attention=True)
        with torch.autocast(image.device.type, enabled=False):  # each step of the iteration squares what rounding left
            classes, attention = maps.classes.float(), unit_attention(maps)
            for layer in self.net.layers:
                classes, attention = layer(classes, attention)
            return classes.mean((2, 3))

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the class's score map times attention in 0..1, both without the blocks, and class logits."""
        maps = read_token_maps(self.net, image, attention=True)
        scores = maps.scores
        return Prediction(map_of_class(maps.classes, labels, scores) * unit_attention(maps), False, scores)


def unit_attention(maps: TokenMaps) -> Tensor:
    """Attention [B, h, w], each map between its own lowest and highest value."""
    assert maps.attention is not None  # noqa: S101 - asked for
    return scaled_to_unit(maps.attention)


#: ``combine`` -> what makes one map [B, h, w] of those of all levels, [L, B, h, w] in 0..1.
COMBINE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "max": lambda maps: maps.amax(0),
    "product": lambda maps: maps.prod(0),
}


class MoltKeys(BackboneKeys):
    """Keys of MOLT.

    Attributes
    ----------
    sizes
        Side of the image at each level, pixels, at most size; one, two or three levels (the paper leaves the numbers
        out)
    shared
        One transformer for all levels instead of one for each (paper)
    combine
        How the levels' scaled maps become one: mean (paper), max or product
    """

    sizes: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field((224, 336, 448), min_length=1)
    shared: bool = False
    combine: Literal["mean", "max", "product"] = "mean"

    def check(self) -> None:
        """Refuse sizes that repeat or shrink."""
        super().check()
        if list(self.sizes) != sorted(set(self.sizes)):
            msg = f"sizes={list(self.sizes)}: each level must be larger than the one before"
            raise ConfigError(msg, hint="sizes=[224,336,448]")


class Molt(Method[MoltKeys]):
    """MOLT: TS-CAM at several sizes of the image, with a transformer for each or one for all.

    "Multiscale vision transformer with deep clustering-guided refinement for weakly supervised object localization",
    without its refinement. The image is decoded once, at the recipe's size, and each level sees it resized to its own;
    with patches of one size, a larger level has a finer grid. Losses are averaged over levels, and so are class
    probabilities; maps are those of TS-CAM, brought to the finest grid, scaled between their own lowest and highest
    value, and combined.
    """

    def __init__(self, keys: MoltKeys, task: Task) -> None:
        super().__init__(keys, task)
        if keys.sizes[-1] > task.size:
            msg = f"sizes={list(keys.sizes)} reaches beyond size={task.size}, at which images are decoded"
            raise ConfigError(msg, hint=f"size={keys.sizes[-1]}, or smaller sizes")
        fixed: dict[str, Any] = {"dynamic_img_size": True} if keys.shared else {}
        self.nets = nn.ModuleList(
            build_token_network(keys, size=size, classes=task.classes, size_key="sizes", **fixed)
            for size in (keys.sizes[:1] if keys.shared else keys.sizes)
        )
        for size in keys.sizes:
            require_tiling(self.nets[0], f"backbone={keys.backbone}", size, key="sizes")

    def phases(self) -> list[Phase]:
        """Return one phase that trains all levels, as TS-CAM is."""
        return [Phase("train", decayed(*self.nets, spared=SPARED))]

    def levels(self, image: Tensor) -> list[tuple[nn.Module, Tensor]]:
        """Each level's network and its image."""
        nets = [self.nets[0]] * len(self.keys.sizes) if self.keys.shared else list(self.nets)
        return [
            (net, image if size == image.shape[-1] else _resized(image, size))
            for net, size in zip(nets, self.keys.sizes, strict=True)
        ]

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the mean of the levels' cross-entropies of the classes."""
        del phase, epoch
        with self.task.autocast():
            scores = [read_token_maps(net, seen, attention=False).scores for net, seen in self.levels(batch["image"])]
        self.task.lap("forward")
        levels = torch.stack([cross_entropy(each.float(), batch["label"]) for each in scores])
        return Losses({"classes": levels.mean()})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the levels' maps as one at the finest grid, and the logarithm of the mean class probabilities."""
        levels = [read_token_maps(net, seen, attention=True) for net, seen in self.levels(image)]
        likelihood = torch.stack([level.scores.float().softmax(1) for level in levels]).mean(0)
        scores = likelihood.clamp_min(torch.finfo(likelihood.dtype).tiny).log()
        finest, maps = levels[-1].classes.shape[2:], []
        for level in levels:
            assert level.attention is not None  # noqa: S101 - asked for
            own = (map_of_class(level.classes, labels, scores) * level.attention)[:, None]
            maps.append(scaled_to_unit(interpolate(own, finest, mode="bilinear", align_corners=False)[:, 0]))
        return Prediction(COMBINE[self.keys.combine](torch.stack(maps)), False, scores)


def _resized(image: Tensor, size: int) -> Tensor:
    return interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
