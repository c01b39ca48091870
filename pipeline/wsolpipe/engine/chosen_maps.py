"""One map a row among those of a stage, the one inside which the scoring classifier sees the class best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.backends.opening import guess_store
from wsolpipe.contract.errors import ConfigError, DataError, NotFoundError, shorten
from wsolpipe.contract.making import NAME_A_KEY, run_command
from wsolpipe.contract.reader import Artifact, Index, StageView, open_store
from wsolpipe.contract.schema import Status
from wsolpipe.engine.graph import resolve, stage_order
from wsolpipe.evaluate.map_sources import BATCH, TOP, MapBatch, MapBlock, RowTable, list_rows, made_with, rows_of_index
from wsolpipe.evaluate.results import CLASSIFIER, newest_index, read_classifier
from wsolpipe.keys.key import show_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wsolpipe.engine.session import Session
    from wsolpipe.networks.classifier import ImageClassifier


def find_view(session: Session, stage: str, split: str, *, key: str | None = None) -> StageView:
    """A rows stage of a split in the store.

    Parameters
    ----------
    key : str, optional
        The key, or how it begins. Without it, and with ``stage.parameter=value`` words, the key that those make;
        without either, the key of the data set's own parameters if it is complete, else the newest that is. Where
        such words have no key yet, since an artifact that they change is not made, nothing else stands in.

    Raises
    ------
    NotFoundError
        If there is none; names the keys that there are and the command that makes it.
    """
    command = SessionResults(session).command(stage, split)
    name = session.dataset.name
    if guess_store(session.config.store) and not session.store.holds_results():
        open_store(session.config.store)  # raises: the store beside it was meant
    if name not in session.store.datasets() or split not in session.store[name].splits():
        msg = f"store {session.config.store} holds no {split} split of {name}"
        if not session.store.holds_results():
            msg, command = f"no store at {session.config.store}: the folder is missing or empty", f"{command} makes one"
        raise NotFoundError(msg, hint=command)
    here = session.store[name][split]
    present = here.keys(stage)
    wanted = key or _resolved_key(session, stage, split, present)
    if not any(wanted is None or item.startswith(wanted) for item in present):
        found = f"; there is: {', '.join(present)}" if present else ""
        asked = f" with key {shorten(wanted)}" if wanted else ""
        msg = f"{stage} of {split} is not made{asked}{found}"
        raise NotFoundError(msg, hint=NAME_A_KEY if key and present else command)
    if not key and not session.config.params and wanted and here.stage(stage, wanted).missing():
        wanted = None  # the newest complete one goes before the data set's own that is under way
    return here.stage(stage, wanted)


def find_artifact(session: Session, stage: str, *, key: str | None = None) -> Artifact:
    """A finished artifact in the store, chosen as `find_view` chooses.

    Raises
    ------
    NotFoundError
        If it is not finished; names the command that makes it.
    """
    name = session.dataset.name
    folder = f"{name}/artifacts/{stage}"
    present = [found.removesuffix("/") for found in session.backend.names(folder)]
    try:
        return session.store[name].artifact(stage, key or _resolved_key(session, stage, None, present))
    except NotFoundError as error:
        command = SessionResults(session).command(stage)
        raise NotFoundError(error.message, hint=NAME_A_KEY if key and present else command) from error


def _resolved_key(session: Session, stage: str, split: str | None, present: list[str]) -> str | None:
    """Key of the configuration; None where the newest will do.

    Raises
    ------
    NotFoundError
        If parameters are given of what the stage is made of, and that is not made, so that they have no key yet.
    """
    # What is looked up need not be what was asked for: truth and a threshold come from other stages and splits.
    splits = session.config.split if split is None else (split,)
    asked = replace(session, config=replace(session.config, stage=(stage,), split=splits))
    try:
        node = resolve(asked).find(stage, split)
    except (ConfigError, StopIteration):
        if session.config.params:
            raise
        return None
    order = stage_order(asked)
    given = {name: params for name, params in session.config.params.items() if params and name in order}
    if node.key is None and given:
        words = (f"{name}.{key}={show_value(value)}" for name, params in given.items() for key, value in params.items())
        msg = f"{stage}{f' of {split}' if split else ''} is not made with {' '.join(words)}: {node.blocked}"
        raise NotFoundError(msg, hint=SessionResults(session).command(stage, split))
    return node.key if session.config.params or node.key in present else None


def index_of(session: Session, view: StageView) -> Index:
    """Index whose rows a stage has: the current one if the stage's columns agree with it, else the stage's own."""
    return newest_index(view, session.index_of(view.split))


@dataclass(frozen=True)
class SessionResults:
    """Results of a session's data set, as `wsolpipe.evaluate.results.Results` describes them."""

    session: Session

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.session.dataset.name

    def view(self, stage: str, split: str, key: str | None = None) -> StageView:
        """A finished stage: of the key given, else as `find_view` chooses."""
        self.session.registry[stage]  # refuses an unknown name
        view = find_view(self.session, stage, split, key=key)
        view.require_complete()
        return view

    def artifact(self, stage: str, key: str | None = None) -> Artifact:
        """A finished artifact: of the key given, else as `find_artifact` chooses."""
        return find_artifact(self.session, stage, key=key)

    def index_of(self, view: StageView) -> Index:
        """Index of a stage's rows, with the newest ground truth."""
        return index_of(self.session, view)

    def rows(self, split: str, *, without_truth: bool = False) -> RowTable:
        """Rows of the current index, or without one as the metadata files list them."""
        index = self.session.index_of(split)
        if index is not None:
            return rows_of_index(index)
        return list_rows(self.session.dataset, split, without_truth=without_truth)

    def mask_root(self) -> Path:
        """Folder that mask paths of the ground truth are relative to."""
        return self.session.dataset.mask_root()

    def command(self, stage: str, split: str | None = None) -> str:
        """The command that makes a stage of a split, with the arguments that chose it."""
        config = self.session.config
        words = [f"stages={config.stages}"] if config.stages else []
        for name, params in config.params.items():
            words += [f"{name}.{key}={show_value(value)}" for key, value in params.items()]
        return run_command(stage, store=config.store, split=split, words=words)


Array = np.ndarray[Any, Any]
#: Images decoded together.
IMAGES = 4


@dataclass(frozen=True)
class _Choice:
    """Classes and scores that the classifier gave to some rows.

    Attributes
    ----------
    predicted : int array [n, K]
        Likeliest classes of the whole image, best first.
    slots : int array [n]
        The map of the class that counts, -1 where there is none.
    of_label : int array [n]
        The map of the row's own label, -1 where it has none.
    """

    predicted: Array
    slots: Array
    of_label: Array


class ChosenMaps:
    """The map of each row by the rule of Table 2.4 of the thesis: see `wsolpipe.ops.scoring`.

    A `StoredSource`. The classifier is asked once, on the first pass.

    Parameters
    ----------
    session : Session
        Where images and the classifier are.
    classifier : ImageClassifier
    view : StageView
        A stage of maps of no class; of class-token attention the heads take part, not their mean.
    rows : RowTable
    labels : "true" or "predicted"
        Whose posterior chooses: the row's label, or the likeliest class of the whole image.
    origin : dict

    Raises
    ------
    ConfigError
        If the maps are of classes, or the classifier's classes are not the data set's.
    """

    def __init__(
        self,
        session: Session,
        classifier: ImageClassifier,
        view: StageView,
        rows: RowTable,
        *,
        labels: str,
        origin: dict[str, Any],
    ) -> None:
        from wsolpipe.networks.classifier import refuse_misfit

        arrays = view.manifest.arrays
        if {"class_ids", "classes"} & arrays.keys():
            msg = f"select=: each map of {view.stage} is of a class already, so there is nothing to choose"
            raise ConfigError(msg, hint="select= is for cls_maps; map=N says which map of another stage")
        assert rows.index is not None
        known = rows.index.manifest
        names = {int(label): name for label, name in known.class_names.items()}
        refuse_misfit(classifier.record, known.dataset, known.classes, names)
        self.session, self.classifier, self.view, self.rows = session, classifier, view, rows
        self.labels, self.origin, self.quarantined = labels, origin, 0
        self.candidates = np.arange(int("heads" in made_with(view)), arrays["maps"].shape[0])
        self._chosen: dict[int, _Choice] = {}

    def batches(self) -> Iterator[MapBatch]:
        """Maps as `StageMaps` gives them, with the classes that the classifier finds likeliest."""
        self.quarantined = 0
        for record in self.view.committed().values():
            for start in range(record.start, record.stop, BATCH):
                yield self._batch(start, min(start + BATCH, record.stop))

    def _batch(self, start: int, stop: int) -> MapBatch:
        block = MapBlock(self.view, slice(start, stop))
        if start not in self._chosen:
            self._chosen[start] = self._choose(block, start, stop)
        choice = self._chosen[start]
        kept = np.flatnonzero(block.status != Status.QUARANTINED)
        self.quarantined += stop - start - len(kept)

        def take(at: int, slot: int) -> Array | None:
            return block.map(at, slot) if slot >= 0 else None

        own = {
            place: take(int(at), int(choice.of_label[at]))
            for place, at in enumerate(kept)
            if self.labels == "predicted" and choice.predicted[at, 0] != self.rows.label(start + int(at))
        }
        maps = [take(int(at), int(choice.slots[at])) for at in kept]
        return MapBatch(start + kept, maps, choice.predicted[kept], own)

    def _choose(self, block: MapBlock, start: int, stop: int) -> _Choice:
        """Ask the classifier about rows `start` … `stop` - 1.

        Raises
        ------
        DataError
            If an image cannot be read.
        """
        from wsolpipe.images.geometry import resize
        from wsolpipe.stages.base import Rows

        assert self.rows.index is not None
        columns = self.rows.index.table(["path", "sha256", "orientation"], start=start, stop=stop).to_pydict()
        load, numbers, side = self.session.files.loader(columns), np.arange(start, stop), self.classifier.record.size
        rows = Rows(numbers, columns, load, status=block.status, threads=self.session.threads())
        count = min(TOP, self.classifier.record.outputs)
        choice = _Choice(*(np.full((stop - start, *shape), -1) for shape in ((count,), (), ())))
        for batch in rows.batches(IMAGES, lambda image, _: resize(image, (side, side))):
            for _, at, pixels in batch.present():
                maps = [values for slot in self.candidates if (values := block.map(at, int(slot))) is not None]
                if len(maps) == len(self.candidates):
                    self._ask(choice, at, start + at, pixels, np.stack(maps))
        for at, reason in rows.reasons.items():
            msg = f"the image {columns['path'][at]} that select= needs: {reason}"
            raise DataError(msg, hint="root=FOLDER of the image files, as they were indexed")
        return choice

    def _ask(self, choice: _Choice, at: int, row: int, pixels: Array, maps: Array) -> None:
        """Note the classes of one image, and the map inside which each class that counts is likeliest."""
        from wsolpipe.networks.classifier import refuse_label
        from wsolpipe.ops.scoring import mask_posteriors, otsu_masks

        masks = otsu_masks(maps, self.classifier.record.size)
        whole, inside = mask_posteriors(self.classifier, pixels, masks, device=self.session.device())
        choice.predicted[at] = np.argsort(-whole, kind="stable")[: choice.predicted.shape[1]]
        label = self.rows.label(row)
        if label >= 0:
            refuse_label(label, self.classifier.record, self.view.dataset)
            choice.of_label[at] = self.candidates[inside[:, label].argmax()]
        counts = choice.predicted[at, 0] if self.labels == "predicted" else label
        choice.slots[at] = self.candidates[inside[:, counts].argmax()] if counts >= 0 else -1


def choose_by(session: Session, word: str, labels: str) -> Callable[[StageView, int, RowTable], ChosenMaps]:
    """Build what ``select=`` asks for: a source of maps for `wsolpipe.evaluate.evaluation.Options`.

    Parameters
    ----------
    word : str
        ``classifier``, or ``classifier:KEY``.
    labels : "true" or "predicted"

    Raises
    ------
    ConfigError
        If the word is another.
    StoreError
        If there is no such classifier, or its files are not what was stored.
    """
    name, _, key = word.partition(":")
    if name != CLASSIFIER:
        msg = f"select={word}: maps are chosen by the classifier"
        raise ConfigError(msg, hint="select=classifier, or select=classifier:KEY")
    artifact = find_artifact(session, name, key=key or None)
    classifier = read_classifier(artifact, session.device())
    origin = {"select": f"classifier {artifact.key}"}
    return lambda view, _, rows: ChosenMaps(session, classifier, view, rows, labels=labels, origin=origin)
