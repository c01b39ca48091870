"""Boxes that people drew, taken from a file into the store: the stage `human_boxes` of one split."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, NotFoundError, RunFailed, raise_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wsolpipe.contract.reader import StageView
    from wsolpipe.engine.session import Session
    from wsolpipe.keys.run_keys import RunConfig
    from wsolpipe.launch.run import Ended
    from wsolpipe.share.formats.base import Format, Found
    from wsolpipe.share.taking_in import Reference, Taken


def take_file(config: RunConfig, given: Mapping[str, Any]) -> tuple[dict[str, Any], Ended]:
    """Make the stage of a file's boxes.

    Parameters
    ----------
    config : RunConfig
        Data set, split, store, and the stage, if it is not human_boxes.
    given : mapping
        ``format``, ``in``, ``over``, ``drawn`` and ``out``, as the keys of ``wsolpipe import``.

    Returns
    -------
    summary : dict
        Key of the stage, and counts.
    outcome : Ended
        Of the run that made it.

    Raises
    ------
    WsolError
        If the file does not fit the split, or nothing can be made of it.
    """
    from wsolpipe.engine.session import Session
    from wsolpipe.images.label_lines import label_line
    from wsolpipe.launch.display import Display
    from wsolpipe.launch.run import run

    config = _settled(config)
    session = Session.open(config)
    _check_stage(session)
    config = _with_index(session, config)
    session = Session.open(config)
    source = Path(given["in"]).expanduser()
    if not source.exists():
        msg = f"{source} does not exist"
        raise ConfigError(msg, hint="in= names what another tool exported")
    taken = _take_in(session, _reader(given["format"]).read(source, config.split[0]), source, given)
    with tempfile.TemporaryDirectory(prefix="wsolpipe-") as scratch:
        path = Path(given["out"]).expanduser() if given["out"] else Path(scratch) / "boxes.jsonl"
        with raise_as(ConfigError, f"cannot write {path}", OSError, hint="out=FILE names another place"):
            path.write_text("".join(map(label_line, taken.images)), encoding="utf-8")
        stage = config.stage[0]
        made = replace(config, params={**config.params, stage: {"file": str(path.absolute())}})
        with Display() as display:
            outcome = run(made, display, threading.Event())
    line = next(item for item in outcome.lines if item.stage == stage)
    drawn = sum(image.drawn for image in taken.images)
    summary = {
        "stage": stage, "split": config.split[0], "key": line.key, "rows": line.rows, "rows_drawn": drawn,
        "rows_kept": len(taken.images) - drawn, "boxes": taken.boxes, "clipped": taken.clipped,
        "elsewhere": taken.elsewhere, "file": given["out"],
    }  # fmt: skip
    return summary, outcome


def _settled(config: RunConfig) -> RunConfig:
    """The configuration with stage and split; work happens in this process."""
    from wsolpipe.images.dataset import load_dataset

    if len(config.stage) > 1:
        msg = "import makes one stage"
        raise ConfigError(msg, hint="leave stage= out, or name one")
    if config.params:
        msg = f"{next(iter(config.params))}.…: the boxes of import come from in="
        raise ConfigError(msg, hint="name the file with in=, and no parameters of stages")
    splits = config.split
    if not splits and config.dataset:
        splits = tuple(load_dataset(config.dataset, root=config.root, need_root=False).splits)
    if config.dataset and len(splits) != 1:
        msg = f"import takes the boxes of one split, and there are {', '.join(splits)}"
        raise ConfigError(msg, hint=f"add split=…, such as split={splits[-1]}")
    return replace(config, stage=config.stage or ("human_boxes",), split=splits, cluster="local", workers=1)


def _check_stage(session: Session) -> None:
    from wsolpipe.stages.human_boxes import HumanBoxes

    (stage,) = session.config.stage
    if stage == "index" or not issubclass(session.stage_class(stage), HumanBoxes):
        msg = f"stage {stage} is not made of boxes that are taken in"
        raise ConfigError(
            msg, hint="leave stage= out for human_boxes, or name a stage of that class in your stages=FILE"
        )


def _with_index(session: Session, config: RunConfig) -> RunConfig:
    """Make the index of the split, so that names of images are known."""
    from wsolpipe.contract.making import run_command
    from wsolpipe.launch.display import Display
    from wsolpipe.launch.run import run

    with Display() as display:
        outcome = run(replace(config, stage=("index",)), display, threading.Event())
    if session.index_of(config.split[0]) is None:
        raise RunFailed(outcome.verdict, hint=run_command("index", store=config.store))
    return config


def _reader(name: str) -> Format:
    from wsolpipe.share.formats.base import FORMATS

    found = FORMATS.find(name)
    if not found.reads():
        msg = f"format={name} is written and not read"
        raise ConfigError(msg, hint="wsolpipe import --help lists the formats that are")
    return found()


def _take_in(session: Session, found: Iterable[Found], source: Path, given: Mapping[str, Any]) -> Taken:
    from wsolpipe.engine.chosen_maps import SessionResults
    from wsolpipe.evaluate.map_sources import check_rows, rows_of_index
    from wsolpipe.share.taking_in import take_in

    subject, over = f"{given['format']} {source}", given["over"]
    split = session.config.split[0]
    index = session.index_of(split)
    assert index is not None
    rows, view = rows_of_index(index), None
    if over:
        stage, _, key = over.partition(":")
        view = SessionResults(session).view(stage, split, key or None)
        check_rows(view, rows)
    listed = given["drawn"] == "listed"
    reference = None if listed else _reference(session, source, view)
    return take_in(found, rows, subject=subject, over=view, reference=reference, listed=listed)


def _reference(session: Session, source: Path, over: StageView | None) -> Reference | None:
    """The labels that the file was exported from, by the note beside it, else those that stand for other rows."""
    from wsolpipe.share.exporting import read_note
    from wsolpipe.share.taking_in import Reference

    note, split = read_note(source), session.config.split[0]
    try:
        view = session.store[note["dataset"]][split].stage(note["stage"], note["keys"][split])
        return Reference(view, note["top"], note["min_score"], note["nms"])
    except (KeyError, TypeError, NotFoundError):
        return None if over is None else Reference(over, 1, certain=False)
