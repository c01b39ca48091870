"""HaS, hide-and-seek (Singh and Lee, ICCV 2017): CAM trained on images of which a random part of the cells is hidden.

Hidden cells are 0 after normalisation, the mean colour. Images are whole outside of training.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from wsolpipe.contract.errors import ConfigError
from wsoltrain.methods.cam import Cam, CamKeys

if TYPE_CHECKING:
    from torch import Tensor

    from wsoltrain.methods.base import Batch, Task
    from wsoltrain.pseudo.draws import RowDraws


class HasKeys(CamKeys):
    """Keys of HaS."""

    hide_cells: tuple[int, ...] = Field(
        (4,),
        min_length=1,
        description="Sides of hidden cells in pixels, of which each image draws one; 0 hides nothing. (4) is the "
        "standard evaluation's, (0, 16, 32, 44, 56) the paper's (section 4.1)",
    )
    hide_area: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the image that a cell has, instead of hide_cells; at least a pixel (thesis, Tab. 4.4)",
    )
    hide_rate: float = Field(0.5, ge=0, le=1, description="Probability with which each cell is hidden")


class Has(Cam):
    """CAM whose training images have hidden cells."""

    Keys = HasKeys
    keys: HasKeys

    def __init__(self, keys: HasKeys, task: Task) -> None:
        super().__init__(keys, task)
        wrong = [side for side in keys.hide_cells if not 0 <= side <= task.size]
        if wrong:
            msg = f"hide_cells={wrong[0]}: a cell has a side of 0 to {task.size} pixels, the image's"
            raise ConfigError(msg, hint=f"hide_cells=[4], or another size= than {task.size}")

    def augment(self, batch: Batch, draws: RowDraws) -> Batch:
        """Hide cells of each image."""
        image = batch["image"]
        return {**batch, "image": image.masked_fill(self._hidden(image, draws), 0.0)}

    def _hidden(self, image: Tensor, draws: RowDraws) -> Tensor:
        """Pixels that are hidden, bool [B, 1, S, S]."""
        height, width = image.shape[-2:]
        area = self.keys.hide_area
        sides = self.keys.hide_cells if area is None else (max(1, round(math.sqrt(area * height * width))),)
        drawn = (draws.uniform(1)[:, 0] * len(sides)).long()  # which side each image has
        hidden = torch.zeros(len(image), 1, height, width, dtype=torch.bool, device=image.device)
        for number, side in enumerate(sides):
            if side == 0:
                continue
            rows, columns = -(-height // side), -(-width // side)
            cells = draws.uniform(rows * columns, purpose=1 + number).view(-1, 1, rows, columns) < self.keys.hide_rate
            pixels = cells.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :height, :width]
            hidden |= pixels & (drawn == number)[:, None, None, None]
        return hidden
