"""The network that a method is built on: its keys, its parts by name, finer features of a CNN, published weights."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError, WeightsError, unknown
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.weights import load_into, load_state
from wsoltrain.data.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]  # part, what it was given, what it made
    from collections.abc import Mapping


class BackboneKeys(Keys):
    """Keys of the network that a method is built on.

    Attributes
    ----------
    **network and its first weights**
    backbone
        timm name of the network
    model_args
        Further arguments of the timm network, such as model_args.patch_size
    weights
        Weights file; data:FILE for one of wsolpipe's data folder; timm: pretrained weights; null: random
    """

    backbone: str
    model_args: dict[str, Any] = {}
    weights: str | None = "timm"


def load_classifier(net: Any, keys: BackboneKeys) -> None:
    """Give a network that was built without classifier that of its weights file.

    Raises
    ------
    ConfigError
        If the file has none, or one of another number of classes.
    """
    source, layer = resolve(str(keys.weights), model=keys.backbone), net.get_classifier()
    state = {} if source is None or source.path is None else load_state(source)
    (name,) = [name for name, part in net.named_modules() if part is layer]
    found = {key: state.get(f"{name}.{key}") for key in layer.state_dict()}
    shapes = {key: None if value is None else value.shape for key, value in found.items()}
    if shapes != {key: value.shape for key, value in layer.state_dict().items()}:
        given = shapes.get("weight")
        kept = "no classifier" if given is None else f"a classifier of {given[0]} classes"
        msg = f"keep_classifier=true: weights={keys.weights} holds {kept}, the data set has {net.num_classes}"
        raise ConfigError(msg, hint="keep_classifier=false, for a classifier that begins anew")
    layer.load_state_dict(found)


def find_part(net: nn.Module, name: str, *, key: str) -> nn.Module:
    """Return a part of a network.

    Parameters
    ----------
    name : str
        Such as ``layer3.0``.
    key : str
        Key of the recipe that names it, for the message.

    Raises
    ------
    ConfigError
        If the network has no such part; names the nearest.
    """
    parts = dict(net.named_modules())
    if name not in parts or not name:
        blocks = [known for known in parts if known and known.count(".") <= 1]
        raise ConfigError(unknown("part of the network", name, blocks), hint=f"{key}= names parts of backbone=")
    part: nn.Module = parts[name]
    return part


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Call a function after each of some parts while the block runs; its result, if any, replaces the part's output.

    timm's ``forward_intermediates`` gives the features of whole stages only; parts may lie within one.
    """
    handles = [part.register_forward_hook(hook) for part, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def remove_last_strides(net: Any, count: int, *, size: int, what: str) -> None:
    """Give stride 1 to the layers of a timm CNN that make its last `count` downsamplings; weights do not change.

    Parameters
    ----------
    net : Module
        With timm's ``forward_features``; changed in place.
    count : int
        Downsamplings to remove; each doubles both sides of the features.
    size : int
        Side of the images, pixels.
    what : str
        How messages call the network.

    Raises
    ------
    ConfigError
        If the network has fewer downsamplings, or one is not a convolution or a pooling layer.
    """
    if not count:
        return
    layers, _ = _downsampling(net, size)
    sides = sorted({side for _, side in layers})
    if count > len(sides):
        msg = f"{what} has {len(sides)} downsamplings at size={size}, and {count} are to be removed"
        raise ConfigError(msg, hint=f"unstrided={len(sides)} or less")
    hint = "unstrided=0, or another backbone, such as resnet50"
    for layer, side in layers:
        if side not in sides[:count]:
            continue
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.stride = (1, 1)
        elif isinstance(layer, nn.AvgPool2d):
            layer.kernel_size, layer.stride, layer.padding = 1, 1, 0
        else:
            msg = f"{what} downsamples by a {type(layer).__name__}, whose stride cannot be removed"
            raise ConfigError(msg, hint=hint)
    shape, side = list(_downsampling(net, size)[1].shape), sides[count - 1]
    if len(shape) != 4 or shape[-1] != side:
        msg = f"{what} gives features {shape} without its last strides, expected a side of {side}"
        raise ConfigError(msg, hint=hint)


@torch.no_grad()
def _downsampling(net: Any, size: int) -> tuple[list[tuple[nn.Module, int]], Tensor]:
    """Layers whose output is smaller than their input, each with the input's side, and the features."""
    found: list[tuple[nn.Module, int]] = []

    def note(layer: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor) and made.ndim == 4 and given[0].ndim == 4 and made.shape[-1] < given[0].shape[-1]:
            found.append((layer, given[0].shape[-1]))

    training = net.training
    with hooked((layer, note) for layer in net.modules() if not list(layer.children())):
        features: Tensor = net.eval().forward_features(torch.zeros(1, 3, size, size))
    net.train(training)
    return found, features


RENAMED = (
    (r"^SPG_A1\.0\.", "layer3.0."),  # the standard evaluation's SPG cuts ResNet's third layer in two
    (r"^SPG_A2\.(\d+)\.", lambda found: f"layer3.{int(found[1]) + 1}."),
    (r"^classifier\.0\.", "fc."),  # NL-CCAM
    (r"^conv\.", "features."),
    (r"^SPG_A_4\.", "SPG_A4."),  # SPG on VGG16
)
#: Beginning of a tensor's name -> how a method is called, and its recipe; others are told by their class layer.
METHODS = (
    ("classifier_A.", "ACoL", "acol"),
    ("SPG_B", "SPG", "spg"),
    ("loc_token", "SAT", "sat"),
    ("layers.0.thred", "SCM", "scm"),
)
BACKBONES = (
    ("Mixed_", "InceptionV3", " profile=inception"), ("query_conv", "VGG16 with non-local blocks", ""),
    ("features.", "VGG16", " profile=vgg16"), ("conv.", "VGG16", " profile=vgg16"), ("layer4.", "a ResNet", ""),
    ("pos_embed", "a vision transformer", ""), ("", "a CNN", ""),
)  # fmt: skip
#: Tensors with a row a class.
CLASSES = (
    "classifier_A.4.weight",
    "SPG_A_4.weight",
    "SPG_A4.weight",
    "classifier.0.weight",
    "fc.weight",
    "head.weight",
)
BLOCK = re.compile(r"^(layer\d|SPG_A[12])\.\d+\.conv1\.weight$")
RESNETS = (18, 34, 50, 101, 152)
#: Width of a DeiT of 12 blocks and patches of 16 -> its size in timm's name.
DEITS = {192: "tiny", 384: "small", 768: "base"}
#: Layers that hooks or others without tensors may stand between in a checkpoint, so that their numbers differ.
NUMBERED = re.compile(r"^(layer\d|features)\.(\d+)\.")


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
    own, given, source = module.state_dict(), load_state(weights), f"published={file}"
    words = require_layout(given, {name.removeprefix(net): value for name, value in own.items()}, source)
    state = _named(given, own, net)
    require_tensors(state, own, source, words)
    load_into(module, state, what=source)


def require_layout(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, *, begins: Mapping[str, Tensor] | None = None
) -> str:
    """Refuse a checkpoint of another method, backbone or number of classes; the words that one types for it.

    Parameters
    ----------
    state, own : mapping of str to Tensor
        Those of the checkpoint and of this run's network.
    source : str
        How the message calls the checkpoint, such as ``published=FILE``.
    begins : mapping of str to Tensor, optional
        Tensors of another network whose checkpoint may begin this run.

    Raises
    ------
    WeightsError
        Says what the checkpoint holds, what this run is, and what to type.
    """
    (theirs, words), (mine, _) = layout(state), layout(own)
    if theirs != mine and (begins is None or theirs != layout(begins)[0]):
        msg = f"{source} holds {theirs}, and this run is {mine}"
        raise WeightsError(msg, hint=words)
    return words


def require_tensors(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str, words: str, *, stretched: str = ""
) -> None:
    """Refuse a checkpoint with other tensors than those of this run's network; the shape of `stretched` may differ."""
    missing = sorted(own.keys() - state.keys())
    beyond = sorted(state.keys() - own.keys())
    wrong = sorted(name for name in own.keys() & state.keys() - {stretched} if own[name].shape != state[name].shape)
    if missing or beyond or wrong:
        kinds = ("lacks", missing), ("holds more:", beyond), ("differs in", wrong)
        found, names = next(each for each in kinds if each[1])
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        msg = f"{source} is not of this run's network: it {found} {names[0]}{more}"
        raise WeightsError(msg, hint=f"{words}, and the backbone= and model_args of its training")


def is_convolutional(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is of one of the CNNs that the standard evaluation or NL-CCAM trains."""
    return any(start in key for key in state for start, _, _ in BACKBONES[:-2])


def layout(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """Describe a checkpoint by its names and shapes, such as ``ACoL on VGG16, 5 classes``, and what to type.

    Parameters
    ----------
    state : mapping of str to Tensor
        Names without those of wrappers, such as ``module.``.
    """
    named = [(name, recipe) for start, name, recipe in METHODS if any(key.startswith(start) for key in state)]
    backbone, more = _backbone(state)
    last = [state[name] for name in CLASSES if name in state]
    patches = "pos_embed" in state and bool(last) and last[0].ndim == 4  # noqa: PLR2004 - a convolution's
    other = ("TS-CAM", "ts_cam") if patches else ("one linear layer of classes", "cam, has, cutmix or adl")
    method, recipe = named[0] if named else other
    if "non-local" in backbone:
        recipe = "nl_ccam"
    if "transformer" in backbone and not named:
        recipe = "ts_cam"
    classes = f"{len(last[0])} classes" if last else "no classes"
    given = "weights" if recipe in ("ts_cam", "scm", "sat") else "published"
    return f"{method} on {backbone}, {classes}", f"recipe={recipe}{more} {given}=FILE, on a data set of {classes}"


def _backbone(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """How the backbone of a checkpoint is called, and the keys that give it."""
    name, words = next((name, more) for start, name, more in BACKBONES if any(start in key for key in state))
    if name == "a ResNet":
        blocks = sum(BLOCK.match(key) is not None for key in state)
        layers = 2 + blocks * (3 if any(key.endswith(".conv3.weight") for key in state) else 2)
        return f"{name} of {layers} layers", f" backbone=resnet{layers}" if layers in RESNETS else words
    if name == "a vision transformer" and "patch_embed.proj.weight" in state:
        width, _, side, _ = state["patch_embed.proj.weight"].shape
        depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in state)
        deit = f" backbone=deit_{DEITS[width]}_patch16_224" if (depth, side) == (12, 16) and width in DEITS else words
        return f"{name} of {depth} blocks, width {width}, patches of {side}", deit
    return name, words


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
