"""CLIPSeg's drawing of where an image's classes are, as TrCAM-V uses it beside class activation maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.kinds import Unit
from wsolpipe.models.class_names import fill_templates, require_templates
from wsolpipe.stages.map_stage import MapStage, class_slots, map_arrays
from wsolpipe.stages.marks import ExecutionOnly, WeightsSource
from wsolpipe.stages.param_types import NamedParams, ReadsNames, require_tiling

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from wsolpipe.contract.schema import ArraySpec
    from wsolpipe.models.saved_models import ClipSeg
    from wsolpipe.stages.base import Advice, Array, Rows


class ClipsegCamsParams(NamedParams):
    """Parameters of `ClipsegCams`, beside those of every stage that reads class names.

    Attributes
    ----------
    weights
        Name of a CLIPSeg on the Hugging Face hub, or a folder as transformers saves it
    prompt
        Template with {} where the name goes
    slots
        Maps a row, of its first labels
    size
        Side to which the whole image is squashed, a multiple of the patch size; 352 is that of the released code
    resolution
        Side of the stored maps, which are means of equal squares; divides size; null: size
    normalisation
        Mean and standard deviation of the input: imagenet (as CLIPSeg was trained) or clip
    batch
        Images in one forward pass
    """

    weights: Annotated[str, WeightsSource()]
    prompt: str
    slots: Annotated[int, Field(ge=1), Unit("maps")]
    size: Annotated[int, Field(ge=1), Unit("pixels")]
    resolution: Annotated[Annotated[int, Field(ge=1)] | None, Unit("pixels")]
    normalisation: Literal["imagenet", "clip"]
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")]

    @field_validator("prompt")
    @classmethod
    def _takes_a_name(cls, value: str) -> str:
        require_templates([value])
        return value


class ClipsegCams(ReadsNames, MapStage[ClipsegCamsParams]):
    """Sigmoid of CLIPSeg's logits for the first labels of a row.

    A row whose maps are not finite, or which has no label, is quarantined.

    References
    ----------
    Lüddecke and Ecker, "Image segmentation using text and image prompts", CVPR 2022.
    """

    stage = "clipseg_cams"
    maps_are = "CLIPSeg maps"
    no_target = ()

    clipseg: ClipSeg

    @classmethod
    def weights_needed(cls, params: ClipsegCamsParams) -> dict[str, str]:
        """The folder, under the name ``model``."""
        return {"model": f"transformers:{params.weights.removeprefix('transformers:')}"}

    @classmethod
    def advice(cls, params: ClipsegCamsParams) -> tuple[Advice, ...]:
        """Words that say what is to be found."""
        names = ("clipseg_cams.classes=FILE", "a list of class names as captions have them")
        prompt = ("clipseg_cams.prompt=…", "a prompt that names the objects as captions do")
        return (prompt, names) if params.classes is None else (prompt,)

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
        from wsolpipe.models.saved_models import load_clipseg
        from wsolpipe.networks.sources import IMAGENET

        params, context = self.params, self.context
        self.names = params.names(context)
        weights = context.weights["model"]
        assert weights.path is not None
        self.clipseg = load_clipseg(weights.path, name=weights.source, device=context.device)
        self._require_tiling()
        self.preprocessing = IMAGENET if params.normalisation == "imagenet" else (CLIP_MEAN, CLIP_STD)
        self.side = params.size
        self.resolution = params.resolution or params.size
        self._texts: dict[int, torch.Tensor] = {}

    def _require_tiling(self) -> None:
        size = self.params.size
        require_tiling(size, self.clipseg.patch, parameter="clipseg_cams.size", model=self.clipseg.name)
        if self.params.resolution and size % self.params.resolution:
            msg = f"clipseg_cams.resolution={self.params.resolution} does not divide size={size}"
            raise ConfigError(msg, hint=f"set clipseg_cams.resolution={size // 4}, or null")

    def arrays(self) -> dict[str, ArraySpec]:
        """Declare the arrays that the class describes: maps, their range and their classes."""
        return map_arrays(
            self.params.slots,
            (self.resolution, self.resolution),
            meaning="CLIPSeg's probability of the row's labels",
            optional=True,
            unit="probability",
        )

    def make_maps(
        self,
        pixels: Array,
        targets: Sequence[Sequence[int]],
        numbers: Sequence[int],  # noqa: ARG002
    ) -> tuple[Array, Array]:
        """Probabilities before storage.

        Parameters
        ----------
        pixels : uint8 array [B, S, S, 3]
            RGB.
        targets : sequence of B sequences of at most `slots` int
            Classes of each image.

        Returns
        -------
        maps : float32 array [B, slots, r, r]
            Any value where there is no class.
        classes : int32 array [B, slots]
            -1 where there is none.
        """
        import torch
        from torch.nn.functional import avg_pool2d

        slots = self.params.slots
        texts = torch.stack([torch.stack(self._padded(known)) for known in targets])
        images = self.clipseg.normalise(pixels, *self.preprocessing)
        maps = self.clipseg.logits(images, texts).sigmoid()
        return np.asarray(avg_pool2d(maps, self.side // self.resolution).float().cpu().numpy()), class_slots(
            targets, slots
        )

    def _padded(self, labels: Sequence[int]) -> list[torch.Tensor]:
        """Texts of labels, each encoded once and alone, and the last again up to `slots`."""
        known = labels or [min(self.names.prompts)]
        for label in known:
            if label not in self._texts:
                prompt = fill_templates([self.params.prompt], self.names.prompt(label))
                self._texts[label] = self.clipseg.encode_text(prompt)[0]
        return [self._texts[known[min(slot, len(known) - 1)]] for slot in range(self.params.slots)]

    def targets_of(self, rows: Rows) -> list[list[int]]:
        """First labels of each row, without repeats; rows without a label are quarantined."""
        reason = "no label: the map is that of the row's own classes"
        return [known[: self.params.slots] for known in self.label_lists(rows, reason, self.names.prompt)]
