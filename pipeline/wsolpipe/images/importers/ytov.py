"""Layouts `ytov1` and `ytov22`: YouTube-Objects v1.0 and v2.2 in the metadata files of TCAM's splits.

As layout `metadata`, but an id may be a shot: a folder of frames, expanded to all of them, which have its label. Ids of
single frames, as of the validation and test splits, belong to the group of their folder. Boxes are floats, and a frame
may have several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsolpipe.images.importers import metadata
from wsolpipe.images.importers.clips import frames_of, sample
from wsolpipe.images.importers.lines import IMAGE_ENDINGS, read_classes, read_lines, stamp
from wsolpipe.images.importers.localization_txt import read_localization
from wsolpipe.images.importers.masks import mask_annotations
from wsolpipe.images.layouts import TEXTS, Layout
from wsolpipe.images.listing import ListedRow, Listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.importers.lines import Stamp
    from wsolpipe.images.listing import Problems

TREE = """\
  {root}/                       frames, at the paths that image_ids.txt names
    aeroplane/data/0001/shots/001/frame0001.jpg …
  <metadata>/<split>/
    image_ids.txt               path of a shot's folder, or of one frame
    class_labels.txt            path,label
    localization.txt            path of a frame,x0,y0,x1,y1           (optional)
    image_sizes.txt             path of a frame,width,height          (optional)
  <metadata>/classes.txt        label,name                            (optional)"""


def list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """Read the metadata files and list the frames of each shot; `every: n` lists each n-th and those with boxes."""
    folder = metadata.metadata_folder(config, split)
    files = metadata.metadata_files(config, folder, split)
    classes, names = read_classes(config, files.get("classes"), problems)
    texts = {
        key: read_lines(path, metadata.shown(path, folder, split), problems)
        for key, path in files.items()
        if key != "classes"
    }
    if "image_ids" not in texts:
        texts["image_ids"] = texts["class_labels"]
    ids = metadata.read_ids(texts["image_ids"], problems) if "image_ids" in files else None
    problems.settle()
    labels = metadata.read_labels(texts.get("class_labels"), ids, classes, problems, subset=False)
    rows = _expand(config, list(ids if ids is not None else labels or {}), labels or {})
    known = {row.image_id for row in rows}
    sizes = metadata.read_sizes(texts.get("image_sizes"), known, problems, subset=False)
    rows = [
        row._replace(width=size[0], height=size[1], size_where=size[2]) if (size := sizes.get(row.image_id)) else row
        for row in rows
    ]
    annotations = read_localization(config, texts.get("localization"), known, problems, subset=False)
    annotations += mask_annotations(config, rows, problems)
    rows = sample(rows, config.every, {item.image_id for item in annotations})
    return Listing(rows=rows, annotations=annotations, classes=classes, class_names=names)


def sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The metadata files and the folders of the shots."""
    yield from metadata.sources(config, split)
    folder = metadata.metadata_folder(config, split)
    path = metadata.metadata_files(config, folder, split).get("image_ids")
    root = config.image_root()
    for line in path.read_text(encoding="utf-8", errors="replace").split() if path else ():
        if not line.lower().endswith(IMAGE_ENDINGS):
            yield stamp(root / line, line)


def _expand(config: DatasetConfig, ids: list[str], labels: dict[str, tuple[int, ...]]) -> list[ListedRow]:
    """Rows of ids in their order: a frame as it is, a shot as all its frames."""
    root = config.image_root()
    rows: list[ListedRow] = []
    for name in ids:
        label = labels.get(name, ())
        if name.lower().endswith(IMAGE_ENDINGS):
            stem = name.rpartition("/")[2].rpartition(".")[0]
            digits = stem[len(stem.rstrip("0123456789")) :]
            group = name.rpartition("/")[0]
            rows.append(ListedRow(name, name, label, group=group, frame=int(digits) if digits else None))
        else:
            rows += frames_of(root / name, f"{name.rstrip('/')}/", label)
    return rows


LAYOUT = Layout(list_rows, sources, TREE, keys=TEXTS | {"every"})
