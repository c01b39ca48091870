"""Keys of a backbone: the timm network that a method is built on, and its weights."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wsoltrain.data.keys import Keys


class BackboneKeys(Keys):
    """Keys of the network that a method is built on."""

    backbone: str = Field(description="timm name of the network")
    model_args: dict[str, Any] = Field(
        {}, description="Further arguments of the timm network, such as model_args.patch_size"
    )
    weights: str | None = Field(
        "timm",
        description="Weights file; data:FILE for one of wsolpipe's data folder; timm: pretrained weights; null: random",
    )
