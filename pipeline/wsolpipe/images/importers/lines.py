"""Reading metadata: files to lines, JSON or XML, lines to paths, labels and boxes, each error with file and line."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from wsolpipe.contract.errors import ConfigError, DataError, raise_as, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.listing import Problems

    Element = ElementTree.Element


#: Endings of files that may be images; compared in lower case.
IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
    ".avif", ".mpo", ".apng", ".jfif",
)  # fmt: skip
_UP = re.compile(r"(^|[/\\])\.\.([/\\]|$)")

#: What may be wrong where a box ends before it begins, or lies outside its image.
XYWH = ": where the last two numbers are width and height, box_format: xywh in the data set's YAML says so"

#: (name, size in bytes, mtime in ns) of a file or folder; size −1 for a missing one, 0 for folders.
Stamp = tuple[str, int, int]
Edges = tuple[float, float, float, float]


@dataclass(frozen=True)
class TextFile:
    """A metadata file: its lines, and the name by which messages call it.

    Attributes
    ----------
    path : Path
        Where it is.
    shown : str
        Its path as messages show it.
    lines : list of str
        Without line ends and surrounding white space; line 1 is at position 0; may be empty strings.
    """

    path: Path
    shown: str
    lines: list[str]

    def at(self, number: int) -> str:
        """``file:line`` of line `number`, counted from 1."""
        return f"{self.shown}:{number}"


def read_lines(path: Path, shown: str, problems: Problems) -> TextFile:
    """Read a UTF-8 text file of any line ends, with or without a final one.

    A line that is not UTF-8 or holds a NUL is noted in `problems` and read as empty.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        lines = text.split("\n")
        bad = [number for number, line in enumerate(lines, 1) if "\0" in line] if "\0" in text else []
    except UnicodeDecodeError:
        raw = data.split(b"\n")
        lines = [line.decode("utf-8", errors="replace") for line in raw]
        bad = [number for number, line in enumerate(lines, 1) if "\ufffd" in line or "\0" in line]
    for number in bad:
        problems.add(f"{shown}:{number}", "not UTF-8 text")
        lines[number - 1] = ""
    return TextFile(path, shown, [line.strip() for line in lines])


def path_fault(path: str) -> str | None:
    """Why `path` cannot be a path inside the root, or None."""
    if not path:
        return "empty path"
    if "\0" in path:
        return f"path {path!r} holds a NUL character"
    if path[0] in "/\\" or path[1:2] == ":":
        return f"absolute path {path!r}: paths are relative to the root"
    if ".." in path and _UP.search(path):
        return f"path {path!r} leaves the root with '..'"
    return None


def parse_box(fields: list[str], *, sized: bool = False) -> Edges | str:
    """Four numbers as a box x0, y0, x1, y1 (`sized`: x0, y0, width, height), or what is wrong with them."""
    try:
        x0, y0, x1, y1 = map(float, fields)
    except ValueError:
        return (
            f"not a box: {','.join(fields)!r} should be four numbers {'x,y,width,height' if sized else 'x0,y0,x1,y1'}"
        )
    if sized:
        x1, y1 = x0 + x1, y0 + y1
    return box_fault(x0, y0, x1, y1) or (x0, y0, x1, y1)


def box_fault(x0: float, y0: float, x1: float, y1: float) -> str | None:
    """Why these numbers are not a box, or None."""
    if not (isfinite(x0) and isfinite(y0) and isfinite(x1) and isfinite(y1)):
        return f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is not finite"
    if x1 < x0 or y1 < y0:
        return f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) ends before it begins{XYWH}"
    return None


def read_classes(config: DatasetConfig, default: Path | None, problems: Problems) -> tuple[int | None, dict[int, str]]:
    """Number of classes and names by label, from the YAML's `classes` and the class list, if there is one.

    A list of ``label,name`` lines; a count in the YAML wins over the largest label of the list.
    """
    path = config.locate("classes", config.classes) if isinstance(config.classes, str) else default
    count = config.classes if isinstance(config.classes, int) else None
    names: dict[int, str] = {}
    if path is None:
        return count, names
    text = read_lines(path, path.name, problems)
    for number, line in enumerate(text.lines, 1):
        if not line:
            continue
        label, comma, name = line.partition(",")
        if not comma or not label.strip().isdecimal():
            problems.add(text.at(number), f"not 'label,name': {line!r}")
        elif int(label) in names:
            problems.add(text.at(number), f"label {int(label)} is named twice")
        elif count is not None and int(label) >= count:
            problems.add(text.at(number), f"label {int(label)} is outside the {count} classes, 0 to {count - 1}")
        else:
            names[int(label)] = name.strip()
    return (max(names) + 1 if names and count is None else count), names


def settle_classes(
    config: DatasetConfig, problems: Problems, look: Callable[[], dict[int, str]]
) -> tuple[int | None, dict[int, str]]:
    """Number of classes and names by label: those of the class list, else those that `look` finds in the data set."""
    count, names = read_classes(config, None, problems)
    if not names:
        names = look()
        count = max(len(names), count or 0) or None
    return count, names


def label_of(given: Any, labels: Mapping[str, int], count: int | None) -> int:
    """Label that a number or the name of a class stands for.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if str(given) in labels:
        return labels[str(given)]
    try:
        label = int(str(given))
    except ValueError:
        known = unknown("class", str(given), labels) if labels else f"label {given!r} is not an integer"
        raise ValueError(known) from None
    if label < 0 or (count is not None and label >= count):
        msg = f"label {label} is " + (
            f"outside the {count} classes, 0 to {count - 1}" if count is not None else "negative"
        )
        raise ValueError(msg)
    return label


def labels_by_area(boxes: Iterable[tuple[int, Edges]]) -> tuple[int, ...]:
    """Labels of the boxes of an image, each once, that of the largest box first."""
    ordered = sorted(boxes, key=lambda item: -(item[1][2] - item[1][0]) * (item[1][3] - item[1][1]))
    return tuple(dict.fromkeys(label for label, _ in ordered))


def metadata_file(config: DatasetConfig, split: str, ending: str, *, needs: str, kind: str) -> Path:
    """The file of a split: `metadata` itself, or, where that is a folder, the file in it that the split maps to.

    Raises
    ------
    ConfigError
        If there is no such file.
    """
    if config.metadata is None:
        msg = f"data set {config.name}: layout {config.layout} needs metadata: {needs}"
        raise ConfigError(msg)
    path = config.locate("metadata", config.metadata)
    if path.is_dir():
        path = path / (config.split_folder(split) or f"{split}{ending}")
    if not path.is_file():
        msg = f"data set {config.name}: no {kind} {path} for split {split}"
        raise ConfigError(msg, hint="metadata: names a file, or a folder where split: maps each split to its file")
    return path


def common_sources(config: DatasetConfig) -> Iterator[Stamp]:
    """The class list and the folders of masks, where the data set names them: any layout may read them."""
    if isinstance(config.classes, str):
        yield stamp(config.locate("classes", config.classes))
    if config.masks:
        yield from stamp_folders(config.mask_root(), "masks")


def stamp(path: Path | str, name: str | None = None) -> Stamp:
    """Size and time of a file or folder."""
    shown = name if name is not None else os.path.basename(path)
    try:
        status = os.stat(path)
    except OSError:
        return shown, -1, 0
    return shown, 0 if os.path.isdir(path) else status.st_size, status.st_mtime_ns


def stamp_folders(folder: Path | str, name: str, *, top: bool = True) -> Iterator[Stamp]:
    """Stamps of a folder and all folders below it; files are not read.

    Links to folders are followed in the first folder, and deeper where real folders lie beside them.
    """
    yield stamp(folder, name)
    try:
        # A folder whose link count is 2 has no folders in it (its own name and its dot), so its thousands of files need
        # not be read; file systems that do not count links report 1.
        if not top and os.stat(folder).st_nlink == 2:
            return
        with os.scandir(folder) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    for child in below:
        yield from stamp_folders(os.path.join(folder, child), f"{name}/{child}", top=False)


def read_json(path: Path) -> Any:
    """Value of a JSON file.

    Raises
    ------
    DataError
        If it cannot be read or is not JSON; names the line.
    """
    data = _bytes_of(path)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        msg = f"{path}:{error.lineno}: not JSON: {error.msg}"
        raise DataError(msg) from error
    except (UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not JSON: {'nested too deep' if isinstance(error, RecursionError) else 'not UTF-8 text'}"
        raise DataError(msg) from error


def read_xml_tree(path: Path) -> Element:
    """Root element of an XML file; a document type, which could define entities, is refused.

    Raises
    ------
    DataError
        If it cannot be read or is not XML; names the line.
    """
    data = _bytes_of(path)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        msg = f"{path} declares a document type or entities, which are not read"
        raise DataError(msg, hint="export it again without them")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        msg = f"{path}:{error.position[0]}: not XML: {str(error).partition(':')[0]}"
        raise DataError(msg) from error


def _bytes_of(path: Path) -> bytes:
    with raise_as(DataError, f"cannot read {path}", OSError):
        return path.read_bytes()


def text_of(element: Element, name: str) -> str:
    """Text of a child, empty where there is none."""
    return (element.findtext(name) or "").strip()
