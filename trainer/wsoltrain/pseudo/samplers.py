"""Pixel samplers: from pseudo-labels to a few foreground and background pixels, drawn anew whenever a row comes round.

All images of a batch at once, on the device of the maps. Common to all: as many pixels are drawn of either side; where
one side has fewer candidates than wanted the other is cut to the same number (``balanced``), and a side without any
leaves the image without labels. Drawn pixels may then be dilated; a pixel that both sides reach becomes unknown, and
background never grows into protected pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.named import Registry
from wsoltrain.data.keys import Keys
from wsoltrain.pseudo.draws import chosen_region, erode, extreme, otsu, race, uniform

IGNORE, BACKGROUND, FOREGROUND = -255, 0, 1
_BOX, _FG, _BG = 1, 2, 3  # purposes of draws
_TINY = 1e-8  # weight of a pixel without activation: drawn only where nothing else is left


@dataclass(frozen=True)
class Pseudo:
    """Pseudo-labels of a batch.

    Attributes
    ----------
    maps : float Tensor [B, M, H, W]
        In 0..1, in pixels (or patches) of the crop.
    rows : int64 Tensor [B]
        Rows of the index: what the draws depend on.
    boxes : float Tensor [B, K, 4], optional
        xyxy in the same pixels; zero area = lost.
    box_map : int64 Tensor [B, K], optional
        Map of each box, −1 where it has none.
    places : int64 Tensor [B, H * W], optional
        Number of each pixel in the whole image, by which a row's draws of other crops and epochs are repeated.
    """

    maps: Tensor
    rows: Tensor
    boxes: Tensor | None = None
    box_map: Tensor | None = None
    places: Tensor | None = None


@dataclass(frozen=True)
class Drawn:
    """Drawn labels, int64 [B, H, W] of `FOREGROUND`, `BACKGROUND` and `IGNORE`, and what could not be drawn.

    ``counts`` holds 0-d tensors, images of this batch: ``unlabelled`` (no pixel at all), ``no_region`` (no box, or a
    constant map), ``no_foreground`` and ``no_background`` (no candidate), ``short`` (fewer pixels than wanted).
    """

    labels: Tensor
    counts: Mapping[str, Tensor]


def _odd(side: int) -> int:
    if side % 2 == 0:
        msg = "must be odd"
        raise ValueError(msg)
    return side


Count = Annotated[int, Field(ge=0, le=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
OddSide = Annotated[int, Field(ge=1, le=9999), AfterValidator(_odd)]


class Sampler(Keys):
    """Draws labelled pixels from pseudo-labels; its fields are the keys ``pixels.…`` of a recipe."""

    @abstractmethod
    def __call__(self, pseudo: Pseudo, *, seed: int, epoch: int) -> Drawn:
        """Draw labels for a batch; of (seed, epoch, row) alone, whatever else is in the batch."""


@runtime_checkable
class DrawsPixels(Protocol):
    """A method that is trained on drawn pixels, and can show them."""

    def draw_pixels(self, batch: Mapping[str, Tensor], epoch: int) -> Drawn:
        """Draw the labels on which the losses of this batch would be taken in this epoch."""


class Drawing(Sampler):
    """Keys that both kinds of samplers have.

    Attributes
    ----------
    draw : "anew" or "once"
        Numbers of each epoch, or the same for a row in all epochs, so that its labels are drawn once. They belong to
        pixels of the image: as far as a crop shows the same candidates, it has the same labels.
    n_fg, n_bg : int
        Pixels to draw.
    fg_share : float
        n⁺: strongest share of the region's pixels that are foreground candidates, rounded down as the authors do.
    bg_share : float
        n⁻: background candidates are this share of the image's pixels, rounded down, the lowest of those allowed.
    weighted : bool
        Foreground by activation, else uniform.
    balanced : bool
        Equally many of both sides; the released settings draw 5139 and 2399.
    dilation : int
        Side of the square, odd, by which drawn pixels grow; 1 for none.
    """

    draw: Literal["anew", "once"] = "anew"
    n_fg: Count = 1
    n_bg: Count = 1
    fg_share: Share = 0.5
    bg_share: Share = 0.3
    weighted: bool = True
    balanced: bool = True
    dilation: OddSide = 1

    def noise(self, pseudo: Pseudo, purpose: int, count: int, *, seed: int, epoch: int) -> Tensor:
        """Uniform numbers [B, count] of the rows for one purpose; of every pixel by `_FG` and `_BG`."""
        if self.draw == "anew":
            return uniform(seed, epoch, pseudo.rows, purpose, count)
        return uniform(seed, 0, pseudo.rows, purpose, count, None if purpose == _BOX else pseudo.places)


class Dips(Drawing):
    """DiPS (thesis ch. 2): foreground in one random box of a set by activation, background outside of that set.

    Attributes
    ----------
    top_n : int
        Size of the set P: the first `top_n` boxes that are not lost. The foreground's box is drawn from it.
    background : "outside" or "anywhere"
        Outside of all boxes of P (thesis ch. 2), or the lowest pixels wherever they are (App. I, released code).
    map : "box", "mean" or "max"
        The map that the box came from, or one made of all.
    """

    top_n: Annotated[int, Field(ge=1, le=2**31)] = 10
    background: Literal["outside", "anywhere"] = "outside"
    map: Literal["box", "mean", "max"] = "box"

    def __call__(self, pseudo: Pseudo, *, seed: int, epoch: int) -> Drawn:
        """Draw labels for a batch."""
        if pseudo.boxes is None:
            msg = "the DiPS sampler needs boxes, and this stream has none"
            raise ConfigError(msg, hint="boxes=proposals")
        height, width = pseudo.maps.shape[-2:]
        among = self._first(pseudo.boxes)
        noise = self.noise(pseudo, _BOX, pseudo.boxes.shape[1], seed=seed, epoch=epoch)
        number = noise.masked_fill(~among, -1.0).argmax(1)
        box = pseudo.boxes.gather(1, number[:, None, None].expand(-1, 1, 4))[:, 0]
        box = torch.where(among.any(1, keepdim=True), box, 0.0)  # an empty one where there is none
        values = self._map(pseudo, number).flatten(1)
        inside = _inside(box[:, None], height, width, touched=False)[:, 0].flatten(1)
        fg = extreme(values, inside, _share(self.fg_share, inside.sum(1)), largest=True)
        kept_out = (_inside(pseudo.boxes, height, width, touched=True) & among[..., None, None]).any(1).flatten(1)
        if self.background == "anywhere":
            kept_out = torch.zeros_like(kept_out)
        n_minus = _share(self.bg_share, torch.full_like(number, values.shape[1]))
        bg = extreme(values, ~kept_out & inside.any(1, keepdim=True), n_minus, largest=False)
        candidates = _Candidates(fg, bg, values + _TINY if self.weighted else None, kept_out, inside.any(1))
        return _draw(candidates, pseudo, self, seed=seed, epoch=epoch)

    def _first(self, boxes: Tensor) -> Tensor:
        """Slots of the first `top_n` boxes that are not lost, bool [B, K]."""
        there = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        return there & (there.cumsum(1) <= self.top_n)

    def _map(self, pseudo: Pseudo, number: Tensor) -> Tensor:
        if self.map != "box" or pseudo.box_map is None:
            return pseudo.maps.amax(1) if self.map == "max" else pseudo.maps.mean(1)
        source = pseudo.box_map.gather(1, number[:, None]).clamp_min(0)
        height, width = pseudo.maps.shape[-2:]
        return pseudo.maps.gather(1, source[..., None, None].expand(-1, 1, height, width))[:, 0]


class ReleasedDips(Dips):
    """DiPS as its code was released, with its values for ILSVRC: background is whatever is low, inside boxes too."""

    n_fg: Count = 5139
    n_bg: Count = 2399
    fg_share: Share = 0.938
    bg_share: Share = 0.906
    top_n: Annotated[int, Field(ge=1, le=2**31)] = 2
    background: Literal["outside", "anywhere"] = "anywhere"
    balanced: bool = False
    dilation: OddSide = 3


class OtsuRegion(Drawing):
    """TrCAM-V: both sides from one map, foreground in a region above Otsu's threshold.

    Attributes
    ----------
    region : "all", "densest", "largest" or "none"
        All that is above the threshold; its 4-connected part of highest mean (papers; the largest one where that
        is under 5 % of the image); its largest part; or the whole image.
    erosion : int
        Side of the square, odd, by which the region shrinks; 1 for none. A region that would vanish stays whole.
    keep_out : bool
        Take no background from the region (papers); the released code takes the lowest pixels wherever they are.
    strict : bool
        The level of the threshold itself is background, as Otsu's rule has it. The released code counts it as
        foreground: the region of a map of two values is then the whole image, which leaves no background.
    """

    fg_share: Share = 0.6
    bg_share: Share = 0.1
    region: Literal["all", "densest", "largest", "none"] = "densest"
    erosion: OddSide = 1
    keep_out: bool = True
    strict: bool = True

    def __call__(self, pseudo: Pseudo, *, seed: int, epoch: int) -> Drawn:
        """Draw labels for a batch."""
        maps = pseudo.maps[:, 0]
        levels, threshold = otsu(maps)
        known = threshold >= 0
        cut = threshold[:, None, None] + int(self.strict)
        region = (levels >= cut) & known[:, None, None]
        if self.region == "none":
            region = known[:, None, None].expand_as(region)
        elif self.region != "all":
            region = chosen_region(region, maps, densest=self.region == "densest", least_share=0.05)
        fg_region = erode(region, self.erosion) if self.erosion > 1 else region
        fg_region = torch.where(fg_region.any((1, 2), keepdim=True), fg_region, region)
        values, inside = maps.flatten(1), fg_region.flatten(1)
        fg = extreme(values, inside, _share(self.fg_share, inside.sum(1)), largest=True)
        kept_out = region.flatten(1) if self.keep_out and self.region != "none" else torch.zeros_like(inside)
        n_minus = _share(self.bg_share, torch.full_like(threshold, values.shape[1]))
        bg = extreme(values, ~kept_out & known[:, None], n_minus, largest=False)
        candidates = _Candidates(fg, bg, values + _TINY if self.weighted else None, kept_out, known)
        return _draw(candidates, pseudo, self, seed=seed, epoch=epoch)


class ErodedRegion(OtsuRegion):
    """F-CAM: uniform in what is above Otsu's threshold, eroded 11 x 11; lowest share anywhere; draws are dilated."""

    fg_share: Share = 1.0
    bg_share: Share = 0.3
    weighted: bool = False
    region: Literal["all", "densest", "largest", "none"] = "all"
    erosion: OddSide = 11
    keep_out: bool = False
    balanced: bool = False
    dilation: OddSide = 3


class Patches(OtsuRegion):
    """TeD-Loc (thesis ch. 3), on maps at patch resolution: uniform in both sides, equally many, apart."""

    n_fg: Count = 10
    n_bg: Count = 10
    fg_share: Share = 0.5
    bg_share: Share = 0.3
    weighted: bool = False
    region: Literal["all", "densest", "largest", "none"] = "all"


class OnPatches(Sampler):
    """Labels drawn on a grid of patches and given to all pixels of a patch: `Patches` where maps come as pixels.

    Attributes
    ----------
    n : int
        Patches to draw of either side.
    fg_share, bg_share : float
        As in `Patches`.
    side : int
        Of a patch, in pixels.
    draw : "anew" or "once"
        As in `Drawing`; the numbers of patches belong to the crop.
    """

    draw: Literal["anew", "once"] = "anew"
    n: Count = 10
    fg_share: Share = 0.5
    bg_share: Share = 0.3
    side: Annotated[int, Field(ge=1, le=9999)] = 16

    def __call__(self, pseudo: Pseudo, *, seed: int, epoch: int) -> Drawn:
        """Draw labels for a batch.

        Raises
        ------
        ConfigError
            If the maps are no whole number of patches.
        """
        if any(edge % self.side for edge in pseudo.maps.shape[-2:]):
            msg = f"pixels.side={self.side} does not divide maps of {tuple(pseudo.maps.shape[-2:])}"
            raise ConfigError(msg, hint="pixels.side= the side of the backbone's patches")
        grid = Pseudo(avg_pool2d(pseudo.maps, self.side), pseudo.rows)
        rule = Patches(n_fg=self.n, n_bg=self.n, fg_share=self.fg_share, bg_share=self.bg_share, draw=self.draw)
        drawn = rule(grid, seed=seed, epoch=epoch)
        spread = drawn.labels.repeat_interleave(self.side, 1).repeat_interleave(self.side, 2)
        return Drawn(spread, drawn.counts)


#: A recipe's `sampler` -> the class of which `pixels` are the keys.
SAMPLERS: Registry[type[Sampler]] = Registry(
    "sampler",
    "wsoltrain.samplers",
    {
        "dips": f"{__name__}:Dips",
        "dips_released": f"{__name__}:ReleasedDips",
        "trcam": f"{__name__}:OtsuRegion",
        "fcam": f"{__name__}:ErodedRegion",
        "tedloc": f"{__name__}:OnPatches",
    },
    base=f"{__name__}:Sampler",
)


@dataclass(frozen=True)
class _Candidates:
    """Pixels that may be drawn, bool [B, P] each, weights of the foreground, and images with any."""

    fg: Tensor
    bg: Tensor
    weight: Tensor | None
    kept_out: Tensor
    usable: Tensor


def draw_in_boxes(pseudo: Pseudo, rule: Sampler, *, seed: int, epoch: int) -> Drawn:
    """Draw foreground inside of a row's boxes by activation, and background anywhere outside of them all.

    For hand-drawn boxes, which are certain where pseudo-labels are not: as many pixels as `rule` draws. A row
    without a box has background alone.
    """
    assert pseudo.boxes is not None  # noqa: S101 - the caller's
    height, width = pseudo.maps.shape[-2:]
    inside = _inside(pseudo.boxes, height, width, touched=False).any(1).flatten(1)
    touched = _inside(pseudo.boxes, height, width, touched=True).any(1).flatten(1)
    n_fg, n_bg = (int(getattr(rule, name, getattr(rule, "n", 1))) for name in ("n_fg", "n_bg"))
    same = {name: getattr(rule, name) for name in ("dilation", "draw") if hasattr(rule, name)}
    drawing = OtsuRegion(n_fg=n_fg, n_bg=n_bg, balanced=False, **same)
    weight = pseudo.maps.mean(1).flatten(1) + _TINY
    candidates = _Candidates(inside, ~touched, weight, touched, torch.ones_like(pseudo.rows, dtype=torch.bool))
    return _draw(candidates, pseudo, drawing, seed=seed, epoch=epoch)


def _share(share: float, of: Tensor) -> Tensor:
    """Number of candidates: a share of counts int64 [B], rounded down as in the released code, but at least one."""
    return (share * of).floor().to(torch.int64).clamp_min(1)


def _draw(given: _Candidates, pseudo: Pseudo, rule: Drawing, *, seed: int, epoch: int) -> Drawn:
    batch, pixels = given.fg.shape
    height, width = pseudo.maps.shape[-2:]
    there = torch.stack([given.fg.sum(1), given.bg.sum(1)])
    wanted = there.new_tensor([[rule.n_fg], [rule.n_bg]])
    count = torch.minimum(there, wanted)
    if rule.balanced:
        count = count.amin(0).expand(2, -1)
    noise = (rule.noise(pseudo, purpose, pixels, seed=seed, epoch=epoch) for purpose in (_FG, _BG))
    fg = race(next(noise), given.fg, given.weight, count[0], rule.n_fg)
    bg = race(next(noise), given.bg, None, count[1], rule.n_bg)
    if rule.dilation > 1:
        sides = torch.stack([fg, bg], 1).view(batch, 2, height, width).float()
        fg, bg = max_pool2d(sides, rule.dilation, 1, rule.dilation // 2).bool().flatten(2).unbind(1)
        bg = bg & ~given.kept_out
    labels = torch.full((batch, pixels), IGNORE, device=fg.device)
    labels[fg & ~bg], labels[bg & ~fg] = FOREGROUND, BACKGROUND
    counts = {
        "unlabelled": (labels == IGNORE).all(1).sum(),
        "no_region": (~given.usable).sum(),
        "no_foreground": ((there[0] == 0) & given.usable).sum(),
        "no_background": ((there[1] == 0) & given.usable).sum(),
        "short": ((there < wanted).any(0) & given.usable).sum(),
    }
    return Drawn(labels.view(batch, height, width), counts)


def _inside(boxes: Tensor, height: int, width: int, *, touched: bool) -> Tensor:
    """Pixels of boxes [B, K, 4], bool [B, K, H, W]: those whose centre lies in one, or that one touches at all."""
    spread = 0.5 if touched else 0.0
    axes = []
    for low, high, length in ((1, 3, height), (0, 2, width)):
        centre = torch.arange(length, device=boxes.device) + 0.5
        near, far = boxes[..., low, None], boxes[..., high, None]
        first = centre + spread > near if touched else centre >= near
        axes.append(first & (centre - spread < far) & (far > near))
    down, across = axes
    return down[..., :, None] & across[..., None, :]
