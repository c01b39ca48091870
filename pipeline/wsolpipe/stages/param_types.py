"""Types of parameters that several stages share: how people write lists and targets, and how a CLIP is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.kinds import NamesFile
from wsolpipe.models.class_names import ClassNames, choose_class_names, read_class_names, require_templates
from wsolpipe.models.clip_config import clip_weights, in_key
from wsolpipe.stages.base import Advice, Context, StageParams
from wsolpipe.stages.marks import WeightsSource

if TYPE_CHECKING:
    from wsolpipe.models.clip import Clip
    from wsolpipe.models.clip_texts import ClipTexts
    from wsolpipe.networks.positions import Positions

T = TypeVar("T")


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _distinct(value: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(value)) < len(value):
        msg = "a method stands twice"
        raise ValueError(msg)
    return value


def _templates(value: tuple[str, ...]) -> tuple[str, ...]:
    require_templates(value)
    return value


def _target(value: Any) -> Any:
    return "true" if value is True else value  # YAML reads the word as a truth value


#: Marks a tuple of words of which one alone may be written without brackets.
OneOrMore = BeforeValidator(_listed)
#: Marks a tuple in which nothing may stand twice.
Distinct = AfterValidator(_distinct)
#: Marks a word that may be ``true``.
TargetWord = BeforeValidator(_target)
#: Templates of prompts, each with ``{}`` for the name.
Templates = Annotated[tuple[str, ...], OneOrMore, AfterValidator(_templates)]


class NamedParams(StageParams):
    """Parameters of a stage that reads class names.

    Attributes
    ----------
    classes
        Class list, a YAML file with names, renames and background words; null: the data set's own names
    """

    classes: Annotated[str | None, NamesFile()]

    def in_key(self) -> dict[str, Any]:
        """The class list by its contents."""
        values = super().in_key()
        values["classes"] = None if self.classes is None else read_class_names(self.classes).in_key()
        return values

    def names(self, context: Context) -> ClassNames:
        """The names to use.

        Raises
        ------
        ConfigError
            If the class list does not fit the data set.
        """
        return choose_class_names(self.classes, context.class_names, dataset=context.dataset)


class ClipParams(NamedParams):
    """Parameters of a stage that asks a CLIP.

    Attributes
    ----------
    model
        open_clip's name of a CLIP (with a vision transformer, where images are seen), or a JSON configuration; null:
        what the file of OpenAI's layout says
    weights
        File, open_clip:TAG or random:SEED; null: OpenAI's weights of the model, or its first published ones
    quick_gelu
        Use the activation of OpenAI's models; null: what the file's layout, the tag or the model's name say
    prompts
        One or several templates with {} where the name goes; the unit vectors of several are averaged
    """

    model: str | None
    weights: Annotated[str | None, WeightsSource()]
    quick_gelu: bool | None
    prompts: Templates

    def in_key(self) -> dict[str, Any]:
        """The model's configuration by its contents."""
        return {**super().in_key(), "model": in_key(self.model)}

    def load_clip(self, context: Context, *, positions: Positions = "bilinear") -> Clip:
        """Load the CLIP.

        Raises
        ------
        ConfigError
            If there is no such model.
        WeightsError
            If the weights do not fit it.
        """
        from wsolpipe.models.clip import load_clip

        weights = context.weights["model"]
        return load_clip(self.model, weights, device=context.device, quick_gelu=self.quick_gelu, positions=positions)

    def load_texts(self, context: Context) -> ClipTexts:
        """Load the CLIP for its texts alone; errors as of `load_clip`."""
        from wsolpipe.models.clip_texts import load_texts

        return load_texts(self.model, context.weights["model"], device=context.device, quick_gelu=self.quick_gelu)


class ReadsNames:
    """Of a stage with `NamedParams`; named before `Stage` or `ArtifactStage`."""

    @classmethod
    def reads_class_names(cls, params: NamedParams) -> bool:
        """Whether the data set names the classes: no class list is given."""
        return params.classes is None


class AsksClip(ReadsNames):
    """Of a stage with `ClipParams`; `stage` is its name in ``stages.yaml``."""

    stage: ClassVar[str]

    @classmethod
    def weights_needed(cls, params: ClipParams) -> dict[str, str]:
        """The CLIP's weights, under the name ``model``."""
        return {"model": clip_weights(params.model, params.weights, stage=cls.stage)}

    @classmethod
    def advice(cls, params: ClipParams) -> tuple[Advice, ...]:
        """Words that CLIP has seen beside such pictures."""
        names = (f"{cls.stage}.classes=FILE", "a list of class names as captions have them")
        prompts = (f"{cls.stage}.prompts=…", "prompts that name the objects as captions do")
        return (prompts, names) if params.classes is None else (prompts,)


Resize = Literal["bicubic", "bilinear"]


def _stretch(value: Any) -> Any:
    return "bicubic" if value == "timm" else value  # one way, and one word for it in the key


#: How a CLIP's position embeddings are stretched; ``timm`` is another word for ``bicubic``.
Stretch = Annotated[Literal["bilinear", "bicubic", "dino"], BeforeValidator(_stretch)]


def require_tiling(size: int, patch: int, *, parameter: str, model: str) -> None:
    """Refuse a side that patches do not tile.

    Raises
    ------
    ConfigError
        With the nearest sides that they do.
    """
    below = size // patch * patch
    if below != size:
        near = " or ".join(str(side) for side in (below, below + patch) if side)
        msg = f"{parameter}={size} is not a multiple of the patch size {patch} of {model}"
        raise ConfigError(msg, hint=f"set {parameter}={near}")
