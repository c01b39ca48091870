"""CLIPSeg: a decoder that draws where a text is, on top of CLIP's vision tower, by way of transformers.

Lüddecke and Ecker, "Image segmentation using text and image prompts", CVPR 2022. A model is a folder of
`wsolpipe.models.saved_models`. Texts are cut into CLIP's own tokens by open_clip, so the folder needs no files of a
tokeniser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from wsolpipe.contract.errors import ConfigError
from wsolpipe.models.saved_models import load_saved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from wsolpipe.networks.preprocessing import Triple

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
