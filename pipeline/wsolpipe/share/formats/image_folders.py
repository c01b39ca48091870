"""Folders of images with one file of labels: Hugging Face `datasets` and FiftyOne."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import DataError, raise_as
from wsolpipe.images.importers.lines import read_json
from wsolpipe.images.label_lines import LabelBox, LabelledImage, entry_of, read_box
from wsolpipe.share.formats.base import Format, Found, Subject, find_file, placed_name, stem_of


class HfFolder(Format):
    """``metadata.jsonl`` beside the images, with lists of boxes (x, y, width, height), names and scores a row."""

    about = "Hugging Face datasets: metadata.jsonl beside the images, for load_dataset('imagefolder')"
    loss = "nothing of boxes, names and scores; a box without a score gets null"
    with_images = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``metadata.jsonl`` and the images."""
        path = folder / "metadata.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for image in images:
                name = placed_name(image.path)
                edges = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in (box.edges for box in image.boxes)]
                objects = {
                    "bbox": edges,
                    "category": [subject.label(box) for box in image.boxes],
                    "score": [box.score for box in image.boxes],
                }
                line = {"file_name": name, "image_id": image.image_id, "width": image.width, "height": image.height,
                        "labels": list(image.labels), "objects": objects}  # fmt: skip
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                subject.place(image, folder / name)
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes by image id, or by file name where another tool wrote the file."""
        file = find_file(path, "metadata.jsonl", f"{split}/metadata.jsonl")
        with raise_as(DataError, f"cannot read {file}", OSError, UnicodeDecodeError):
            lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            where = f"{file}:{number}"
            with entry_of(where, "an object with file_name and objects of equal lists bbox, category and score"):
                if line.strip():
                    yield _read_line(json.loads(line), where)


def _read_line(values: Any, where: str) -> Found:
    objects = values.get("objects") or {}
    edges = objects.get("bbox") or []
    names = objects.get("category") or objects.get("categories") or [""] * len(edges)
    scores = objects.get("score") or [None] * len(edges)
    boxes = [
        read_box(box, name, score=score, sized=True) for box, name, score in zip(edges, names, scores, strict=True)
    ]
    return Found(str(values.get("image_id") or values["file_name"]), tuple(boxes), where)


class FiftyOne(Format):
    """A FiftyOneImageDetectionDataset: ``data/``, and ``labels.json`` with boxes as shares of the image."""

    about = "FiftyOne: labels.json and data/ of a FiftyOneImageDetectionDataset"
    loss = "nothing; edges are shares of the image's sides"
    with_images = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``labels.json`` and ``data/``."""
        path = folder / "labels.json"
        (folder / "data").mkdir(exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write('{"classes": null, "labels": {')
            for place, image in enumerate(images):
                found = [_detection(box, image, subject) for box in image.boxes]
                name = json.dumps(stem_of(image.path), ensure_ascii=False)
                file.write(f"{',' if place else ''}\n{name}: {json.dumps(found, ensure_ascii=False)}")
                subject.place(image, folder / "data" / placed_name(image.path))
            file.write("}}\n")
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes by the image's path without its ending."""
        file = find_file(path, "labels.json", f"{split}/labels.json")
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
            msg = f"{file} is not the labels.json of a FiftyOneImageDetectionDataset"
            raise DataError(msg)
        classes = content.get("classes") or []
        for name, items in content["labels"].items():
            with entry_of(f"{file}: {name}", "a list of objects with label and bounding_box"):
                boxes = tuple(_read_detection(item, classes) for item in items or ())
            yield Found(name, boxes, f"{file}: {name}", relative=True)


def _detection(box: LabelBox, image: LabelledImage, subject: Subject) -> dict[str, object]:
    x0, y0, x1, y1 = box.edges
    shares = [x0 / image.width, y0 / image.height, (x1 - x0) / image.width, (y1 - y0) / image.height]
    score = {} if box.score is None else {"confidence": box.score}
    return {"label": subject.label(box), "bounding_box": shares, **score}


def _read_detection(item: Any, classes: list[str]) -> LabelBox:
    label = item["label"]
    name = classes[label] if isinstance(label, int) and classes else str(label)
    return read_box(item["bounding_box"], name, score=item.get("confidence"), sized=True)
