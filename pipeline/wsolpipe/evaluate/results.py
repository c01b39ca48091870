"""Where results of a data set are looked up by name, and the order in which a stage ranks classes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError, NotFoundError, guess, shorten
from wsolpipe.contract.making import known_stages, run_command
from wsolpipe.contract.reader import Artifact, Index, Split, StageView, open_store
from wsolpipe.evaluate.map_sources import TOP, MapBatch, MapSource, RowTable, check_rows, rows_of_index
from wsolpipe.images.geometry import resize
from wsolpipe.images.video import prepare_ahead, read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.networks.classifier import ImageClassifier


Array = np.ndarray[Any, Any]
CLASSIFIER = "classifier"
#: Images classified together.
IMAGES = 16


@dataclass(frozen=True)
class Ranks:
    """Who says what an image shows.

    Attributes
    ----------
    name : str
        Stage and key, as results state them.
    of : callable
        Rows, int [B] -> their likeliest classes, best first, int [B, K]; K is 5, or the number of classes where that is
        less.
    """

    name: str
    of: Callable[[Array], Array]


class RankedMaps:
    """Maps of a source, with the classes of another network. A `MapSource`.

    The class of the maps does not change. Top-5 figures take the map of a row's own label where the source has one,
    else the one at hand, as for a localizer that knows no class.
    """

    def __init__(self, source: MapSource, ranks: Ranks) -> None:
        self.source, self.ranks, self.labels, self.quarantined = source, ranks, source.labels, 0

    def batches(self) -> Iterator[MapBatch]:
        """The batches of the source, with other predictions."""
        for batch in self.source.batches():
            yield replace(batch, predicted=self.ranks.of(np.asarray(batch.rows)))
        self.quarantined = self.source.quarantined


def find_ranks(
    results: Results, word: str, rows: RowTable, root: Callable[[], Path], *, device: str, threads: int
) -> Ranks:
    """Classes by the word of ``classifier=``.

    Parameters
    ----------
    results : Results
    word : str
        ``classifier`` or ``classifier:KEY``, the scoring classifier, which is shown the images; or ``STAGE`` or
        ``STAGE:KEY`` of a stage that holds ``classes``, as ``predictions`` do of a network that classifies.
    rows : RowTable
        With an index.
    root : callable
        Gives the folder of the image files, and raises ConfigError where there is none; called if they are needed.
    device : str
        Torch device.
    threads : int
        That decode.

    Raises
    ------
    ConfigError
        If the stage holds no classes, is of other rows, or its classes are not the data set's.
    StoreError
        If it is not there.
    """
    stage, _, key = word.partition(":")
    if rows.index is None:
        msg = f"classifier={word}: {rows.split} has no index, which says where images are"
        raise ConfigError(msg, hint=results.command("index", rows.split))
    if stage == CLASSIFIER:
        artifact = results.artifact(stage, key or None)
        judge = _Judge(read_classifier(artifact, device), rows, root(), device, threads)
        return Ranks(f"{stage} {artifact.key}", judge.classes)
    view = results.view(stage, rows.split, key or None)
    if "classes" not in view.manifest.arrays:
        msg = f"classifier={word}: {stage} holds no classes of images"
        raise ConfigError(
            msg, hint="classifier=classifier, or classifier=predictions of a network that classifies; either with :KEY"
        )
    check_rows(view, rows)
    return Ranks(f"{stage} {view.key}", lambda numbers: np.asarray(view["classes"][numbers]))


def read_classifier(artifact: Artifact, device: str) -> ImageClassifier:
    """The stored classifier; other bytes than were recorded are refused.

    Raises
    ------
    StoreError
        If its files are not what was stored.
    """
    from wsolpipe.networks.classifier import load_classifier

    for file in artifact.record.objects if artifact.record else ():
        artifact.read(file)
    return load_classifier(artifact.fetch(), device)


@dataclass
class _Judge:
    """A classifier that looks at the image files of some rows."""

    classifier: ImageClassifier
    rows: RowTable
    root: Path
    device: str
    threads: int
    _paths: list[str] = field(init=False)

    def __post_init__(self) -> None:
        from wsolpipe.networks.classifier import refuse_label, refuse_misfit

        assert self.rows.index is not None
        known, record = self.rows.index.manifest, self.classifier.record
        names = {int(label): name for label, name in known.class_names.items()}
        refuse_misfit(record, known.dataset, known.classes, names)
        for label in {labels[0] for labels in self.rows.labels if labels}:
            refuse_label(label, record, known.dataset)
        self._paths = self.rows.index.table(["path"]).column("path").to_pylist()

    def classes(self, numbers: Array) -> Array:
        """Likeliest classes, int [B, K], of rows [B].

        Raises
        ------
        DataError
            If an image cannot be read.
        """
        import torch

        side, count = self.classifier.record.size, min(TOP, self.classifier.record.outputs)
        found = np.full((len(numbers), count), -1)

        def load(place: int) -> Array:
            row = int(numbers[place])
            return read_picture(str(self.root / self._paths[row]), orientation=int(self.rows.orientations[row]))

        def fail(place: int, reason: str) -> None:
            msg = f"the image {self._paths[int(numbers[place])]} that classifier= needs: {reason}"
            raise DataError(msg, hint="root=FOLDER of the image files, as they were indexed")

        batches = prepare_ahead(
            range(len(numbers)), load, lambda image, _: resize(image, (side, side)),
            batch=IMAGES, threads=self.threads, failed=fail,
        )  # fmt: skip
        for places, images in batches:
            logits = self.classifier.logits(torch.from_numpy(images).to(self.device)).cpu().numpy()
            found[places] = np.argsort(-logits, axis=1, kind="stable")[:, :count]
        return found


class Results(Protocol):
    """Results of one data set by stage and split; decides which key a name means."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""

    def view(self, stage: str, split: str, key: str | None = None) -> StageView:
        """A finished stage of a split.

        Raises
        ------
        ConfigError, NotFoundError
            If there is no such stage, or it is unfinished; names the command that makes it.
        """

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """A finished artifact of the data set.

        Raises
        ------
        NotFoundError
            If there is none; names the command that makes it.
        """

    def index_of(self, view: StageView) -> Index:
        """Index of a stage's rows, with the newest ground truth."""

    def rows(self, split: str, *, without_truth: bool = False) -> RowTable:
        """Rows of a split; ``without_truth`` opens no file of ground truth."""

    def mask_root(self) -> Path | None:
        """Folder that mask paths of the ground truth are relative to; without it masks are left out."""

    def command(self, stage: str, split: str) -> str:
        """The command that makes a stage of a split."""


@dataclass(frozen=True)
class StoreResults:
    """Results as a store holds them: the newest key of a stage unless one is given.

    Attributes
    ----------
    store : str
        Folder or URL.
    dataset : str
        Name in that store.
    masks : Path or None
        Folder of the ground truth's mask files; None leaves masks out.
    """

    store: str
    dataset: str
    masks: Path | None = None

    def split(self, split: str) -> Split:
        """One split of the store."""
        return open_store(self.store)[self.dataset][split]

    def view(self, stage: str, split: str, key: str | None = None) -> StageView:
        """See `Results.view`."""
        view = self.split(split).stage(stage, key)
        view.require_complete()
        return view

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """See `Results.artifact`."""
        return open_store(self.store)[self.dataset].artifact(stage, key)

    @cached_property
    def _indexes(self) -> dict[str, Index]:
        return {}

    def index_of(self, view: StageView) -> Index:
        """See `Results.index_of`."""
        return newest_index(view, self._index(view.split))

    def _index(self, split: str) -> Index:
        if split not in self._indexes:
            self._indexes[split] = self.split(split).index()
        return self._indexes[split]

    def rows(self, split: str, *, without_truth: bool = False) -> RowTable:  # noqa: ARG002 - an index holds no truth
        """See `Results.rows`."""
        return rows_of_index(self._index(split))

    def mask_root(self) -> Path | None:
        """See `Results.mask_root`."""
        return self.masks

    def command(self, stage: str, split: str) -> str:
        """See `Results.command`."""
        return run_command(stage, store=self.store, split=split)


def newest_index(view: StageView, current: Index | None) -> Index:
    """Return `current` if it agrees with the columns that a stage read, else the index that the stage was made from."""
    columns = view.manifest.columns
    if current is not None and all(current.manifest.digests.get(name) == value for name, value in columns.items()):
        return current
    return view.index()


def read_beside(view: StageView, word: str) -> tuple[str, str | None]:
    """Stage and key that ``beside=`` names: the beginning of a key of `view`'s stage, or ``STAGE`` or ``STAGE:KEY``.

    Raises
    ------
    NotFoundError
        If it is neither; names the keys and the nearest stage.
    """
    here = view.store[view.dataset][view.split]
    stage, colon, key = word.partition(":")
    if not colon and re.fullmatch("[0-9a-f]+", word):
        return view.stage, word
    known = {*known_stages(), *here.stages()}
    if stage not in known:
        msg = f"beside={shorten(word)} is neither a stage nor how a key of {view.stage} begins{guess(stage, known)}"
        raise NotFoundError(msg, hint=f"keys of {view.stage} of {view.split}: {', '.join(here.keys(view.stage))}")
    return stage, key or None


def counterpart(results: Results, view: StageView, split: str) -> StageView:
    """The same stage of another split, made with the same parameters.

    Raises
    ------
    NotFoundError
        If there is none, or it is unfinished.
    """
    here = view.store[view.dataset][split]
    twins: list[StageView] = [here.stage(view.stage, key) for key in here.keys(view.stage)]
    same = [twin for twin in twins if _made_alike(twin, view)]
    if not same:
        msg = f"{view.stage} of {split} is not made with the parameters of {view.key} of {view.split}"
        raise NotFoundError(msg, hint=results.command(view.stage, split))
    same[-1].require_complete()
    return same[-1]


def _made_alike(one: StageView, other: StageView) -> bool:
    """Whether two results have the same parameters and weights."""
    mine, theirs = ({(item.name, item.sha256) for item in view.manifest.weights} for view in (one, other))
    return one.manifest.params == other.manifest.params and mine == theirs
