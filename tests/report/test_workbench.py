"""Choosing and correcting in the page: by mouse and keyboard, undone, kept over a reload, and taken into the store."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from chromium import PROGRAM, Browser
from wsolpipe.cli.main import cli
from wsolpipe.contract.reader import open_store
from wsolpipe.engine.config import RunConfig
from wsolpipe.report.material import gather
from wsolpipe.report.page import write_report

pytestmark = pytest.mark.browser
ROWS, WIDE, HIGH = 8, 120, 90
STATE = "document.getElementById('large-state').value"
HUMAN = (
    "[...document.querySelectorAll('.large-card .human .line')]"
    ".map(part => ['x', 'y', 'width', 'height'].map(edge => +part.getAttribute(edge)))"
)
CHOSEN = "[...document.querySelectorAll('.cards .is-chosen')].map(card => +card.dataset.row)"


def call(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words), standalone_mode=False)
    assert end.value.code == 0


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A data set, a store in which people drew boxes of three rows, the report of that, and a browser."""
    if not PROGRAM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    folder = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    for row in range(ROWS):
        path = folder / "images" / "ab"[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (HIGH, WIDE, 3), dtype=np.uint8)).save(path)
    (folder / "d.yaml").write_text(yaml.safe_dump({"name": "d", "layout": "folder", "root": "images", "split": "val"}))
    names = [f"{'ab'[row % 2]}/{row}.png" for row in sorted(range(ROWS), key=lambda row: (row % 2, row))]
    drawn = [
        {"image_id": name, "boxes": [{"box": [10, 10, 50, 60], "label": row % 2, "score": 0.5 + row / 10}]}
        for row, name in enumerate(names[:3])
    ]
    (folder / "drawn.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in drawn))
    place = [f"dataset={folder / 'd.yaml'}", f"store={folder / 'store'}", "split=val"]
    call("import", "format=jsonl", f"in={folder / 'drawn.jsonl'}", *place)
    config = RunConfig(dataset=str(folder / "d.yaml"), store=str(folder / "store"), split=("val",))
    write_report(gather(config), folder / "report.html")
    browser = Browser(folder / "profile")
    (folder / "saved").mkdir()
    browser.save_into(folder / "saved")
    yield SimpleNamespace(folder=folder, page=folder / "report.html", browser=browser, place=place)
    browser.close()


@pytest.fixture
def fresh(bench):
    """The page in a browser that keeps nothing of an earlier test."""
    bench.browser.open(bench.page)
    bench.browser.run("localStorage.clear()")
    bench.browser.open(bench.page)
    return bench.browser


def view(bench, key=None):
    return open_store(str(bench.folder / "store"))["d"]["val"].stage("human_boxes", key)


def saved(bench, name):
    """The text of a file that the page saved."""
    path, end = bench.folder / "saved" / name, time.monotonic() + 30
    while not path.exists():
        bench.browser.run("1")
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.02)
    text = path.read_text()
    path.unlink()
    return text


def click(browser, name):
    browser.run(f"document.getElementById('{name}').click()")


def on_screen(browser, x, y):
    """Place in the window of a place of the large image."""
    point = f"new DOMPoint({x}, {y}).matrixTransform(document.querySelector('.large-card .scene').getScreenCTM())"
    return tuple(browser.run(f"(at => [at.x, at.y])({point})"))


def test_a_corrected_box_changes_exactly_its_row_in_the_store(bench, fresh):
    before = view(bench)
    fresh.open(bench.page, "large=r4")
    fresh.press("e")
    fresh.drag(on_screen(fresh, 20, 30), on_screen(fresh, 60, 50), on_screen(fresh, 80, 70))  # draws
    (box,) = fresh.run(HUMAN)
    np.testing.assert_allclose(box, [20, 30, 60, 40], atol=0.6)
    fresh.drag(on_screen(fresh, 50, 50), on_screen(fresh, 55, 52), on_screen(fresh, 60, 55))  # moves
    fresh.drag(
        on_screen(fresh, *np.add(fresh.run(HUMAN)[0][:2], 0)), on_screen(fresh, 20, 20), on_screen(fresh, 16, 18)
    )
    (box,) = fresh.run(HUMAN)
    np.testing.assert_allclose(box, [16, 18, 74, 57], atol=1.5)  # its corner was drawn out
    fresh.run(
        "(part => { part.value = '0'; part.dispatchEvent(new Event('change')) })(document.getElementById('box-class'))"
    )
    assert fresh.run(STATE).endswith("row 4: corrected")
    click(fresh, "save-corrections")
    (line,) = [json.loads(text) for text in saved(bench, "corrections-d-val.jsonl").splitlines()]
    (bench.folder / "saved.jsonl").write_text(json.dumps(line) + "\n")
    call(
        "import", "format=jsonl", f"in={bench.folder / 'saved.jsonl'}", *bench.place, "over=human_boxes", "drawn=listed"
    )
    after = view(bench)
    assert after.key != before.key
    x, y, w, h = box
    np.testing.assert_allclose(after["boxes"][4, 0], [x, y, x + w, y + h], atol=0.06)
    assert after["labels"][4, 0] == 0
    assert np.flatnonzero(after["drawn"][:] != before["drawn"][:]).tolist() == [4]
    others = [row for row in range(ROWS) if row != 4]
    np.testing.assert_array_equal(after["boxes"][:][others], before["boxes"][:][others])
    np.testing.assert_array_equal(after["labels"][:][others], before["labels"][:][others])
    assert fresh.errors == []


def test_everything_can_be_done_by_keys_undone_and_survives_a_reload(bench, fresh):
    fresh.press("j")
    fresh.press("o")
    assert fresh.run("document.querySelector('dialog').open")
    row = int(fresh.run("document.querySelector('.large-card .card').dataset.row"))
    fresh.press("n")
    assert fresh.run(HUMAN) == [[30, 22.5, 60, 45]]
    fresh.press("ArrowRight")
    fresh.press("ArrowDown", modifiers=8)
    assert fresh.run(HUMAN) == [[31, 22.5, 60, 46]]
    fresh.press("n")
    fresh.press(".")
    fresh.press("d")
    assert fresh.run(HUMAN) == [[30, 22.5, 60, 45]]
    fresh.open(bench.page, f"large=r{row}")  # in the middle of the work
    assert fresh.run(HUMAN) == [[30, 22.5, 60, 45]]
    fresh.press("0")
    assert fresh.run(STATE).endswith(": no object")
    fresh.press("u")
    assert fresh.run(STATE).endswith(": unclear")
    fresh.press("z")
    assert fresh.run(STATE).endswith(": no object")
    fresh.press("z")
    assert fresh.run(HUMAN) == [[30, 22.5, 60, 45]]
    fresh.press("y")
    assert fresh.run(STATE).endswith(": no object")
    fresh.press("r")
    assert fresh.run(STATE).endswith(f"row {row}")
    fresh.press("k")
    assert fresh.run("document.querySelector('.large-card .card').dataset.row") == str(row)  # the first one
    fresh.press("j")
    assert fresh.run("document.querySelector('.large-card .card').dataset.row") != str(row)
    fresh.press("Escape")
    assert not fresh.run("document.querySelector('dialog').open")
    assert fresh.errors == []


def test_its_own_box_is_taken_as_right_and_an_unclear_row_is_not_taken_in(bench, fresh):
    fresh.open(bench.page, "large=r0")
    fresh.press("a")
    assert fresh.run(HUMAN) == [[10, 10, 40, 50]]
    fresh.open(bench.page, "large=r6")
    fresh.press("u")
    click(fresh, "save-corrections")
    lines = [json.loads(text) for text in saved(bench, "corrections-d-val.jsonl").splitlines()]
    assert [(line["row"], len(line["boxes"]), line.get("unclear", False)) for line in lines] == [
        (0, 1, False),
        (6, 0, True),
    ]
    (bench.folder / "unclear.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    call("import", "format=jsonl", f"in={bench.folder / 'unclear.jsonl'}", *bench.place, "drawn=listed")
    assert np.flatnonzero(view(bench)["drawn"][:]).tolist() == [0]


def test_two_tabs_lose_nothing(bench, fresh):
    fresh.open(bench.page, "large=r1")
    first = fresh.session
    fresh.tab()
    fresh.open(bench.page, "large=r2")
    fresh.press("n")
    fresh.press("Escape")
    fresh.press("Escape")
    fresh.press("x")
    second, fresh.session = fresh.session, first
    fresh.press("n")
    fresh.press("x")
    for session in (first, second):
        fresh.session = session
        fresh.wait("document.getElementById('saved').value === '2 corrected'")
        fresh.wait("document.getElementById('chosen-count').textContent === '2'")
    fresh.session = first
    fresh.open(bench.page)
    assert sorted(fresh.run(CHOSEN)) == [1, 2]
    assert len(fresh.run("Object.keys(localStorage).filter(key => key.includes('/edit/'))")) == 2


def test_rows_are_chosen_tagged_filtered_and_saved_as_a_list(bench, fresh):
    fresh.run("document.querySelectorAll('.card .chosen')[0].click()")
    event = "new MouseEvent('click', {bubbles: true, shiftKey: true})"
    fresh.run(f"document.querySelectorAll('.card .chosen')[3].dispatchEvent({event})")
    assert len(fresh.run(CHOSEN)) == 4
    fresh.run("document.getElementById('tag').value = '<b>odd'")
    click(fresh, "tag-on")
    click(fresh, "choose-none")
    assert fresh.run(CHOSEN) == []
    fresh.press("z")
    assert len(fresh.run(CHOSEN)) == 4
    click(fresh, "save-rows")
    listed = json.loads(saved(bench, "rows-d-val.json"))
    assert (listed["dataset"], listed["split"]) == ("d", "val")
    ids = view(bench).index().table(["image_id"]).column("image_id").to_pylist()
    assert [each["image_id"] for each in listed["rows"]] == [ids[each["row"]] for each in listed["rows"]]
    assert [each["row"] for each in listed["rows"]] == sorted(fresh.run(CHOSEN))
    assert {tuple(each["tags"]) for each in listed["rows"]} == {("<b>odd",)}
    fresh.open(bench.page, "marked=chosen")
    assert fresh.run("document.getElementById('found').value") == "4 of 8 rows"
    fresh.open(bench.page)
    fresh.run("(part => { part.value = 'tag <b>odd'; part.dispatchEvent(new Event('input', {bubbles: true})) })"
              "(document.getElementById('marked'))")  # fmt: skip
    assert fresh.run("document.getElementById('found').value") == "4 of 8 rows"
    assert fresh.errors == []


def test_a_lasso_chooses_the_points_within_it(bench, fresh):
    fresh.open(bench.page, "view=view-scatter")
    fresh.wait("document.querySelector('canvas').getBoundingClientRect().height > 0")
    fresh.run("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    x, y, wide, high = fresh.run(
        "(at => [at.x, at.y, at.width, at.height])(document.querySelector('canvas').getBoundingClientRect())"
    )
    around = [(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5), (0, 0.1), (0, 0)]
    fresh.drag(*[(x + 1 + a * (wide - 2), y + 1 + b * (high - 2)) for a, b in around])
    assert fresh.run("document.getElementById('chosen-count').textContent") == "3"  # the rows that have a score
    fresh.press("z")
    assert fresh.run("document.getElementById('chosen-count').textContent") == "0"
    assert fresh.errors == []
