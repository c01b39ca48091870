"""Photographs and maps as data URIs, small enough to send a page of them by mail."""

from __future__ import annotations

import base64
import io
import posixpath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import View, resize

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]

PHOTO_SIDE, PHOTO_QUALITY = 440, 78
HEAT_SIDE, HEAT_LEVELS = 72, 48

#: From dark violet over teal to yellow, equal steps of lightness (after viridis): no red, which is the boxes' colour.
HEAT_ANCHORS = ((46, 16, 82), (59, 82, 139), (38, 130, 142), (53, 183, 121), (160, 218, 57), (253, 235, 80))


def photo(root: Path, path: str, *, orientation: int | None, sha256: str | None = None, side: int = PHOTO_SIDE) -> str:
    """An image file as a JPEG data URI, longer side at most `side`.

    Parameters
    ----------
    path : str
        Relative to `root`, from the index.
    sha256 : str, optional
        Of the file that was indexed: boxes and maps belong to that one alone.

    Raises
    ------
    BadImageError
        If the path leaves `root`, or the file is gone, has other bytes than were indexed or cannot be decoded.
    """
    inside = posixpath.normpath(path)
    if posixpath.isabs(inside) or inside.split("/")[0] == "..":
        msg = "path leaves the folder of images"
        raise BadImageError(msg)
    try:
        data = root.joinpath(inside).read_bytes()
    except (OSError, ValueError) as error:
        msg = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise BadImageError(msg) from error
    if sha256 and sha256_bytes(data) != sha256:
        msg = "the file has changed since it was indexed, so it is not shown"
        raise BadImageError(msg)
    pixels = decode(data, orientation=orientation, draft=(side, side))
    view = View.fit(pixels.shape[:2], side)
    if max(pixels.shape[:2]) > side:
        pixels = resize(pixels, (int(view.resized[0]), int(view.resized[1])))
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=PHOTO_QUALITY, optimize=True, progressive=True)
    return _uri("image/jpeg", sink.getvalue())


def heat(levels: Array, *, side: int = HEAT_SIDE) -> str:
    """A map, uint8 [h, w], as a coloured PNG data URI: low values dark and thin, high ones bright and thick.

    The picture is `side` × `side` whatever the map's shape: it is stretched over the whole image, as the map was made.
    """
    smooth = Image.fromarray(np.ascontiguousarray(levels)).resize((side, side), Image.Resampling.BILINEAR)
    steps = np.asarray(smooth).astype(np.uint16) * HEAT_LEVELS // 256
    picture = Image.frombytes("P", (side, side), steps.astype(np.uint8).tobytes())
    colours, opacity = _palette()
    picture.putpalette(colours.tobytes())
    sink = io.BytesIO()
    picture.save(sink, "PNG", transparency=opacity.tobytes(), optimize=True)
    return _uri("image/png", sink.getvalue())


def heat_stops() -> list[tuple[float, str]]:
    """Colours of the map's scale for a legend: (place 0..1, CSS colour)."""
    last = len(HEAT_ANCHORS) - 1
    return [(place / last, f"rgb({r} {g} {b})") for place, (r, g, b) in enumerate(HEAT_ANCHORS)]


def _palette() -> tuple[Array, Array]:
    """Colours uint8 [HEAT_LEVELS, 3] and opacities uint8 [HEAT_LEVELS]."""
    places = np.linspace(0, 1, HEAT_LEVELS)
    anchors = np.array(HEAT_ANCHORS, np.float64)
    knots = np.linspace(0, 1, len(anchors))
    colours = np.stack([np.interp(places, knots, anchors[:, channel]) for channel in range(3)], axis=1)
    return np.round(colours).astype(np.uint8), np.round(255 * (0.58 + 0.27 * places)).astype(np.uint8)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
