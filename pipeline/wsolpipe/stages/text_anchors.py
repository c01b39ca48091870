"""Vectors of class texts, plain and orthogonal: what patches are pulled to, or classified by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from wsolpipe.contract.errors import WeightsError
from wsolpipe.stages.base import ArtifactStage, Made, Rows
from wsolpipe.stages.param_types import AsksClip, ClipParams

TENSORS, ABOUT = "anchors.safetensors", "anchors.json"


class TextAnchorsParams(ClipParams):
    """Parameters of `TextAnchors`, beside those of every stage that asks a CLIP.

    Attributes
    ----------
    orthogonal
        qr: orthonormal in the order of the labels, refused for more classes than dimensions; polar: the closest tight
        frame; none: the plain text vectors
    """

    orthogonal: Literal["qr", "polar", "none"]


class TextAnchors(AsksClip, ArtifactStage[TextAnchorsParams]):
    """Two tensors, float32 [K, D]: ``plain`` text vectors and orthogonal ``anchors``, row k of the k-th label.

    ``anchors.json`` beside them says labels, names, prompts, templates, dimensions and how orthogonal they are.

    References
    ----------
    TeD-Loc: Murtaza et al., 2025; thesis, chapter 3.
    """

    stage = "text_anchors"

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

        from wsolpipe.networks.anchors import orthogonalise

        params, context = self.params, self.context
        names = params.names(context)
        clip = params.load_texts(context)
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
