"""Where patches of CLIP agree with the text of a class: vanilla CLIP, SCLIP and NACLIP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.map_stage import MapStage, map_arrays
from wsolpipe.stages.marks import ExecutionOnly
from wsolpipe.stages.param_types import (
    AsksClip,
    ClipParams,
    Distinct,
    OneOrMore,
    Resize,
    Stretch,
    TargetWord,
    require_tiling,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from wsolpipe.contract.schema import ArraySpec
    from wsolpipe.models.clip import Clip, Reached
    from wsolpipe.models.clip_texts import NameVectors
    from wsolpipe.stages.base import Array, Rows

Method = Literal["vanilla", "sclip", "naclip"]
TOP = 5


class TextMapsParams(ClipParams):
    """Parameters of `TextMaps`, beside those of every stage that asks a CLIP.

    Attributes
    ----------
    methods
        One or several of vanilla, sclip and naclip; they share all blocks but the last
    target
        Class whose map is made: true (the row's first label), predicted (the likeliest by CLIP's own embedding of the
        image), or top5 (the five likeliest, best first)
    size
        Side to which the whole image is squashed, a multiple of the patch size; null: that of the model's training
    resize
        Filter of the resize
    positions
        How position embeddings are stretched to another grid than that of training: bicubic (or timm) as open_clip
        does, dino as SCLIP and NACLIP do, or bilinear
    sigma
        Standard deviation of the Gaussian of naclip
    batch
        Images in one forward pass
    """

    methods: Annotated[tuple[Method, ...], Field(min_length=1), OneOrMore, Distinct]
    target: Annotated[Literal["true", "predicted", "top5"], TargetWord]
    size: Annotated[Annotated[int, Field(ge=1)] | None, Unit("pixels")]
    resize: Resize
    positions: Stretch
    sigma: Annotated[float, Field(gt=0), Unit("patches")]
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")]

    def in_key(self) -> dict[str, Any]:
        """Nothing that is not used."""
        values = super().in_key()
        if "naclip" not in self.methods:
            del values["sigma"]
        return values


class TextMaps(AsksClip, MapStage[TextMapsParams]):
    """Cosines of M methods for T targets at the patches' own resolution: slot ``m * T + t`` of the maps' axis.

    A row whose maps are not finite, or which has no label where one is asked for, is quarantined.

    References
    ----------
    CLIP: Radford et al., ICML 2021. SCLIP: Wang, Mei and Yuille, ECCV 2024, equation 3. NACLIP: Hajimiri, Ben Ayed and
    Dolz, WACV 2025.
    """

    stage = "text_maps"
    maps_are = "patch and text maps"

    clip: Clip
    methods: dict[str, Callable[[Clip, Reached], torch.Tensor]]
    vectors: NameVectors

    def setup(self) -> None:
        """Load the CLIP.

        Raises
        ------
        ConfigError
            If the model or the class list do not fit, or the patches do not tile the size.
        WeightsError
            If the weights do not fit the model.
        """
        from wsolpipe.models.clip import naclip_patches, sclip_patches, vanilla_patches
        from wsolpipe.models.clip_texts import NameVectors

        params, context = self.params, self.context
        self.names = params.names(context)
        self.clip = params.load_clip(context, positions=params.positions)
        self.side = params.size or self.clip.size
        require_tiling(self.side, self.clip.patch, parameter="text_maps.size", model=self.clip.name)
        self.grid = (self.side // self.clip.patch, self.side // self.clip.patch)
        known: dict[str, Callable[[Clip, Reached], torch.Tensor]] = {
            "vanilla": vanilla_patches,
            "sclip": sclip_patches,
            "naclip": partial(naclip_patches, sigma=params.sigma),
        }
        self.methods = {name: known[name] for name in params.methods}
        self.vectors = NameVectors(self.clip, self.names, params.prompts)
        self.no_target = self.vectors.labels[0]
        self.targets = min(TOP, len(self.names)) if params.target == "top5" else 1

    def arrays(self) -> dict[str, ArraySpec]:
        """Declare the arrays that the class describes: maps, their range and their classes."""
        slots = len(self.methods) * self.targets
        meaning = f"cosine of patch and class text by {', '.join(self.methods)} in this order"
        return map_arrays(slots, self.grid, meaning=meaning)

    def fit(self, image: Array, position: int) -> Array:  # noqa: ARG002
        """Return what CLIP sees of one image: all of it, uint8 [S, S, 3]."""
        return resize(image, (self.side, self.side), smooth=self.params.resize)

    def make_maps(self, pixels: Array, targets: Sequence[int], numbers: Sequence[int]) -> tuple[Array, Array]:  # noqa: ARG002
        """Compute the maps of a batch before they are quantised.

        Parameters
        ----------
        pixels : uint8 array [B, S, S, 3]
            RGB.
        targets : sequence of B int
            Labels, used where ``target`` is ``true``.

        Returns
        -------
        maps : float32 array [B, M * T, h, w]
        classes : int32 array [B, M * T]
        """
        import torch

        from wsolpipe.models.clip import image_vectors, text_maps

        with torch.no_grad():
            reached = self.clip.reach(self.clip.normalise(pixels))
            classes = [[label] for label in targets]
            if self.params.target != "true":
                classes = self.vectors.likeliest(image_vectors(self.clip, reached), self.targets)
            texts, _ = self.vectors.rows(classes)
            found = [text_maps(patches(self.clip, reached), texts, reached.grid) for patches in self.methods.values()]
        return torch.cat(found, dim=1).cpu().numpy(), np.tile(np.array(classes, np.int32), (1, len(found)))

    def targets_of(self, rows: Rows) -> list[int]:
        """Label of each row, any where it does not matter; rows that need one and have none are quarantined."""
        if self.params.target != "true":
            return [0] * len(rows)
        return self.true_labels(rows, self.names.prompt)
