"""The table of layouts: which importer lists each of them. A new importer is one file and one line here."""

from __future__ import annotations

from typing import NamedTuple


class Layout(NamedTuple):
    """One layout of a data set.

    Attributes
    ----------
    module : str
        Module with `list_rows`, `sources` and `TREE`; see `wsolpipe.images.importers.registry.Importer`.
    upright : bool
        Whether its boxes were drawn on upright images; those of other layouts refer to stored pixels.
    """

    module: str
    upright: bool = False


#: Layout, as `layout:` of a data set's YAML names it, to its importer.
LAYOUTS: dict[str, Layout] = {
    "folder": Layout("wsolpipe.images.importers.folder", upright=True),
    "metadata": Layout("wsolpipe.images.importers.metadata"),
    "csv": Layout("wsolpipe.images.importers.table", upright=True),
    "cub": Layout("wsolpipe.images.importers.cub"),
    "ilsvrc": Layout("wsolpipe.images.importers.ilsvrc"),
    "openimages": Layout("wsolpipe.images.importers.openimages"),
    "coco": Layout("wsolpipe.images.importers.coco"),
    "voc": Layout("wsolpipe.images.importers.voc"),
    "tar": Layout("wsolpipe.images.importers.tar_archives", upright=True),
    "parquet": Layout("wsolpipe.images.importers.parquet_images", upright=True),
    "clips": Layout("wsolpipe.images.importers.clips", upright=True),
    "ytov1": Layout("wsolpipe.images.importers.ytov"),
    "ytov22": Layout("wsolpipe.images.importers.ytov"),
}
