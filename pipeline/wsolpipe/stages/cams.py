"""Class activation maps of the scoring classifier: CAM and its relatives, all from one forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.kinds import Unit
from wsolpipe.ops.cam_methods import METHODS
from wsolpipe.stages.base import Advice, Array, Rows, StageParams
from wsolpipe.stages.map_stage import MapStage, map_arrays
from wsolpipe.stages.marks import AsBefore, ExecutionOnly
from wsolpipe.stages.param_types import Distinct, OneOrMore, TargetWord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from wsolpipe.contract.schema import ArraySpec
    from wsolpipe.networks.features import FeatureMaps, Pass

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[tuple(METHODS)]
TOP = 5
#: Masked copies of an image in one pass: not ``batch``, so that a result does not depend on it.
MASKED = 32


class CamsParams(StageParams):
    """Parameters of `Cams`.

    Attributes
    ----------
    methods
        One or several of cam, gradcam, gradcam++, smooth-gradcam++, xgradcam, layercam, score-cam and nl-ccam; several
        cost little more than one, except for smooth-gradcam++ and for score-cam, which runs the network once for each
        feature
    target
        Class whose map is made: true (the row's first label), predicted, or top5 (the five likeliest, best first)
    layer
        Dotted name of a module of the classifier; null: the last features
    fuse
        Layers, shallow to deep, whose layercam maps are fused by their maximum on the finest grid, as in its paper;
        null: the one map of layer
    samples
        Noisy copies of the image for smooth-gradcam++
    noise
        Standard deviation of that noise, as a share of the span of the normalised image
    combination
        How nl-ccam weighs classes by rank: quadratic or linear
    positive
        Classes that count positively in nl-ccam's quadratic combination; null: half; 100: released code
    seed
        Seed of the noise, drawn for each row from (seed, row)
    batch
        Images in one forward pass
    """

    methods: Annotated[tuple[Method, ...], Field(min_length=1), OneOrMore, Distinct]
    target: Annotated[Literal["true", "predicted", "top5"], TargetWord]
    layer: str | None
    fuse: Annotated[Annotated[tuple[str, ...], Field(min_length=2), Distinct] | None, AsBefore(None)]
    samples: Annotated[int, Field(ge=1), Unit("copies")]
    noise: Annotated[float, Field(gt=0)]
    combination: Literal["quadratic", "linear"]
    positive: Annotated[int | None, Field(ge=1), AsBefore(None), Unit("classes")]
    seed: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(ge=1), ExecutionOnly(), Unit("images")]

    @model_validator(mode="after")
    def _fusable(self) -> CamsParams:
        if self.fuse and (self.methods != ("layercam",) or self.layer is not None):
            msg = "fuse= is for methods=layercam alone and in place of layer=: its maps have the finest layer's grid"
            raise ValueError(msg)
        return self

    def in_key(self) -> dict[str, Any]:
        """No parameter of a method that is not made."""
        values = super().in_key()
        special = {name for method in METHODS.values() for name in method.params}
        used = {name for method in self.methods for name in METHODS[method].params}
        return {name: value for name, value in values.items() if name not in special - used}


class Cams(MapStage[CamsParams]):
    """Maps of M methods for T targets at the layer's own resolution: slot ``m * T + t`` of the maps' axis.

    A row whose maps are not finite, or which has no label where one is asked for, is quarantined.

    References
    ----------
    CAM: Zhou et al., CVPR 2016, eq. 2. Grad-CAM: Selvaraju et al., ICCV 2017, eq. 1 and 2. Grad-CAM++: Chattopadhay
    et al., WACV 2018, eq. 5, 10 and 19. Smooth Grad-CAM++: Omeiza et al., 2019, eq. 8. XGrad-CAM: Fu et al., BMVC 2020,
    eq. 8. LayerCAM: Jiang et al., TIP 2021, eq. 5 to 7. Score-CAM: Wang et al., CVPR workshops 2020, algorithm 1.
    NL-CCAM: Yang et al., WACV 2020, section 3.2.
    """

    stage = "cams"
    maps_are = "activation maps"
    no_target = 0

    makers: tuple[FeatureMaps, ...]
    maker: FeatureMaps

    @classmethod
    def advice(cls, params: CamsParams) -> tuple[Advice, ...]:
        """Methods that are not made yet."""
        other = [method for method in ("layercam", "gradcam++") if method not in params.methods]
        return ((f"cams.methods=[{','.join(other)}]", "other methods of the same classifier"),) if other else ()

    def setup(self) -> None:
        """Load the classifier and open it at the layer.

        Raises
        ------
        ConfigError
            If the layer is not there, a method is not defined for this network, or the classes are not the data set's.
        """
        from wsolpipe.networks.features import FeatureMaps

        context = self.context
        self.classifier = context.load_classifier()
        record = self.classifier.record
        self.makers = tuple(FeatureMaps(self.classifier, layer) for layer in self.params.fuse or (self.params.layer,))
        self.maker = max(self.makers, key=lambda each: each.layout.grid)  # of those that are fused the finest
        where = f"layer {self.maker.layer}" if self.maker.layer else "its last features"
        wanting = [method for method in self.params.methods if "weight" in METHODS[method].reads]
        if wanting and self.maker.weight is None:
            msg = (
                f"{' and '.join(wanting)} need logits that are a linear function of the mean of the features, and "
                f"those of {record.model} at {where} are not"
            )
            raise ConfigError(msg, hint="cams.methods=gradcam works for every network")
        closed = [method for method in self.params.methods if METHODS[method].closed_form]
        if closed and self.maker.bends():
            context.warn(
                f"{' and '.join(closed)} take higher derivatives as powers of the first, as their papers and every "
                f"implementation do; that is exact where logits are piecewise linear in the features, and those of "
                f"{record.model} at {where} are not"
            )
        self.side = record.size
        self.targets = min(TOP, record.outputs) if self.params.target == "top5" else 1

    def arrays(self) -> dict[str, ArraySpec]:
        """Declare the arrays that the class describes: maps, their range and their classes."""
        slots = len(self.params.methods) * self.targets
        kind = {"true": "the true class", "predicted": "the likeliest class"}.get(
            self.params.target, f"the {self.targets} likeliest classes"
        )
        meaning = f"maps of {', '.join(self.params.methods)} in this order, each for {kind}"
        return map_arrays(slots, self.maker.layout.grid, meaning=meaning)

    def make_maps(self, pixels: Array, targets: Sequence[int], numbers: Sequence[int]) -> tuple[Array, Array]:
        """Maps before storage.

        Parameters
        ----------
        pixels : uint8 array [B, S, S, 3]
            RGB.
        targets : sequence of B int
            Labels, used where ``target`` is ``true``.
        numbers : sequence of B int
            Row numbers, which seed the noise of ``smooth-gradcam++``.

        Returns
        -------
        maps : float32 array [B, M * T, h, w]
        classes : int32 array [B, M * T]
        """
        import torch

        from wsolpipe.ops.cam import Seen

        methods = self.params.methods
        needed = {name for method in methods for name in METHODS[method].reads}
        images = self.classifier.normalise(torch.from_numpy(pixels).to(self.classifier.mean.device))
        run = self.maker(images)
        classes = self._classes(run.logits.detach(), targets)
        if self.params.fuse:
            return self._fused(images, classes, run)
        seen = Seen(
            features=run.features,
            gradients=run.gradients(classes) if "gradients" in needed else None,
            logits=run.logits.detach(),
            classes=classes,
            weight=self.maker.weight,
            combination=self.params.combination,
            positive=self.params.positive,
            noisy=self._noisy(images, classes, numbers) if "noisy" in needed else None,
            masked=self._masked(images, run.features, classes) if "masked" in needed else None,
        )
        with torch.no_grad():
            maps = torch.cat([METHODS[method](seen) for method in methods], dim=1)
        ids = classes.repeat(1, len(methods))
        return np.asarray(maps.cpu().numpy()), np.asarray(ids.cpu().numpy()).astype(np.int32)

    def _fused(self, images: torch.Tensor, classes: torch.Tensor, own: Pass) -> tuple[Array, Array]:
        from wsolpipe.ops.cam import fused_layercam, layercam

        runs = [own if maker is self.maker else maker(images) for maker in self.makers]
        maps = fused_layercam([layercam(run.features, run.gradients(classes)) for run in runs])
        return np.asarray(maps.cpu().numpy()), np.asarray(classes.cpu().numpy()).astype(np.int32)

    def _masked(self, images: torch.Tensor, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Logits of the targets for each image masked by each feature, [B, T, C]; images do not share a pass."""
        import torch

        from wsolpipe.ops.cam import masks_of

        found = []
        with torch.no_grad():
            for image, own, chosen in zip(images, features, classes, strict=True):
                size = (image.shape[-2], image.shape[-1])
                parts = (masks_of(some, size)[:, None] for some in own.split(MASKED))
                found.append(torch.cat([self.classifier(image * part).float() for part in parts])[:, chosen].T)
        return torch.stack(found)

    def targets_of(self, rows: Rows) -> list[int]:
        """Label of each row, 0 where it does not matter; rows that need one and have none are quarantined."""
        from wsolpipe.networks.classifier import refuse_label

        if self.params.target != "true":
            return [0] * len(rows)
        return self.true_labels(rows, lambda label: refuse_label(label, self.classifier.record, self.context.dataset))

    def _classes(self, logits: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
        import torch

        if self.params.target == "true":
            return torch.tensor(labels, device=logits.device)[:, None]
        return logits.argsort(dim=1, descending=True, stable=True)[:, : self.targets]

    def _noisy(self, images: torch.Tensor, classes: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        """Gradients of noisy copies, [samples, B, T, C, h, w]."""
        import torch

        draws = [np.random.default_rng([self.params.seed, row]) for row in numbers]
        span = (images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3)))[:, None, None, None]
        found = []
        for _ in range(self.params.samples):
            noise = np.stack([rng.standard_normal(images.shape[1:], np.float32) for rng in draws])
            moved = images + self.params.noise * span * torch.from_numpy(noise).to(images.device)
            found.append(self.maker(moved).gradients(classes))
        return torch.stack(found)
