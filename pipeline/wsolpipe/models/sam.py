"""Segment Anything: the mask that lies in a box of an image, by way of transformers.

Kirillov et al., "Segment anything", ICCV 2023. A model is a folder of `wsolpipe.models.saved_models`. The image keeps
its aspect: its longer side is squashed to that of the network, and what is left of the square is padded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from wsolpipe.images.geometry import resize
from wsolpipe.models.saved_models import load_saved
from wsolpipe.networks.preprocessing import IMAGENET

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Sam:
    """A loaded Segment Anything, frozen, in evaluation mode; see `load_sam`.

    Parameters
    ----------
    model : SamModel
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.side = int(model.config.vision_config.image_size)

    def fit(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image [H, W, 3] whose longer side is that of the network."""
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        return resize(image, (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))))

    def masks(
        self, pixels: NDArray[np.uint8], boxes: NDArray[np.floating[Any]], *, several: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Masks of what lies in boxes of one image.

        Parameters
        ----------
        pixels : uint8 array [h, w, 3]
            Of `fit`.
        boxes : float array [K, 4]
            xyxy in those pixels; at least one.
        several : bool
            Draw three masks a box (a part, an object, several) and take the one that the network expects to fit best,
            instead of its single one.

        Returns
        -------
        logits : float32 array [K, h, w]
            Above 0 inside of the mask.
        fit : float32 array [K]
            IoU with the object that the network expects.
        """
        import torch
        from torch.nn.functional import interpolate, pad

        device, (height, width) = self.model.device, pixels.shape[:2]
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in IMAGENET)
        image = (torch.from_numpy(pixels).to(device).permute(2, 0, 1).float() - mean) / std
        image = pad(image, (0, self.side - width, 0, self.side - height))
        with torch.inference_mode():
            found = self.model(
                pixel_values=image[None],
                input_boxes=torch.as_tensor(boxes, dtype=torch.float32, device=device)[None],
                multimask_output=several,
            )
            scores = found.iou_scores[0]  # [K, 3 or 1]
            best = scores.argmax(1)
            chosen = found.pred_masks[0].gather(1, best[:, None, None, None].expand(-1, 1, *found.pred_masks.shape[3:]))
            wide = interpolate(chosen, (self.side, self.side), mode="bilinear", align_corners=False)
        fits = cast("Tensor", scores.gather(1, best[:, None])[:, 0])
        return wide[:, 0, :height, :width].float().cpu().numpy(), fits.float().cpu().numpy()


def load_sam(folder: Path, *, name: str, device: str = "cpu") -> Sam:
    """Load a folder of `wsolpipe.models.saved_models.find_saved`; nothing is fetched.

    Raises
    ------
    ConfigError
        If the folder holds another kind of model.
    WeightsError
        If the tensors cannot be read, or some are missing, left over or misshapen.
    """
    hint = "sam_boxes.weights=facebook/sam-vit-base, or a folder of such a model"
    model = load_saved(folder, name=name, kind="sam", architecture="SamModel", hint=hint)
    return Sam(model.to(device))
