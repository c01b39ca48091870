"""Cost of stages for any number of images, from the rates at which the shards of this store were made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.layout import subfolders
from wsolpipe.contract.reader import Artifact, StageView

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        Rows that the cost is of; None where a split is not indexed and no number was given.
    rate : float or None
        Images a second of one worker.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def estimate(session: Session, graph: Graph, images: int | None = None) -> list[Cost]:
    """Cost of every stage of a plan, upstream stages first; a line for each kind of device that was measured.

    Parameters
    ----------
    images : int, optional
        Default: the rows of the splits that are planned.

    Notes
    -----
    An artifact (a classifier) is made once: its measured seconds are taken as they are, whatever `images` is.
    """
    found: list[Cost] = []
    for stage in dict.fromkeys(node.stage for node in graph.nodes):
        nodes = [node for node in graph.nodes if node.stage == stage]
        found += _of_stage(session, nodes, _rows(graph, nodes) if images is None else images)
    return found


def _rows(graph: Graph, nodes: list[Node]) -> int | None:
    """Rows of the splits of some nodes, whose keys may not be known yet; None where one is not indexed."""
    indexes = [graph.indexes[node.split] for node in nodes if node.split is not None]
    known = [index.manifest.rows for index in indexes if index is not None]
    return sum(known) if len(known) == len(indexes) else None


def _of_stage(session: Session, nodes: list[Node], images: int | None) -> Iterator[Cost]:
    first = nodes[0]
    records = list(_records(session, first, {node.key for node in nodes}))
    exact = bool(records)
    if not exact:
        records = list(_records(session, first, None))
    if not records:
        yield Cost(first.stage, "", 0, images, None, None, None, None, None, exact=False)
        return
    whole = first.split is None
    for device in sorted({record.device for record in records}):
        mine = [record for record in records if record.device == device]
        rows = sum(record.stop - record.start for record in mine)
        seconds = sum(record.seconds for record in mine)
        size = sum(item.bytes for record in mine for item in record.objects.values())
        objects = max(len(record.objects) for record in mine)
        rate = None if whole or not seconds else rows / seconds
        if whole:
            seconds, size, files = seconds / len(mine), round(size / len(mine)), objects + 2
        elif images is None:
            yield Cost(first.stage, device, rows, None, rate, None, None, None, None, exact=exact)
            continue
        else:
            seconds, size = seconds / max(rows, 1) * images, round(size / max(rows, 1) * images)
            shard_rows = session.config.shard_rows or first.entry.shard_rows
            files = -(-images // shard_rows) * (objects + 1) + objects + 2
        gpu = seconds / 3600 if device.startswith("cuda") else 0.0
        yield Cost(first.stage, device, rows, images, rate, seconds / 3600, gpu, files, size, exact=exact)


def _records(session: Session, node: Node, keys: set[str | None] | None) -> Iterator[CommitRecord]:
    """Measured records of a stage in all splits of the data set; of these keys, or of every key."""
    dataset = session.store[node.dataset]
    if node.split is None:
        names = subfolders(session.backend.names(f"{node.dataset}/artifacts/{node.stage}"))
        made = [Artifact(session.store, node.dataset, node.stage, name).record for name in names if _is(name, keys)]
    else:
        views = [
            StageView(session.store, node.dataset, split, node.stage, key)
            for split in dataset.splits()
            for key in dataset[split].keys(node.stage)
            if _is(key, keys)
        ]
        made = [record for view in views for record in view.committed().values()]
    yield from (record for record in made if record is not None and record.seconds > 0)


def _is(key: str, keys: set[str | None] | None) -> bool:
    return keys is None or key in keys
