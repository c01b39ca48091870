"""CLIPSeg's drawing of where an image's classes are, as TrCAM-V uses it beside class activation maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import ArraySpec
from wsolpipe.images.geometry import resize
from wsolpipe.keys.kinds import Unit
from wsolpipe.models.class_names import fill_templates, require_templates
from wsolpipe.stages.base import ExecutionOnly, Stage, StageParams, WeightsSource
from wsolpipe.stages.param_types import NamedParams, ReadsNames, require_tiling

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from wsolpipe.models.clipseg import ClipSeg
    from wsolpipe.stages.base import Array, Rows, Upstream


class ClipsegCamsParams(NamedParams):
    """Parameters of `ClipsegCams`, beside those of every stage that reads class names."""

    weights: Annotated[str, WeightsSource()] = Field(
        description="Name of a CLIPSeg on the Hugging Face hub, or a folder as transformers saves it"
    )
    prompt: str = Field(description="Template with {} where the name goes")
    slots: Annotated[int, Field(ge=1), Unit("maps")] = Field(description="Maps a row, of its first labels")
    size: Annotated[int, Field(ge=1), Unit("pixels")] = Field(
        description="Side to which the whole image is squashed, a multiple of the patch size; 352 is that of the "
        "released code"
    )
    resolution: Annotated[Annotated[int, Field(ge=1)] | None, Unit("pixels")] = Field(
        description="Side of the stored maps, which are means of equal squares; divides size; null: size"
    )
    normalisation: Literal["imagenet", "clip"] = Field(
        description="Mean and standard deviation of the input: imagenet (as CLIPSeg was trained) or clip"
    )
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")] = Field(
        description="Images in one forward pass"
    )

    @field_validator("prompt")
    @classmethod
    def _takes_a_name(cls, value: str) -> str:
        require_templates([value])
        return value


class ClipsegCams(ReadsNames, Stage[ClipsegCamsParams]):
    """Sigmoid of CLIPSeg's logits for the first labels of a row.

    A row whose maps are not finite, or which has no label, is quarantined.
    """

    Params: ClassVar[type[StageParams]] = ClipsegCamsParams

    clipseg: ClipSeg

    @classmethod
    def weights_needed(cls, params: ClipsegCamsParams) -> dict[str, str]:
        """The folder, under the name ``model``."""
        return {"model": f"transformers:{params.weights.removeprefix('transformers:')}"}

    def setup(self) -> None:
        """Load the network.

        Raises
        ------
        ConfigError
            If the class list does not fit, or the patches do not tile the size.
        WeightsError
            If the folder holds no whole CLIPSeg.
        """
        from wsolpipe.models.clip_config import CLIP_MEAN, CLIP_STD
        from wsolpipe.models.clipseg import load_clipseg
        from wsolpipe.networks.preprocessing import IMAGENET

        params, context = self.params, self.context
        self.names = params.names(context)
        weights = context.weights["model"]
        assert weights.path is not None
        self.clipseg = load_clipseg(weights.path, name=weights.source, device=context.device)
        self._require_tiling()
        self.preprocessing = IMAGENET if params.normalisation == "imagenet" else (CLIP_MEAN, CLIP_STD)
        self.resolution = params.resolution or params.size
        self._texts: dict[int, torch.Tensor] = {}

    def _require_tiling(self) -> None:
        size = self.params.size
        require_tiling(size, self.clipseg.patch, parameter="clipseg_cams.size", model=self.clipseg.name)
        if self.params.resolution and size % self.params.resolution:
            msg = f"clipseg_cams.resolution={self.params.resolution} does not divide size={size}"
            raise ConfigError(msg, hint=f"set clipseg_cams.resolution={size // 4}, or null")

    def arrays(self) -> dict[str, ArraySpec]:
        """Maps, their range and their classes; see the class."""
        slots, side = self.params.slots, self.resolution
        return {
            "maps": ArraySpec(
                dtype="uint8",
                shape=(slots, side, side),
                unit="1/255 of the map's range",
                meaning="CLIPSeg's probability of the row's labels; min-max per map",
            ),
            "range": ArraySpec(
                dtype="float32",
                shape=(slots, 2),
                fill="nan",
                unit="probability",
                meaning="low and high of each map: levels 0 and 255; NaN where there is no map",
            ),
            "class_ids": ArraySpec(
                dtype="int32", shape=(slots,), fill=-1, meaning="class of each map, -1 where there is none"
            ),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:  # noqa: ARG002
        """Make the maps of these rows; a batch is always full, so a row's maps do not depend on its neighbours.

        Raises
        ------
        ConfigError
            If a label has no name.
        """
        from wsolpipe.maps import quantise

        labels = self._labels(rows)
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        for batch in rows.batches(self.params.batch, self.squash):
            if batch.present():
                wanted = batch.pick(labels)
                maps = self.draw(batch.stack(self.params.size, self.params.size, 3), wanted)
                for slot, position, _ in batch.present():
                    count = len(wanted[slot])
                    if np.isfinite(maps[slot, :count]).all():
                        levels, limits = quantise(maps[slot, :count])
                        made["maps"][position, :count], made["range"][position, :count] = levels, limits
                        made["class_ids"][position, :count] = wanted[slot]
                    else:
                        rows.quarantine(position, "CLIPSeg maps hold NaN or infinite values")
            self.context.progress(batch.stop, len(rows))
        return made

    def squash(self, image: Array, position: int) -> Array:  # noqa: ARG002
        """What CLIPSeg sees of one image: all of it, uint8 [S, S, 3]."""
        return resize(image, (self.params.size, self.params.size))

    def draw(self, pixels: Array, labels: list[list[int]]) -> Array:
        """Maps before storage.

        Parameters
        ----------
        pixels : uint8 array [B, S, S, 3]
            RGB.
        labels : list of B lists of at most `slots` int
            Classes of each image.

        Returns
        -------
        float32 array [B, slots, r, r]
            Probabilities; any value where there is no class.
        """
        import torch
        from torch.nn.functional import avg_pool2d

        texts = torch.stack([torch.stack(self._padded(known)) for known in labels])
        images = self.clipseg.normalise(pixels, *self.preprocessing)
        maps = self.clipseg.logits(images, texts).sigmoid()
        return np.asarray(avg_pool2d(maps, self.params.size // self.resolution).float().cpu().numpy())

    def _padded(self, labels: list[int]) -> list[torch.Tensor]:
        """Texts of labels, each encoded once and alone, and the last again up to `slots`."""
        known = labels or [min(self.names.prompts)]
        for label in known:
            if label not in self._texts:
                prompt = fill_templates([self.params.prompt], self.names.prompt(label))
                self._texts[label] = self.clipseg.encode_text(prompt)[0]
        return [self._texts[known[min(slot, len(known) - 1)]] for slot in range(self.params.slots)]

    def _labels(self, rows: Rows) -> list[list[int]]:
        """First labels of each row, without repeats; rows without a label are given up."""
        found = []
        for position, labels in enumerate(rows.columns["labels"]):
            known = list(dict.fromkeys(int(label) for label in labels))[: self.params.slots]
            if rows.usable(position):
                for label in known:
                    self.names.prompt(label)
                if not known:
                    rows.quarantine(position, "no label: the map is that of the row's own classes")
            found.append(known if rows.usable(position) else [])
        return found
