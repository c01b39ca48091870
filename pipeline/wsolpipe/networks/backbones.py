"""Networks without classifier, with weights from any source: what encoders of localizers are built from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.architectures import classifier_keys, create
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.weights import HEAD_KEYS, load_into, load_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from wsolpipe.networks.sources import Weights


def build_backbone(
    model: str,
    *,
    weights: str | None,
    model_args: Mapping[str, Any] | None = None,
    features_only: bool = False,
    **fixed: Any,
) -> Any:
    """Build a timm network without classifier and load its weights.

    Parameters
    ----------
    model : str
        timm's name, with or without tag.
    weights : str or None
        As `wsolpipe.networks.sources` reads it; ``timm`` means the model's own. None for random weights drawn from
        torch's own generator, of which every call with a file draws as many.
    model_args : mapping, optional
        Further arguments of the architecture.
    features_only : bool
        Build timm's pyramid of features, ``[B, C, h, w]`` a level.
    **fixed
        Further arguments of ``timm.create_model``, such as ``img_size``.

    Raises
    ------
    ConfigError
        If timm has no such model, or it does not take the arguments.
    WeightsError
        If the weights are missing or do not fit.
    """
    found = None if weights is None else resolve(weights, model=model)
    arguments = dict(model_args or {})
    if features_only:
        fixed["features_only"] = True
        arguments = {name: tuple(v) if name == "out_indices" else v for name, v in arguments.items()}
    if found is not None and found.seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(found.seed)
            return _built(model, arguments, fixed)
    net = _built(model, arguments, fixed)
    if found is not None:
        load_backbone(net, found, model, arguments, fixed)
    return net


def _built(model: str, arguments: Mapping[str, Any], fixed: Mapping[str, Any]) -> nn.Module:
    return create(model, arguments, num_classes=0, **fixed)


def load_backbone(
    net: nn.Module, weights: Weights, model: str, arguments: Mapping[str, Any], fixed: Mapping[str, Any]
) -> None:
    """Load a file into a network of `build_backbone`; a classifier's tensors in the file are left out.

    Raises
    ------
    WeightsError
        If the file is of another network; names the tensors that do not fit.
    """
    state, ignore = load_state(weights), (*HEAD_KEYS, *classifier_keys(model))
    if not fixed.get("features_only"):
        load_into(net, state, what=model, ignore=ignore)
        return
    # timm's pyramid renames the parts of a network and leaves out the last ones, so the whole network is loaded first.
    plain = {name: value for name, value in fixed.items() if name != "features_only"}
    with torch.random.fork_rng(devices=[]):
        whole = _built(model, {name: value for name, value in arguments.items() if name != "out_indices"}, plain)
    load_into(whole, state, what=model, ignore=ignore)
    loaded = whole.state_dict()
    net.load_state_dict({name: loaded[_whole_name(name, loaded, model)] for name in net.state_dict()})


def _whole_name(name: str, loaded: Mapping[str, Any], model: str) -> str:
    """Name that a tensor of timm's pyramid has in the whole network: ``stages_0.x`` is ``stages.0.x`` there."""
    first, _, rest = name.partition(".")
    outer, _, inner = first.rpartition("_")
    for candidate in (name, name.removeprefix("model."), f"{outer}.{inner}.{rest}"):
        if candidate in loaded:
            return candidate
    msg = f"{model} keeps no tensor {name} outside of its feature pyramid, so weights cannot be loaded"
    raise ConfigError(msg, hint="backbone=resnet50, or weights=null")
