"""Weights files of CLIP in every published layout, and the networks that they fit.

- OpenAI's archive (a TorchScript zip ``ViT-B-16.pt``): its tensors are read, its program is not (`torchscript`);
- OpenAI's state dict: the same names, with ``input_resolution``, ``context_length`` and ``vocab_size`` beside them;
- open_clip's checkpoint: bare, under ``state_dict``, with or without ``module.`` before each key;
- any of these as safetensors.

OpenAI trained with QuickGELU, so its two layouts switch it on; the others do not record it. The published tag, the
model's name (``ViT-B-16-quickgelu``) or its JSON configuration says it then; where none does, it must be given, since
the same tensors run with the other activation without any error.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from wsolpipe.contract.errors import ConfigError, WeightsError, first_line
from wsolpipe.models.clip_config import ClipConfig, has_quick_sibling, published
from wsolpipe.networks.torchscript import is_archive, read_archive
from wsolpipe.networks.weights import load_into, load_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from wsolpipe.networks.sources import Weights

#: Numbers that OpenAI keeps beside the weights; no network of open_clip has them.
MARKS = ("input_resolution", "context_length", "vocab_size")
#: Keys that may be left over: a bias that only SigLIP uses, and indices that newer transformers do not store.
SPARE = (*MARKS, "logit_bias", "text.transformer.embeddings.position_ids")
#: Beginnings of the text tower's keys where it is not a module of its own.
TEXT = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")

Layout = Literal["openai", "open_clip"]


@dataclass(frozen=True)
class ClipState:
    """Tensors of a file under open_clip's names, float32, and the layout that they came in."""

    tensors: Mapping[str, Tensor]
    layout: Layout


def read_clip(weights: Weights) -> ClipState:
    """Read a weights file of any layout.

    Raises
    ------
    WeightsError
        If it is truncated, or holds more than tensors and plain values.
    """
    if weights.path is not None and is_archive(weights.path):
        tensors = {
            name: value.float() if value.is_floating_point() else value
            for name, value in read_archive(weights.path).items()
        }
        return ClipState({name: value for name, value in tensors.items() if name not in MARKS}, "openai")
    tensors = load_state(weights)
    marked = any(name in tensors for name in MARKS)
    return ClipState(
        {name: value for name, value in tensors.items() if name not in MARKS}, "openai" if marked else "open_clip"
    )


def infer_config(state: ClipState, source: str) -> ClipConfig:
    """Architecture of OpenAI's kind from the shapes of its tensors; heads are 64 wide, as all of theirs are.

    Raises
    ------
    ConfigError
        If the tensors are not those of a plain vision transformer and its text transformer.
    """
    tensors = state.tensors
    needed = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "text_projection", "ln_final.weight")
    absent = [name for name in needed if name not in tensors]
    if absent:
        msg = f"{source} does not say what network it is of: it has no {absent[0]}"
        raise ConfigError(msg, hint="give the model, such as model=ViT-B-16")
    width, _, _, patch = tensors["visual.conv1.weight"].shape
    side = round((len(tensors["visual.positional_embedding"]) - 1) ** 0.5)
    text_width = len(tensors["ln_final.weight"])
    parts = {
        "embed_dim": tensors["text_projection"].shape[1],
        "vision_cfg": {
            "image_size": side * patch,
            "patch_size": patch,
            "width": width,
            "layers": _depth(tensors, "visual.transformer.resblocks."),
        },
        "text_cfg": {
            "context_length": len(tensors["positional_embedding"]),
            "vocab_size": len(tensors["token_embedding.weight"]),
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": _depth(tensors, "transformer.resblocks."),
        },
    }
    return ClipConfig(source, parts)


def _depth(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)})


def decide_gelu(config: ClipConfig, state: ClipState | None, weights: Weights, wish: bool | None) -> bool:
    """Whether the network runs with QuickGELU: as wished, else as the layout, the tag, the file or the name says.

    Raises
    ------
    ConfigError
        If nothing says it, and networks of this kind exist with either.
    """
    if wish is not None:
        return wish
    if state is not None and state.layout == "openai":
        return True
    if weights.source.startswith("open_clip:"):
        return bool(published(weights.source.removeprefix("open_clip:"))[2].get("quick_gelu", False))
    if "quick_gelu" in config.parts:
        return bool(config.parts["quick_gelu"])
    if state is not None and has_quick_sibling(config):
        msg = (
            f"{weights.source} does not say how it was trained: tensors of these names come with QuickGELU (OpenAI's "
            "own, and those of a -quickgelu model) or with GELU"
        )
        raise ConfigError(msg, hint="write quick_gelu=true for OpenAI's weights, quick_gelu=false for GELU")
    return False


def build_clip(config: ClipConfig, *, quick_gelu: bool, seed: int = 0, captioner: bool = False) -> nn.Module:
    """Build open_clip's network with random weights, without gradients, in evaluation mode.

    Parameters
    ----------
    config : ClipConfig
    quick_gelu : bool
        Of both towers; timm's towers have their own activation.
    seed : int
        Of the initialisation; torch's own generator is left as it was.
    captioner : bool
        Whether it may have a text decoder (CoCa).

    Raises
    ------
    ConfigError
        If open_clip cannot build it.
    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    parts = copy.deepcopy(config.parts)
    custom = parts.pop("custom_text", False) or "hf_model_name" in parts["text_cfg"]
    decodes = "multimodal_cfg" in parts
    if decodes and not captioner:
        msg = f"{config.name} is a captioner with a text decoder, not a plain CLIP"
        raise ConfigError(msg, hint="name a plain CLIP, such as ViT-B-16")
    # Towers would fetch weights of their own otherwise.
    if "timm_model_name" in parts["vision_cfg"]:
        parts["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in parts["text_cfg"]:
        parts["text_cfg"]["hf_model_pretrained"] = False
    parts["quick_gelu"] = quick_gelu
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = (CoCa if decodes else CustomTextCLIP if custom else CLIP)(**parts)
    except Exception as error:  # each part of a configuration fails in its own way
        msg = f"open_clip cannot build {config.name}: {first_line(error)}"
        raise ConfigError(msg, hint="see open_clip's model_configs for the fields of a configuration") from error
    return model.eval().requires_grad_(requires_grad=False)


def fill_clip(model: nn.Module, state: ClipState, *, name: str) -> None:
    """Load a file's tensors into a network, all of them or none.

    Raises
    ------
    WeightsError
        If a tensor is missing, unexpected or of another shape; names the first of each.
    """
    tensors = dict(state.tensors)
    if hasattr(model, "text") and "text_projection" in tensors:
        tensors = {f"text.{key}" if key.startswith(TEXT) else key: value for key, value in tensors.items()}
    own = model.state_dict()
    if "logit_scale" in tensors and tensors["logit_scale"].numel() == 1:  # a number, or a list of one
        tensors["logit_scale"] = tensors["logit_scale"].reshape(own["logit_scale"].shape)
    if not any(key in own for key in tensors):
        msg = f"none of the {len(tensors)} tensors of the file belongs to {name}; the first are {_first(tensors)}"
        raise WeightsError(msg, hint=f"a CLIP has {_first(own)}; give the weights of one, or model= to match")
    load_into(model, tensors, what=name, ignore=SPARE)


def _first(tensors: Mapping[str, Any]) -> str:
    return ", ".join(list(tensors)[:3])
