"""``wsoltrain reproduce``: a table of the papers, published figures beside those found here."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, require
from wsolpipe.keys.run_keys import DATASET, STORE
from wsoltrain.cli import fit
from wsoltrain.cli.command import make_command, read_recipe_words, store_of
from wsoltrain.cli.common_keys import TABLE
from wsoltrain.cli.sites import SITE_KEYS, site_of, split_site
from wsoltrain.cli.tables import align

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsoltrain.selection.found import Found
    from wsoltrain.selection.paper_tables import PaperTable
    from wsoltrain.selection.reproduction import Request

TRAINED = ("workers", "device", "save_every")
KEYS = (
    Key("table", TABLE, "table: 2.1, 4.2, I-3, II-1, molt-2, demo …"),
    Key("row", kinds.list_of(kinds.text("name of a row")), "only these rows", (), otherwise="all"),
    Key(
        "dataset", kinds.list_of(DATASET.kind), "only these data sets of the table; a YAML file of yours stands for "
        "the one that it names", (), otherwise="all",
    ),
    STORE,
    Key("out", kinds.file("folder"), "folder of runs and of the table", otherwise="reproduce/<table>"),
    Key("plan", kinds.flag(), "say what would be made, what is missing and how long it would take", False),
    Key("by", kinds.text("annotator"), "what chooses epochs and thresholds, as in fit", otherwise="that of the table"),
    Key(
        "threshold", kinds.choice("best", "validation"),
        "best: the best one of the scored images, as most papers; validation: the one that by= chose",
        otherwise="that of the table",
    ),
    Key("configurations", kinds.integer(1), "drawn for each search", otherwise="those of the table"),
    *(key for key in fit.KEYS if key.name in TRAINED),
    *SITE_KEYS,
)  # fmt: skip


@make_command(
    "reproduce",
    KEYS,
    example="wsoltrain reproduce table=demo store=wsol-store",
    json_help="Print cells, or the plan, as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Make a table of the papers: stages, trainings and scores, then published | here ± interval | difference.

    Called again, resume where it stopped. What cannot be made says which data or weights to put where; the rest is
    made. Further keys are given to every recipe, and the table says so. Writes table.txt, table.csv and table.tex.
    """
    from wsoltrain.cli.run_figures import FitCommand
    from wsoltrain.selection.reproduction import Reproduction

    rest, profile = split_site(words)
    values, changes = read_recipe_words(rest, KEYS)
    require(values, "wsoltrain reproduce", table="demo")
    request = _request(values, changes, profile, rest)
    work = Reproduction(request, FitCommand())
    if values["plan"]:
        _show_plan(work, as_json=as_json)
        return
    cells = work.run()
    _write(request, values["table"], cells)
    if as_json:
        click.echo(json.dumps(_json(request.table, cells) | {"out": str(request.out), "changes": changes}))
        return
    for line in _text(request, cells):
        click.echo(line)
    click.echo(f"{request.out}/table.txt, table.csv, table.tex")


def _request(
    values: dict[str, Any], changes: dict[str, Any], profile: tuple[str, ...], words: Sequence[str]
) -> Request:
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.selection.paper_tables import check_recipes, load_table
    from wsoltrain.selection.reproduction import Request

    table = load_table(values["table"])
    rows = [row.name for row in table.rows]
    for name in values["row"]:
        if name not in rows:
            raise ConfigError(unknown("row", name, rows))
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
        store=store_of(values),
        datasets=datasets,
        words=tuple(word for word in words if word.partition("=")[0] in TRAINED),
        changes=changes,
        by=values["by"] or table.by,
        threshold=values["threshold"] or table.threshold,
        configurations=values["configurations"] or table.configurations,
        device=choose_device(values["device"]),
        site=site_of(values, profile),
    )
    check_recipes((cell for _, _, cell in request.cells()), changes)
    return request


def _show_plan(work: Any, *, as_json: bool) -> None:
    from wsoltrain.selection.hours import make_plan, plan_json, total_hours

    plan = make_plan(work)
    if as_json:
        click.echo(json.dumps(plan_json(plan)))
        return
    table = [["", "state", "images", "epochs", "hours"]]
    for each in plan:
        hours = "" if each.hours is None else f"{each.hours:.2f}"
        count = ["" if number is None else f"{number:,}" for number in (each.rows, each.epochs)]
        table.append([each.what, each.state, *count, hours])
    for line in align(table):
        click.echo(line)
    for note in dict.fromkeys(f"{each.what}: {each.note}" for each in plan if each.note):
        click.echo(f"  {note}")
    click.echo(f"{total_hours(plan):,.1f} hours of one worker on {work.request.device}, as far as rates are known")


def _name(table: str) -> str:
    """Name of a table, or of the YAML file that holds it; 4.1 has no ending."""
    return Path(table).stem if table.endswith((".yaml", ".yml")) else table


def _text(request: Request, cells: dict[tuple[int, int], Found]) -> list[str]:
    from wsoltrain.selection.filled_table import notes_of, text_of, thresholds_of

    table = request.table
    given = ", ".join(f"{name}={value}" for name, value in request.changes.items())
    return [
        f"{table.title} ({table.source})",
        "published | here ± half of the 95 % interval | difference",
        *align(text_of(table, cells)),
        f"epochs chosen by {request.by}",
        *thresholds_of(table, cells),
        *([f"here with {given}, not as published"] if given else []),
        *(f"note: {note}" for note in notes_of(table, cells)),
    ]


def _write(request: Request, name: str, cells: dict[tuple[int, int], Found]) -> None:
    from wsolpipe.contract.writing import writing
    from wsoltrain.selection.filled_table import csv_of, latex_of

    caption = f"Table {_name(name)}: {request.table.title}. {request.table.source}"
    with writing(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
        (request.out / "table.txt").write_text("\n".join(_text(request, cells)) + "\n")
        (request.out / "table.csv").write_text(csv_of(request.table, cells))
        (request.out / "table.tex").write_text(latex_of(request.table, cells, caption=caption))


def _json(table: PaperTable, cells: dict[tuple[int, int], Found]) -> dict[str, Any]:
    lines = [
        {"row": table.rows[row].name, "column": table.columns[column].title,
         "published": table.rows[row].published[column], **asdict(found)}
        for (row, column), found in sorted(cells.items())
    ]  # fmt: skip
    return {"title": table.title, "source": table.source, "notes": table.notes, "cells": lines}
