"""Published checkpoints of whole networks, class layer included, under the names of the networks of this package."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import WeightsError
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.weights import load_into, load_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

RENAMED = (
    (r"^SPG_A1\.0\.", "layer3.0."),  # the standard evaluation's SPG cuts ResNet's third layer in two
    (r"^SPG_A2\.(\d+)\.", lambda found: f"layer3.{int(found[1]) + 1}."),
    (r"^classifier\.0\.", "fc."),  # NL-CCAM
    (r"^conv\.", "features."),
    (r"^SPG_A_4\.", "SPG_A4."),  # SPG on VGG16
)
METHODS = (("classifier_A.", "ACoL", "acol"), ("SPG_B", "SPG", "spg"), ("pos_embed", "classified patches", "ts_cam"))
"""Beginning of a tensor's name -> how a method is called, and its recipe; others have one linear layer."""
BACKBONES = (
    ("Mixed_", "InceptionV3", " profile=inception"), ("query_conv", "VGG16 with non-local blocks", ""),
    ("features.", "VGG16", " profile=vgg16"), ("conv.", "VGG16", " profile=vgg16"), ("layer4.", "a ResNet", ""),
    ("pos_embed", "a vision transformer", ""), ("", "a CNN", ""),
)  # fmt: skip
CLASSES = (
    "classifier_A.4.weight",
    "SPG_A_4.weight",
    "SPG_A4.weight",
    "classifier.0.weight",
    "fc.weight",
    "head.weight",
)
"""Tensors with a row a class."""
NUMBERED = re.compile(r"^(layer\d|features)\.(\d+)\.")
"""Layers that hooks or others without tensors may stand between in a checkpoint, so that their numbers differ."""


def load_published(module: nn.Module, file: str, *, net: str = "net.") -> None:
    """Load a checkpoint of a whole network, such as ``.pth.tar`` of the standard evaluation (key ``state_dict``).

    Parameters
    ----------
    module : Module
        Overwritten; its backbone is the part `net`.
    file : str
        As `wsolpipe.networks.sources` reads it.
    net : str
        Beginning of the names of the backbone's tensors, which checkpoints do not have.

    Raises
    ------
    WeightsError
        If the file is missing, of another network or of another number of classes; names tensors that do not fit.
    """
    weights = resolve(file)
    assert weights is not None  # noqa: S101 - only where fetching is forbidden
    own, given = module.state_dict(), load_state(weights)
    (theirs, words), (mine, _) = layout(given), layout({name.removeprefix(net): value for name, value in own.items()})
    if theirs != mine:
        msg = f"published={file} holds {theirs}, and this run is {mine}"
        raise WeightsError(msg, hint=words)
    state = _named(given, own, net)
    missing = sorted(own.keys() - state.keys())
    beyond = sorted(state.keys() - own.keys())
    wrong = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if missing or beyond or wrong:
        kinds = ("lacks", missing), ("holds more:", beyond), ("differs in", wrong)
        found, names = next(each for each in kinds if each[1])
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        msg = f"published={file} is not of this run's network: it {found} {names[0]}{more}"
        raise WeightsError(msg, hint=f"{words}, and the backbone= and model_args of its training")
    load_into(module, state, what=f"published={file}")


def layout(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """Tell what the names and shapes of a checkpoint say it is, such as ``ACoL on VGG16, 5 classes``, and what to type.

    Parameters
    ----------
    state : mapping of str to Tensor
        Names without those of wrappers, such as ``module.``.
    """
    named = [(name, recipe) for start, name, recipe in METHODS if any(key.startswith(start) for key in state)]
    method, recipe = named[0] if named else ("one linear layer of classes", "cam, has, cutmix or adl")
    backbone, profile = next((name, more) for start, name, more in BACKBONES if any(start in key for key in state))
    if "non-local" in backbone:
        recipe = "nl_ccam"
    last = [state[name] for name in CLASSES if name in state]
    classes = f"{len(last[0])} classes" if last else "no classes"
    given = "weights" if recipe == "ts_cam" else "published"
    return f"{method} on {backbone}, {classes}", f"recipe={recipe}{profile} {given}=FILE, on a data set of {classes}"


def _named(state: Mapping[str, Tensor], own: Mapping[str, Tensor], net: str) -> dict[str, Tensor]:
    """Tensors under the names of `own`: prefix, renamed layers, numbers by their order, 1 x 1 convolution as linear."""
    plain = {}
    for name, value in state.items():
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        plain[name] = value
    if not any(name.startswith("SPG_B") for name in plain):  # InceptionV3 of CAM: a convolution classifies
        plain = {name.replace("SPG_A4.", "fc."): value for name, value in plain.items()}
    plain = _renumbered(plain, [name.removeprefix(net) for name in own])
    named = {name if name in own else net + name: value for name, value in plain.items()}
    return {
        name: value[:, :, 0, 0] if name in own and own[name].ndim == 2 and value.ndim == 4 else value
        for name, value in named.items()
    }


def _renumbered(state: Mapping[str, Tensor], own: list[str]) -> dict[str, Tensor]:
    """Numbered layers of a checkpoint matched to those of `own` by their order, where both have as many."""
    theirs, mine = (_numbers(names) for names in (state, own))
    renamed = {
        f"{layer}.{old}.": f"{layer}.{new}."
        for layer, numbers in theirs.items()
        if len(numbers) == len(mine.get(layer, []))
        for old, new in zip(numbers, mine[layer], strict=True)
    }
    return {NUMBERED.sub(lambda found: renamed.get(found[0], found[0]), name): value for name, value in state.items()}


def _numbers(names: Mapping[str, Tensor] | list[str]) -> dict[str, list[int]]:
    found: dict[str, set[int]] = {}
    for name in names:
        if match := NUMBERED.match(name):
            found.setdefault(match[1], set()).add(int(match[2]))
    return {layer: sorted(numbers) for layer, numbers in found.items()}
