"""Bytes of an image file -> upright RGB. The one place that knows colour modes, EXIF orientation and broken files.

Conventions, fixed here for every stage:

- alpha is composited on white; so is the transparent colour of palette, gray and RGB images;
- 16-bit gray is scaled from its full range to 8 bits, never clipped;
- CMYK is converted without a profile, with Adobe's inverted files turned first; CIELAB goes through Little CMS;
- of an animation or a multi-picture file the first picture counts;
- a file that ends early is refused even where most of it could be shown;
- an image of more than `MAX_PIXELS` pixels is refused before anything is allocated for it.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.members import read_member, split_member

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

#: Twice the size above which Pillow warns; where Pillow itself refuses to open a file.
MAX_PIXELS = 178_956_970

#: Tried in this order. PostScript, metafiles and video containers are left out: opening them starts other programs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "MPO", "TGA", "PCX", "ICO")

_ORIENTATION_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_INVERSE = {6: 8, 8: 6}
_OBJECT = re.compile(r"<[\w.]+ object at 0x[0-9a-fA-F]+>|<_io\.\w+[^>]*>")
_PIXEL_COUNT = re.compile(r"\((\d+) pixels\)")


@dataclass(frozen=True)
class Probe:
    """Facts from the header of an image file.

    Attributes
    ----------
    width, height : int
        Of the upright image, in pixels.
    orientation : int
        EXIF orientation 1 … 8 that makes it upright; 1 where it is to be ignored, missing or invalid.
    frames : int
        Pictures in the file; 1 if not recorded.
    """

    width: int
    height: int
    orientation: int
    frames: int


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Bytes of an image file, or of a member of an archive (`wsolpipe.images.members`).

    A pipe or device is refused, since reading it might never return.

    Raises
    ------
    OSError
        If it cannot be opened or read.
    BadImageError
        If it is not a regular file.
    """
    if "#" in (name := os.fspath(path)) and (member := split_member(name)) and not os.path.exists(name):
        return read_member(*member)
    with open(path, "rb", opener=_open_at_once) as file:  # noqa: PTH123 - called once a row; pathlib doubles its cost
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            msg = "is not a regular file"
            raise BadImageError(msg)
        return file.read()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would block


def decode(data: bytes, *, orientation: int | None = None, draft: tuple[int, int] | None = None) -> Pixels:
    """Decode an image file.

    Parameters
    ----------
    data : bytes
        The whole file.
    orientation : int, optional
        EXIF orientation to apply to the stored pixels; 1 leaves them as stored. None takes the file's own.
    draft : (height, width), optional
        Lets a JPEG decode at 1/2, 1/4 or 1/8 of its size as long as both sides stay at least this large; then the
        result is smaller than the image and its pixels are block means, so resizing it differs from resizing the whole
        image by a few levels. None (the default) decodes in full; formats other than JPEG always do.

    Returns
    -------
    uint8 array [H, W, 3]
        RGB, upright, writable, contiguous.

    Raises
    ------
    BadImageError
        With a short reason that is the same on every machine: ``truncated: …``, ``decompression bomb: … pixels``,
        ``not an image``, ``empty file``, ``broken: …`` or ``unsupported: …``.
    """
    return _decode(data, orientation, draft)[0]


def decode_oriented(data: bytes, *, exif: Literal["apply", "ignore"]) -> tuple[Pixels, int]:
    """Decode in full as `decode` does, and return the orientation applied.

    Raises
    ------
    BadImageError
        As `decode`.
    """
    return _decode(data, None if exif == "apply" else 1, None)


def decode_mask(data: bytes, *, orientation: int = 1) -> NDArray[np.bool_]:
    """Decode a mask image: whatever is not zero is foreground.

    Palette images are read as indices, colour images as foreground where any channel is not zero; alpha is not looked
    at.

    Parameters
    ----------
    data : bytes
        The whole file.
    orientation : int
        EXIF orientation of the *image* the mask belongs to, applied to the mask as it was to the image.

    Returns
    -------
    bool array [H, W]

    Raises
    ------
    BadImageError
        As `decode`.
    """
    with _refusing(), _open(data) as image:
        image.load()
        if image.mode in ("LA", "La", "RGBA", "RGBa"):
            image = image.convert({"L": "L", "R": "RGB"}[image.mode[0]])
        values = np.asarray(image)
    foreground = values != 0 if values.ndim == 2 else (values != 0).any(axis=2)
    return np.ascontiguousarray(turn(foreground, orientation))


def probe(data: bytes, *, exif: Literal["apply", "ignore"]) -> Probe:
    """Read size and orientation from an image file's header, without decoding where the format allows it.

    Raises
    ------
    BadImageError
        If it is not an image or is too large; a file whose pixels are broken may pass.
    """
    with _refusing(), _open(data) as image:
        width, height = image.size
        if image.format == "TIFF":
            width, height = int(image.tag_v2[256]), int(image.tag_v2[257])  # type: ignore[attr-defined]
        try:
            frames = int(getattr(image, "n_frames", 1))
        except Exception:  # later frames may be broken in any way; the first is the one that counts
            frames = 1
        orientation = _orientation(image) if exif == "apply" else 1
    if orientation in _SIDEWAYS:
        width, height = height, width
    return Probe(width=width, height=height, orientation=orientation, frames=frames)


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels [H, W, …] -> upright pixels, by an EXIF orientation 1 … 8 (others do nothing); a view."""
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _decode(data: bytes, orientation: int | None, draft: tuple[int, int] | None) -> tuple[Pixels, int]:
    with _refusing(), _open(data) as image:
        # Pillow turns TIFF pixels by itself while loading and then forgets the tag.
        before = _orientation(image) if image.format == "TIFF" else 1
        if draft is not None and image.format in ("JPEG", "MPO"):
            sideways = (_orientation(image) if orientation is None else orientation) in _SIDEWAYS
            image.draft(None, (draft[0], draft[1]) if sideways else (draft[1], draft[0]))
        image.load()
        after = _orientation(image)
        turned = before if before != after else 1
        own = before if turned != 1 else after
        pixels = turn(_rgb(image), _INVERSE.get(turned, turned))
    orientation = own if orientation is None else orientation
    upright = np.ascontiguousarray(turn(pixels, orientation))
    if not upright.flags.writeable:
        upright = upright.copy()
    return upright, orientation if 1 <= orientation <= 8 else 1


def _open(data: bytes) -> Image.Image:
    if not data:
        msg = "empty file"
        raise BadImageError(msg)
    _quiet_pillow()
    image = Image.open(io.BytesIO(data), formats=_formats())
    pixels = image.size[0] * image.size[1]
    if pixels > MAX_PIXELS:
        image.close()
        msg = f"decompression bomb: {pixels} pixels"
        raise BadImageError(msg)
    return image


@functools.cache
def _quiet_pillow() -> None:
    """Pillow warns of large images and of odd EXIF blocks; here the first have a limit and the second a rule."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    """The file's EXIF orientation; 1 where the tag is missing, unreadable or out of range."""
    try:
        if image.format == "TIFF" and _ORIENTATION_TAG in image.tag_v2:  # type: ignore[attr-defined]
            value = image.tag_v2[_ORIENTATION_TAG]  # type: ignore[attr-defined]
        else:
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken EXIF block may raise anything; the pixels may still be good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Pixels:
    """Loaded image of any mode -> uint8 [H, W, 3]."""
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if mode.startswith("I;16"):
        return _stack(_scale(np.asarray(image).astype(np.float64), 65535.0))
    if mode in ("I", "F"):
        return _stack(_scale_wide(np.asarray(image).astype(np.float64), integer=mode == "I"))
    if mode == "LAB":
        return np.asarray(_from_lab(image))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, layer).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _scale(values: NDArray[np.float64], top: float) -> Pixels:
    """Values 0 … `top` -> 0 … 255, rounded."""
    return np.clip(np.rint(values * (255.0 / top)), 0, 255).astype(np.uint8)


def _scale_wide(values: NDArray[np.float64], *, integer: bool) -> Pixels:
    """32-bit pixels: the range the values are in decides the scale.

    Integers in 0 … 65535 are 16-bit, floats in 0 … 1 are shares and in 0 … 255 are levels; anything else is stretched
    from its own least to its own largest finite value.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        msg = "unsupported: no finite pixel"
        raise BadImageError(msg)
    low, high = float(finite.min()), float(finite.max())
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if low >= 0:
        tops = (65535.0,) if integer else (1.0, 255.0)
        top = next((top for top in tops if high <= top), None)
        if top is not None:
            return _scale(values, top)
    return _scale(values - low, max(high - low, 1e-300))


def _stack(gray: Pixels) -> Pixels:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _from_lab(image: Image.Image) -> Image.Image:

    try:
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    except (ImportError, ImageCms.PyCMSError) as error:
        msg = "unsupported: CIELAB colours need a Pillow with Little CMS"
        raise BadImageError(msg) from error
    if converted is None:
        msg = "unsupported: CIELAB colours"
        raise BadImageError(msg)
    return converted


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever Pillow raises on a bad file into `BadImageError` with a stable reason."""
    try:
        yield
    except (BadImageError, MemoryError):
        raise
    except Exception as error:
        raise BadImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(_OBJECT.sub("file", str(error)).split())
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        pixels = _PIXEL_COUNT.search(text)
        return f"decompression bomb: {pixels[1]} pixels" if pixels else f"decompression bomb: {text}"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated: {text.removeprefix('image file is truncated').strip(' ()') or 'data ends early'}"
    return f"broken: {text or type(error).__name__}"
