"""Layouts of films: `clips`, a folder of clips by class, and `ytov1` and `ytov22`, the shots of YouTube-Objects.

``class/clip/0001.jpg …`` or ``class/clip.mp4``; a folder of frames, or a video, directly in the split's folder is
a clip without a label (DAVIS: ``root: JPEGImages/480p``, ``masks: ../Annotations/480p``). The frames of a video are
named ``class/clip.mp4#000012``. `metadata:` may name a folder with ``localization.txt``, whose ids are these paths.
The clip is the group.

YouTube-Objects v1.0 and v2.2 come in the metadata files of TCAM's splits, as in layout `metadata`, but an id may be a
shot: a folder of frames, expanded to all of them, which have its label. Ids of single frames belong to the group of
their folder. Boxes are floats, and a frame may have several.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.importers import metadata
from wsolpipe.images.importers.folder import class_folders, split_root, walk
from wsolpipe.images.importers.ground_truth import frame_masks, mask_annotations, read_localization
from wsolpipe.images.importers.lines import (
    IMAGE_ENDINGS,
    Stamp,
    read_lines,
    settle_classes,
    stamp,
    stamp_folders,
)
from wsolpipe.images.listing import TEXTS, Annotation, Layout, ListedRow, Listing, Problems
from wsolpipe.images.video import frame_path, is_video, open_film

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig

TREE = """\
  {root}/
    cat/  clip1/  0001.jpg …    one sub-folder a class, in it a folder of frames or a video file a clip;
          clip2.mp4             or <split>/<class>/ where the YAML maps splits to folders
    clip3/  0001.jpg …          a clip without a label"""
YTOV_TREE = """\
  {root}/                       frames, at the paths that image_ids.txt names
    aeroplane/data/0001/shots/001/frame0001.jpg …
  <metadata>/<split>/
    image_ids.txt               path of a shot's folder, or of one frame
    class_labels.txt            path,label
    localization.txt            path of a frame,x0,y0,x1,y1           (optional)
    image_sizes.txt             path of a frame,width,height          (optional)
  <metadata>/classes.txt        label,name                            (optional)"""
#: Reason of the one row of a clip that has no frame.
EMPTY = "no frame in this folder"


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List frames; a label is the position of the class folder's name among those of all splits, sorted.

    With `every: n` of the YAML only each n-th frame of a clip is listed, and those that have boxes or masks.
    """
    root = config.image_root()

    def named() -> dict[int, str]:
        found = {name for other in config.splits for name in _classes(split_root(config, root, other))}
        return dict(enumerate(sorted(found)))

    count, names = settle_classes(config, problems, named)
    labels = {name: label for label, name in names.items()}
    top = split_root(config, root, split)
    prefix = "" if top == root else top.relative_to(root).as_posix() + "/"
    rows = _clips(top, prefix, (), deep=False)
    for name in _classes(top):
        if name in labels:
            rows += _clips(top / name, f"{prefix}{name}/", (labels[name],), deep=True)
        else:
            problems.add(os.path.join(top, name), f"folder {name!r} is not a class of {config.classes}")
    annotations = _boxes(config, split, rows, problems) + frame_masks(config, rows, problems)
    kept = sample(rows, config.every, {item.image_id for item in annotations})
    return Listing(rows=kept, annotations=annotations, classes=count, class_names=names)


def _sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """Folders of every split, video files and the boxes."""
    root = config.image_root()
    for other in config.splits:
        top = split_root(config, root, other)
        if other == split:
            yield from stamp_folders(top, other)
            for folder in (top, *(top / name for name in _classes(top))):
                yield from (stamp(folder / name) for name in _videos(folder))
        else:
            yield from ((f"{other}/{name}", 0, 0) for name in _classes(top))
    if config.metadata is not None:
        yield stamp(_boxes_file(config, split))


def sample(rows: list[ListedRow], every: int, annotated: set[str]) -> list[ListedRow]:
    """Each `every`-th frame of a group, and those with ground truth; frames keep their numbers."""
    return [row for row in rows if (row.frame or 0) % every == 0 or row.image_id in annotated]


def frames_of(folder: Path | str, prefix: str, labels: tuple[int, ...]) -> list[ListedRow]:
    """Frames of one folder in the order of their names; one quarantined row where there is none."""
    paths, _ = walk(folder, prefix, deep=False) if os.path.isdir(folder) else ([], 0)
    group = prefix.rstrip("/")
    if not paths:
        return [ListedRow(group, group, labels, group=group, frame=0, reason=EMPTY)]
    return [
        ListedRow(path, path, labels, group=group, frame=number)
        for number, path in enumerate(sorted(paths, key=_natural))
    ]


def _clips(folder: Path, prefix: str, labels: tuple[int, ...], *, deep: bool) -> list[ListedRow]:
    """Frames of the video files and, where they are clips, of the sub-folders of a folder."""
    rows: list[ListedRow] = []
    for name in class_folders(folder):
        if deep or _holds_frames(folder / name):
            rows += frames_of(folder / name, f"{prefix}{name}/", labels)
    for name in _videos(folder):
        video = f"{prefix}{name}"
        try:
            count = len(open_film(folder / name))
        except (BadImageError, OSError) as error:
            reason = error.message if isinstance(error, BadImageError) else f"cannot be read: {error.strerror}"
            first = frame_path(video, 0)
            rows.append(ListedRow(first, first, labels, group=video, frame=0, reason=reason))
            continue
        for number in range(count):
            path = frame_path(video, number)
            rows.append(ListedRow(path, path, labels, group=video, frame=number))
    return rows


def _classes(top: Path) -> list[str]:
    """Sub-folders that hold no frame themselves."""
    return [name for name in class_folders(top) if not _holds_frames(top / name)]


def _holds_frames(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGE_ENDINGS) for entry in entries if entry.name[0] != ".")


def _videos(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name[0] != "." and is_video(entry.name))


def _natural(path: str) -> tuple[int, str]:
    """Frames by the number at the end of their names, then by name: ``frame10`` comes after ``frame9``."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    digits = stem[len(stem.rstrip("0123456789")) :]
    return int(digits or 0), path


def _boxes_file(config: DatasetConfig, split: str) -> Path:
    top = config.locate("metadata", config.metadata or ".")
    name = config.files.get("localization") or "localization.txt"
    beside = top / split / name
    return beside if beside.is_file() else top / name


def _boxes(config: DatasetConfig, split: str, rows: list[ListedRow], problems: Problems) -> list[Annotation]:
    if config.metadata is None:
        return []
    path = _boxes_file(config, split)
    if not path.is_file():
        return []
    text = read_lines(path, path.name, problems)
    return read_localization(config, text, {row.image_id for row in rows}, problems, subset=False)


def list_shots(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """Read the metadata files and list the frames of each shot; `every: n` lists each n-th and those with boxes."""
    texts, classes, names = metadata.read_texts(config, split, metadata.metadata_folder(config, split), problems)
    ids = metadata.read_ids(texts["image_ids"], problems) if "image_ids" in texts else None
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


def shot_sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
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


LAYOUT = Layout(_list_rows, _sources, TREE, keys=TEXTS | {"every"}, upright=True)
YTOV = Layout(list_shots, shot_sources, YTOV_TREE, keys=TEXTS | {"every"})
