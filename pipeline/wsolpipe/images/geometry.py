"""The one geometry of resizing, cropping and flipping, for images, boxes and points alike.

Coordinates are continuous: pixel ``i`` covers ``[i, i + 1)`` and its centre is at ``i + 0.5``, so an image of width W
spans ``[0, W]``. A resize from W to w multiplies x by ``w / W`` (``align_corners=False``). Boxes are (x0, y0, x1, y1),
half-open; points are (x, y); sizes are (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Pixels = NDArray[np.uint8]

Size = tuple[float, float]
Smooth = Literal["bilinear", "bicubic"]


def resize(image: Pixels, size: tuple[int, int], *, smooth: Smooth = "bilinear") -> Pixels:
    """Squash an image to `size`; with antialiasing where it shrinks.

    Parameters
    ----------
    image : uint8 array [H, W, 3] or [H, W]
    size : (height, width)
    smooth : "bilinear" or "bicubic"

    Returns
    -------
    uint8 array [height, width, 3] or [height, width]
        Writable; a copy even where the size is the same.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image.copy()
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling[smooth.upper()]))


def tiled_size(size: tuple[int, int], patch: int, *, longest: int) -> tuple[int, int]:
    """Size at which a picture keeps its aspect, up to less than a patch, and is tiled by patches.

    Parameters
    ----------
    size : (height, width)
    patch : int
        Each side is rounded up to a multiple of it.
    longest : int
        A picture whose longer side is more is shrunk to it first; a smaller one stays as it is.

    Returns
    -------
    (height, width)

    Examples
    --------
    >>> tiled_size((333, 500), 16, longest=512), tiled_size((600, 1200), 16, longest=512)
    ((336, 512), (256, 512))
    """
    scale = min(1.0, longest / max(size))
    height, width = (-(-max(1, round(side * scale)) // patch) * patch for side in size)
    return height, width


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Squash a mask [H, W] to `size` by the nearest pixel; the result stays a mask."""
    height, width = size
    rows = ((np.arange(height) + 0.5) * (mask.shape[0] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (mask.shape[1] / width)).astype(np.intp)
    shrunk: NDArray[np.bool_] = mask[rows[:, None], columns]
    return shrunk


def clip_boxes(boxes: ArrayLike, size: Size) -> Floats:
    """Cut boxes [N, 4] at the edges of an image; one that lies outside is left with no area, NaN stays NaN."""
    height, width = size
    return np.clip(_rows(boxes, 4), 0.0, np.array([width, height, width, height], np.float64))


@dataclass(frozen=True, slots=True)
class Window:
    """A crop of a resized image, then flipped or not.

    Attributes
    ----------
    top, left : float
        Upper left corner of the crop in the resized image; whole numbers wherever pixels are cut.
    height, width : float
        Size of the crop.
    flip : bool
        Whether the crop is mirrored left to right.
    """

    top: float
    left: float
    height: float
    width: float
    flip: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """How a picture became what a network or a person sees: squashed to `resized`, cropped, flipped.

    Views compose with `then` and invert with the ``…_from_view`` methods.

    Attributes
    ----------
    original : (height, width)
        Of the picture.
    resized : (height, width)
        What it was squashed to, before the crop.
    window : Window
        The crop, in pixels of the resized picture.
    """

    original: Size
    resized: Size
    window: Window

    def __post_init__(self) -> None:
        if min(*self.original, *self.resized, self.window.height, self.window.width) <= 0:
            msg = f"a view needs sizes above 0: original {self.original}, resized {self.resized}, window {self.window}"
            raise ConfigError(msg)

    @classmethod
    def squash(cls, original: Size, size: Size) -> View:
        """The whole picture at `size`, aspect changed: what every stage sees."""
        return cls(original, size, Window(0, 0, size[0], size[1]))

    @classmethod
    def fit(cls, original: Size, side: int) -> View:
        """The whole picture with its aspect kept, longer side `side`, both at least 1 pixel."""
        scale = side / max(original)
        return cls.squash(original, (max(1, round(original[0] * scale)), max(1, round(original[1] * scale))))

    @property
    def size(self) -> Size:
        """(height, width) of the view."""
        return self.window.height, self.window.width

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the view a pixel of the picture, (vertical, horizontal)."""
        return self.resized[0] / self.original[0], self.resized[1] / self.original[1]

    def points_to_view(self, points: ArrayLike) -> Floats:
        """Points [N, 2] (x, y) of the picture -> of the view; may lie outside it."""
        rows = _rows(points, 2)
        down, across = self.scale
        x = rows[:, 0] * across - self.window.left
        y = rows[:, 1] * down - self.window.top
        return np.stack([self.window.width - x if self.window.flip else x, y], axis=1)

    def points_from_view(self, points: ArrayLike) -> Floats:
        """Points [N, 2] (x, y) of the view -> of the picture."""
        rows = _rows(points, 2)
        down, across = self.scale
        x = self.window.width - rows[:, 0] if self.window.flip else rows[:, 0]
        return np.stack([(x + self.window.left) / across, (rows[:, 1] + self.window.top) / down], axis=1)

    def boxes_to_view(self, boxes: ArrayLike, *, clip: bool = False) -> Floats:
        """Boxes [N, 4] of the picture -> of the view.

        Parameters
        ----------
        boxes : array_like [N, 4]
            NaN rows stay NaN.
        clip : bool
            Cut them at the view's edges; a box outside it is left with no area.
        """
        rows = _boxes_by_points(boxes, self.points_to_view, flip=self.window.flip)
        return clip_boxes(rows, self.size) if clip else rows

    def boxes_from_view(self, boxes: ArrayLike, *, clip: bool = False) -> Floats:
        """Boxes [N, 4] of the view -> of the picture; `clip` cuts them at the picture's edges."""
        rows = _boxes_by_points(boxes, self.points_from_view, flip=self.window.flip)
        return clip_boxes(rows, self.original) if clip else rows

    def then(self, after: View) -> View:
        """The view that results when `after` is taken of this view, as one.

        Raises
        ------
        ConfigError
            If `after` is not a view of a picture of this view's size.
        """
        if tuple(after.original) != tuple(self.size):
            msg = f"a view of a {after.original} picture cannot follow one that is {self.size}"
            raise ConfigError(msg)
        down, across = after.scale
        first, second = self.window, after.window
        # A crop of a mirrored crop is a mirrored crop from the other side.
        left = (first.left + first.width) * across - second.left - second.width if first.flip else (
            first.left * across + second.left
        )  # fmt: skip
        window = Window(
            top=first.top * down + second.top,
            left=left,
            height=second.height,
            width=second.width,
            flip=first.flip != second.flip,
        )
        return View(self.original, (self.resized[0] * down, self.resized[1] * across), window)

    def apply(self, image: Pixels) -> Pixels:
        """Make the view of an image: resize, crop, flip.

        Parameters
        ----------
        image : uint8 array [H, W, 3] or [H, W]
            Of the size `original`.

        Returns
        -------
        uint8 array [height, width, 3] or [height, width]
            Contiguous and writable.

        Raises
        ------
        ConfigError
            If the image has another size, or the view is not a crop of whole pixels inside the resized image (as views
            that were composed after a resize may not be).
        """
        if image.shape[:2] != tuple(self.original):
            msg = f"a view of {self.original} cannot be taken of an image of {image.shape[:2]} (height, width)"
            raise ConfigError(msg)
        numbers = (*self.resized, self.window.top, self.window.left, self.window.height, self.window.width)
        height, width, top, left, rows, columns = (round(number) for number in numbers)
        whole = all(float(number).is_integer() for number in numbers)
        if not whole or top < 0 or left < 0 or top + rows > height or left + columns > width:
            msg = f"window {self.window} cannot be cut from a picture resized to {self.resized}"
            raise ConfigError(msg)
        cut = resize(image, (height, width))[top : top + rows, left : left + columns]
        return np.array(cut[:, ::-1] if self.window.flip else cut, order="C")


def _rows(values: ArrayLike, width: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, width))
    if array.ndim != 2 or array.shape[1] != width:
        msg = f"expected an array [N, {width}], not {list(array.shape)}"
        raise ConfigError(msg)
    return array


def _boxes_by_points(boxes: ArrayLike, move: Any, *, flip: bool) -> Floats:
    """Move both corners; a flip exchanges left and right."""
    rows = _rows(boxes, 4)
    near, far = move(rows[:, :2]), move(rows[:, 2:])
    if flip:
        near[:, 0], far[:, 0] = far[:, 0].copy(), near[:, 0].copy()
    return np.concatenate([near, far], axis=1)
