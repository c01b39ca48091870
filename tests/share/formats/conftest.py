"""A finished store of boxes, masks and maps, and the command line on it in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from PIL import Image

from wsolpipe import open_store
from wsolpipe.cli.main import cli
from wsolpipe.contract.errors import WsolError

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 9
NAMES = ("bee, the", "ant", "crab")


@dataclass
class Desk:
    """A folder with a data set, a store and somewhere to export to."""

    folder: Path
    capsys: Any = None

    def words(self, *more: str) -> list[str]:
        given = {word.partition("=")[0] for word in more}
        base = {"dataset": str(self.folder / "d.yaml"), "store": str(self.folder / "store")}
        return [*(f"{name}={value}" for name, value in base.items() if name not in given), *more]

    def call(self, command: str, *more: str) -> Any:
        """Run a command; its JSON."""
        with pytest.raises(SystemExit) as end:
            cli.main([command, *self.words(*more), "--json"], standalone_mode=False)
        shown = self.capsys.readouterr()
        assert end.value.code == 0, shown.err
        return json.loads(shown.out)

    def refused(self, command: str, *more: str) -> WsolError:
        with pytest.raises(WsolError) as caught:
            cli.main([command, *self.words(*more)], standalone_mode=False)
        self.capsys.readouterr()
        return caught.value

    def export(self, name: str, *more: str) -> Path:
        """Folder of the split val after an export; several formats may share `out`."""
        out = self.folder / f"out-{name}-{len(list(self.folder.glob('out-*')))}"
        stage = () if any(word.startswith("stage=") for word in more) else ("stage=human_boxes",)
        self.call("export", *stage, f"format={name}", f"out={out}", *more)
        return out / "val" if (out / "val").is_dir() else out

    def view(self, stage: str = "human_boxes", key: str | None = None) -> Any:
        return open_store(str(self.folder / "store"))["d"]["val"].stage(stage, key)


def write_dataset(folder: Path) -> list[dict[str, Any]]:
    """Images in two folders, one name with a space; and boxes: several a row and class, none, and one at the edge."""
    rng = np.random.default_rng(3)
    lines = []
    for row in range(COUNT):
        name = f"{'ab'[row % 2]}/image {row}.{'png' if row % 3 else 'jpg'}"
        width, height = (int(side) for side in rng.integers(40, 80, 2))
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        boxes = []
        for number in range(row % 4):
            x0, y0 = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
            edges = [x0, y0, x0 + rng.uniform(4, width / 2), y0 + rng.uniform(4, height / 2)]
            edges = edges if number else [0.0, 0.0, float(width), height / 2]
            boxes.append({"box": edges, "label": int((row + number) % 3), "score": round(0.9 - 0.17 * number, 3)})
        lines.append({"image_id": name, "boxes": boxes, "labels": [row % 3]})
    (folder / "classes.txt").write_text("".join(f"{label},{name}\n" for label, name in enumerate(NAMES)))
    table = ["path,label,x0,y0,x1,y1"] + [f"{line['image_id']},{line['labels'][0]},2,2,30,30" for line in lines]
    (folder / "d.csv").write_text("\n".join(table) + "\n")
    content = {"name": "d", "layout": "csv", "root": "images", "metadata": "d.csv", "split": {"val": "val"}}
    (folder / "d.yaml").write_text(yaml.safe_dump({**content, "metadata": "d.csv", "classes": "classes.txt"}))
    return lines


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder, and what was imported into it."""
    folder = tmp_path_factory.mktemp("desk")
    lines = write_dataset(folder)
    (folder / "boxes.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder, lines


@pytest.fixture
def desk(made, capsys):
    """Boxes taken in as human_boxes once, read by every test of a module."""
    desk = Desk(made[0], capsys)
    if not (made[0] / "store").exists():
        desk.call("import", "format=jsonl", f"in={made[0] / 'boxes.jsonl'}")
    return desk
