"""Draw the demo's scenes: one or two objects of a class over a textured background, with exact boxes and masks.

Everything comes from a seeded generator. Lengths are shares of the longest side, so that a scene looks alike at 96 and
at 192 pixels; colours of objects, clutter and backgrounds come from one distribution, so that no colour tells a class
or the foreground. Scenes are drawn at twice their size and averaged down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from backgrounds import axes, draw_background, seen_colour, texture
from shapes import CLASSES, DARK, LIGHT, SHAPES, Part, blob

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Bytes = NDArray[np.uint8]

__all__ = ["CLASSES", "Scene", "render_scene"]

OVERSAMPLE = 2
AREA = (0.05, 0.60)
"""Least share of the image that an object's mask covers, and largest share that its box covers."""


@dataclass(frozen=True)
class Scene:
    """A rendered image with its exact truth.

    Parameters
    ----------
    image : uint8 [h, w, 3]
        RGB.
    background : uint8 [h, w, 3]
        The same scene without objects and their shadows.
    alpha : uint8 [h, w]
        Coverage of the objects, 0..255.
    boxes : float32 [n, 4]
        Tight boxes of `alpha` >= 128, an object a row, xyxy, half-open, pixels.
    label : int
        Index in `CLASSES`.
    kinds : tuple of str
        What the background is made of, by the names of `backgrounds.KINDS`.
    """

    image: Bytes
    background: Bytes
    alpha: Bytes
    boxes: NDArray[np.float32]
    label: int
    kinds: tuple[str, ...]

    @property
    def mask(self) -> Bytes:
        """uint8 [h, w], 255 where an object covers at least half of the pixel."""
        return np.where(self.alpha >= 128, 255, 0).astype(np.uint8)


def render_scene(rng: np.random.Generator, label: int, height: int, width: int, *, pair: float = 0.15) -> Scene:
    """Draw one scene.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every choice.
    label : int
        Class of the objects, an index of `CLASSES`.
    height, width : int
        Size of the image in pixels.
    pair : float
        Share of scenes with two objects of the class.
    """
    h, w = height * OVERSAMPLE, width * OVERSAMPLE
    canvas, kinds = draw_canvas(rng, h, w)
    scene, alpha, covers = canvas.copy(), np.zeros((h, w), np.float32), []
    for layer in draw_objects(rng, label, canvas, 2 if rng.random() < pair else 1):
        paste(rng, scene, layer)
        cover = np.zeros((h, w), np.float32)
        cover[layer.window] = layer.cover
        alpha = np.maximum(alpha, cover)
        covers.append(shrink(cover, height, width))
    light = draw_light(rng, h, w)[..., None]
    grain = rng.normal(0, rng.uniform(1, 5), (height, width, 3)).astype(np.float32)
    return Scene(
        image=to_bytes(shrink(scene * light, height, width) + grain),
        background=to_bytes(shrink(canvas * light, height, width) + grain),
        alpha=to_bytes(shrink(alpha, height, width) * 255),
        boxes=np.stack([tight_box(c >= 0.5) for c in covers]),
        label=label,
        kinds=kinds,
    )


def draw_canvas(rng: np.random.Generator, h: int, w: int) -> tuple[Floats, tuple[str, ...]]:
    """Background [h, w, 3] with clutter, out of focus, and the names of its kinds."""
    canvas, kinds = draw_background(rng, h, w)
    for number in range(int(rng.integers(6, 10))):
        size = float(rng.uniform(0.12, 0.32) if number < 5 else rng.uniform(0.03, 0.10)) * max(h, w)
        centre = rng.uniform(0, 1, 2) * (w, h)
        scale = np.array([size, size * rng.uniform(0.6, 1.0)])
        scrap = _move(blob(rng), centre, scale, rng.uniform(0, 6.3))
        paste(rng, canvas, _draw(rng, [scrap], canvas, solid=False))
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.006, 0.014) * max(h, w)), np.float32)
    canvas = np.asarray(
        ((canvas - canvas.mean()) * 1.3 + canvas.mean()).clip(0, 255), np.float32
    )  # out of focus, not pale
    return canvas, kinds


@dataclass(frozen=True)
class Layer:
    """Paint [h, w, 3] and coverage [h, w] in 0..1 for a window of the canvas."""

    window: tuple[slice, slice]
    paint: Floats
    cover: Floats


def draw_objects(rng: np.random.Generator, label: int, canvas: Floats, count: int) -> list[Layer]:
    """Draw `count` objects that lie inside the frame and do not overlap; fewer where no room was found."""
    h, w = canvas.shape[:2]
    placed: list[Layer] = []
    taken = np.zeros((h, w), bool)
    while not placed:
        for _ in range(40 * count):
            share = rng.uniform(0.24, 0.70) if count == 1 else rng.uniform(0.27, 0.45)
            parts = _pose(rng, SHAPES[CLASSES[label]](rng), share, h, w)
            points = np.concatenate([p.points for p in parts])
            (x0, y0), (x1, y1) = points.min(0), points.max(0)
            if (x1 - x0) * (y1 - y0) > AREA[1] * 0.98 * h * w or min(x0, y0, w - x1, h - y1) < 2:
                continue
            spot = (slice(int(y0), int(y1) + 1), slice(int(x0), int(x1) + 1))
            if taken[spot].any():
                continue
            layer = _draw(rng, parts, canvas, avoid=canvas[spot][::4, ::4].mean((0, 1)))
            if layer.cover.sum() < AREA[0] * 1.03 * h * w:
                continue
            placed.append(layer)
            taken[spot] = True
            if len(placed) == count:
                break
    return placed


def _pose(rng: np.random.Generator, parts: list[Part], share: float, h: int, w: int) -> list[Part]:
    """Turn, squash and flip an outline and move it to a place where it fits, if there is one."""
    half, squash = share * np.sqrt(h * w) / 2, np.exp(rng.normal(0, 0.10))
    scale, turn = np.array([half * squash * rng.choice([-1, 1]), half / squash]), rng.normal(0, 0.22)
    posed = [_move(p, np.zeros(2), scale, turn) for p in parts]
    points = np.concatenate([p.points for p in posed])
    low, high = points.min(0), points.max(0)
    centre = 3 - low + rng.uniform(0, 1, 2) * (np.array([w, h]) - 6 - (high - low))
    return [Part(p.points + centre, p.material) for p in posed]


def _move(part: Part, centre: Doubles, scale: Doubles, turn: float) -> Part:
    c, s = np.cos(turn), np.sin(turn)
    return Part((part.points * scale) @ np.array([[c, s], [-s, c]]) + centre, part.material)


def _draw(
    rng: np.random.Generator, parts: list[Part], canvas: Floats, *, avoid: Floats | None = None, solid: bool = True
) -> Layer:
    """Fill the parts with materials; where `solid`, ink their edges and shade the whole as a low dome."""
    shape = canvas.shape[:2]
    unit = max(shape)
    points, margin = np.concatenate([p.points for p in parts]), 0.12 * unit  # the margin leaves room for the shadow
    x0, y0 = np.maximum(points.min(0) - margin, 0).astype(int)
    x1, y1 = np.minimum(points.max(0) + margin, shape[::-1]).astype(int)
    h, w = int(y1 - y0), int(x1 - x0)
    fills = _materials(rng, (h, w, unit), sorted({p.material for p in parts}), canvas, avoid)
    paint, cover = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.uint8)
    for part in parts:
        corners = np.rint(part.points - (x0, y0)).astype(np.int32)[:, None]
        inside, edge = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
        cv2.fillPoly(inside, [corners], 1)
        np.copyto(paint, fills[part.material], where=inside[..., None] > 0)
        cv2.polylines(edge, [corners], True, 1, max(1, round(0.010 * unit)) if solid else 1)
        paint[(edge & inside) > 0] *= 0.4 if solid else 0.8
        cover |= inside
    soft = cover.astype(np.float32)
    window = (slice(y0, y1), slice(x0, x1))
    if not solid:
        return Layer(window, paint, soft)
    dome = cv2.GaussianBlur(soft, (0, 0), 0.025 * unit)
    light = rng.uniform(0, 2 * np.pi)
    slope = np.cos(light) * cv2.Sobel(dome, cv2.CV_32F, 1, 0) + np.sin(light) * cv2.Sobel(dome, cv2.CV_32F, 0, 1)
    paint *= (1 + rng.uniform(0.6, 1.5) * 0.012 * unit * slope).clip(0.5, 1.5)[..., None]
    return Layer(window, paint, soft)


def paste(rng: np.random.Generator, canvas: Floats, layer: Layer) -> None:
    """Darken `canvas` by the layer's shadow and put the layer on it, in place."""
    unit, view = max(canvas.shape), canvas[layer.window]
    shift = np.array([[1, 0, rng.uniform(-0.035, 0.035) * unit], [0, 1, rng.uniform(0.005, 0.04) * unit]])
    shade = cv2.GaussianBlur(
        cv2.warpAffine(layer.cover, shift, layer.cover.shape[::-1]), (0, 0), rng.uniform(0.008, 0.025) * unit
    )
    view *= (1 - rng.uniform(0.25, 0.6) * shade)[..., None]
    np.copyto(view, layer.paint, where=layer.cover[..., None] > 0)


def _materials(
    rng: np.random.Generator, shape: tuple[int, int, int], used: list[int], canvas: Floats, avoid: Floats | None
) -> dict[int, Floats]:
    """Textured fill [h, w, 3] of each material; the first differs from the colour `avoid`, each from the one before."""
    h, w, unit = shape
    fills: dict[int, Floats] = {}
    last = avoid
    for material in used:
        colour = seen_colour(rng, canvas)
        for _ in range(8):
            if last is None or np.abs(colour - last).sum() > 70:
                break
            colour = seen_colour(rng, canvas)
        if material in (DARK, LIGHT):  # such details stay so, whatever the body's colour
            colour = colour * 0.25 if material == DARK else 255 - 0.25 * (255 - colour)
        last = colour
        kind = 0 if material in (DARK, LIGHT) else int(rng.integers(5))
        fills[material] = texture(rng, h, w, unit, kind, colour, 0.5 * colour + 0.5 * seen_colour(rng, canvas))
    return fills


def draw_light(rng: np.random.Generator, h: int, w: int) -> Floats:
    x, _ = axes(rng, h, w)
    return np.asarray(rng.uniform(0.85, 1.1) + rng.uniform(0.0, 0.8) * x, np.float32)


def shrink(values: Floats, height: int, width: int) -> Floats:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def to_bytes(values: Floats) -> Bytes:
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


def tight_box(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float32)
