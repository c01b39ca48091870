"""The layouts of data sets by name: how the files of each lie, and what lists their images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.named import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.images.listing import Listing, Problems

#: Keys of a description that only some layouts read.
OWN_KEYS = ("metadata", "files", "masks", "columns", "box_format", "every", "train_boxes")
#: Those of layouts with metadata files.
TEXTS = frozenset({"metadata", "files", "masks", "box_format"})


@dataclass(frozen=True)
class Layout:
    """One layout of a data set.

    Attributes
    ----------
    list_rows : callable
        Reads the metadata of a split of a `DatasetConfig`; rows may come in any order. Faults go to the `Problems`.
    sources : callable
        Yields the name, size and time of files and folders whose change may change the listing.
    tree : str
        How its folder looks, for error messages; ``{root}`` stands for the root.
    keys : frozenset of str
        Those of `OWN_KEYS` that it reads.
    upright : bool
        Whether its boxes were drawn on upright images; those of other layouts refer to stored pixels.
    """

    list_rows: Callable[[Any, str, Problems], Listing]
    sources: Callable[[Any, str], Iterator[tuple[str, int, int]]]
    tree: str
    keys: frozenset[str] = frozenset()
    upright: bool = False


_HERE = "wsolpipe.images.importers"
#: Layouts as `layout:` of a data set's YAML names them; other packages declare theirs in the group of entry points.
LAYOUTS: Registry[Layout] = Registry(
    "layout",
    "wsolpipe.layouts",
    {
        "folder": f"{_HERE}.folder:LAYOUT",
        "metadata": f"{_HERE}.metadata:LAYOUT",
        "csv": f"{_HERE}.table:LAYOUT",
        "cub": f"{_HERE}.cub:LAYOUT",
        "ilsvrc": f"{_HERE}.ilsvrc:LAYOUT",
        "openimages": f"{_HERE}.metadata:OPENIMAGES",
        "coco": f"{_HERE}.coco:LAYOUT",
        "voc": f"{_HERE}.voc:LAYOUT",
        "yolo": f"{_HERE}.yolo_folders:LAYOUT",
        "tar": f"{_HERE}.archives:TAR",
        "parquet": f"{_HERE}.archives:PARQUET",
        "clips": f"{_HERE}.clips:LAYOUT",
        "ytov1": f"{_HERE}.clips:YTOV",
        "ytov22": f"{_HERE}.clips:YTOV",
    },
    base="wsolpipe.images.layouts:Layout",
)
