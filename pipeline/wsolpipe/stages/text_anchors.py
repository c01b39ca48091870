"""Vectors of class texts, plain and orthogonal: what patches are pulled to, or classified by."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from wsolpipe.contract.errors import WeightsError
from wsolpipe.models.class_names import choose_class_names, read_class_names, require_templates
from wsolpipe.models.clip_config import clip_weights, in_key
from wsolpipe.stages.base import ArtifactStage, Made, StageParams, WeightsSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.stages.base import Rows

TENSORS, ABOUT = "anchors.safetensors", "anchors.json"


class TextAnchorsParams(StageParams):
    """Parameters of `TextAnchors`.

    Attributes
    ----------
    model
        open_clip's name, the path of a JSON configuration, or None for what a file of OpenAI's kind says.
    weights
        File, ``open_clip:TAG`` or ``random:SEED``; None for OpenAI's of `model`, or its first published ones.
    quick_gelu
        None for what the file's layout, the tag or the model's name say.
    classes
        Class list (see `wsolpipe.models.class_names`); None for the data set's own names.
    prompts
        Templates with ``{}`` for the class; their unit vectors are averaged, and the mean made a unit vector.
    orthogonal
        ``qr``: orthonormal in the order of the labels, refused where there are more classes than dimensions;
        ``polar``: the closest tight frame, orthonormal as long as the dimensions suffice; ``none``: plain.
    """

    model: str | None
    weights: Annotated[str | None, WeightsSource()]
    quick_gelu: bool | None
    classes: str | None
    prompts: tuple[str, ...]
    orthogonal: Literal["qr", "polar", "none"]

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("prompts")
    @classmethod
    def _each_takes_a_name(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        require_templates(value)
        return value

    def in_key(self) -> dict[str, Any]:
        """What the files say in the place of their names."""
        values = super().in_key()
        values["model"] = in_key(self.model)
        values["classes"] = None if self.classes is None else read_class_names(self.classes).in_key()
        return values


class TextAnchors(ArtifactStage[TextAnchorsParams]):
    """Two tensors, float32 [K, D]: ``plain`` text vectors and orthogonal ``anchors``, row k of the k-th label.

    ``anchors.json`` beside them says labels, names, prompts, templates, dimensions and how orthogonal they are.
    """

    Params: ClassVar[type[StageParams]] = TextAnchorsParams

    @classmethod
    def weights_needed(cls, params: TextAnchorsParams) -> dict[str, str]:
        """The CLIP's weights, under the name ``model``."""
        return {"model": clip_weights(params.model, params.weights, stage="text_anchors")}

    @classmethod
    def reads_class_names(cls, params: TextAnchorsParams) -> bool:
        """Where no class list is given."""
        return params.classes is None

    def produce(self, splits: Mapping[str, Rows]) -> Made:  # noqa: ARG002
        """Encode, orthogonalise, and measure.

        Raises
        ------
        ConfigError
            If there are more classes than dimensions, or classes whose texts say the same.
        WeightsError
            If a vector is not finite.
        """
        from safetensors.numpy import save

        from wsolpipe.models.clip import load_clip
        from wsolpipe.ops.anchors import orthogonalise

        params, context = self.params, self.context
        names = choose_class_names(params.classes, context.class_names, dataset=context.dataset)
        clip = load_clip(params.model, context.weights["model"], device=context.device, quick_gelu=params.quick_gelu)
        labels = sorted(names.prompts)
        prompts = [names.prompt(label) for label in labels]
        plain = clip.encode_names(prompts, params.prompts).double().cpu().numpy()
        plain /= np.linalg.norm(plain, axis=1, keepdims=True)
        if not np.isfinite(plain).all():
            at = int(np.flatnonzero(~np.isfinite(plain).all(axis=1))[0])
            msg = f"the text vector of {prompts[at]!r} by {clip.name} is not finite"
            raise WeightsError(msg, hint="the weights are broken; fetch or copy the file again")
        anchors = orthogonalise(plain, params.orthogonal, prompts).astype(np.float32)
        measured = _measure(plain, anchors.astype(np.float64))
        about = {
            "labels": labels,
            "names": [names.names[label] for label in labels],
            "prompts": prompts,
            "templates": list(params.prompts),
            "model": clip.name,
            "orthogonal": params.orthogonal,
            **measured,
        }
        # safetensors writes memory as it lies, whatever the strides say.
        tensors = {"plain": np.ascontiguousarray(plain, np.float32), "anchors": np.ascontiguousarray(anchors)}
        return Made(
            files={TENSORS: save(tensors), ABOUT: (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()},
            summary=measured,
        )


def _measure(plain: np.ndarray[Any, Any], anchors: np.ndarray[Any, Any]) -> dict[str, Any]:
    """How far from orthonormal, how far from the texts, and how close the two closest classes are."""
    count, dimensions = anchors.shape
    gram = anchors @ anchors.T
    lengths = np.linalg.norm(anchors, axis=1)
    apart = ~np.eye(count, dtype=bool)
    own = (plain * anchors).sum(axis=1) / lengths
    return {
        "classes": count,
        "dimensions": dimensions,
        "largest_deviation": float(np.abs(gram - np.eye(count)).max()),
        "largest_cosine": float((gram / np.outer(lengths, lengths))[apart].max()) if count > 1 else 0.0,
        "largest_cosine_of_texts": float((plain @ plain.T)[apart].max()) if count > 1 else 0.0,
        "least_cosine_with_own_text": float(own.min()),
    }
