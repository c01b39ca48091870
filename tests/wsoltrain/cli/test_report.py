"""``wsoltrain report``: the page says what `select` says, and names of runs stay text."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from chromium import PROGRAM, Browser
from trained import words as words_of_fit
from wsolpipe.metrics.protocol import Run, write_run
from wsolpipe.pages.charts import Curve, Plot
from wsoltrain.cli.main import cli, main
from wsoltrain.data.stream import ItemConfig, Stream
from wsoltrain.data.views import maps_to_view
from wsoltrain.inference.model import load_trained
from wsoltrain.pages.run_rows import find_place, run_gallery
from wsoltrain.pseudo.samplers import Pseudo

EVIL = "<script>alert(1)</script>"


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def entry(height: float) -> dict[str, object]:
    curve = np.round(200 * height * np.exp(-((np.arange(100) / 100 - 0.4) ** 2) / 0.05)).astype(int)
    levels = {"30": curve.tolist(), "50": (curve // 2).tolist(), "70": (curve // 4).tolist()}
    return {"rows": 200, "largest": {"50": (curve // 2).tolist()}, "all": levels, "iou": (curve / 250).tolist()}


@pytest.fixture
def finished(tmp_path):
    """Two runs of three epochs, the second of a hostile name, with losses and a test split."""
    steps = [{"kind": "step", "step": step, "pixels": 1 / step, "epoch": 0, "phase": "maps"} for step in (1, 2, 3)]
    for place, name in enumerate(("dips", EVIL)):
        folder = tmp_path / f"run{place}"
        for epoch in range(3):
            height = 0.5 + 0.1 * epoch - 0.05 * place
            validation = {"proposals": entry(height), "gt": entry(height - 0.1)}
            write_run(folder / "runs", Run(name.replace("/", "-"), epoch, validation, {"gt": entry(0.4)}))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    (tmp_path / "run0").rename(tmp_path / "dips")
    return tmp_path


def test_page_shows_the_choice_of_select_and_the_table_of_what_it_cost(finished, capsys):
    code, told, errors = call(capsys, "report", f"runs={finished}", "by=proposals", "--json")
    assert code == 0, errors
    found = json.loads(told)
    _, chosen, _ = call(capsys, "select", f"runs={finished}", "by=proposals", "--json")
    wanted = json.loads(chosen)
    assert (found["run"], found["epoch"], found["tau"]) == (wanted["run"], wanted["epoch"], wanted["tau"])
    page = (finished / "report.html").read_text()
    assert f"<b>{wanted['score']:.1f}</b> MaxBoxAcc" in page
    for cell in wanted["table"]:
        assert f">{cell['MaxBoxAcc']:.1f}</td>" in page
        assert f">{100 * cell['iou']:.1f}</td>" in page
    assert "pixels (highest 1)" in page
    assert page.count("<script") == 1  # its own
    assert "&lt;script&gt;" in page


def test_every_run_annotator_and_loss_is_drawn_and_written(tmp_path, capsys):
    runs, annotators = [f"run{number}" for number in range(7)], ("proposals", "a", "b", "c", "d", "gt")
    for name in runs:
        for epoch in (0, 2, 4):
            validation = {each: entry(0.5 + 0.01 * epoch) for each in annotators}
            write_run(tmp_path / name / "runs", Run(name, epoch, validation, {"gt": entry(0.4)}))
    losses = {f"loss{number}": 1.0 for number in range(9)}
    lines = [{"kind": "step", "step": step, "epoch": 0, "phase": "maps", **losses} for step in (1, 1000)]
    (tmp_path / "run0" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, told, errors = call(
        capsys, "report", f"runs={tmp_path}", "by=proposals", "shown=0", f"plots={tmp_path / 'p'}"
    )
    assert code == 0, errors
    page = (tmp_path / "report.html").read_text()
    charts = re.findall(r"<figure><figcaption>.*?</figure>", page, re.S)
    assert len(charts) == 4
    for chart, count in zip(charts, (7, len(annotators) + 1, len(annotators) + 1, 9), strict=True):
        looks = re.findall(r'y2="3" style="([^"]+)"', chart)
        assert len(set(looks)) == count  # each in a colour and dashes of its own
        assert chart.count("<li>") == count
    assert all(f">{name}</li>" in charts[0] for name in runs)
    ticks = [re.findall(r">([\d.,]+)</text>", chart) for chart in charts]
    assert ticks[0] == ["0", "1", "2", "3", "4"]  # epochs
    assert ticks[3] == ["0", "200", "400", "600", "800", "1,000"]  # steps
    files = sorted(path.name for path in (tmp_path / "p").glob("*.svg"))
    assert files == ["runs-annotators.svg", "runs-epochs.svg", "runs-losses.svg", "runs-thresholds.svg"]
    assert all(f"{name}.pdf" in told for name in ("runs-epochs", "runs-losses", "runs-thresholds"))


def test_no_two_of_32_lines_of_a_chart_look_alike():
    plot = Plot("", "", [Curve("", np.zeros(1))] * 32)
    assert len({plot.look(number) for number in range(32)}) == 32


@pytest.fixture(scope="module")
def looked(trainable, tmp_path_factory):
    """A short run of the command line, and its page of six rows of each split."""
    out = tmp_path_factory.mktemp("looked")
    given = [*words_of_fit(trainable, epochs=4, head_epochs=0, lr=0.05), f"out={out}", "workers=0", "val=val"]
    cli.main(given, standalone_mode=False)
    cli.main(["report", f"runs={out}", "shown=6", "device=cpu"], standalone_mode=False)
    return out


def test_rows_show_what_is_found_and_the_pixels_that_the_sampler_draws(looked, trainable):
    page = (looked / "report.html").read_text()
    assert page.count('<article class="card validation') == page.count('<article class="card training') == 6
    anchors = re.findall(r'<article class="card \w+" id="(\w+)"', page)
    assert len(set(anchors)) == 12  # rows of both splits share numbers
    assert "Rows are not shown" not in page
    # The drawn pixels are those of the method's own sampler on the whole image.
    trained = load_trained(str(looked), device=torch.device("cpu"))
    place = find_place(looked, trained.recipe)
    assert place.labelling.maps_key
    given = trained.model, trained.recipe, trained.tau, place
    gallery = run_gallery(*given, by="proposals", count=6, device=torch.device("cpu"))
    card = next(card for card in gallery.cards if card.group == "training")
    size = trained.recipe.size
    items = Stream(ItemConfig(place.labelling, root=trainable.root, size=size, train=False), batch_size=40)
    batch = next(iter(items))
    maps = maps_to_view(batch["maps"], batch["window"], size)
    pseudo = Pseudo(maps, batch["row"], batch["boxes"], batch["box_map"])
    drawn = trained.recipe.pixel_sampler()(pseudo, seed=trained.recipe.seed, epoch=0)
    labels = drawn.labels[batch["row"].tolist().index(card.row)].numpy()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(card.overlays["drawn"].partition(",")[2]))))
    side = len(picture)
    places = ((np.arange(side) + 0.5) * size / side).astype(int)
    kinds = np.where(labels == 1, 2, np.where(labels == 0, 1, 0))
    assert np.array_equal(picture, kinds[places][:, places])
    assert {1, 2} <= set(np.unique(picture))
    assert card.boxes["other"]


@pytest.mark.browser
def test_rows_are_filtered_sorted_and_cut_in_a_browser(looked, tmp_path):
    if not PROGRAM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(looked / "report.html", "sort=iou")
        ious = browser.run("[...document.querySelectorAll('.card .iou b')].map(part => part.textContent)")
        known = [float(iou) for iou in ious]
        assert len(known) == 6  # of validation; those of training come last
        assert known == sorted(known, reverse=True)
        told = "[...document.querySelectorAll('.card.training .cut-iou')].map(part => part.textContent)"
        assert not any(browser.run(told))  # ground truth of training images is not read
        boxes = "[...document.querySelectorAll('.card')].map(card => card.dataset.box)"
        before = browser.run(boxes)
        script = "document.getElementById('tau').value = 900;"
        browser.run(f"{script} document.getElementById('tau').dispatchEvent(new Event('input', {{bubbles: true}}))")
        assert all(before)
        assert browser.run(boxes) != before
        shown = "getComputedStyle(document.querySelector('.card.training .scene .drawn')).display"
        assert browser.run(shown) == "inline"
        browser.run("document.getElementById('layer-drawn').click()")
        assert browser.run(shown) == "none"
        browser.run("document.getElementById('group-validation').click()")
        display = "getComputedStyle(document.querySelector('.card.training')).display"
        assert browser.run(display) == "none"
        assert browser.errors == []
        assert len(browser.requests) == 1
        assert browser.faults() == []
    finally:
        browser.close()


def test_rows_that_cannot_be_shown_are_explained(looked, capsys, tmp_path):
    shutil.copytree(looked, tmp_path / "run")
    code, told, errors = call(capsys, "report", f"runs={tmp_path / 'run'}", f"root={tmp_path}")
    assert code == 0, errors
    assert "rows are not shown: images of tiny not found under root=" in told
    record = tmp_path / "run" / "run.json"
    record.write_text(json.dumps({"store": "x", "dataset": "tiny"}))
    _, told, _ = call(capsys, "report", f"runs={tmp_path / 'run'}")
    assert "does not say where the run read (split, val, root)" in told
    assert "wsoltrain fit" in (tmp_path / "run" / "report.html").read_text()
    (tmp_path / "run" / "best-proposals.safetensors").unlink()
    _, told, _ = call(capsys, "report", f"runs={tmp_path / 'run'}")
    assert "best-proposals.safetensors" in told
    _, told, _ = call(capsys, "report", f"runs={tmp_path / 'run'}", "shown=0")
    assert "not shown" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs=nowhere"], "nowhere"),
        (["by=ss"], "ss"),
        (["metric=acc"], "did you mean 'MaxBoxAcc'"),
        (["shown=some"], "shown=some"),
        (["outt=x"], "did you mean 'out'"),
        ([], "runs="),
    ],
)
def test_wrong_words_are_said(finished, capsys, words, told):
    given = words if not words or words[0].startswith("runs") else [f"runs={finished}", *words]
    code, _, errors = call(capsys, "report", *given)
    assert code in (3, 4, 1)
    assert told in errors
    assert "Traceback" not in errors
