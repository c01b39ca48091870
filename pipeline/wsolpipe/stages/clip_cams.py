"""CLIP-ES: where CLIP sees the words for an image's classes, refined by its own attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from wsolpipe.contract.errors import BadImageError
from wsolpipe.contract.schema import ArraySpec, Status
from wsolpipe.images.geometry import resize, tiled_size
from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.map_stage import MapStage, class_slots, map_arrays
from wsolpipe.stages.marks import ExecutionOnly
from wsolpipe.stages.param_types import AsksClip, ClipParams, OneOrMore, Resize, Stretch, TargetWord, require_tiling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wsolpipe.models.clip import Clip
    from wsolpipe.models.clip_cam import ClipCam
    from wsolpipe.models.clip_texts import NameVectors
    from wsolpipe.networks.classifier import ImageClassifier
    from wsolpipe.stages.base import Array, Batch, Rows

#: Longest side of images that keep their aspect where none is given; all of PASCAL VOC fits.
LONGEST = 512
#: Images in one forward on a processor: with more, what a block makes no longer fits its cache.
AT_A_TIME = 8
#: Parameters of the affinity alone.
AFFINITY = {"attention_blocks", "box_threshold"}


class ClipCamsParams(ClipParams):
    """Parameters of `ClipCams`, beside those of every stage that asks a CLIP.

    Attributes
    ----------
    background
        Words that compete in the softmax, one or a list; null: those of the class list
    target
        Classes whose maps are made: true (the row's labels), predicted (the likeliest by CLIP's own embedding of the
        image) or classifier (the likeliest by the scoring classifier)
    slots
        Maps a row: of its first labels, or of the likeliest classes
    geometry
        square squashes the image; keep rounds each side up to a multiple of the patch, as CLIP-ES does
    size
        Side of the square, null: that of the model's training; with geometry=keep the longest side, null: 512
    resize
        Filter of the resize
    normalisation
        Mean and standard deviation of the input: clip (those of the model) or imagenet (as TrCAM fed CLIP)
    positions
        How position embeddings are stretched to another grid than that of training: bilinear as CLIP-ES does, bicubic
        (or timm) as open_clip does, or dino as SCLIP does
    softmax
        Explain the probability among present classes and background; false: the logit of the class alone
    temperature
        Divisor of the logits before the softmax
    affinity
        Refine maps by the attention between patches (class-aware attention affinity)
    attention_blocks
        Last blocks whose attention is averaged for affinity
    box_threshold
        Share of a map's highest level above which a region gives a box of affinity: 0.4 for VOC, 0.7 for COCO
    batch
        Images in one forward pass; at most 8 on a CPU
    """

    background: Annotated[tuple[str, ...] | None, OneOrMore]
    target: Annotated[Literal["true", "predicted", "classifier"], TargetWord]
    slots: Annotated[int, Field(ge=1), Unit("maps")]
    geometry: Literal["square", "keep"]
    size: Annotated[Annotated[int, Field(ge=1)] | None, Unit("pixels")]
    resize: Resize
    normalisation: Literal["clip", "imagenet"]
    positions: Stretch
    softmax: bool
    temperature: Annotated[float, Field(gt=0)]
    affinity: bool
    attention_blocks: Annotated[int, Field(ge=1), Unit("blocks")]
    box_threshold: Annotated[float, Field(ge=0, lt=1)]
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")]

    def in_key(self) -> dict[str, Any]:
        """Nothing that is not used."""
        values = super().in_key()
        unused = set() if self.affinity else set(AFFINITY)
        unused |= set() if self.softmax else {"temperature"}
        return {name: value for name, value in values.items() if name not in unused}


class ClipCams(AsksClip, MapStage[ClipCamsParams]):
    """Class activation maps of a CLIP (Lin et al., "CLIP is also an efficient segmenter", CVPR 2023).

    The mean of the patch tokens after the last block is compared with the texts; the gradient of a class's probability
    is taken at the first layer norm of that block; the map is spread by the attention of the last blocks.

    A class that nothing in the image speaks for has a map of zeros: after the ReLU nothing is left, or what is left is
    the same everywhere (uniform attention). It is kept, and counted as ``zero_maps``. A row whose maps are not finite,
    which has no label where one is asked for, or whose image is smaller than a patch where its aspect is kept, is
    quarantined. With ``geometry=keep`` images of one grid run together, so the last bits of a map may depend on how
    many of a batch share its grid.

    References
    ----------
    CLIP-ES: Lin et al., "CLIP is also an efficient segmenter", CVPR 2023, sections 3.1 (maps) and 3.3 (affinity).
    """

    stage = "clip_cams"
    maps_are = "CLIP maps"
    no_target = ()

    clip: Clip
    cam: ClipCam
    vectors: NameVectors
    classifier: ImageClassifier

    @classmethod
    def needs(cls, params: ClipCamsParams, declared: tuple[str, ...]) -> tuple[str, ...]:
        """The classifier, where it chooses the classes."""
        return declared if params.target == "classifier" else ()

    def setup(self) -> None:
        """Load the CLIP and encode the background words.

        Raises
        ------
        ConfigError
            If the model, the class list or its names do not fit, the patches do not tile the size, or the classifier's
            classes are not the data set's.
        WeightsError
            If the weights do not fit the model.
        """
        from wsolpipe.models.clip_cam import ClipCam
        from wsolpipe.models.clip_texts import NameVectors
        from wsolpipe.networks.sources import IMAGENET

        params, context = self.params, self.context
        self.names = params.names(context)
        background = self.names.background if params.background is None else params.background
        self._warn_of_one_text(len(background))
        self.clip = params.load_clip(context, positions=params.positions)
        if params.normalisation == "imagenet":
            self.clip.mean, self.clip.std = IMAGENET
        self.side = params.size or (self.clip.size if params.geometry == "square" else LONGEST)
        if params.geometry == "square":
            require_tiling(self.side, self.clip.patch, parameter="clip_cams.size", model=self.clip.name)
        self.vectors = NameVectors(self.clip, self.names, params.prompts, background)
        self.targets = min(params.slots, len(self.names)) if params.target == "predicted" else params.slots
        if params.target == "classifier":
            self.classifier = context.load_classifier()
            self.targets = min(params.slots, self.classifier.record.outputs)
        self.cam = ClipCam(
            self.clip,
            self.vectors.background,
            softmax=params.softmax,
            temperature=params.temperature if params.softmax else 1.0,
            attention_blocks=params.attention_blocks if params.affinity else 0,
            threshold=params.box_threshold,
        )

    def _warn_of_one_text(self, background: int) -> None:
        if self.params.softmax and not background and self.params.slots == 1:
            self.context.warn(
                "clip_cams: no background words, so the probability of an image's only class is always 1 and its map "
                "all zero; name some (clip_cams.background=[ground,sky], or in the class list), or set "
                "clip_cams.softmax=false"
            )

    def arrays(self) -> dict[str, ArraySpec]:
        """Declare maps, their range and classes, and the grid of each row where the aspect is kept."""
        side = -(-self.side // self.clip.patch)
        kind = "the row's labels" if self.params.target == "true" else "the likeliest classes"
        refined = ", refined by attention" if self.params.affinity else ""
        made = map_arrays(self.targets, (side, side), meaning=f"CLIP maps of {kind}{refined}", optional=True)
        if self.params.geometry == "keep":
            made["grid_hw"] = ArraySpec(
                dtype="uint16", shape=(2,), meaning="rows and columns of the row's maps, which are padded with 0"
            )
        return made

    def batch_size(self) -> int:
        """Images in one forward; on a processor no more than `AT_A_TIME`."""
        return min(self.params.batch, AT_A_TIME) if self.context.device == "cpu" else self.params.batch

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Any]:
        """Maps, and those of them that show no place."""
        usable = rows.status == Status.OK
        there = (arrays["class_ids"] >= 0) & usable[:, None]
        return {"maps": int(there.sum()), "zero_maps": int((there & (arrays["range"][..., 1] == 0)).sum())}

    def fit(self, image: Array, position: int) -> Array:  # noqa: ARG002
        """Return what the CLIP sees of one image: all of it, uint8 [H, W, 3], tiled by patches.

        Raises
        ------
        BadImageError
            If the aspect is kept and the image is smaller than a patch.
        """
        size, patch = (self.side, self.side), self.clip.patch
        if self.params.geometry == "keep":
            height, width = image.shape[:2]
            if min(height, width) < patch:
                msg = f"the image of {height} x {width} pixels is smaller than a patch of {patch}"
                raise BadImageError(msg, hint="clip_cams.geometry=square enlarges it")
            size = tiled_size((height, width), patch, longest=self.side)
        return resize(image, size, smooth=self.params.resize)

    def make_maps(
        self,
        pixels: Array,
        targets: Sequence[Sequence[int]],
        numbers: Sequence[int],  # noqa: ARG002
    ) -> tuple[Array, Array]:
        """Maps before storage.

        Parameters
        ----------
        pixels : uint8 array [B, H, W, 3]
            RGB, tiled by patches.
        targets : sequence of B sequences of int
            Present classes, not used where ``target`` is ``predicted``; may be empty.

        Returns
        -------
        maps : float32 array [B, T, h, w]
            In [0, 1]; any value where there is no class.
        classes : int32 array [B, T]
            -1 where there is none.
        """
        from torch.nn.functional import normalize

        opened = self.cam.open(self.clip.normalise(pixels))
        present = targets
        if self.params.target == "predicted":
            present = self.vectors.likeliest(normalize(opened.image, dim=-1), self.targets)
        names, there = self.vectors.rows(present, at_least=self.targets)
        maps = self.cam.maps(opened, names, there, self.targets)
        if self.params.affinity:
            maps = self.cam.refined(opened, maps)
        classes = class_slots(present, self.targets)
        on_grid = maps.reshape(*maps.shape[:2], *opened.grid).float().cpu().numpy()
        return np.where((classes >= 0)[..., None, None], on_grid, np.float32(0)), classes

    def groups(self, batch: Batch[Array]) -> Iterator[tuple[list[int | None], Array]]:
        """The whole batch; where aspects are kept, its images of one size together."""
        if self.params.geometry == "square":
            yield from super().groups(batch)
            return
        groups: dict[tuple[int, ...], list[tuple[int, Array]]] = {}
        for _, position, image in batch.present():
            groups.setdefault(image.shape, []).append((position, image))
        for group in groups.values():
            yield [position for position, _ in group], np.stack([image for _, image in group])

    def targets_of(self, rows: Rows) -> list[list[int]]:
        """Labels of each row, without repeats; rows that need one and have none are quarantined."""
        if self.params.target == "predicted":
            return [[] for _ in range(len(rows))]
        if self.params.target == "classifier":
            return self._classified(rows)
        reason = "no label: the map is that of the true class (or clip_cams.target=predicted)"
        return self.label_lists(rows, reason, self.names.prompt)

    def _classified(self, rows: Rows) -> list[list[int]]:
        """Likeliest classes of each row by the classifier, best first; unreadable rows are quarantined."""
        import torch

        side = self.classifier.record.size
        found: list[list[int]] = [[] for _ in range(len(rows))]
        for batch in rows.batches(self.batch_size(), lambda image, _: resize(image, (side, side))):
            if batch.present():
                logits = self.classifier.logits(torch.from_numpy(batch.stack(side, side, 3)).to(self.context.device))
                order = logits.argsort(dim=1, descending=True, stable=True)[:, : self.targets].tolist()
                for slot, position, _ in batch.present():
                    found[position] = order[slot]
            self.context.check()
        return found
