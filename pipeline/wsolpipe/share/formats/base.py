"""What a format is: how labels are written for other tools, and, where it holds boxes, how they are read back."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.video import split_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from wsolpipe.images.label_lines import LabelBox, LabelledImage


@dataclass(frozen=True)
class Subject:
    """What is written about.

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

    def place(self, image: LabelledImage, target: Path) -> None:
        """Put an image file at `target`: a hard link where that is possible and asked for, else a copy.

        Raises
        ------
        ConfigError
            If the images are not there.
        """
        from PIL import Image

        from wsolpipe.images.decode import read_file
        from wsolpipe.images.video import open_film

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
            raise ConfigError(
                msg, hint="root=FOLDER names the folder of the images; images=none leaves them out"
            ) from error  # noqa: E501


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
    """

    name: str
    boxes: tuple[LabelBox, ...]
    where: str
    relative: bool = False


class Format(ABC):
    """One exchange format; a module each, listed in `wsolpipe.share.formats.known`.

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
    reads : bool
        Whether `read` is implemented.
    """

    about: ClassVar[str]
    loss: ClassVar[str] = "nothing"
    holds: ClassVar[frozenset[str]] = frozenset({"boxes"})
    with_images: ClassVar[bool] = False
    reads: ClassVar[bool] = True

    @abstractmethod
    def write(self, images: Iterable[LabelledImage], subject: Subject, folder: Path) -> list[Path]:
        """Write labels below `folder`, which is there; return the files to name to the user, the main one first."""

    def read(self, path: Path) -> Iterator[Found]:
        """Boxes of a file or folder that `write`, or another tool, wrote.

        Raises
        ------
        DataError
            If it is not of this format; names file and line.
        """
        raise NotImplementedError


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


def find_file(path: Path, *names: str) -> Path:
    """`path` itself if it is a file, else the first of `names` in that folder.

    Raises
    ------
    DataError
        If there is none.
    """
    if path.is_file():
        return path
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        msg = f"{path} is neither a file nor a folder with {' or '.join(names)}"
        raise DataError(msg, hint="in= names what another tool exported")
    return found
