"""The page of figures: one line a figure, and what was not measured again is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import results_page
from figures import Figure
from results_page import Line, lines_of, other_machine, write_page

SHIPPED = Path(__file__).parents[2] / "docs" / "benchmarks.md"


@pytest.fixture
def page(tmp_path):
    return tmp_path / "docs" / "benchmarks.md"


def line(bench, value, **more):
    figure = Figure(name="stage / bare forward", value=value, limit=0.9, **more)
    return Line.of(bench, figure, f"commit of {value}")


def test_page_has_a_line_a_figure_and_keeps_the_part_of_the_other_device(page, monkeypatch):
    monkeypatch.setattr(results_page, "_gpus", lambda: "Some GPU")
    write_page(page, [line("cls_maps", 0.957), Line("peer", verdict="FAIL: not\nthere | at all")], kind="CPU")
    write_page(page, [line("cls_maps", 0.88)], kind="GPU")
    write_page(page, [line("cls_maps", 0.971, goal=0.97, spread=(0.97, 0.9721))], kind="CPU")
    text = page.read_text()
    assert text.index("## CPU") < text.index("## GPU")
    row = "| cls_maps | stage / bare forward | 0.971 | 0.97 … 0.9721 | ≥ 0.9 | ≥ 0.97 | pass | commit of 0.971 |"
    assert row in text
    assert "| cls_maps | stage / bare forward | 0.88 | – | ≥ 0.9 | – | FAIL | commit of 0.88 |" in text
    assert "0.957" not in text
    assert "peer" not in text
    assert text.count("## ") == 2
    assert "Some GPU" in text.split("## GPU")[1]


def test_each_figure_has_its_own_verdict(page):
    skipped = Line.of("cls_maps", Figure(name="on a GPU", reason="no GPU"), "")
    write_page(page, [line("cls_maps", 0.99), line("cls_maps", 0.89), skipped], kind="CPU")
    assert [found.verdict for found in lines_of(page, "CPU")] == ["pass", "FAIL", "skip: no GPU"]


def test_lines_of_benches_that_were_not_run_stay_with_their_own_commits(page):
    write_page(page, [line("b", 0.91), line("c", 0.92), line("c", 0.93)], kind="CPU")
    write_page(page, [line("c", 0.94), line("a", 0.95)], kind="CPU", keep=True)
    found = [(each.bench, each.measured, each.stamp) for each in lines_of(page, "CPU")]
    assert found == [
        ("a", "0.95", "commit of 0.95"), ("b", "0.91", "commit of 0.91"), ("c", "0.94", "commit of 0.94")
    ]  # fmt: skip
    assert page.read_text().count("## CPU") == 1


def test_lines_are_read_as_they_were_written(page):
    lines = [Line("a", verdict="FAIL: exit code 3: what / why"), line("b", 1.0, unit="ms", spread=(0.5, 2.0))]
    write_page(page, lines, kind="CPU")
    assert lines_of(page, "CPU") == lines


def test_a_part_of_another_machine_is_known(page, monkeypatch):
    assert other_machine(page, "CPU") == ""
    write_page(page, [line("a", 1.0)], kind="CPU")
    assert other_machine(page, "CPU") == ""
    monkeypatch.setattr(results_page, "PACKAGES", ("numpy",))
    assert "torch" in other_machine(page, "CPU")


def test_lines_of_the_shipped_page_are_of_benches_that_are_there():
    from bench.run_all import find_benches

    lines = lines_of(SHIPPED, "CPU")
    assert {each.bench for each in lines} <= set(find_benches("cpu"))
    assert all(each.verdict.split(":")[0] in ("pass", "FAIL", "shown", "skip") and each.stamp for each in lines)
