"""Figures of maps: the built-in ones and one of another package pass one suite, and it works wherever they do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from stores import build_store
from wsolpipe.contract.errors import ConfigError
from wsolpipe.evaluate.figures import FIGURES
from wsolpipe.testing import FigureTests

OWN = '''
from wsolpipe.evaluate.figures import MapFigure


class Pointing(MapFigure):
    """Share of rows whose highest value lies in a box."""

    explained = {"pointing": {"shown": "pointing game", "kind": "per cent", "meaning": "Share of peaks in a box."}}

    def __init__(self):
        self.rows = self.right = 0

    def add(self, batch, truth):
        for row, score, silent in zip(batch.rows, batch.raw, batch.objectless):
            boxes = truth.boxes(int(row))
            if not len(boxes) or silent:
                continue
            self.rows += 1
            if score is not None:
                place = score.argmax()
                down, across = divmod(int(place), score.shape[1])
                width, height = truth.rows.sizes[int(row)]
                x, y = (across + 0.5) / score.shape[1] * width, (down + 0.5) / score.shape[0] * height
                inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
                self.right += int(inside.any())

    def result(self, tau):
        return {"pointing": 100 * self.right / self.rows if self.rows else None}
'''


@pytest.mark.parametrize("name", FIGURES.builtins)
class TestBuiltIn(FigureTests):
    """The suite, for each figure of the package."""

    @pytest.fixture(autouse=True)
    def chosen(self, name):
        self.figure = FIGURES.find(name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of a package that declares the figure, as an installation leaves it."""
    site = tmp_path_factory.mktemp("site")
    (site / "ownfigure.py").write_text(OWN)
    about = site / "ownfigure-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ownfigure\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        "[wsolpipe.figures]\npointing = ownfigure:Pointing\nbroken = ownfigure:None_\n"
    )
    return site


@pytest.fixture
def own(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    from ownfigure import Pointing

    return Pointing


class TestOfAnotherPackage(FigureTests):
    """The suite, for a figure of another package in less than forty lines."""

    @pytest.fixture(autouse=True)
    def chosen(self, own):
        assert len(OWN.splitlines()) < 40
        self.figure = own


def call(installed, *words):
    """Run ``wsolpipe eval`` with the package installed."""
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from wsolpipe.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", code, "eval", *words], capture_output=True, text=True, check=False)


def test_a_figure_of_another_package_is_in_eval_help_glossary_and_errors(installed, tmp_path):
    store = build_store(tmp_path, rows=12, sizes=(30, 50), split="test")
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\nsplit: {test: .}\n")
    words = ("stage=cls_maps", f"dataset={tmp_path}/tiny.yaml", f"store={store.url}")
    found = json.loads(call(installed, *words, "figures=pointing", "--json").stdout)
    assert found["pointing"] > 50
    assert "errors" not in found
    printed = call(installed, *words, "figures=pointing,otsu").stdout
    assert "pointing game" in printed
    assert "IoU, Otsu" in printed
    assert "broken, errors, otsu, pointing or values" in " ".join(call(installed, "--help").stdout.split())
    assert "Share of peaks in a box." in " ".join(call(installed, "glossary=true", "--json").stdout.split())
    assert "did you mean 'pointing'" in call(installed, *words, "figures=ponting").stderr
    assert "figure broken (ownfigure:None_) cannot be imported" in call(installed, *words, "figures=broken").stderr


def test_an_unknown_figure_is_answered_by_the_nearest():
    with pytest.raises(ConfigError, match="unknown figure 'error'; did you mean 'errors'"):
        FIGURES.find("error")
