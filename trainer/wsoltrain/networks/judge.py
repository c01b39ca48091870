"""The scoring classifier of a store as a frozen judge of masked images (DiPS workshop): gradients flow to its input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsolpipe.contract.errors import ConfigError, StoreError, WeightsError
from wsolpipe.contract.reader import open_store

if TYPE_CHECKING:
    from wsoltrain.data.config import Labelling

RECORD_KEY = "wsolpipe.classifier"
"""Metadata of the safetensors file in which the stage ``classifier`` says what its tensors are."""
_LINEAR = "classifier.features=pooled"


class Judge(nn.Module):
    """A frozen classifier of timm with its preprocessing.

    Parameters
    ----------
    record : mapping
        ``model``, ``model_args``, ``outputs``, ``size``, ``mean``, ``std`` as the stage recorded them.
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

    def __init__(self, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        import timm

        super().__init__()
        if record.get("features", "pooled") != "pooled":
            msg = f"a classifier on {record['features']} features cannot judge masked images"
            raise ConfigError(msg, hint=f"wsolpipe run stage=classifier {_LINEAR} …")
        self.size, self.outputs = int(record["size"]), int(record["outputs"])
        arguments = dict(record.get("model_args") or {})
        known = timm.get_pretrained_cfg(record["model"])
        if known is not None and known.fixed_input_size and self.size != known.input_size[-1]:
            arguments.setdefault("img_size", self.size)
        try:
            self.net: nn.Module = timm.create_model(
                record["model"], pretrained=False, num_classes=self.outputs, **arguments
            )
            self.net.load_state_dict(tensors)
        except (RuntimeError, TypeError, ValueError) as error:
            msg = f"the classifier {record['model']} cannot be loaded: {error}"
            raise WeightsError(msg, hint="wsolpipe run stage=classifier dataset=… force=true") from error
        self.register_buffer("mean", torch.tensor(record["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(record["std"])[:, None, None], persistent=False)
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
    StoreError
        If the store has none; names the command that makes it.
    WeightsError, ConfigError
        If the file is no such classifier, or one of fewer classes.
    """
    content, where = _bytes(labelling, file)
    record, tensors = _parsed(content, where)
    judge = Judge(record, tensors)
    if judge.outputs < classes:
        msg = f"{where} knows {judge.outputs} classes, the data set has {classes}"
        raise ConfigError(msg, hint=labelling.command("classifier"))
    return judge


def _bytes(labelling: Labelling, file: str | None) -> tuple[bytes, str]:
    if file is None:
        try:
            artifact = open_store(labelling.store)[labelling.dataset].artifact("classifier")
            return artifact.read("model.safetensors"), f"classifier {artifact.key}"
        except StoreError as error:
            raise StoreError(error.message, hint=labelling.command("classifier")) from error
    try:
        return Path(file).read_bytes(), file
    except OSError as error:
        msg = f"classifier={file} cannot be read: {error.strerror}"
        raise WeightsError(msg, hint="classifier=model.safetensors of a stage classifier") from error


def _parsed(content: bytes, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return json.loads(header["__metadata__"][RECORD_KEY]), tensors
    except (SafetensorError, ValueError, KeyError) as error:
        msg = f"{where} is no classifier that wsolpipe made"
        raise WeightsError(msg, hint="wsolpipe run stage=classifier classifier.weights=FILE … imports any") from error
