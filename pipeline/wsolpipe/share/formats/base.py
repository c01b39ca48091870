"""The definition of a format: how labels are written for other tools, and how boxes are read back."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.contract.named import Registry
from wsolpipe.images.video import open_film, split_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from wsolpipe.images.label_lines import LabelBox, LabelledImage

_HERE = "wsolpipe.share.formats"


@dataclass(frozen=True)
class Subject:
    """The labels that are written.

    Attributes
    ----------
    dataset, split, stage, key : str
        Where the labels are from.
    class_names : mapping of int to str
        Names by label; may name only some.
    root : Path or None
        Folder of the image files; None where it is not known.
    images : {"none", "link", "copy"}
        Whether image files are placed beside the labels.
    licence, title : str
    top : int or None
        Boxes of an image that its reader is to train on; None for all.
    """

    dataset: str
    split: str
    stage: str
    key: str
    class_names: Mapping[int, str] = field(default_factory=dict)
    root: Path | None = None
    images: str = "none"
    licence: str = ""
    title: str = ""
    top: int | None = None

    def label(self, box: LabelBox) -> str:
        """Name of a box's class."""
        return box.name or class_name(self.class_names, box.label)

    def place(self, image: LabelledImage, target: Path) -> None:
        """Put an image file at `target`, if asked for: a hard link where that is possible, else a copy.

        Raises
        ------
        ConfigError
            If the images are not there.
        """
        if self.images == "none":
            return
        from PIL import Image

        from wsolpipe.images.decode import read_file

        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        source, frame = f"{self.root}/{image.path}", split_frame(image.path)
        try:
            if frame is not None:
                Image.fromarray(open_film(f"{self.root}/{frame[0]}").read(frame[1])).save(target)
            elif not os.path.isfile(source):
                target.write_bytes(read_file(source))  # a member of an archive
            elif self.images == "link":
                try:
                    os.link(os.path.realpath(source), target)
                except OSError:
                    shutil.copyfile(source, target)
            else:
                shutil.copyfile(source, target)
        except OSError as error:
            msg = f"image {image.path} cannot be placed: {error.strerror}"
            hint = "root=FOLDER names the folder of the images; images=none leaves them out"
            raise ConfigError(msg, hint=hint) from error


@dataclass(frozen=True)
class Found:
    """Boxes of one image as a file has them.

    Attributes
    ----------
    name : str
        What the file calls the image: an id, a path or its end.
    boxes : tuple of LabelBox
        Edges in pixels, or, where `relative` is set, as shares of the image's sides.
    where : str
        ``file:line`` for messages.
    relative : bool
    drawn : bool or None
        Whether a person drew or confirmed them; None where the file does not say.
    """

    name: str
    boxes: tuple[LabelBox, ...]
    where: str
    relative: bool = False
    drawn: bool | None = None


class Format(ABC):
    """One exchange format, found by its name in `FORMATS`.

    Attributes
    ----------
    about : str
        One line for help.
    loss : str
        What a round trip does not keep, and how precise edges are.
    holds : frozenset of str
        What it can be written from: ``boxes``, ``masks``, ``maps``.
    with_images : bool
        Whether its reader wants the image files beside the labels.
    trained : bool
        Whether its reader trains on all boxes that it finds: without ``top=`` it gets the first of each image.
    one_tree : bool
        Whether the splits share one folder; otherwise each has its own.
    """

    about: ClassVar[str]
    loss: ClassVar[str] = "nothing"
    holds: ClassVar[frozenset[str]] = frozenset({"boxes"})
    with_images: ClassVar[bool] = False
    trained: ClassVar[bool] = False
    one_tree: ClassVar[bool] = False

    @abstractmethod
    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write the labels of a split below `folder`, which is there; return the files to name, the main one first."""

    def finish(self, subjects: list[Subject], folder: Path) -> list[Path]:  # noqa: ARG002
        """Write what the splits of one tree have in common, once all are written; return the files to name."""
        return []

    def read(self, path: Path, split: str) -> Iterator[Found]:
        """Boxes of a file or folder that `write`, or another tool, wrote; of its parts the one of `split`.

        Raises
        ------
        DataError
            If it is not of this format; names file and line.
        """
        raise NotImplementedError

    @classmethod
    def reads(cls) -> bool:
        """Whether boxes can be read back."""
        return cls.read is not Format.read


#: Formats of ``export`` and ``import``; other packages declare theirs in the group of entry points.
FORMATS: Registry[type[Format]] = Registry(
    "format",
    "wsolpipe.formats",
    {
        "localization": f"{_HERE}.box_tables:BoxList",
        "coco": f"{_HERE}.coco_json:Coco",
        "yolo": f"{_HERE}.detectors:Yolo",
        "voc": f"{_HERE}.detectors:Voc",
        "csv": f"{_HERE}.box_tables:Csv",
        "parquet": f"{_HERE}.box_tables:Parquet",
        "jsonl": f"{_HERE}.box_tables:JsonLines",
        "hf": f"{_HERE}.image_folders:HfFolder",
        "fiftyone": f"{_HERE}.image_folders:FiftyOne",
        "labelstudio": f"{_HERE}.annotators:LabelStudio",
        "cvat": f"{_HERE}.annotators:Cvat",
        "png": f"{_HERE}.map_files:Png",
        "npy": f"{_HERE}.map_files:Npy",
    },
    base=f"{_HERE}.base:Format",
)
#: Built-in formats that are written and not read.
WRITTEN_ONLY = frozenset({"png", "npy"})


def class_name(names: Mapping[int, str], label: int | None) -> str:
    """Name of a class, its label as text where it has none, ``object`` where there is no class."""
    return "object" if label is None else names.get(label, str(label))


def class_list(names: Mapping[int, str]) -> list[str]:
    """Names by position, for formats that number their classes from 0 without gaps."""
    return [class_name(names, label) for label in range(max(names, default=-1) + 1)]


def stem_of(path: str) -> str:
    """A relative path without its ending; a member of an archive and a frame of a video lie in a folder of its name."""
    inside = PurePosixPath(path.replace("#", "/"))
    return str(inside.with_suffix("") if inside.suffix else inside)


def placed_name(path: str) -> str:
    """Where an image goes below a folder of images; a frame of a video becomes a PNG."""
    return f"{stem_of(path)}.png" if split_frame(path) else path.replace("#", "/")


def flat_name(path: str) -> str:
    """As `placed_name`, in one folder: many readers look for images and labels in one folder and in none below.

    Examples
    --------
    >>> flat_name("train/cat/1.jpg"), flat_name("1.jpg")
    ('train__cat__1.jpg', '1.jpg')
    """
    return placed_name(path).replace("/", "__")


def find_file(path: Path, *names: str) -> Path:
    """`path` itself if it is a file, else the first of `names` in that folder; a name may be a pattern.

    Raises
    ------
    DataError
        If there is none.
    """
    if path.is_file():
        return path
    found = next((file for name in names for file in sorted(path.glob(name)) if file.is_file()), None)
    if found is None:
        msg = f"{path} is neither a file nor a folder with {' or '.join(names)}"
        raise DataError(msg, hint="in= names what another tool exported")
    return found
