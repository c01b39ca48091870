"""Labels of a finished stage as images with boxes, masks or maps, which rows of it, and the folder that holds them."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.layout import read_json
from wsolpipe.contract.schema import Status
from wsolpipe.evaluate.box_scores import score_boxes
from wsolpipe.evaluate.doubt import doubtful_rows
from wsolpipe.evaluate.map_sources import RowTable, StageMaps, rows_of_index
from wsolpipe.images.geometry import resize_mask
from wsolpipe.images.importers.lines import path_fault
from wsolpipe.images.label_lines import LabelBox, LabelledImage
from wsolpipe.keys.run_keys import names_list, read_row_list
from wsolpipe.metrics import best_iou
from wsolpipe.share.formats.base import class_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from wsolpipe.contract.reader import StageView
    from wsolpipe.evaluate.truth import Truth


Array = np.ndarray[Any, Any]
AT_ONCE = 1024
KINDS = ("boxes", "masks", "maps")
#: File of an exported folder that says which labels it holds.
NOTE = "export.json"


@dataclass(frozen=True)
class Chosen:
    """Part of a stage that is exported.

    Attributes
    ----------
    rows : bool array [N]
        Which rows.
    top : int or None
        Boxes of a row, best first; None for all.
    slot : int
        Which map of a stage of maps.
    min_score : float or None
        Boxes of a lower score are left out.
    nms : float or None
        Of two boxes of a row with a larger intersection over union, the one that is not as good is left out.
    """

    rows: Array
    top: int | None = None
    slot: int = 0
    min_score: float | None = None
    nms: float | None = None


def kind_of_stage(view: StageView) -> str:
    """``boxes``, ``masks`` or ``maps``, whichever a stage is of.

    Raises
    ------
    ConfigError
        If it holds none of them.
    """
    found = next((kind for kind in KINDS if kind in view.manifest.arrays), None)
    if found is None:
        held = ", ".join(sorted(view.manifest.arrays))
        msg = f"stage {view.stage} holds neither boxes nor masks nor maps, but {held}"
        raise ConfigError(msg, hint="export boxes of val_boxes, proposals or regions, or maps of cams")
    return found


def labelled(view: StageView, rows: RowTable, chosen: Chosen) -> Iterator[LabelledImage]:
    """Images of the chosen rows in their order; quarantined rows are left out, rows without an object have no box.

    Raises
    ------
    DataError
        If an image id or path of the index, which may be somebody else's, leads out of a folder.
    """
    assert rows.index is not None
    paths = rows.index.table(["path"]).column("path").to_pylist()
    usable = view.status()
    kept = chosen.rows & ((usable == Status.OK) | (usable == Status.NO_OBJECT)) & (rows.sizes > 0).all(axis=1)
    for row, parts in _READERS[kind_of_stage(view)](view, rows, chosen, kept):
        for text in (rows.ids[row], paths[row]):
            if fault := path_fault(text.replace("#", "/")):
                msg = f"row {row} of {view.split}: {fault}"
                raise DataError(msg, hint="the index of this store names files outside of its folder")
        width, height = (int(side) for side in rows.sizes[row])
        yield LabelledImage(row, rows.ids[row], paths[row], width, height, tuple(rows.labels[row]), **parts)


def _blocks(view: StageView, kept: Array) -> Iterator[tuple[slice, list[int]]]:
    """Runs of rows within a shard, with those of them that are wanted."""
    for record in view.committed().values():
        for start in range(record.start, record.stop, AT_ONCE):
            span = slice(start, min(start + AT_ONCE, record.stop))
            wanted = (start + np.flatnonzero(kept[span])).tolist()
            if wanted:
                yield span, wanted


def _boxes(view: StageView, rows: RowTable, chosen: Chosen, kept: Array) -> Iterator[tuple[int, dict[str, Any]]]:
    """Boxes with the class that they have in their stage, else with that of their image."""
    held = view.manifest.arrays
    assert rows.index is not None
    names = {int(label): name for label, name in rows.index.manifest.class_names.items()}
    slots = held["boxes"].shape[0]
    for span, wanted in _blocks(view, kept):
        count = span.stop - span.start
        edges = np.asarray(view["boxes"][span], np.float64).reshape(count, -1, 4)
        beside: dict[str, Array] = {
            name: np.asarray(view[name][span]).reshape(count, -1)
            for name in ("scores", "source", "labels")
            if name in held and held[name].shape == (slots,)
        }
        for row in wanted:
            at, own = row - span.start, rows.labels[row]
            found = []
            for slot in _kept_slots(edges[at], beside["scores"][at] if "scores" in beside else None, chosen):
                label, score, source = (_number(beside, name, at, slot) for name in ("labels", "scores", "source"))
                label = int(label) if label is not None and label >= 0 else own[0] if own else None
                x0, y0, x1, y1 = edges[at, slot].tolist()
                found.append(LabelBox((x0, y0, x1, y1), class_name(names, label), label, score,
                                      None if source is None or source < 0 else int(source)))  # fmt: skip
            yield row, {"boxes": tuple(found)}


def _kept_slots(edges: Array, scores: Array | None, chosen: Chosen) -> list[int]:
    """Slots of the boxes [K, 4] of a row that are exported, best first."""
    slots = np.flatnonzero(~np.isnan(edges).any(axis=1)).tolist()
    if chosen.min_score is not None and scores is not None:
        slots = [slot for slot in slots if not scores[slot] < chosen.min_score]
    if chosen.nms is not None:
        kept: list[int] = []
        for slot in slots:
            if best_iou(edges[slot], edges[kept]) <= chosen.nms:
                kept.append(slot)
        slots = kept
    return slots[: chosen.top]


def _number(arrays: dict[str, Array], name: str, row: int, slot: int) -> float | None:
    if name not in arrays:
        return None
    value = float(arrays[name][row, slot])
    return None if np.isnan(value) else value


def _masks(view: StageView, rows: RowTable, chosen: Chosen, kept: Array) -> Iterator[tuple[int, dict[str, Any]]]:  # noqa: ARG001
    """Object, background and ignored pixels at the size of the image."""
    for span, wanted in _blocks(view, kept):
        masks = view["masks"][span]
        for row in wanted:
            width, height = (int(side) for side in rows.sizes[row])
            yield row, {"mask": resize_mask(masks[row - span.start], (height, width))}


def _maps(view: StageView, rows: RowTable, chosen: Chosen, kept: Array) -> Iterator[tuple[int, dict[str, Any]]]:
    for batch in StageMaps(view, chosen.slot, rows).batches():
        for row, values in zip(batch.rows.tolist(), batch.maps, strict=True):
            if kept[row] and values is not None:
                yield row, {"map": values}


_READERS: dict[str, Callable[[StageView, RowTable, Chosen, Array], Iterator[tuple[int, dict[str, Any]]]]] = {
    "boxes": _boxes,
    "masks": _masks,
    "maps": _maps,
}


@contextmanager
def whole_folder(out: Path, about: dict[str, Any]) -> Iterator[Path]:
    """A hidden folder that becomes `out` when the block ends, and vanishes when it fails: an export is whole or not.

    An earlier export in its place is replaced, unless something in it was changed since.

    Parameters
    ----------
    about : dict
        Kept in the folder's `NOTE`: which labels it holds.

    Raises
    ------
    ConfigError
        If `out` holds anything else.
    """
    if out.exists() and not out.is_dir():
        msg = f"{out} is a file"
        raise ConfigError(msg, hint="out= names a folder")
    held = sorted(out.iterdir()) if out.is_dir() else []
    if held and not (out / NOTE).is_file():
        msg = f"{out} holds other files, such as {held[0].name}"
        raise ConfigError(msg, hint="out= names a new folder, or one that export wrote")
    changed = _changed_since(out)
    if changed:
        msg = f"{out} holds an earlier export, and {changed} in it was changed since"
        raise ConfigError(msg, hint="import takes changed labels in; name another folder with out=, or remove this one")
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden, old = (out.parent / f".{out.name}.{word}-{os.getpid()}" for word in ("new", "old"))
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        hidden.mkdir()
        yield hidden
        (hidden / NOTE).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if held:
            out.rename(old)
        hidden.rename(out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)


def _changed_since(out: Path) -> str:
    """Name of a file of an earlier export that is younger than its note; empty without one."""
    if not (out / NOTE).is_file():
        return ""
    written = (out / NOTE).stat().st_mtime_ns
    own = (path for path in out.rglob("*") if path.is_file() and path.stat().st_nlink == 1)  # linked images are not
    return next((path.relative_to(out).as_posix() for path in own if path.stat().st_mtime_ns > written), "")


def note_of(chosen: Chosen, **about: Any) -> dict[str, Any]:
    """Return the content of an export's note: `about` and the choice of boxes."""
    return {**about, **{name: value for name, value in asdict(chosen).items() if name not in {"rows", "slot"}}}


def read_note(path: Path) -> dict[str, Any]:
    """The note of the export that a file or folder belongs to, empty where there is none."""
    for place in (path, *path.absolute().parents[:4]):
        try:
            found = read_json((place / NOTE).read_bytes())
        except (OSError, ValueError):
            continue
        return found if isinstance(found, dict) else {}
    return {}


_RANGE = re.compile(r"(\d{0,15}):(\d{0,15})")
_RANKED = re.compile(r"(worst|disputed|doubtful):([1-9]\d{0,14})")


def sent_rows(
    word: str | None, view: StageView, truth: Truth | None, others: Callable[[], Iterable[StageView]] = tuple
) -> Array:
    """Rows that a word names, bool [N].

    Parameters
    ----------
    word : str or None
        ``start:stop``; ``@FILE``, a list that a report saved; ``worst:n``, the n rows whose first box fits `truth`
        least, or without it has the lowest score, rows without a box first; ``disputed:n``, the same, which needs
        a `truth`, such as another annotator; ``doubtful:n``, the n rows of `wsolpipe.evaluate.doubt`. None is
        every row.
    truth : Truth or None
        What first boxes are compared with; rows that it holds no box of are neither worst nor disputed.
    others : callable
        Gives further stages of the same rows, which may disagree with this one.

    Raises
    ------
    ConfigError
        If the word is another, `truth` is needed and missing, or the stage has no boxes.
    """
    rows = np.zeros(view.manifest.rows, np.bool_)
    if word is None:
        return ~rows
    if names_list(word):
        ids = view.index().table(["image_id"]).column("image_id").to_pylist()[: len(rows)]
        rows[read_row_list(word).find(ids, dataset=view.dataset, split=view.split)] = True
        return rows
    if match := _RANGE.fullmatch(word):
        rows[int(match[1] or 0) : int(match[2]) if match[2] else None] = True
        if not rows.any():
            msg = f"rows={word} holds none of the {len(rows)} rows"
            raise ConfigError(msg, hint="rows=start:stop counts from 0 and leaves out the stop")
        return rows
    ranked = _RANKED.fullmatch(word)
    if ranked is None:
        msg = f"rows={word}: write start:stop, @FILE, worst:n, disputed:n or doubtful:n"
        raise ConfigError(msg, hint="rows=worst:200 sends the 200 rows with the worst boxes")
    if ranked[1] == "doubtful":
        order = doubtful_rows([view, *others()], rows_of_index(view.index()), truth)
        rows[order[: int(ranked[2])]] = True
        return rows
    if "boxes" not in view.manifest.arrays:
        msg = f"rows={word}: stage {view.stage} has no boxes that could be compared"
        raise ConfigError(msg, hint="rows=start:stop works with every stage")
    if truth is None and ranked[1] == "disputed":
        msg = f"rows={word} needs against=, with which the boxes are compared"
        raise ConfigError(msg, hint="such as against=val_boxes, against=truth or against=localization.txt")
    rows[(_by_fit(view, truth) if truth is not None else _by_score(view))[: int(ranked[2])]] = True
    return rows


def _by_fit(view: StageView, truth: Truth) -> Array:
    scores = score_boxes(view, truth)
    if not len(scores.rows):
        msg = f"{truth.name} holds no box of a row of {view.stage} of {view.split}"
        raise ConfigError(msg, hint="against= names boxes of the same split")
    return scores.rows[np.argsort(scores.ious["iou_top1"], kind="stable")]


def _by_score(view: StageView) -> Array:
    if "scores" not in view.manifest.arrays:
        msg = f"stage {view.stage} keeps no scores by which its worst rows are known"
        raise ConfigError(msg, hint="against=truth or against=STAGE compares boxes instead")
    scores = np.full(view.manifest.rows, np.nan)
    for record in view.committed().values():
        span = slice(record.start, record.stop)
        first = np.asarray(view["scores"][span], np.float64).reshape(record.stop - record.start, -1)[:, 0]
        scores[span] = np.where(view["status"][span] == Status.OK, first, np.nan)
    usable = np.flatnonzero(view.status() == Status.OK)
    own = np.nan_to_num(scores[usable], nan=-np.inf)
    return np.asarray(usable[np.argsort(own, kind="stable")])
