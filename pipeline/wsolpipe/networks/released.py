"""Checkpoints as self-supervised methods released them, known by names that no other file holds.

All of these were trained with ImageNet's mean and deviation, which none of them records. The names are looked for in
the pickle of the archive that ``torch.save`` writes; neither torch is imported nor anything unpickled, so that keys can
be computed with them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

NAMES = (
    b"base_encoder.",  # MoCo v3
    b"encoder.mask_token",  # SimMIM
    b"decoder_blocks.0.",  # MAE with its decoder
    b"head.last_layer.",  # DINO, iBOT and EsViT with their heads
)


def is_released(spec: str) -> bool:
    """Whether a specification of weights is a file in the layout of a released self-supervised checkpoint.

    Parameters
    ----------
    spec : str
        See `wsolpipe.networks.sources`; only a .pth, .pth.tar, .pt or .bin file can be one.
    """
    path = Path(spec.removeprefix("file:")).expanduser()
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            content = b"".join(archive.read(name) for name in pickled)
    except (zipfile.BadZipFile, OSError):  # loading says what is wrong with it
        return False
    return any(name in content for name in NAMES)
