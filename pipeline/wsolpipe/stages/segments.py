"""Segments of the image: regions of like pixels, which refine any map of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec
from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import Array, Batch, Rows, Stage, StageParams, Upstream
from wsolpipe.stages.marks import ExecutionOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from wsolpipe.ops.deep_clusters import Clustering


def felzenszwalb(image: NDArray[np.uint8], *, scale: float, sigma: float, min_size: int) -> NDArray[np.uint16]:
    """Segments that grow where colours differ little (Felzenszwalb and Huttenlocher, IJCV 2004).

    Parameters
    ----------
    image : uint8 array [H, W, 3]
    scale : float
        Higher values give larger segments.
    sigma : float
        Of the Gaussian that smooths the image first, pixels.
    min_size : int
        Smaller segments are merged into a neighbour, pixels.

    Returns
    -------
    uint16 array [H, W]
        Labels from 0.
    """
    from skimage.segmentation import felzenszwalb as segment

    return _small(segment(image, scale=scale, sigma=sigma, min_size=min_size))


def slic(image: NDArray[np.uint8], *, pieces: int, compactness: float) -> NDArray[np.uint16]:
    """Superpixels of about equal size (Achanta et al., "SLIC superpixels", PAMI 2012).

    Parameters
    ----------
    image : uint8 array [H, W, 3]
    pieces : int
        About how many.
    compactness : float
        Higher values give squarer ones.

    Returns
    -------
    uint16 array [H, W]
        Labels from 0.
    """
    from skimage.segmentation import slic as segment

    return _small(segment(image, n_segments=pieces, compactness=compactness, start_label=0, channel_axis=-1))


def _small(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
    most = np.iinfo(np.uint16).max  # of the number of segments too, which is one more than the last label
    if labels.max() >= most:
        msg = f"{labels.max() + 1} segments are more than the {most} that a store counts"
        raise ConfigError(msg, hint="ask for larger segments")
    return labels.astype(np.uint16)


_LEVEL = 9  # labels are read often and written once: a third less room than at zstd's default, in under 1 ms a row
_BATCH = 16  # images decoded side by side; results do not depend on it
_STREAM = 23  # of random draws
#: Superpixels that may be asked for.
MOST = (1 << 16) - 1
#: Parameters that each method reads, beside `size`.
READS = {
    "felzenszwalb": ("scale", "sigma", "min_size"),
    "slic": ("pieces", "compactness"),
    "dic": (
        "dic_size", "dic_superpixels", "dic_compactness", "dic_width", "dic_labels", "dic_bases", "dic_rounds",
        "dic_steps", "dic_least", "dic_lr", "dic_momentum", "dic_seed",
    ),
}  # fmt: skip


class SegmentsParams(StageParams):
    """Parameters of `Segments`.

    Attributes
    ----------
    method
        How regions are found: felzenszwalb (graph of colour differences), slic (superpixels of equal size) or dic (a
        small network trained on each image; hundreds of times slower, for a GPU)
    size
        Side of the label maps, to which the whole image is squashed
    scale
        felzenszwalb: higher values give larger segments
    sigma
        felzenszwalb: standard deviation of the Gaussian that smooths the image first
    min_size
        felzenszwalb: smaller segments are merged into a neighbour
    pieces
        slic: about how many superpixels
    compactness
        slic: higher values give squarer superpixels
    dic_size
        dic: side of the image that the network sees, an even number
    dic_superpixels
        dic: superpixels inside which the most frequent label counts
    dic_compactness
        dic: higher values give squarer superpixels
    dic_width
        dic: channels of the first level; the others have twice as many
    dic_labels
        dic: channels of the output
    dic_bases
        dic: centres of expectation and maximisation
    dic_rounds
        dic: rounds of their estimation
    dic_steps
        dic: steps of training at most
    dic_least
        dic: training ends once there are fewer labels
    dic_lr
        dic: learning rate of SGD
    dic_momentum
        dic: momentum of SGD
    dic_seed
        dic: seed of the first weights, with the row
    dic_images
        dic: networks that a GPU trains side by side, halved where they do not fit; about 6 of 224 pixels take 4 GiB. A
        CPU trains one after the other
    """

    method: Literal["felzenszwalb", "slic", "dic"]
    size: Annotated[int, Field(ge=8, le=4096), Unit("pixels")]
    scale: Annotated[float, Field(gt=0, le=1e9)]
    sigma: Annotated[float, Field(ge=0, le=100), Unit("pixels")]
    min_size: Annotated[int, Field(ge=1, le=100_000), Unit("pixels")]
    pieces: Annotated[int, Field(ge=1, le=MOST)]
    compactness: Annotated[float, Field(ge=1e-3, le=1e6)]
    dic_size: Annotated[int, Field(ge=8, le=1024), Unit("pixels")]
    dic_superpixels: Annotated[int, Field(ge=1, le=MOST)]
    dic_compactness: Annotated[float, Field(ge=1e-3, le=1e6)]
    dic_width: Annotated[int, Field(ge=1, le=1024), Unit("channels")]
    dic_labels: Annotated[int, Field(ge=2, le=1024)]
    dic_bases: Annotated[int, Field(ge=1, le=1024)]
    dic_rounds: Annotated[int, Field(ge=0, le=1000)]
    dic_steps: Annotated[int, Field(ge=1, le=100_000), Unit("steps")]
    dic_least: Annotated[int, Field(ge=1)]
    dic_lr: Annotated[float, Field(gt=0, le=100)]
    dic_momentum: Annotated[float, Field(ge=0, lt=1)]
    dic_seed: Annotated[int, Field(ge=0)]
    dic_images: Annotated[int, Field(ge=1, le=4096), ExecutionOnly(), Unit("images")]

    @model_validator(mode="after")
    def _even(self) -> SegmentsParams:
        if self.dic_size % 2:
            msg = "dic_size is an even number of pixels"
            raise ValueError(msg)
        return self

    def in_key(self) -> dict[str, Any]:
        """Name the stages that the method reads."""
        values = super().in_key()
        return {name: values[name] for name in ("method", "size", *READS[self.method])}


class Segments(Stage[SegmentsParams]):
    """One label for each pixel, and the number of segments.

    Nothing is asked of the image but its pixels, so one run serves every stage of maps, whatever network made it.

    References
    ----------
    Felzenszwalb and Huttenlocher, IJCV 2004. SLIC: Achanta et al., PAMI 2012. Deep image clustering: as MOLT refines
    its maps, with the module of Li et al., ICCV 2019.
    """

    def arrays(self) -> dict[str, ArraySpec]:
        """Declare the arrays that the class describes: labels and their number."""
        size = self.params.size
        return {
            "labels": ArraySpec(
                dtype="uint16",
                shape=(size, size),
                level=_LEVEL,
                meaning="segment of each pixel, from 0; the whole image, squashed",
            ),
            "count": ArraySpec(dtype="uint16", meaning="segments of the row; 0 without a result"),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:  # noqa: ARG002
        """Segment these rows; a broken image is quarantined."""
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        side = self.params.dic_size if self.params.method == "dic" else self.params.size
        find = self._networks if self.params.method == "dic" else self._one_by_one
        for batch in rows.batches(self.grain(), lambda image, _: resize(image, (side, side))):
            for position, labels in find(batch, rows) if batch.present() else ():
                made["labels"][position] = labels
                made["count"][position] = int(labels.max()) + 1
            self.context.progress(batch.stop, len(rows))
        return made

    def grain(self) -> int:
        """Whole batches."""
        return self.params.dic_images if self.params.method == "dic" else _BATCH

    def batch_key(self) -> str:
        """The networks side by side; no other method has a batch on a device."""
        return "dic_images" if self.params.method == "dic" else super().batch_key()

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Any]:  # noqa: ARG002
        """Segments in all, and rows that are one segment, which refines nothing."""
        return {"segments": int(arrays["count"].sum()), "rows_of_one_segment": int((arrays["count"] == 1).sum())}

    def _one_by_one(self, batch: Batch[Array], rows: Rows) -> list[tuple[int, Array]]:  # noqa: ARG002
        segment = self._segmenter()
        found = []
        for _, position, image in batch.present():
            self.context.check()
            found.append((position, segment(image)))
        return found

    def _segmenter(self) -> Callable[[Array], Array]:

        params = self.params
        if params.method == "slic":
            return lambda image: slic(image, pieces=params.pieces, compactness=params.compactness)
        return lambda image: felzenszwalb(image, scale=params.scale, sigma=params.sigma, min_size=params.min_size)

    def _networks(self, batch: Batch[Array], rows: Rows) -> list[tuple[int, Array]]:
        """One network for each image.

        On a GPU there are always as many as slots, so that a row's labels do not depend on which others are usable: how
        many groups a convolution has decides by which kernel it is computed.
        """
        from wsolpipe.ops.deep_clusters import cluster_images

        params, side = self.params, self.params.dic_size
        on_cpu = self.context.device == "cpu"
        slots = [slot for slot, item in enumerate(batch.items) if item is not None or not on_cpu]
        images, numbers = batch.stack(side, side, 3)[slots], batch.pick(rows.numbers.tolist())
        pieces = [slic(image, pieces=params.dic_superpixels, compactness=params.dic_compactness) for image in images]
        seeds = [(_STREAM, params.dic_seed, numbers[slot]) for slot in slots]
        found = cluster_images(
            images, pieces, seeds, self._plan(), device=self.context.device, check=self.context.check
        )
        at = (np.arange(params.size) + 0.5) * side / params.size
        nearest = at.astype(np.int64)
        labels = dict(zip(slots, found, strict=True))
        return [(position, labels[slot][nearest[:, None], nearest]) for slot, position, _ in batch.present()]

    def _plan(self) -> Clustering:
        from wsolpipe.ops.deep_clusters import Clustering

        return Clustering(**{name: getattr(self.params, f"dic_{name}") for name in Clustering.__dataclass_fields__})
