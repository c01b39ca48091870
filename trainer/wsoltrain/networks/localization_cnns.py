"""CNNs of localization papers that timm does not have, under names of their own in timm's registry.

- ``vgg16_gap``: VGG16 without its last poolings, conv6 (3 x 3, 1024), mean and one linear layer (Zhou et al. 2016).
- ``vgg16_acol``: VGG16 with overlapping poolings, two more of them at stride 1; what ACoL's branches read.
- ``vgg16_spg``: VGG16 with two more convolutions, in the parts that SPG reads.
- ``vgg16_nonlocal``: VGG16 with LeakyReLU and four non-local blocks, mean and one linear layer (Yang et al. 2020).
- ``inception_v3_spg``: InceptionV3 up to Mixed_6e, two 3 x 3 convolutions of 1024, mean, one linear layer (Zhang et al.
  2018, as in the standard evaluation); ``inception_v3_acol`` ends at Mixed_6e.

Names of tensors are those of their published checkpoints, but for the linear layer, which is ``fc``. Of the model
arguments, ``output_stride`` is 16 (14 x 14 of 224 pixels) or 8 (28 x 28), ``width`` the channels of VGG's first block.
``weights`` may be those of timm's vgg16 and inception_v3: what these have no tensors for stays as it was drawn, by
`draw_weights` as in the standard evaluation, but for ``vgg16_nonlocal``, whose authors leave PyTorch's own values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from timm.models import register_model
from timm.models.inception_v3 import ConvNormAct, InceptionA, InceptionB, InceptionC
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from wsolpipe.contract.errors import ConfigError

#: Width (times that of the first) and number of convolutions of each block of VGG16.
BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
_CONVOLUTION = partial(ConvNormAct, padding=0, norm_kwargs={"eps": 0.001})
Drawn = Literal["he", "xavier"]


def draw_weights(module: nn.Module, convolutions: Drawn = "xavier") -> None:
    """Draw the first weights of new layers as the standard evaluation does (``wsol/util.py``).

    Parameters
    ----------
    module : Module
        Linear layers begin with N(0, 0.01); all biases with 0.
    convolutions : "he" or "xavier"
        He's normal distribution by outputs, or Glorot's uniform one.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if convolutions == "he":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


class LinearCnn(nn.Module):
    """Features, their mean and one linear layer, with timm's methods.

    Attributes
    ----------
    own : tuple of str
        Beginnings of the names of tensors that ImageNet weights do not have.
    """

    own: tuple[str, ...]

    def __init__(self, width: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_features, self.dropout = width, nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Make the linear layer anew; none for 0 classes."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.draw(self.fc)

    def draw(self, layer: nn.Module) -> None:
        """Draw the first weights of a layer that ImageNet weights do not have."""
        draw_weights(layer)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.fc

    def forward_features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> features [B, C, h, w]."""
        raise NotImplementedError

    def forward_head(self, features: Tensor) -> Tensor:
        """Features -> class logits [B, K]."""
        scores: Tensor = self.fc(self.dropout(features).mean((2, 3)))
        return scores

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> class logits [B, K]."""
        return self.forward_head(self.forward_features(image))

    def adapted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of ImageNet weights, or of a checkpoint with other numbers of layers, under the names of this."""
        mine = self.state_dict()
        return {name: state[name] if name in state or not name.startswith(self.own) else mine[name] for name in mine}


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: LinearCnn) -> dict[str, Tensor]:
    """Adapt a checkpoint to a network of this module (timm's name of the function)."""
    return model.adapted(state)


def _check_stride(output_stride: int) -> None:
    if output_stride not in (8, 16):
        msg = f"model_args.output_stride={output_stride}: this network has features at stride 8 or 16"
        raise ConfigError(msg)


def _chain(channels: int, width: int, count: int, slope: float = 0.0) -> list[nn.Module]:
    """Convolutions 3 x 3, each followed by a ReLU."""
    layers: list[nn.Module] = []
    for number in range(count):
        activation = nn.LeakyReLU(slope) if slope else nn.ReLU(inplace=True)
        layers += [nn.Conv2d(width if number else channels, width, 3, padding=1), activation]
    return layers


def _vgg_layers(width: int, after: list[list[nn.Module]], slope: float = 0.0) -> nn.Sequential:
    """VGG16's blocks of convolutions, as many as `after` has entries, each followed by the layers of its entry."""
    layers: list[nn.Module] = []
    channels = 3
    for (factor, convolutions), more in zip(BLOCKS, after, strict=False):
        layers += [*_chain(channels, width * factor, convolutions, slope), *more]
        channels = width * factor
    return nn.Sequential(*layers)


class Vgg(LinearCnn):
    """VGG16's convolutions as ``features``."""

    own: tuple[str, ...] = ("conv6.", "fc.")
    features: nn.Sequential

    def adapted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convolutions by their order, as poolings and other layers between them change their numbers."""
        layers = [name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d)]
        ours = [name for name in layers if not f"{name}.".startswith(self.own)]
        if all(f"{name}.weight" in state for name in ours):
            return super().adapted(state)
        names = [name.split(".") for name in state if name.startswith("features.") and name.count(".") == 2]
        theirs = sorted({int(number) for _, number, _ in names})
        renamed = dict(zip(theirs, ours, strict=True))
        moved = {name: value for name, value in state.items() if not name.startswith("features.")}
        moved |= {f"{renamed[int(n)]}.{last}": state[f"features.{n}.{last}"] for _, n, last in names}
        return super().adapted(moved)


class VggGap(Vgg):
    """VGG16 with conv6."""

    def __init__(self, num_classes: int, width: int, output_stride: int) -> None:
        _check_stride(output_stride)
        super().__init__(16 * width, num_classes)
        pools: list[list[nn.Module]] = [[nn.MaxPool2d(2)] for _ in range(4 if output_stride == 16 else 3)]
        self.features = _vgg_layers(width, [*pools, [], []])
        self.conv6 = nn.Conv2d(8 * width, 16 * width, 3, padding=1)
        draw_weights(self.conv6, "he")

    def forward_features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 16 width, h, w]."""
        features: Tensor = self.conv6(self.features(image))
        return features.relu()


class VggAcol(Vgg):
    """VGG16 with poolings over 3 x 3 and a mean over 3 x 3."""

    own = ("fc.",)

    def __init__(self, num_classes: int, width: int, output_stride: int) -> None:
        _check_stride(output_stride)
        super().__init__(8 * width, num_classes)
        strides = (2, 2, 2, output_stride // 8, 1)
        self.features = _vgg_layers(width, [[nn.MaxPool2d(3, stride, padding=1)] for stride in strides])

    def forward_features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 8 width, h, w]."""
        return avg_pool2d(self.features(image), 3, stride=1, padding=1)


class VggSpg(Vgg):
    """VGG16's first three blocks, its last two as the parts A1 and A2, and two more convolutions, A3."""

    own = ("SPG_A_3.", "fc.")

    def __init__(self, num_classes: int, width: int, output_stride: int) -> None:
        _check_stride(output_stride)
        super().__init__(8 * width, num_classes)
        self.features = _vgg_layers(width, [[nn.MaxPool2d(2)] for _ in range(3)])
        self.SPG_A_1, self.SPG_A_2, self.SPG_A_3 = (
            nn.Sequential(*_chain(given * width, 8 * width, count)) for given, count in ((4, 3), (8, 3), (8, 2))
        )
        self.last_pool = nn.MaxPool2d(3, 2, padding=1) if output_stride == 16 else nn.Identity()
        draw_weights(self.SPG_A_3)

    def forward_features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 8 width, h, w]."""
        features: Tensor = self.SPG_A_3(self.SPG_A_2(self.last_pool(self.SPG_A_1(self.features(image)))))
        return features


class NonLocal(nn.Module):
    """Self-attention of all places, added to them; adds nothing at first (Wang et al. 2018; C/8 for queries, keys)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_conv, self.key_conv = (nn.Conv2d(channels, max(1, channels // 8), 1) for _ in range(2))
        self.value_conv, self.mix_conv = (nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        query, key, value = (layer(features).flatten(2) for layer in (self.query_conv, self.key_conv, self.value_conv))
        attention = torch.einsum("bcq,bck->bqk", query, key).softmax(-1)
        read = torch.einsum("bqk,bck->bcq", attention, value).view_as(features)
        mixed: Tensor = features + self.bn(self.mix_conv(read))
        return mixed


class VggNonLocal(Vgg):
    """VGG16 with LeakyReLU and non-local blocks."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(8 * width, num_classes)
        pools: list[list[nn.Module]] = [[nn.MaxPool2d(2)] for _ in range(4)]
        after = [*pools, []]
        for (factor, _), more in zip(BLOCKS[1:], after[1:], strict=True):
            more.append(NonLocal(width * factor))
        self.features = _vgg_layers(width, after, 0.2)
        blocks = (number for number, layer in enumerate(self.features) if isinstance(layer, NonLocal))
        self.own = ("fc.", *(f"features.{number}." for number in blocks))

    def draw(self, layer: nn.Module) -> None:
        """Leave PyTorch's own values, as the released code does."""

    def forward_features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 8 width, h, w]."""
        features: Tensor = self.features(image)
        return features


class _Unstrided(InceptionB):  # type: ignore[misc] # timm is not typed
    """Mixed_6a at stride 1."""

    def __init__(self, channels: int, block: Any) -> None:
        super().__init__(channels, block)
        for layer in (self.branch3x3.conv, self.branch3x3dbl_3.conv):
            layer.stride, layer.padding = (1, 1), (1, 1)

    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch3x3(x), double, max_pool2d(x, 3, stride=1, padding=1)]


class Inception(LinearCnn):
    """InceptionV3 up to Mixed_6e, with padding in its first layer and poolings."""

    own: tuple[str, ...] = ("fc.",)

    def __init__(self, num_classes: int, output_stride: int, *, width: int = 768, drop_rate: float = 0.0) -> None:
        _check_stride(output_stride)
        super().__init__(width, num_classes, drop_rate)
        block = _CONVOLUTION
        self.Conv2d_1a_3x3 = block(3, 32, kernel_size=3, stride=2, padding=1)
        self.Conv2d_2a_3x3 = block(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = block(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = block(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = block(80, 192, kernel_size=3)
        self.Mixed_5b, self.Mixed_5c = InceptionA(192, 32, block), InceptionA(256, 64, block)
        self.Mixed_5d, self.Mixed_6a = InceptionA(288, 64, block), _Unstrided(288, block)
        self.Mixed_6b, self.Mixed_6c = InceptionC(768, 128, block), InceptionC(768, 160, block)
        self.Mixed_6d, self.Mixed_6e = InceptionC(768, 160, block), InceptionC(768, 192, block)
        self.last_pool = nn.MaxPool2d(3, 2, ceil_mode=True) if output_stride == 16 else nn.Identity()

    def draw(self, layer: nn.Module) -> None:
        """Draw a class layer as the convolution 1 x 1 that it is in the released code."""
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward_features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 768, h, w]."""
        found = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(image)))
        found = max_pool2d(found, 3, stride=2, padding=1, ceil_mode=True)
        found = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(found))
        found = max_pool2d(found, 3, stride=2, padding=1, ceil_mode=True)
        found = self.last_pool(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(found))))
        features: Tensor = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(found)))))
        return features


class InceptionSpg(Inception):
    """InceptionV3 with two more convolutions; `dropout` before each of them and before the class layer."""

    own = ("SPG_A3_1b.", "SPG_A3_2b.", "fc.")

    def __init__(self, num_classes: int, output_stride: int, drop_rate: float) -> None:
        super().__init__(num_classes, output_stride, width=1024, drop_rate=drop_rate)
        self.SPG_A3_1b, self.SPG_A3_2b = (nn.Sequential(*_chain(channels, 1024, 1)) for channels in (768, 1024))
        for layer in (self.SPG_A3_1b, self.SPG_A3_2b):
            draw_weights(layer)

    def forward_features(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 1024, h, w]."""
        found = self.SPG_A3_1b(self.dropout(super().forward_features(image)))
        features: Tensor = self.SPG_A3_2b(self.dropout(found))
        return features


def register() -> None:
    """Put the networks into timm's registry, unless they are there."""
    from timm import is_model

    for make in (vgg16_gap, vgg16_acol, vgg16_spg, vgg16_nonlocal, inception_v3_spg, inception_v3_acol):
        if not is_model(make.__name__):
            register_model(make)


def vgg16_gap(*, num_classes: int = 1000, width: int = 64, output_stride: int = 16, **_: Any) -> VggGap:
    """Build ``vgg16_gap``."""
    return VggGap(num_classes, width, output_stride)


def vgg16_acol(*, num_classes: int = 0, width: int = 64, output_stride: int = 16, **_: Any) -> VggAcol:
    """Build ``vgg16_acol``."""
    return VggAcol(num_classes, width, output_stride)


def vgg16_spg(*, num_classes: int = 0, width: int = 64, output_stride: int = 16, **_: Any) -> VggSpg:
    """Build ``vgg16_spg``."""
    return VggSpg(num_classes, width, output_stride)


def vgg16_nonlocal(*, num_classes: int = 1000, width: int = 64, **_: Any) -> VggNonLocal:
    """Build ``vgg16_nonlocal``."""
    return VggNonLocal(num_classes, width)


def inception_v3_spg(
    *, num_classes: int = 1000, output_stride: int = 16, drop_rate: float = 0.5, **_: Any
) -> InceptionSpg:
    """Build ``inception_v3_spg``."""
    return InceptionSpg(num_classes, output_stride, drop_rate)


def inception_v3_acol(*, num_classes: int = 0, output_stride: int = 16, **_: Any) -> Inception:
    """Build ``inception_v3_acol``."""
    return Inception(num_classes, output_stride)
