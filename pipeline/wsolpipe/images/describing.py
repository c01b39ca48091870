"""Looking at a folder of images: its layout, the keys of the YAML that describes it, and splits where it has none."""

from __future__ import annotations

import csv
import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolpipe.contract.errors import BadImageError, ConfigError
from wsolpipe.images.decode import decode, read_file
from wsolpipe.images.importers.cub import FILES as CUB_FILES
from wsolpipe.images.importers.folder import class_folders, walk
from wsolpipe.images.importers.lines import IMAGE_ENDINGS, read_json
from wsolpipe.images.video import is_video, map_ahead
from wsolpipe.keys.safe_yaml import read_yaml

#: Split -> how folders and files call it.
SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst"),
}
#: Column of layout csv -> what tables call it.
ALIASES = {
    "path": "path filename file_name file image image_path img filepath image_name name",
    "label": "label labels class classname class_name category target y",
    "split": "split subset set fold partition part",
    "x0": "x0 xmin x_min left", "y0": "y0 ymin y_min top", "x1": "x1 xmax x_max right", "y1": "y1 ymax y_max bottom",
    "image_id": "image_id id", "width": "width", "height": "height", "mask": "mask",
}  # fmt: skip
#: Bytes of a JSON file that is opened to see whether it is COCO's where its name does not say so.
MOST_JSON = 2**26


@dataclass(frozen=True)
class Described:
    """Content of a folder.

    Attributes
    ----------
    layout : str
        One of `LAYOUTS`.
    root : Path
        Folder of the image files.
    text : str
        What was found, for people.
    keys : dict
        Further keys of the YAML, `split` among them.
    drawn : bool
        Whether splits have to be drawn.
    labelled : bool
        Whether images have classes.
    """

    layout: str
    root: Path
    text: str
    keys: dict[str, Any] = field(default_factory=dict)
    drawn: bool = False
    labelled: bool = True


def describe_folder(folder: Path) -> Described:
    """Find the layout of a folder; of several that fit the one that says most.

    Raises
    ------
    ConfigError
        If it is no folder, or holds no image.
    """
    if not folder.is_dir():
        msg = f"no folder {folder}" if not folder.exists() else f"{folder} is a file, and init looks at a folder"
        raise ConfigError(msg, hint="wsolpipe init FOLDER, where FOLDER holds the images")
    for look in (_cub, _ilsvrc, _voc, _coco, _yolo, _metadata, _packs, _table, _clips, _folders):
        found = look(folder)
        if found is not None:
            return found
    names = sorted(os.listdir(folder))[:5]
    msg = f"{folder} holds no image" + (f", only {', '.join(names)}" if names else ": it is empty")
    raise ConfigError(msg, hint="name the folder that holds the image files or their sub-folders")


def split_of(name: str) -> str | None:
    """Split that a file or folder is named after, whole or as a part of its name."""
    parts = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, names in SPLIT_NAMES.items() if parts & set(names)), None)


def _splits(names: Iterable[str]) -> dict[str, str]:
    """Split -> the first of the names that is called so."""
    found: dict[str, str] = {}
    for name in names:
        if split := split_of(name):
            found.setdefault(split, name)
    return {split: found[split] for split in SPLIT_NAMES if split in found}


def _is_one(folder: Path, *names: str) -> bool:
    return all((folder / name).exists() for name in names)


def _cub(folder: Path) -> Described | None:
    root = next((place for place in (folder, folder / "CUB_200_2011") if _is_one(place, *CUB_FILES)), None)
    if root is None:
        return None
    return Described("cub", root, "CUB-200-2011 as published", {"split": {"train": "train", "test": "test"}})


def _ilsvrc(folder: Path) -> Described | None:
    root = next((place for place in (folder, folder / "ILSVRC") if _is_one(place, "Data/CLS-LOC")), None)
    if root is None:
        return None
    parts = {part: part for part in ("train", "val") if (root / "Data/CLS-LOC" / part).is_dir()}
    return Described("ilsvrc", root, "ILSVRC as published", {"split": parts})


def _voc(folder: Path) -> Described | None:
    places = [folder, *sorted(folder.glob("VOC20*")), *sorted(folder.glob("VOCdevkit/VOC20*"))]
    roots = [place for place in places if _is_one(place, "JPEGImages", "Annotations")]
    if not roots:
        return None
    lists = sorted(path.stem for path in (roots[-1] / "ImageSets/Main").glob("*.txt"))
    known = {split: split for split in SPLIT_NAMES if split in lists}
    others = f"; {', '.join(map(str, roots[:-1]))} beside it" if roots[:-1] else ""
    return Described("voc", roots[-1], f"Pascal VOC annotations{others}", {"split": known or "train"})


def _coco(folder: Path) -> Described | None:
    found: list[Path] = []
    for place in (folder / "annotations", folder, *(folder / name for name in class_folders(folder))):
        named = sorted(place.glob("*.json")) if place.is_dir() else []
        sure = [path for path in named if path.name.startswith("instances_") or ".coco" in path.name]
        found += [path for path in sure or named[:20] if path in sure or _is_coco(path)]
        if found and place in (folder / "annotations", folder):
            break
    if not found:
        return None
    inside = {path.relative_to(folder).as_posix(): path for path in dict.fromkeys(found)}
    splits = _splits(inside)
    if not splits:
        return Described("coco", folder, "a COCO file", {"metadata": next(iter(inside)), "split": "train"})
    return Described("coco", folder, "COCO files", {"metadata": ".", "split": splits})


def _is_coco(path: Path) -> bool:
    if path.stat().st_size > MOST_JSON:
        return False
    try:
        content = read_json(path)
    except Exception:  # not JSON, or too deep: it is another file
        return False
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _yolo(folder: Path) -> Described | None:
    inside = [name for name in class_folders(folder) if _is_one(folder / name, "images", "labels")]
    if not _is_one(folder, "images", "labels") and not inside:
        return None
    described = read_yaml(folder / "data.yaml") if (folder / "data.yaml").is_file() else {}
    keys = {split: split for split in SPLIT_NAMES if isinstance(described, dict) and described.get(split)}
    below = inside or [name for name in class_folders(folder / "images") if (folder / "labels" / name).is_dir()]
    return Described("yolo", folder, "YOLO labels", {"split": _splits(below) or keys or "train"})


def _metadata(folder: Path) -> Described | None:
    for place in (folder / "metadata", folder):
        names = class_folders(place) if place.is_dir() else []
        held = [name for name in names if any(_is_one(place / name, f"{n}.txt") for n in ("image_ids", "class_labels"))]
        if held:
            keys = {"metadata": place.relative_to(folder).as_posix(), "split": {name: name for name in held}}
            return Described("metadata", folder, "metadata files of ids, labels and boxes", keys)
    return None


def _packs(folder: Path) -> Described | None:
    for layout, ending in (("tar", ".tar"), ("parquet", ".parquet")):
        files = sorted(
            {path.relative_to(folder).as_posix() for depth in ("", "*/") for path in folder.glob(f"{depth}*{ending}")}
        )
        tables = layout == "parquet" and files and not _holds_images(folder / files[0])
        if not files or tables:
            continue
        starts = {name: re.split(r"[-_.]?\d", name)[0].removesuffix(ending) for name in files}
        splits = {split: starts[name] for split, name in _splits(files).items()}
        return Described(layout, folder, f"{len(files)} {ending} files of images", {"split": splits or "train"})
    return None


def _holds_images(path: Path) -> bool:
    import pyarrow.parquet as pq

    return "image" in pq.read_schema(path).names


def _table(folder: Path) -> Described | None:
    for path in sorted(file for file in folder.iterdir() if file.suffix.lower() in {".csv", ".tsv"}):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline()
            header = [cell.strip() for cell in next(csv.reader([first], delimiter=max(",;\t", key=first.count)), [])]
        lower = {name.lower(): name for name in reversed(header)}
        pairs = ((ours, next((lower[a] for a in names.split() if a in lower), None)) for ours, names in ALIASES.items())
        columns = {ours: theirs for ours, theirs in pairs if theirs is not None}
        if "path" not in columns:
            continue
        sized = {"x0": "x", "y0": "y", "x1": "w", "y1": "h"}
        keys: dict[str, Any] = {"metadata": path.name}
        if "x0" not in columns and set(sized.values()) <= lower.keys():
            columns |= {ours: lower[theirs] for ours, theirs in sized.items()}
            keys["box_format"] = "xywh"
        keys["columns"] = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
        if "split" in columns:
            place = header.index(columns["split"])
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                lines = list(csv.reader(file, delimiter=max(",;\t", key=first.count)))[1:]
            keys["split"] = (
                _splits(dict.fromkeys(line[place].strip() for line in lines if place < len(line))) or "train"
            )
        keys = {name: value for name, value in keys.items() if value}
        return Described("csv", folder, f"the table {path.name}", keys, "split" not in columns, "label" in columns)
    return None


def _clips(folder: Path) -> Described | None:
    films = [name for place in _two_deep(folder) for name in os.listdir(place) if is_video(name)]
    if not films:
        return None
    splits = _splits(class_folders(folder))
    return Described("clips", folder, f"{len(films)} video files", {"split": splits or "train"}, labelled=bool(splits))


def _two_deep(folder: Path) -> list[Path]:
    """A folder and its sub-folders down to the classes of splits."""
    below = [folder / name for name in class_folders(folder)]
    return [folder, *below, *(place / name for place in below for name in class_folders(place))]


def _folders(folder: Path) -> Described | None:
    below = class_folders(folder)
    splits = {split: name for split, name in _splits(below).items() if name.lower() in SPLIT_NAMES[split]}
    if splits:
        classes = sorted({name for split in splits.values() for name in class_folders(folder / split)})
        if not classes and not any(walk(folder / name, "", deep=False)[0] for name in splits.values()):
            return None
        text = f"{len(classes)} class folders in {', '.join(splits.values())}" if classes else "images without classes"
        keys: dict[str, Any] = {"split": splits} | ({} if classes else {"classes": 1})
        return Described("folder", folder, text, keys, labelled=bool(classes))
    held = [name for name in below if _holds_image(folder / name)]
    if len(held) == 1 and not walk(folder, "", deep=False)[0] and class_folders(folder / held[0]):
        inner = _folders(folder / held[0])  # one folder too high
        if inner is not None:
            return inner
    if len(held) > 1:
        return Described("folder", folder, f"{len(held)} class folders", drawn=True)
    if held or walk(folder, "", deep=False)[0]:
        root = folder / held[0] if held and not walk(folder, "", deep=False)[0] else folder
        return Described("folder", root, "images without classes", {"split": "train", "classes": 1}, labelled=False)
    return None


def _holds_image(folder: Path) -> bool:
    return any(name.lower().endswith(IMAGE_ENDINGS) for _, _, names in os.walk(folder) for name in names)


SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
SIDE = 8
#: Bits of 64 by which the difference hashes of near-duplicates differ at most.
NEAR = 3


def draw_splits(labels: Sequence[str], groups: Sequence[int], seed: int) -> list[str]:
    """Split of every image: each class in the shares of `SHARES`, as far as its groups allow.

    Parameters
    ----------
    labels : sequence of str
        Class of each image.
    groups : sequence of int
        Images of one group come into one split.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    of_class: dict[str, list[int]] = defaultdict(list)
    for group, places in members.items():
        of_class[labels[places[0]]].append(group)
    draw = random.Random(seed)
    found = ["train"] * len(labels)
    for label in sorted(of_class):
        order = sorted(of_class[label], key=lambda group: members[group][0])
        draw.shuffle(order)
        total = sum(len(members[group]) for group in order)
        for split in ("val", "test"):
            wanted = max(1, round(SHARES[split] * total)) if len(order) > 2 else 0
            while wanted > 0 and len(order) > 1:
                group = order.pop()
                wanted -= len(members[group])
                for place in members[group]:
                    found[place] = split
    return found


def near_groups(root: Path, paths: Sequence[str], threads: int = 4) -> list[int]:
    """Number of the group of near-duplicates of each image: those whose difference hashes are alike, and theirs.

    An image that cannot be read is a group of its own. The hash says of 8 x 8 places whether the next one to the right
    is brighter; Krawetz, "Kind of Like That", 2013.
    """

    def hashed(path: str) -> int | None:
        try:
            found = difference_hash(decode(read_file(f"{root}/{path}"), draft=(64, 64)))
        except (BadImageError, OSError):
            return None
        return found or None  # an even surface looks like any other

    found = list(map_ahead(hashed, paths, threads=threads))
    parents = list(range(len(paths)))

    def top(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for part in range(4):  # two hashes that differ in three bits at most have one of their four parts in common
        buckets: dict[int, list[int]] = defaultdict(list)
        for place, value in enumerate(found):
            if value is not None:
                buckets[value >> 16 * part & 0xFFFF].append(place)
        for bucket in buckets.values():
            _join(bucket, np.array([found[place] for place in bucket], np.uint64), parents, top)
    return [top(place) for place in range(len(paths))]


def _join(bucket: list[int], values: NDArray[np.uint64], parents: list[int], top: Callable[[int], int]) -> None:
    for at, place in enumerate(bucket):
        alike = np.flatnonzero(np.bitwise_count(values[at + 1 :] ^ values[at]) <= NEAR)
        for other in alike.tolist():
            parents[top(bucket[at + 1 + other])] = top(place)


def difference_hash(pixels: NDArray[np.uint8]) -> int:
    """Sixty-four bits of an image [H, W, 3], alike for images that look alike."""
    from PIL import Image

    small = np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
