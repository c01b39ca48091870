"""YOLO: one text file for each image with ``class x y width height`` as shares of the image, and ``data.yaml``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import yaml

from wsolpipe.contract.errors import DataError
from wsolpipe.images.label_lines import entry_of, read_box
from wsolpipe.keys.safe_yaml import read_yaml
from wsolpipe.share.formats.base import Format, Found, class_list, flat_name, stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelBox, LabelledImage
    from wsolpipe.share.formats.base import Subject

LISTS = frozenset({"classes.txt", "images.txt", "train.txt", "val.txt", "test.txt"})


class Yolo(Format):
    """``images/<split>/`` and ``labels/<split>/`` for training, and ``predictions/<split>/`` with every box's score."""

    about = "YOLO (ultralytics): labels/ for training, predictions/ of all boxes with scores, one data.yaml"
    loss = "scores, unless in= names the folder predictions; edges keep six decimals of the image's sides"
    with_images = trained = one_tree = True

    def __init__(self) -> None:
        self._highest = -1

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write the labels, the predictions and the images of a split."""
        for part in ("images", "labels", "predictions"):
            (folder / part / subject.split).mkdir(parents=True, exist_ok=True)
        for image in images:
            name = flat_name(image.path)
            lines = [_line(box, image) for box in image.boxes]
            self._highest = max([self._highest, *(box.label or 0 for box in image.boxes)])
            for part, text in (
                ("labels", "".join(f"{line}\n" for line in lines[: subject.top])),
                ("predictions", "".join(f"{line} {1.0 if box.score is None else box.score:.6g}\n"
                                        for line, box in zip(lines, image.boxes, strict=True))),
            ):  # fmt: skip
                (folder / part / subject.split / f"{stem_of(name)}.txt").write_text(text, encoding="utf-8")
            subject.place(image, folder / "images" / subject.split / name)
        return [folder / "labels" / subject.split]

    def finish(self, subjects: list[Subject], folder: Path) -> list[Path]:
        """Write ``data.yaml``, which names the folder of each split; paths are relative to it."""
        names = class_list(subjects[0].class_names)
        bare = not names and self._highest == 0
        names += ["object" if bare else str(label) for label in range(len(names), self._highest + 1)]
        content = {subject.split: f"images/{subject.split}" for subject in subjects}
        for part in ("train", "val"):
            content.setdefault(part, f"images/{subjects[0].split}")  # ultralytics wants both
        path = folder / "data.yaml"
        described = {**content, "names": dict(enumerate(names))}
        path.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return [path]

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes of the text files below ``labels/<split>/``, or of the first of its parents that is there."""
        places = [path / "labels" / split, path / split / "labels", path / "labels", path / split, path]
        top = next((place for place in places if place.is_dir()), None)
        if top is None:
            msg = f"{path} is not a folder of YOLO labels"
            raise DataError(msg, hint="in= names the folder that holds labels/ and data.yaml")
        names = next(
            (_names(base / "data.yaml") for base in (path, *path.parents[:3]) if (base / "data.yaml").is_file()), {}
        )
        for file in sorted(file for file in top.rglob("*.txt") if file.name not in LISTS):
            inside = os.path.relpath(file, top).removesuffix(".txt").replace(os.sep, "/")
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                msg = f"cannot read {file}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
                raise DataError(msg) from error
            boxes = [
                _read_line(line, f"{file}:{number}", names) for number, line in enumerate(lines, 1) if line.strip()
            ]
            yield Found(inside, tuple(boxes), str(file), relative=True)


def _line(box: LabelBox, image: LabelledImage) -> str:
    x0, y0, x1, y1 = box.edges
    width, height = image.width, image.height
    shares = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
    return " ".join([str(box.label or 0), *(f"{value:.6f}" for value in shares)])


def _names(path: Path) -> dict[int, str]:
    content = read_yaml(path)
    names = content.get("names") if isinstance(content, dict) else None
    with entry_of(str(path), "a description with names of classes"):
        pairs = names.items() if isinstance(names, dict) else enumerate(names or ())
        return {int(label): str(name) for label, name in pairs}


def _read_line(line: str, where: str, names: dict[int, str]) -> LabelBox:
    with entry_of(where, "class x y width height [score]"):
        label, *numbers = line.split()
        x, y, width, height, *rest = map(float, numbers)
        if len(rest) > 1:
            msg = f"{len(numbers) + 1} numbers"
            raise ValueError(msg)
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return read_box(edges, names.get(int(label), ""), label=label, score=rest[0] if rest else None)
