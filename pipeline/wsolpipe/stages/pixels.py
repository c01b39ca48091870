"""The images themselves, squashed to one size: for trainers that are far from the files, or slow to decode them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from wsolpipe.contract.schema import ArraySpec
from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import Array, Rows, Stage, StageParams, Upstream

_LEVEL = -1  # photographs hardly shrink: a fifth more room than at zstd's default, in a third of the time to read
_BATCH = 32  # images decoded side by side; results do not depend on it


class PixelsParams(StageParams):
    """Parameters of `Pixels`.

    Attributes
    ----------
    size
        Side to which the whole image is squashed; a trainer that squashes to this side reads its crops as stored
    """

    size: Annotated[int, Field(ge=1), Unit("pixels")]


class Pixels(Stage[PixelsParams]):
    """Decoded RGB images, the whole of each squashed to `size`² (bilinear with antialias), upright, as three planes.

    Copies of the images: ``push`` and ``publish`` leave this stage out unless it is named, since its licence is that of
    the images. A row takes 3·size² bytes, 192 KiB at 256, so a shard of 4,096 rows fills 768 MiB of memory while it is
    made; ``shard_rows=`` makes smaller ones.
    """

    def arrays(self) -> dict[str, ArraySpec]:
        """Declare the array ``rgb``."""
        size = self.params.size
        return {
            "rgb": ArraySpec(
                dtype="uint8",
                shape=(3, size, size),
                level=_LEVEL,
                unit="sRGB level",
                meaning=f"red, green and blue plane of the whole upright image, squashed to {size}x{size}",
            )
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:  # noqa: ARG002
        """Decode and squash these rows in threads; a broken image is quarantined."""
        rgb = self.arrays()["rgb"].empty(len(rows))
        for batch in rows.batches(_BATCH, self.squash):
            for _, position, image in batch.present():
                rgb[position] = image.transpose(2, 0, 1)
            self.context.progress(batch.stop, len(rows))
        return {"rgb": rgb}

    def grain(self) -> int:
        """Whole batches."""
        return _BATCH

    def squash(self, image: Array, position: int) -> Array:  # noqa: ARG002
        """All of one image, uint8 [size, size, 3]."""
        return resize(image, (self.params.size, self.params.size))
