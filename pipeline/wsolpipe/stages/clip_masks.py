"""Pseudo-masks from CLIP maps, sharpened by a dense CRF, with doubtful pixels left out: how CLIP-ES ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import Array, Rows, Stage, StageParams, Upstream

#: Level of pixels that are left out.
IGNORED = 255


class ClipMasksParams(StageParams):
    """Parameters of `ClipMasks`.

    Attributes
    ----------
    size
        Side of the masks, to which the whole image is squashed; time and memory grow with its fourth power
    iterations
        Steps of mean-field inference
    confidence
        Probability of the likeliest label below which a pixel is left out
    smooth_xy
        Standard deviation of the smoothness kernel
    smooth_weight
        Weight of the smoothness kernel
    bilateral_xy
        Spatial standard deviation of the appearance kernel
    bilateral_rgb
        Colour standard deviation of the appearance kernel
    bilateral_weight
        Weight of the appearance kernel
    """

    size: Annotated[int, Field(ge=8, le=112), Unit("pixels")]
    iterations: Annotated[int, Field(ge=0), Unit("steps")]
    confidence: Annotated[float, Field(ge=0, le=1)]
    smooth_xy: Annotated[float, Field(gt=0), Unit("pixels of the mask")]
    smooth_weight: Annotated[float, Field(ge=0)]
    bilateral_xy: Annotated[float, Field(gt=0), Unit("pixels of the original image")]
    bilateral_rgb: Annotated[float, Field(gt=0), Unit("levels")]
    bilateral_weight: Annotated[float, Field(ge=0)]


class ClipMasks(Stage[ClipMasksParams]):
    """Make one mask for each row: the background scores one minus the highest map, then a dense CRF, then confidence.

    The authors run the CRF at the size of the image; here it is run at ``size``, with every pair of pixels.

    References
    ----------
    CLIP-ES: Lin et al., "CLIP is also an efficient segmenter", CVPR 2023; its CRF: Krähenbühl and Koltun, NeurIPS 2011.
    """

    def arrays(self) -> dict[str, ArraySpec]:
        """The mask and how much of it is ignored."""
        size = self.params.size
        return {
            "masks": ArraySpec(
                dtype="uint8",
                shape=(size, size),
                fill=IGNORED,
                meaning="0 background, k slot k - 1 of the maps, 255 left out; the whole image, squashed",
            ),
            "ignored": ArraySpec(dtype="float32", unit="share of the image", meaning="pixels that are left out"),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Make the masks of these rows."""
        maps = inputs["clip_cams"]
        rows.need(maps, "clip_cams holds no map of this row")
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        for batch in rows.batches(1, self._small):
            for _, position, (image, size) in batch.present():
                mask = self.cut(self._scores(maps, position), image, size)
                made["masks"][position], made["ignored"][position] = mask, (mask == IGNORED).mean()
            self.context.progress(batch.stop, len(rows))
        return made

    def grain(self) -> int:
        """Any row."""
        return 1

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Any]:
        """Rows without a pixel of foreground."""
        usable = rows.status == Status.OK
        found = ((arrays["masks"] > 0) & (arrays["masks"] < IGNORED)).any(axis=(1, 2))
        return {"empty_masks": int((usable & ~found).sum())}

    def _small(self, image: Array, position: int) -> tuple[Array, tuple[int, int]]:  # noqa: ARG002
        return resize(image, (self.params.size, self.params.size)), (image.shape[0], image.shape[1])

    def _scores(self, maps: Upstream, position: int) -> Array:
        """Maps of one row in [0, 1] at the size of the mask, float32 [T, size, size]; 0 where a slot is empty."""
        from wsolpipe.maps.levels import dequantise
        from wsolpipe.maps.resize import upsample

        levels, limits = maps.arrays["maps"][position], np.nan_to_num(maps.arrays["range"][position])
        if "grid_hw" in maps.arrays:
            height, width = maps.arrays["grid_hw"][position]
            levels = levels[:, :height, :width]
        return upsample(dequantise(levels, limits), (self.params.size, self.params.size))

    def cut(self, scores: Array, image: Array, size: tuple[int, int]) -> Array:
        """Labels of pixels.

        Parameters
        ----------
        scores : float32 array [T, s, s]
            Of the foreground, in [0, 1].
        image : uint8 array [s, s, 3]
        size : (height, width)
            Of the original image.

        Returns
        -------
        uint8 array [s, s]
        """
        import torch

        from wsolpipe.ops.dense_crf import gaussian, mean_field, pixel_features

        params, side = self.params, self.params.size
        device = torch.device(self.context.device)
        foreground = torch.from_numpy(scores).to(device).flatten(1)
        colours = torch.from_numpy(image).to(device).float()
        pixel = (size[0] / side, size[1] / side)
        with torch.no_grad():
            smooth = gaussian(pixel_features(colours, (1.0, 1.0), params.smooth_xy)).mul_(params.smooth_weight)
            alike = pixel_features(colours, pixel, params.bilateral_xy, params.bilateral_rgb)
            neighbours = smooth.add_(gaussian(alike), alpha=params.bilateral_weight)
            background = 1 - foreground.amax(dim=0, keepdim=True)
            found = mean_field(torch.cat([background, foreground]), neighbours, params.iterations)
            share, label = found.max(dim=0)
            label[share < params.confidence] = IGNORED
        return label.to(torch.uint8).reshape(side, side).cpu().numpy()
