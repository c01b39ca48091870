"""``wsolpipe report`` and ``serve``."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.cli.command import configure, make_command
from wsolpipe.contract.errors import ConfigError, WsolError
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, shown
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import SPLIT, RunConfig

if TYPE_CHECKING:
    from wsolpipe.report.material import Material
    from wsolpipe.report.page import Corrections, ServedReport


SHOWN_SPLIT = replace(SPLIT, meaning="split to show", otherwise="test, else val, else the one with most results")


class _Keys:
    """Keys of ``wsolpipe report``.

    Attributes
    ----------
    n
        rows to show; seed= draws the random part; over 500 lie on pages beside the report
    beside
        result to compare with, row by row
    out
        file to write
    plots
        folder to write every chart of the page to: SVG, and PDF and PNG for papers
    """

    n = Key(kinds.integer(0), 100, unit="rows")
    beside = Key(kinds.text("STAGE, STAGE:KEY or beginning of a key"), otherwise="none")
    out = Key(kinds.file("file that ends in .html", ending=".html"), otherwise="<store>/<dataset>/report.html")
    plots = Key(kinds.file("folder"), otherwise="none")


KEYS = keys_of_class(_Keys)


@make_command("report", keys=KEYS, listed=("dataset", "store", SHOWN_SPLIT, "stage", "seed"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Write one HTML page about a split: figures, charts, rows with maps and boxes, quarantined rows."""
    from wsolpipe.pages.charts import save_plots
    from wsolpipe.report.material import gather
    from wsolpipe.report.page import page_plots, write_report

    config, own = configure(words, KEYS)
    if not config.dataset:
        msg = "no data set named"
        raise ConfigError(msg, hint="add dataset=NAME, as in wsolpipe report dataset=demo")
    material = gather(config, n=own["n"], beside=own["beside"] or "")
    written = write_report(material, Path(own["out"]) if own["out"] else None)
    drawn = save_plots(Path(own["plots"]), page_plots(material)) if own["plots"] else []
    if as_json:
        print_json({**written.to_json(), **({"plots": [str(path) for path in drawn]} if own["plots"] else {})})
    else:
        pages = f", {written.pages} pages of rows beside it" if written.pages else ""
        size = f"{written.bytes / 2**20:.1f} MiB"
        print(f"{written.path}  ({size}, {written.shown:,} of {written.rows:,} rows shown{pages})")
        if written.replaced:
            print(f"  replaced the report of {shown(written.replaced)}; out=FILE.html keeps both")
        for note in written.notes:
            print(f"  note: {shown(note)}")
        for path in drawn:
            print(path)
    return 0


class _ServeKeys:
    """Keys that only ``wsolpipe serve`` has.

    Attributes
    ----------
    port
        port on 127.0.0.1
    out
        file to keep corrections in, as import format=jsonl reads it
    """

    port = Key(kinds.integer(0, 65535), 0, otherwise="any that is free")
    out = Key(kinds.file(), otherwise="corrections-<dataset>-<split>.jsonl")


SERVE_KEYS = (*(key for key in KEYS if key.name in {"n", "beside"}), *keys_of_class(_ServeKeys))
#: Seconds without a correction after which those before are taken into the store.
QUIET = 2.0


@make_command("serve", keys=SERVE_KEYS, listed=("dataset", "store", SHOWN_SPLIT, "stage", "root", "seed"))
def serve_command(words: tuple[str, ...], as_json: bool) -> int:
    """Show the report at an address of this machine, and take into the store what is corrected in it.

    Nobody else can reach it: it listens on 127.0.0.1 only, and needs the token of the printed address. Control-C ends
    it.
    """
    from wsolpipe.pages.server import PageServer
    from wsolpipe.report.material import gather
    from wsolpipe.report.page import Corrections, ServedReport

    config, own = configure(words, SERVE_KEYS)
    if not config.dataset:
        msg = "no data set named"
        raise ConfigError(msg, hint="add dataset=NAME, as in wsolpipe serve dataset=demo")
    material = gather(config, n=own["n"], beside=own["beside"] or "")
    material.require_images()
    config = replace(config, split=(material.split,))
    path = Path(own["out"] or f"corrections-{material.dataset}-{material.split}.jsonl").absolute()
    ids = frozenset(material.index.table(["image_id"]).column("image_id").to_pylist())
    corrections = Corrections(path, ids)
    report = ServedReport(lambda: gather(config, n=own["n"], beside=own["beside"] or ""))
    answers = {"/corrections": corrections.take, "/progress": lambda _: report.progress(corrections)}
    server = PageServer(report.find, answers, own["port"])
    report.token = server.token
    if as_json:
        print_json({"address": server.address, "corrections": str(path)})
    else:
        print(f"{server.address}\ncorrections are kept in {shown(str(path))}; Control-C ends", flush=True)
    try:
        _keep_up(config, material, corrections, report)
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
        report.close()
    if corrections.changed.is_set():
        _take_in(config, material, corrections, report)
    return 0


def _keep_up(config: RunConfig, material: Material, corrections: Corrections, report: ServedReport) -> None:
    """Take corrections into the store whenever none came for a while."""
    while True:
        corrections.changed.wait()
        before = dict(corrections.lines)
        threading.Event().wait(QUIET)
        if corrections.lines == before:
            corrections.changed.clear()
            _take_in(config, material, corrections, report)


def _take_in(config: RunConfig, material: Material, corrections: Corrections, report: ServedReport) -> None:
    """Make human_boxes of all corrections; what goes wrong is shown on the page, and the file keeps them."""
    from wsolpipe.share.drawn_boxes import take_file

    over = None if material.over is None else f"{material.over.stage}:{material.over.key}"
    given = {"format": "jsonl", "in": str(corrections.path), "drawn": "listed", "out": None, "over": over}
    plain = replace(config, stage=(), params={}, limit=None, rows=None)
    try:
        taken, outcome = take_file(plain, given)
        report.note = (
            outcome.verdict if outcome.code else f"human_boxes {taken['key']} holds {taken['rows_drawn']} rows"
        )
    except WsolError as error:
        report.note = f"not in the store yet: {error.message}"
    print(shown(report.note), flush=True)
