"""Position embeddings on another grid than that of training.

The code that weights were released with stretches them in its own way, and the maps away from the trained size differ
by several per cent of their span:

- ``dino``: bicubic without antialiasing, by a factor computed from the grid plus 0.1 (Caron et al., DINO,
  ``interpolate_pos_encoding``; DINOv2 without registers and SCLIP do the same);
- ``timm``: bicubic with antialiasing, as timm and open_clip do;
- ``bilinear``: bilinear without antialiasing, as CLIP-ES does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Positions = Literal["dino", "timm", "bicubic", "bilinear"]
Grid = tuple[int, int]
#: What DINO adds to the grid, so that rounding never makes one cell less.
DINO_OFFSET = 0.1
#: Tags of timm whose weights were released with DINO's code.
DINO_TAGS = ("dino", "lvd142m")


def stretch(table: Tensor, own: Grid, grid: Grid, *, prefix: int, positions: Positions) -> Tensor:
    """Position embeddings for another grid.

    Parameters
    ----------
    table : float tensor [prefix + n, C]
        Row by row after the prefix tokens, whose embeddings stay.
    own, grid : (rows, columns)
        Of training, and wanted.
    prefix : int
        Tokens before the patches.
    positions : "dino", "timm" (or "bicubic", which is the same) or "bilinear"

    Returns
    -------
    float tensor [prefix + rows * columns, C]
    """
    import torch
    from torch.nn.functional import interpolate

    if own == grid:
        return table
    plane = table[prefix:].T.reshape(1, -1, *own)
    if positions == "dino":
        factors = tuple((wanted + DINO_OFFSET) / side for wanted, side in zip(grid, own, strict=True))
        plane = interpolate(plane, scale_factor=factors, mode="bicubic")
    elif positions in ("timm", "bicubic"):
        plane = interpolate(plane, size=grid, mode="bicubic", align_corners=False, antialias=True)
    else:
        plane = interpolate(plane, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:prefix], plane.flatten(2)[0].T])


def own_positions(name: str) -> Positions:
    """Way of the code that timm's weights `name` were released with; ``timm`` where nothing else is known."""
    tag = name.partition(".")[2]
    return "dino" if tag.startswith(DINO_TAGS) and "reg" not in name else "timm"


def trained_size(name: str) -> int | None:
    """Side of the images that timm's weights `name` were trained with; None where timm knows no such weights."""
    from wsolpipe.networks.pretrained import configuration

    known = configuration(name, required=False) if name else None
    return known.size if known else None
