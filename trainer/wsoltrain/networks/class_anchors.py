"""Anchors of classes: text vectors of a stage ``text_anchors``, checked against the data set and made orthogonal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.layout import read_json
from wsolpipe.networks.anchors import orthogonalise

STAGE, TENSORS, ABOUT = "text_anchors", "anchors.safetensors", "anchors.json"
#: Under this name a method finds the anchors of classes that it was not trained on, beside its own.
NEW = "new_classes"
Orthogonal = Literal["auto", "qr", "polar", "none"]


@dataclass(frozen=True)
class ClassAnchors:
    """Content of an artifact ``text_anchors``.

    Attributes
    ----------
    plain, anchors : float Tensor [K, d]
        Text vectors of unit length, and what the stage made of them.
    names : list of str
        Of the K classes, in the order of the labels.
    labels : list of int
        Theirs.
    orthogonal : str
        How the stage made `anchors`: qr, polar or none.
    """

    plain: Tensor
    anchors: Tensor
    names: list[str]
    labels: list[int]
    orthogonal: str


def parse_anchors(tensors: bytes, about: bytes) -> ClassAnchors:
    """Read the two files of an artifact.

    Raises
    ------
    DataError
        If they are not such files.
    ConfigError
        If two classes have one name.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        loaded, said = load(tensors), read_json(about)
        found = ClassAnchors(
            loaded["plain"], loaded["anchors"], list(said["names"]), list(said["labels"]), str(said["orthogonal"])
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"these files are not anchors of classes: {error}"
        raise DataError(msg, hint=f"{TENSORS} and {ABOUT} of one artifact {STAGE}") from error
    if found.plain.ndim != 2 or found.plain.shape != found.anchors.shape or len(found.names) != len(found.plain):
        msg = f"anchors {list(found.anchors.shape)} of texts {list(found.plain.shape)} and {len(found.names)} names"
        raise DataError(msg, hint=f"{TENSORS} and {ABOUT} of one artifact {STAGE}")
    twice = [name for number, name in enumerate(found.names) if name in found.names[:number]]
    if twice:
        msg = f"two classes are named {twice[0]!r}, so their anchors would be one"
        raise ConfigError(msg, hint="rename one in the class list, then wsolpipe run stage=text_anchors")
    return found


def read_anchors(files: Mapping[str, bytes], stage: str = STAGE) -> ClassAnchors:
    """Read anchors from what a method is given as ``task.artifacts``."""
    return parse_anchors(files[f"{stage}/{TENSORS}"], files[f"{stage}/{ABOUT}"])


def read_anchor_files(path: str) -> dict[str, bytes]:
    """Read both files of anchors of new classes, under the names by which a method finds them.

    Parameters
    ----------
    path : str
        ``anchors.safetensors``, with ``anchors.json`` beside it, or their folder.

    Raises
    ------
    ConfigError
        If one cannot be read.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    tensors = folder / TENSORS if Path(path).is_dir() else Path(path)
    found = {}
    for name, file in ((TENSORS, tensors), (ABOUT, tensors.with_suffix(".json"))):
        try:
            found[f"{NEW}/{name}"] = file.read_bytes()
        except OSError as error:
            msg = f"{file} cannot be read: {error.strerror}"
            raise ConfigError(msg, hint=f"anchors={TENSORS} of a stage {STAGE}, with {ABOUT} beside it") from error
    return found


def require_classes(found: ClassAnchors, classes: int, names: Sequence[str], hint: str) -> None:
    """Refuse anchors of other classes than the data set's.

    Spelling is not compared: ``001.Black_footed_Albatross`` is ``black footed albatross``, and a data set may name its
    classes by codes.

    Raises
    ------
    ConfigError
        If labels are not 0 to ``classes - 1``, or the name of one class is that of another's anchor.
    """
    if found.labels != list(range(classes)):
        msg = f"the anchors are of {len(found.labels)} classes, the data set has {classes}"
        raise ConfigError(msg, hint=hint)
    own, theirs = [_plain_name(name) for name in names], [_plain_name(name) for name in found.names]
    for label, name in enumerate(own):
        if name in theirs and theirs[label] != name:
            msg = f"label {label} is {names[label]!r} in the data set and {found.names[label]!r} in the anchors"
            raise ConfigError(msg, hint=hint)


def _plain_name(name: str) -> str:
    return " ".join(re.findall(r"[a-z]+", name.lower()))


def chosen_anchors(found: ClassAnchors, how: Orthogonal) -> Tensor:
    """Anchors float32 [K, d]: the stage's where it made them so, else made of the text vectors.

    Parameters
    ----------
    how : {"auto", "qr", "polar", "none"}
        auto: qr up to as many classes as dimensions, polar beyond.

    Raises
    ------
    ConfigError
        As `wsolpipe.networks.anchors.orthogonalise`: more classes than dimensions for qr, texts that say the same.
    """
    count, dimensions = found.plain.shape
    wanted = ("qr" if count <= dimensions else "polar") if how == "auto" else how
    if wanted == found.orthogonal:
        return found.anchors.float()
    made = orthogonalise(found.plain.double().numpy(), wanted, found.names)
    return torch.from_numpy(np.ascontiguousarray(made)).float()


def transferred(new: ClassAnchors, trained: ClassAnchors, anchors: Tensor) -> Tensor:
    """Anchors of new classes in the space of the trained ones, float32 [K', d], of unit length.

    A new text is written as a combination of the trained texts (least squares), and its anchor is the same combination
    of their anchors: the linear map that takes each trained text to its anchor. What is orthogonal to all trained texts
    is lost; patches have learned nothing about it.

    Parameters
    ----------
    new, trained : ClassAnchors
        Of one text tower.
    anchors : float Tensor [K, d]
        Of the trained classes.

    Raises
    ------
    ConfigError
        If their vectors have different dimensions.
    """
    if new.plain.shape[1] != trained.plain.shape[1]:
        msg = f"the new anchors have {new.plain.shape[1]} dimensions, those of training {trained.plain.shape[1]}"
        raise ConfigError(msg, hint="make them with the CLIP of training: text_anchors.model, text_anchors.weights")
    shares = new.plain.double() @ torch.linalg.pinv(trained.plain.double(), rtol=1e-5)
    return torch.nn.functional.normalize(shares @ anchors.double()).float()
