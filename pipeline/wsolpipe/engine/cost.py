"""Cost of stages for any number of images, from the rates at which the shards of this store were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.layout import subfolders
from wsolpipe.contract.reader import Artifact, Index, StageView

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.engine.graph import Graph, Node
    from wsolpipe.engine.session import Session


@dataclass(frozen=True)
class Cost:
    """A stage on one kind of device.

    Attributes
    ----------
    stage, device : str
        Device as the records name it; empty for a stage that was never run here.
    measured_rows : int
        Rows behind the rate, of every split and key with these parameters, else of any key.
    images : int or None
        Rows that the cost is of; None where a split is not indexed and no number was given, or none is read.
    rate : float or None
        Images a second of one worker. None where none was measured.
    hours, gpu_hours : float or None
        Of one worker; GPU-hours are 0 on a CPU. None without a rate or a number of rows.
    files, bytes : int or None
        Of the finished stage. None without a shard to measure or a number of rows.
    exact : bool
        Whether the rate is that of these very parameters.
    """

    stage: str
    device: str
    measured_rows: int
    images: int | None
    rate: float | None
    hours: float | None
    gpu_hours: float | None
    files: int | None
    bytes: int | None
    exact: bool


@dataclass(frozen=True)
class _Made:
    """A record, and the rows that its seconds grew with; None where an artifact's rows are not known any more."""

    record: CommitRecord
    rows: int | None


def price(session: Session, node: Node, images: int) -> Cost:
    """Cost of one stage for a number of images, on the kind of device that made most of it here."""
    return max(_of_stage(session, [node], images), key=lambda cost: cost.measured_rows)


def estimate(
    session: Session, graph: Graph, images: int | None = None, listed: Mapping[str, int] | None = None
) -> list[Cost]:
    """Cost of every stage of a plan, upstream stages first; a line for each kind of device that was measured.

    Parameters
    ----------
    images : int, optional
        Default: the rows of the splits that are planned.
    listed : mapping of str to int, optional
        Rows of splits that are listed and not indexed.

    Notes
    -----
    Seconds of an artifact, such as a classifier, grow with the rows of the splits that it is made of, up to those that
    it works on (`ArtifactStage.rows_read`); one that reads no split takes the seconds that it took.
    """
    found: list[Cost] = []
    for stage in dict.fromkeys(node.stage for node in graph.nodes):
        nodes = [node for node in graph.nodes if node.stage == stage]
        splits = _splits(session, nodes)
        found += _of_stage(session, nodes, (images or _rows(graph, splits, listed or {})) if splits else None)
    return found


def _splits(session: Session, nodes: list[Node]) -> list[str]:
    """Splits whose rows the nodes of a stage work on."""
    kind: Any = session.stage_class(nodes[0].stage)
    if nodes[0].split is None:
        return list(kind.splits_needed(nodes[0].params))
    return [node.split for node in nodes if node.split is not None]


def _rows(graph: Graph, splits: list[str], listed: Mapping[str, int]) -> int | None:
    """Rows of some splits; None where one is neither indexed nor listed."""
    known = dict(listed) | {split: index.manifest.rows for split, index in graph.indexes.items() if index is not None}
    return sum(known[split] for split in splits) if known.keys() >= set(splits) else None


def _of_stage(session: Session, nodes: list[Node], images: int | None) -> Iterator[Cost]:
    first = nodes[0]
    made = list(_made(session, first, {node.key for node in nodes}))
    exact = bool(made)
    if not exact:
        made = list(_made(session, first, None))
    if not made:
        yield Cost(first.stage, "", 0, images, None, None, None, None, None, exact=False)
    for device in sorted({each.record.device for each in made}):
        mine = [each for each in made if each.record.device == device]
        yield _on_device(session, first, device, mine, images, exact=exact)


def _on_device(
    session: Session, node: Node, device: str, made: list[_Made], images: int | None, *, exact: bool
) -> Cost:
    """Cost of a stage by what was made of it on one kind of device."""
    known = [(each.rows, each.record.seconds) for each in made if each.rows is not None]
    rows, seconds = sum(count for count, _ in known), sum(took for _, took in known)
    rate = rows / seconds if rows else None
    size = sum(item.bytes for each in made for item in each.record.objects.values())
    objects = max(len(each.record.objects) for each in made)
    files: int | None = objects + 2
    stored: int | None = round(size / len(made))
    work = images
    if node.split is None:
        kind: Any = session.stage_class(node.stage)
        work = None if images is None else kind.rows_read(node.params, images)
    elif images is None:
        files = stored = None
    else:
        shard_rows = session.config.shard_rows or node.entry.shard_rows
        files = -(-images // shard_rows) * (objects + 1) + objects + 2
        stored = round(size / max(rows, 1) * images)
    hours = None if work is None or rate is None else work / rate / 3600
    if known and not rows:  # an artifact that reads no split
        hours = seconds / len(known) / 3600
    gpu = hours if device.startswith("cuda") or hours is None else 0.0
    return Cost(node.stage, device, rows, images, rate, hours, gpu, files, stored, exact=exact)


def _made(session: Session, node: Node, keys: set[str | None] | None) -> Iterator[_Made]:
    """Measured results of a stage in all splits of the data set; of these keys, or of every key."""
    if node.dataset not in session.store.datasets():
        return
    dataset = session.store[node.dataset]
    if node.split is None:
        for name in subfolders(session.backend.names(f"{node.dataset}/artifacts/{node.stage}")):
            artifact = Artifact(session.store, node.dataset, node.stage, name)
            if _is(name, keys) and artifact.record is not None and artifact.record.seconds > 0:
                yield _Made(artifact.record, _rows_of(session, artifact))
        return
    for split in dataset.splits():
        for key in dataset[split].keys(node.stage):
            if _is(key, keys):
                view = StageView(session.store, node.dataset, split, node.stage, key)
                for record in view.committed().values():
                    if record.seconds > 0:
                        yield _Made(record, record.stop - record.start)


def _rows_of(session: Session, artifact: Artifact) -> int | None:
    """Rows that an artifact worked on; 0 where it reads no split, None where the store holds their index no more."""
    read: dict[str, dict[str, str]] = {}
    for name, digest in artifact.manifest.columns.items():
        split, _, column = name.partition("/")
        read.setdefault(split, {})[column] = digest
    total = 0
    for split, columns in read.items():
        keys = subfolders(session.backend.names(f"{artifact.dataset}/{split}/index"))
        indexes = [Index(session.store, artifact.dataset, split, key).manifest for key in keys]
        rows = [index.rows for index in indexes if columns.items() <= index.digests.items()]
        if not rows:
            return None
        total += rows[0]
    kind: Any = session.stage_class(artifact.stage)
    params = session.registry.stored_params(artifact.stage, artifact.manifest.params)
    return int(kind.rows_read(params, total))


def _is(key: str, keys: set[str | None] | None) -> bool:
    return keys is None or key in keys
