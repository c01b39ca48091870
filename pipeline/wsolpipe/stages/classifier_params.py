"""Parameters of the stage `classifier`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wsolpipe.keys.kinds import Unit
from wsolpipe.stages.base import StageParams
from wsolpipe.stages.marks import ExecutionOnly, WeightsSource

Share = Annotated[float, Field(ge=0, le=1)]
#: Parameters that an imported classifier depends on.
IMPORTED = ("model", "model_args", "mean", "std", "size")


class ClassifierParams(StageParams):
    """Parameters of `Classifier`.

    Attributes
    ----------
    model
        Name of a timm model
    model_args
        Arguments of timm.create_model, such as classifier.model_args.pad_type=same
    mode
        import: weights= is the finished classifier; probe: train a linear layer on frozen features of start=; finetune:
        train all tensors from start=; auto: import if weights= is given, else finetune
    weights
        File of a finished classifier to import; null trains one
    start
        Weights that training starts from: a file, timm:NAME or random:SEED; null: timm's weights of the model
    mean
        Mean of the input, (rgb / 255 - mean) / std, one number or three; null: what the weights record, else timm's
        value for the model
    std
        Standard deviation of the input, one number or three; null: as for mean
    size
        Side of the input, to which the whole image is squashed
    features
        Features that a probe sees: pooled (timm's own pooling), class_mean (class token beside the mean patch token) or
        class_last4 (class tokens of the last four blocks)
    epochs
        Passes over the training images
    batch
        Images a training step; an incomplete last batch of an epoch is left out
    lr
        Learning rate of SGD
    momentum
        Momentum of SGD
    nesterov
        Use Nesterov momentum
    weight_decay
        Weight decay of SGD; spares tensors with one axis when all tensors are trained
    schedule
        Schedule of the learning rate: cosine (to zero over all steps), step (times lr_gamma every lr_step epochs) or
        constant
    lr_step
        Epochs between drops of the learning rate with schedule=step
    lr_gamma
        Factor of each drop with schedule=step
    warmup
        Epochs over which the learning rate rises linearly from zero
    head_lr
        Factor on the learning rate of the last layer when all tensors are trained
    label_smoothing
        Share of the target spread evenly over all classes
    frozen_bn
        Keep statistics, weight and bias of every BatchNorm layer when all tensors are trained: for weights whose
        BatchNorm is folded in, and for small batches
    resize
        Side to which training images are squashed before they are cropped to size; null: 256 for each 224 of size
    flip
        Probability that a training image is mirrored
    min_crop
        Smallest crop of a training image, as a share of its area; 1 crops a window of size
    views
        Views of each image whose features a probe learns from: the whole image, and the rest cropped and mirrored
    seed
        Seed of the order of images, of views and of new tensors
    measure
        Splits on which accuracy is reported, where the data set has them
    measure_rows
        Most rows of each split that are measured, evenly spread; 0: all
    cache_mib
        Memory for squashed training images; the rest is decoded again each epoch
    """

    model: str
    model_args: dict[str, Any]
    mode: Literal["auto", "import", "probe", "finetune"]
    weights: Annotated[str | None, WeightsSource()]
    start: Annotated[str | None, WeightsSource()]
    mean: float | tuple[float, float, float] | None
    std: float | tuple[float, float, float] | None
    size: Annotated[int, Field(ge=8), Unit("pixels")]
    features: Literal["pooled", "class_mean", "class_last4"]
    epochs: Annotated[int, Field(ge=1), Unit("epochs")]
    batch: Annotated[int, Field(ge=1), Unit("images")]
    lr: Annotated[float, Field(gt=0)]
    momentum: Share
    nesterov: bool
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "step", "constant"]
    lr_step: Annotated[int, Field(ge=1), Unit("epochs")]
    lr_gamma: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0), Unit("epochs")]
    head_lr: Annotated[float, Field(gt=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    frozen_bn: bool
    resize: Annotated[int | None, Unit("pixels")]
    flip: Share
    min_crop: Annotated[float, Field(gt=0, le=1)]
    views: Annotated[int, Field(ge=1), Unit("views")]
    seed: Annotated[int, Field(ge=0)]
    measure: Annotated[tuple[str, ...], ExecutionOnly()]
    measure_rows: Annotated[int, Field(ge=0), ExecutionOnly(), Unit("rows")]
    cache_mib: Annotated[int, Field(ge=0), ExecutionOnly(), Unit("MiB")]

    @model_validator(mode="after")
    def _agree(self) -> ClassifierParams:
        if self.mode == "import" and self.weights is None:
            msg = "mode=import needs the classifier's file: classifier.weights=FILE"
            raise ValueError(msg)
        if self.way != "import" and self.weights is not None:
            msg = f"weights= is a finished classifier; mode={self.way} trains one from start=: classifier.start=FILE"
            raise ValueError(msg)
        if self.way == "finetune" and self.features != "pooled":
            msg = f"features={self.features} is for mode=probe"
            raise ValueError(msg)
        if self.resize is not None and self.resize < self.size:
            msg = f"resize={self.resize} is smaller than size={self.size}, which is cropped from it"
            raise ValueError(msg)
        return self

    @property
    def way(self) -> Literal["import", "probe", "finetune"]:
        """The mode that is used: that of ``auto`` where `mode` says so."""
        if self.mode == "auto":
            return "finetune" if self.weights is None else "import"
        return self.mode

    def in_key(self) -> dict[str, Any]:
        """The parameters that change results: no training parameters where nothing is trained."""
        values = {**super().in_key(), "mode": self.way}
        if self.way == "import":
            return {name: values[name] for name in ("mode", *IMPORTED)}
        if self.way == "probe" or not self.frozen_bn:
            del values["frozen_bn"]  # unfrozen is what keys meant before there was a choice
        if self.way == "probe":
            del values["head_lr"]
        else:
            del values["views"]
        return values
