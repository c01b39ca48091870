"""The page in a real browser: it lays out and paints, sorts, filters, cuts as the metrics do, and asks for nothing."""

from __future__ import annotations

import numpy as np
import pytest

from chromium import PROGRAM, Browser
from wsolpipe.evaluate.frame import Frame
from wsolpipe.metrics import largest_box
from wsolpipe.pages.cuts import HALF_OPEN
from wsolpipe.report import row_pages
from wsolpipe.report.material import gather
from wsolpipe.report.quality import cut_ious
from wsolpipe.report.write import write_report

pytestmark = pytest.mark.browser
TOP = (255, 90, 46)
OBJECT = (230, 30, 30)
SHOWN = "[...document.querySelectorAll('.card')].filter(card => !card.hidden)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not PROGRAM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def page(example, tmp_path):
    out = tmp_path / "report.html"
    write_report(gather(example.config, beside="cls_maps"), out)
    return out


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels.astype(int) - colour).max(-1) < 12).sum())


def test_page_paints_in_both_schemes_and_its_switches_need_no_script(browser, page):
    for dark, script in ((False, True), (True, True), (False, False)):
        browser.open(page, "" if script else "gallery", size=(1280, 1600), dark=dark, script=script)
        top = browser.run("Math.round(document.querySelector('#gallery').getBoundingClientRect().top + scrollY)")
        browser.run(f"scrollTo(0, {top})")  # cards out of sight are not painted
        for _ in range(40):  # photographs are decoded while the page is already there
            pixels = browser.shoot((0, top, 1280, 1400))
            if count(pixels, OBJECT) > 3000:
                break
        assert pixels[:20, :15].mean() < 40 if dark else pixels[:20, :15].mean() > 230
        assert len(np.unique(pixels.astype(np.int64) @ (65536, 256, 1))) > 2000  # photographs, not a blank page
        assert count(pixels, TOP) > 1000  # the outlines of the top boxes
        assert count(pixels, OBJECT) > 3000  # the objects that were drawn
        browser.run("document.getElementById('layer-top').click()")
        assert count(browser.shoot((0, top, 1280, 1400)), TOP) < count(pixels, TOP) / 10
    assert browser.run("getComputedStyle(document.querySelector('.browse')).display") == "none"


def test_rows_are_sorted_and_filtered(browser, page, example):
    browser.open(page)
    quality = gather(example.config).quality
    rows = f"{SHOWN}.map(card => +card.dataset.row)"

    def put(name, value):
        kind = "change" if name == "sort" else "input"
        script = f"(part => {{ part.value = '{value}'; part.dispatchEvent(new Event('{kind}', {{bubbles: true}})) }})"
        browser.run(f"{script}(document.getElementById('{name}'))")

    put("sort", "iou")
    ordered = [row for row in browser.run(rows) if not np.isnan(quality.ious["top1"][row])]
    assert ordered == sorted(ordered, key=lambda row: -round(quality.ious["top1"][row], 4))
    put("sort", "difference")
    found = [float(value) for value in browser.run(f"{SHOWN}.map(card => card.dataset.difference)") if value]
    assert found == sorted(found, reverse=True)
    assert len(found) == quality.scored.sum()
    put("sort", "row")
    put("iou-from", "60")
    wanted = [row for row in range(39, -1, -1) if quality.ious["top1"][row] >= 0.6]
    assert browser.run(rows) == wanted
    assert browser.run("document.getElementById('found').value") == f"{len(wanted)} of 40 rows"
    put("iou-from", "")
    put("class", "class 2")
    assert {row % 5 for row in browser.run(rows)} == {2}
    put("class", "")
    put("status", "quarantined")
    assert browser.run(rows) == [7, 3]
    put("status", "")
    put("words", "BROKEN image00003")
    assert browser.run(rows) == [3]
    browser.open(page, "words=class+4&sort=row&down=false")  # a link brings a view back
    assert browser.run(rows) == list(range(4, 40, 5))
    assert browser.errors == []


def test_slider_draws_the_boxes_of_the_metrics(browser, page, example):
    material = gather(example.config)
    levels = example.tiny.maps.astype(np.float32) / np.float32(255) * 4 - 1
    for slot, tau in ((0, 0.25), (2, 0.612)):
        browser.open(page)
        script = f"""(() => {{
          document.getElementById('cut-slot').value = '{slot}';
          const slider = document.getElementById('tau');
          slider.value = {round(1000 * tau)};
          slider.dispatchEvent(new Event('input', {{bubbles: true}}));
          return {SHOWN}.filter(card => card.dataset.box).map(card => [+card.dataset.row,
            card.dataset.box.split(',').map(Number), card.dataset.cut]);
        }})()"""
        found = browser.run(script)
        assert len(found) == 38
        for row, box, _ in found:
            frame = Frame().map(levels[row, slot], "")
            assert box == largest_box(frame, tau, convention=HALF_OPEN).tolist()
        if slot == 0:
            counted = {row: float(iou) for row, _, iou in found if iou}
            wanted = cut_ious(material.quality.maps, tau, 40)
            assert counted == pytest.approx({row: wanted[row] for row in counted}, abs=1e-6)
            assert len(counted) == material.quality.scored.sum()
            told = browser.run("document.getElementById('cut-figures').value")
            assert f"MaxBoxAcc {material.quality.maps.result(tau)['MaxBoxAcc']:.1f}," in told


def test_keys_move_between_rows_and_change_layers(browser, page):
    browser.open(page)
    browser.press("j")
    first = browser.run("document.activeElement.id")
    browser.press("j")
    second = browser.run("document.activeElement.id")
    assert first != second
    browser.press("k")
    assert browser.run("document.activeElement.id") == first
    browser.press("m")
    assert browser.run(f"document.querySelector('#{first} .maps input:checked').className") == "pick-0"
    browser.press("t")
    assert not browser.run("document.getElementById('layer-truth').checked")
    before = browser.run("+document.getElementById('tau').value")
    browser.press("]")
    assert browser.run("+document.getElementById('tau').value") == before + 10
    browser.press("/")
    browser.press("t")  # typed into the search, not a key
    assert browser.run("document.getElementById('words').value") == "t"
    assert not browser.run("document.getElementById('layer-truth').checked")


def test_hostile_names_stay_text_and_nothing_is_asked_for(browser, make_example, evil, tmp_path):
    example = make_example(rows=24, quarantined={3: evil})
    example.change_index(image_id=[f"{evil}{row}" for row in range(24)], reason=["", "", "", evil, *[""] * 20])
    example.change_manifest(class_names={str(label): evil for label in range(5)}, title=evil, quarantined=1)
    out = tmp_path / "evil.html"
    write_report(gather(example.config), out)
    browser.open(out)
    script = "document.getElementById('words').value = '<script>alert';"
    browser.run(f"{script} document.querySelector('.browse').dispatchEvent(new Event('input'))")
    assert browser.run(f"{SHOWN}.length") == 24
    assert browser.run("document.querySelectorAll('.card img, main script:not([type])').length") == 0
    assert browser.run("document.querySelector('#class').options[1].text") == evil.strip()
    assert browser.errors == []
    assert [address.split("?")[0] for address in browser.requests] == [out.as_uri()]


def test_all_rows_of_many_pages_are_listed_and_lead_to_them(browser, example, tmp_path, monkeypatch):
    monkeypatch.setattr(row_pages, "ONE_PAGE", 30)
    monkeypatch.setattr(row_pages, "ROWS", 16)
    out = tmp_path / "many.html"
    write_report(gather(example.config, n=600), out)
    browser.open(out)
    assert browser.run("document.getElementById('all-found').value") == "40 of 40 rows"
    assert 0 < browser.run("document.querySelectorAll('.lines a').length") < 40  # those in sight alone
    script = "document.getElementById('all-words').value = 'image00039';"
    script += "document.querySelector('.all-rows form').dispatchEvent(new Event('input'));"
    assert browser.run(f"{script} document.querySelectorAll('.lines a').length") == 1
    address = browser.run("document.querySelector('.lines a').href")
    assert address == (tmp_path / "many-rows" / "0002.html").as_uri() + "#r39"
    browser.open(tmp_path / "many-rows" / "0002.html", "r39")
    assert browser.run(f"{SHOWN}.map(card => +card.dataset.row)") == list(range(32, 40))
    assert browser.errors == []


def test_nothing_is_wider_than_a_phone(browser, page):
    browser.open(page, size=(390, 844), phone=True)
    wide = "[...document.querySelectorAll('main *')].filter(part => part.getBoundingClientRect().right > 390)"
    named = ".filter(part => !part.closest('.scroll')).slice(0, 5).map(part => part.tagName + part.className)"
    assert browser.run("document.documentElement.scrollWidth") <= 390, browser.run(wide + named)
