"""Models as transformers saves them: a folder of ``config.json`` and ``model.safetensors``, here or on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wsolpipe.contract.errors import ConfigError, WeightsError, first_line
from wsolpipe.images.geometry import resize
from wsolpipe.networks.pretrained import fetching, file_sha256, hub_cached, hub_fetched, words_sha256
from wsolpipe.networks.sources import IMAGENET, Triple, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


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
    config, tensors = hub_cached(name, [CONFIG]), hub_cached(name, [TENSORS, OLD_TENSORS])
    if config is not None and tensors is not None:
        return config.parent
    if not fetch:
        return None
    with fetching(name, "folder"):
        hub_fetched(name, [TENSORS, OLD_TENSORS])
        return hub_fetched(name, [CONFIG]).parent


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
        msg = f"cannot read {folder / CONFIG}: {first_line(error)}"
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
        msg = f"cannot load {name}: {first_line(error)}"
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


class Sam:
    """A loaded Segment Anything, frozen, in evaluation mode; see `load_sam`.

    Parameters
    ----------
    model : SamModel
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.side = int(model.config.vision_config.image_size)

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image [H, W, 3] whose longer side is that of the network."""
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        return resize(image, (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))))

    def masks(
        self, pixels: NDArray[np.uint8], boxes: NDArray[np.floating[Any]], *, several: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Masks of what lies in boxes of one image.

        Parameters
        ----------
        pixels : uint8 array [h, w, 3]
            Of `fit`.
        boxes : float array [K, 4]
            xyxy in those pixels; at least one.
        several : bool
            Draw three masks a box (a part, an object, several) and take the one that the network expects to fit best,
            instead of its single one.

        Returns
        -------
        logits : float32 array [K, h, w]
            Above 0 inside of the mask.
        fit : float32 array [K]
            IoU with the object that the network expects.
        """
        import torch
        from torch.nn.functional import interpolate, pad

        device, (height, width) = self.model.device, pixels.shape[:2]
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in IMAGENET)
        image = (torch.from_numpy(pixels).to(device).permute(2, 0, 1).float() - mean) / std
        image = pad(image, (0, self.side - width, 0, self.side - height))
        with torch.inference_mode():
            found = self.model(
                pixel_values=image[None],
                input_boxes=torch.as_tensor(boxes, dtype=torch.float32, device=device)[None],
                multimask_output=several,
            )
            scores = found.iou_scores[0]  # [K, 3 or 1]
            best = scores.argmax(1)
            chosen = found.pred_masks[0].gather(1, best[:, None, None, None].expand(-1, 1, *found.pred_masks.shape[3:]))
            wide = interpolate(chosen, (self.side, self.side), mode="bilinear", align_corners=False)
        fits = cast("Tensor", scores.gather(1, best[:, None])[:, 0])
        return wide[:, 0, :height, :width].float().cpu().numpy(), fits.float().cpu().numpy()


def load_sam(folder: Path, *, name: str, device: str = "cpu") -> Sam:
    """Load a folder of `wsolpipe.models.saved_models.find_saved`; nothing is fetched.

    Raises
    ------
    ConfigError
        If the folder holds another kind of model.
    WeightsError
        If the tensors cannot be read, or some are missing, left over or misshapen.
    """
    hint = "sam_boxes.weights=facebook/sam-vit-base, or a folder of such a model"
    model = load_saved(folder, name=name, kind="sam", architecture="SamModel", hint=hint)
    return Sam(model.to(device))


#: Tokens that CLIP's byte-pair encoding makes.
VOCABULARY = 49408


class ClipSeg:
    """A loaded CLIPSeg, frozen, in evaluation mode; see `load_clipseg`.

    Parameters
    ----------
    model : CLIPSegForImageSegmentation
    name : str
        For messages.
    """

    def __init__(self, model: Any, name: str) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.model, self.name = model, name
        self._tokenise = SimpleTokenizer(context_length=int(model.config.text_config.max_position_embeddings))

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.config.vision_config.patch_size)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return cast("torch.device", self.model.device)

    def normalise(self, pixels: NDArray[np.uint8], mean: Triple, std: Triple) -> Tensor:
        """Input of the network, float [B, 3, H, W] on its device, from uint8 [B, H, W, 3]."""
        import torch

        kind = {"device": self.device, "dtype": self.model.dtype}
        middle, spread = (torch.tensor(values, **kind).view(3, 1, 1) * 255 for values in (mean, std))
        return (torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).to(middle.dtype) - middle) / spread

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Vectors of texts, float tensor [len(prompts), D], not of unit length."""
        import torch

        tokens = self._tokenise(list(prompts)).to(self.device)
        # The last token of a text has the highest number; what is behind it is padding.
        ends = tokens.argmax(dim=1, keepdim=True)
        attended = (torch.arange(tokens.shape[1], device=self.device) <= ends).long()
        with torch.no_grad():
            found = self.model.get_conditional_embeddings(len(tokens), input_ids=tokens, attention_mask=attended)
        return cast("Tensor", found)

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """How much each pixel is of each text, before the sigmoid; the vision tower runs once for all texts.

        Parameters
        ----------
        images : float tensor [B, 3, S, S]
            Square, normalised; S is a multiple of the patch.
        texts : float tensor [B, T, D]

        Returns
        -------
        float tensor [B, T, S, S]
        """
        import torch

        model, count = self.model, texts.shape[1]
        with torch.no_grad():
            seen = model.clip.vision_model(images, output_hidden_states=True, interpolate_pos_encoding=True)
            chosen = [seen.hidden_states[layer + 1] for layer in model.extract_layers]
            repeated = [states.repeat_interleave(count, dim=0) for states in chosen]
            drawn = model.decoder(repeated, texts.flatten(0, 1)).logits
        return cast("Tensor", drawn.unflatten(0, (len(images), count)))


def load_clipseg(folder: Path, *, name: str, device: str = "cpu") -> ClipSeg:
    """Load a folder of `find_saved`; nothing is fetched.

    Parameters
    ----------
    folder : Path
    name : str
        For messages.
    device : str

    Raises
    ------
    ConfigError
        If the folder holds another kind of model, or one whose texts are not cut into CLIP's tokens.
    WeightsError
        If the tensors cannot be read, or some are missing, left over or misshapen.
    """
    hint = "clipseg_cams.weights=CIDAS/clipseg-rd64-refined, or a folder of such a model"
    model = load_saved(folder, name=name, kind="clipseg", architecture="CLIPSegForImageSegmentation", hint=hint)
    words = model.config.text_config.vocab_size
    if words != VOCABULARY:
        msg = f"the text tower of {name} knows {words} tokens, and CLIP's byte-pair encoding has {VOCABULARY}"
        raise ConfigError(msg, hint="give a CLIPSeg that reads texts as CLIP does, such as CIDAS/clipseg-rd64-refined")
    return ClipSeg(model.to(device), name)
