"""The configuration of a CLIP: open_clip's configuration by name, or from a JSON file; and its published weights.

No torch at import: keys are made from this before work starts.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ConfigError, WeightsError, unknown
from wsolpipe.networks.pretrained import fetching, file_sha256, hub_cached, require_host
from wsolpipe.networks.sources import Triple, Weights, triple

#: Of the images that CLIP was trained on (Radford et al., 2021).
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)

PARTS = ("embed_dim", "vision_cfg", "text_cfg")


@dataclass(frozen=True)
class ClipConfig:
    """An architecture.

    Attributes
    ----------
    name : str
        open_clip's name, or the name of the JSON file.
    parts : dict
        open_clip's ``model_cfg``: embed_dim, vision_cfg, text_cfg, quick_gelu …
    mean, std : three floats
        Of the input on the scale 0..1.
    """

    name: str
    parts: dict[str, Any]
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD


def is_file(model: str) -> bool:
    """Whether `model` names a JSON file and not an architecture that open_clip knows."""
    return model.lower().endswith(".json")


def in_key(model: str | None) -> Any:
    """Return what of a model goes into a key: its name, or the content of its JSON file."""
    if model is None:
        return None
    return _read_file(Path(model)) if is_file(model) else plain_name(model)


def plain_name(model: str) -> str:
    """open_clip's spelling of a name; OpenAI writes ``ViT-B/16``."""
    return model.replace("/", "-")


def clip_weights(model: str | None, weights: str | None, *, stage: str) -> str:
    """Specification of a CLIP's weights, as `wsolpipe.models.weight_sources.resolve` takes it.

    Parameters
    ----------
    model : str or None
        As a stage's parameter gives it.
    weights : str or None
        Likewise: a file, ``open_clip:TAG``, ``random:SEED``; None for the published weights of `model`.
    stage : str
        Name of the stage, for messages.

    Raises
    ------
    ConfigError
        If neither says which weights are meant.
    """
    if weights is not None and (not weights.startswith("open_clip:") or "/" in weights):
        return weights
    if model is None or is_file(model):
        msg = f"{stage}.model={model or 'null'} has no published weights"
        raise ConfigError(
            msg, hint=f"give a file: {stage}.weights=FILE, or a model of open_clip: {stage}.model=ViT-B-16"
        )
    return f"open_clip:{plain_name(model)}/{(weights or '').removeprefix('open_clip:')}"


def _read_file(path: Path) -> dict[str, Any]:
    """Read a JSON configuration.

    Parameters
    ----------
    path : Path
        Either open_clip's ``model_cfg`` alone, or with ``model_cfg`` and ``preprocess_cfg`` as on the hub.

    Raises
    ------
    ConfigError
        If it is not there, no JSON, or lacks a part.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read the CLIP configuration {path}: {error.strerror}"
        raise ConfigError(
            msg, hint="name a model of open_clip, such as ViT-B-16, or give the path of its JSON"
        ) from error
    except ValueError as error:
        msg = f"{path} is not JSON: {error}"
        raise ConfigError(msg) from error
    parts = raw.get("model_cfg", raw) if isinstance(raw, dict) else None
    missing = [name for name in PARTS if name not in parts] if isinstance(parts, dict) else list(PARTS)
    if missing:
        msg = f"{path} is not a CLIP configuration: it lacks {', '.join(missing)}"
        raise ConfigError(msg, hint="write it as open_clip does: embed_dim, vision_cfg, text_cfg")
    return dict(raw)


def read_config(model: str) -> ClipConfig:
    """Find an architecture.

    Parameters
    ----------
    model : str
        open_clip's name (``ViT-B-16``, ``EVA02-L-14``; ``ViT-B/16`` is read too), or the path of a ``.json``.

    Raises
    ------
    ConfigError
        If open_clip knows no such name, or the file is not a configuration.
    """
    if is_file(model):
        raw = _read_file(Path(model))
        seen = raw.get("preprocess_cfg", {}) if "model_cfg" in raw else {}
        return ClipConfig(
            name=Path(model).name,
            parts=dict(raw.get("model_cfg", raw)),
            mean=triple(seen.get("mean", CLIP_MEAN), f"preprocess_cfg.mean of {model}"),
            std=triple(seen.get("std", CLIP_STD), f"preprocess_cfg.std of {model}"),
        )
    import open_clip

    name = plain_name(model)
    parts = open_clip.get_model_config(name)
    if parts is None:
        raise ConfigError(
            unknown("CLIP", name, open_clip.list_models()), hint="or give the path of a JSON configuration"
        )
    return ClipConfig(name, dict(parts))


def has_quick_sibling(config: ClipConfig) -> bool:
    """Whether networks with these tensors exist both with GELU and with QuickGELU, so that their file must say which.

    A JSON configuration describes one network in full, as does a configuration with a timm or Hugging Face tower.
    """
    if is_file(config.name) or {"timm_model_name"} & config.parts["vision_cfg"].keys():
        return False
    import open_clip

    known = open_clip.list_models()
    return config.name not in known or f"{config.name}-quickgelu" in known


def published(spec: str) -> tuple[str, str, dict[str, Any]]:
    """open_clip's entry of published weights: model, tag, and where they lie.

    Parameters
    ----------
    spec : str
        ``MODEL/TAG``; without a tag OpenAI's, or the first that there is.

    Raises
    ------
    WeightsError
        If open_clip knows no such weights; names the nearest.
    """
    from open_clip import pretrained

    model, _, tag = spec.rpartition("/")
    model = plain_name(model)
    known = pretrained.list_pretrained_tags_by_model(model)
    if known and not tag:
        tag = "openai" if "openai" in known else known[0]
    entry = pretrained.get_pretrained_cfg(model, tag)
    if not entry:
        msg = (
            unknown(f"tag of {model}", tag, known)
            if known
            else f"open_clip has no published weights of {model or spec!r}"
        )
        raise WeightsError(msg, hint="write weights=open_clip:TAG, such as open_clip:openai, or give a file")
    return model, tag, dict(entry)


def find_published(name: str, *, fetch: bool) -> Weights | None:
    """Published weights, in the cache of the Hugging Face hub or of open_clip, or fetched.

    Parameters
    ----------
    name : str
        As `published`.
    fetch : bool
        Whether it may be downloaded.

    Returns
    -------
    Weights or None
        None where it is not here and must not be fetched.

    Raises
    ------
    WeightsError
        If open_clip knows no such weights, or they cannot be fetched.
    """
    model, tag, entry = published(name)
    path = _cached(entry)
    if path is None and not fetch:
        return None
    if path is None:
        path = _fetched(f"{model}/{tag}", entry)
    return Weights(file_sha256(path), f"open_clip:{model}/{tag}", path)


def _fetched(name: str, entry: dict[str, Any]) -> Path:
    with fetching(f"open_clip:{name}"):
        from huggingface_hub import constants
        from open_clip import pretrained

        require_host(constants.ENDPOINT if entry.get("hf_hub") else entry["url"])
        return Path(pretrained.download_pretrained(entry))


def _cached(entry: dict[str, Any]) -> Path | None:
    if entry.get("file"):
        return Path(entry["file"])
    if entry.get("hf_hub"):
        repo, _, file = str(entry["hf_hub"]).rpartition("/")
        plain = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        if found := hub_cached(repo, [str(Path(file).with_suffix(".safetensors")), file] if file else plain):
            return found
    with contextlib.suppress(RuntimeError):  # no home folder
        path = Path("~/.cache/clip").expanduser() / str(entry.get("url", "")).rpartition("/")[2]
        return path if path.is_file() else None
    return None
