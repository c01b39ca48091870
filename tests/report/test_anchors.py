"""Anchors in the report: from the artifact of a real store, both Gram matrices and both t-SNE; names escaped."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from wsolpipe.cli import run
from wsolpipe.contract.reader import open_store
from wsolpipe.pages.plot_files import save_plots
from wsolpipe.report.material import Material
from wsolpipe.report.sections.anchors import SECTION, _one


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("anchors") / "store")
    words = ["stage=text_anchors", "dataset=demo", f"store={url}", "device=cpu"]
    done = CliRunner().invoke(run.command, words)
    assert done.exit_code == 0, done.output
    return open_store(url)


def test_anchors_before_and_after_are_shown(store):
    facts = SECTION.facts(Material(store, "demo", "val", index=None))
    before, after = facts["shown"]
    assert (facts["count"], facts["how"]) == (8, "qr")
    assert before["largest"] == pytest.approx(0.593, abs=0.001)  # as the artifact itself records
    assert after["largest"] < 1e-5
    assert before["gram"].startswith("data:image/png;base64,")
    assert before["gram"] != after["gram"]
    assert before["points"].count("<circle") == 8
    assert "mushroom" in after["points"]


def test_the_maps_of_classes_are_written_as_files(store, tmp_path):
    plots = SECTION.plots(Material(store, "demo", "val", index=None))
    paths = save_plots(tmp_path, plots)
    assert [path.name for path in paths if path.suffix == ".svg"] == ["plain.svg", "anchors.svg"]
    assert {path.suffix for path in paths} == {".svg", ".pdf", ".png"}
    drawn = paths[0].read_text()
    assert drawn.count("<circle") == 8
    assert "mushroom" in drawn


def test_names_of_classes_are_escaped():
    points = _one("text vectors", np.eye(3, dtype=np.float32), ["<wren>", "gull", "tern"])["points"]
    assert "&lt;wren&gt;" in points
    assert "<wren>" not in points


def test_a_data_set_without_anchors_has_no_such_section(trainable_store):
    assert SECTION.facts(Material(trainable_store, "tiny", "train", index=None)) is None


@pytest.fixture
def trainable_store(tmp_path):
    from stores import build_store

    return open_store(build_store(tmp_path, rows=4).url)
