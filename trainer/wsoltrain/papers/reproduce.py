"""A table of the papers made or planned, ``wsoltrain reproduce``: its words, its files and its text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import DATASET, STORE, store_of
from wsoltrain.papers.table import WEIGHTS, PaperTable, check_recipes, load_table
from wsoltrain.runs.evaluate import align
from wsoltrain.runs.many import Site, split_site
from wsoltrain.runs.settle import SITE_KEYS, TABLE, TRAINING, read_recipe_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wsoltrain.papers.found import Found
    from wsoltrain.papers.work import Reproduction, Request

TRAINED = ("workers", "device", "save_every")


class _Keys:
    """Keys of ``wsoltrain reproduce``.

    Attributes
    ----------
    table
        table: 2.1, 4.2, I-3, II-1, molt-2, demo …
    row
        only these rows
    dataset
        only these data sets of the table; a YAML file of yours stands for the one that it names
    out
        folder of runs and of the table
    plan
        say what would be made, what is missing and how long it would take
    by
        what chooses epochs and thresholds, as in fit
    threshold
        best: the best one of the scored images, as most papers; validation: the one that by= chose
    configurations
        drawn for each search
    """

    table = Key(TABLE)
    row = Key(kinds.list_of(kinds.text("name of a row")), (), otherwise="all")
    dataset = Key(kinds.list_of(DATASET.kind), (), otherwise="all")
    store = STORE
    out = Key(kinds.file("folder"), otherwise="reproduce/<table>")
    plan = Key(kinds.flag(), False)
    by = Key(kinds.text("annotator"), otherwise="that of the table")
    threshold = Key(kinds.choice("best", "validation"), otherwise="that of the table")
    configurations = Key(kinds.integer(1), otherwise="those of the table")


KEYS = (*keys_of_class(_Keys), *(key for key in TRAINING if key.name in TRAINED), *WEIGHTS, *SITE_KEYS)


def reproduce(words: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Make a table, or plan it, by the words of `KEYS`; cells or plan for scripts, and lines of text.

    Raises
    ------
    ConfigError
        For a mistake in the words or the table; before anything is made.
    """
    from wsoltrain.papers.work import Reproduction

    rest, profile = split_site(words)
    values, changes = read_recipe_words(rest, KEYS)
    request = _request(values, changes, profile, rest)
    work = Reproduction(request)
    if values["plan"]:
        return _plan(work)
    cells = work.run()
    _write(request, values["table"], cells)
    result = _json(request.table, cells) | {"out": str(request.out), "changes": changes}
    return result, [*_text(request, cells), f"{request.out}/table.txt, table.csv, table.tex"]


def _request(
    values: dict[str, Any], changes: dict[str, Any], profile: tuple[str, ...], words: Sequence[str]
) -> Request:
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.papers.work import Request

    table = load_table(values["table"])
    rows = [row.name for row in table.rows]
    for name in values["row"]:
        if name not in rows:
            raise ConfigError(unknown("row", name, rows))
    for name in changes:
        if name.startswith("weights."):
            raise ConfigError(unknown("key", name, [key.name for key in WEIGHTS]))
    for key in WEIGHTS:
        file = values[key.name]
        if file and ":" not in file and not Path(file).is_file():
            msg = f"{key.name}={file}: no such file"
            raise ConfigError(msg, hint=f"{key.name}=FILE: {key.meaning}")
    datasets = {}
    for word in values["dataset"]:
        name = load_dataset(word, need_root=False).name if word.endswith((".yaml", ".yml")) else word
        if name not in table.datasets:
            raise ConfigError(unknown(f"data set of table {values['table']}", name, table.datasets))
        datasets[name] = word
    chosen = [
        number for number, column in enumerate(table.columns)
        if not datasets or not column.dataset or column.dataset in datasets
    ]  # fmt: skip
    request = Request(
        table=table,
        rows=tuple(number for number, name in enumerate(rows) if not values["row"] or name in values["row"]),
        columns=tuple(chosen),
        out=Path(values["out"] or f"reproduce/{_name(values['table'])}"),
        store=store_of(values["store"]),
        datasets=datasets,
        words=tuple(word for word in words if word.partition("=")[0] in TRAINED),
        changes=changes,
        by=values["by"] or table.by,
        threshold=values["threshold"] or table.threshold,
        configurations=values["configurations"] or table.configurations,
        device=choose_device(values["device"]),
        weights={key.name.partition(".")[2]: values[key.name] for key in WEIGHTS if values[key.name]},
        site=Site(values["cluster"], values["parallel"], profile),
    )
    check_recipes((cell for _, _, cell in request.cells()), changes)
    return request


def _plan(work: Reproduction) -> tuple[dict[str, Any], list[str]]:
    from wsoltrain.papers.plan import make_plan, plan_json, total_hours

    plan = make_plan(work)
    table = [["", "state", "images", "epochs", "hours"]]
    for each in plan:
        hours = "" if each.hours is None else f"{each.hours:.2f}"
        count = ["" if number is None else f"{number:,}" for number in (each.rows, each.epochs)]
        table.append([each.what, each.state, *count, hours])
    named: dict[str, list[str]] = {}
    for each in plan:
        if each.note:
            named.setdefault(each.note, []).append(each.what)
    notes = [f"  {', '.join(dict.fromkeys(whats))}: {note}" for note, whats in named.items()]
    total = f"{total_hours(plan):,.1f} hours of one worker on {work.request.device}, as far as rates are known"
    return plan_json(plan), [*align(table), *notes, total]


def _name(table: str) -> str:
    """Name of a table, or of the YAML file that holds it; 4.1 has no ending."""
    return Path(table).stem if table.endswith((".yaml", ".yml")) else table


def _text(request: Request, cells: Mapping[tuple[int, int], Found]) -> list[str]:
    from wsoltrain.papers.printed import notes_of, text_of, thresholds_of

    table = request.table
    given = ", ".join(f"{name}={value}" for name, value in request.changes.items())
    return [
        f"{table.title} ({table.source})",
        "published | here ± half of the 95 % interval | difference",
        *align(text_of(table, cells)),
        *_chosen(request),
        *thresholds_of(table, cells),
        *([f"here with {given}, not as published"] if given else []),
        *(f"note: {note}" for note in notes_of(table, cells)),
    ]


def _chosen(request: Request) -> list[str]:
    """Say what chose the epochs of trainings, and how many configurations searches drew."""
    cells = [cell for _, _, cell in request.cells()]
    by = dict.fromkeys(cell.by or request.by for cell in cells if cell.fit)
    lines = [f"epochs chosen by {', '.join(by)}"] if by else []
    if any(cell.search for cell in cells):
        drawn, published = request.configurations, request.table.configurations
        of = "as published" if drawn == published else f"published with {published}"
        lines.append(f"epochs chosen by each cell's annotator, in {drawn} configurations of each recipe ({of})")
    return lines


def _write(request: Request, name: str, cells: Mapping[tuple[int, int], Found]) -> None:
    from wsolpipe.contract.errors import writing
    from wsoltrain.papers.printed import csv_of, latex_of

    caption = f"Table {_name(name)}: {request.table.title}. {request.table.source}"
    with writing(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
        (request.out / "table.txt").write_text("\n".join(_text(request, cells)) + "\n")
        (request.out / "table.csv").write_text(csv_of(request.table, cells))
        (request.out / "table.tex").write_text(latex_of(request.table, cells, caption=caption))


def _json(table: PaperTable, cells: Mapping[tuple[int, int], Found]) -> dict[str, Any]:
    lines = [
        {"row": table.rows[row].name, "column": table.columns[column].title,
         "published": table.rows[row].published[column], **asdict(found)}
        for (row, column), found in sorted(cells.items())
    ]  # fmt: skip
    return {"title": table.title, "source": table.source, "notes": table.notes, "cells": lines}
