"""The page stands alone, says what the store says, and runs nothing that a file name smuggles in."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from stores import BOXES_KEY, MAPS_KEY
from wsolpipe.cli.report import command
from wsolpipe.contract.errors import BadImageError, ConfigError, StoreError, WsolError
from wsolpipe.evaluate.figures import Frame
from wsolpipe.metrics import largest_box
from wsolpipe.pages.cards import HALF_OPEN
from wsolpipe.pages.charts import COLOURS, Curve, Plot, draw_figure, save_plots
from wsolpipe.pages.pictures import DRAWN_COLOURS, drawn_picture, edges_picture, heat, photo
from wsolpipe.report import row_cards
from wsolpipe.report.material import gather
from wsolpipe.report.page import Section, all_sections, compose, write_report

VOID = {"meta", "img", "input", "link", "br", "hr"}
REFERRING = {"src", "href", "xlink:href", "action", "data", "poster", "srcset", "formaction"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and refuses elements that are closed in the wrong order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]

    def cards(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "article"]

    def facts(self) -> list[dict[str, Any]]:
        """What the page's script knows of each row."""
        (text,) = (text for text in self.text if text.startswith('{"row":'))
        table = json.loads(text)
        columns = {
            name: [column["of"][at] for at in column["at"]] if isinstance(column, dict) else column
            for name, column in table.items()
            if name not in ("figures", "about", "names", "folder", "predicted_by")
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read(material) -> tuple[str, Reader]:
    html = compose(material).html
    return html, Reader(html)


def test_page_has_all_sections_of_a_finished_store(example):
    page = compose(gather(example.config))
    assert page.sections == ("overview", "quality", "gallery", "quarantine", "classes", "stages", "glossary")
    rows = Reader(page.html).facts()
    assert len(rows) == len(Reader(page.html).cards()) == 40
    assert [row["row"] for row in rows if row["status"] == "quarantined"] == [3, 7]


def test_page_loads_nothing_from_elsewhere_and_runs_its_own_script_alone(example):
    html, page = read(gather(example.config))
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy.split("script-src")[1]
    script = html[html.rindex("<script>") + 8 : html.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert [attrs.get("type") for attrs in scripts] == ["application/json", "application/json", None]
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    for name in REFERRING:
        for value in page.attributes(name):
            assert value.startswith(
                ("data:image/jpeg;base64,", "data:image/webp;base64,", "data:image/png;base64,", "#")
            )
    assert not re.search(r"url\(|@import", html)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_untrusted_text_stays_text(make_example, evil):
    example = make_example(quarantined={3: evil, 5: "fine"})
    example.change_index(image_id=[f"{evil}{row}" for row in range(40)], reason=["", "", "", evil, *[""] * 36])
    example.change_manifest(
        class_names={str(label): evil for label in range(5)}, title=evil, licence=evil, quarantined=1
    )
    html, page = read(replace(gather(example.config), notes=(evil,)))
    names = {name for _, attrs in page.tags for name in attrs}
    assert html.count("<script") == 3
    assert "onerror" not in names
    assert "img" not in {tag for tag, _ in page.tags}
    text = "".join(page.text)
    assert text.count(evil) > 24 * 2  # it is all shown, as text
    assert any(f"{evil}0 with" in label or evil in label for label in page.attributes("aria-label"))


def test_paths_cannot_leave_the_folder_of_images(tmp_path):
    outside = tmp_path / "secret.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(outside)
    root = tmp_path / "images"
    root.mkdir()
    for path in ("../secret.png", str(outside), "a/../../secret.png", "..", "nul\0l.png"):
        with pytest.raises(BadImageError):
            photo(root, path, orientation=1)


def test_gallery_shows_scores_ious_and_the_source_of_the_top_box(example):
    material = gather(example.config)
    html, page = read(material)
    for pick in material.sample:
        card = html.split(f'id="r{pick.row}"')[1].split("</article>")[0]
        assert f"row {pick.row}" in card
        if pick.row != 5:
            source = material.map_name(int(example.tiny.source[pick.row, 0]))
            assert re.search(rf'class="source".*?<span>{source}</span>', card, re.S)
            assert ">0.90</text>" in card  # the first score of every row of this store
        if pick.row % 2 == 0:
            assert f"IoU <b>{100 * material.quality.ious['top1'][pick.row]:.1f}</b>" in card
            assert 'class="truth"><rect' in card
    assert 'id="layer-truth"' in html


def test_quarantined_rows_are_listed_where_they_were_given_up_first(example, evil):
    # Both stages of this store gave rows 3 and 7 up; the index only row 3.
    example.change_index(reason=["", "", "", "not an image", *[""] * 36])
    example.change_manifest(quarantined=1)
    material = gather(example.config)
    assert [(item["row"], item["stage"], item["reason"]) for item in material.quarantined] == [
        (3, "index", "not an image"),
        (7, "cls_maps", evil),
    ]
    _, page = read(material)
    text = "".join(page.text)
    assert example.tiny.paths[3] in text
    assert example.tiny.paths[7] in text
    assert evil in text


def test_a_store_without_ground_truth_is_shown_without_judgement(example):
    example.write_truth(np.zeros(0, np.int64), np.zeros((0, 4)))
    html, page = read(gather(example.config))
    assert "No ground truth boxes" in html
    assert 'id="layer-truth"' not in html
    assert "score <b>0.90</b>" in html
    assert len(page.cards()) == 40


def test_maps_alone_are_measured_and_drawn_at_their_best_threshold(example):
    material = gather(replace(example.config, stage=("cls_maps",)))
    html, page = read(material)
    quality = material.quality
    assert material.boxes is None
    assert set(quality.means()) == {"otsu", "cut", "centre"}
    assert quality.lead == "cut"
    figures = quality.maps.result()
    assert quality.recall("cut") == pytest.approx(figures["MaxBoxAcc"] / 100)
    # The headline is what the slider shows at its threshold; the best of each figure has a line of its own.
    cut = quality.maps.result(quality.tau)
    assert f"<b>{figures['MaxBoxAcc']:.1f}</b> MaxBoxAcc" in html
    assert f"<b>{cut['MaxBoxAccV2']['mean']:.1f}</b> MaxBoxAccV2" in html
    assert f"<b>{100 * quality.means()['cut']:.1f}</b> mean IoU" in html
    assert quality.means()["cut"] == pytest.approx(cut["iou"], abs=1e-6)
    assert f"cls_maps mean map, one threshold ({quality.tau:.3f} by the best MaxBoxAcc of these rows (oracle)" in html
    assert cut["MaxBoxAccV2"]["mean"] < figures["MaxBoxAccV2"]["mean"]  # else this test would tell nothing
    assert f'<td class="number">{figures["MaxBoxAccV2"]["mean"]:.1f}</td>' in html
    assert 'id="layer-top"' not in html
    assert 'id="layer-cut" checked' in html
    row = int(np.flatnonzero(quality.scored)[0])
    card = html.split(f'id="r{row}"')[1].split("</article>")[0]
    drawn = re.search(
        r'class="cut"><rect class="halo" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', card
    )
    height, width = example.tiny.sizes[row]
    frame = Frame().map(example.tiny.maps[row, 0].astype(np.float32) / 255 * 4 - 1, "")
    x0, y0, x1, y1 = largest_box(frame, quality.tau, convention=HALF_OPEN) / 224
    wanted = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
    assert [float(edge) for edge in drawn.groups()] == pytest.approx(wanted, abs=0.06)


def test_labels_below_a_centred_box_are_said_loudly(example):
    box = [[0.1, 0.1, 0.9, 0.9]]
    sizes = np.array(example.tiny.sizes)[:, ::-1]
    rows = np.arange(1, 40, 2)
    example.write_truth(rows, np.array(box) * np.tile(sizes[rows], 2))
    html, _ = read(gather(example.config))
    assert 'role="alert"' in html
    assert "cls_maps.blocks=8-11" in html
    assert "Below a centred box" not in read(gather(replace(example.config, stage=("index",))))[0]


def test_sections_of_stages_that_do_not_exist_are_left_out(example):
    material = replace(gather(example.config), views=())
    page = compose(material)
    assert "quality" not in page.sections
    assert {"overview", "gallery", "quarantine"} <= set(page.sections)
    assert 'id="layer-heat"' not in page.html


def test_images_that_are_gone_leave_their_frames_and_a_reason(make_example):
    example = make_example()
    for path in example.tiny.paths[::2]:
        (example.folder / "images" / path).unlink()
    html, _ = read(gather(example.config))
    assert "cannot be read: No such file or directory" in html
    without = gather(replace(example.config, root=None))
    assert any("root=FOLDER" in note for note in without.notes)
    assert 'class="empty"' in compose(without).html


def test_images_that_changed_since_they_were_indexed_are_not_shown_under_old_boxes(make_example):
    example = make_example()
    for path in example.tiny.paths:
        Image.new("RGB", (80, 80), "blue").save(example.folder / "images" / path)
    html, _ = read(gather(example.config, n=24))
    assert html.count("the file has changed since it was indexed") == 24
    assert "data:image/jpeg" not in html


def test_a_page_says_how_many_shards_of_each_result_it_uses(make_example):
    example = make_example(missing={"proposals": (1,)})
    note = f"proposals {BOXES_KEY}: 2 of 3 shards are used, the others are not made."
    material = gather(example.config)
    assert note in material.notes
    assert note in compose(material).html
    assert not any(16 <= pick.row < 32 for pick in material.sample)
    # As a layer of another stage's page, and as what that page is compared with.
    assert note in gather(replace(example.config, stage=("cls_maps",))).notes
    assert note in gather(replace(example.config, stage=("cls_maps",)), beside="proposals").notes


def test_same_store_and_seed_give_the_same_gallery(example):
    def gallery(seed: int) -> str:
        html = compose(gather(replace(example.config, seed=seed), n=24)).html
        return html[html.index('<section id="gallery"') : html.index('<section id="quarantine"')]

    assert gallery(1) == gallery(1)
    assert gallery(1) != gallery(2)


def test_a_new_section_is_one_object(example):
    mine = Section("mine", "Mine", 15, lambda material: {"n": material.n}, "<p>{{ n }} <{{ '<b>' }}></p>")
    page = compose(gather(example.config), [*all_sections()[:2], mine])
    assert page.sections == ("overview", "quality", "mine")
    assert "100 <&lt;b&gt;>" in page.html


def test_heat_covers_the_image_from_its_low_to_its_high_colour():
    levels = np.zeros((4, 8), np.uint8)
    levels[:, 4:] = 255
    picture = Image.open(io.BytesIO(base64.b64decode(heat(levels).partition(",")[2]))).convert("RGBA")
    low, high = picture.getpixel((2, 30)), picture.getpixel((picture.width - 3, 30))
    assert sum(high[:3]) > 3 * sum(low[:3])
    assert low[3] < high[3] < 255


def test_command_writes_into_the_store_and_tells_where(example):
    words = [f"dataset={example.config.dataset}", f"store={example.config.store}", f"root={example.config.root}", "n=8"]
    result = CliRunner().invoke(command, [*words, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    path = example.folder / "store" / "tiny" / "report.html"
    assert told["path"] == str(path)
    assert told["bytes"] == path.stat().st_size
    assert (told["rows"], told["shown"], told["quarantined"]) == (40, 8, 2)
    assert told["iou_top1"] > told["iou_centre"]
    # The page beside the splits must not be taken for one of them.
    again = CliRunner().invoke(command, [*words, f"out={example.folder / 'deep' / 'mine.html'}"])
    assert again.exit_code == 0
    assert (example.folder / "deep" / "mine.html").is_file()


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (["dataset=tiny", "n=-1"], ConfigError, "n=-1"),
        (["dataset=tiny", "split=train,val"], ConfigError, "one split"),
        (["dataset=tiny", "split=tran"], StoreError, "it holds: train"),
        (["dataset=tiny", "stage=proposal"], ConfigError, "proposals"),
        (["dataset=tinny"], WsolError, "tinny"),
        (["n=3"], ConfigError, "no data set named"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(example, words, kind, told):
    result = CliRunner().invoke(command, [*words, f"store={example.config.store}"])
    assert isinstance(result.exception, kind)
    assert told in str(result.exception)


def test_a_report_says_what_it_replaces(example):
    words = [f"dataset={example.config.dataset}", f"store={example.config.store}", f"root={example.config.root}", "n=4"]
    first = CliRunner().invoke(command, [*words, "stage=proposals"])
    assert "replaced" not in first.output
    assert "replaced" not in CliRunner().invoke(command, [*words, "stage=proposals"]).output
    other = CliRunner().invoke(command, [*words, "stage=cls_maps"])
    assert f"replaced the report of tiny train, proposals {BOXES_KEY}; out=FILE.html keeps both" in other.output
    again = CliRunner().invoke(command, [*words, "stage=proposals", "--json"])
    assert json.loads(again.stdout)["replaced"] == f"tiny train, cls_maps {MAPS_KEY}"


def test_images_that_are_not_there_are_said_and_a_wrong_root_is_refused(example):
    words = [f"dataset={example.config.dataset}", f"store={example.config.store}", "n=4"]
    refused = CliRunner().invoke(command, [*words, f"root={example.folder / 'nowhere'}"])
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception).startswith(f"root={example.folder / 'nowhere'}: no such folder")
    assert not (example.folder / "store" / "tiny" / "report.html").exists()
    without = CliRunner().invoke(command, words)
    assert without.exit_code == 0
    assert "note: The image files are not here" in without.output


def test_a_folder_without_any_of_the_images_replaces_no_report(example, tmp_path):
    words = [f"dataset={example.config.dataset}", f"store={example.config.store}", "n=4"]
    assert CliRunner().invoke(command, [*words, f"root={example.config.root}"]).exit_code == 0
    page = example.folder / "store" / "tiny" / "report.html"
    before = page.read_bytes()
    (tmp_path / "empty").mkdir()
    refused = CliRunner().invoke(command, [*words, f"root={tmp_path / 'empty'}"])
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception).startswith(f"root={tmp_path / 'empty'} holds none of the 4 images of the page")
    assert page.read_bytes() == before


def test_a_page_is_written_to_a_file_that_ends_in_html_alone(example, tmp_path):
    words = [f"dataset={example.config.dataset}", f"store={example.config.store}", f"out={tmp_path / 'page.pdf'}"]
    refused = CliRunner().invoke(command, words)
    assert isinstance(refused.exception, ConfigError)
    assert "page.pdf: expected file that ends in .html" in str(refused.exception)
    assert not (tmp_path / "page.pdf").exists()


def test_every_chart_of_the_page_is_written_as_files(example, tmp_path):
    words = [f"dataset={example.config.dataset}", f"store={example.config.store}", f"root={example.config.root}", "n=4"]
    result = CliRunner().invoke(command, [*words, f"plots={tmp_path / 'charts'}", "--json"])
    assert result.exit_code == 0, result.output
    files = [Path(name) for name in json.loads(result.stdout)["plots"]]
    assert {path.suffix for path in files} == {".svg", ".pdf", ".png", ".csv"}
    page = (example.folder / "store" / "tiny" / "report.html").read_text()
    shown = re.findall(r"<figure><figcaption>(.*?)</figcaption>", page)
    drawn = [path.read_text() for path in files if path.suffix == ".svg"]
    titles = [title for text in drawn for title in shown if f">{title}</text>" in text]
    assert titles == shown
    assert len(shown) == 6  # of IoU, success, thresholds, scores, sizes and sources
    names = {path.stem.rpartition("-")[2] for path in files}
    assert names == {"iou", "success", "thresholds", "reliability", "sizes", "sources"}
    for path in files:
        if path.suffix == ".svg":
            ElementTree.parse(path)
    (values,) = (path.read_text().splitlines() for path in files if path.name.endswith("success.csv"))
    assert values[0] == 'curve,"at least this IoU, per cent",per cent'
    assert values[1:3] == ["first box,0,100", "first box,1,100"]


def test_shares_and_iou_are_in_per_cent_on_every_axis(example):
    html, _ = read(gather(example.config))
    charts = re.findall(r'<div class="chart" role="img" aria-label="([^"]*)">(.*?)</div>', html, re.S)
    assert len(charts) == 4
    for label, drawn in charts:
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
        of_iou = "IoU, per cent" in label or "ground truth, per cent" in label
        across = [f"{20 * at if of_iou else at / 5:g}" for at in range(6)]
        assert texts[:6] == across
        assert all(text.endswith(" %") for text in texts[7:])


def test_the_same_chart_has_the_same_bytes_and_the_colours_of_the_page(tmp_path):
    curves = [Curve(f"line {n}", np.linspace(0, 1, 5) / (n + 1), np.arange(5)) for n in range(9)]
    plot = Plot("Nine <lines>", "step", curves, far=4)
    once = draw_figure(plot)
    assert once == draw_figure(plot)
    assert "&lt;lines&gt;" in once
    used = set(re.findall(r"var\(--([^)]*)\)", once))
    assert used == {*COLOURS, "soft", "rule"} - {"best5", "cut"}
    assert not re.search("#[0-9a-f]{6}", once.replace("#ffffff", ""))
    (first, *_), (second, *_) = save_plots(tmp_path / "a", {"x": plot}), save_plots(tmp_path / "b", {"x": plot})
    assert first.read_bytes() == second.read_bytes()


def test_a_page_of_24_large_rows_stays_below_four_megabytes(make_example):
    example = make_example(rows=26, sizes=(500, 700), n_maps=13, grid=28)
    written = write_report(gather(example.config, n=24))
    assert written.shown == 24
    assert written.bytes < 4 * 2**20


def test_segments_are_drawn_as_borders():
    labels = np.zeros((224, 224), np.uint16)
    labels[:, 100:] = 256  # equal to 0 in eight bits
    picture = Image.open(io.BytesIO(base64.b64decode(edges_picture(labels).partition(",")[2]))).convert("RGBA")
    alpha = np.asarray(picture)[..., 3]
    assert (alpha[:, 100] > 0).all()
    assert not np.delete(alpha, 100, axis=1).any()


@pytest.mark.parametrize(("side", "drawn_as"), [(224, 9), (14, 64)])
def test_drawn_pixels_are_seen_and_patches_keep_their_size(side, drawn_as):
    sides = np.zeros((2, side, side), bool)
    sides[0, 5, 6] = sides[1, 10, 12] = True
    data = drawn_picture(*sides).partition(",")[2]
    colours = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    for colour in DRAWN_COLOURS:
        assert ((colours[..., :3] == colour).all(-1) & (colours[..., 3] > 0)).sum() == drawn_as


def test_overlays_are_switched_by_style_alone(example):
    """Every switch of the gallery has a rule, and every rule a switch."""
    html, page = read(gather(example.config))
    switches = {
        attrs["id"] for tag, attrs in page.tags if tag == "input" and (attrs.get("id") or "").startswith("layer-")
    }
    style = html[html.index("<style>") : html.index("</style>")]
    assert switches == set(re.findall(r"#(layer-[\w-]+)", style))
    picks = {attrs["class"] for tag, attrs in page.tags if tag == "input" and "pick" in (attrs.get("class") or "")}
    assert picks <= {"pick-none", *re.findall(r"(pick-\d+)", style)}


def test_two_results_are_shown_with_their_difference(make_example):
    example = make_example()
    material = gather(example.config, beside="cls_maps")
    html, page = read(material)
    quality, rival = material.quality, material.rival_quality
    for each in page.facts():
        row = each["row"]
        if quality.scored[row]:
            wanted = quality.ious["top1"][row] - rival.ious["cut"][row]
            assert each["difference"] == pytest.approx(wanted, abs=1e-4)
    assert "difference to cls_maps" in html


@pytest.mark.parametrize(
    ("beside", "kind", "told"),
    [
        ("clas_maps", StoreError, "did you mean 'cls_maps'"),
        ("regions:abc", StoreError, "no regions with key abc under"),
    ],
)
def test_what_cannot_be_compared_with_is_said(example, beside, kind, told):
    with pytest.raises(kind, match=told):
        gather(example.config, beside=beside)


def test_more_rows_than_one_page_holds_lie_on_pages_that_the_list_leads_to(example, tmp_path, monkeypatch):
    monkeypatch.setattr(row_cards, "ONE_PAGE", 30)
    monkeypatch.setattr(row_cards, "ROWS", 16)
    out = tmp_path / "many" / "page.html"
    (out.parent / "page-rows").mkdir(parents=True)
    (out.parent / "page-rows" / "0007.html").write_text("of a longer report")
    written = write_report(gather(example.config, n=1000), out)
    pages = sorted(path.name for path in (out.parent / "page-rows").iterdir())
    assert written.pages == 3
    assert pages == ["0000.html", "0001.html", "0002.html"]
    front = Reader(out.read_text())
    links = [attrs["href"] for tag, attrs in front.tags if tag == "a" and "page-rows" in (attrs["href"] or "")]
    assert links == [f"page-rows/{name}" for name in pages]
    texts = [(out.parent / "page-rows" / name).read_text() for name in pages]
    assert [int(card["data-row"]) for text in texts for card in Reader(text).cards()] == list(range(40))
    with pytest.raises(ConfigError, match="over 30 rows"):
        write_report(gather(example.config, n=1000))
