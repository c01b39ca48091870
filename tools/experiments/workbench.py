"""How long Chromium takes to choose, filter, open and lasso among many rows of a report, in milliseconds.

    python tools/experiments/workbench.py [rows=50000]

The rows' facts are drawn from a seed, and 24 of them have cards: what the script of a page handles is the same as of a
report of that many rows, which `report_page.py` makes whole. Each figure is the least of nine and, in brackets, their
median.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from chromium import Browser
from wsolpipe.pages.cards import Card
from wsolpipe.pages.document import Gallery, compose_page, facts_of, render_gallery, write_page

TAKES = """(() => {{ const found = []; for (let n = 0; n < 9; n++) {{ {before};
    const began = performance.now(); {act}; document.body.offsetHeight; found.push(performance.now() - began); }}
    found.sort((a, b) => a - b); return `${{found[0].toFixed(0)}} (${{found[4].toFixed(0)}})`; }})()"""
SET = (
    "((id, value) => { const part = document.getElementById(id); part.value = value;"
    " part.dispatchEvent(new Event('input', {bubbles: true})) })"
)
ACTS = {
    "filter by words": ("", SET + "('words', n % 2 ? 'class-7' : '')"),
    "filter by IoU": ("", SET + "('iou-from', n % 2 ? '50' : '')"),
    "sort": ("", SET + "('sort', n % 2 ? 'iou' : 'score')"),
    "choose all found": (
        "document.getElementById('choose-none').click()", "document.getElementById('choose-found').click()",
    ),
    "large view": (
        "const scene = document.querySelectorAll('.cards .card .scene')[n]",
        "scene.dispatchEvent(new MouseEvent('click', {bubbles: true}))",
    ),
}  # fmt: skip
EVENT = "canvas.dispatchEvent(new PointerEvent('{kind}', {{clientX: {x}, clientY: {y}, pointerId: 1, bubbles: true}}))"


def lasso() -> tuple[str, str]:
    """A lasso around a third of the scatter: the points of its line, and its end, which is timed."""
    line = [
        (0.1, 0.1),
        (0.5, 0.05),
        (0.9, 0.1),
        (0.9, 0.5),
        (0.9, 0.9),
        (0.5, 0.95),
        (0.1, 0.9),
        (0.05, 0.5),
        (0.1, 0.2),
        (0.1, 0.1),
    ]
    find = "const canvas = document.querySelector('canvas'), at = canvas.getBoundingClientRect();"
    find += "canvas.setPointerCapture = () => 0;"
    place = [(f"at.x + {x} * at.width", f"at.y + {y} * at.height") for x, y in line]
    moves = "".join(EVENT.format(kind="pointermove", x=x, y=y) + ";" for x, y in place)
    down = EVENT.format(kind="pointerdown", x=place[0][0], y=place[0][1])
    return f"{find} {down}; {moves}", EVENT.format(kind="pointerup", x=place[-1][0], y=place[-1][1])


def main() -> None:
    """Print the figures as JSON."""
    rows = int(dict(word.split("=", 1) for word in sys.argv[1:]).get("rows", "50000"))
    rng = np.random.default_rng(0)
    values = rng.random((rows, 3))
    cards = [
        Card(
            row, "random", f"images/class-{row % 200}/{row:06d}.jpg", 120, 90,
            classes=[(row % 200, f"class-{row % 200}")],
            iou=float(values[row, 0]), score=float(values[row, 1]), agreement=float(values[row, 2]),
        )
        for row in range(rows)
    ]  # fmt: skip
    gallery = Gallery(
        cards[:24], [], {"random": "random"}, listed=[facts_of(card, card.row // 250) for card in cards], folder="rows"
    )
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        write_page(page, compose_page("many rows", [render_gallery(gallery)]))
        browser = Browser(Path(folder) / "profile")
        found = {"rows": rows, "page MiB": round(page.stat().st_size / 2**20, 1)}
        try:
            for view in ("cards", "list"):
                browser.open(page, f"view=view-{view}")
                for name, (before, act) in ACTS.items():
                    if view == "cards" or name != "large view":
                        found[f"{name}, {view}"] = browser.run(TAKES.format(before=before, act=act))
            browser.open(page, "view=view-scatter")
            browser.wait("document.querySelector('canvas').getBoundingClientRect().height > 0")
            before, act = lasso()
            found["lasso"] = browser.run(TAKES.format(before=before, act=act))
            found["chosen by it"] = int(browser.run("document.getElementById('chosen-count').textContent"))
        finally:
            browser.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
