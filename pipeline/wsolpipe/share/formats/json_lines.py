"""JSON lines: an object an image with everything that is known of its boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.images.label_lines import label_line, read_label_lines
from wsolpipe.share.formats.base import Format, Found, find_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject

NAME = "labels.jsonl"


class JsonLines(Format):
    """A line an image; the format that a stage of imported boxes reads."""

    about = "JSON lines: an object an image, its boxes in a list"
    loss = "nothing"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:  # noqa: ARG002
        """Write ``labels.jsonl``."""
        path = folder / NAME
        with path.open("w", encoding="utf-8") as file:
            file.writelines(label_line(image) for image in images)
        return [path]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes by image id."""
        file = find_file(path, NAME)
        for number, image in enumerate(read_label_lines(file), 1):
            yield Found(image.image_id, image.boxes, f"{file}:{number}")
