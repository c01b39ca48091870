"""The class activation methods by name; imports no torch, so that parameters are checked and completed at once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from wsolpipe.ops.cam import Seen


@dataclass(frozen=True)
class CamMethod:
    """One method.

    Attributes
    ----------
    target : str
        ``package.module:function``.
    reads : tuple of str
        Attributes of `wsolpipe.ops.cam.Seen` that the function takes, in its order. ``weight`` asks for a linear layer
        after global average pooling, ``gradients`` and ``noisy`` for a backward pass, ``masked`` for a forward pass a
        feature.
    params : tuple of str
        Parameters of the stage ``cams`` that change its maps alone.
    closed_form : bool
        Whether it takes logits as piecewise linear in the features (Grad-CAM++, eq. 15).
    """

    target: str
    reads: tuple[str, ...]
    params: tuple[str, ...] = ()
    closed_form: bool = False

    def __call__(self, seen: Seen) -> Tensor:
        """Maps of one method, float [N, T, h, w]."""
        module, _, name = self.target.partition(":")
        maps: Tensor = getattr(import_module(module), name)(*(getattr(seen, item) for item in self.reads))
        return maps


_CAM, _NOISE = "wsolpipe.ops.cam", ("samples", "noise", "seed")
METHODS = {
    "cam": CamMethod(f"{_CAM}:cam", ("features", "weight", "classes")),
    "gradcam": CamMethod(f"{_CAM}:gradcam", ("features", "gradients")),
    "gradcam++": CamMethod(f"{_CAM}:gradcam_plus_plus", ("features", "gradients"), closed_form=True),
    "smooth-gradcam++": CamMethod(f"{_CAM}:smooth_gradcam_plus_plus", ("features", "noisy"), _NOISE, closed_form=True),
    "xgradcam": CamMethod(f"{_CAM}:xgradcam", ("features", "gradients")),
    "layercam": CamMethod(f"{_CAM}:layercam", ("features", "gradients"), ("fuse",)),
    "score-cam": CamMethod(f"{_CAM}:score_cam", ("features", "masked")),
    "nl-ccam": CamMethod(
        f"{_CAM}:nl_ccam",
        ("features", "weight", "logits", "classes", "combination", "positive"),
        ("combination", "positive"),
    ),
}
