"""The view of a store in an interactive session: names to iterate over and complete, descriptions, pictures, tables."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.schema import STATUS_SPEC, Status, axis_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL.Image import Image

    from wsolpipe.contract.arrays import IndexedStage

#: Pictures in the strip of a stage, and their height in pixels.
STRIP, HEIGHT = 8, 96
SIDE = 320


class Keyed:
    """Things by name: ``list``, ``in`` and ``len`` go over the names, and a shell completes them after ``[``."""

    def names(self) -> list[str]:
        """Names that can stand in brackets."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _ipython_key_completions_(self) -> list[str]:
        return self.names()


def describe(view: IndexedStage) -> str:
    """Stage, key, rows by status, and a line an array; without what cannot be read."""
    lines = [f"{view.stage} of {view.dataset}/{view.split}, key {view.key}"]
    try:
        records = view.committed()
        bad, none = sum(len(item.quarantined) for item in records.values()), sum(r.no_object for r in records.values())
        rows = f"{view.manifest.rows} rows: {sum(item.ok for item in records.values())} good, {bad} quarantined"
        lines.append(f"{rows}, {none} without object; {len(records)} of {len(view.shards)} shards")
        specs = {**view.manifest.arrays, "status": STATUS_SPEC}
        for name, axes in axis_names(specs).items():
            shape = ", ".join(
                f"{axis} {n}" for axis, n in zip(axes, (view.manifest.rows, *specs[name].shape), strict=True)
            )
            lines.append(f"  {name}: {specs[name].dtype} [{shape}] {specs[name].meaning}".rstrip())
        lines += [
            f"  quarantined: row {item['row']} {item['path']}: {item['reason']}" for item in view.quarantined()[:5]
        ]
    except (StoreError, OSError) as error:
        lines.append(f"  cannot be read: {error}")
    return "\n".join(lines)


def as_html(view: IndexedStage) -> str:
    """`describe` and the pictures of the first rows with a result."""
    import html

    strip = ""
    try:
        for row in view.rows()[:STRIP].tolist():
            file = io.BytesIO()
            image = picture(view, row)
            image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT)).save(file, "PNG")
            data = base64.b64encode(file.getvalue()).decode()
            strip += f'<img src="data:image/png;base64,{data}" title="row {row}" style="margin:2px">'
    except (StoreError, OSError):
        pass  # the text says what cannot be read
    return f"<pre>{html.escape(describe(view))}</pre><div>{strip}</div>"


def picture(view: IndexedStage, row: int, root: str | Path | None = None) -> Image:
    """The first map or mask of a row, or its boxes, best first; over the image where its folder is given.

    Parameters
    ----------
    root : path, optional
        Folder of the image files; without it boxes are drawn on grey.

    Raises
    ------
    ConfigError
        If there is no such row or no image file, or the stage has nothing that can be drawn.
    """
    from PIL import Image

    if not 0 <= row < view.manifest.rows:
        msg = f"row {row} of {view.stage}, which has {view.manifest.rows} rows"
        raise ConfigError(msg, hint=f"rows are 0 … {view.manifest.rows - 1}")
    line = view.index().table(["path", "width", "height", "orientation"], start=row, stop=row + 1).to_pylist()[0]
    size = _fitted(line["width"] or SIDE, line["height"] or SIDE)
    canvas = Image.new("RGB", size, (96, 96, 96)) if root is None else _image(root, line["path"], size)
    arrays = view.manifest.arrays
    if "rgb" in arrays:
        return Image.fromarray(np.moveaxis(view["rgb"][row], 0, -1)).resize(size)
    if "maps" in arrays or "masks" in arrays:
        values = view["maps"][row, 0] if "maps" in arrays else np.where(view["masks"][row] == 1, 255, 0)
        heat = Image.fromarray(_coloured(np.asarray(values, np.uint8))).resize(size, Image.Resampling.BILINEAR)
        return heat if root is None else Image.blend(canvas, heat, 0.5)
    if "boxes" not in arrays:
        msg = f"stage {view.stage} holds neither maps nor boxes: {', '.join(sorted(arrays))}"
        raise ConfigError(msg, hint="read its arrays by name, such as stage['status'][:]")
    return _with_boxes(canvas, view["boxes"][row], size[0] / max(1, line["width"] or SIDE))


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _image(root: str | Path, path: str, size: tuple[int, int]) -> Image:
    from pathlib import Path

    from PIL import Image, ImageOps

    try:
        with Image.open(Path(root) / path) as image:
            return ImageOps.exif_transpose(image).convert("RGB").resize(size)
    except OSError as error:
        msg = f"cannot read the image {Path(root) / path}: {error.strerror or error}"
        raise ConfigError(msg, hint="root= is the folder that the paths of the index start from") from error


def _coloured(levels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Levels 0..255 from blue over white to red, uint8 [h, w, 3]."""
    value = levels.astype(np.float32) / 255
    up, down = np.clip(2 * value, 0, 1), np.clip(2 - 2 * value, 0, 1)
    return np.round(255 * np.stack([up, np.minimum(up, down), down], axis=-1)).astype(np.uint8)


def _with_boxes(canvas: Image, boxes: np.ndarray[Any, Any], scale: float) -> Image:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(canvas)
    for rank, box in reversed(list(enumerate(boxes[:5]))):
        if not np.isnan(box).any():
            x0, y0, x1, y1 = (box * scale).tolist()
            pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=(255, 220, 0) if rank else (255, 40, 40))
    return canvas


def to_pandas(view: IndexedStage) -> Any:
    """A frame with one line for each box; for a stage without boxes, one line for each row with its numbers.

    Raises
    ------
    ConfigError
        If pandas is not installed.
    """
    _need("pandas")
    from wsolpipe.contract.box_table import has_boxes, read_box_table

    if has_boxes(view):
        return read_box_table(view).to_pandas()
    frame = view.index().table(["row", "image_id", "path", "labels"]).to_pandas()
    frame["status"] = [Status(value).name.lower() for value in view.status().tolist()]
    for name, spec in view.manifest.arrays.items():
        if not spec.shape:
            frame[name] = view[name].filled()
    return frame


def to_xarray(view: IndexedStage, start: int = 0, stop: int | None = None) -> Any:
    """A data set of the arrays of rows `start` … `stop` − 1, in memory, with named axes and the image names.

    Raises
    ------
    ConfigError
        If xarray is not installed.
    StoreError
        As reading does.
    """
    _need("xarray")
    import xarray

    last = view.manifest.rows if stop is None else stop
    specs = {**view.manifest.arrays, "status": STATUS_SPEC}
    made = {
        name: (axes, view[name][start:last], {"unit": specs[name].unit, "meaning": specs[name].meaning})
        for name, axes in axis_names(specs).items()
    }
    names = view.index().table(["image_id"], start=start, stop=last).column("image_id").to_pylist()
    about = {"dataset": view.dataset, "split": view.split, "stage": view.stage, "key": view.key}
    return xarray.Dataset(made, coords={"row": np.arange(start, last), "image_id": ("row", names)}, attrs=about)


def _need(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        msg = f"this needs the package {package}, which is not installed"
        raise ConfigError(msg, hint=f"pip install {package}")
