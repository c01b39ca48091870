"""COCO: annotations with images, categories, boxes and run-length masks, and a results file beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from wsolpipe.images.importers.coco import read_coco
from wsolpipe.images.label_lines import IGNORED, LabelBox, LabelledImage
from wsolpipe.share.formats.base import Format, Found, Subject, class_name, find_file, placed_name


class Coco(Format):
    """``instances_<split>.json`` for training and correcting, ``results_<split>.json`` for evaluators of detections.

    The id of an image is its row, of a category its label, each plus one; a score stands beside its box, where COCO
    has no field for it and readers pass it over. Masks are uncompressed run lengths, which every reader knows; pixels
    that a mask ignores are a region of ``iscrowd``, which COCO's evaluators ignore too.
    """

    about = "COCO: annotations/instances_<split>.json (boxes or masks), results/ (all boxes with scores), images/"
    loss = "boxes after the first, unless top= says more; results have all, and no image without a box"
    holds = frozenset({"boxes", "masks"})
    trained = one_tree = True

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write both files; annotations are written as they come, images are kept until the end."""
        path = folder / "annotations" / f"instances_{subject.split}.json"
        scored = folder / "results" / f"results_{subject.split}.json"
        for part in (path, scored):
            part.parent.mkdir(parents=True, exist_ok=True)
        listed: list[str] = []
        labels: set[int | None] = set(subject.class_names)
        count = written = 0
        with path.open("w", encoding="utf-8") as file, scored.open("w", encoding="utf-8") as results:
            file.write('{"annotations": [')
            results.write("[")
            for image in images:
                name = placed_name(image.path)
                about = {"id": image.row + 1, "file_name": name, "width": image.width, "height": image.height}
                listed.append(json.dumps({**about, "image_id": image.image_id}, ensure_ascii=False))
                for place, item in enumerate(_items(image)):
                    labels.add(item.pop("label"))
                    if subject.top is None or place < subject.top or item["iscrowd"]:
                        _append(file, {"id": written + 1, **item}, first=not written)
                        written += 1
                    if not item["iscrowd"]:
                        _append(results, _result(item), first=not count)
                        count += 1
                subject.place(image, folder / "images" / subject.split / name)
            results.write("]\n")
            categories = [
                {"id": _category(label), "name": class_name(subject.class_names, label)}
                for label in sorted(labels, key=lambda label: -1 if label is None else label)
            ]
            info = {"description": subject.title or f"{subject.stage} of {subject.dataset} {subject.split}"}
            licences = [{"id": 1, "name": subject.licence, "url": ""}] if subject.licence else []
            file.write(f'],\n"images": [{", ".join(listed)}],\n"categories": {json.dumps(categories)},\n')
            file.write(f'"info": {json.dumps(info)}, "licenses": {json.dumps(licences)}}}\n')
        return [path, scored]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes of annotations, or of results beside or below the annotations that name their images."""
        names = (f"instances_{split}*.json", "instances_default.json", "annotations.json", "result.json")
        places = ("annotations/", f"{split}/", "")
        file = find_file(path, *(f"{place}{name}" for place in places for name in names))
        beside = [name for name in names if (file.parent / name).is_file()]
        near = file.parent.parent / "annotations" / f"instances_{split}.json"
        content = read_coco(file, results_of=near if near.is_file() else file.parent / (beside or names[2:])[0])
        for image in content.images.values():
            boxes = [
                LabelBox(item.edges, content.categories.get(item.category, ""), None, item.score)
                for item in content.boxes.get(image.number, ())
                if not item.crowd
            ]
            if content.whole or boxes:
                yield Found(image.image_id or image.file_name, tuple(boxes), f"{file}: image {image.number}")


def _category(label: int | None) -> int:
    return 0 if label is None else label + 1


def _append(file: TextIO, value: dict[str, Any], *, first: bool) -> None:
    file.write(f"{'' if first else ','}\n{json.dumps(value)}")


def _result(item: dict[str, Any]) -> dict[str, Any]:
    found = {name: item[name] for name in ("image_id", "category_id", "bbox")}
    mask = {"segmentation": item["segmentation"]} if item["segmentation"] else {}
    return {**found, **mask, "score": item.get("score", 1.0)}


def _items(image: LabelledImage) -> Iterator[dict[str, Any]]:
    """Annotations of one image, each with its `label`."""
    for box in image.boxes:
        x0, y0, x1, y1 = box.edges
        item: dict[str, Any] = {"label": box.label, "image_id": image.row + 1, "category_id": _category(box.label)}
        item |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "segmentation": [], "iscrowd": 0}
        yield item | ({} if box.score is None else {"score": box.score})
    for value, crowd in ((1, 0), (IGNORED, 1)):
        region = image.mask == value if image.mask is not None else np.zeros((0, 0), np.bool_)
        if not region.any():
            continue
        rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        label = image.labels[0] if image.labels else None
        yield {
            "label": label, "image_id": image.row + 1, "category_id": _category(label), "iscrowd": crowd,
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top], "area": int(region.sum()),
            "segmentation": run_lengths(region),
        }  # fmt: skip


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask bool [height, width] as COCO's uncompressed run lengths: down the columns, background first."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": counts}
