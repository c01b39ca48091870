"""Tensors of weights files: read without running code, freed from the wrappers of training scripts, loaded whole.

Names of files and wrappers that are understood: official DINO, iBOT and MoCo v3 checkpoints, SimMIM's, those of
wsoltrain, `DataParallel` and `torch.compile`, and plain state dicts.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import WeightsError, first_line
from wsolpipe.networks.positions import Positions, stretch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from wsolpipe.networks.sources import Weights

#: Keys under which training scripts nest the tensors; of a self-distilled pair the teacher is taken.
NESTINGS = ("state_dict", "model", "teacher", "student")
#: Wrappers of every name of a checkpoint.
WRAPPERS = ("module.", "_orig_mod.")
#: Prefixes of the network that is wanted; names beside it belong to its training partner or its projection head. The
#: first that occurs is taken: what was trained (wsoltrain keeps its optimiser beside it), the teacher of a
#: self-distilled pair, and MoCo's base encoder as its own evaluation does.
PARTS = ("model.", "teacher.", "student.", "base_encoder.", "momentum_encoder.", "backbone.")
#: SimMIM's prefix; some networks have an own part of this name, so it counts only beside nothing but heads.
ENCODER = "encoder."
#: First words of names that belong to what pretraining adds to a network.
HEADS = ("decoder", "head", "mask_token", "predictor", "projector")
#: The one table of relative positions that all blocks share in a file (SimMIM), and how names of a block's own end.
SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
OWN_TABLE = ".attn.relative_position_bias_table"
#: How timm's translations fail on tensors of another network.
_OF_ANOTHER_NETWORK = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
#: Prefixes of tensors that a network without classifier does not have.
HEAD_KEYS = ("head.", "head_dense.", "head_dist.", "fc_norm.", "mask_token", "masked_embed", "decoder", "AuxLogits.")


TOWER, TRUNK = "visual.", "visual.trunk."
#: Parts of names, in the order in which they are replaced.
RENAMED = (
    ("conv1.", "patch_embed.proj."),
    ("positional_embedding", "pos_embed"),
    ("class_embedding", "cls_token"),
    ("transformer.resblocks.", "blocks."),
    ("ln_pre", "norm_pre"),
    ("ln_post", "norm"),
    ("attn.ln_q", "attn.q_norm"),
    ("attn.ln_k", "attn.k_norm"),
    ("ln_", "norm"),
    ("in_proj_", "qkv."),
    ("out_proj", "proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)


def load_state(weights: Weights, *, unwrap: bool = True, part: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a weights file under the network's own names.

    Official DINO checkpoints hold ``{"teacher": {"backbone.blocks.0…": …, "head.…": …}, …}`` or the bare backbone;
    both come back with the backbone's own names. Half precision becomes float32. Nothing in the file is executed.

    Parameters
    ----------
    weights : Weights
        A resolved file.
    unwrap : bool
        Whether nestings and prefixes are removed; a detector's ``backbone.`` is not a wrapper.
    part : str, optional
        Network that is taken of a file that holds several: ``teacher``, ``student``, ``base_encoder`` …

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    WeightsError
        If the file is not a checkpoint, is truncated, holds objects other than tensors and plain values, or holds no
        such part.
    """
    if weights.path is None:
        msg = f"{weights.source} is an initialisation, not a file with tensors"
        raise WeightsError(msg)
    loaded = _read(weights.path)
    names = _unwrap(loaded, part) if unwrap else loaded
    if part is not None and not names:
        msg = f"{weights.path} holds no part {part}"
        raise WeightsError(msg, hint="leave out weights_part for a file of one network")
    state = {key: value for key, value in names.items() if _is_tensor(value)}
    if not state:
        msg = f"{weights.path} holds no tensors at its top level or under {', '.join(NESTINGS)}"
        raise WeightsError(msg, hint="save it as torch.save(model.state_dict(), 'weights.pth')")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _read(path: Path) -> Any:
    import torch

    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # Training scripts store their arguments beside the tensors; neither a Namespace nor the dictionary that stands
        # for yacs' runs code when it is read.
        from argparse import Namespace

        with torch.serialization.safe_globals([Namespace, (OrderedDict, "yacs.config.CfgNode")]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _not_plain(path, error) from error
    except Exception as error:  # what a truncated file raises differs with its format and version
        msg = f"cannot read {path} as weights: {first_line(error)}"
        raise WeightsError(msg, hint="fetch or copy the file again; it may be truncated") from error


def _not_plain(path: Path, error: pickle.UnpicklingError) -> WeightsError:
    """Error of a file that holds more than tensors, with the class that it names."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign is None:
        msg = f"{path} is not a plain checkpoint: {first_line(error)}"
        return WeightsError(msg, hint="only tensors are read; save it as safetensors, or its state_dict alone")
    msg = f"{path} is not a plain checkpoint: it holds {foreign[1]}, and only tensors and plain values are read"
    hint = "nothing in a file is run here; where it was made, save tensors alone: torch.save(model.state_dict(), FILE)"
    return WeightsError(msg, hint=hint)


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _unwrap(loaded: Any, part: str | None) -> dict[str, Any]:
    """The network's own names; nothing where the file has no such `part`."""
    found = part is None
    while isinstance(loaded, Mapping):
        name = next((name for name in (part, *NESTINGS) if name and isinstance(loaded.get(name), Mapping)), None)
        if name is None:
            break
        loaded, found = loaded[name], found or name == part
    if not isinstance(loaded, Mapping):
        return {}
    state = {str(key): value for key, value in loaded.items()}
    while (prefix := _prefix(state, None if found else part)) is not None:
        found = found or prefix == f"{part}."
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state if found else {}


def _prefix(state: Mapping[str, Any], wanted: str | None) -> str | None:
    """Prefix to be removed, that of the `wanted` part before others; names without it belong to something else."""
    if not state:
        return None
    if wanted is not None and any(key.startswith(f"{wanted}.") for key in state):
        return f"{wanted}."
    for wrapper in WRAPPERS:
        if all(key.startswith(wrapper) for key in state):
            return wrapper
    part = next((part for part in PARTS if any(key.startswith(part) for key in state)), None)
    if part is None and any(key.startswith(ENCODER) for key in state):
        beside = [key for key in state if not key.startswith((ENCODER, *HEADS))]
        return None if beside else ENCODER
    return part


def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    what: str,
    ignore: Sequence[str] = (),
    positions: Positions = "timm",
) -> None:
    """Load tensors into a model, all of them or none.

    Position embeddings of another image size are stretched, and other names of the same network (DINOv2, EVA, ConvNeXt)
    are translated by timm; of a CLIP the vision tower is taken; a differing patch size is refused, not resampled.

    Parameters
    ----------
    model : nn.Module
        Its tensors are overwritten.
    state : mapping of str to Tensor
        As `load_state` returns it.
    what : str
        How the message calls the model, such as ``vit_small_patch16_224``.
    ignore : sequence of str
        Prefixes of keys of the file that the model need not have, such as ``head.``.
    positions : "dino", "timm" or "bilinear"
        How position embeddings are stretched (see `wsolpipe.networks.positions`).

    Raises
    ------
    WeightsError
        If a tensor is missing, unexpected or of another shape; names the first of each.
    """
    own = _with_own_tables(model, tower_of_clip(state, model))
    fitted, failure = _fitted(model, _with_positions(model, own, positions))
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in fitted]
    unexpected = [key for key in fitted if key not in wanted and not key.startswith(tuple(ignore))]
    misshapen = [key for key in wanted if key in fitted and wanted[key].shape != fitted[key].shape]
    misshapen.sort(key=lambda key: key == "pos_embed")  # last: a wrong shape of the patches explains it
    if missing or unexpected or misshapen:
        parts = [_listed("missing", missing), _listed("unexpected", unexpected)]
        if misshapen:
            key = misshapen[0]
            parts.append(f"{key} is {list(fitted[key].shape)} where the model has {list(wanted[key].shape)}")
        msg = f"the weights do not fit {what}: {'; '.join(part for part in parts if part)}"
        if failure is not None:
            msg += f"; timm could not translate them either ({type(failure).__name__}: {first_line(failure)})"
        raise WeightsError(
            msg, hint="give the model that these weights are of (model=, model_args.…=), or other weights"
        ) from failure
    model.load_state_dict({key: fitted[key] for key in wanted})


def _listed(name: str, keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{name} {keys[0]}{more}" if keys else ""


def stretches(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether loading `state` stretches position embeddings."""
    return _grids(model, state) is not None


def is_sincos(state: Mapping[str, Tensor]) -> bool:
    """Whether position embeddings are sines and cosines, as MoCo v3's and MAE's: those of the class token are zeros."""
    table = state.get("pos_embed")
    return table is not None and table.ndim == 3 and not bool(table[0, 0].any())


def _grids(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[int, tuple[int, int], tuple[int, int]] | None:
    """Prefix tokens, trained grid and the model's grid, where embeddings of a square grid must be stretched.

    Files of DINOv2 with registers embed the class token's place too, which timm adds to the class token itself.
    """
    given, own = state.get("pos_embed"), getattr(model, "pos_embed", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if given is None or own is None or grid is None or given.ndim != 3 or given.shape[-1] != own.shape[-1]:
        return None
    prefix = own.shape[1] - grid[0] * grid[1] + ("register_tokens" in state)
    side = max(given.shape[1] - prefix, 0) ** 0.5
    if side < 1 or side != int(side) or (int(side), int(side)) == tuple(grid):
        return None
    return prefix, (int(side), int(side)), (int(grid[0]), int(grid[1]))


def _with_positions(model: nn.Module, state: Mapping[str, Tensor], positions: Positions) -> Mapping[str, Tensor]:
    """Stretch position embeddings; timm's own way is left to timm, which also knows grids that are not square."""
    grids = None if positions == "timm" else _grids(model, state)
    if grids is None:
        return state
    prefix, trained, grid = grids
    table = stretch(state["pos_embed"][0], trained, grid, prefix=prefix, positions=positions)
    return {**state, "pos_embed": table[None]}


def _with_own_tables(model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Give each block a copy of the table of relative positions that the blocks of the file share."""
    own = [name for name in model.state_dict() if name.endswith(OWN_TABLE)]
    if SHARED_TABLE not in state or not own or any(name in state for name in own):
        return state
    kept = {name: value for name, value in state.items() if not name.startswith("rel_pos_bias.")}
    return {**kept, **dict.fromkeys(own, state[SHARED_TABLE])}


def _fitted(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Exception | None]:
    """Translate and resample what timm knows of this architecture, and say why where timm failed to."""
    adapt = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    key = "patch_embed.proj.weight"
    own, given = dict(model.named_parameters()).get(key), state.get(key)
    if own is None:
        wanted = adapt is not None and any(name not in state for name in model.state_dict())
    else:
        wanted = adapt is not None and given is not None and own.shape == given.shape
    if not wanted or adapt is None:
        return dict(state), None
    try:
        # timm prints beside its warnings, and standard output is the command's own.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of timm's own indexing, where it stretches tables of relative positions
            return dict(adapt(dict(state), model)), None
    except _OF_ANOTHER_NETWORK as error:  # where the names do not fit either, both are said
        return dict(state), error


def tower_of_clip(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Tensors of the vision tower of a CLIP under timm's names, for a timm model; any other state as it is.

    The text tower, the temperature and the projection to the joint space are left out. CLIP's patch embedding has no
    bias; a model that has one gets zeros.
    """
    own = model.state_dict()
    if any(name.startswith(TOWER) for name in own):  # a CLIP itself
        return dict(state)
    if any(name.startswith(TRUNK) for name in state):
        return {name.removeprefix(TRUNK): value for name, value in state.items() if name.startswith(TRUNK)}
    if f"{TOWER}class_embedding" not in state:
        return dict(state)
    tower = {}
    for name, value in state.items():
        if not name.startswith(TOWER) or name == f"{TOWER}proj":
            continue
        timm_name = name.removeprefix(TOWER)
        for theirs, timms in RENAMED:
            timm_name = timm_name.replace(theirs, timms)
        tower[timm_name] = {"cls_token": value.reshape(1, 1, -1), "pos_embed": value[None]}.get(timm_name, value)
    bias = "patch_embed.proj.bias"
    if bias in own:
        tower.setdefault(bias, state[f"{TOWER}class_embedding"].new_zeros(len(state[f"{TOWER}conv1.weight"])))
    return tower
