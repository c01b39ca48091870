"""Cost of a report of many rows beside one of a tenth, row by row, and how fast its list answers in a browser.

Stores of small drawn images with three maps, up to four boxes and a true box a row, so that every map is scored; time
is the processor's, memory that of the report's own process. The list of all rows
is opened in a headless Chromium where there is one: milliseconds from the address to its first lines, of a word typed
into its filter, and of a new order, each until the browser has drawn it.

    python tools/bench/report_page.py [--rows 5000]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from figures import Figure, report
from prepare import read_options

from chromium import PROGRAM, Browser
from stores import build_store, write_table

FEW = 500
LIMIT = 1.2
"""Cost of a row among many, in that of a row among few."""
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def main() -> int:
    """Measure and print; 1 if a row among many costs more than `LIMIT` times one among few."""
    options = read_options(__doc__, rows=5000)
    with tempfile.TemporaryDirectory() as scratch:
        number = max(1, min(FEW, options.rows // 10))
        few, many = write(Path(scratch, "few"), number), write(Path(scratch, "many"), options.rows)
        cost = many["seconds"] / options.rows / (few["seconds"] / number)
        figures = [
            Figure(name=f"a row among {options.rows:,} / among {number}, cost", value=cost, limit=LIMIT, at_most=True),
            Figure(name="all rows", value=many["seconds"], unit="s"),
            Figure(name="the report and its rows", value=many["MiB"], unit="MiB"),
            Figure(name="the report and its rows", value=many["files"], unit="files"),
            Figure(name="the report itself", value=many["MiB of the report itself"], unit="MiB"),
            Figure(name="memory", value=many["memory"], unit="MiB"),
        ]
        found = browse(many["report"], Path(scratch, "profile"), options.rows) if PROGRAM else {}
        for act in ("open", "filter", "sort"):
            reason = "" if found else "no Chromium here"
            figures.append(Figure(name=f"{act} the list of all rows", value=found.get(act), unit="ms", reason=reason))
    return report(figures)


def write(folder: Path, rows: int) -> dict[str, Any]:
    """Write the report of a new store; what it cost and how large it is."""
    store = build_store(folder, rows=rows, shard_rows=256, sizes=(90, 128), image_format="JPEG")
    (truth,) = folder.rglob("annotations.parquet")
    edges = dict(zip(("x0", "y0", "x1", "y1"), store.objects.astype(float).T, strict=True))
    write_table(truth.parent, truth.name, pa.table({"row": range(rows), "kind": ["box"] * rows, **edges}))
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    page = folder / "page" / "report.html"
    words = [f"dataset={folder}/tiny.yaml", f"store={folder}/store", "split=train", "stage=proposals"]
    command = [sys.executable, "-m", "wsolpipe.cli.main", "report", *words, f"n={rows}", f"out={page}"]
    began = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ended = os.times()
    files = [path for path in page.parent.rglob("*") if path.is_file()]
    return {
        "report": page,
        "seconds": sum(ended[2:4]) - sum(began[2:4]),  # of children
        "MiB": sum(path.stat().st_size for path in files) / 2**20,
        "MiB of the report itself": page.stat().st_size / 2**20,
        "files": len(files),
        "memory": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10,  # of the largest child so far
    }


def browse(page: Path, profile: Path, rows: int) -> dict[str, float]:
    """Milliseconds that the list of all rows takes to open, to filter and to sort."""
    browser = Browser(profile)
    try:
        began = time.perf_counter()
        browser.open(page, "view=view-list")
        browser.run(DRAWN)
        opened = 1e3 * (time.perf_counter() - began)
        found = browser.run("document.getElementById('found').value")
        if found != f"{rows} of {rows} rows":
            msg = f"{page} lists {found}, not {rows} rows"
            raise SystemExit(msg)
        filtered = change(browser, "words", f"image{rows - 1:05d}")
        change(browser, "words", "")
        return {"open": opened, "filter": filtered, "sort": change(browser, "sort", "iou")}
    finally:
        browser.close()


def change(browser: Browser, name: str, value: str) -> float:
    """Milliseconds from a new value of a field to the list as it is then drawn."""
    script = (
        f"(part => {{ const began = performance.now(); part.value = '{value}';"
        f" part.dispatchEvent(new Event('input', {{bubbles: true}}));"
        f" return {DRAWN}.then(ended => ended - began); }})(document.getElementById('{name}'))"
    )
    return float(browser.run(script))


if __name__ == "__main__":
    sys.exit(main())
