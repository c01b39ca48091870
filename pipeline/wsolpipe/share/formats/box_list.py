"""``localization.txt``: ``image_id,x0,y0,x1,y1`` a line, the field's own exchange format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.images.label_lines import LabelBox
from wsolpipe.images.pseudo import box_lines, read_boxes
from wsolpipe.share.formats.base import Format, Found, find_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wsolpipe.images.label_lines import LabelledImage
    from wsolpipe.share.formats.base import Subject

NAME = "localization.txt"


class BoxList(Format):
    """Lines of image and box; several lines for several boxes."""

    about = "localization.txt of the metadata layout: image_id,x0,y0,x1,y1 a line"
    loss = "classes, scores and images without a box; edges keep two decimals"

    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:  # noqa: ARG002
        """Write ``localization.txt``."""
        path = folder / NAME
        with path.open("w", encoding="utf-8") as file:
            for image in images:
                edges = np.array([box.edges for box in image.boxes], np.float64).reshape(-1, 4)
                file.write(box_lines({image.image_id: edges}))
        return [path]

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes by image id."""
        file = find_file(path, NAME)
        for name, edges in read_boxes(file).items():
            boxes = tuple(LabelBox((x0, y0, x1, y1)) for x0, y0, x1, y1 in edges.tolist())
            yield Found(name, boxes, str(file))
