"""The scoring classifier of a store as a frozen judge of masked images (DiPS workshop): gradients flow to its input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.contract.reader import open_store
from wsolpipe.networks.architectures import build_timm
from wsolpipe.networks.classifier import WEIGHTS_FILE, parse_classifier
from wsolpipe.networks.weights import load_into

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.networks.classifier import ClassifierRecord
    from wsoltrain.data.config import Labelling

_LINEAR = "classifier.features=pooled"


class Judge(nn.Module):
    """A frozen classifier of timm with its preprocessing.

    Parameters
    ----------
    record : ClassifierRecord
        As the stage recorded it.
    tensors : mapping of str to Tensor
        Its state.

    Raises
    ------
    WeightsError
        If they do not fit each other.
    ConfigError
        If it reads other features than timm's own head does.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, record: ClassifierRecord, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        if record.features != "pooled":
            msg = f"a classifier on {record.features} features cannot judge masked images"
            raise ConfigError(msg, hint=f"wsolpipe run stage=classifier {_LINEAR} …")
        self.size, self.outputs = record.size, record.outputs
        self.net = build_timm(record.model, record.model_args, outputs=record.outputs, size=record.size)
        load_into(self.net, tensors, what=f"the classifier {record.model}")
        self.register_buffer("mean", torch.tensor(record.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(record.std)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.eval()

    def normalised(self, rgb: Tensor) -> Tensor:
        """Pixels uint8 [B, 3, H, W] -> float32 in the classifier's units, of the same size."""
        scaled: Tensor = (rgb.float() / 255 - self.mean) / self.std
        return scaled

    def forward(self, image: Tensor) -> Tensor:
        """Class logits of what `normalised` gave, squashed to the classifier's own size."""
        if image.shape[-2:] != (self.size, self.size):
            image = interpolate(image, (self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.net(image)
        return logits


def load_judge(labelling: Labelling, *, file: str | None, classes: int) -> Judge:
    """Load the classifier that a store's stage ``classifier`` made, the newest, or one of its files.

    Parameters
    ----------
    labelling : Labelling
        Store and data set.
    file : str or None
        ``model.safetensors`` of such a stage, instead of the store's.
    classes : int
        Number of classes that labels count.

    Raises
    ------
    NotFoundError
        If the store has none; names the command that makes it.
    WeightsError, ConfigError
        If the file is not such a classifier, or one of fewer classes.
    """
    content, where = _bytes(labelling, file)
    record, tensors = parse_classifier(content, where)
    judge = Judge(record, tensors)
    if judge.outputs < classes:
        msg = f"{where} knows {judge.outputs} classes, the data set has {classes}"
        raise ConfigError(msg, hint=labelling.command("classifier"))
    return judge


def _bytes(labelling: Labelling, file: str | None) -> tuple[bytes, str]:
    if file is None:
        artifact = open_store(labelling.store)[labelling.dataset].artifact("classifier")
        return artifact.read(WEIGHTS_FILE), f"classifier {artifact.key}"
    try:
        return Path(file).read_bytes(), file
    except OSError as error:
        msg = f"classifier={file} cannot be read: {error.strerror}"
        raise WeightsError(msg, hint="classifier=model.safetensors of a stage classifier") from error
