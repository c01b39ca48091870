"""timm's architectures: names, what timm knows of them, and building one with untrained tensors.

Arguments come from YAML, the command line and the files of stores, so only those that describe an architecture are
passed on: ``timm.create_model`` also takes ones that read files or fetch them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wsolpipe.contract.errors import ConfigError, first_line, unknown
from wsolpipe.networks.pretrained import similar_models
from wsolpipe.networks.sources import Weights, resolve
from wsolpipe.networks.weights import HEAD_KEYS, load_into, load_state

#: Arguments of vision transformers that only describe the architecture.
_TRANSFORMERS = """
act_layer always_partition attn_drop_rate attn_layer block_args class_token depth depths distillation distilled
drop_path_rate drop_rate dynamic_img_pad dynamic_img_size embed_dim embed_dims embed_norm fc_norm final_norm
fix_init global_pool head_dim head_hidden_size img_size in_chans init_values mlp_layer mlp_ratio mlp_ratios
no_embed_class norm_eps norm_layer num_heads num_kv_heads num_reg_tokens patch_drop_rate patch_norm patch_size
pool_include_prefix pos_drop_rate pos_embed pre_norm proj_bias proj_drop_rate qk_norm qkv_bias qkv_fused
ref_feat_shape reg_tokens rel_pos_dim rel_pos_type rope_rotate_half rope_temperature rope_type scale_attn_inner
scale_attn_norm scale_mlp scale_mlp_norm shared_rel_pos strict_img_size swiglu_mlp use_abs_pos_emb use_fc_norm
use_post_norm use_post_transformer_norm use_pre_transformer_norm use_rel_pos_bias use_rot_pos_emb
use_shared_rel_pos_bias weight_init window_ratio window_size
"""
#: Those of convolutional networks.
_CONVOLUTIONS = """
aa_layer avg_down base_width block_reduce_first bn_eps bn_momentum bn_tf cardinality channel_multiplier channels
conv_bias conv_mlp dims down_kernel_size downsamples drop_block_rate expand_ratio final_chs fix_stem growth_rate
head_bias head_init_scale head_norm_first initial_chs kernel_size kernel_sizes layer_scale_init_value layers
ls_init_value num_features num_init_features out_indices output_stride pad_type preact replace_stem_pool
se_from_exp stem_chs stem_kernel_size stem_size stem_stride stem_type stem_width strides use_grn  width widths
zero_init_last
"""
MODEL_ARGS = frozenset((_TRANSFORMERS + _CONVOLUTIONS).split())


def check_model_args(model: str, model_args: Mapping[str, Any]) -> None:
    """Refuse arguments that do not describe an architecture.

    Raises
    ------
    ConfigError
        If a name is not in `MODEL_ARGS`, or a value is not a number, a word, or a list or mapping of these.
    """
    for name, value in model_args.items():
        if name not in MODEL_ARGS:
            near = difflib.get_close_matches(str(name), sorted(MODEL_ARGS), n=4, cutoff=0.5)
            msg = f"model_args.{name} of {model} does not describe an architecture"
            raise ConfigError(msg, hint=f"did you mean {' or '.join(near)}?" if near else "leave it out")
        if not _is_plain(value):
            msg = f"model_args.{name} of {model} is {type(value).__name__}, not a number, a word or a list of these"
            raise ConfigError(msg)


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(item) for name, item in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def require_model(model: str) -> None:
    """Refuse a name that timm does not know.

    Raises
    ------
    ConfigError
        Lists the nearest names.
    """
    import timm

    if not timm.is_model(model.split(".", 1)[0]):
        raise ConfigError(unknown("timm model", model, similar_models(model)))


def create(model: str, model_args: Mapping[str, Any], **fixed: Any) -> nn.Module:
    """Build a timm model with untrained tensors, drawn from torch's own generator.

    Parameters
    ----------
    model : str
        timm's name, with or without tag.
    model_args : mapping
        Arguments that the user chose; see `MODEL_ARGS`.
    **fixed
        Further arguments of ``timm.create_model``; `model_args` go before them.

    Raises
    ------
    ConfigError
        If timm has no such model, or it does not take the arguments.
    """
    import timm

    require_model(model)
    check_model_args(model, model_args)
    try:
        net: nn.Module = timm.create_model(model, pretrained=False, **{**fixed, **model_args})
    except Exception as error:  # each architecture fails in its own way on arguments that it does not take
        spelt = ", ".join(f"{name}={value}" for name, value in {**fixed, **model_args}.items())
        msg = f"cannot build {model} with {spelt}: {first_line(error)}"
        raise ConfigError(msg, hint="check the model, its arguments (model_args) and the input size") from error
    return net


def pretrained_record(model: str) -> Mapping[str, Any]:
    """Return what timm knows of a model: ``mean``, ``std``, ``classifier``, ``fixed_input_size`` …

    Raises
    ------
    ConfigError
        If timm has no such model.
    """
    import timm

    require_model(model)
    known = timm.get_pretrained_cfg(model)
    return known.to_dict() if known is not None else {}


def classifier_keys(model: str) -> tuple[str, ...]:
    """Prefixes of the tensors of a timm model's last layer, such as ``fc.``; none where timm does not say."""
    given = pretrained_record(model).get("classifier") or ()
    names = (given,) if isinstance(given, str) else tuple(given)
    return tuple(f"{name}." for name in names)


def build_timm(model: str, model_args: Mapping[str, Any], *, outputs: int, size: int) -> nn.Module:
    """Build a timm model with untrained tensors for a square input of `size` and `outputs` classes (0: no classifier).

    Raises
    ------
    ConfigError
        If the model is unknown or does not take the arguments.
    """
    known = pretrained_record(model)
    fixed: dict[str, Any] = {"num_classes": outputs}
    if known.get("fixed_input_size") and size != known["input_size"][-1]:
        fixed["img_size"] = size
    return create(model, model_args, **fixed)


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
