"""DINO: self-distillation of a vision transformer on a data set, without labels."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.architectures import build_backbone
from wsolpipe.networks.vit import ClassTokenAttention, require_tiling
from wsoltrain.methods.base import Batch, Losses, Method, Phase, Prediction, Reads, Task, Weighted
from wsoltrain.networks.backbone import BackboneKeys

if TYPE_CHECKING:
    from wsoltrain.pseudo.draws import RowDraws

_DRAWS = 6  # of a view: area, aspect, two of its place, flip, contrast


class DinoKeys(BackboneKeys):
    """Keys of DINO.

    Attributes
    ----------
    local_views
        Small views of an image, beside its two global ones
    local_size
        Side of local views, pixels; a multiple of the patch
    global_area
        Least and greatest share of the image in a global view
    local_area
        Least and greatest share of the image in a local view
    contrast
        Contrast of views, about the mean colour, varies up to this share
    outputs
        Outputs of the heads
    hidden
        Width of the heads' hidden layers
    bottleneck
        Width before the last layer of the heads
    student_temperature
        Temperature of the student's answers
    teacher_temperature
        Temperature of the teacher's answers
    momentum_teacher
        Share of the teacher that a step keeps
    momentum_centre
        Share of the centre that a step keeps
    """

    local_views: int = Field(8, ge=0, le=64)
    local_size: int = Field(96, ge=8, le=8192)
    global_area: tuple[float, float] = (0.5, 1.0)
    local_area: tuple[float, float] = (0.05, 0.5)
    contrast: float = Field(0.4, ge=0, lt=1)
    outputs: int = Field(65536, ge=2, le=2**20)
    hidden: int = Field(2048, ge=1, le=16384)
    bottleneck: int = Field(256, ge=1, le=16384)
    student_temperature: float = Field(0.1, ge=1e-4, le=1e4)
    teacher_temperature: float = Field(0.04, ge=1e-4, le=1e4)
    momentum_teacher: float = Field(0.996, ge=0, le=1)
    momentum_centre: float = Field(0.9, ge=0, le=1)

    @model_validator(mode="after")
    def _areas(self) -> DinoKeys:
        for name in ("global_area", "local_area"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                msg = f"{name} is two shares of the image, the lower one first, above 0 and up to 1"
                raise ValueError(msg)
        return self


class _Head(nn.Module):
    """Two hidden layers, a bottleneck of unit length, and a last layer whose rows have unit length."""

    def __init__(self, width: int, keys: DinoKeys) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, keys.hidden),
            nn.GELU(),
            nn.Linear(keys.hidden, keys.hidden),
            nn.GELU(),
            nn.Linear(keys.hidden, keys.bottleneck),
        )
        self.last = nn.Parameter(torch.randn(keys.outputs, keys.bottleneck) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class tokens [n, D] -> cosines [n, outputs]."""
        return F.linear(F.normalize(self.layers(tokens), dim=1), F.normalize(self.last, dim=1))


class Dino(Method[DinoKeys]):
    """DINO (Caron et al., ICCV 2021): a vision transformer adapts to a data set by teaching itself, without labels.

    A student sees all views of an image, a teacher its two global ones. Each answers with a distribution over many
    outputs, and the student learns to give the teacher's answer to another view. The teacher is a moving average of the
    student; its answers are centred and sharpened, so that they do not all become one. Temperatures and momenta stay
    constant, since a trained transformer is what training starts from. The map of an image is the teacher's class-token
    attention; ``cls_maps.weights=FOLDER/last.safetensors`` reads a checkpoint as it is.
    """

    teacher: Any
    reader: list[ClassTokenAttention]
    centre: Tensor
    answers: list[Tensor]

    def __init__(self, keys: DinoKeys, task: Task) -> None:
        super().__init__(keys, task)
        self.student: Any = build_backbone(
            keys.backbone, weights=keys.weights, model_args=keys.model_args, img_size=task.size, dynamic_img_size=True
        )
        what = f"backbone={keys.backbone}"
        require_tiling(self.student, what, task.size)
        if keys.local_views:
            require_tiling(self.student, what, keys.local_size, key="local_size")
        self.student_head = _Head(self.student.embed_dim, keys)
        self.teacher, self.teacher_head = (
            deepcopy(part).requires_grad_(requires_grad=False) for part in (self.student, self.student_head)
        )
        self.reader = [ClassTokenAttention(self.teacher, (len(self.teacher.blocks) - 1,), model=what)]  # no submodule
        self.register_buffer("centre", torch.zeros(keys.outputs))
        self.answers = []  # of the teacher, to the batches of the step at hand

    @classmethod
    def reads(cls, keys: DinoKeys) -> Reads:  # noqa: ARG003
        """Return whole images, and nothing of the store, labels neither."""
        return Reads(labels=False, whole=True)

    def phases(self) -> list[Phase]:
        """Return one phase that trains the student."""
        groups = [Weighted([*self.student.parameters(), *self.student_head.parameters()])]
        return [Phase("distil", groups, frozen=(self.teacher, self.teacher_head))]

    def augment(self, batch: Batch, draws: RowDraws) -> Batch:
        """Cut the views: ``views0`` and ``views1`` global, those after them local, each [B, 3, s, s]."""
        keys, image = self.keys, batch["image"]
        kinds = [(keys.global_area, self.task.size)] * 2 + [(keys.local_area, keys.local_size)] * keys.local_views
        numbers = draws.uniform(_DRAWS * len(kinds)).to(image).view(len(image), len(kinds), _DRAWS)
        views = {
            f"views{number}": cut_views(image, numbers[:, number], area, side, keys.contrast)
            for number, (area, side) in enumerate(kinds)
        }
        return {**batch, **views}

    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the cross-entropy of the teacher's answers and the student's to other views of an image."""
        del phase, epoch
        keys, views = self.keys, [batch[f"views{number}"] for number in range(2 + self.keys.local_views)]
        with torch.no_grad(), self.task.autocast():
            answers = [self.teacher_head(class_tokens(self.teacher, view)).float() for view in views[:2]]
        shares = [((answer - self.centre) / keys.teacher_temperature).softmax(1) for answer in answers]
        with self.task.autocast():
            tokens = [class_tokens(self.student, torch.cat(part)) for part in (views[:2], views[2:]) if part]
            logits = self.student_head(torch.cat(tokens)).float() / keys.student_temperature
        self.task.lap("forward")
        students = logits.log_softmax(1).chunk(len(views))
        pairs = [
            -(share * student).sum(1).mean()
            for place, share in enumerate(shares)
            for other, student in enumerate(students)
            if other != place
        ]
        self.answers += answers
        return Losses({"distillation": torch.stack(pairs).mean()})

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student, and the centre towards the teacher's mean answer of all processes."""
        for mine, its in ((self.teacher, self.student), (self.teacher_head, self.student_head)):
            for own, other in zip(mine.parameters(), its.parameters(), strict=True):
                own.lerp_(other.detach(), 1 - self.keys.momentum_teacher)
        answers, processes = torch.cat(self.answers), self.task.processes
        self.answers = []
        total = processes.sum(answers.sum(0))
        self.centre.lerp_(total / (len(answers) * processes.world), 1 - self.keys.momentum_centre)

    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:  # noqa: ARG002 - one map for all
        """Return the teacher's class-token attention in its last block, averaged over heads."""
        return Prediction(self.reader[0](image)[:, 0].mean(1), False, None)


def class_tokens(vit: Any, images: Tensor) -> Tensor:
    """Class tokens [n, D] after the last norm."""
    tokens: Tensor = vit.forward_features(images)
    if tokens.ndim != 3 or not vit.num_prefix_tokens:
        msg = "the network gives no class token"
        raise ConfigError(msg, hint="backbone=vit_small_patch16_224.dino, or another plain vision transformer")
    return tokens[:, 0]


def cut_views(images: Tensor, draws: Tensor, area: tuple[float, float], side: int, contrast: float) -> Tensor:
    """Cut one view of each image: a part of it, of some aspect, perhaps mirrored, of more or less contrast.

    Parameters
    ----------
    images : float Tensor [B, 3, H, W]
        Normalised; contrast is a factor on the normalised values.
    draws : float Tensor [B, 6]
        Uniform in 0..1.
    area : two floats
        Range of the share of the image that it holds.
    side : int
        Of the view, pixels.
    contrast : float
        Largest change.

    Returns
    -------
    float Tensor [B, 3, side, side]
    """
    share = area[0] + (area[1] - area[0]) * draws[:, 0]
    stretched = (4 / 3) ** (2 * draws[:, 1] - 1)  # aspects from 3:4 to 4:3, on a log scale
    wide, high = ((share * ratio).sqrt().clamp(max=1) for ratio in (stretched, 1 / stretched))
    mirrored = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    matrix = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    matrix[:, 0, 0], matrix[:, 1, 1] = wide * mirrored, high
    matrix[:, 0, 2], matrix[:, 1, 2] = (1 - wide) * (2 * draws[:, 2] - 1), (1 - high) * (2 * draws[:, 3] - 1)
    grid = F.affine_grid(matrix, [len(images), 3, side, side], align_corners=False)
    views = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return views * (1 + contrast * (2 * draws[:, 5] - 1)).view(-1, 1, 1, 1)
