"""Photographs and maps as data URIs, small enough to send a page of them by mail."""

from __future__ import annotations

import base64
import io
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from wsolpipe.contract.errors import BadImageError
from wsolpipe.contract.layout import sha256_bytes
from wsolpipe.images.decode import decode, read_file
from wsolpipe.images.geometry import View, resize
from wsolpipe.images.video import open_film, split_frame

Array = np.ndarray[Any, Any]

HEAT_SIDE, HEAT_LEVELS = 72, 48
MASK_SIDE = 112
EDGE_SIDE = 224
#: Of labels 1, 2 …: told apart in any colour vision (after Okabe and Ito, "Color universal design", 2008).
MASK_COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (0, 114, 178))
IGNORED = 255
#: Background and foreground pixels that were drawn: blue and yellow, told apart in any colour vision.
DRAWN_COLOURS = ((86, 180, 233), (240, 228, 66))

#: From dark violet over teal to yellow, equal steps of lightness (after viridis): no red, which is the boxes' colour.
HEAT_ANCHORS = ((46, 16, 82), (59, 82, 139), (38, 130, 142), (53, 183, 121), (160, 218, 57), (253, 235, 80))


@dataclass(frozen=True)
class Photo:
    """How a photograph is stored: its longer side at most, quality 0–95, ``JPEG`` or ``WEBP``."""

    side: int = 440
    quality: int = 78
    kind: str = "JPEG"


FULL = Photo()


def photo(root: Path, path: str, *, orientation: int | None, sha256: str | None = None, how: Photo = FULL) -> str:
    """An image file, or a frame of a video, as a data URI.

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
    frame = split_frame(inside)
    try:
        if frame is not None:
            film = open_film(root / frame[0])
            found = film.frame_sha256(frame[1])
        else:
            data = read_file(root / inside)
            found = sha256_bytes(data)
    except BadImageError:
        raise
    except (OSError, ValueError) as error:
        msg = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise BadImageError(msg) from error
    if sha256 and found != sha256:
        msg = "the file has changed since it was indexed, so it is not shown"
        raise BadImageError(msg)
    if frame is not None:
        return encode_photo(film.read(frame[1]), how)
    return encode_photo(decode(data, orientation=orientation, draft=(how.side, how.side)), how)


def encode_photo(pixels: Array, how: Photo = FULL) -> str:
    """Pixels uint8 [H, W, 3] as a data URI."""
    if max(pixels.shape[:2]) > how.side:
        view = View.fit(pixels.shape[:2], how.side)
        pixels = resize(pixels, (int(view.resized[0]), int(view.resized[1])))
    sink = io.BytesIO()
    more = {"optimize": True, "progressive": True} if how.kind == "JPEG" else {}
    Image.fromarray(pixels).save(sink, how.kind, quality=how.quality, **more)
    return _uri(f"image/{how.kind.lower()}", sink.getvalue())


def heat(values: Array, *, side: int = HEAT_SIDE) -> str:
    """A map [h, w] as a coloured PNG data URI: low values dark and thin, high ones bright and thick.

    Levels (uint8) are drawn as they are, other values by their own range. The picture is `side` × `side` whatever the
    map's shape: it is stretched over the whole image, as the map was made.
    """
    levels = np.ascontiguousarray(values)
    if levels.dtype != np.uint8:
        low, high = float(levels.min()), float(levels.max())
        levels = np.round(255 * (levels - low) / max(high - low, 1e-12)).astype(np.uint8)
    smooth = Image.fromarray(levels).resize((side, side), Image.Resampling.BILINEAR)
    steps = np.asarray(smooth).astype(np.uint16) * HEAT_LEVELS // 256
    picture = Image.frombytes("P", (side, side), steps.astype(np.uint8).tobytes())
    colours, opacity = _palette()
    picture.putpalette(colours.tobytes())
    sink = io.BytesIO()
    picture.save(sink, "PNG", transparency=opacity.tobytes(), optimize=True)
    return _uri("image/png", sink.getvalue())


def mask_picture(labels: Array) -> str:
    """Labels [h, w] as a PNG data URI: 0 clear, others in colours that repeat, 255 (ignored) grey."""
    image = Image.fromarray(np.ascontiguousarray(labels.astype(np.uint8)))
    small = np.asarray(image.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.NEAREST)).astype(np.int64)
    count = len(MASK_COLOURS)
    kinds = np.where(small == 0, 0, np.where(small == IGNORED, count + 1, (small - 1) % count + 1)).astype(np.uint8)
    picture = Image.frombytes("P", (MASK_SIDE, MASK_SIDE), kinds.tobytes())
    picture.putpalette(bytes([0, 0, 0, *(level for colour in MASK_COLOURS for level in colour), 128, 128, 128]))
    sink = io.BytesIO()
    picture.save(sink, "PNG", transparency=bytes([0, *[150] * count, 110]), optimize=True)
    return _uri("image/png", sink.getvalue())


def edges_picture(labels: Array) -> str:
    """Borders between regions of labels [h, w] as a PNG data URI: white lines, clear inside the regions."""
    small = _nearest(labels, min(EDGE_SIDE, max(labels.shape)))
    border = np.zeros(small.shape, bool)
    border[1:] |= small[1:] != small[:-1]
    border[:, 1:] |= small[:, 1:] != small[:, :-1]
    return _palette_picture(border.astype(np.uint8), ((255, 255, 255),), 215)


def drawn_picture(foreground: Array, background: Array) -> str:
    """Pixels drawn for training, bool [h, w] each, as a PNG data URI; dots of three pixels, so that one can be seen."""
    kinds = np.where(background, 1, np.where(foreground, 2, 0)).astype(np.uint8)
    if min(kinds.shape) < MASK_SIDE:  # patches: squares of their size
        kinds = _nearest(kinds, MASK_SIDE)
    else:
        kinds = np.asarray(Image.fromarray(kinds).filter(ImageFilter.MaxFilter(3)))
    return _palette_picture(kinds, DRAWN_COLOURS, 225)


def _nearest(values: Array, side: int) -> Array:
    """Values [h, w] under the centres of `side` × `side` pixels."""
    rows, columns = ((2 * np.arange(side) + 1) * length // (2 * side) for length in values.shape)
    return np.asarray(values[rows[:, None], columns])


def _palette_picture(kinds: Array, colours: Sequence[tuple[int, int, int]], opacity: int) -> str:
    """Kinds uint8 [h, w] as a PNG data URI: 0 clear, the others in their colours."""
    picture = Image.frombytes("P", (kinds.shape[1], kinds.shape[0]), np.ascontiguousarray(kinds).tobytes())
    picture.putpalette(bytes([0, 0, 0, *(level for colour in colours for level in colour)]))
    sink = io.BytesIO()
    picture.save(sink, "PNG", transparency=bytes([0, *[opacity] * len(colours)]), optimize=True)
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
