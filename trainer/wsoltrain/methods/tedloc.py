"""TeD-Loc: text vectors of classes distilled into patches, which localize and classify."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from wsolpipe.contract.errors import ConfigError
from wsoltrain.data.views import maps_to_view
from wsoltrain.methods.base import ArtifactFile, Losses, Method, Phase, Prediction, Reads, Task, Weighted, class_of
from wsoltrain.networks import class_anchors
from wsoltrain.networks.backbone import BackboneKeys
from wsoltrain.networks.class_anchors import ABOUT, NEW, STAGE, TENSORS
from wsoltrain.networks.encoders import PatchEncoder, TokenDecoder
from wsoltrain.pseudo.samplers import BACKGROUND, FOREGROUND, Patches, Pseudo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.methods.base import Batch
    from wsoltrain.pseudo.samplers import Drawn


class TedLocKeys(BackboneKeys):
    """Keys of TeD-Loc; where the paper is silent, the description says what is chosen.

    Attributes
    ----------
    maps
        Stage whose first map is the seed: clip_cams, cams or clipseg_cams
    patches
        Patches drawn of each side of an image at each step
    fg_share
        Strongest share of the seed's Otsu region that may be foreground (n+)
    bg_share
        Share of the image, its weakest patches outside of it, for background (n-)
    bg_patches
        Background patches drawn, however many foreground there is; null: as many (paper)
    background
        Whether background keeps out of the seed's Otsu region (paper)
    losses
        kd: patches to anchors; kd+pcl: foreground against background too; all: image class too (eq. 3.1, 3.2, 3.4)
    kd_weight
        Weight of patches to anchors (lambda_1)
    pcl_weight
        Weight of foreground against background (lambda_2)
    icl_weight
        Weight of the image class (lambda_3)
    reduction
        Losses of patches: mean over all drawn ones, so that their number does not change the step; sum: over those of
        an image, as eq. 3.1 and 3.2 are written
    anchors
        File anchors.safetensors of a stage text_anchors, anchors.json beside it; null: the store's
    orthogonal
        Anchors: qr (orthonormal, up to as many classes as dimensions), polar (closest tight frame, any number), none
        (text vectors as they are), auto (qr where it is possible, else polar)
    logit_scale
        Factor on scores <v, t_k>; the paper has none
    normalise
        Scores of embeddings of unit length; the paper's are not
    doublings
        Blocks of the decoder, each doubling the grid; the paper does not say
    decoder_width
        Channels of these blocks; the paper does not say
    map
        Score map: g (probability of foreground), text (<z, t> of the class), auto (g if trained)
    eval_size
        Side of the square in which maps are scored, pixels
    """

    maps: str = "clip_cams"
    patches: int = Field(10, ge=1, le=10**6)
    fg_share: float = Field(0.5, gt=0, le=1)
    bg_share: float = Field(0.3, gt=0, le=1)
    bg_patches: int | None = Field(None, ge=1, le=10**6)
    background: Literal["outside", "anywhere"] = "outside"
    losses: Literal["kd", "kd+pcl", "all"] = "all"
    kd_weight: float = Field(1.0, gt=0, le=1)
    pcl_weight: float = Field(1.0, gt=0, le=1)
    icl_weight: float = Field(1.0, gt=0, le=1)
    reduction: Literal["mean", "sum"] = "mean"
    anchors: str | None = None
    orthogonal: class_anchors.Orthogonal = "auto"
    logit_scale: float = Field(1.0, ge=1e-6, le=1e6)
    normalise: bool = False
    doublings: int = Field(2, ge=0, le=5)
    decoder_width: int = Field(512, ge=1, le=16384)
    map: Literal["auto", "g", "text"] = "auto"
    eval_size: int = Field(256, ge=1, le=8192)


class TedLoc(Method[TedLocKeys]):
    """TeD-Loc: text vectors of classes distilled into patches, which localize and classify.

    Murtaza et al., "TeD-Loc: text distillation for weakly supervised object localization", 2025; thesis, chapter 3.

    A frozen encoder E and a trained decoder D give embeddings z_p of fine patches p. A patch classifier g tells
    foreground from background. A class scores an embedding v by its product with the class's anchor, f(v, t_k) = <v,
    t_k>. Anchors are made of text vectors before training, so no text tower runs in training or after it.
    """

    fixed: ClassVar = ("encoder.", "anchors")
    anchors: Tensor
    encoder_sha256: Tensor

    def __init__(self, keys: TedLocKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.encoder = PatchEncoder(keys.backbone, weights=keys.weights, size=task.size, model_args=keys.model_args)
        self.register_buffer("anchors", self._anchors())
        digest = torch.tensor(list(bytes.fromhex(self.encoder.sha256)), dtype=torch.uint8)
        self.register_buffer("encoder_sha256", digest)  # saved: restore() compares it
        width = keys.decoder_width if keys.doublings else self.encoder.width
        self.decoder = nn.Sequential(
            TokenDecoder(self.encoder.width, [width] * keys.doublings, mode="bilinear"),
            nn.Conv2d(width, self.anchors.shape[1], 1),
        )
        self.g = nn.Conv2d(self.anchors.shape[1], 1, 1)
        n_bg = keys.patches if keys.bg_patches is None else keys.bg_patches
        self.sampler = Patches(
            n_fg=keys.patches, n_bg=n_bg, fg_share=keys.fg_share, bg_share=keys.bg_share,
            balanced=keys.bg_patches is None, keep_out=keys.background == "outside",
        )  # fmt: skip
        nn.init.zeros_(self.g.weight)  # so that training begins with equal weights of all patches in h
        nn.init.zeros_(self.g.bias)  # type: ignore[arg-type]

    def _anchors(self) -> Tensor:
        """Anchors of the data set's classes, or of new ones in the space of those."""
        task = self.task
        trained = class_anchors.read_anchors(task.artifacts)
        anchors = class_anchors.chosen_anchors(trained, self.keys.orthogonal)
        if f"{NEW}/{TENSORS}" in task.artifacts:
            return class_anchors.transferred(class_anchors.read_anchors(task.artifacts, NEW), trained, anchors)
        hint = "anchors=FILE of this data set" if task.labelling is None else task.labelling.command(STAGE)
        class_anchors.require_classes(trained, task.classes, task.class_names, hint)
        return anchors

    @classmethod
    def reads(cls, keys: TedLocKeys) -> Reads:
        """Return the stage of the seeds and the files of the anchors."""
        beside = None if keys.anchors is None else keys.anchors.removesuffix(".safetensors") + ".json"
        files = ArtifactFile(STAGE, TENSORS, keys.anchors), ArtifactFile(STAGE, ABOUT, beside)
        return Reads(maps=keys.maps, artifacts=files)

    @classmethod
    def new_classes(cls, anchors: str) -> tuple[dict[str, bytes], list[str]]:
        """Read anchors of classes that the method was not trained on."""
        files = class_anchors.read_anchor_files(anchors)
        return files, class_anchors.read_anchors(files, NEW).names

    @property
    def frame_side(self) -> int:
        """Side of the square in which maps are scored, pixels (paper: 256)."""
        return self.keys.eval_size

    def phases(self) -> list[Phase]:
        """Return one phase, of the decoder and, where a loss reaches it, of g."""
        parts = [self.decoder] if self.keys.losses == "kd" else [self.decoder, self.g]
        return [Phase("maps", [Weighted([value for part in parts for value in part.parameters()])])]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings z [B, d, h, w] and logits of g [B, h, w] of images [B, 3, S, S]."""
        z = self.decoder(self.encoder(image))
        return z.float(), self.g(z)[:, 0].float()

    def scores(self, embeddings: Tensor) -> Tensor:
        """f of embeddings [N, d] for all classes, [N, K]."""
        embeddings = normalize(embeddings) if self.keys.normalise else embeddings
        return self.keys.logit_scale * embeddings @ self.anchors.T

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return KD, PCL and ICL of a batch; class scores are computed for drawn patches and images alone."""
        del phase
        keys, task = self.keys, self.task
        with task.autocast():
            z, logits = self(batch["image"])
        task.lap("forward")
        drawn = self._draw(batch, logits, epoch)
        foreground = drawn.labels == FOREGROUND
        known = foreground | (drawn.labels == BACKGROUND)
        parts = {"kd": keys.kd_weight * self._kd(z, foreground, batch["label"])}
        if keys.losses != "kd":
            parts["pcl"] = keys.pcl_weight * self._pcl(logits, foreground, known)
        if keys.losses == "all":
            parts["icl"] = keys.icl_weight * cross_entropy(self.scores(pooled(z, logits)), batch["label"])
        task.lap("losses")
        return Losses(parts, drawn.counts)

    def draw_pixels(self, batch: Batch, epoch: int) -> Drawn:
        """Draw the patches of `losses`."""
        return self._draw(batch, self(batch["image"])[1], epoch)

    def _draw(self, batch: Batch, logits: Tensor, epoch: int) -> Drawn:
        """Draw patches of the grid of logits [B, h, w]."""
        seeds = maps_to_view(batch["maps"], batch["window"], self.task.size, grid_hw=batch.get("grid_hw"))
        seeds = nn.functional.adaptive_avg_pool2d(seeds[:, :1], (logits.shape[-2], logits.shape[-1]))
        return self.sampler(Pseudo(seeds, batch["row"]), seed=self.task.seed, epoch=epoch)

    def _kd(self, z: Tensor, foreground: Tensor, label: Tensor) -> Tensor:
        """Eq. 3.1: cross-entropy of drawn foreground patches with the image's class."""
        drawn = foreground.flatten(1).to(z)
        there, at = drawn.topk(min(self.keys.patches, drawn.shape[1]), dim=1)  # as many for each image: no waiting
        patches = z.flatten(2).gather(2, at[:, None].expand(-1, z.shape[1], -1)).mT.flatten(0, 1)
        costs = cross_entropy(self.scores(patches), label.repeat_interleave(at.shape[1]), reduction="none")
        return (costs * there.flatten()).sum() / self._divisor(foreground)

    def _pcl(self, logits: Tensor, foreground: Tensor, known: Tensor) -> Tensor:
        """Eq. 3.2: cross-entropy of g for all drawn patches."""
        total = binary_cross_entropy_with_logits(logits, foreground.to(logits), known.to(logits), reduction="sum")
        return total / self._divisor(known)

    def _divisor(self, drawn: Tensor) -> Tensor | int:
        """Number by which a sum over drawn patches [B, h, w] is divided; see `reduction`."""
        if self.keys.reduction == "sum":
            return len(drawn)
        processes = self.task.processes
        return (processes.sum(drawn.sum()).float() / processes.world).clamp_min(1e-6)

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return the map of g, of all classes, or of <z, t>, and scores of the pooled embedding h."""
        z, logits = self(image)
        scores = self.scores(pooled(z, logits))
        shown = self.keys.map if self.keys.map != "auto" else "text" if self.keys.losses == "kd" else "g"
        if shown == "g":
            return Prediction(logits.sigmoid(), True, scores)
        z = normalize(z) if self.keys.normalise else z
        return Prediction(torch.einsum("bdhw,bd->bhw", z, self.anchors[class_of(labels, scores)]), False, scores)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `saved` returned, trained on the same encoder.

        Raises
        ------
        ConfigError
            If the encoder's weights are others than those of training, or another tensor differs.
        """
        saved = tensors.get("encoder_sha256")
        if saved is not None and not torch.equal(saved.cpu(), self.encoder_sha256.cpu()):
            was, now = (bytes(digest.tolist()).hex()[:12] for digest in (saved, self.encoder_sha256))
            msg = f"this checkpoint was trained on an encoder with weights {was}; {self.keys.weights} has {now}"
            raise ConfigError(msg, hint=f"put the weights of {self.keys.backbone} back with which it was trained")
        super().restore(tensors)


def pooled(z: Tensor, logits: Tensor) -> Tensor:
    """Eq. 3.3: mean of embeddings [B, d, h, w] weighted by g = sigmoid(logits) [B, h, w]; h, [B, d]."""
    weights = logits.flatten(1).sigmoid()
    weights = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return torch.einsum("bdp,bp->bd", z.flatten(2), weights)
