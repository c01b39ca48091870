"""One map a row among those of a stage, the one inside which the scoring classifier sees the class best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.schema import Status
from wsolpipe.engine.lookup import find_artifact
from wsolpipe.evaluate.class_ranks import CLASSIFIER, read_classifier
from wsolpipe.evaluate.map_sources import BATCH, TOP, MapBatch, MapBlock, made_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.reader import StageView
    from wsolpipe.engine.session import Session
    from wsolpipe.evaluate.rows import RowTable
    from wsolpipe.networks.classifier import ImageClassifier

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
