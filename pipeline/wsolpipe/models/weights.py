"""Weights by what they hold: every file that goes into a result is known by its sha256.

A specification is one of

- ``file:PATH``, or just ``PATH``: a .safetensors, .pt, .pth, .bin or .onnx file;
- ``timm:NAME[.TAG]``: pretrained weights of a timm model, from its cache or fetched;
- ``torchvision:NAME``: official weights of a torchvision detector, from torch's cache or fetched;
- ``open_clip:MODEL/[TAG]``: published weights of a CLIP, from the caches that open_clip uses or fetched;
- ``transformers:NAME``: a CLIPSeg as transformers saves it, a folder or a name of the hub;
- ``random:SEED``: no file, a seeded initialisation (for tests and timings).

Torch is imported only where tensors are read, so that planning a run stays quick.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import WeightsError
from wsolpipe.models.digests import file_sha256, words_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".onnx")
FORMS = "write weights=FILE (.safetensors, .pt, .pth), weights=timm:NAME or weights=random:SEED"

#: Keys under which training scripts nest the tensors; a self-distilled checkpoint keeps its teacher.
NESTINGS = ("state_dict", "model", "teacher")
#: Wrappers whose names lead every key.
WRAPPERS = ("module.", "_orig_mod.", "backbone.")


@dataclass(frozen=True)
class Weights:
    """One resolved weights file.

    Attributes
    ----------
    sha256 : str
        Of the file's bytes (for random weights: of the words that make them).
    source : str
        File name, ``timm:NAME``, ``torchvision:NAME``, ``open_clip:MODEL/TAG`` or ``random:SEED``; never a path of
        this machine.
    path : Path or None
        Where the file is here; None for random weights.
    """

    sha256: str
    source: str
    path: Path | None

    @property
    def seed(self) -> int | None:
        """Seed of random weights, None for a file."""
        return int(self.source.removeprefix("random:")) if self.path is None else None


def resolve(spec: str, *, fetch: bool = True) -> Weights | None:
    """Find the file that a specification means, and its sha256.

    Parameters
    ----------
    spec : str
        ``file:PATH``, a bare path, ``timm:NAME[.TAG]``, ``open_clip:MODEL/TAG`` or ``random:SEED``.
    fetch : bool
        Whether pretrained weights that are not in the cache may be downloaded.

    Returns
    -------
    Weights or None
        None only where `fetch` is false and the file is not here yet.

    Raises
    ------
    WeightsError
        If the file, the model or the network is missing; the message says what to give instead.
    """
    kind, _, rest = spec.partition(":")
    if kind == "random":
        return _resolve_random(spec, rest)
    if kind == "timm":
        from wsolpipe.models.pretrained import find_pretrained

        found = find_pretrained(rest, fetch=fetch)
        return None if found is None else Weights(file_sha256(found.path), f"timm:{found.name}", found.path)
    if kind == "torchvision":
        from wsolpipe.models.detectors import find_detector

        file = find_detector(rest, fetch=fetch)
        return None if file is None else Weights(file_sha256(file), spec, file)
    if kind == "open_clip":
        from wsolpipe.models.clip_config import find_published

        known = find_published(rest, fetch=fetch)
        return None if known is None else Weights(file_sha256(known[1]), f"open_clip:{known[0]}", known[1])
    if kind == "transformers":
        from wsolpipe.models.clipseg import find_clipseg

        model = find_clipseg(rest, fetch=fetch)
        return None if model is None else Weights(*model)
    return _resolve_file(Path(rest if kind == "file" else spec).expanduser())


def _resolve_random(spec: str, seed: str) -> Weights:
    if not seed.isdecimal():
        msg = f"random weights need a seed, a whole number from 0 on; got {spec!r}"
        raise WeightsError(msg, hint="write weights=random:0")
    return Weights(words_sha256(f"random:{int(seed)}"), f"random:{int(seed)}", None)


def _resolve_file(path: Path) -> Weights:
    if not path.exists():
        msg = f"no weights file at {path}"
        raise WeightsError(msg, hint=FORMS)
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        kind = "a folder" if path.is_dir() else f"a {path.suffix or 'suffixless'} file"
        msg = f"{path} is {kind}, not weights; known are {', '.join(SUFFIXES)}"
        raise WeightsError(msg, hint=FORMS)
    try:
        return Weights(file_sha256(path), path.name, path)
    except OSError as error:
        msg = f"cannot read the weights file {path}: {error.strerror}"
        raise WeightsError(msg, hint="check its permissions, or give another file") from error


def load_state(weights: Weights, *, unwrap: bool = True) -> dict[str, Tensor]:
    """Read the tensors of a weights file, freed from the nestings of training scripts.

    Official DINO checkpoints hold ``{"teacher": {"backbone.blocks.0…": …, "head.…": …}, …}`` or the bare backbone;
    both come back with the backbone's own names. Half precision becomes float32. Nothing in the file is executed.

    Parameters
    ----------
    weights : Weights
        A resolved file.
    unwrap : bool
        Whether nestings and wrappers are taken off; a detector's ``backbone.`` is no wrapper.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    WeightsError
        If the file is no checkpoint, is torn, or holds objects other than tensors and plain values.
    """
    if weights.path is None:
        msg = f"{weights.source} is an initialisation, not a file with tensors"
        raise WeightsError(msg)
    loaded = _read(weights.path)
    named = _unwrap(loaded) if unwrap else loaded
    state = {key: value for key, value in named.items() if _is_tensor(value)}
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
        # Training scripts store their arguments beside the tensors; a Namespace runs no code when it is read.
        from argparse import Namespace

        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = f"{path} is no plain checkpoint: {first_line(error)}"
        raise WeightsError(
            msg, hint="only tensors are read; save it as safetensors, or its state_dict alone"
        ) from error
    except Exception as error:  # what a torn file raises differs with its format and version
        msg = f"cannot read {path} as weights: {first_line(error)}"
        raise WeightsError(msg, hint="fetch or copy the file again; it may be torn") from error


def first_line(error: Exception) -> str:
    """What an error says, without what follows it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _unwrap(loaded: Any) -> dict[str, Any]:
    while isinstance(loaded, Mapping):
        inner = next((loaded[name] for name in NESTINGS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping):
        return {}
    state = {str(key): value for key, value in loaded.items()}
    while (wrapper := _wrapper(state)) is not None:
        state = {key.removeprefix(wrapper): value for key, value in state.items() if key.startswith(wrapper)}
    return state


def _wrapper(state: Mapping[str, Any]) -> str | None:
    """Prefix to be taken off; keys beside a ``backbone.`` belong to a projection head."""
    for wrapper in WRAPPERS:
        wrapped = sum(key.startswith(wrapper) for key in state)
        if state and (wrapped == len(state) or (wrapper == "backbone." and wrapped)):
            return wrapper
    return None


def load_into(model: nn.Module, state: Mapping[str, Tensor], *, what: str, ignore: Sequence[str] = ()) -> None:
    """Load tensors into a model, all of them or none.

    Positional embeddings of another image size are resampled as timm does (bicubic), and other names of the same
    vision transformer (DINOv2, EVA) are translated by timm; a differing patch size is refused, not resampled.

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

    Raises
    ------
    WeightsError
        If a tensor is missing, unexpected or of another shape; names the first of each.
    """
    fitted = _fitted(model, state)
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in fitted]
    unexpected = [key for key in fitted if key not in wanted and not key.startswith(tuple(ignore))]
    misshapen = [key for key in wanted if key in fitted and wanted[key].shape != fitted[key].shape]
    misshapen.sort(key=lambda key: key == "pos_embed")  # its shape follows from the patches'; they say more
    if missing or unexpected or misshapen:
        parts = [_listed("missing", missing), _listed("unexpected", unexpected)]
        if misshapen:
            key = misshapen[0]
            parts.append(f"{key} is {list(fitted[key].shape)} where the model has {list(wanted[key].shape)}")
        msg = f"the weights do not fit {what}: {'; '.join(part for part in parts if part)}"
        raise WeightsError(
            msg, hint="give the model that these weights are of (model=, model_args.…=), or other weights"
        )
    model.load_state_dict({key: fitted[key] for key in wanted})


def _listed(name: str, keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{name} {keys[0]}{more}" if keys else ""


def _fitted(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate and resample a vision transformer's tensors; leave everything else alone."""
    import sys

    key = "patch_embed.proj.weight"
    own, given = dict(model.named_parameters()).get(key), state.get(key)
    adapt = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if adapt is None or own is None or given is None or own.shape != given.shape:
        return dict(state)
    try:
        adapted = adapt(dict(state), model)
    except (RuntimeError, KeyError, ValueError, AssertionError):
        # Not what timm knows either: the comparison of keys that follows says where they differ.
        return dict(state)
    return dict(adapted)
