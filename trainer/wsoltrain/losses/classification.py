"""Loss of a frozen classifier that sees the image under the map (DiPS workshop, L_CLS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch.nn.functional import cross_entropy

from wsoltrain.data.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class MaskedClassificationKeys(Keys):
    """Keys of the classification loss on masked images."""

    cls_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the frozen classifier's loss on the masked image (DiPS workshop: lambda_CLS); 0: off",
    )
    cls_detached: bool = Field(
        False,
        description="Mask by the pseudo-label, without a gradient, as the released code does: only reported",
    )
    classifier: str | None = Field(
        None, description="File model.safetensors of a stage classifier; null: the store's newest classifier"
    )


def masked_classification(
    classifier: Callable[[Tensor], Tensor], image: Tensor, mask: Tensor, label: Tensor, *, detached: bool = False
) -> Tensor:
    """Cross-entropy of a frozen classifier that sees the image times a mask (DiPS workshop, L_CLS).

    Parameters
    ----------
    classifier : callable
        Images [B, 3, H, W] -> logits [B, classes]; its parameters should not require gradients.
    image : float Tensor [B, 3, H, W]
        Network input.
    mask : float Tensor [B, H, W]
        Foreground, in 0..1: the localizer's own, through which the gradient flows. The released code gives the
        attention map that made the pseudo-labels, without a gradient.
    label : int64 Tensor [B]
        True classes.
    detached : bool
        Cut the gradient, as the released code does: the value is logged and nothing is learned of it.
    """
    seen = mask.detach() if detached else mask
    return cross_entropy(classifier(image * seen[:, None]), label)
