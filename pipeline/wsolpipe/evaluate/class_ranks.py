"""Likeliest classes of images by a network beside that which made the maps: for Top-1 and Top-5 localization."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.evaluate.map_sources import TOP, MapBatch, MapSource
from wsolpipe.evaluate.rows import RowTable, check_rows
from wsolpipe.images.ahead import prepare_ahead
from wsolpipe.images.geometry import resize
from wsolpipe.images.video import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wsolpipe.contract.reader import Artifact
    from wsolpipe.evaluate.results import Results
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
