"""The suite of formats of ``export`` and ``import``.

A format is tested by a subclass that names its class::

    class TestMine(FormatTests):
        format = Mine
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsolpipe.images.label_lines import LabelBox, LabelledImage
from wsolpipe.share.formats.base import Format, Subject


class FormatTests:
    """Tests that every format of boxes passes.

    Attributes
    ----------
    format : type of Format
    edge : float
        Pixels by which an edge may move.
    """

    format: type[Format]
    edge: float = 0.51

    def test_it_says_what_it_is_and_what_it_loses(self) -> None:
        assert self.format.about
        assert self.format.loss
        assert self.format.holds <= {"boxes", "masks", "maps"}

    def test_boxes_come_back_with_their_classes(self, tmp_path: Path) -> None:
        if "boxes" not in self.format.holds or not self.format.reads():
            pytest.skip("it is written and not read, or holds no boxes")
        boxes = {"a/1.png": (4.0, 6.0, 20.0, 30.0), "b/2.png": (0.0, 0.0, 64.0, 48.0)}
        images = [
            LabelledImage(
                row, name, name, 64, 48, (row,), boxes=(LabelBox(edges, name=f"class{row}", label=row, score=0.5),)
            )
            for row, (name, edges) in enumerate(boxes.items())
        ]
        subject = Subject("example", "train", "boxes", "0" * 16, {0: "class0", 1: "class1"})
        form = self.format()
        written = form.write(iter(images), subject, tmp_path)
        form.finish([subject], tmp_path)
        assert all(path.exists() for path in written)
        found = list(form.read(tmp_path, "train"))
        assert len(found) == len(images)
        for one in found:
            (name,) = [name for name in boxes if one.name.split(".")[0].replace("__", "/") in name]
            sides = np.array([64, 48, 64, 48]) if one.relative else 1
            apart = np.abs(np.array(one.boxes[0].edges) * sides - boxes[name])
            assert apart.max() <= self.edge
            assert one.boxes[0].name in {"", *subject.class_names.values()}
