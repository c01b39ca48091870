"""CNNs with further branches for training: ACoL and SPG."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.views import scaled_to_unit
from wsoltrain.methods.base import Batch, Losses, Prediction, Processes, Task, class_of, map_of_class
from wsoltrain.methods.cam import CnnKeys, CnnTrained
from wsoltrain.networks.backbone import find_part, hooked
from wsoltrain.networks.localization_cnns import Drawn, LinearCnn, draw_weights


class AcolKeys(CnnKeys):
    """Keys of ACoL.

    Attributes
    ----------
    erase_from
        Value of the first branch's map, in 0..1, from which features are erased (section 3.3); 0.7 in the standard
        evaluation, 0.1 in the thesis, chapter 4
    branch_width
        Channels of both branches
    start
        First weights of the branches: he on ResNets, xavier on VGG16 and InceptionV3 (as released)
    """

    erase_from: float = Field(0.7, ge=0, le=1)
    branch_width: int = Field(1024, ge=1, le=16384)
    start: Drawn = "he"


class Acol(CnnTrained[AcolKeys]):
    """ACoL (Zhang et al., CVPR 2018): of two branches, the second is blind where the first one looks.

    Adversarial complementary learning. Both branches are convolutions that end in one map a class, and classify by its
    mean. Features are erased for the second one where the first one's map of the label is high. The map is the larger
    of both branches' maps, each in 0..1.
    """

    def __init__(self, keys: AcolKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.classifier_A, self.classifier_B = (
            _branch(self.net.num_features, keys.branch_width, task.classes) for _ in range(2)
        )
        for branch in (self.classifier_A, self.classifier_B):
            draw_weights(branch, keys.start)
        self.finish()

    def maps(self, image: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Class maps [B, K, h, w] of both branches, and the classes [B] by whose maps was erased."""
        features = self.net.forward_features(image)
        first = self.classifier_A(features)
        scores = first.mean((2, 3))
        classes = class_of(labels, scores)
        second = self.classifier_B(erase(features, map_of_class(first, classes, scores), self.keys.erase_from))
        return first, second, classes

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of each branch."""
        del phase, epoch
        with self.task.autocast():
            first, second, _ = self.maps(batch["image"], batch["label"])
        self.task.lap("forward")
        scores = {"classes": first, "erased": second}
        return Losses({name: cross_entropy(maps.float().mean((2, 3)), batch["label"]) for name, maps in scores.items()})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the larger of both maps of the class, each in 0..1, and the first branch's logits."""
        first, second, classes = self.maps(image, labels)
        scores = first.mean((2, 3))
        own, erased = (scaled_to_unit(map_of_class(maps, classes, scores).float()) for maps in (first, second))
        return Prediction(torch.maximum(own, erased), False, scores)


def _branch(channels: int, width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, classes, 1),
    )  # fmt: skip


def erase(features: Tensor, maps: Tensor, threshold: float) -> Tensor:
    """Features [B, C, h, w], 0 where the map [B, h, w], scaled to 0..1, is not below a threshold."""
    return features * (scaled_to_unit(maps.detach().float()) < threshold)[:, None]


IGNORED = 255.0
#: With fewer sure foreground pixels than that, those above this share of the highest value are taken instead.
FEWEST, SHARE = 30, 0.7
Pair = tuple[float, float]


class SpgKeys(CnnKeys):
    """Keys of SPG; of each pair, pixels above the first number are foreground, those below the second background.

    Attributes
    ----------
    guided_parts
        Parts of the network whose features B1 and B2 read (A1 and A2)
    guide_width
        Channels of B1 and B2; 512 on InceptionV3 and VGG16
    sure_b2
        Thresholds of the label's map, which teaches B2
    sure_b1
        Thresholds of B2, which teaches B1
    sure_c
        Thresholds of the mean of B1 and B2, which teaches C
    """

    guided_parts: tuple[str, str] = ("layer3.0", "layer3.5")
    guide_width: int = Field(1024, ge=1, le=16384)
    sure_b2: Pair = (0.7, 0.01)
    sure_b1: Pair = (0.5, 0.05)
    sure_c: Pair = (0.7, 0.1)

    def check(self) -> None:
        """Refuse thresholds outside of 0..1."""
        super().check()
        for name in ("sure_b2", "sure_b1", "sure_c"):
            high, low = getattr(self, name)
            if not 0 <= low <= high <= 1:
                msg = f"{name}=[{high}, {low}]: foreground is above the first number, background below the second"
                raise ConfigError(msg, hint=f"{name}=[0.7, 0.1]: two numbers in 0..1, the larger one first")


class Spg(CnnTrained[SpgKeys]):
    """SPG, self-produced guidance (Zhang et al., ECCV 2018): sure places of one map teach the maps of earlier layers.

    Two branches B read features of earlier parts of the network and share their last layers; branch C reads the last
    features. Each is taught sure foreground and background: B2 by the map of the label, B1 by B2, C by the mean of
    both. The map is the label's class map; the branches are for training only.
    """

    def __init__(self, keys: SpgKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.guided = tuple(find_part(self.net, name, key="guided_parts") for name in keys.guided_parts)
        first, second = self._channels()
        last, width = self.net.num_features, keys.guide_width
        self.SPG_A4 = nn.Conv2d(last, task.classes, 1)
        self.SPG_B_1a, self.SPG_B_2a = (_start(channels, width) for channels in (first, second))
        self.SPG_B_shared = nn.Sequential(*_start(width, width), nn.Conv2d(width, 1, 1))
        self.SPG_C = nn.Sequential(*_start(last, 512), nn.Conv2d(512, 1, 1))
        for name, part in self.named_children():
            if name != "net":
                draw_weights(part)
        self.finish()

    def _features(self, image: Tensor) -> list[Tensor]:
        """Features of both parts and the last ones."""
        seen: dict[nn.Module, Tensor] = {}
        with hooked((part, lambda part, _given, made: seen.update({part: made})) for part in self.guided):
            last = self.net.forward_features(image)
        return [*(seen[part] for part in self.guided), self._dropped(last)]

    def _dropped(self, last: Tensor) -> Tensor:
        """Last features; InceptionV3 drops some of them in training."""
        return self.net.dropout(last) if isinstance(self.net, LinearCnn) else last

    def _channels(self) -> tuple[int, int]:
        with torch.no_grad():
            found = self._features(torch.zeros(2, 3, self.task.size, self.task.size))
        if any(each.ndim != 4 for each in found):
            shapes = ", ".join(str(list(each.shape)) for each in found)
            msg = f"guided_parts give {shapes}; SPG needs features [B, C, h, w]"
            raise ConfigError(msg, hint="guided_parts=[layer3.0, layer3.5] backbone=resnet50")
        return found[0].shape[1], found[1].shape[1]

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes and of the three branches."""
        del phase, epoch
        labels, processes = batch["label"], self.task.processes
        with self.task.autocast():
            first, second, last = self._features(batch["image"])
            maps = self.SPG_A4(last)
            guides = [self.SPG_B_shared(self.SPG_B_1a(first)), self.SPG_B_shared(self.SPG_B_2a(second))]
            guides.append(self.SPG_C(last))
        self.task.lap("forward")
        large = (self.task.size, self.task.size)
        b1, b2, c = (interpolate(each.float(), large, mode="bilinear")[:, 0] for each in guides)
        scores = maps.float().mean((2, 3))
        own = map_of_class(maps.detach().float(), labels, scores)
        attention = scaled_to_unit(interpolate(own[:, None], large, mode="bilinear")[:, 0])
        mean = (b1.detach().sigmoid() + b2.detach().sigmoid()) / 2
        keys = self.keys
        taught = {
            "b2": (b2, attention, keys.sure_b2), "b1": (b1, b2.detach().sigmoid(), keys.sure_b1),
            "c": (c, mean, keys.sure_c),
        }  # fmt: skip
        guided = {name: taught_loss(x, sure_mask(by, at), processes) for name, (x, by, at) in taught.items()}
        return Losses({"classes": cross_entropy(scores, labels), **guided})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the class's map, and class logits."""
        maps = self.SPG_A4(self.net.forward_features(image))
        scores = maps.mean((2, 3))
        return Prediction(map_of_class(maps, labels, scores), False, scores)


def _start(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())


def sure_mask(maps: Tensor, pair: Pair) -> Tensor:
    """Sure pixels of maps [B, H, W] in 0..1: 1 foreground, 0 background, `IGNORED` elsewhere; background wins."""
    high, low = pair
    sure = maps > high
    few = sure.sum((1, 2), keepdim=True) < FEWEST
    sure = torch.where(few, maps > SHARE * maps.amax((1, 2), keepdim=True), sure)
    mask = torch.full_like(maps, IGNORED).masked_fill(sure, 1.0)
    return mask.masked_fill(maps < low, 0.0)


def taught_loss(logits: Tensor, mask: Tensor, processes: Processes) -> Tensor:
    """Binary cross-entropy of logits [B, H, W], mean over the sure pixels of all processes; 0 where there are none."""
    sure = mask != IGNORED
    count = processes.sum(sure.sum()).float() / processes.world
    each = binary_cross_entropy_with_logits(logits, mask.where(sure, 0.0), reduction="none")
    return each.where(sure, 0.0).sum() / count.clamp_min(1.0 / processes.world)
