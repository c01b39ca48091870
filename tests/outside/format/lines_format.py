"""A format of another package: a line for each box, ``image_id class x0 y0 x1 y1`` with tabs between."""

from itertools import groupby

from wsolpipe.contract.errors import DataError
from wsolpipe.images.label_lines import LabelBox
from wsolpipe.share.formats.base import Format, Found, find_file


class Lines(Format):
    """Boxes as lines of text."""

    about = "a line for each box: image_id, class, x0, y0, x1, y1, with tabs between"
    loss = "scores, and images without a box"

    def write(self, images, subject, folder):
        """Write ``boxes.txt``."""
        path = folder / "boxes.txt"
        with path.open("w", encoding="utf-8") as file:
            for image in images:
                for box in image.boxes[: subject.top]:
                    print(image.image_id, subject.label(box), *box.edges, sep="\t", file=file)
        return [path]

    def read(self, path, split):
        """Boxes by image id."""
        file = find_file(path, "boxes.txt", f"{split}/boxes.txt")
        lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
        for number, line in enumerate(lines, 1):
            if len(line) != 6:
                raise DataError(f"{file}:{number} has {len(line)} fields, not image_id, class and four edges")
        for name, group in groupby(lines, key=lambda line: line[0]):
            boxes = tuple(LabelBox(tuple(map(float, edges)), name=label) for _, label, *edges in group)
            yield Found(name, boxes, str(file))
