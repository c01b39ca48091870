"""The layouts of data sets by name, and what each lists: rows and annotations, before any image file is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from wsolpipe.contract.errors import DataError
from wsolpipe.contract.named import Registry

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
    base="wsolpipe.images.listing:Layout",
)


AnnotationKind: TypeAlias = Literal["box", "mask", "ignore"]

#: How many bad lines one error lists.
MAX_PROBLEMS = 20


# Named tuples, not dataclasses, for the two kinds that exist a million times: four times faster to make.
class ListedRow(NamedTuple):
    """One image of a split as its metadata names it.

    Attributes
    ----------
    image_id : str
        Unique in the split; rows are sorted by it.
    path : str
        Relative to the data set's root, with forward slashes.
    labels : tuple of int
        The first is *the* label; empty where the image has none.
    width, height : int or None
        As the metadata declares, in pixels of the image as boxes see it; None without a declaration.
    size_where : str
        ``file:line`` of that declaration.
    group : str
        Video shot or patient; empty for plain images.
    frame : int or None
        Position in the group.
    reason : str
        Why this row is quarantined before its file is opened; empty for almost every row.
    """

    image_id: str
    path: str
    labels: tuple[int, ...] = ()
    width: int | None = None
    height: int | None = None
    size_where: str = ""
    group: str = ""
    frame: int | None = None
    reason: str = ""


class Annotation(NamedTuple):
    """One piece of ground truth.

    Attributes
    ----------
    image_id : str
        Of the image it belongs to.
    kind : {"box", "mask", "ignore"}
        ``ignore`` is a mask of pixels that count neither way.
    x0, y0, x1, y1 : float
        Half-open box in pixels of the image; 0 for masks.
    path : str
        Mask file, relative to `DatasetConfig.mask_root`; empty for boxes.
    where : str
        ``file:line`` of its source.
    """

    image_id: str
    kind: AnnotationKind
    x0: float = 0.0
    y0: float = 0.0
    x1: float = 0.0
    y1: float = 0.0
    path: str = ""
    where: str = ""


def describe_ignored(ignored: Mapping[str, int]) -> str:
    """Like ``12 .fits, 1 .txt``: files by suffix that are not taken for images."""
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in sorted(ignored.items()))


@dataclass(frozen=True)
class Listing:
    """A split as its metadata describes it.

    Attributes
    ----------
    rows : list of ListedRow
        Sorted by image_id, unique.
    annotations : list of Annotation
        In the order of `rows`, then of the metadata.
    classes : int or None
        Number of classes; None if unknown.
    class_names : dict of int to str
        May name only some of them.
    objectless : tuple of int
        Labels of classes whose images hold no object.
    ignored : dict of str to int
        Suffix -> files skipped because their name is not that of an image.
    notes : list of str
        Remarks for people on what was left out, one line each.
    """

    rows: list[ListedRow]
    annotations: list[Annotation] = field(default_factory=list)
    classes: int | None = None
    class_names: dict[int, str] = field(default_factory=dict)
    objectless: tuple[int, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Problems:
    """Collects bad lines of metadata, so that one error shows them all instead of the first.

    Parameters
    ----------
    subject : str
        What is being read, such as ``data set birds, split val``.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.lines: list[str] = []

    def add(self, where: str, text: str) -> None:
        """Add one bad line; the twentieth ends the reading.

        Raises
        ------
        DataError
            When `MAX_PROBLEMS` lines have been added.
        """
        self.take(f"{where}: {text}")

    def take(self, line: str) -> None:
        """Add a line that says itself where the fault is; as `add`."""
        self.lines.append(line)
        if len(self.lines) >= MAX_PROBLEMS:
            self.settle()

    def settle(self, hint: str | None = None) -> None:
        """Raise if there is any problem.

        Raises
        ------
        DataError
            With every line added, ``file:line`` first.
        """
        if not self.lines:
            return
        more = " (reading stopped here)" if len(self.lines) >= MAX_PROBLEMS else ""
        noun = "1 problem" if len(self.lines) == 1 else f"{len(self.lines)} problems"
        msg = f"{self.subject}: {noun}{more}\n  " + "\n  ".join(self.lines)
        raise DataError(msg, hint=hint)
