"""The check of the packages' structure: it passes here, and finds planted problems."""

from __future__ import annotations

from pathlib import Path

import pytest

import check_structure

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def house(tmp_path):
    """Writes modules of a small project."""

    def write(**files):
        for folder in ("pipeline/wsolpipe", "trainer/wsoltrain"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            half = "pipeline" if name.startswith("wsolpipe") else "trainer"
            path = tmp_path / half / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return check_structure.check(tmp_path)

    return write


@pytest.mark.parametrize(
    "back",
    [
        "from wsolpipe.a.one import f\n",
        "def g():\n    from wsolpipe.a import one\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wsolpipe.a.one\n",
    ],
    ids=["at the top", "in a function", "for types alone"],
)
def test_files_that_import_each_other_are_a_circle_wherever_the_import_stands(house, back):
    start = "from wsolpipe.b.two import g\n"
    assert (
        house(wsolpipe__a__one=start, wsolpipe__b__two="from wsolpipe.c.three import h\n", wsolpipe__c__three="") == []
    )
    assert house(wsolpipe__c__three=back) == ["import cycle: wsolpipe.a.one, wsolpipe.b.two, wsolpipe.c.three"]


def test_a_long_sentence_of_the_guide_is_found_and_code_tables_and_short_ones_are_not(house, tmp_path):
    guide = tmp_path / "docs/guide"
    guide.mkdir(parents=True)
    ten = "one two three four five six seven eight nine ten "
    table, code = f"| {ten * 4} |\n", f"```\n{ten * 4}\n```\n"
    (guide / "page.md").write_text(f"# {ten * 4}\n\n{table}{code}{ten * 2}.\n- {ten * 3}; {ten * 3}.\n- `{ten * 4}`\n")
    assert house() == []
    (guide / "page.md").write_text(f"Short.\n\n- Short. {ten * 2}\n{ten}eleven.\n")
    assert house() == ["page.md:3 has a sentence of 31 words: one two three four five six …"]


def test_a_long_module_is_found(house):
    assert house(wsolpipe__maps__otsu="x = 1\n" * 400) == []
    assert house(wsolpipe__maps__otsu="x = 1\n" * 401) == ["wsolpipe/maps/otsu.py has more than 400 lines"]


def test_two_modules_of_one_name_are_found_in_one_half_and_not_across_halves_or_in_folders_named_alike(house):
    assert (
        house(wsolpipe__maps__rows="", wsoltrain__data__rows="", wsolpipe__cli__rows="", wsolpipe__stages__rows="")
        == []
    )
    assert house(wsolpipe__report__rows="") == ["modules of one name: wsolpipe/maps/rows.py, wsolpipe/report/rows.py"]
