"""Making an artifact: whole splits in, files out."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.manifest import CommitRecord
from wsolpipe.contract.records import read_record
from wsolpipe.contract.schema import Status
from wsolpipe.engine import commit
from wsolpipe.engine.clock import now
from wsolpipe.engine.plan import upstream_contents
from wsolpipe.engine.shard import READ_ALWAYS
from wsolpipe.stages.base import Rows

if TYPE_CHECKING:
    from wsolpipe.engine.graph import Node
    from wsolpipe.engine.leases import Lease
    from wsolpipe.engine.session import Session
    from wsolpipe.stages.base import ArtifactStage


@dataclass
class ArtifactJob:
    """One artifact under way."""

    session: Session
    node: Node
    stage: ArtifactStage[Any]
    lease: Lease
    generation: int

    def make(self) -> CommitRecord:
        """Make and commit the files; return the record that stands in the end."""
        began = time.perf_counter()
        params = self.node.params
        wanted = [*self.stage.splits_needed(params), *self.stage.splits_measured(params)]
        present = [split for split in dict.fromkeys(wanted) if split in self.session.dataset.splits]
        made = self.stage.produce({split: self._rows(split) for split in present})
        record = CommitRecord(
            shard=None,
            objects={},
            upstream=upstream_contents(self.session, self.node, None),
            summary=dict(made.summary),
            seconds=round(time.perf_counter() - began, 3),
            device=self.stage.context.used_device,
            host=socket.gethostname(),
            time=now(),
            generation=self.generation,
        )
        folder, backend = self.node.folder, self.session.backend
        objects = {name: (commit.object_name(folder, {}, name, None), data) for name, data in made.files.items()}
        commit.put(backend, folder, record, objects, self.lease)
        standing = read_record(backend, folder, None)
        if standing is None:
            msg = f"{folder} was not committed: its lease was taken by another worker"
            raise StoreError(msg)
        return standing

    def _rows(self, split: str) -> Rows:
        index = self.session.index_of(split)
        assert index is not None
        table = index.table(READ_ALWAYS)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        reasons = {position: reason for position, reason in enumerate(columns["reason"]) if reason}
        status = np.full(table.num_rows, Status.OK, np.uint8)
        status[list(reasons)] = Status.QUARANTINED
        files = self.session.files

        def load(position: int) -> np.ndarray[Any, Any]:
            return files.read(columns["path"][position], columns["sha256"][position], columns["orientation"][position])

        numbers = np.arange(table.num_rows, dtype=np.int64)
        return Rows(numbers, columns, load, status=status, reasons=reasons, threads=self.stage.context.threads)
