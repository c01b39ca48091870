"""A table of published figures, those found here and the difference: as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from wsolpipe.pages.charts import escaped, latex_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsoltrain.papers.found import Found
    from wsoltrain.papers.table import PaperTable, Row

    Cells = Mapping[tuple[int, int], Found]

NONE = "–"
ORACLE = "*"
ORACLES = f"{ORACLE} oracle: the truth of the scored images chose the threshold, or the run"


def text_of(table: PaperTable, cells: Cells) -> list[list[str]]:
    """Lines of the table as a paper has it: a line a row, ``published | here ± interval | difference`` in each cell."""
    columns = sorted({column for _, column in cells})
    lines = [["", *(table.columns[column].title for column in columns)]]
    for row in sorted({row for row, _ in cells}):
        shown = []
        for column in columns:
            found = cells.get((row, column))
            shown.append("" if found is None else _joined(table.rows[row], column, found))
        lines.append([_named(table.rows[row]), *shown])
    return lines


def notes_of(table: PaperTable, cells: Cells) -> list[str]:
    """Notes of the table, then why cells have no figure: each reason once, with its rows."""
    reasons: dict[str, list[str]] = {}
    for (row, _), found in sorted(cells.items()):
        if found.note:
            names = reasons.setdefault(found.note, [])
            if _named(table.rows[row]) not in names:
                names.append(_named(table.rows[row]))
    return [*table.notes, *(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())]


COLUMNS = ("row", "backbone", "column", "published", "here", "low", "high", "difference", "tau", "threshold", "oracle",
           "note")  # fmt: skip


def thresholds_of(table: PaperTable, cells: Cells) -> list[str]:
    """Where the thresholds of the cells come from: one line where all agree, else a line a row."""
    rows: dict[int, list[str]] = {}
    for (row, _), found in sorted(cells.items()):
        said = rows.setdefault(row, [])
        if found.threshold.by and str(found.threshold) not in said:
            said.append(str(found.threshold))
    shared = {tuple(said) for said in rows.values() if said}
    lines = [f"thresholds: {'; '.join(said)}" for said in shared]
    if len(shared) > 1:
        lines = [f"thresholds of {_named(table.rows[row])}: {'; '.join(said)}" for row, said in rows.items() if said]
    return [*lines, *([ORACLES] if any(found.threshold.oracle for found in cells.values()) else [])]


def csv_of(table: PaperTable, cells: Cells) -> str:
    """The cells as CSV, numbers in full, a line a cell with its threshold: `COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for (row, column), found in sorted(cells.items()):
        own, published = table.rows[row], table.rows[row].published[column]
        difference = found.value - published if _numbers(found.value, published) else None  # type: ignore[operator]
        writer.writerow([
            own.name, own.backbone, table.columns[column].title, published, found.value, found.low, found.high,
            difference, found.threshold.tau, found.threshold.by, found.threshold.oracle, found.note,
        ])  # fmt: skip
    return text.getvalue()


def latex_of(table: PaperTable, cells: Cells, *, caption: str) -> str:
    """The table as LaTeX, with booktabs; for each column published, here and difference."""
    columns = sorted({column for _, column in cells})
    head = [
        " & ".join(["", *(rf"\multicolumn{{3}}{{c}}{{{escaped(table.columns[column].title)}}}" for column in columns)]),
        " & ".join(["", *(["published", "here", "difference"] * len(columns))]),
    ]
    rows = []
    for row in sorted({row for row, _ in cells}):
        shown = [_named(table.rows[row])]
        for column in columns:
            found = cells.get((row, column))
            published = table.rows[row].published[column]
            shown += ["", "", ""] if found is None else _three(published, found)
        rows.append(shown)
    return latex_table(
        head, rows, caption=caption, columns=f"l{'rrr' * len(columns)}", notes=thresholds_of(table, cells)
    )


def _named(row: Row) -> str:
    return f"{row.name}, {row.backbone}" if row.backbone else row.name


def _joined(row: Row, column: int, found: Found) -> str:
    return " | ".join(_three(row.published[column], found))


def _three(published: float | str | None, found: Found) -> list[str]:
    return [_published(published), _here(found), _difference(published, found)]


def _published(value: float | str | None) -> str:
    return NONE if value is None else value if isinstance(value, str) else f"{value:g}"


def _here(found: Found) -> str:
    if found.value is None:
        return NONE
    if isinstance(found.value, str):
        return found.value
    value = f"{found.value:.2f}{ORACLE if found.threshold.oracle else ''}"
    return value if found.half is None else f"{value} ± {found.half:.1f}"


def _difference(published: float | str | None, found: Found) -> str:
    if _numbers(found.value, published):
        return f"{round(found.value - published, 2) + 0.0:+.2f}"  # type: ignore[operator]
    if isinstance(published, str) and found.value is not None:
        return "same" if found.value == published else "differs"
    return NONE


def _numbers(*values: object) -> bool:
    return all(isinstance(value, (int, float)) for value in values)
