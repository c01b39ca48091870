"""Boxes that people drew or corrected, taken in from a file, as a stage beside those that the pipeline makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, DataError, raise_as
from wsolpipe.contract.schema import ArraySpec, boxes_spec
from wsolpipe.keys.kinds import NamesFile
from wsolpipe.stages.base import Advice, Array, Rows, Stage, StageParams, Upstream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.images.label_lines import LabelledImage

HINT = "wsolpipe import format=… in=FILE dataset=… writes the file and makes the stage"


class HumanBoxesParams(StageParams):
    """Parameters of `HumanBoxes`.

    Attributes
    ----------
    file
        Boxes as JSON lines, as import and export format=jsonl write them; the key holds its sha256
    """

    file: Annotated[str | None, NamesFile()]

    def in_key(self) -> dict[str, Any]:
        """The file by its content.

        Raises
        ------
        ConfigError
            If there is none.
        """
        from wsolpipe.networks.pretrained import file_sha256

        if self.file is None:
            msg = "human_boxes has no file of boxes"
            raise ConfigError(msg, hint=HINT)
        with raise_as(ConfigError, f"cannot read the box file {self.file}", OSError, hint=HINT):
            return {"file": file_sha256(Path(self.file).expanduser())}


class HumanBoxes(Stage[HumanBoxesParams]):
    """Holds every box of a file, in its order, by image id; a row that the file does not list has none."""

    @classmethod
    def advice(cls, params: HumanBoxesParams) -> tuple[Advice, ...]:  # noqa: ARG003
        """The file again."""
        return (("wsolpipe import", "boxes of these very images, in pixels of the originals"),)

    def setup(self) -> None:
        """Read the file.

        Raises
        ------
        DataError
            If it is malformed or lists an image twice.
        ConfigError
            If it holds no image of the split.
        """
        from wsolpipe.images.label_lines import read_label_lines

        self._images: dict[str, LabelledImage] = {}
        for image in read_label_lines(Path(str(self.params.file)).expanduser()):
            if image.image_id in self._images:
                msg = f"{self.params.file} lists {image.image_id!r} twice"
                raise DataError(msg)
            self._images[image.image_id] = image
        if not self.context.lists_any(self._images):
            example = next(iter(self._images), "nothing")
            msg = f"{self.params.file} holds boxes of {example!r}, of no image of this split of {self.context.dataset}"
            raise ConfigError(msg, hint=HINT)

    def arrays(self) -> dict[str, ArraySpec]:
        """All boxes of a row, and whether a person reviewed it."""
        slots = max([1, *(len(image.boxes) for image in self._images.values())])
        return {
            "boxes": boxes_spec(slots, "drawn boxes"),
            "scores": ArraySpec(dtype="float32", shape=(slots,), fill="nan", meaning="score of each box, if any"),
            "labels": ArraySpec(dtype="int32", shape=(slots,), fill=-1, meaning="label of each box, -1 where unknown"),
            "count": ArraySpec(dtype="uint16", meaning="boxes of this row"),
            "drawn": ArraySpec(
                dtype="uint8", meaning="1: somebody looked at this row; 0: its box, if any, is that of another stage"
            ),
        }

    def process(self, rows: Rows, inputs: Mapping[str, Upstream]) -> dict[str, Array]:  # noqa: ARG002
        """Look these rows up."""
        made = {name: spec.empty(len(rows)) for name, spec in self.arrays().items()}
        for position, name in enumerate(rows.columns["image_id"]):
            image = self._images.get(name)
            if image is None or not rows.usable(position):
                continue
            count = len(image.boxes)
            made["count"][position], made["drawn"][position] = count, image.drawn
            for slot, box in enumerate(image.boxes):
                made["boxes"][position, slot] = box.edges
                made["scores"][position, slot] = np.nan if box.score is None else box.score
                made["labels"][position, slot] = -1 if box.label is None else box.label
        return made

    def summary(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Any]:  # noqa: ARG002
        """Reviewed rows, and their boxes."""
        drawn = arrays["drawn"] == 1
        return {"rows_drawn": int(drawn.sum()), "boxes_drawn": int(arrays["count"][drawn].sum())}
