"""Tables of figures as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.evaluate.glossary import format_figure, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = {
    "accuracy": "MaxBoxAcc", "v2": "MaxBoxAccV2", "pxap": "PxAP", "top1": "top1_loc", "top5": "top5_loc",
    "accuracy_top1": "CL", "iou": "iou", "rows": "rows",
}  # fmt: skip
"""Fields of a line, and what the glossary calls them."""


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first line holds the titles; all of one number of cells."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def format_lines(lines: list[dict[str, Any]]) -> list[str]:
    """The table as text, a line a method; columns without a figure are left out."""
    columns = {name: figure for name, figure in COLUMNS.items() if any(line[name] is not None for line in lines)}
    cells = [["", *(shown_name(figure) for figure in columns.values()), "threshold"]]
    for line in lines:
        values = ((figure, line[name]) for name, figure in columns.items())
        figures = ["" if value is None else str(format_figure(figure, value)) for figure, value in values]
        cells.append([line["name"], *figures, f"{line['threshold']}{' (oracle)' if line['oracle'] else ''}".strip()])
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns) + 1)]
    shown = []
    for first, *figures, threshold in cells:
        padded = "  ".join(f"{text:>{width}}" for text, width in zip(figures, widths[1:], strict=True))
        shown.append(f"  {first:<{widths[0]}}  {padded}  {threshold}".rstrip())
    return shown
