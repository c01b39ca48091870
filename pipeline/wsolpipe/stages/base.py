"""The definition of a stage: parameters, one set-up a process, a block of rows in, arrays out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, model_validator

from wsolpipe.keys.models import argument_of, spell_none
from wsolpipe.networks.saved_state import Unfinished
from wsolpipe.stages.marks import AsBefore, ExecutionOnly, WeightsSource
from wsolpipe.stages.rows import Array, Batch, Rows, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from wsolpipe.contract.reader import StageView
    from wsolpipe.contract.schema import ArraySpec
    from wsolpipe.networks.classifier import ImageClassifier
    from wsolpipe.networks.sources import Weights

P = TypeVar("P", bound="StageParams")
__all__ = ["Advice", "Array", "ArtifactStage", "Batch", "Context", "Made", "Rows", "Stage", "StageParams", "Upstream"]
#: Words to type or a place to look, and why it may help.
Advice = tuple[str, str]


class StageParams(BaseModel, extra="forbid", frozen=True):
    """Parameters of a stage; unknown keys are refused. Defaults stand in ``stages.yaml``."""

    @model_validator(mode="before")
    @classmethod
    def _spell_none(cls, given: Any) -> Any:
        return spell_none(cls, given)

    @classmethod
    def names_marked(cls, mark: type) -> set[str]:
        """Names of the parameters that carry `mark`."""
        return {
            name for name, info in cls.model_fields.items() if any(isinstance(item, mark) for item in info.metadata)
        }

    def in_key(self) -> dict[str, Any]:
        """The parameters that change results, as JSON."""
        hidden = self.names_marked(ExecutionOnly) | self.names_marked(WeightsSource)
        values = self.model_dump(mode="json", exclude=hidden)
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if AsBefore(value) not in fields[name].metadata}


@dataclass(frozen=True)
class Context:
    """Surroundings that the engine gives a stage beside its parameters.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    classes : int or None
        Number of classes, None where the data set does not say.
    class_names : mapping of int to str
        Names by label; may name only some.
    objectless : frozenset of int
        Labels of classes without an object.
    find_device : callable
        Finds `device` when a stage first asks for it, so that one that asks for none need not import torch.
    threads : int
        Threads that decode images ahead of the model.
    seed : int
        Seed of every random draw of the run.
    weights : mapping of str to Weights
        Resolved weights, by the names of `Stage.weights_needed`.
    artifacts : mapping of str to Path
        Folder of files of each upstream artifact, by stage name.
    upstream : mapping of str to StageView
        The rows stages that are read, in the store: their arrays and parameters, and for an artifact their values.
    warn : callable
        Shows the user one line, once.
    progress : callable
        Called with (done, total) rows of the block under way; raises where the process was asked to stop.
    check : callable
        Raises where the process was asked to stop; called between steps of work too small to report.
    lists_any : callable
        Whether the split has an image of one of these image_ids.
    open_stage : callable
        Sets up a rows stage that an artifact reads, by name, to be run on other pixels; None where it reads rows of
        other stages.
    unfinished : Unfinished
        Where an artifact stage keeps what it has so far.
    """

    dataset: str
    classes: int | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    objectless: frozenset[int] = frozenset()
    find_device: Callable[[], str] = lambda: "cpu"
    threads: int = 2
    seed: int = 0
    weights: Mapping[str, Weights] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    upstream: Mapping[str, StageView] = field(default_factory=dict)
    warn: Callable[[str], None] = lambda text: None
    progress: Callable[[int, int], None] = lambda done, total: None
    check: Callable[[], None] = lambda: None
    lists_any: Callable[[Collection[str]], bool] = lambda names: True
    open_stage: Callable[[str], Stage[Any] | None] = lambda name: None
    unfinished: Unfinished = field(default_factory=Unfinished)

    @cached_property
    def device(self) -> str:
        """Torch device, such as ``cpu`` or ``cuda:0``."""
        return self.find_device()

    def load_classifier(self) -> ImageClassifier:
        """The scoring classifier of the run on `device`.

        Raises
        ------
        ConfigError
            If its classes are not those of the data set.
        """
        from wsolpipe.networks.classifier import load_classifier, refuse_misfit

        found = load_classifier(self.artifacts["classifier"], self.device)
        refuse_misfit(found.record, self.dataset, self.classes, self.class_names)
        return found

    @property
    def used_device(self) -> str:
        """`device` where the stage asked for it; else it worked on the processor."""
        return str(self.__dict__.get("device", "cpu"))


class _Configured(ABC, Generic[P]):
    """Base of both kinds of stage: parameters, context, and what they need before work starts."""

    Params: ClassVar[type[StageParams]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "Params" not in vars(cls) and (given := argument_of(cls, StageParams)):
            cls.Params = given

    def __init__(self, params: P, context: Context) -> None:
        self.params = params
        self.context = context

    @classmethod
    def weights_needed(cls, params: P) -> dict[str, str]:  # noqa: ARG003
        """Weights to be resolved before work starts: name -> specification (see `models.weight_sources`)."""
        return {}

    @classmethod
    def reads_class_names(cls, params: P) -> bool:  # noqa: ARG003
        """Whether results depend on the data set's own class names, which are in the key then."""
        return False

    @classmethod
    def needs(cls, params: P, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """Stages that are read with these parameters: all that ``stages.yaml`` declares, or fewer."""
        return declared

    @classmethod
    def ranked_by(cls, params: P, declared: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG003
        """Those of `needs` that only order what is made of the others with these parameters."""
        return declared

    @classmethod
    def advice(cls, params: P) -> tuple[Advice, ...]:  # noqa: ARG003
        """Return what to try if results are below a centred box, the most promising first.

        The advice of the stages that were read is added to it. `params` are as the store keeps them, not validated.
        """
        return ()


class Stage(_Configured[P]):
    """A stage that turns blocks of rows into arrays.

    A subclass names its parameter model, ``Stage[MyParams]``, and implements `arrays` and `process`. It is made once a
    process; blocks come in any order. It must not remember anything of one block that changes the result of another.
    """

    def setup(self) -> None:
        """Load models; called once in each worker process, before anything else."""

    @abstractmethod
    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays that `process` returns; called after `setup`. ``status`` is added by the engine."""

    @abstractmethod
    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:
        """Make every array of `arrays` for these rows; mark bad rows with `rows.quarantine`."""

    def batch_key(self) -> str:
        """Parameter that is halved where a device runs out of memory, if there is one of this name."""
        return "batch"

    def grain(self) -> int | None:
        """Rows after each of which a block may be cut without changing a result; None where it may not be cut.

        The engine hands a slow stage less than a block at a time then, so that a kill costs seconds of work.
        """
        return None

    @classmethod
    def frames_beside(cls, params: P) -> int:  # noqa: ARG003
        """Frames before and after each row, in its group, whose rows of other stages are read too; 0 for none.

        A stage of these declares the columns group and frame; `stages.frames` reads the rows.
        """
        return 0

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, int]:  # noqa: ARG002
        """Counts worth keeping in the commit record of a shard, summed over its blocks; numbers only."""
        return dict(rows.counts)


@dataclass(frozen=True)
class Made:
    """Result of an artifact stage: files by name, and a summary for the commit record."""

    files: Mapping[str, bytes]
    summary: Mapping[str, Any] = field(default_factory=dict)


class ArtifactStage(_Configured[P]):
    """A stage that makes files from whole splits, once for a data set.

    Rows stages that it needs are read in the first split of `splits_needed`, by ``context.upstream``.
    """

    @classmethod
    def splits_needed(cls, params: P) -> tuple[str, ...]:  # noqa: ARG003
        """Splits whose rows change the result; their column digests are in the key."""
        return ()

    @classmethod
    def splits_measured(cls, params: P) -> tuple[str, ...]:  # noqa: ARG003
        """Splits on which the summary reports, where the data set has them; not in the key."""
        return ()

    @classmethod
    def rows_read(cls, params: P, rows: int) -> int:  # noqa: ARG003
        """How many of `rows` in the splits needed are processed, to which its time is proportional."""
        return rows

    @classmethod
    def without_split(cls, params: P, split: str) -> str | None:  # noqa: ARG003
        """Return what to type when the data set lacks a needed split."""
        return None

    @abstractmethod
    def produce(self, splits: Mapping[str, Rows]) -> Made:
        """Make the files. Two makings from the same inputs give the same bytes."""
