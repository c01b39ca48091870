"""The table of layouts: which importer lists each of them. A new importer is one file and one line here."""

from __future__ import annotations

from typing import NamedTuple


class Layout(NamedTuple):
    """One layout of a data set.

    Attributes
    ----------
    module : str
        Module with `list_rows`, `sources` and `TREE`; see `wsolpipe.images.importers.registry.Importer`.
    keys : frozenset of str
        Those of `OWN_KEYS` that it reads.
    upright : bool
        Whether its boxes were drawn on upright images; those of other layouts refer to stored pixels.
    """

    module: str
    keys: frozenset[str] = frozenset()
    upright: bool = False


#: Keys of a description that only some layouts read.
OWN_KEYS = ("metadata", "files", "masks", "columns", "box_format", "every", "train_boxes")
_TEXTS = frozenset({"metadata", "files", "masks", "box_format"})


#: Layout, as `layout:` of a data set's YAML names it, to its importer.
LAYOUTS: dict[str, Layout] = {
    "folder": Layout("wsolpipe.images.importers.folder", frozenset({"masks"}), upright=True),
    "metadata": Layout("wsolpipe.images.importers.metadata", _TEXTS),
    "csv": Layout("wsolpipe.images.importers.table", _TEXTS - {"files"} | {"columns"}, upright=True),
    "cub": Layout("wsolpipe.images.importers.cub", _TEXTS),
    "ilsvrc": Layout("wsolpipe.images.importers.ilsvrc", _TEXTS - {"masks"} | {"train_boxes"}),
    "openimages": Layout("wsolpipe.images.importers.openimages", _TEXTS),
    "coco": Layout("wsolpipe.images.importers.coco", frozenset({"metadata", "masks"})),
    "voc": Layout("wsolpipe.images.importers.voc", frozenset({"masks"})),
    "tar": Layout("wsolpipe.images.importers.tar_archives", upright=True),
    "parquet": Layout("wsolpipe.images.importers.parquet_images", frozenset({"columns", "box_format"}), upright=True),
    "clips": Layout("wsolpipe.images.importers.clips", _TEXTS | {"every"}, upright=True),
    "ytov1": Layout("wsolpipe.images.importers.ytov", _TEXTS | {"every"}),
    "ytov22": Layout("wsolpipe.images.importers.ytov", _TEXTS | {"every"}),
}
