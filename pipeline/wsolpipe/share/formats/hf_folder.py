"""Hugging Face `datasets`: an image folder with ``metadata.jsonl``, as ``load_dataset("imagefolder")`` reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.lines import box_fault
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, class_name, find_file, placed_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject

NAME = "metadata.jsonl"


class HfFolder(Format):
    """``metadata.jsonl`` beside the images, with lists of boxes (x, y, width, height), names and scores a row."""

    about = "Hugging Face datasets: metadata.jsonl beside the images, for load_dataset('imagefolder')"
    loss = "nothing of boxes, names and scores; a box without a score gets null"
    with_images = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``metadata.jsonl`` and the images."""
        path = folder / NAME
        with path.open("w", encoding="utf-8") as file:
            for image in images:
                name = placed_name(image.path)
                edges = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in (box.edges for box in image.boxes)]
                objects = {
                    "bbox": edges,
                    "category": [box.name or class_name(subject.class_names, box.label) for box in image.boxes],
                    "score": [box.score for box in image.boxes],
                }
                line = {"file_name": name, "image_id": image.image_id, "width": image.width, "height": image.height,
                        "labels": list(image.labels), "objects": objects}  # fmt: skip
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                if subject.images != "none":
                    subject.place(image, folder / name)
        return [path]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes by image id, or by file name where another tool wrote the file."""
        file = find_file(path, NAME)
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"cannot read {file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
            raise DataError(msg) from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _read_line(line, f"{file}:{number}")


def _read_line(line: str, where: str) -> Found:
    fault, name = "", ""
    boxes: list[LabelBox] = []
    try:
        values = json.loads(line)
        objects = values.get("objects") or {}
        edges = objects.get("bbox") or []
        names = objects.get("category") or objects.get("categories") or [""] * len(edges)
        scores = objects.get("score") or [None] * len(edges)
        for box, category, score in zip(edges, names, scores, strict=True):
            x, y, width, height = map(float, box)
            found = (x, y, x + width, y + height)
            fault = fault or box_fault(*found) or ""
            boxes.append(LabelBox(found, str(category), None, None if score is None else float(score)))
        name = str(values.get("image_id") or values["file_name"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = str(error)
    if fault:
        msg = f"{where}: not an object with file_name and objects of equal lists bbox, category and score: {fault}"
        raise DataError(msg)
    return Found(name, tuple(boxes), where)
