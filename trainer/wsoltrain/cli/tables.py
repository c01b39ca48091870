"""Tables of figures as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first line holds the titles; all of one number of cells."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def format_lines(lines: list[dict[str, Any]]) -> list[str]:
    """The table as text, a line a method; columns without a figure are left out."""
    columns = {
        "accuracy": ("MaxBoxAcc", ".2f"), "v2": ("MaxBoxAccV2", ".2f"), "pxap": ("PxAP", ".2f"),
        "top1": ("Top-1", ".2f"), "top5": ("Top-5", ".2f"), "accuracy_top1": ("CL", ".2f"),
    }  # fmt: skip
    columns = {name: column for name, column in columns.items() if any(line[name] is not None for line in lines)}
    columns |= {"iou": ("iou", ".3f"), "rows": ("rows", "d")}
    cells = [["", *(title for title, _ in columns.values()), "threshold"]]
    for line in lines:
        figures = ["" if line[name] is None else format(line[name], form) for name, (_, form) in columns.items()]
        cells.append([line["name"], *figures, line["threshold"]])
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns) + 1)]
    shown = []
    for first, *figures, threshold in cells:
        padded = "  ".join(f"{text:>{width}}" for text, width in zip(figures, widths[1:], strict=True))
        shown.append(f"  {first:<{widths[0]}}  {padded}  {threshold}".rstrip())
    return shown
