"""YOLO: a text file an image with ``class x y width height`` as shares of the image, and ``data.yaml``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import yaml

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.lines import box_fault
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.keys.safe_yaml import read_yaml
from wsolpipe.share.formats.base import Format, Found, class_list, placed_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject


class Yolo(Format):
    """Labels for training with five columns, and beside them predictions with the score in a sixth."""

    about = "YOLO (darknet, ultralytics): labels/ with five columns, predictions/ with the score too, data.yaml"
    loss = "scores, unless in= names the folder predictions; edges keep six decimals of the image's sides"
    with_images = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``labels/``, ``predictions/``, ``images/`` (if asked for), ``images.txt`` and ``data.yaml``."""
        highest, listed = -1, []
        for image in images:
            name = f"{stem_of(image.path)}.txt"
            plain, scored = [], []
            for box in image.boxes:
                highest = max(highest, box.label or 0)
                line = " ".join([str(box.label or 0), *(f"{value:.6f}" for value in _shares(box, image))])
                plain.append(f"{line}\n")
                scored.append(f"{line} {1.0 if box.score is None else box.score:.6g}\n")
            for part, lines in (("labels", plain), ("predictions", scored)):
                target = folder / part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text("".join(lines), encoding="utf-8")
            listed.append(f"./images/{placed_name(image.path)}\n")
            if subject.images != "none":
                subject.place(image, folder / "images" / placed_name(image.path))
        names = class_list(subject.class_names)
        names += ["object" if not names and highest == 0 else str(label) for label in range(len(names), highest + 1)]
        (folder / "images.txt").write_text("".join(listed), encoding="utf-8")
        content = {"path": ".", subject.split: "images.txt", "names": dict(enumerate(names))}
        for part in ("train", "val"):
            content.setdefault(part, "images.txt")  # ultralytics wants both
        description = folder / "data.yaml"
        description.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return [description, folder / "labels"]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes of every text file below ``labels/``, or below `path` itself where it holds none of that name."""
        top = path / "labels" if (path / "labels").is_dir() else path
        if not top.is_dir():
            msg = f"{path} is not a folder of YOLO labels"
            raise DataError(msg, hint="in= names the folder that holds labels/ and data.yaml")
        names = _names(
            next((base / "data.yaml" for base in (path, path.parent) if (base / "data.yaml").is_file()), None)
        )
        files = sorted(file for file in top.rglob("*.txt") if file.name not in {"classes.txt", "images.txt"})
        for file in files:
            inside = os.path.relpath(file, top).removesuffix(".txt").replace(os.sep, "/")
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                msg = f"cannot read {file}: not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
                raise DataError(msg) from error
            boxes = [_read_box(line, f"{file}:{number}", names) for number, line in enumerate(lines, 1) if line.strip()]
            yield Found(inside, tuple(boxes), str(file), relative=True)


def _shares(box: LabelBox, image: LabelledImage) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box.edges
    width, height = image.width, image.height
    return (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height


def _names(path: Path | None) -> dict[int, str]:
    if path is None:
        return {}
    content = read_yaml(path)
    names = content.get("names") if isinstance(content, dict) else None
    pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
    return {int(label): str(name) for label, name in pairs}


def _read_box(line: str, where: str, names: dict[int, str]) -> LabelBox:
    fields = line.split()
    try:
        label, x, y, width, height, *rest = int(fields[0]), *map(float, fields[1:])
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        fault = bool(box_fault(*edges)) or len(rest) > 1
    except (ValueError, IndexError):
        fault = True
    if fault:
        msg = f"{where}: {line.strip()[:80]!r} is not 'class x y width height [score]'"
        raise DataError(msg)
    score = rest[0] if rest else None
    return LabelBox(edges, names.get(label, ""), label, score)
