"""A method as another package would declare it: class maps of a small CNN, one random cell hidden in training."""

from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy

from wsoltrain.data.keys import Keys
from wsoltrain.methods.base import Losses, Method, Phase, Prediction, Weighted, map_of_class


class HidingKeys(Keys):
    """Keys of the method."""

    width: int = Field(16, ge=4, description="Channels of the first layer")
    cell: int = Field(16, ge=1, description="Side of the hidden cell, pixels; a tenth of them are hidden")


class Hiding(Method[HidingKeys]):
    """Three strided convolutions and one map a class."""

    def __init__(self, keys, task):
        super().__init__(keys, task)
        widths = [3, keys.width, 2 * keys.width, 4 * keys.width]
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(widths, widths[1:], strict=False)
        ]
        self.features = nn.Sequential(*layers)
        self.maps = nn.Conv2d(widths[-1], task.classes, 1)

    def phases(self):
        return [
            Phase("train", [Weighted(list(self.features.parameters())), Weighted(list(self.maps.parameters()), lr=2)])
        ]

    def augment(self, batch, draws):
        image, cell = batch["image"], self.keys.cell
        cells = -(-image.shape[-1] // cell)
        hidden = (draws.uniform(cells * cells) < 0.1).view(-1, 1, cells, cells).float()
        hidden = nn.functional.interpolate(hidden, scale_factor=cell)[..., : image.shape[-2], : image.shape[-1]]
        return {**batch, "image": image * (1 - hidden)}

    def losses(self, batch, phase, epoch):
        with self.task.autocast():
            scores = self.maps(self.features(batch["image"])).mean((2, 3))
        return Losses({"classes": cross_entropy(scores.float(), batch["label"])})

    def predict(self, image, labels=None):
        maps = self.maps(self.features(image))
        scores = maps.mean((2, 3))
        return Prediction(map_of_class(maps, labels, scores), False, scores)
