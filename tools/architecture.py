"""Draw the rooms of both packages, layer above layer, and which rooms each one imports, as read from the code.

`reference.py` writes the picture to ``docs/reference/architecture.svg``, beside the pages of keys.
"""

from __future__ import annotations

import textwrap
import tomllib
from html import escape
from typing import TYPE_CHECKING

from check_structure import HALVES, imports, modules

if TYPE_CHECKING:
    from pathlib import Path

TITLES = {"wsoltrain": "wsoltrain: training from stores", "wsolpipe": "wsolpipe: labels in stores"}
WIDTHS = {"wsoltrain": 440, "wsolpipe": 560}
GAP, LINE, NAME, SIGN = 8, 14, 20, 6.4
"""Pixels between boxes, of a line and of a name's height, and of a character's width."""


def read_layers(root: Path) -> dict[str, list[list[str]]]:
    """Rooms of each half from the top layer to the bottom one, as the contracts of ``pyproject.toml`` order them."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    found = {}
    for contract in contracts:
        if contract["type"] == "layers":
            rows = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
            found[rows[0][0].partition(".")[0]] = [[name.partition(".")[2] for name in row] for row in rows]
    return found


def read_uses(root: Path) -> dict[str, set[str]]:
    """Rooms that each room imports, ``half.room`` both; imports for type checkers count."""
    known = modules(root)
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        room = ".".join(name.split(".")[:2])
        used = {".".join(other.split(".")[:2]) for other in imports(path, known)}
        found.setdefault(room, set()).update(used - {room})
    return found


def draw(root: Path) -> str:
    """SVG of both halves beside each other."""
    layers, uses = read_layers(root), read_uses(root)
    parts, left, lowest = [], GAP, 0
    for half, width in WIDTHS.items():
        parts.append(f'<text x="{left}" y="{NAME}" class="half">{escape(TITLES[half])}</text>')
        top = NAME + GAP
        for row in layers[half]:
            each = (width - GAP * (len(row) - 1)) / len(row)
            texts = {room: _wrap(half, uses[f"{half}.{room}"], layers, each) for room in row}
            height = NAME + LINE * max(map(len, texts.values())) + GAP
            for place, room in enumerate(row):
                x = left + place * (each + GAP)
                parts += _box(room, texts[room], (x, top, each, height), half)
            top += height + GAP
        left, lowest = left + width + 3 * GAP, max(lowest, top)
    size = f'viewBox="0 0 {left - 2 * GAP} {lowest}" width="{left - 2 * GAP}" height="{lowest}"'
    style = (
        "text{font:12px sans-serif;fill:#222}.half{font-weight:bold;font-size:15px}.room{font-weight:bold}"
        ".uses{fill:#555;font-size:11px}.wsolpipe{fill:#e8f0f8;stroke:#5b84ad}.wsoltrain{fill:#fbeede;stroke:#c08a3e}"
    )
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    title = "<title>Rooms of wsolpipe and wsoltrain: each imports only rooms below it</title>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{title}<style>{style}</style>{ground}'
    return "\n".join([head, *parts, "</svg>", ""])


def _wrap(half: str, used: set[str], layers: dict[str, list[list[str]]], width: float) -> list[str]:
    """Lines that name the rooms which a room imports, those of its own half first."""
    named = []
    for other in sorted(HALVES, key=lambda name: name != half):
        rooms = [room for row in layers[other] for room in row if f"{other}.{room}" in used]
        if rooms:
            named.append(f"{'' if other == half else f'{other}: '}{', '.join(rooms)}")
    return textwrap.wrap(f"imports {'; '.join(named)}", int(width / SIGN)) if named else []


def _box(room: str, lines: list[str], place: tuple[float, float, float, float], half: str) -> list[str]:
    x, y, width, height = place
    made = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" class="{half}"/>',
        f'<text x="{x + GAP:g}" y="{y + LINE:g}" class="room">{escape(room)}</text>',
    ]
    for number, line in enumerate(lines, 1):
        made.append(f'<text x="{x + GAP:g}" y="{y + LINE * (number + 1):g}" class="uses">{escape(line)}</text>')
    return made
