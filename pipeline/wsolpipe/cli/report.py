"""``wsolpipe report``."""

from __future__ import annotations

from dataclasses import replace

from wsolpipe.cli.command import configure, make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, shown
from wsolpipe.keys.key import Key
from wsolpipe.keys.run_keys import SPLIT

SHOWN_SPLIT = replace(SPLIT, meaning="split to show", otherwise="test, else val, else the one with most results")
KEYS = (
    Key(
        "n",
        kinds.integer(0),
        "rows to show; seed= draws the random part; over 500 lie on pages beside the report",
        100,
        unit="rows",
    ),
    Key(
        "beside",
        kinds.text("STAGE, STAGE:KEY or beginning of a key"),
        "result to compare with, row by row",
        otherwise="none",
    ),
    Key(
        "out", kinds.file("file that ends in .html", ending=".html"), "file to write",
        otherwise="<store>/<dataset>/report.html",
    ),
    Key(
        "plots", kinds.file("folder"), "folder to write every chart of the page to: SVG, and PDF and PNG for papers",
        otherwise="none",
    ),
)  # fmt: skip


@make_command("report", keys=KEYS, listed=("dataset", "store", SHOWN_SPLIT, "stage", "seed"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Write one HTML page about a split: figures, charts, rows with maps and boxes, quarantined rows."""
    from pathlib import Path

    from wsolpipe.contract.errors import ConfigError
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
