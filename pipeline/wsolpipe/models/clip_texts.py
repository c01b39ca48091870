"""CLIP's texts: the half of any network of open_clip that gives texts vectors, whatever its images go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn.functional import normalize

from wsolpipe.contract.errors import ConfigError, WeightsError, first_line
from wsolpipe.models.class_names import ClassNames, fill_templates, require_templates
from wsolpipe.models.clip_config import ClipConfig, read_config
from wsolpipe.models.clip_files import build_clip, decide_gelu, fill_clip, infer_config, read_clip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from wsolpipe.networks.sources import Weights


#: Texts that are encoded at once.
TEXTS = 64


class ClipTexts:
    """The texts of a loaded CLIP, frozen, in evaluation mode; see `load_texts`.

    Attributes
    ----------
    name : str
    model : nn.Module
        open_clip's network.
    """

    model: Any

    def __init__(self, model: nn.Module, config: ClipConfig) -> None:
        self.model, self.name = model, config.name
        self._tokenise = build_tokenizer(config)

    @property
    def logit_scale(self) -> float:
        """Factor of cosines, exp of the trained number."""
        return float(self.model.logit_scale.detach().double().exp().reshape(()))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return cast("torch.device", self.model.logit_scale.device)

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
        msg = f"cannot get the tokeniser {foreign} of {config.name}: {first_line(error)}"
        raise ConfigError(msg, hint="run once with network, the cache is used ever after") from error
    return cast("Callable[[list[str]], Tensor]", made)


def load_network(
    model: str | None, weights: Weights, *, quick_gelu: bool | None, captioner: bool = False
) -> tuple[nn.Module, ClipConfig]:
    """Build a network and fill it.

    Parameters
    ----------
    model, weights, quick_gelu
        As `wsolpipe.models.clip.load_clip` takes them.
    captioner : bool
        Whether it may have a text decoder beside its towers (CoCa).

    Raises
    ------
    ConfigError
        If there is no such model.
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
    gelu = decide_gelu(config, state, weights, quick_gelu)
    built = build_clip(config, quick_gelu=gelu, seed=weights.seed or 0, captioner=captioner)
    if state is not None:
        fill_clip(built, state, name=config.name)
    return built, config


def load_texts(
    model: str | None, weights: Weights, *, device: str = "cpu", quick_gelu: bool | None = None
) -> ClipTexts:
    """Load a CLIP for its texts alone: any of open_clip's, with ResNets, transformers of timm and captioners too.

    Parameters and errors are those of `load_network`.
    """
    built, config = load_network(model, weights, quick_gelu=quick_gelu, captioner=True)
    return ClipTexts(built.to(device), config)


#: Names that are encoded together. Groups are cut by label, so a vector does not depend on which images came first.
GROUP = 32


class NameVectors:
    """Unit vectors of a class list, made when first asked for and kept.

    Parameters
    ----------
    clip : ClipTexts
    names : ClassNames
    templates : sequence of str
        Each with ``{}`` where the name goes.
    background : sequence of str
        Words whose vectors are made at once, as `background`, float tensor [M, D].
    """

    def __init__(
        self, clip: ClipTexts, names: ClassNames, templates: Sequence[str], background: Sequence[str] = ()
    ) -> None:
        self.clip, self.names, self.templates = clip, names, tuple(templates)
        self.labels = sorted(names.prompts)
        self.background = clip.encode_names(background, templates)
        self._groups: dict[int, Tensor] = {}

    def __getitem__(self, label: int) -> Tensor:
        """Vector [D] of a label.

        Raises
        ------
        ConfigError
            If the list has no such label.
        """
        self.names.prompt(label)  # raises, naming list and label
        group, place = divmod(self.labels.index(label), GROUP)
        return self._group(group)[place]

    def everything(self) -> Tensor:
        """Vectors [K, D] of all labels, in their order."""
        return torch.cat([self._group(number) for number in range(-(-len(self.labels) // GROUP))])

    def likeliest(self, images: Tensor, count: int) -> list[list[int]]:
        """The `count` labels whose vectors are nearest to each image's unit vector [B, D], the nearest first."""
        order = (images @ self.everything().T).argsort(dim=1, descending=True, stable=True)[:, :count]
        return [[self.labels[place] for place in row] for row in order.tolist()]

    def _group(self, number: int) -> Tensor:
        if number not in self._groups:
            labels = self.labels[number * GROUP : (number + 1) * GROUP]
            words = [self.names.prompt(label) for label in labels]
            self._groups[number] = self.clip.encode_names(words, self.templates)
        return self._groups[number]

    def rows(self, present: Sequence[Sequence[int]], *, at_least: int = 1) -> tuple[Tensor, Tensor]:
        """Vectors of the classes of each of several images.

        Parameters
        ----------
        present : sequence of B sequences of int
            Labels; may be empty.
        at_least : int
            Lowest P.

        Returns
        -------
        names : float tensor [B, P, D]
            P is the longest of them; padded with zeros.
        there : bool tensor [B, P]
        """
        longest = max(at_least, *(len(labels) for labels in present))
        names = self.background.new_zeros(len(present), longest, self.background.shape[1])
        there = torch.zeros(len(present), longest, dtype=torch.bool, device=names.device)
        for row, labels in enumerate(present):
            for place, label in enumerate(labels):
                names[row, place] = self[label]
            there[row, : len(labels)] = True
        return names, there
