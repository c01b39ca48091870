"""Class logits of class maps: how a network that is trained by labels alone pools them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from wsoltrain.data.keys import Keys

if TYPE_CHECKING:
    from torch import Tensor


class PoolKeys(Keys):
    """Keys of the pooling."""

    pool: Literal["gap", "max", "lse", "wildcat"] = Field(
        "gap",
        description="How class maps are pooled to class logits: gap (mean, Zhou et al. 2016), max (Oquab et al. 2015), "
        "lse (log of the mean of exponentials, Pinheiro and Collobert 2015), wildcat (Durand et al. 2017)",
    )
    lse_sharpness: float = Field(10.0, gt=0, description="r of pool=lse: 0 is near the mean, large near the maximum")
    wildcat_maps: int = Field(
        8, ge=1, le=1024, description="Maps of each class that pool=wildcat averages (M, section 3.2)"
    )
    wildcat_share: float = Field(
        0.2, gt=0, le=1, description="Share of places that pool=wildcat takes from each end (k, section 3.3)"
    )
    wildcat_alpha: float = Field(
        0.7, ge=0, le=1, description="Weight of the lowest places in pool=wildcat (alpha, equation 1)"
    )

    @property
    def maps_of_class(self) -> int:
        """Maps that the network has for each class."""
        return self.wildcat_maps if self.pool == "wildcat" else 1


def pool_maps(maps: Tensor, keys: PoolKeys) -> Tensor:
    """Class maps [B, K, h, w] -> [B, K], by ``pool``."""
    places = maps.flatten(2)
    if keys.pool == "gap":
        return places.mean(2)
    if keys.pool == "max":
        return places.amax(2)
    if keys.pool == "lse":
        sharp, count = keys.lse_sharpness, places.shape[2]
        mean_exp: Tensor = (sharp * places - places.new_tensor(count).log()).logsumexp(2)
        return mean_exp / sharp
    count = max(1, round(keys.wildcat_share * places.shape[2]))
    ranked = places.sort(2).values
    highest: Tensor = ranked[..., -count:].mean(2)
    return highest + keys.wildcat_alpha * ranked[..., :count].mean(2)
