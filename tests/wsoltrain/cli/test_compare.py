"""``wsoltrain compare``: trains what is missing, scores all alike, and shows the same images side by side."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from chromium import PROGRAM, Browser
from small_cnns import SMALL
from stores import build_store, write_masks
from wsolpipe.evaluate import scored
from wsoltrain.cli.main import main


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def words(store, out, recipes="cam,has"):
    keys = {"backbone": "resnet10t", "model_args": json.dumps(SMALL), "weights": "null", "size": 32, "batch": 8,
            "epochs": 1, "fast": "[]", "lr": 0.001}  # fmt: skip
    place = [f"store={store.url}", f"dataset={store.root}/../tiny.yaml", "device=cpu", "workers=0"]
    return [f"recipes={recipes}", *place, f"out={out}", *(f"{name}={value}" for name, value in keys.items())]


@pytest.fixture(scope="module")
def finished(trainable, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare")
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words(trainable, out), "test=val", "shown=3", "--json"])
    assert ended.value.code == 0
    return out


def test_figures_are_those_of_eval_and_nothing_is_trained_twice(trainable, finished, capsys):
    before = (finished / "has" / "metrics.jsonl").read_text()
    code, text, _ = call(capsys, "compare", *words(trainable, finished), "test=val", "shown=3", "--json")
    assert code == 0
    found = json.loads(text)
    assert [line["name"] for line in found["methods"]] == ["cam", "has"]
    steps = [line for line in before.splitlines() if '"step"' in line]
    after = [line for line in (finished / "has" / "metrics.jsonl").read_text().splitlines() if '"step"' in line]
    assert after == steps
    place = [f"store={trainable.url}", f"dataset={trainable.root}/../tiny.yaml", "device=cpu", "workers=0"]
    for line in found["methods"]:
        _, text, _ = call(
            capsys, "eval", f"checkpoint={finished / line['name']}", *place, "split=val", "beside=none", "--json"
        )
        scored = json.loads(text)["localizer"]
        assert line["MaxBoxAcc"] == pytest.approx(scored["MaxBoxAcc"], abs=1e-9)
        assert line["MaxBoxAccV2"] == pytest.approx(scored["MaxBoxAccV2"]["mean"], abs=1e-9)
        assert line["iou"] == pytest.approx(scored["iou"], abs=1e-6)
        assert line["tau"] == pytest.approx(scored["tau"])
        interval = line["intervals"]["MaxBoxAcc"]
        assert interval["low"] <= line["MaxBoxAcc"] <= interval["high"]
        assert interval["value"] == pytest.approx(line["MaxBoxAcc"], abs=1e-4)


def test_a_recipe_chosen_by_accuracy_is_scored_at_each_maps_own_threshold_in_both_commands(
    trainable, finished, tmp_path, capsys
):
    (tmp_path / "mine.yaml").write_text("method: cam\nby: cls\n")
    runs = words(trainable, tmp_path, f"{tmp_path / 'cam.yaml'},{tmp_path / 'mine.yaml'}")
    (tmp_path / "cam.yaml").write_text("method: cam\n")
    code, text, _ = call(capsys, "compare", *runs, "test=val", "--json")
    assert code == 0
    first, mine = json.loads(text)["methods"]
    assert [first["by"], mine["by"], mine["tau"]] == ["proposals", "cls", None]
    place = [f"store={trainable.url}", f"dataset={trainable.root}/../tiny.yaml", "device=cpu", "workers=0"]
    _, text, _ = call(capsys, "eval", f"checkpoint={tmp_path / 'mine'}", *place, "split=val", "maps=cls_maps", "--json")
    told = json.loads(text)
    lines = [line for line in told["table"] if line["threshold"] == "Otsu of each map"]
    assert [line["name"] for line in lines] == ["cls_maps", "localizer"]  # what it learned from is cut alike
    own = lines[1]
    assert (own["accuracy"], own["v2"], own["iou"]) == pytest.approx(
        (mine["MaxBoxAcc"], mine["MaxBoxAccV2"], mine["iou"]), abs=1e-4
    )
    best = told["localizer"]
    assert own["iou"] < best["iou"]  # the threshold that these very images like best decides nothing
    assert told["beats"]["proposals"] == (own["v2"] > told["table"][3]["v2"] and own["iou"] > told["table"][3]["iou"])
    assert 100 * told["otsu"]["top1_loc"] <= min(best["accuracy_top1"], own["accuracy"]) + 1e-6
    assert mine["intervals"]["iou"]["value"] == pytest.approx(mine["iou"])
    difference = mine["against_first"]["MaxBoxAcc"]["difference"]
    assert difference == pytest.approx(mine["MaxBoxAcc"] - first["MaxBoxAcc"], abs=1e-4)


def test_paired_test_is_of_the_difference_to_the_first(trainable, finished, capsys):
    _, text, _ = call(capsys, "compare", *words(trainable, finished), "test=val", "--json")
    first, second = json.loads(text)["methods"]
    assert first["against_first"] is None
    test = second["against_first"]["MaxBoxAcc"]
    assert test["difference"] == pytest.approx(second["MaxBoxAcc"] - first["MaxBoxAcc"], abs=1e-4)
    assert 0 < test["p"] <= 1
    assert test["low"] <= test["difference"] <= test["high"]


def test_table_and_page_show_every_method_and_what_is_below_a_centred_box(trainable, finished, capsys):
    code, text, _ = call(capsys, "compare", *words(trainable, finished), "test=val", "shown=3")
    assert code == 0
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["centred", "cam", "has"]
    _, told, _ = call(capsys, "compare", *words(trainable, finished), "test=val", "shown=3", "--json")
    below = json.loads(told)["below_centred_box"]
    assert ("below a centred box" in text) == bool(below)
    page = (finished / "compare.html").read_text()
    assert page.count('<article class="card') == 3
    assert all(f"<td>{name}</td>" in page for name in ("cam", "has"))
    assert all(page.count(f"<span>{name}</span>") == 3 for name in ("cam", "has"))  # a map of each on every card
    assert '<option value="difference">difference to has</option>' in page


def test_what_is_below_a_centred_box_is_told_with_what_to_try(trainable, finished, capsys, monkeypatch):
    best = scored.Line("centred box", 100.0, 100.0, 1.0)  # nothing that was trained for one epoch is above it
    monkeypatch.setattr(scored, "score_beside", lambda *_: [SimpleNamespace(line=lambda: best)])
    code, text, _ = call(capsys, "compare", *words(trainable, finished), "test=val", "shown=3")
    assert code == 0
    command = f"wsolpipe report dataset=tiny store={trainable.url} split=train"
    assert f"below a centred box: cam, has; their labels, and what to try: {command}" in text
    page = (finished / "compare.html").read_text()
    assert "<b>Below a centred box: cam, has.</b>" in page
    assert f"<code>{command}</code>" in page


def test_charts_of_every_method_are_on_the_page_and_in_files(trainable, finished, capsys, tmp_path):
    code, text, _ = call(
        capsys, "compare", *words(trainable, finished), "test=val", "shown=3", f"plots={tmp_path}", "--json"
    )
    assert code == 0
    stems = {Path(path).stem for path in json.loads(text)["plots"]}
    assert stems == {"compare-maxboxacc", "compare-iou", "table"}
    page = (finished / "compare.html").read_text()
    charts = re.findall(r"<figure><figcaption>.*?</figure>", page, re.S)
    assert len(charts) == len(stems) - 1
    titles, centred, *methods = csv.reader((tmp_path / "table.csv").open())
    assert (titles[1], centred[0], [line[0] for line in methods]) == ("MaxBoxAcc", "centred box", ["cam", "has"])
    printed = (tmp_path / "table.tex").read_text()
    assert printed.count(r" \\") == 4
    assert rf"cam & {methods[0][1]} & " in printed
    assert r"95 \%" in printed
    assert all(f">{name}</li>" in chart for chart in charts for name in ("cam", "has"))


@pytest.mark.browser
def test_page_shows_maps_and_boxes_of_every_method_in_a_browser(trainable, finished, tmp_path):
    if not PROGRAM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words(trainable, finished), "test=val", "shown=3"])
    assert ended.value.code == 0
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(finished / "compare.html")
        assert browser.run("document.querySelectorAll('.card').length") == 3
        assert browser.run("[...document.querySelector('#heat').options].map(part => part.text)") == [
            "none",
            "cam",
            "has",
        ]
        shown = "[...document.querySelectorAll('.heat')].filter(part => getComputedStyle(part).display !== 'none')"
        for slot in (0, 1):
            browser.run(f"document.querySelector('#heat').value = '{slot}'")
            assert browser.run(f"{shown}.map(part => part.getAttribute('class'))") == [f"heat heat-{slot}"] * 3
        boxes = "[...document.querySelectorAll('.scene .beside')].map(part => getComputedStyle(part).display)"
        assert "none" not in browser.run(boxes)
        browser.run("document.getElementById('layer-beside').click()")
        assert set(browser.run(boxes)) <= {"none"}
        script = "document.getElementById('sort').value = 'difference';"
        browser.run(f"{script} document.getElementById('sort').dispatchEvent(new Event('input', {{bubbles: true}}))")
        text = "[...document.querySelectorAll('.card .against b')].map(part => part.textContent)"
        found = [float(value.replace("−", "-")) for value in browser.run(text)]
        assert len(found) == 3
        assert found == sorted(found, reverse=True)
        assert browser.run("document.documentElement.scrollWidth") <= 1280
        assert browser.errors == []
        assert len(browser.requests) == 1
        assert browser.faults() == []
    finally:
        browser.close()


def test_figures_of_the_cards_are_those_of_the_evaluation(trainable):
    """IoU at the threshold of each row, of random maps: the card's half-open box against the evaluator's own."""
    from wsolpipe.evaluate.figures import Frame
    from wsolpipe.evaluate.map_scores import score_maps
    from wsolpipe.evaluate.map_sources import MapBatch
    from wsolpipe.evaluate.truth import truth_of_index
    from wsoltrain.data.config import Labelling
    from wsoltrain.data.stored_rows import StoredRows
    from wsoltrain.inference.shown import show
    from wsoltrain.pages.method_cards import make_cards

    stored = StoredRows(Labelling(trainable.url, "tiny", "val", maps=None, boxes=None))
    truth, rows = truth_of_index(stored.index), np.arange(40)
    rng = np.random.default_rng(0)
    maps = [np.asarray(each, np.float32) for each in rng.random((40, 7, 7))]

    class Source:
        labels, quarantined = "true", 0

        def batches(self):
            yield MapBatch(rows, maps, None)

    scores = score_maps(Source(), truth, Frame(), keep=True, details=False)
    numbers, curves = scores.kept.get("iou")
    seen = {row: show(maps[row], Frame(), 0.55) for row in rows.tolist()}
    cards = make_cards(stored, Path(trainable.root), {"one": seen, "two": seen}, truth)
    column = round(0.55 * scores.boxes.thresholds)
    wanted = dict(zip(numbers.tolist(), curves[:, column].tolist(), strict=True))
    assert {card.row: card.iou for card in cards} == pytest.approx(wanted, abs=1e-6)
    assert all(card.difference == 0 for card in cards)


def test_masks_alone_are_compared_by_pxap(tmp_path, capsys):
    store = build_store(tmp_path, rows=16, sizes=(30, 40), split="val")
    write_masks(tmp_path, store, list(range(14)))
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nlayout: folder\nroot: images\nmasks: masks\nsplit: {train: ., val: .}\n"
    )
    given = [*words(store, tmp_path / "out"), "split=val", "test=val", "by=gt", "shown=2"]
    code, text, _ = call(capsys, "compare", *given)
    assert code == 0
    head, cam, has = (line.split() for line in text.splitlines()[:3])
    assert head[:4] == ["PxAP", "95", "%", "pixel"]
    assert (cam[0], has[0]) == ("cam", "has")
    code, text, _ = call(capsys, "compare", *given, "--json")
    found = json.loads(text)
    first, second = found["methods"]
    assert (found["baselines"], first["MaxBoxAcc"], first["iou"]) == ({}, None, None)
    assert float(cam[1]) == pytest.approx(first["PxAP"], abs=0.051)
    assert first["intervals"]["PxAP"]["low"] <= first["PxAP"] <= first["intervals"]["PxAP"]["high"]
    assert second["against_first"]["PxAP"]["difference"] == pytest.approx(second["PxAP"] - first["PxAP"], abs=1e-3)
    assert 0 < second["pixel_iou"] < 1
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count('<article class="card') == 2
    assert page.count('<g class="truth">') == 2
    given = [*words(store, tmp_path / "cls", "cam"), "split=val", "test=val", "by=cls", "shown=1"]
    code, text, _ = call(capsys, "compare", *given)
    assert (code, text.splitlines()[1].split()[0], "Otsu" in text) == (0, "cam", False)


@pytest.mark.parametrize(
    ("recipes", "message"),
    [("cam,hass", "unknown recipe 'hass'; did you mean 'has'"), ("cam,cam", "names one twice")],
)
def test_recipes_are_checked_before_any_is_trained(trainable, tmp_path, capsys, recipes, message):
    code, _, errors = call(capsys, "compare", *words(trainable, tmp_path, recipes))
    assert code == 3
    assert message in errors
    assert not list(tmp_path.iterdir())
