"""The definition of a method: one network with its keys, phases, losses, and how its map is read.

A method is a subclass of `Method`, a line in `wsoltrain.methods.registry` (or an entry point of the group
``wsoltrain.methods`` in another package) and a recipe. Training, evaluation, export and prediction know it by these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.keys.models import argument_of
from wsolpipe.metrics.scaling import SIDE
from wsoltrain.data.keys import Keys as BaseKeys
from wsoltrain.data.order import Neighbours
from wsoltrain.data.views import scaled_to_unit

if TYPE_CHECKING:
    from wsoltrain.data.config import Labelling
    from wsoltrain.pseudo.draws import RowDraws

Batch = Mapping[str, Tensor]  # one of `wsoltrain.data.stream.Stream`, on the training device

K = TypeVar("K", bound=BaseKeys)


class ArtifactFile(NamedTuple):
    """One file of an artifact that a method reads when it is built.

    Attributes
    ----------
    stage, file : str
        Artifact stage of the store, such as ``text_anchors``, and the name of a file in it.
    path : str or None
        A file to read instead of the store's.
    """

    stage: str
    file: str
    path: str | None = None


@dataclass(frozen=True)
class Reads:
    """Parts of a store on which a method is trained.

    Attributes
    ----------
    maps, boxes, drawn : str or None
        Stages whose maps, boxes and boxes that people drew come with each batch; None for none.
    artifacts : tuple of ArtifactFile
        Given to the method as ``task.artifacts`` when it is built, and kept in its checkpoints, so that prediction
        needs no store.
    neighbours : Neighbours
        Frames of a video whose maps, and pixels, come with each frame.
    labels : bool
        Whether an image without a label is left out.
    whole : bool
        Images come whole, squashed to a square with sides of ``resize``: the method cuts its own views of them.
    """

    maps: str | None = None
    boxes: str | None = None
    drawn: str | None = None
    artifacts: tuple[ArtifactFile, ...] = ()
    neighbours: Neighbours = field(default_factory=Neighbours)
    labels: bool = True
    whole: bool = False


class Processes:
    """Training processes that share one batch; here one alone."""

    #: Number of processes.
    world: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all of them."""
        return tensor


@dataclass(frozen=True)
class Task:
    """Task for which a method is built.

    Attributes
    ----------
    classes : int
        Number of classes of the data set.
    size : int
        Side S of the images that the network sees, in pixels.
    seed : int
        Of the run.
    mean, std : three floats each
        Normalisation of those images.
    labelling : Labelling or None
        Store and data set that is trained on; None where a checkpoint is loaded to predict.
    artifacts : mapping of str to bytes
        Content of each file that `Method.reads` names, by ``stage/file``, and of those of `Method.new_classes`.
    class_names : sequence of str
        By label, in training; empty where a checkpoint is loaded.
    device : torch.device
        Where the method is moved to.
    processes : Processes
        Those that share a batch; losses divide by sums over all of them.
    autocast : callable
        Context in which the network runs in training: bfloat16 where the recipe has ``amp``.
    lap : callable
        Called with the name of the part of a step that was just done, for timing.
    """

    classes: int
    size: int
    seed: int = 0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    labelling: Labelling | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    device: torch.device = torch.device("cpu")
    processes: Processes = field(default_factory=Processes)
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    lap: Callable[[str], None] = lambda _: None


class Weighted(NamedTuple):
    """Parameters with factors on the recipe's learning rate and weight decay."""

    parameters: list[nn.Parameter]
    lr: float = 1.0
    weight_decay: float = 1.0


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an optimiser of its own.

    Attributes
    ----------
    name : str
        In figures, checkpoints and messages.
    groups : sequence of Weighted
        What is trained.
    epochs : int or None
        Length; the recipe's ``epochs`` where None.
    lr : float or None
        Learning rate, which then stays constant; ``lr`` with its schedule where None.
    scored : bool
        Whether each epoch is evaluated on validation and may be chosen.
    frozen : sequence of Module
        Parts that stay in evaluation mode, batch normalisation and dropout included.
    """

    name: str
    groups: Sequence[Weighted]
    epochs: int | None = None
    lr: float | None = None
    scored: bool = True
    frozen: Sequence[nn.Module] = ()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained, in the order of the groups."""
        return [parameter for group in self.groups for parameter in group.parameters]


class Losses(NamedTuple):
    """Weighted losses of a step by name, scalars that are added up, and counts that are reported beside them.

    Each loss is a mean over rows, or over the labelled pixels of the whole batch (`Task.processes`), so that the mean
    of all processes' gradients is the gradient of one process. Counts are sums over this process's rows.
    """

    parts: Mapping[str, Tensor]
    counts: Mapping[str, Tensor] = {}


class Prediction(NamedTuple):
    """Result of a method for a batch of images.

    Attributes
    ----------
    maps : float Tensor [B, h, w]
        Score map of one class each, at the network's own resolution.
    unit : bool
        Whether maps are in 0..1 and thresholds apply to them as they are; otherwise each is scaled between its own
        lowest and highest value.
    scores : float Tensor [B, C] or None
        Class logits; None where the method does not classify.
    """

    maps: Tensor
    unit: bool
    scores: Tensor | None

    def scaled(self) -> Tensor:
        """Maps in 0..1: as they are, or each between its own lowest and highest value; a constant one is 0."""
        maps = self.maps.float()
        return maps if self.unit else scaled_to_unit(maps)


class Method(nn.Module, ABC, Generic[K]):
    """A localizer with all that is its own: network, keys, phases, losses, and how its map is read.

    Parameters
    ----------
    keys : Keys
        The recipe: an instance of the class's `Keys` (and of the keys that all recipes have).
    task : Task
        What it is built for.

    Attributes
    ----------
    Keys : type of Keys
        The method's own keys, as in ``Method[MyKeys]``; they stand beside the common ones in a recipe.
    warm : bool
        Whether it localizes before the first step; it is then scored as epoch 0, and training counts from 1.
    fixed : tuple of str
        Beginnings of the names of tensors that training does not change and that can be made again from the recipe
        and `Reads.artifacts`; checkpoints leave them out.

    Raises
    ------
    WsolError
        If keys, weights and task do not fit each other; before the first step.
    """

    Keys: ClassVar[type[BaseKeys]]
    fixed: ClassVar[tuple[str, ...]] = ()
    warm: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "Keys" not in vars(cls) and (given := argument_of(cls, BaseKeys)):
            cls.Keys = given

    def __init__(self, keys: K, task: Task) -> None:
        super().__init__()
        self.keys, self.task = keys, task

    @classmethod
    def reads(cls, keys: K) -> Reads:  # noqa: ARG003 - for subclasses
        """Return what of the store training needs; nothing by default."""
        return Reads()

    @classmethod
    def new_classes(cls, anchors: str) -> tuple[dict[str, bytes], list[str]]:
        """Read a description of classes that the method was not trained on, by which it can name them.

        Parameters
        ----------
        anchors : str
            Path of the description.

        Returns
        -------
        files : dict of str to bytes
            Added to ``task.artifacts`` when the method is built to predict.
        names : list of str
            Of the classes.

        Raises
        ------
        ConfigError
            If the method classifies by a trained head, or the files cannot be read.
        """
        msg = f"{cls.__name__} cannot name other classes than those of its training: anchors={anchors}"
        raise ConfigError(msg, hint="train method=tedloc, which classifies by text, or leave anchors= out")

    @property
    def frame_side(self) -> int:
        """Side of the square in which its maps are scored, pixels."""
        return SIDE

    @abstractmethod
    def phases(self) -> list[Phase]:
        """Return the phases of training, in their order."""

    def augment(self, batch: Batch, draws: RowDraws) -> Batch:  # noqa: ARG002 - for subclasses
        """Change a batch before the losses see it, on the training device; unchanged by default.

        `draws` gives random numbers of (seed, epoch, row), the same in any process and after a restart.
        """
        return batch

    @abstractmethod
    def losses(self, batch: Batch, phase: str, epoch: int) -> Losses:
        """Return the losses of a batch.

        Parameters
        ----------
        batch : mapping of str to Tensor
            As `augment` returned it.
        phase : str
            Name of one of `phases`.
        epoch : int
            Of the whole run, from 0.
        """

    def after_step(self) -> None:
        """Do what follows each update of the weights, whose batches `losses` saw; nothing by default."""

    @abstractmethod
    def predict(self, image: Tensor, labels: Tensor | None = None) -> Prediction:
        """Return maps and class scores of normalised images [B, 3, S, S].

        Parameters
        ----------
        labels : int64 Tensor [B], optional
            Class of each map; the likeliest one where missing or negative. A method with one map for all classes
            ignores it.
        """

    def saved(self) -> dict[str, Tensor]:
        """Return the tensors that training changes: all but those that are `fixed`."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(self.fixed)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `saved` returned.

        Raises
        ------
        ConfigError
            If it was saved from another network; names the tensors that differ.
        """
        own = self.saved()
        wrong = sorted(own.keys() ^ tensors.keys())
        wrong += [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
        if wrong:
            msg = f"these weights are of another network: {', '.join(wrong[:4])}"
            raise ConfigError(msg, hint="use the recipe, backbone and number of classes that they were trained with")
        self.load_state_dict(dict(tensors), strict=False)


def class_of(labels: Tensor | None, scores: Tensor) -> Tensor:
    """Class of each map, int64 [B]: the label, or the likeliest class where there is none (None or negative)."""
    likeliest = scores.argmax(1)
    return likeliest if labels is None else torch.where(labels < 0, likeliest, labels)


def map_of_class(maps: Tensor, labels: Tensor | None, scores: Tensor) -> Tensor:
    """Map of each image's class, [B, h, w], of class maps [B, C, h, w]; the class as in `class_of`."""
    index = class_of(labels, scores)[:, None, None, None]
    return maps.gather(1, index.expand(-1, 1, *maps.shape[2:]))[:, 0]


def shaped(prediction: Prediction, images: int, name: str) -> Prediction:
    """Refuse a prediction of a wrong shape.

    Parameters
    ----------
    images, name : int, str
        Images that were given, and the method's name, for the message.

    Raises
    ------
    ConfigError
        If maps are not [B, h, w] or scores not [B, C].
    """
    maps, scores = prediction.maps, prediction.scores
    if maps.ndim != 3 or len(maps) != images or not maps.is_floating_point():
        msg = f"method {name} predicts maps {list(maps.shape)} of {maps.dtype} for {images} images"
        raise ConfigError(msg, hint="predict() returns one float map an image: [B, h, w]")
    if scores is not None and (scores.ndim != 2 or len(scores) != images):
        msg = f"method {name} predicts class scores {list(scores.shape)} for {images} images"
        raise ConfigError(msg, hint="predict() returns scores [B, classes], or None")
    return prediction


def checked(prediction: Prediction, images: int, name: str, *, rows: Iterable[int] = ()) -> Prediction:
    """Refuse a prediction that cannot be scored.

    Parameters
    ----------
    images, name, rows : int, str, iterable of int
        Images that were given, and for the message the method's name and rows of the images.

    Raises
    ------
    ConfigError
        If maps are not [B, h, w] or scores not [B, C].
    RunFailed
        If a map holds NaN or infinity.
    """
    maps = shaped(prediction, images, name).maps
    finite = maps.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        where = [str(row) for row, good in zip(rows, finite.tolist(), strict=False) if not good]
        rows_of_them = f" for rows {', '.join(where)}" if where else ""
        msg = f"method {name} predicts maps with NaN or infinite values{rows_of_them}"
        raise RunFailed(msg, hint="a lower lr, or clip=1; checkpoints written before are intact")
    return prediction
