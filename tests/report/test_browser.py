"""The page in a real browser: it lays out and paints, sorts, filters, cuts as the metrics do, and asks for nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from chromium import PROGRAM, Browser
from stores import write_stage
from wsolpipe.contract.schema import ArraySpec
from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_scores import KeptIous, score_maps
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.metrics import largest_box
from wsolpipe.pages.cards import HALF_OPEN
from wsolpipe.report import material, row_cards
from wsolpipe.report.material import gather
from wsolpipe.report.page import write_report
from wsolpipe.report.quality import cut_ious

pytestmark = pytest.mark.browser
TOP = (255, 90, 46)
OBJECT = (230, 30, 30)
SHOWN = "[...document.querySelectorAll('.card')].filter(card => !card.hidden)"
LINES = "[...document.querySelectorAll('.lines a span:first-child')].map(part => +part.textContent)"
FOUND = "document.getElementById('found').value"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not PROGRAM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(kept_example, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(gather(kept_example.config, beside="cls_maps"), out)
    return out


@pytest.fixture(scope="module")
def write_many(kept_example, tmp_path_factory):
    """A report whose rows lie on pages beside it."""
    out = tmp_path_factory.mktemp("many") / "many.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_cards, "ONE_PAGE", 30)
        patch.setattr(row_cards, "ROWS", 16)
        patch.setattr(material, "DEFAULT_SAMPLE", 8)
        write_report(gather(kept_example.config, n=600), out)
    return out


def put(browser, name, value):
    """Give a control a value, as a person does."""
    script = f"(part => {{ part.value = '{value}'; part.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
    browser.run(f"{script}(document.getElementById('{name}'))")


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


def test_rows_are_sorted_and_filtered(browser, page, kept_example):
    browser.open(page)
    quality = gather(kept_example.config).quality
    rows = f"{SHOWN}.map(card => +card.dataset.row)"

    put(browser, "sort", "iou")
    ordered = [row for row in browser.run(rows) if not np.isnan(quality.ious["top1"][row])]
    assert ordered == sorted(ordered, key=lambda row: -round(quality.ious["top1"][row], 4))
    put(browser, "sort", "difference")
    rival = gather(kept_example.config, beside="cls_maps").rival_quality
    apart = quality.ious["top1"] - rival.ious["cut"]
    found = [round(apart[row], 4) for row in browser.run(rows) if not np.isnan(apart[row])]
    assert found == sorted(found, reverse=True)
    assert len(found) == quality.scored.sum()
    put(browser, "sort", "row")
    put(browser, "iou-from", "60")
    wanted = [row for row in range(39, -1, -1) if quality.ious["top1"][row] >= 0.6]
    assert browser.run(rows) == wanted
    assert browser.run(FOUND) == f"{len(wanted)} of 40 rows"
    put(browser, "iou-from", "")
    put(browser, "class", "class 2")
    assert {row % 5 for row in browser.run(rows)} == {2}
    put(browser, "class", "")
    put(browser, "status", "quarantined")
    assert browser.run(rows) == [7, 3]
    put(browser, "status", "")
    put(browser, "words", "BROKEN image00003")
    assert browser.run(rows) == [3]
    browser.open(page, "words=class+4&sort=row&down=false")  # a link brings a view back
    assert browser.run(rows) == list(range(4, 40, 5))
    assert browser.errors == []


def test_slider_draws_the_boxes_of_the_metrics(browser, page, kept_example):
    subject = gather(kept_example.config)
    levels = kept_example.tiny.maps.astype(np.float32) / np.float32(255) * 4 - 1
    for slot, tau in ((0, 0.25), (1, 0.5), (2, 0.612), (3, 0.05)):
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
        counted = {row: float(iou) for row, _, iou in found if iou}
        truth = subject.quality.truth
        scores = score_maps(StageMaps(subject.maps, slot, truth.rows), truth, Frame(), keep=KeptIous, details=False)
        wanted = cut_ious(scores, tau, 40)
        assert counted == pytest.approx({row: wanted[row] for row in counted}, abs=1e-6)
        assert len(counted) == subject.quality.scored.sum()
        figures = scores.result(tau)
        told = browser.run("document.getElementById('cut-figures').value")
        assert told.endswith(f"MaxBoxAcc {figures['MaxBoxAcc']:.1f}, mean IoU {100 * figures['iou']:.1f}")


def test_headline_of_maps_is_what_the_slider_shows_at_its_threshold(browser, kept_example, tmp_path):
    out = tmp_path / "maps.html"
    subject = gather(replace(kept_example.config, stage=("cls_maps",)))
    write_report(subject, out)
    browser.open(out)
    assert browser.run("document.getElementById('tau-shown').value") == f"{subject.quality.tau:.3f}"
    headline = "document.querySelector('.figures span:last-child b').textContent"
    told = browser.run("document.getElementById('cut-figures').value")
    assert told.endswith(f"mean IoU {browser.run(headline)}")
    best = subject.quality.maps.result()["iou"]
    assert not told.endswith(f"mean IoU {100 * best:.1f}")  # else this test would tell nothing


@pytest.fixture
def layered(example, tmp_path):
    """A page of proposals whose store also holds maps, masks and segments of other stages; its file and material."""
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 256, (40, 2, 14, 14), dtype=np.uint8)
    labels = np.zeros((40, 32, 32), np.uint8)
    labels[:, :16] = 1
    made = {"status": example.tiny.status}
    spec = {"maps": ArraySpec(dtype="uint8", shape=(2, 14, 14)), "masks": ArraySpec(dtype="uint8", shape=(32, 32))}
    write_stage(example.tiny.url, "cams", "dddd000011112222", {"maps": (spec["maps"], maps)}, **made)
    write_stage(example.tiny.url, "val_masks", "eeee000011112222", {"masks": (spec["masks"], labels)}, **made)
    subject = gather(example.config)
    write_report(subject, tmp_path / "layered.html")
    return tmp_path / "layered.html", subject


def test_every_map_of_every_stage_lies_over_all_images_at_once(browser, layered):
    page, subject = layered
    names = [slot.title for slot in subject.map_slots]
    assert names[0] == "cls_maps mean"
    assert names[-1] == "cams 1"
    shown = "[...document.querySelectorAll('.heat')].filter(part => getComputedStyle(part).display !== 'none')"
    for script in (True, False):  # by style alone, too
        browser.open(page, script=script)
        assert browser.run("[...document.querySelector('#heat').options].map(part => part.text)") == ["none", *names]
        for slot in range(len(names)):
            browser.run(f"document.querySelector('#heat').value = '{slot}'")
            classes = browser.run(f"{shown}.map(part => part.getAttribute('class'))")
            assert set(classes) == {f"heat heat-{slot}"}
            assert len(classes) == (37 if names[slot] == "cams 1" else 38)  # the rows that have such a map
        browser.run("document.querySelector('.pick-1').click()")  # a card's own choice comes first
        assert browser.run(f"{shown}.map(part => part.getAttribute('class'))").count("heat heat-1") == 1
        browser.run("document.querySelector('#heat').value = ''")
        assert browser.run(f"{shown}.length") == 1
    browser.open(page)
    for slot in ("0", ""):
        browser.press("h")
        assert browser.run("document.querySelector('#heat').value") == slot
    browser.run("document.querySelector('#heat').value = '2'")
    for slot in ("", "2"):  # the one that lay there before
        browser.press("h")
        assert browser.run("document.querySelector('#heat').value") == slot


def test_layers_of_other_stages_are_switched(browser, layered):
    page, subject = layered
    assert {view.stage for view in subject.others} == {"cams", "val_masks"}
    browser.open(page)
    shown = "[...document.querySelectorAll('.scene .of-val-masks')].map(part => getComputedStyle(part).display)"
    assert set(browser.run(shown)) == {"none"}
    browser.run("document.getElementById('layer-of-val-masks').click()")
    assert browser.run(shown) == ["inline"] * 37  # not of rows without an object
    assert browser.errors == []


def test_the_whole_view_is_in_the_address_and_links_of_the_menu_keep_it(browser, layered):
    page, _ = layered
    browser.open(page)
    put(browser, "words", "class 3")
    browser.run("document.getElementById('group-best').click()")
    browser.run("document.getElementById('layer-truth').click()")
    browser.run("document.getElementById('layer-of-val-masks').click()")
    put(browser, "heat", "1")
    browser.run("document.querySelector('.menu a[href=\"#classes\"]').click()")
    kept = browser.run("location.hash.slice(1)")
    top = "Math.abs(document.getElementById('classes').getBoundingClientRect().top) < innerHeight"
    seen = "['words', 'heat'].map(id => document.getElementById(id).value)"
    ticks = "['group-best', 'layer-truth', 'layer-of-val-masks'].map(id => document.getElementById(id).checked)"
    for reopened in (False, True):
        if reopened:
            browser.open(page, kept)
        assert browser.run(seen) == ["class 3", "1"]
        assert browser.run(ticks) == [True, False, True]
        assert browser.run(top)
    assert browser.run(FOUND) == f"{browser.run(f'{SHOWN}.filter(card => card.offsetParent).length')} of 40 rows"
    browser.run("location.hash = '#words=class+1'")  # another address in the same window
    browser.run("new Promise(done => setTimeout(done))")
    assert browser.run(seen) == ["class 1", ""]
    assert browser.run(ticks) == [False, True, False]
    browser.open(page, "heat=99&group=nothing&words=%E0%A4%A")  # of another page, or broken
    assert browser.run("document.getElementById('heat').value") == ""
    assert browser.errors == []


def test_every_key_is_on_the_list_of_keys(browser, page):
    browser.open(page)
    listed = browser.run("[...document.querySelectorAll('.keys kbd')].map(part => part.textContent)")
    script = page.read_text()
    handled = script[script.index("const anywhere = {") : script.index("const arrows = {")]
    keys = re.findall(r'(?:^|[{,\s])"?([a-z0-9/\[\].+-])"?: (?:\(\) =>|[a-zA-Z]+[,\s])', handled)
    assert sorted(set(listed)) == sorted(set(keys))
    assert {"c", "z", "+", "0", "."} <= set(listed)


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
    paths = [
        evil,
        f"../{evil}",
        "javascript:alert(1)",
        f"{evil}/a.png",
        "/etc/passwd",
        "a\nb\t\u202e.png",
        "'\"><b>.png",
    ]
    files = [*paths, *example.tiny.paths[len(paths) :]]
    names = [f"{evil}{row}" for row in range(24)]
    example.change_index(image_id=names, path=files, reason=["", "", "", evil, *[""] * 20])
    example.change_manifest(class_names={str(label): evil for label in range(5)}, title=evil, quarantined=1)
    out = tmp_path / "evil.html"
    write_report(gather(example.config), out)
    browser.open(out)
    script = "document.getElementById('words').value = '<script>alert';"
    browser.run(f"{script} document.querySelector('.browse').dispatchEvent(new Event('input'))")
    assert browser.run(f"{SHOWN}.length") == 24
    assert browser.run("document.querySelectorAll('.card img, main script:not([type])').length") == 0
    assert browser.run("document.querySelector('#class').options[1].text") == evil.strip()
    table = "[...document.querySelectorAll('section#quarantine code')].map(part => part.textContent)"
    assert files[3] in browser.run(table)
    hidden = (
        "[...document.querySelectorAll('.card .note')].filter(note => note.textContent.startsWith('image: ')).length"
    )
    assert browser.run(hidden) == len(paths) - 1  # one is quarantined, which is said instead
    browser.press("j")
    for key in "oaexz":  # the large view, a correction and a choice of a row of that name
        browser.press(key)
    assert evil in browser.run("document.querySelector('dialog.large').textContent")
    browser.press("Escape")
    assert browser.run("document.querySelectorAll('.card img, main script:not([type])').length") == 0
    assert browser.errors == []
    assert [address.split("?")[0] for address in browser.requests] == [out.as_uri()]


def test_all_rows_of_many_pages_are_listed_and_lead_to_them(browser, write_many):
    browser.open(write_many, "view=view-list")
    assert browser.run(FOUND) == "40 of 40 rows"
    assert 0 < browser.run(f"{LINES}.length") < 40  # those in sight alone
    put(browser, "words", "image00039")
    assert browser.run(LINES) == [39]
    assert "words=image00039" in browser.run("location.hash")
    address = browser.run("document.querySelector('.lines a').href")
    assert address == (write_many.parent / "many-rows" / "0002.html").as_uri() + "#r39"
    browser.open(write_many.parent / "many-rows" / "0002.html", "r39")
    assert browser.run(f"{SHOWN}.map(card => +card.dataset.row)") == list(range(32, 40))
    assert browser.errors == []


def test_the_list_of_all_rows_is_filtered_by_class_score_and_stage(browser, kept_example, write_many):
    (stage,) = {item["stage"] for item in gather(kept_example.config).quarantined}
    browser.open(write_many, "view=view-list&class=class+2", size=(1280, 2000))  # a link brings its view back
    assert {row % 5 for row in browser.run(LINES)} == {2}
    assert browser.run(FOUND) == "8 of 40 rows"
    browser.open(write_many, f"view=view-list&stage={stage}")
    assert browser.run(LINES) == [3, 7]
    browser.open(write_many, "view=view-list&score-from=0.95")
    assert browser.run(FOUND) == "0 of 40 rows"
    browser.open(write_many, "view=view-list&score-from=0.5")
    assert browser.run(FOUND) == "37 of 40 rows"  # all but those without a box
    assert browser.errors == []


def test_rows_of_other_pages_open_large_and_lead_to_the_next_one(browser, write_many):
    browser.open(write_many, "view=view-list&sort=row&down=false&class=class+4")
    frame, own = "document.querySelector('dialog iframe')", "document.querySelector('.large-card .card')"
    browser.run("document.querySelector('.lines a').click()")
    for row in range(4, 40, 5):
        shown = f"({frame}.hidden ? {own}.dataset.row === '{row}' : {frame}.dataset.shown === 'r{row}')"
        browser.wait(f"location.hash.includes('large=r{row}') && {shown}")
        page = f"000{row // 16}.html#large=r{row}"
        assert browser.run(f"{frame}.hidden") or browser.run(f"{frame}.src").endswith(page)
        browser.press("j")
    assert browser.run(f"{frame}.src")  # some row was on a page beside this one
    browser.press("Escape")
    browser.wait("!document.querySelector('dialog').open")
    assert browser.errors == []


def test_rows_are_shown_a_page_of_cards_at_a_time_and_printed_all(browser, page):
    seen = f"{SHOWN}.filter(card => card.offsetParent).map(card => +card.dataset.row)"
    browser.open(page, "sort=row&down=false")
    assert browser.run(seen) == list(range(24))
    browser.run("document.getElementById('pager-on').click()")
    assert browser.run(seen) == list(range(24, 40))
    kept = browser.run("location.hash.slice(1)")
    assert "page=2" in kept
    browser.open(page, kept)
    assert browser.run(seen) == list(range(24, 40))
    put(browser, "words", "class 4")  # a filter begins at its first page
    assert browser.run(seen) == list(range(4, 40, 5))
    browser.open(page, "r39")  # a link to a row shows the page of cards on which it is
    assert browser.run("document.getElementById('r39').offsetParent !== null")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert len(browser.run(seen)) == 40
    browser.call("Emulation.setEmulatedMedia", media="")


def test_nothing_is_wider_than_a_phone(browser, page):
    browser.open(page, size=(390, 844), phone=True)
    wide = "[...document.querySelectorAll('main *')].filter(part => part.getBoundingClientRect().right > 390)"
    named = ".filter(part => !part.closest('.scroll')).slice(0, 5).map(part => part.tagName + part.className)"
    assert browser.run("document.documentElement.scrollWidth") <= 390, browser.run(wide + named)


def test_axe_finds_no_serious_fault_in_any_view(browser, kept_example, tmp_path):
    write_report(gather(kept_example.config, n=4), tmp_path / "few.html")
    for fragment, how in (
        ("", {}), ("view=view-list", {"phone": True, "size": (390, 844)}), ("view=view-scatter", {}),
        ("large=r0", {"dark": True}),
    ):  # fmt: skip
        browser.open(tmp_path / "few.html", fragment, **how)
        browser.run("document.querySelectorAll('.fold[aria-expanded=false]').forEach(fold => fold.click())")
        assert browser.faults() == []
