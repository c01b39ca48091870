"""The index of a split: listed from metadata, scanned shard by shard, assembled once every file has been scanned.

``index/<key>/`` holds ``listing.parquet`` and ``listing_annotations.parquet`` (from the metadata), ``scan/*``
(from the files), then ``index.parquet``, ``annotations.parquet`` and ``manifest.json``, written last.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import AccessError, StoreError
from wsolpipe.contract.layout import Shards, commit_name, sha256_bytes
from wsolpipe.contract.manifest import CommitRecord, IndexManifest, StoredObject, standing_record
from wsolpipe.contract.parquet import read_parquet
from wsolpipe.contract.reader import Index
from wsolpipe.contract.schema import RETIRED
from wsolpipe.engine.commit import commit, new_record, now
from wsolpipe.engine.image_files import ImageFiles
from wsolpipe.engine.session import Session, last_seen
from wsolpipe.engine.stored_listing import StoredListing
from wsolpipe.images.listing import Annotation, ListedRow
from wsolpipe.images.scan import MISSING, UNREADABLE, Scan, scan_rows
from wsolpipe.images.video import file_of

# `images.index_tables` is imported where it is used: it brings pyarrow, which costs `plan` a quarter of its time.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from wsolpipe.engine.leases import Lease

SCAN_ROWS = 4096
#: Shards whose files are looked for before all files of a shard count as lost.
LOOKED_AT = 16
#: Notes of a listing that its manifest repeats.
NOTED = ("fingerprint", "classes", "class_names", "objectless", "ignored", "selection", "params")
#: Note in ``seen.json`` of an index that ``force=true`` asked for: many of its files may be lost.
GAPS = "gaps"


@dataclass
class _Seen:
    """Which files of a scan could be opened: a folder out of reach must not cost the rows of its files.

    Attributes
    ----------
    gaps : bool
        Whether many files in a row may be lost, because somebody who knows of it asked for this scan.
    """

    files: ImageFiles
    gaps: bool
    lost: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def note(self, row: ListedRow, scan: Scan, *, before: Scan | None) -> None:
        """Count a row, unless it was lost `before` already; raise DataError where the folder is out of reach."""
        if _is_lost(scan):
            self.lost.append(row.path)
            if not self.gaps and not (before and _is_lost(before)):
                self.files.note_lost(row.path)
        elif not row.reason:
            self.read.append(row.path)
            self.files.note_read()

    def confirm(self, others: Iterable[str]) -> None:
        """Raise DataError if files were lost and none that was read, or is among `others`, can be opened now."""
        self.files.confirm_lost(self.lost, chain(self.read, others))


def _is_lost(scan: Scan) -> bool:

    return scan.reason.startswith((MISSING, UNREADABLE))


@dataclass(frozen=True)
class IndexWork(StoredListing):
    """An index that is listed and not yet assembled."""

    def reopen(self) -> None:
        """Take back the manifest of damaged tables, so that they are put together again."""
        self.session.backend.delete(f"{self.folder}/manifest.json")

    @property
    def rows(self) -> int:
        """Number of rows listed."""
        return int(self.notes()["rows"])

    def shards(self) -> Shards:
        """Shards of the scan."""
        return Shards(self.rows, SCAN_ROWS)

    def pending(self) -> list[int]:
        """Scan shards without a record."""
        names = {name.removesuffix(".json") for name in self.session.backend.names(f"{self.folder}/commits")}
        return [shard for shard in range(len(self.shards())) if str(shard) not in names]

    def scan(self, shard: int, lease: Lease, check: Callable[[], None] = lambda: None) -> CommitRecord:
        """Open the files of one shard: size, digest, orientation, or why they cannot be decoded.

        `check` is called after every file and may raise to end the scan.

        Raises
        ------
        DataError
            If the folder of images is out of reach, so that nothing is known of its rows.
        """
        from wsolpipe.images.index_tables import listed_rows, scan_table, write_parquet

        began, seen = time.perf_counter(), _Seen(ImageFiles(self.session.root), gaps=self._may_have_gaps())
        start, stop = self.shards().span(shard)
        listed = self.listing("listing.parquet").table(start=start, stop=stop)
        root, exif = self.session.root, self.session.dataset.exif
        before = self._scans_before(listed)
        known = {at: scan for at, (scan, same) in before.items() if same and not scan.reason}
        known |= self._retired(listed, start)
        rows = list(listed_rows(listed))
        unknown = [row for position, row in enumerate(rows) if position not in known]
        scans = scan_rows(root, unknown, exif=exif, threads=self.session.threads(), check=check)
        found = []
        with contextlib.closing(scans):
            for position, row in enumerate(rows):
                scan = known.get(position) or next(scans)
                seen.note(row, scan, before=before[position][0] if position in before else None)
                found.append((row, scan, _modified(root / row.path)))
        data, bad = write_parquet(scan_table(found)), sum(bool(scan.reason) for _, scan, _ in found)
        seen.confirm(self._paths())
        record = new_record(shard, start, stop, time.perf_counter() - began, ok=stop - start - bad)
        objects = {"scan": (f"{self.folder}/scan/{shard}.parquet", data)}
        return commit(self.session.backend, self.folder, record, objects, lease)

    def _may_have_gaps(self) -> bool:
        """Whether ``force=true`` asked for this index, whoever scans it."""
        return GAPS in last_seen(self.session.backend, self.folder)

    def _paths(self) -> Iterator[str]:
        """Paths of the rows of some shards, all over the split."""
        listing, shards = self.listing("listing.parquet"), self.shards()
        for shard in range(0, len(shards), -(-len(shards) // LOOKED_AT)):
            start, stop = shards.span(shard)
            yield from listing.table(["path"], start=start, stop=stop).column("path").to_pylist()

    @cached_property
    def _previous(self) -> Index | None:
        """The index before this one, as long as it is there."""
        key = self.notes().get("previous")
        return self.session.finished_index(self.split, key) if key else None

    @cached_property
    def _places_before(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hashes of the paths of the index before this one, ascending, and their rows."""
        assert self._previous is not None
        paths = self._previous.table(["path"]).column("path")
        hashes = np.fromiter((hash(path.as_py()) for path in paths), np.int64, len(paths))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def _scans_before(self, listed: pa.Table) -> dict[int, tuple[Scan, bool]]:
        """Scans of the index before this one, by position, of the same paths; and whether the file is the same still.

        A file is the same where the time of its last change is.
        """
        from wsolpipe.images.index_tables import stored_scans

        if self._previous is None:
            return {}
        found, backend, (hashes, order) = {}, self.session.backend, self._places_before
        paths = listed["path"].to_pylist()
        wanted = np.fromiter(map(hash, paths), np.int64, len(paths))
        at = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
        rows = np.where(hashes[at] == wanted, order[at], -1)
        for shard in np.unique(rows[rows >= 0] // SCAN_ROWS).tolist():
            name = f"{self._previous.folder}/scan/{shard}.parquet"
            if not self._is_whole_scan(self._previous.folder, shard):
                continue
            places = {int(rows[place]): place for place in np.flatnonzero(rows // SCAN_ROWS == shard).tolist()}
            scans = stored_scans(read_parquet(backend, name, start=0, stop=SCAN_ROWS))
            for row, (scan, path, modified) in enumerate(scans, shard * SCAN_ROWS):
                if row in places and path == paths[places[row]]:
                    same = bool(modified) and modified == _modified(self.session.root / path)
                    found[places[row]] = scan, same
        return found

    def _retired(self, listed: pa.Table, start: int) -> dict[int, Scan]:
        """Facts of the retired rows of a shard, by position, as the index before this one has them in their place."""

        left = [at for at, reason in enumerate(listed["reason"].to_pylist()) if reason == RETIRED]
        if not left or self._previous is None:
            return {}
        facts = self._previous.table(["bytes", "sha256", "width", "height", "orientation"], start=start)
        return {at: Scan(**facts.slice(at, 1).to_pylist()[0], reason=RETIRED) for at in left if at < len(facts)}

    def assemble(self) -> Index:
        """Check listing against files and write the tables.

        Raises
        ------
        DataError
            If sizes disagree with the files or a box lies outside its image; names file and line.
        """
        from wsolpipe.images.index_tables import write_parquet

        backend, dataset, notes = self.session.backend, self.session.dataset, self.notes()
        index, truth, clipped = self._tables(notes["annotations"])
        objects = {}
        for name, data in {"index": write_parquet(index), "annotations": write_parquet(truth)}.items():
            backend.replace(f"{self.folder}/{name}.parquet", data)
            objects[f"{name}.parquet"] = StoredObject(sha256=sha256_bytes(data), bytes=len(data))
        manifest = IndexManifest(
            dataset=dataset.name, split=self.split, key=self.key, shard_rows=SCAN_ROWS,
            objects=objects, clipped_boxes=clipped, licence=dataset.licence, title=dataset.title, created=now(),
            **_facts(index, truth), **{name: notes[name] for name in NOTED if name in notes},
        )  # fmt: skip
        if backend.create(f"{self.folder}/manifest.json", manifest.to_bytes()):
            note_manifest(self.session, self.folder, sha256_bytes(manifest.to_bytes()))
        return Index(self.session.store, dataset.name, self.split, self.key)

    def _tables(self, annotated: int) -> tuple[pa.Table, pa.Table, int]:
        """Index and annotations, checked against each other, and the number of boxes that were clipped."""
        import pyarrow as pa

        from wsolpipe.images.index import ListingCheck
        from wsolpipe.images.index_tables import PART_ROWS, index_part, listed_rows, stored_scans, truth_table

        backend, shards = self.session.backend, self.shards()
        truth = self.listing("listing_annotations.parquet").table(start=0, stop=annotated)
        check = ListingCheck(
            [Annotation(**row) for row in truth.to_pylist()], subject=f"{self.session.dataset.name}, split {self.split}"
        )
        listing, parts = self.listing("listing.parquet"), []
        for shard in range(len(shards)):
            start, stop = shards.span(shard)
            scans = read_parquet(backend, f"{self.folder}/scan/{shard}.parquet", start=0, stop=SCAN_ROWS)
            found = zip(listed_rows(listing.table(start=start, stop=stop)), stored_scans(scans), strict=True)
            while part := list(islice(found, PART_ROWS)):
                rows, made = [row for row, _ in part], [scan for _, (scan, *_) in part]
                check.add(rows, made)
                parts.append(index_part(start, rows, made))
                start += len(rows)
        checked = check.finish()
        return pa.concat_tables(parts), truth_table(checked.annotations, checked.numbers), checked.clipped

    def damaged_scans(self) -> list[int]:
        """Shards whose scan has other bytes than its record says."""
        return [shard for shard in range(len(self.shards())) if not self._is_whole_scan(self.folder, shard)]

    def _is_whole_scan(self, folder: str, shard: int) -> bool:
        """Whether the scan of a shard is there with the bytes of its record."""
        record, _ = standing_record(self.session.backend, folder, shard)
        try:
            data = self.session.backend.get(f"{folder}/scan/{shard}.parquet")
            return record is not None and sha256_bytes(data) == record.objects["scan"].sha256
        except AccessError:
            raise
        except (FileNotFoundError, StoreError, KeyError):
            return False

    def discard_scan(self, shard: int) -> None:
        """Remove the scan of a shard, its record first, so that it is made again."""
        self.session.backend.delete(commit_name(self.folder, shard))
        self.session.backend.delete(f"{self.folder}/scan/{shard}.parquet")


def _facts(index: pa.Table, truth: pa.Table) -> dict[str, Any]:
    """Return what a manifest says of its tables: digests, and how many labels, boxes, masks, bad and retired rows."""
    import pyarrow as pa

    from wsolpipe.images.index_tables import column_digests

    left = index.column("reason").to_numpy(zero_copy_only=False) == RETIRED
    rows, kinds = index.filter(pa.array(~left)), Counter(truth.column("kind").to_pylist())
    labels = Counter(label for part in rows.column("labels").chunks for label in part.flatten().to_pylist())
    return {
        "rows": len(index),
        "quarantined": sum(map(bool, rows.column("reason").to_pylist())),
        "retired": len(index) - len(rows),
        "digests": column_digests(index) | (column_digests(pa.table({"retired": left})) if left.any() else {}),
        "label_counts": {str(label): count for label, count in sorted(labels.items())},
        "boxes": kinds["box"],
        "masks": kinds["mask"],
        "rows_with_truth": len(set(truth.column("row").to_pylist())),
    }


def is_damaged(session: Session, index: Index) -> bool:
    """Whether a table of the index has other bytes than its manifest says, or the manifest is not as it was written.

    Where another store or an older version wrote it, its digests are held against the table once.
    """
    for name, stored in index.manifest.objects.items():
        try:
            if sha256_bytes(session.backend.get(f"{index.folder}/{name}")) != stored.sha256:
                return True
        except FileNotFoundError:
            return True
    manifest = sha256_bytes(session.backend.get(f"{index.folder}/manifest.json"))
    noted = last_seen(session.backend, index.folder).get("manifest")
    if noted is not None:
        return noted != manifest
    from wsolpipe.images.index_tables import column_digests

    digests = {name: value for name, value in index.manifest.digests.items() if name != "retired"}
    if column_digests(index.table()) != digests:
        return True
    note_manifest(session, index.folder, manifest)
    return False


def note_manifest(session: Session, folder: str, sha256: str) -> None:
    """Remember the digest of a manifest that was checked, so that a later change of it is found."""
    note = {**last_seen(session.backend, folder), "manifest": sha256}
    session.backend.replace(f"{folder}/seen.json", json.dumps(note).encode())


def _modified(path: Path) -> int:
    try:
        return os.stat(file_of(os.fspath(path))).st_mtime_ns
    except OSError:
        return 0
