"""The page of figures: one line a figure, and the part of another device is kept."""

from __future__ import annotations

from results_page import Measured, read_spread, write_page


def test_page_has_a_line_a_figure_and_keeps_the_part_of_the_other_device(tmp_path, monkeypatch):
    import results_page

    monkeypatch.setattr(results_page, "_gpus", lambda: "Some GPU")
    page = tmp_path / "docs" / "benchmarks.md"
    slow = Measured("cls_maps", "stage / bare forward", "0.957", "≥ 0.9", "0.951 … 0.962", "pass")
    write_page(page, [slow, Measured("peer", "", "", "", "", "skip", "not\nthere")], kind="CPU")
    write_page(page, [Measured("cls_maps", "stage / bare forward", "0.98", "≥ 0.9", "", "pass")], kind="GPU")
    faster = Measured("cls_maps", "stage / bare forward", "0.971", "≥ 0.9", "0.970 … 0.972", "pass")
    write_page(page, [faster], kind="CPU")
    text = page.read_text()
    assert text.index("## CPU") < text.index("## GPU")
    assert "| cls_maps | stage / bare forward | 0.971 | ≥ 0.9 | 0.970 … 0.972 | pass |" in text
    assert "| cls_maps | stage / bare forward | 0.98 | ≥ 0.9 | – | pass |" in text
    assert "0.957" not in text
    assert text.count("## ") == 2
    assert "Some GPU" in text.split("## GPU")[1]
    assert "commit " in text


def test_spread_is_that_of_the_last_comparison():
    printed = "wall 0.9 (pairs 0.800 … 0.910), cpu\nwall 0.95 (pairs 0.940 … 0.961), cpu 0.9"
    assert read_spread(printed) == "0.940 … 0.961"
    assert read_spread("nothing") == ""
