"""CLIP: texts and patches in one space, and what lies between them.

Any CLIP of open_clip whose vision tower is a transformer with a class token: OpenAI's and open_clip's ViTs, EVA02-CLIP.
Only the last block ever needs a gradient for a class activation map (Lin et al., "CLIP is also an efficient segmenter",
CVPR 2023), so the network is open there: `Clip.reach` runs everything before it, `Clip.last` is the block itself, and
`Clip.embed` leads from its tokens to the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import normalize

from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.models.class_names import fill_templates, require_templates
from wsolpipe.models.clip_config import read_config
from wsolpipe.models.clip_files import build_clip, decide_gelu, fill_clip, infer_config, read_clip
from wsolpipe.models.clip_tower import open_tower

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsolpipe.models.clip_blocks import Block
    from wsolpipe.models.clip_config import ClipConfig
    from wsolpipe.models.clip_tower import Tower
    from wsolpipe.networks.positions import Positions
    from wsolpipe.networks.preprocessing import Triple
    from wsolpipe.networks.sources import Weights

#: Texts that are encoded at once.
TEXTS = 64


@dataclass(frozen=True)
class Reached:
    """Where the last block begins.

    Attributes
    ----------
    tokens : float tensor [B, P + hw, C]
        What enters the last block; P prefix tokens (the class token first), then patches row by row.
    rope : float tensor or None
        Rotary embedding of the grid, where the network has one.
    grid : (h, w)
    attention : float tensor [B, P + hw, P + hw] or None
        Attention of the blocks asked for, averaged over heads and *summed* over blocks.
    blocks : int
        How many blocks it is summed over.
    """

    tokens: Tensor
    rope: Tensor | None
    grid: tuple[int, int]
    attention: Tensor | None
    blocks: int


class Clip:
    """A loaded CLIP, frozen, in evaluation mode; see `load_clip`.

    Attributes
    ----------
    name : str
    model : nn.Module
        open_clip's network.
    tower : Tower
        Access to the parts of its vision tower.
    mean, std : three floats
        Of the input on the scale 0..1.
    """

    model: Any

    def __init__(self, model: nn.Module, config: ClipConfig, *, positions: Positions = "bilinear") -> None:
        self.model, self.name = model, config.name
        self.mean: Triple = config.mean
        self.std: Triple = config.std
        self.tower: Tower = open_tower(self.model.visual, config.name, positions)
        self._tokenise = build_tokenizer(config)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.tower.patch

    @property
    def size(self) -> int:
        """Longer side of the images of training, in pixels."""
        return max(self.tower.size)

    @property
    def last(self) -> Block:
        """The last block."""
        return self.tower.blocks[-1]

    @property
    def logit_scale(self) -> float:
        """Factor of cosines, exp of the trained number."""
        return float(self.model.logit_scale.detach().double().exp().reshape(()))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return cast("torch.device", self.model.logit_scale.device)

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Input of the network, float [B, 3, H, W] on its device, from uint8 [B, H, W, 3]."""
        kind = {"device": self.device, "dtype": self.model.logit_scale.dtype}
        mean, std = (torch.tensor(values, **kind).view(3, 1, 1) * 255 for values in (self.mean, self.std))
        return (torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).to(mean.dtype) - mean) / std

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode texts as they are.

        Parameters
        ----------
        prompts : sequence of str

        Returns
        -------
        float tensor [len(prompts), D]
            Unit vectors.
        """
        found = []
        for start in range(0, len(prompts), TEXTS):
            words = self._tokenise(list(prompts[start : start + TEXTS])).to(self.device)
            found.append(normalize(self.model.encode_text(words), dim=-1))
        return torch.cat(found) if found else torch.empty(0, self._dimensions(), device=self.device)

    def encode_names(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """One vector a name: the mean over templates of unit vectors, made a unit vector again.

        Parameters
        ----------
        names : sequence of str
        templates : sequence of str
            Each with ``{}`` where the name goes.

        Returns
        -------
        float tensor [len(names), D]

        Raises
        ------
        ConfigError
            If there is no template, or one has no ``{}``.
        """
        require_templates(templates)
        texts = self.encode_text([text for name in names for text in fill_templates(templates, name)])
        if not names:
            return texts
        return normalize(texts.reshape(len(names), len(templates), -1).mean(dim=1), dim=-1)

    def _dimensions(self) -> int:
        return int(self.encode_text(["a"]).shape[1])

    @torch.no_grad()
    def reach(self, images: Tensor, *, attention: int = 0) -> Reached:
        """Run every block but the last, without gradient.

        Parameters
        ----------
        images : float tensor [B, 3, H, W]
            Normalised; sides are multiples of the patch, and need be neither square nor those of training.
        attention : int
            Of how many blocks, counted from the end and the last one included, attention is wanted. The last block's
            own is not in the sum: it is not run here.
        """
        tokens, rope = self.tower.tokens(images)
        before = self.tower.blocks[:-1]
        first = max(0, len(before) + 1 - attention)
        seen: Tensor | None = None
        for number, block in enumerate(before):
            if number < first:
                tokens = block.whole(tokens, rope)
                continue
            tokens, weights = block.after_joint(tokens, block.joint(block.norm(tokens)), rope)
            mean = weights.mean(dim=1)
            seen = mean if seen is None else seen.add_(mean)
        return Reached(tokens, rope, self.tower.grid(images), seen, max(0, len(before) - first))

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens [..., C] after the last block -> joint space [..., D], token by token; not of unit length."""
        return self.tower.embed(tokens)

    def patches(self, tokens: Tensor) -> Tensor:
        """The patch tokens [B, hw, C] among all."""
        return tokens[:, self.tower.prefix :]


def build_tokenizer(config: ClipConfig) -> Callable[[list[str]], Tensor]:
    """The tokeniser that the text tower was trained with; open_clip's own vocabulary needs no network.

    Returns
    -------
    callable
        list of N str -> int64 tensor [N, context length].

    Raises
    ------
    ConfigError
        If the tokeniser of another model cannot be had, or knows more words than the text tower.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    text = config.parts["text_cfg"]
    length = int(text.get("context_length", DEFAULT_CONTEXT_LENGTH))
    options = dict(text.get("tokenizer_kwargs") or {})
    foreign = text.get("hf_tokenizer_name")
    if not foreign:
        tokenizer = SimpleTokenizer(context_length=length, **options)
        if tokenizer.vocab_size > int(text.get("vocab_size", tokenizer.vocab_size)):
            msg = f"{config.name} knows {text['vocab_size']} tokens, open_clip's tokeniser makes {tokenizer.vocab_size}"
            raise ConfigError(msg, hint="name its tokeniser in the configuration: text_cfg.hf_tokenizer_name")
        return cast("Callable[[list[str]], Tensor]", tokenizer)
    try:
        made = HFTokenizer(foreign, context_length=length, tokenizer_mode=text.get("tokenizer_mode"), **options)
    except Exception as error:  # the network, the hub's client or the file may fail
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = f"cannot get the tokeniser {foreign} of {config.name}: {reason}"
        raise ConfigError(msg, hint="run once with network, the cache is used ever after") from error
    return cast("Callable[[list[str]], Tensor]", made)


def load_clip(
    model: str | None,
    weights: Weights,
    *,
    device: str = "cpu",
    quick_gelu: bool | None = None,
    positions: Positions = "bilinear",
) -> Clip:
    """Load a CLIP.

    Parameters
    ----------
    model : str or None
        open_clip's name, the path of a JSON configuration, or None for what the tensors of a file of OpenAI's kind say.
    weights : Weights
        See `wsolpipe.models.weight_sources.resolve`; ``open_clip:MODEL/TAG``, a file in a layout of
        `wsolpipe.models.clip_files`, or ``random:SEED``.
    device : str
    quick_gelu : bool, optional
        Overrules what layout, tag or name say.
    positions : "bilinear", "timm" or "dino"
        How position embeddings are stretched to a grid other than that of training: as CLIP-ES, open_clip or SCLIP do.

    Raises
    ------
    ConfigError
        If there is no such model, or its vision tower is not a transformer with a class token and plain attention.
    WeightsError
        If the file cannot be read or does not fit; names missing, unexpected and misshapen keys.
    """
    state = None if weights.path is None else read_clip(weights)
    if model is not None:
        config = read_config(model)
    elif state is None:
        msg = f"{weights.source} needs a model to fill"
        raise WeightsError(msg, hint="give the model, such as model=ViT-B-16")
    else:
        config = infer_config(state, weights.source)
    built = build_clip(config, quick_gelu=decide_gelu(config, state, weights, quick_gelu), seed=weights.seed or 0)
    if state is not None:
        fill_clip(built, state, name=config.name)
    return Clip(built.to(device), config, positions=positions)
