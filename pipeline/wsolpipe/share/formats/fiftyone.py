"""FiftyOne: a folder of the type FiftyOneImageDetectionDataset, ``data/`` and ``labels.json``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import DataError
from wsolpipe.images.importers.json_files import read_json
from wsolpipe.images.importers.lines import parse_box
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, class_name, find_file, placed_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject


class FiftyOne(Format):
    """``labels.json`` with boxes as shares of the image; loaded by ``fo.Dataset.from_dir``."""

    about = "FiftyOne: labels.json and data/ of a FiftyOneImageDetectionDataset"
    loss = "nothing; edges are shares of the image's sides"
    with_images = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write ``labels.json`` and ``data/``."""
        path = folder / "labels.json"
        (folder / "data").mkdir(exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.write('{"classes": null, "labels": {')
            first = True
            for image in images:
                found = [_detection(box, image, subject) for box in image.boxes]
                name = json.dumps(stem_of(image.path), ensure_ascii=False)
                file.write(f"{'' if first else ','}\n{name}: {json.dumps(found, ensure_ascii=False)}")
                first = False
                if subject.images != "none":
                    subject.place(image, folder / "data" / placed_name(image.path))
            file.write("}}\n")
        return [path]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes by the image's path without its ending."""
        file = find_file(path, "labels.json")
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
            msg = f"{file} is not the labels.json of a FiftyOneImageDetectionDataset"
            raise DataError(msg)
        classes = content.get("classes") or []
        for name, items in content["labels"].items():
            try:
                yield Found(name, tuple(_read_box(item, classes) for item in items or ()), f"{file}: {name}", True)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                msg = f"{file}: {name}: not a list of objects with label and bounding_box"
                raise DataError(msg) from error


def _detection(box: LabelBox, image: LabelledImage, subject: Subject) -> dict[str, object]:
    x0, y0, x1, y1 = box.edges
    shares = [x0 / image.width, y0 / image.height, (x1 - x0) / image.width, (y1 - y0) / image.height]
    score = {} if box.score is None else {"confidence": box.score}
    return {"label": box.name or class_name(subject.class_names, box.label), "bounding_box": shares, **score}


def _read_box(item: dict[str, object], classes: list[str]) -> LabelBox:
    edges = parse_box([str(value) for value in item["bounding_box"]], sized=True)  # type: ignore[attr-defined]
    if isinstance(edges, str):
        raise ValueError(edges)  # noqa: TRY004 - the values are of the right type
    label = item["label"]
    score = item.get("confidence")
    name = classes[label] if isinstance(label, int) and classes else str(label)
    return LabelBox(edges, name, None, None if score is None else float(str(score)))
