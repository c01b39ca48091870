"""Where a training run reads and writes, the stream that it reads, and the artifacts that its method is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, raise_as
from wsolpipe.contract.layout import sha256_bytes
from wsolpipe.contract.reader import open_store
from wsoltrain.data.config import ItemConfig, Labelling
from wsoltrain.data.stream import Stream
from wsoltrain.training.annotators import Annotator, read_annotators

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsoltrain.methods.base import ArtifactFile
    from wsoltrain.training.parallel import Group
    from wsoltrain.training.recipe import Recipe

#: Of the evaluations of boxes after each epoch, as many as the authors of the realistic protocol take.
VALIDATION_THRESHOLDS, TEST_THRESHOLDS = 250, 1000


@dataclass(frozen=True)
class Settings:
    """Where a run reads and writes; nothing here changes what is learned.

    Attributes
    ----------
    labelling : Labelling
        Training split and stages.
    root : str
        Folder of the image files.
    out : Path
        Folder of checkpoints and figures.
    val : str
        Split that is evaluated after each epoch.
    annotators : list of str
        What chooses the model: words of `wsoltrain.training.annotators`; the first one decides.
    metric : str
        Figure that chooses epochs; ``auto`` is PxAP where truth is masks, else MaxBoxAcc.
    masks : Path or None
        Folder of the ground truth's mask files; None leaves masks out.
    val_rows_per_class : int or None
        Rows of each class of `val` that choose, the first ones; None: all.
    test : str or None
        Split scored against its ground truth after each epoch, for the table that compares both ways of choosing.
    workers : int
        Loader processes of each training process.
    save_every : int
        Steps between checkpoints; one more is written after each epoch.
    device : str
        torch device.
    thresholds : (int, int)
        Of the evaluations of boxes after each epoch, on validation and on test.
    outcomes : bool
        Keep the boxes of all validation maps at all thresholds, a file an epoch in ``outcomes``.
    """

    labelling: Labelling
    root: str
    out: Path
    val: str = "val"
    annotators: list[str] = field(default_factory=lambda: ["proposals"])
    metric: str = "auto"
    masks: Path | None = None
    val_rows_per_class: int | None = None
    test: str | None = None
    workers: int = 2
    save_every: int = 200
    device: str = "cpu"
    thresholds: tuple[int, int] = field(default_factory=lambda: (VALIDATION_THRESHOLDS, TEST_THRESHOLDS))
    outcomes: bool = False

    @property
    def first(self) -> Annotator:
        """The annotator that decides."""
        return read_annotators(self.annotators)[0]


def open_stream(recipe: Recipe, settings: Settings, group: Group) -> Stream:
    """Open the training stream of one of the processes that share a batch.

    Raises
    ------
    WsolError
        As `Stream`; also if a batch is larger than the data set, or cannot be shared by the processes.
    """
    reads = recipe.reads()
    stream = Stream(
        ItemConfig(
            settings.labelling, root=settings.root, size=recipe.squashed if reads.whole else recipe.size,
            resize=recipe.squashed, mean=recipe.mean, std=recipe.std, flip=recipe.flip, seed=recipe.seed,
            one_per_group=recipe.one_per_group, frames_per_group=recipe.frames_per_group,
            neighbours=reads.neighbours, need_label=reads.labels,
            vflip=recipe.vflip, jitter=recipe.jitter,
        ),
        batch_size=group.share(recipe.batch), workers=settings.workers, rank=group.rank, world=group.world,
        drop_last=True, pin_memory=settings.device.startswith("cuda"),
    )  # fmt: skip
    if len(stream) == 0:
        msg = f"batch={recipe.batch} is larger than the {len(stream.rows)} rows that can be trained on"
        raise ConfigError(msg, hint=f"batch={len(stream.rows)} or less")
    return stream


@dataclass(frozen=True)
class Artifacts:
    """Content of each file by ``stage/file``, and the key of its artifact, or the digest of your own file."""

    files: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def read_artifacts(labelling: Labelling, wanted: Iterable[ArtifactFile]) -> Artifacts:
    """Read files of the newest artifacts of a store.

    Raises
    ------
    NotFoundError
        If the store has no such artifact; names the command that makes it.
    ConfigError
        If a file of one's own cannot be read.
    """
    found = Artifacts()
    for stage, file, path in wanted:
        name = f"{stage}/{file}"
        if path is not None:
            with raise_as(ConfigError, f"{path} cannot be read", OSError, hint=f"a file {file} of the stage {stage}"):
                found.files[name] = Path(path).read_bytes()
            found.keys[name] = sha256_bytes(found.files[name])[:16]
            continue
        artifact = open_store(labelling.store)[labelling.dataset].artifact(stage)
        found.files[name], found.keys[name] = artifact.read(file), artifact.key
    return found
