"""A split as its metadata lists it now, held against its index in the store: what is new, what left."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.layout import digest, short_key, split_folder
from wsolpipe.contract.reader import Index, Split
from wsolpipe.contract.schema import RETIRED
from wsolpipe.engine.commit import now
from wsolpipe.engine.image_files import is_readable
from wsolpipe.engine.indexing import GAPS, IndexWork, is_damaged
from wsolpipe.engine.session import Session, last_seen
from wsolpipe.images.index import list_split, order_rows, source_stamp
from wsolpipe.images.listing import Annotation, ListedRow
from wsolpipe.keys.run_keys import names_list, read_row_list

# `images.index_tables` is imported where it is used: it brings pyarrow, which costs `plan` a quarter of its time.
if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wsolpipe.images.listing import Listing

VERSION = 1


@dataclass(frozen=True)
class Listed:
    """Rows of a split as the metadata lists them, in the order of its index.

    Attributes
    ----------
    made_of : dict
        Everything that the key of the index depends on.
    stamp : str
        Changes when the listing may have.
    before : Index or None
        The index in the store until now.
    new, left, relabelled, redrawn : int
        Images that it does not have, that left the split, whose label changed, and whose boxes or masks did.
    """

    listing: Listing
    rows: list[ListedRow]
    annotations: list[Annotation]
    made_of: dict[str, Any]
    stamp: str
    before: Index | None
    new: int
    left: int
    relabelled: int = 0
    redrawn: int = 0

    @property
    def key(self) -> str:
        """Key of the index of these rows."""
        return short_key(digest(self.made_of))

    def change(self) -> str:
        """Say in a few words what differs from the index in the store."""
        if self.before is None:
            return "missing"
        counts = {"rows new": self.new, "rows left": self.left}
        counts |= {"changed their label": self.relabelled, "changed their boxes": self.redrawn}
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "files changed"

    def rows_to_make(self, shard_rows: int) -> int:
        """Rows of the shards that a stage makes for these rows at most: all but full shards before the first change."""
        kept = not (self.left or self.relabelled)
        same = self.before.manifest.rows if self.before is not None and kept and self.new else 0
        return len(self.rows) - same // shard_rows * shard_rows


@dataclass(frozen=True)
class NotLookedAt:
    """A split whose folder of images is not within reach, with the last time that it was listed; empty for never."""

    split: str
    since: str


def look(session: Session, splits: Iterable[str]) -> tuple[Session, dict[str, Listed], list[NotLookedAt]]:
    """List the splits whose metadata changed since their index was made; writes nothing.

    Returns
    -------
    session : Session
        With the keys that the indexes will have, so that what is planned is planned on them.
    listed : dict
        By split; without those that are up to date.
    not_looked_at : list of NotLookedAt
        Where the folder of images is not within reach; an index in the store counts as it is.

    Raises
    ------
    DataError, ConfigError
        As `_list_rows`.
    """
    root = session.dataset.root
    keys, listed, skipped = dict(session.config.index), dict[str, Listed](), list[NotLookedAt]()
    for split in splits:
        present = session.index_of(split)
        if root is None or not root.is_dir():
            seen = last_seen(session.backend, present.folder).get("time", present.manifest.created) if present else ""
            skipped.append(NotLookedAt(split, seen))
            continue
        generation = _generation(session, split)
        if present is not None and _found_again(session, present):
            generation += 1
        elif present is not None and _is_current(session, present, generation):
            continue
        found = _list_rows(session, split, present, generation)
        keys[split] = found.key
        if session.finished_index(split, found.key) is None:
            listed[split] = found
    return replace(session, config=replace(session.config, index=keys)), listed, skipped


def list_index(session: Session, split: str) -> tuple[IndexWork | Index, str]:
    """Bring the index of a split up to date with its metadata, as far as that needs no image file.

    Returns
    -------
    index : Index or IndexWork
        Work, if files have to be scanned or damaged tables assembled again.
    change : str
        What differs from the index before it; empty where nothing does or there was none.

    Raises
    ------
    DataError, ConfigError
        If the metadata contradicts itself or the root is missing.
    """
    present = session.index_of(split)
    if present is not None and is_damaged(session, present):
        work = IndexWork(session, split, present.key)
        work.reopen()
        if work.is_whole():
            return work, ""  # the same rows in the same order, from the same listing
        present = None  # it came from another store, without its listing
    asked = session.config.force and "index" in session.config.stage
    rescan = asked or (present is not None and _found_again(session, present))
    if rescan and present is not None:
        ask_rescan(session, split)
    generation = _generation(session, split)
    if present is not None and not rescan and _is_current(session, present, generation):
        return present, ""
    listed = _list_rows(session, split, present, generation)
    change = listed.change() if present is not None and listed.key != present.key else ""
    work = _write(session, split, listed, asked=asked)
    finished = session.finished_index(split, work.key)
    if finished is not None and is_damaged(session, finished):
        work.reopen()
        finished = None
    return finished or work, change


def _list_rows(session: Session, split: str, present: Index | None, generation: int) -> Listed:
    """List a split by its metadata, in the order of the index that is `present`; writes nothing.

    Raises
    ------
    DataError, ConfigError
        If the metadata contradicts itself or has no row, or the root is missing.
    """
    dataset = session.dataset
    listing = list_split(dataset, split)
    stamp = stamp_of(session, split, generation)  # before the listing: a change during it is seen by the next run
    before = _rows_before(present, listing) if present else []
    _refuse_another(session, before, listing)
    ordered = order_rows(listing, before if _is_built_on(session, split) else [])
    start, stop = session.config.row_range()
    rows = ordered[start:stop]
    if names_list(session.config.rows):
        chosen = read_row_list(str(session.config.rows))
        rows = [rows[at] for at in chosen.find([row.image_id for row in rows], dataset=dataset.name, split=split)]
    rows = rows[: session.config.limit]
    if not rows and ordered:
        msg = f"rows={session.config.rows} holds none of the {len(ordered):,} images of split {split} of {dataset.name}"
        raise ConfigError(msg, hint=f"rows=0:{len(ordered)} are all of them; split= works on one split alone")
    if not rows:
        msg = f"split {split} of {dataset.name} has no images: {dataset.root}"
        raise ConfigError(msg, hint="check root= and the data set's YAML")
    kept = {row.image_id for row in rows}
    annotations = [item for item in listing.annotations if item.image_id in kept]
    made_of = {
        "stage": "index", "version": VERSION, "params": {"exif": dataset.exif}, "selection": session.config.selection(),
        "generation": generation, "listing": _listing_digest(rows, annotations),
        "classes": [listing.classes, sorted(listing.class_names.items()), list(listing.objectless)],
    }  # fmt: skip
    found = Listed(listing, rows, annotations, made_of, stamp, present, len(rows), 0)
    if present is None or found.key == present.key:
        return found
    known = {row.image_id: row.labels for row in before if row.reason != RETIRED}
    labels = [known.pop(row.image_id, None) if row.reason != RETIRED else row.labels for row in rows]
    changed = sum(own is not None and own != row.labels for own, row in zip(labels, rows, strict=True))
    both = {row.image_id for row, own in zip(rows, labels, strict=True) if own is not None and row.reason != RETIRED}
    redrawn = _redrawn(session, present, annotations, both)
    return replace(found, new=labels.count(None), left=len(known), relabelled=changed, redrawn=redrawn)


def _rows_before(present: Index, listing: Listing) -> list[ListedRow]:
    """Rows of the index in the store, with their labels as the classes are numbered now."""

    numbers = {name: label for label, name in listing.class_names.items()}
    names = {int(label): name for label, name in present.manifest.class_names.items()}
    moved = {label: numbers.get(name) for label, name in names.items()} if names and numbers else {}
    columns = ("image_id", "path", "labels", "group", "frame", "reason")
    rows = []
    for part in present.table(columns).to_batches(max_chunksize=4096):
        for image_id, path, labels, group, frame, reason in zip(*part.to_pydict().values(), strict=True):
            own = (moved.get(label, label) for label in labels)
            now = tuple(label for label in own if label is not None)
            rows.append(ListedRow(image_id, path, now, group=group, frame=frame, reason=reason))
    return rows


def _is_built_on(session: Session, split: str) -> bool:
    """Whether any stage has arrays with one entry for each row of the split's index, whose places must then stay."""
    return bool(Split(session.store, session.dataset.name, split).stages())


def _redrawn(session: Session, present: Index, annotations: list[Annotation], known: set[str]) -> int:
    """How many known images have other boxes or masks than when the index in the store was listed."""

    work = IndexWork(session, present.split, present.key)
    if not work.is_whole():
        return 0
    parts = work.listing("listing_annotations.parquet").table().to_batches(max_chunksize=4096)
    before = (Annotation(**row) for part in parts for row in part.to_pylist())
    (old, old_ids), (new, new_ids) = (
        _hashes(item for item in items if item.image_id in known) for items in (before, annotations)
    )
    return len(np.union1d(old_ids[~np.isin(old, new)], new_ids[~np.isin(new, old)]))


def _hashes(annotations: Iterable[Annotation]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A hash of each annotation without its place in a file, and one of its image."""
    pairs = np.array([(hash(item[:7]), hash(item.image_id)) for item in annotations], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _write(session: Session, split: str, listed: Listed, *, asked: bool) -> IndexWork:
    """Write a listing into the folder of its index; `asked` is kept there for whoever scans it."""
    from wsolpipe.images.index_tables import annotation_table, write_listing, write_parquet

    work, backend, listing, before = (
        IndexWork(session, split, listed.key),
        session.backend,
        listed.listing,
        listed.before,
    )
    notes = {
        "fingerprint": digest(listed.made_of), "rows": len(listed.rows), "annotations": len(listed.annotations),
        "classes": listing.classes, "class_names": {str(label): name for label, name in listing.class_names.items()},
        "ignored": listing.ignored, "objectless": list(listing.objectless), "selection": session.config.selection(),
        "params": listed.made_of["params"], "previous": before.key if before and before.key != work.key else None,
    }  # fmt: skip
    notes |= {"notes": listing.notes} if listing.notes else {}
    truth = write_parquet(annotation_table(listed.annotations))
    work.write_listing({"listing.parquet": write_listing(listed.rows), "listing_annotations.parquet": truth}, notes)
    seen = {**last_seen(backend, work.folder), "stamp": listed.stamp, "time": now()}
    backend.replace(f"{work.folder}/seen.json", json.dumps({**seen, **({GAPS: "asked for"} if asked else {})}).encode())
    return work


def _generation(session: Session, split: str) -> int:
    """How often the files of a split were to be scanned anew."""
    base = f"{split_folder(session.dataset.name, split)}/index-rescans"
    return sum(1 for name in session.backend.names(base) if name.endswith(".json"))


def stamp_of(session: Session, split: str, generation: int = 0) -> str:
    """Digest that changes when the listing of a split may have, or when its files are to be scanned anew."""
    return digest([source_stamp(session.dataset, split), generation])


def _is_current(session: Session, present: Index, generation: int) -> bool:
    seen = last_seen(session.backend, present.folder)
    return seen.get("stamp") == stamp_of(session, present.split, generation)


def _refuse_another(session: Session, before: list[ListedRow], listing: Listing) -> None:
    """Refuse a data set that has the name, but not one image, of the one whose index is in the store.

    Its images would be appended to those of the other, whose rows would all be quarantined.
    """
    if before and {row.image_id for row in listing.rows}.isdisjoint(row.image_id for row in before):
        name = session.dataset.name
        msg = (
            f"{session.config.store} holds another data set called {name}: none of its {len(before)} images, such as "
            f"{before[0].image_id}, is among the {len(listing.rows)} of {session.dataset.source}, such as "
            f"{listing.rows[0].image_id}"
        )
        raise ConfigError(msg, hint="give one of them another name: in its YAML, or use another store=")


def _found_again(session: Session, index: Index) -> bool:
    """Whether a file that could not be opened when it was scanned can be opened now."""
    from wsolpipe.images.scan import MISSING, UNREADABLE

    if not index.manifest.quarantined:
        return False
    rows = index.table(["path", "reason"]).to_pylist()
    lost = (row["path"] for row in rows if row["reason"].startswith((MISSING, UNREADABLE)))
    return any(is_readable(session.root, path) for path in lost)


def ask_rescan(session: Session, split: str) -> None:
    """Make the next run rescan files whose size or time changed, or that were quarantined."""
    folder = f"{split_folder(session.dataset.name, split)}/index-rescans"
    session.backend.create(f"{folder}/{now().replace(':', '-')}.json", b"{}")


def _listing_digest(rows: Iterable[ListedRow], annotations: Iterable[Annotation]) -> str:
    text = hashlib.sha256()
    for number, values in enumerate(chain(([*row[:5], *row[6:]] for row in rows), (item[:7] for item in annotations))):
        text.update(("\n" * bool(number) + json.dumps(values, ensure_ascii=False)).encode())
    return text.hexdigest()
