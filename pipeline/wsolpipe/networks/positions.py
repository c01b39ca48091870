"""Position embeddings on another grid than that of training.

The code that weights were released with stretches them in its own way, and the maps away from the trained size differ
by several per cent of their span:

- ``dino``: bicubic without antialiasing, by a factor computed from the grid plus 0.1 (Caron et al., DINO,
  ``interpolate_pos_encoding``; DINOv2 without registers and SCLIP do the same);
- ``timm``: bicubic with antialiasing, as timm and open_clip do;
- ``bilinear``: bilinear without antialiasing, as CLIP-ES does.
"""

from __future__ import annotations

import contextlib
import json
import pickletools
import re
import struct
import zipfile
from functools import lru_cache
from math import isqrt
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

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


#: Names in files of methods that trained with ImageNet's mean and deviation, which none of them records.
NAMES = (
    b"base_encoder.",  # MoCo v3
    b"encoder.mask_token",  # SimMIM
    b"decoder_blocks.0.",  # MAE with its decoder
    b"head.last_layer.",  # DINO, iBOT and EsViT with their heads
)
#: Most bytes of names that are looked at; those of the largest published transformer take a tenth of this.
MOST_BYTES = 64 << 20
#: Where a name says how position embeddings are stretched; the first that is found decides.
_WAYS: tuple[tuple[str, Positions], ...] = (
    (r"register_tokens|teacher_head\.|student_head\.", "timm"),  # DINOv2 with registers; wsoltrain's recipe dino
    (r"head\.(last_layer2?|mlp2?)\.|dino_head\.|ibot_head\.|masked_embed", "dino"),  # training of DINO, iBOT, DINOv2
    (r"head(_dist)?\.(weight|bias)|dist_token|fc_norm\.|norm_pre\.|reg_token|decoder_blocks\.|base_encoder\.", "timm"),
    (r"attn\.q_norm\.|__metadata__\.(mean|state)", "timm"),  # norms of timm alone; files that wsolpipe's tools wrote
)


#: Words of a tensor's storage: its number and its device.
_STORAGE = re.compile(r"storage|\d+|(cpu|cuda|mps|meta|xla)(:\d+)?")


class TokenLayout(NamedTuple):
    """Names of a weights file: the bytes of its table of tensors, the names in it, and the shapes that stand there."""

    table: bytes
    names: frozenset[str]
    shapes: dict[str, tuple[int, ...]]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, whatever wrappers stand before its name; None where the file has none of that name."""
        return next((s for key, s in self.shapes.items() if key == name or key.endswith(f".{name}")), None)


def read_layout(spec: str) -> TokenLayout | None:
    """Read names and shapes of the tensors in a weights file; None if the specification names no file.

    Parameters
    ----------
    spec : str
        See `wsolpipe.networks.sources`.
    """
    from wsolpipe.networks.sources import local_file

    path = local_file(spec)
    try:
        if path is None or not path.is_file():
            return None
        seen = path.stat()
        return _read(path, seen.st_mtime_ns, seen.st_size)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error):  # loading says what is wrong with it
        return None


@lru_cache(maxsize=16)
def _read(path: Path, changed: int, size: int) -> TokenLayout | None:  # noqa: ARG001 - in the cache's key
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = [item for item in archive.infolist() if item.filename.endswith("/data.pkl")]
            if sum(item.file_size for item in parts) > MOST_BYTES:
                return None
            table = b"".join(archive.read(item) for item in parts)
        return TokenLayout(table, *_pickled(table))
    if path.suffix.lower() != ".safetensors":
        return None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MOST_BYTES:
            return None
        table = file.read(length)
    header = json.loads(table)
    notes = header.pop("__metadata__", {})
    shapes = {name: tuple(of["shape"]) for name, of in header.items()}
    return TokenLayout(table, frozenset([*shapes, *(f"__metadata__.{name}" for name in notes)]), shapes)


def _pickled(pickled: bytes) -> tuple[frozenset[str], dict[str, tuple[int, ...]]]:
    """Names and shapes in a pickle of tensors: a name, words of the storage, the offset in it, then the sizes."""
    names, shapes, name = set(), {}, ""
    numbers: list[int] | None = None
    with contextlib.suppress(ValueError):  # torn: loading says so
        for code, value, _ in pickletools.genops(pickled):
            if isinstance(value, str) and "UNICODE" in code.name:
                name = name if _STORAGE.fullmatch(value) else value
                names.add(name)
            elif code.name == "BINPERSID":
                numbers = []
            elif numbers is not None and isinstance(value, int) and "INT" in code.name:
                numbers.append(value)
            elif numbers is not None and "TUPLE" in code.name:
                shapes[name] = tuple(numbers[1:])
                numbers = None
    return frozenset(names), shapes


def is_released(spec: str) -> bool:
    """Whether a specification of weights is an archive in the layout of a released self-supervised checkpoint."""
    found = None if spec.startswith("data:") or spec.endswith(".safetensors") else read_layout(spec)
    return found is not None and any(name in found.table for name in NAMES)


def released_positions(spec: str) -> Positions | None:
    """How the code that a weights file was released with stretches position embeddings; None where no name matches.

    Files of backbones alone, such as DINO's and iBOT's, have the names that timm gives to any plain transformer.

    References
    ----------
    ``interpolate_pos_encoding`` of facebookresearch/dino, bytedance/ibot and facebookresearch/dinov2.
    """
    found = read_layout(spec)
    if found is None:
        return None
    for words, way in _WAYS:
        if any(re.search(rf"(^|\.)({words})", name) for name in found.names):
            return way
    names = "\n".join(found.names)
    second = re.search(r"(^|\.)mask_token$", names, re.MULTILINE) and "ls1.gamma" in names  # DINOv2's backbone
    pair = re.search(r"^(module\.)?backbone\.blocks\.", names, re.MULTILINE) and re.search(
        b"teacher|student", found.table
    )
    return "dino" if second or pair else None


def released_side(spec: str) -> int | None:
    """Side of the images, in pixels, for which a weights file holds position embeddings; None where it is not known."""
    found = read_layout(spec)
    table, patch = (found.shape(name) if found else None for name in ("pos_embed", "patch_embed.proj.weight"))
    if not table or not patch or len(table) != 3 or len(patch) != 4:
        return None
    sides = [isqrt(count) for count in (table[1] - 1, table[1]) if isqrt(count) ** 2 == count]
    return sides[0] * patch[-1] if sides else None
