"""``wsolpipe export`` and ``import``."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.cli.command import configure, make_command
from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, keys_of_class, require
from wsolpipe.keys.run_keys import SPLIT, STAGE
from wsolpipe.share.formats.base import FORMATS, WRITTEN_ONLY, Format, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.reader import StageView
    from wsolpipe.engine.chosen_maps import SessionResults
    from wsolpipe.share.exporting import Chosen


class _Keys:
    """Keys of ``wsolpipe export``.

    Attributes
    ----------
    format
        what reads the files; png and npy are of maps and masks
    out
        folder to write, which appears whole; an earlier export there is replaced
    key
        result to use
    rows
        only these rows; @FILE: the images of a list that a report saved; worst: those whose first box fits against=
        least, without it those of the lowest score; disputed: the same, and against= must be given; doubtful: those
        where stages disagree, are unsure or sway the threshold that against= chooses
    against
        what boxes are compared with to find the rows to write
    top
        boxes of a row, best first
    min_score
        boxes of a lower score are left out
    nms
        overlap (IoU) above which the second of two boxes is left out
    map
        which map of a stage of maps
    images
        image files beside the labels: none, hard links (copies across disks), or copies
    """

    format = Key(kinds.choice(*FORMATS.names()), "localization")
    out = Key(kinds.file("folder"))
    key = Key(kinds.text("beginning of a key"), otherwise="that of the arguments given, else the newest")
    rows = Key(kinds.text("start:stop, @FILE, worst:n, disputed:n or doubtful:n"))
    against = Key(kinds.file("truth, STAGE, STAGE:KEY, localization.txt", offers=("truth",)))
    top = Key(
        kinds.integer(1),
        otherwise="all; 1 where readers train on every box (localization, yolo, voc, coco), unless people drew them",
    )
    min_score = Key(kinds.number(), otherwise="none")
    nms = Key(kinds.number(0, 1), otherwise="none")
    map = Key(kinds.integer(0), 0)
    images = Key(kinds.choice("none", "link", "copy"), otherwise="link for formats whose readers want them, else none")


KEYS = keys_of_class(_Keys)


@make_command("export", keys=KEYS, listed=("stage", "dataset", "store", "split", "root"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Write the labels of a stage in a format that other tools read: boxes with scores and classes, masks or maps.

    \b
    wsolpipe export stage=proposals dataset=D format=coco out=FOLDER
    wsolpipe export stage=val_boxes dataset=D format=labelstudio out=FOLDER rows=worst:200
    """
    from wsolpipe.engine.chosen_maps import SessionResults
    from wsolpipe.engine.session import Session
    from wsolpipe.share.exporting import kind_of_stage

    config, given = configure(words, KEYS)
    if len(config.stage) != 1:
        msg = "export writes the labels of one stage to a folder"
        raise ConfigError(msg, hint="wsolpipe export stage=val_boxes dataset=… format=coco out=FOLDER")
    require(given, "wsolpipe export", out="labels")
    session = Session.open(config, need_root=False)
    if session.registry[config.stage[0]].kind == "artifact":
        msg = f"stage {config.stage[0]} is an artifact of the whole data set: it has no labels to export"
        raise ConfigError(msg, hint="export boxes of val_boxes, proposals or regions, or maps of cams")
    chosen = FORMATS.find(given["format"])()
    results = SessionResults(session)
    views = [results.view(config.stage[0], split, given["key"]) for split in config.split or session.dataset.splits]
    for view in views:
        if kind_of_stage(view) not in chosen.holds:
            fitting = "png or npy" if kind_of_stage(view) == "maps" else "another format"
            kinds_held = " and ".join(sorted(chosen.holds))
            msg = f"format={given['format']} is of {kinds_held}, and {view.stage} holds {kind_of_stage(view)}"
            raise ConfigError(msg, hint=f"choose {fitting}: wsolpipe export --help")
    out = Path(given["out"]).expanduser()
    written = _export(results, views, chosen, given, out)
    if as_json:
        print_json({"files": [str(out / path) for path in written]})
    else:
        print("\n".join(str(out / path) for path in written))
    return 0


def _export(
    results: SessionResults, views: list[StageView], chosen: Format, given: dict[str, Any], out: Path
) -> list[Path]:
    """Write all splits; return the files to name, relative to `out`."""
    from wsolpipe.evaluate.map_sources import rows_of_index
    from wsolpipe.evaluate.truth import find_truth
    from wsolpipe.share.exporting import Chosen, labelled, note_of, sent_rows, whole_folder

    drawn = any("drawn" in view.manifest.arrays for view in views)
    what = Chosen(np.zeros(0, np.bool_), given["top"], given["map"], given["min_score"], given["nms"])
    first = given["top"] or (1 if chosen.trained and not drawn else None)
    about = {"dataset": views[0].dataset, "stage": views[0].stage, "format": given["format"]}
    about |= {"keys": {view.split: view.key for view in views}}
    subjects, written = [], []
    try:
        with whole_folder(out, {**note_of(what, **about), "top": first}) as folder:
            for view in views:
                rows = rows_of_index(results.index_of(view))
                truth = find_truth(results, rows, given["against"]) if given["against"] else None
                here = replace(what, rows=sent_rows(given["rows"], view, truth, partial(_others, results, view)))
                subjects.append(_subject(results, view, chosen, given, first))
                place = folder if chosen.one_tree else folder / view.split
                place.mkdir(exist_ok=True)
                written += chosen.write(labelled(view, rows, here), subjects[-1], place)
                if given["format"] == "localization":
                    written += _write_ious(view, rows, here, place)
            written = [*chosen.finish(subjects, folder), *written]
            written = [path.relative_to(folder) for path in written]
    except OSError as error:
        if isinstance(error, WsolError):
            raise
        msg = f"cannot write to {out}: {error.strerror}"
        raise ConfigError(msg, hint="choose another place with out=FOLDER") from error
    return written


def _subject(
    results: SessionResults, view: StageView, chosen: Format, given: dict[str, Any], top: int | None
) -> Subject:
    """Return the subject of the files; with images, their folder must exist."""
    session, index = results.session, results.index_of(view)
    images = given["images"] or ("link" if chosen.with_images else "none")
    names = {int(label): name for label, name in index.manifest.class_names.items()}
    return Subject(
        view.dataset, view.split, view.stage, view.key, names, None if images == "none" else session.root, images,
        session.dataset.licence, session.dataset.title, top,
    )  # fmt: skip


def _others(results: SessionResults, view: StageView) -> Iterator[StageView]:
    """Finished stages of boxes and maps beside one, made of the same rows; what people drew is left out."""
    split = results.session.store[view.dataset][view.split]
    for name in split.stages():
        other = split.stage(name)
        arrays, same = other.manifest.arrays, other.manifest.index_key == view.manifest.index_key
        whole = len(other.committed()) == len(other.shards)
        if name != view.stage and same and whole and {"boxes", "maps"} & set(arrays) and "drawn" not in arrays:
            yield other


def _write_ious(view: StageView, rows: Any, chosen: Chosen, folder: Path) -> list[Path]:
    """``localization_iou.txt`` as released, one line, and the IoU of each row; where rows have ground truth."""
    from wsolpipe.evaluate.box_scores import first_box_ious
    from wsolpipe.evaluate.truth import truth_of_index
    from wsolpipe.images.label_lines import iou_lines, mean_iou_line

    ious = first_box_ious(view, truth_of_index(rows))
    kept = {name: value for name, value in ious.items() if chosen.rows[rows.places[name]]}
    if not kept:
        return []
    paths = [folder / "localization_iou.txt", folder / "localization_iou_rows.txt"]
    for path, text in zip(paths, (mean_iou_line(kept), iou_lines(kept)), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


class _ImportKeys:
    """Keys of ``wsolpipe import``.

    Attributes
    ----------
    format
        format of the boxes
    in_
        what another tool, or wsolpipe export, wrote
    over
        stage whose first box stands for each row that the file does not list
    drawn
        which rows count as drawn: those whose boxes differ from the exported ones, or all rows of the file
    out
        file to keep the boxes in, as human_boxes.file= takes it
    """

    format = Key(kinds.choice(*(name for name in FORMATS.names() if name not in WRITTEN_ONLY)))
    in_ = Key(kinds.file("file or folder"))
    over = Key(kinds.text("STAGE or STAGE:KEY", source="stage"), otherwise="such rows have no box")
    drawn = Key(kinds.choice("changed", "listed"), "changed")
    out = Key(kinds.file())


IMPORT_KEYS = keys_of_class(_ImportKeys)
STORED = replace(
    STAGE, meaning="stage to make: human_boxes, or one of your own of the same class", otherwise="human_boxes"
)
IN_SPLIT = replace(SPLIT, meaning="split that the boxes are of", otherwise="the only one")


@make_command("import", keys=IMPORT_KEYS, listed=(STORED, "dataset", IN_SPLIT, "store", "root"))
def import_command(words: tuple[str, ...], as_json: bool) -> int:
    """Take boxes that people drew or corrected into the store, as a stage with a key of its own.

    eval against=human_boxes, wsoltrain fit by=human_boxes and val_boxes.annotator=human use them then.

    \b
    wsolpipe import format=coco in=corrected.json dataset=D split=val over=val_boxes
    """
    from wsolpipe.share.drawn_boxes import take_file

    config, given = configure(words, IMPORT_KEYS)
    require(given, "wsolpipe import", format="coco", **{"in": "corrected.json"})
    taken, outcome = take_file(config, given)
    if as_json:
        print_json(taken)
    else:
        _show_taken(taken)
    if outcome.code:
        print(outcome.verdict, file=sys.stderr)
    return outcome.code


def _show_taken(taken: dict[str, Any]) -> None:
    print(
        f"{taken['stage']} of {taken['split']}, key {taken['key']}: {taken['boxes']} boxes of {taken['rows_drawn']} of "
        f"{taken['rows']} rows"
        + (f", {taken['rows_kept']} rows keep a box that was there" if taken["rows_kept"] else "")
    )
    if taken["clipped"]:
        print(f"{taken['clipped']} boxes reached over the edge of their image and were clipped", file=sys.stderr)
    if taken["elsewhere"]:
        print(f"{taken['elsewhere']} images of the file are not of {taken['split']} and were left out", file=sys.stderr)
