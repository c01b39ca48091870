"""Models as transformers saves them: a folder of ``config.json`` and ``model.safetensors``, here or on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.networks.digests import file_sha256, words_sha256
from wsolpipe.networks.sources import Weights

CONFIG, TENSORS, OLD_TENSORS = "config.json", "model.safetensors", "pytorch_model.bin"


def find_saved(name: str, *, fetch: bool) -> Weights | None:
    """Find a folder by path, or in the cache of the hub by name, or fetch it.

    Parameters
    ----------
    name : str
        Path of a folder, or ``OWNER/NAME`` of the Hugging Face hub.
    fetch : bool
        Whether it may be downloaded.

    Returns
    -------
    Weights or None
        The folder, with the sha256 over the names and bytes of the configuration and the tensors; None where it is not
        on this machine and must not be fetched.

    Raises
    ------
    WeightsError
        If the folder lacks one of these, or the model cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        source = f"transformers:{folder.name}"
    else:
        if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
            msg = f"no folder {name}, and no name of the Hugging Face hub"
            raise WeightsError(msg, hint="write weights=FOLDER, or weights=OWNER/NAME")
        found = _from_hub(name, fetch=fetch)
        if found is None:
            return None
        folder, source = found, f"transformers:{name}"
    files = _files(folder)
    digest = words_sha256("|".join(f"{file.name}={file_sha256(file)}" for file in files))
    return Weights(digest, source, folder)


def _files(folder: Path) -> list[Path]:
    tensors = next((folder / name for name in (TENSORS, OLD_TENSORS) if (folder / name).is_file()), None)
    missing = [] if (folder / CONFIG).is_file() else [CONFIG]
    missing += [] if tensors else [TENSORS]
    if missing or tensors is None:
        msg = f"{folder} is not a model saved by transformers: {' and '.join(missing)} missing"
        raise WeightsError(msg, hint="save it with model.save_pretrained(folder)")
    return [folder / CONFIG, tensors]


def _from_hub(name: str, *, fetch: bool) -> Path | None:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    from wsolpipe.networks.pretrained import require_host

    here = [try_to_load_from_cache(name, file) for file in (CONFIG, TENSORS, OLD_TENSORS)]
    if isinstance(here[0], str) and any(isinstance(path, str) for path in here[1:]):
        return Path(here[0]).parent
    if not fetch:
        return None
    try:
        require_host(constants.ENDPOINT)
        config = hf_hub_download(name, CONFIG)
        try:
            hf_hub_download(name, TENSORS)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            hf_hub_download(name, OLD_TENSORS)
        return Path(config).parent
    except Exception as error:  # a failing network raises differently with each client and its version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = f"cannot fetch {name}: {reason}"
        raise WeightsError(
            msg,
            hint="give a folder that you have: weights=FOLDER; or run once with network, the cache is used ever after",
        ) from error


def load_saved(folder: Path, *, name: str, kind: str, architecture: str, hint: str) -> Any:
    """Load a folder of `find_saved` in float32, frozen, in evaluation mode; nothing is fetched.

    Parameters
    ----------
    folder : Path
    name : str
        For messages.
    kind : str
        ``model_type`` of its configuration.
    architecture : str
        Class of transformers.
    hint : str
        What to do where the folder holds another kind of model.

    Raises
    ------
    ConfigError
        If the folder holds another kind of model.
    WeightsError
        If the tensors cannot be read, or some are missing, left over or misshapen.
    """
    import transformers
    from transformers.utils import logging

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"cannot read {folder / CONFIG}: {str(error).splitlines()[0]}"
        raise WeightsError(msg, hint="fetch or copy the folder again; it may be truncated") from error
    if config.get("model_type") != kind:
        msg = f"{name} is a model of type {config.get('model_type')!r}, not {kind}"
        raise ConfigError(msg, hint=hint)
    logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, architecture).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, torch_dtype="float32"
        )
    except Exception as error:  # what a truncated file raises differs with its format and version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = f"cannot load {name}: {reason}"
        raise WeightsError(msg, hint="fetch or copy the folder again; it may be truncated") from error
    _refuse_misfit(report, name)
    return model.eval().requires_grad_(requires_grad=False)


def _refuse_misfit(report: dict[str, Any], name: str) -> None:
    """Refuse tensors that do not fit, which transformers would replace by random ones."""
    missing = sorted(key for key in report.get("missing_keys", ()) if not key.endswith("position_ids"))
    spare = sorted(key for key in report.get("unexpected_keys", ()) if not key.endswith("position_ids"))
    shapes = sorted(str(item[0]) for item in report.get("mismatched_keys", ()))
    lists = (("missing", missing), ("unexpected", spare), ("of another shape", shapes))
    wrong = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{' …' if len(keys) > 4 else ''}" for what, keys in lists if keys
    ]
    if wrong:
        msg = f"the tensors of {name} do not fit: {'; '.join(wrong)}"
        raise WeightsError(msg, hint="give the folder of a whole model; config.json and tensors belong together")
