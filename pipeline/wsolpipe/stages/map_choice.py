"""Blocks, scale and size of the class-token maps, chosen by how stable the maps are: no label and no box is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from wsolpipe.contract.errors import BadImageError, ConfigError, DataError
from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit
from wsolpipe.maps.foreground import largest_otsu_box
from wsolpipe.metrics.boxes import iou_matrix
from wsolpipe.stages.base import Array, ArtifactStage, Made, Rows
from wsolpipe.stages.cls_maps import CHOICE, ClsMaps, ClsMapsParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


_STREAM = 41  # of random draws
#: Size, blocks and scale.
Way = tuple[int, tuple[int, ...], str]


class MapChoiceParams(ClsMapsParams):
    """Parameters of `MapChoice`; those that cls_maps has too follow it, and what is not auto there is tried alone.

    Attributes
    ----------
    sizes
        Sizes that are tried, in pixels; each is taken to the nearest multiple of the patch
    scales
        Scales that are tried
    images
        Images that are drawn from the split; 64 to 128 are enough
    split
        Split that they are drawn from
    """

    sizes: tuple[Annotated[int, Field(ge=16)], ...] = Field(min_length=1)
    scales: tuple[Literal["linear", "sqrt", "log"], ...] = Field(min_length=1)
    images: Annotated[int, Field(ge=2, le=10_000), Unit("images")]
    split: str


class MapChoice(ArtifactStage[MapChoiceParams]):
    """Tries each size, set of blocks and scale on some images, and keeps the way whose maps are the most stable.

    Stability compares ways of reading one network and says nothing of the network's worth: that of random weights may
    be as high.
    """

    @classmethod
    def weights_needed(cls, params: MapChoiceParams) -> dict[str, str]:
        """The transformer's weights, under the name ``model``."""
        return ClsMaps.weights_needed(params)

    @classmethod
    def splits_needed(cls, params: MapChoiceParams) -> tuple[str, ...]:
        """The split that images are drawn from."""
        return (params.split,)

    @classmethod
    def rows_read(cls, params: MapChoiceParams, rows: int) -> int:
        """At most `MapChoiceParams.images`."""
        return min(rows, params.images)

    @classmethod
    def without_split(cls, params: MapChoiceParams, split: str) -> str | None:  # noqa: ARG003
        """Another split, or a choice of your own."""
        return "draw from another split, map_choice.split=NAME, or give cls_maps.blocks, cls_maps.scale, cls_maps.size"

    def produce(self, splits: Mapping[str, Rows]) -> Made:
        """Score every way.

        Raises
        ------
        ConfigError
            If the model is no vision transformer with a class token, or no size fits it.
        DataError
            If no image can be read.
        """

        readers = self._readers()
        ways = [way for reader in readers for way in self._ways(reader)]
        scores: dict[Way, list[float]] = {way: [] for way in ways}
        count = 0
        for images in self._batches(splits[self.params.split]):
            count += len(images)
            for reader in readers:
                own = self._ways(reader)
                boxes = [self._boxes(reader, own, views) for views in _views(images, reader.side)]
                for way, *found in zip(own, *boxes, strict=True):
                    scores[way] += [stability(*three) for three in zip(*found, strict=True)]
            self.context.progress(count, self.params.images)
        if not count:
            msg = f"no image of {self.params.split} can be read"
            raise DataError(msg, hint="wsolpipe quarantine lists what is wrong with them")
        means = [float(np.mean(scores[way])) for way in ways]
        best = most_stable(means)
        tried = [
            {"size": size, "blocks": list(blocks), "scale": scale, "stability": round(mean, 4)}
            for (size, blocks, scale), mean in zip(ways, means, strict=True)
        ]
        summary = {**tried[best], "images": count, "tried": tried}
        return Made(files={CHOICE: f"{json.dumps(summary, indent=1)}\n".encode()}, summary=summary)

    def _readers(self) -> list[ClsMaps]:
        """The transformer at each size that fits it, with the attention of every block."""
        from wsolpipe.networks.vit import ClassTokenAttention

        params = self.params
        sizes = list(params.sizes) if params.size == "auto" else [params.size]
        found: list[ClsMaps] = []
        for asked in sizes:
            patch = found[0].reader.vit.patch_embed.patch_size[0] if found else 1
            size = max(1, round(asked / patch)) * patch
            made = ClsMaps(params.model_copy(update={"size": size, "blocks": None, "scale": "linear"}), self.context)
            try:
                made.setup()
            except ConfigError as error:
                if not found:
                    raise
                self.context.warn(f"map_choice does not try size {size}: {error.message}")
                continue
            if not isinstance(made.reader, ClassTokenAttention):
                msg = f"cls_maps.blocks=auto, scale=auto and size=auto read class tokens, and {params.model} has none"
                raise ConfigError(msg, hint="give cls_maps.blocks, cls_maps.scale and cls_maps.size")
            vit = made.reader.vit
            made.reader = ClassTokenAttention(vit, range(len(vit.blocks)), model=params.model)
            made.reader.to(made.device)
            found.append(made)
        return found

    def _ways(self, reader: ClsMaps) -> list[Way]:
        """Size, blocks and scale of each setting that a reader serves."""
        from wsolpipe.networks.vit import block_numbers

        params, depth = self.params, len(reader.reader.vit.blocks)
        sets = block_sets(depth) if params.blocks == "auto" else [block_numbers(params.blocks, depth)]
        scales = params.scales if params.scale == "auto" else (params.scale,)
        return [(reader.side, blocks, scale) for blocks in sets for scale in scales]

    def _batches(self, rows: Rows) -> Iterator[list[Array]]:
        """Drawn images, decoded once for all sizes and views."""
        usable = [position for position in range(len(rows)) if rows.usable(position)]
        drawn = np.random.default_rng((self.context.seed, _STREAM)).permutation(len(usable))[: self.params.images]
        images: list[Array] = []
        for place in sorted(drawn.tolist()):
            self.context.check()
            try:
                images.append(rows.load(usable[place]))
            except BadImageError:
                continue
            if len(images) == self.params.batch:
                yield images
                images = []
        if images:
            yield images

    def _boxes(self, reader: ClsMaps, ways: list[Way], pixels: Array) -> list[list[Array]]:
        """Otsu boxes of some images [B, S, S, 3], as shares of the input image: a list of B for each reading."""
        import torch

        from wsolpipe.networks.attention import mean_and_heads

        found = []
        attention = reader.attention(pixels)
        with torch.inference_mode():
            for _, blocks, scale in ways:
                maps = mean_and_heads(
                    attention[:, list(blocks)], heads=reader.heads, scale=scale, power=self.params.power
                )[:, 0]
                found.append([otsu_box_of(one) for one in maps.float().cpu().numpy()])
        return found


def _views(images: list[Array], side: int) -> Iterator[Array]:
    """The images, the mirrored and the cropped ones, each uint8 [B, side, side, 3]."""

    plain = np.stack([resize(image, (side, side)) for image in images])
    yield plain
    yield np.stack([mirrored(image) for image in plain])
    yield np.stack([resize(np.ascontiguousarray(cropped(image)), (side, side)) for image in images])


#: Share of each side that the cropped image lacks at each end.
CROP = 0.08


def cropped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of an image [H, W, 3], without `CROP` of each side; at least a pixel."""
    height, width = image.shape[:2]
    top, left = int(round(CROP * height)), int(round(CROP * width))
    return image[top : max(height - top, top + 1), left : max(width - left, left + 1)]


def otsu_box_of(score: NDArray[Any]) -> Floats:
    """Box [4] of a map's largest Otsu region as shares of the image; the whole image for a constant map."""
    found = largest_otsu_box(score, (1, 1))
    return np.array([0.0, 0.0, 1.0, 1.0]) if found is None else found.astype(np.float64)


def stability(plain: Floats, mirrored: Floats, cut: Floats) -> float:
    """The smaller of two IoUs: with the box of the mirrored image and with that of the cropped one.

    Parameters
    ----------
    plain, mirrored, cut : float64 [4]
        Boxes of the three maps, each as shares of the image that the network saw.

    Returns
    -------
    float
        In [0, 1].
    """
    back = np.array([1 - mirrored[2], mirrored[1], 1 - mirrored[0], mirrored[3]])
    inside = np.clip(plain, CROP, 1 - CROP)
    whole = CROP + cut * (1 - 2 * CROP)
    return float(min(_iou(plain, back), _iou(inside, whole)))


def _iou(one: Floats, other: Floats) -> float:
    return float(np.nan_to_num(iou_matrix(one[None], other[None])[0, 0]))


def block_sets(depth: int) -> list[tuple[int, ...]]:
    """Sets of blocks that are tried: the last one, two, four and so on, and the one before the last.

    Examples
    --------
    >>> [(first[0], first[-1]) for first in block_sets(12)]
    [(11, 11), (10, 10), (10, 11), (9, 11), (8, 11), (6, 11), (0, 11)]
    """
    sizes = (1, 2, max(depth // 4, 1), max(depth // 3, 1), max(depth // 2, 1), depth)
    sets = [tuple(range(depth - min(size, depth), depth)) for size in sizes]
    return list(dict.fromkeys([sets[0], (max(depth - 2, 0),), *sets[1:]]))


def most_stable(scores: Sequence[float]) -> int:
    """Place of the greatest score, the first of equals."""
    return int(np.argmax(np.asarray(scores, np.float64)))


def mirrored(image: Array) -> Array:
    """The image [H, W, 3] with left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


def rows_seen(rows: Rows, drawn: Array, change: Callable[[Array], Array]) -> Rows:
    """Some rows of a split, their images changed before anything sees them."""
    columns = {name: [values[at] for at in drawn.tolist()] for name, values in rows.columns.items()}
    return Rows(rows.numbers[drawn], columns, lambda at: change(rows.load(int(drawn[at]))), threads=rows.threads)


def search(count: int, shares: Sequence[float], values: Callable[[tuple[float, ...]], Array]) -> tuple[float, ...]:
    """Weights of sum 1 with a high mean value: the best of `count` maps alone, then one more at a time.

    Parameters
    ----------
    count : int
        Maps.
    shares : sequence of float
        What a further map is tried with; the weights of the others shrink by that.
    values : callable
        Value of each row under some weights, float64 [n].

    Returns
    -------
    tuple of float
        0 for each map that no mixture with the best so far gains by.
    """
    alone = [tuple(float(at == place) for at in range(count)) for place in range(count)]
    found = {weights: float(values(weights).mean()) for weights in alone}
    best = max(alone, key=found.__getitem__)
    while not all(best):
        more = [_mixed(best, at, share) for at in range(count) if not best[at] for share in shares]
        found |= {weights: float(values(weights).mean()) for weights in more}
        leader = max(more, key=found.__getitem__)
        if found[leader] <= found[best]:
            break
        best = leader
    return best


def _mixed(weights: tuple[float, ...], at: int, share: float) -> tuple[float, ...]:
    return tuple(round(share if place == at else w * (1 - share), 4) for place, w in enumerate(weights))
