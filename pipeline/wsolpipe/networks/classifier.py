"""The scoring classifier f_r: any timm model with its preprocessing, as two files that reload to the same logits."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import nn

from wsolpipe.contract.errors import ConfigError, StoreError, WeightsError
from wsolpipe.contract.layout import read_json
from wsolpipe.networks.architectures import build_timm, classifier_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wsolpipe.networks.sources import Triple


Features = Literal["pooled", "class_mean", "class_last4"]

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "classifier.json"
#: Metadata key of the safetensors header that holds the record, so that the file alone can be imported again.
RECORD_KEY = "wsolpipe.classifier"


@dataclass(frozen=True)
class ClassifierRecord:
    """All that is needed beside the tensors to rebuild a classifier.

    Attributes
    ----------
    model : str
        timm name.
    outputs : int
        Number of classes.
    size : int
        Side of the square input; the whole image is squashed to it, nothing is cropped.
    mean, std : (float, float, float)
        Input is ``(rgb / 255 - mean) / std``.
    model_args : mapping
        Further arguments of ``timm.create_model``.
    features : "pooled", "class_mean" or "class_last4"
        What the last linear layer sees: timm's own pooled features, the class token beside the mean patch token of the
        last block, or the class tokens of the last four blocks (as DINO's linear evaluation).
    class_names : mapping of str to str
        Names by label, may name only some; the labels are text so that JSON gives the same record back.
    made : mapping
        How the classifier was made, for people.
    """

    model: str
    outputs: int
    size: int
    mean: Triple
    std: Triple
    model_args: Mapping[str, Any] = field(default_factory=dict)
    features: Features = "pooled"
    class_names: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The record as text that depends on nothing but its values."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ClassifierRecord:
        """Inverse of `to_json`."""
        values = read_json(text)
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


class ImageClassifier(nn.Module):
    """A timm model with its preprocessing.

    Parameters
    ----------
    record : ClassifierRecord
        What to build.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, record: ClassifierRecord) -> None:
        super().__init__()
        self.record = record
        plain = record.features == "pooled"
        self.net = build_timm(record.model, record.model_args, outputs=record.outputs if plain else 0, size=record.size)
        self.head: nn.Linear | None = None
        if not plain:
            if not hasattr(self.net, "get_intermediate_layers") or not getattr(self.net, "num_prefix_tokens", 0):
                msg = f"features={record.features} needs a ViT with a class token, and {record.model} is not one"
                raise ConfigError(msg, hint="classifier.features=pooled")
            blocks = 4 if record.features == "class_last4" else 2
            self.head = nn.Linear(blocks * int(self.net.num_features), record.outputs)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(record.mean).mul(255.0), persistent=False)
        self.register_buffer("scale", torch.tensor(record.std).mul(255.0).reciprocal(), persistent=False)
        # Convolutions over several channels are faster with channels innermost; matrix products do not care.
        convolutions = sum(isinstance(part, nn.Conv2d) for part in self.net.modules())
        products = sum(isinstance(part, nn.Linear) for part in self.net.modules())
        self.memory_format = torch.channels_last if convolutions > products else torch.contiguous_format
        self.to(memory_format=self.memory_format)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Turn pixels into the model's input.

        Parameters
        ----------
        images : Tensor [N, H, W, 3] or [N, 3, H, W], uint8 or float32
            RGB in 0..255; taken as [N, H, W, 3] where the last axis is 3 long.

        Returns
        -------
        Tensor [N, 3, H, W], float32
            In the memory format of the model.
        """
        if images.shape[-1] == 3:
            scaled = (images.float() - self.mean) * self.scale
            return scaled.permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)
        scaled = (images.float() - self.mean[:, None, None]) * self.scale[:, None, None]
        return scaled.contiguous(memory_format=self.memory_format)

    def pooled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the last linear layer sees of normalised inputs [N, 3, H, W]: float32 [N, D]."""
        net: Any = self.net
        kind = self.record.features
        if kind == "pooled":
            result: torch.Tensor = net.forward_head(net.forward_features(inputs), pre_logits=True)
            return result
        layers = net.get_intermediate_layers(
            inputs, n=4 if kind == "class_last4" else 1, return_prefix_tokens=True, norm=True
        )
        if kind == "class_last4":
            return torch.cat([prefix[:, 0] for _, prefix in layers], dim=1)
        ((patches, prefix),) = layers
        return torch.cat([prefix[:, 0], patches.mean(1)], dim=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of normalised inputs: [N, 3, H, W] -> float32 [N, outputs]."""
        result: torch.Tensor = self.net(inputs) if self.head is None else self.head(self.pooled(inputs))
        return result

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of pixels (see `normalise`) that have the model's size already: float32 [N, outputs]."""
        with torch.inference_mode():
            result: torch.Tensor = self(self.normalise(images)).float()
            return result

    def last_layer(self) -> nn.Linear:
        """The linear layer that a probe trains.

        Raises
        ------
        ConfigError
            If the model ends in anything else.
        """
        last = self.head if self.head is not None else self.net.get_classifier()  # type: ignore[operator]
        if not isinstance(last, nn.Linear):
            msg = f"{self.record.model} does not end in one linear layer, so it cannot be probed"
            raise ConfigError(msg, hint="classifier.mode=finetune")
        return last

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors of a file: timm's names for a plain model, else after ``net.`` and ``head.``."""
        part: nn.Module = self.net if self.head is None else self
        return {name: value.detach().cpu().contiguous() for name, value in part.state_dict().items()}

    def take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load what `tensors` gave; names and shapes must fit."""
        part: nn.Module = self.net if self.head is None else self
        part.load_state_dict(dict(tensors))


def save_classifier(classifier: ImageClassifier) -> dict[str, bytes]:
    """Write a classifier as files, the same bytes for the same tensors and record.

    Returns
    -------
    mapping of str to bytes
        ``model.safetensors`` (a plain timm state where ``features`` is ``pooled``; its header repeats the record) and
        ``classifier.json`` (`ClassifierRecord`).
    """
    record = classifier.record
    header = {
        "arch": record.model,
        "mean": json.dumps(record.mean),
        "std": json.dumps(record.std),
        RECORD_KEY: json.dumps(asdict(record), sort_keys=True),
    }
    return {
        WEIGHTS_FILE: with_header(save(classifier.tensors()), header),
        RECORD_FILE: (record.to_json() + "\n").encode(),
    }


def with_header(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Add metadata to safetensors bytes in sorted order.

    The library itself writes metadata in an order that changes from process to process.
    """
    (length,) = struct.unpack("<Q", content[:8])
    tensors = json.loads(content[8 : 8 + length])
    header = json.dumps({"__metadata__": dict(sorted(metadata.items())), **tensors}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def load_classifier(folder: Path, device: str = "cpu") -> ImageClassifier:
    """Load what the stage ``classifier`` made.

    Parameters
    ----------
    folder : Path
        Folder of the artifact's files.
    device : str
        Torch device.

    Returns
    -------
    ImageClassifier
        In evaluation mode, without gradients, in its own memory format.

    Raises
    ------
    StoreError
        If a file is missing or does not fit its record.
    """
    try:
        classifier = ImageClassifier(ClassifierRecord.from_json((folder / RECORD_FILE).read_text()))
        classifier.take(load_file(folder / WEIGHTS_FILE))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        msg = f"the classifier in {folder} cannot be loaded: {error}"
        raise StoreError(msg, hint="wsolpipe run stage=classifier dataset=… force=true") from error
    return classifier.to(device).eval().requires_grad_(requires_grad=False)


def parse_classifier(content: bytes, where: str) -> tuple[ClassifierRecord, dict[str, torch.Tensor]]:
    """Read the bytes of ``model.safetensors``: record and tensors, without building the network.

    Parameters
    ----------
    content : bytes
        As `save_classifier` wrote them.
    where : str
        How messages call the file.

    Raises
    ------
    WeightsError
        If these are not the bytes of such a file.
    """
    try:
        tensors = load(content)
        (length,) = struct.unpack("<Q", content[:8])
        record = ClassifierRecord.from_json(json.loads(content[8 : 8 + length])["__metadata__"][RECORD_KEY])
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError) as error:
        msg = f"{where} is not a classifier that wsolpipe made"
        raise WeightsError(msg, hint="wsolpipe run stage=classifier classifier.weights=FILE … imports any") from error
    return record, tensors


def stored_record(path: Path) -> ClassifierRecord | None:
    """Record in the header of a classifier file that wsolpipe wrote; None for any other file."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(RECORD_KEY)
    return ClassifierRecord.from_json(text) if text else None


#: Differing names that a message lists.
LISTED = 5


def count_outputs(model: str, state: Mapping[str, torch.Tensor], *, source: str) -> int:
    """Number of classes of a file's last layer.

    Raises
    ------
    WeightsError
        If the file has no last layer of this model.
    """
    keys = classifier_keys(model)
    for key in keys:
        if f"{key}weight" in state:
            return len(state[f"{key}weight"])
    msg = f"{source} holds no classifier: it has no tensor {keys[0] if keys else 'head.'}weight of {model}"
    raise WeightsError(
        msg, hint="train one from it: classifier.weights=null classifier.mode=probe classifier.start=FILE"
    )


def refuse_misfit(record: ClassifierRecord, dataset: str, classes: int | None, class_names: Mapping[int, str]) -> None:
    """Refuse a classifier whose classes are not the data set's.

    It fits when it has as many outputs as the data set has classes (where that is known) and, where both know the
    name of a label, the names agree. Labels are checked one by one with `refuse_label`.

    Raises
    ------
    ConfigError
        Says what differs.
    """
    hint = "import a classifier of these classes, or train one from the file: classifier.start=FILE alone"
    if classes is not None and classes != record.outputs:
        msg = (
            f"the classifier {record.model} has {record.outputs} outputs, and data set {dataset} has {classes} classes"
        )
        raise ConfigError(msg + _unshared(record, class_names), hint=hint)
    named = ((label, record.class_names.get(str(label), name), name) for label, name in sorted(class_names.items()))
    differing = [item for item in named if item[1].strip() != item[2].strip()]
    if differing:
        label, known, name = differing[0]
        msg = f"label {label} is {known!r} to the classifier {record.model} and {name!r} in data set {dataset}"
        more = [f"{number} is {theirs!r} and {ours!r}" for number, theirs, ours in differing[1:LISTED]]
        left = len(differing) - 1 - len(more)
        raise ConfigError("; ".join([msg, *more, *([f"and {left} more"] if left else [])]), hint=hint)


def _unshared(record: ClassifierRecord, class_names: Mapping[int, str]) -> str:
    """Names that only one of the two lists has, where both name any."""
    theirs, ours = set(record.class_names.values()), set(class_names.values())
    if not theirs or not ours:
        return ""
    parts = [
        f"only {who} names {', '.join(sorted(names)[:LISTED])}{' …' if len(names) > LISTED else ''}"
        for who, names in (("the classifier", theirs - ours), ("the data set", ours - theirs))
        if names
    ]
    return "".join(f"; {part}" for part in parts)


def refuse_label(label: int, record: ClassifierRecord, dataset: str) -> None:
    """Refuse a label for which the classifier has no output.

    Raises
    ------
    ConfigError
        Names both numbers.
    """
    if not 0 <= label < record.outputs:
        msg = (
            f"data set {dataset} has a label {label}, and the classifier {record.model} only {record.outputs} outputs "
            f"(0 … {record.outputs - 1})"
        )
        raise ConfigError(msg, hint="give classes: in the data set's YAML, and a classifier of that many outputs")
