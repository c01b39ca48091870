"""CAM, NL-CCAM, and the common part of methods on a CNN that is trained by labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.architectures import build_backbone
from wsolpipe.networks.classifier import WEIGHTS_FILE, ClassifierRecord, parse_classifier
from wsolpipe.networks.weights import load_into
from wsoltrain.data.keys import Keys, Texts
from wsoltrain.methods.base import (
    ArtifactFile,
    Batch,
    Losses,
    Method,
    Phase,
    Prediction,
    Reads,
    Task,
    Weighted,
    class_of,
)
from wsoltrain.networks import localization_cnns
from wsoltrain.networks.backbone import BackboneKeys, load_classifier, load_published, remove_last_strides

if TYPE_CHECKING:
    from collections.abc import Mapping


class CnnKeys(BackboneKeys):
    """Keys of the CNN; ``backbone`` may also be one of `wsoltrain.networks.localization_cnns`.

    Attributes
    ----------
    **network and its first weights**
    unstrided
        Last downsamplings that are removed: 1 gives ResNet-50 maps of 14 x 14 at 224 pixels (standard evaluation), 2 of
        28 x 28
    fast_lr
        Factor on lr of the parts in fast, and of the linear layer where there is one
    fast
        Beginnings of the names of parts with that rate, such as layer4 or classifier_A
    published
        Checkpoint of the whole trained network, class layer included, such as the standard evaluation's .pth.tar, in
        place of weights; epochs=0 scores it as it is
    """

    unstrided: int = Field(1, ge=0)
    fast_lr: float = Field(10.0, gt=0, le=1e6)
    fast: Texts = ()
    published: str | None = None


K = TypeVar("K", bound=CnnKeys)


class CnnTrained(Method[K]):
    """A method on a timm CNN, `net`, whose parts learn at two rates.

    Its subclasses share finer features, faster last parts, and published weights.
    """

    def __init__(self, keys: K, task: Task) -> None:
        super().__init__(keys, task)
        self.what = f"backbone={keys.backbone}"
        localization_cnns.register()
        self.net = build_backbone(keys.backbone, weights=self.first_weights(keys), model_args=keys.model_args)

    def first_weights(self, keys: K) -> str | None:
        """Return the weights that the backbone is built with; None where others replace them."""
        return keys.weights if keys.published is None else None

    def finish(self) -> None:
        """Check the keys, remove strides and load published weights; called once all layers are there."""
        keys, names = self.keys, [name.removeprefix("net.") for name, _ in self.named_parameters()]
        for part in keys.fast:
            if not any(name.startswith(part) for name in names):
                msg = f"fast={part}: method={keys.model_dump().get('method')} on {self.what} has no part of that name"
                parts = dict.fromkeys(name.partition(".")[0] for name in names)
                raise ConfigError(msg, hint=f"parts: {', '.join(parts)}")
        remove_last_strides(self.net, keys.unstrided, size=self.task.size, what=self.what)
        if keys.published is not None:
            load_published(self, keys.published)

    def class_layers(self) -> list[nn.Module]:
        """Parts that learn fast whatever ``fast`` names; none by default."""
        return []

    def phases(self) -> list[Phase]:
        """Return one phase of two groups: what learns at the rate, and what learns faster."""
        quick = {id(each) for part in self.class_layers() for each in part.parameters()}
        slow: list[nn.Parameter] = []
        fast: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            named = bool(self.keys.fast) and name.removeprefix("net.").startswith(self.keys.fast)
            (fast if named or id(parameter) in quick else slow).append(parameter)
        groups = [Weighted(slow), Weighted(fast, lr=self.keys.fast_lr)]
        return [Phase("train", [group for group in groups if group.parameters])]


class PoolKeys(Keys):
    """Keys of the pooling.

    Attributes
    ----------
    **pooling**
    pool
        How class maps are pooled to class logits: gap (mean, Zhou et al. 2016), max (Oquab et al. 2015), peaks (mean of
        the local maxima of 3 x 3 places, Zhou et al. 2018), lse (log of the mean of exponentials, Pinheiro and
        Collobert 2015), wildcat (Durand et al. 2017)
    lse_sharpness
        r of pool=lse: 0 is near the mean, large near the maximum
    wildcat_maps
        Maps of each class that pool=wildcat averages (M, section 3.2)
    wildcat_share
        Share of places that pool=wildcat takes from each end (k, section 3.3)
    wildcat_alpha
        Weight of the lowest places in pool=wildcat (alpha, equation 1)
    """

    pool: Literal["gap", "max", "peaks", "lse", "wildcat"] = "gap"
    lse_sharpness: float = Field(10.0, gt=0)
    wildcat_maps: int = Field(8, ge=1, le=1024)
    wildcat_share: float = Field(0.2, gt=0, le=1)
    wildcat_alpha: float = Field(0.7, ge=0, le=1)

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
    if keys.pool == "peaks":  # places that are the first maximum of their own window
        own = torch.arange(places.shape[2], device=maps.device)
        peaks = max_pool2d(maps, 3, 1, 1, return_indices=True)[1].flatten(2) == own
        return (places * peaks).sum(2) / peaks.sum(2)
    if keys.pool == "lse":
        sharp, count = keys.lse_sharpness, places.shape[2]
        mean_exp: Tensor = (sharp * places - places.new_tensor(count).log()).logsumexp(2)
        return mean_exp / sharp
    count = max(1, round(keys.wildcat_share * places.shape[2]))
    ranked = places.sort(2).values
    highest: Tensor = ranked[..., -count:].mean(2)
    return highest + keys.wildcat_alpha * ranked[..., :count].mean(2)


class CamKeys(CnnKeys, PoolKeys):
    """Keys of CAM.

    Attributes
    ----------
    keep_classifier
        Begin with the classifier of weights instead of a new one; for a data set of their classes, such as ilsvrc
    warm_start
        Begin with a scoring classifier of the same backbone, model_args, mean and std: store for that of the store, or
        its file. It is scored as epoch 0, so that a later epoch is chosen only where it localizes better; null: weights
    """

    keep_classifier: bool = False
    warm_start: str | None = None


class Cam(CnnTrained[CamKeys]):
    """CAM (Zhou et al., CVPR 2016): a CNN that classifies; a map is the weighted sum of its last features.

    ``pool`` chooses how class maps become logits. The epoch is chosen by localization on validation, as of any method.
    """

    def __init__(self, keys: CamKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.net.reset_classifier(task.classes * keys.maps_of_class)
        if not isinstance(self.net, localization_cnns.LinearCnn):
            localization_cnns.draw_weights(self.net.get_classifier())
        if keys.keep_classifier and self.first_weights(keys) is not None:
            load_classifier(self.net, keys)
        if keys.warm_start and keys.published is None:
            self._take_over(
                *parse_classifier(task.artifacts[f"classifier/{WEIGHTS_FILE}"], "the stage classifier's file")
            )
        self._check_linear()
        self.finish()

    @classmethod
    def reads(cls, keys: CamKeys) -> Reads:
        """Return the scoring classifier where training starts from it."""
        file = None if keys.warm_start == "store" else keys.warm_start
        return Reads(artifacts=(ArtifactFile("classifier", WEIGHTS_FILE, file),) if keys.warm_start else ())

    def first_weights(self, keys: CamKeys) -> str | None:
        """Return the weights that the backbone is built with; None where others replace them."""
        return None if keys.warm_start else super().first_weights(keys)

    def _take_over(self, record: ClassifierRecord, tensors: Mapping[str, Tensor]) -> None:
        """Start from a scoring classifier of the same network, input and classes.

        Raises
        ------
        ConfigError
            If it differs in one of them; names what to type.
        """
        keys, task = self.keys, self.task
        own = {"backbone": keys.backbone, "model_args": keys.model_args, "mean": [*task.mean], "std": [*task.std]}
        its = {
            "backbone": record.model, "model_args": {**record.model_args}, "mean": [*record.mean], "std": [*record.std],
        }  # fmt: skip
        if own != its:
            other = " ".join(f"{n}={json.dumps(its[n], separators=(',', ':'))}" for n in its if own[n] != its[n])
            msg = "warm_start: the classifier is of another network or input than the recipe"
            raise ConfigError(msg, hint=f"as the classifier: {other}")
        if record.features != "pooled" or record.outputs != self.net.num_classes:
            msg = (
                f"warm_start=true: the store's classifier gives {record.outputs} outputs of {record.features} features"
            )
            hint = f"a classifier of pooled features and {self.net.num_classes} outputs, or warm_start=false"
            raise ConfigError(msg, hint=hint)
        load_into(self.net, tensors, what=f"the classifier {record.model}")
        self.warm = True

    def _check_linear(self) -> None:
        """Refuse a network whose logits are not a linear function of its pooled features."""
        linear, training = self.net.get_classifier(), self.net.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features = self.net.eval().forward_features(torch.zeros(1, 3, self.task.size, self.task.size))
            fits = isinstance(linear, nn.Linear) and features.ndim == 4 and features.shape[1] == linear.in_features
            if fits:
                features = torch.rand(2, *features.shape[1:])
                fits = torch.allclose(self.net.forward_head(features), linear(features.mean((2, 3))), atol=1e-4)
        self.net.train(training)
        if not fits:
            msg = f"{self.what} does not classify pooled features [B, C, h, w] by one linear layer, so it has no CAM"
            raise ConfigError(msg, hint="backbone=resnet50, or another CNN with a linear head")

    def class_layers(self) -> list[nn.Module]:
        """Return the linear layer."""
        return [self.net.get_classifier()]

    def class_weights(self) -> Tensor:
        """Weights of each class's map, [K, C]; the mean of its maps where a class has several."""
        weight: Tensor = self.net.get_classifier().weight
        return weight.view(self.task.classes, -1, weight.shape[1]).mean(1)

    def scores(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] -> class logits [B, K]."""
        if self.keys.pool == "gap":
            logits: Tensor = self.net.forward_head(features)
            return logits
        maps = torch.einsum("kc,bchw->bkhw", self.class_weights(), features)
        bias: Tensor = self.net.get_classifier().bias
        return pool_maps(maps.float(), self.keys) + bias.view(self.task.classes, -1).mean(1)

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the classes."""
        del phase, epoch
        with self.task.autocast():
            scores = self.scores(self.net.forward_features(batch["image"]))
        self.task.lap("forward")
        return Losses({"classes": cross_entropy(scores.float(), batch["label"])})

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return each class's weights times the features, summed over channels, and class logits."""
        features = self.net.forward_features(image)
        scores = self.scores(features)
        weights = self.class_weights()[class_of(labels, scores)]
        return Prediction((weights[:, :, None, None] * features).sum(1), False, scores)


Combination = Literal["quadratic", "linear"]


class NlCcamKeys(CamKeys):
    """Keys of NL-CCAM.

    Attributes
    ----------
    combination
        Weights of the classes from likely to unlikely, 1 to -1 (section 3.2)
    label_first
        Put an image's label before the likeliest classes; the released code knows no label
    """

    combination: Combination = "quadratic"
    label_first: bool = False


class NlCcam(Cam):
    """NL-CCAM (Yang et al., WACV 2020): CAM whose map adds likely classes and subtracts unlikely ones.

    The paper's network has non-local blocks: ``backbone: vgg16_nonlocal``. It is trained as CAM is. Its map is that of
    an image, whatever the label: classes come in the order of their scores, as in the released code.
    """

    Keys = NlCcamKeys
    keys: NlCcamKeys

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the combined map, and class logits."""
        features = self.net.forward_features(image)
        scores = self.scores(features)
        first = class_of(labels if self.keys.label_first else None, scores)
        weights = class_shares(scores, first, self.keys.combination) @ self.class_weights()
        return Prediction(torch.einsum("bc,bchw->bhw", weights, features), False, scores)


def class_shares(scores: Tensor, first: Tensor, combination: Combination) -> Tensor:
    """Weight of each class's map, [B, K]: by its rank in falling scores [B, K], the class `first` [B] before all."""
    ahead = scores.scatter(1, first[:, None], torch.inf)
    ranked = ahead.argsort(dim=1, descending=True, stable=True)
    by_rank = rank_weights(scores.shape[1], combination).to(scores)
    return torch.zeros_like(scores).scatter(1, ranked, by_rank.expand_as(scores))


def rank_weights(count: int, combination: Combination) -> Tensor:
    """Weights of ranks, float32 [count]: evenly from 1 to -1, or squares from 1 to 0 and then from 0 to -1."""
    if combination == "linear":
        return torch.linspace(1, -1, count)
    half = count // 2
    return torch.cat([torch.linspace(1, 0, half).square(), -torch.linspace(0, -1, count - half).square()])
