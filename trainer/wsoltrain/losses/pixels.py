"""Loss of labelled pixels: drawn from pseudo-labels at each step, cross-entropy of these alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError
from torch.nn.functional import cross_entropy

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.contract.validation import explain_all
from wsolpipe.keys.kinds import Named
from wsoltrain.data.keys import Keys
from wsoltrain.pseudo.samplers import IGNORE, SAMPLERS

if TYPE_CHECKING:
    from torch import Tensor

    from wsoltrain.pseudo.samplers import Sampler


class PixelKeys(Keys):
    """Keys of the pseudo-labels and of the pixels drawn from them."""

    maps: str = Field("cls_maps", description="Stage whose maps are the pseudo-labels")
    boxes: str | None = Field(
        "proposals", description="Stage whose boxes say where foreground is drawn; null for a sampler that needs none"
    )
    maps_normalised: Literal["image", "crop"] = Field(
        "image",
        description="Where maps span 0..1: over the whole image, from which crops are cut, or over each crop, as where "
        "the authors make maps of the crop itself",
    )
    sampler: Annotated[str, Named(SAMPLERS)] = Field(
        "dips",
        description="How pixels are drawn: dips (in one of the boxes), dips_released (as its code), trcam (in an Otsu "
        "region), fcam (in the eroded Otsu region), tedloc (on the grid of patches)",
    )
    pixels: dict[str, Any] = Field(
        {},
        description="Keys of the sampler, such as pixels.n_fg and pixels.n_bg (pixels drawn), pixels.fg_share and "
        "pixels.bg_share (shares that are candidates, 0..1)",
    )
    pixel_weight: float = Field(
        1.0, ge=0, description="Weight of the loss of labelled pixels (DiPS: lambda_1, lambda_CPA)"
    )

    def pixel_sampler(self) -> Sampler:
        """Return the sampler of `sampler` and `pixels`.

        Raises
        ------
        ConfigError
            If there is no such sampler, or `pixels` holds a key or a value that it does not take.
        """
        kind = SAMPLERS.find(self.sampler)
        known = [f"pixels.{name}" for name in kind.model_fields]
        for name in self.pixels:
            if f"pixels.{name}" not in known:
                raise ConfigError(unknown(f"key of sampler {self.sampler}", f"pixels.{name}", known))
        try:
            return kind.model_validate(self.pixels)
        except ValidationError as error:
            msg = f"sampler {self.sampler}: {explain_all(error, values=True, prefix='pixels.')}"
            raise ConfigError(
                msg, hint="counts are whole numbers, shares lie in 0..1, sides of squares are odd"
            ) from error

    def check(self) -> None:
        """Refuse keys and values that the sampler does not take."""
        super().check()
        self.pixel_sampler()


def partial_cross_entropy(logits: Tensor, labels: Tensor, *, labelled: Tensor | None = None) -> Tensor:
    """Cross-entropy of the labelled pixels, mean over them; exactly 0, with a zero gradient, where there are none.

    Parameters
    ----------
    logits : float Tensor [B, C, H, W]
        Unnormalised scores.
    labels : int64 Tensor [B, H, W]
        Class of each pixel, `wsoltrain.pseudo.samplers.IGNORE` where it is unknown.
    labelled : Tensor, scalar, optional
        Number to divide by; the labelled pixels of this batch by default. Several processes pass the number of all of
        them over the number of processes, so that averaged gradients are those of one process.
    """
    total = cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    count = (labels != IGNORE).sum() if labelled is None else labelled
    return total / count.clamp_min(1e-6 if labelled is not None else 1)
