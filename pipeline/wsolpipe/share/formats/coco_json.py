"""COCO: annotations with images, categories, boxes and run-length masks, and a results file beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.images.importers.coco import read_coco
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, class_name, find_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import TextIO

    from numpy.typing import NDArray

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject


class Coco(Format):
    """``annotations.json`` for training and correcting, ``results.json`` for evaluators of detections.

    The id of an image is its row, of a category its label, each plus one; a score stands beside its box, where COCO
    has no field for it and readers pass it over. Masks are uncompressed run lengths, which every reader knows.
    """

    about = "COCO: annotations.json (boxes, masks as run lengths) and results.json (with scores)"
    loss = "nothing of annotations.json; results.json has no images without a box"
    holds = frozenset({"boxes", "masks"})

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write both files; annotations are written as they come, images are kept until the end."""
        paths = folder / "annotations.json", folder / "results.json"
        listed: list[str] = []
        labels: set[int | None] = set(subject.class_names)
        number = 0
        with paths[0].open("w", encoding="utf-8") as file, paths[1].open("w", encoding="utf-8") as results:
            file.write('{"annotations": [')
            results.write("[")
            for image in images:
                about = {"id": image.row + 1, "file_name": image.path, "width": image.width, "height": image.height}
                listed.append(json.dumps({**about, "image_id": image.image_id}, ensure_ascii=False))
                for item in _items(image):
                    labels.add(item.pop("label"))
                    _append(file, {"id": number + 1, **item, "iscrowd": 0}, first=not number)
                    scored = {name: item[name] for name in ("image_id", "category_id", "bbox")}
                    mask = {"segmentation": item["segmentation"]} if item["segmentation"] else {}
                    _append(results, {**scored, **mask, "score": item.get("score", 1.0)}, first=not number)
                    number += 1
            results.write("]\n")
            categories = [
                {"id": _category(label), "name": class_name(subject.class_names, label)}
                for label in sorted(labels, key=lambda label: -1 if label is None else label)
            ]
            info = {"description": subject.title or f"{subject.stage} of {subject.dataset} {subject.split}"}
            licences = [{"id": 1, "name": subject.licence, "url": ""}] if subject.licence else []
            file.write(f'],\n"images": [{", ".join(listed)}],\n"categories": {json.dumps(categories)},\n')
            file.write(f'"info": {json.dumps(info)}, "licenses": {json.dumps(licences)}}}\n')
        return list(paths)

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes of annotations, or of results beside the ``annotations.json`` that names their images."""
        file = find_file(path, "annotations.json", "instances_default.json", "result.json")
        content = read_coco(file, results_beside="annotations.json")
        for image in content.images.values():
            boxes = [
                LabelBox(item.edges, content.categories.get(item.category, ""), None, item.score)
                for item in content.boxes.get(image.number, ())
            ]
            if content.whole or boxes:
                yield Found(image.image_id or image.file_name, tuple(boxes), f"{file}: image {image.number}")


def _category(label: int | None) -> int:
    return 0 if label is None else label + 1


def _append(file: TextIO, value: dict[str, Any], *, first: bool) -> None:
    file.write(f"{'' if first else ','}\n{json.dumps(value)}")


def _items(image: LabelledImage) -> Iterator[dict[str, Any]]:
    """Annotations of one image, each with its `label`."""
    for box in image.boxes:
        x0, y0, x1, y1 = box.edges
        item: dict[str, Any] = {"label": box.label, "image_id": image.row + 1, "category_id": _category(box.label)}
        item |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "segmentation": []}
        yield item | ({} if box.score is None else {"score": box.score})
    if image.mask is not None and image.mask.any():
        rows, columns = (np.flatnonzero(image.mask.any(axis=axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        label = image.labels[0] if image.labels else None
        yield {
            "label": label, "image_id": image.row + 1, "category_id": _category(label),
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top], "area": int(image.mask.sum()),
            "segmentation": run_lengths(image.mask),
        }  # fmt: skip


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask bool [height, width] as COCO's uncompressed run lengths: down the columns, background first."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": counts}
