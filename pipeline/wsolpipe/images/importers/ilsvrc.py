"""Layout `ilsvrc`: the folder of ILSVRC-2012 CLS-LOC as published, and ImageNetV2 as its validation split.

The YAML maps each split to ``train``, ``val`` (the published validation images, with boxes from their XML annotations)
or ``val2`` (ImageNetV2 in folders by label, with boxes from metadata files where they are there; Choe et al., CVPR
2020). Image ids are those of the WSOL evaluation metadata: ``train/n01440764/n01440764_18.JPEG``.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.images.importers import metadata
from wsolpipe.images.importers.folder import class_folders, walk
from wsolpipe.images.importers.lines import Stamp, read_lines, stamp, stamp_folders
from wsolpipe.images.importers.voc import read_voc
from wsolpipe.images.listing import TEXTS, Annotation, Layout, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig

TREE = """\
  {root}/
    Data/CLS-LOC/train/n01440764/…JPEG   Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG
    Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml
    LOC_synset_mapping.txt      or devkit/data/map_clsloc.txt
    val2/<class>/<i>.jpeg       ImageNetV2, with <metadata>/val/ for its boxes"""
PARTS = ("train", "val", "val2")
IMAGE_BASES = ("Data/CLS-LOC/", "")
ANNOTATION_BASES = ("Annotations/CLS-LOC/", "Annotations/")
SYNSET_LISTS = ("LOC_synset_mapping.txt", "devkit/data/map_clsloc.txt", "synset_words.txt")
SOLUTION = "LOC_val_solution.csv"


def _list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """List one of the published parts; a label is the position of its synset among all synsets, sorted."""
    part = _part(config, split)
    root = config.image_root()
    base = _image_base(config, root, part)
    names = read_synsets(config, root, base, problems)
    labels = {name.partition(" ")[0]: label for label, name in names.items()}
    if part == "val2":
        listing = _list_v2(config, split, root, base, problems, len(names))
        rows, annotations = listing.rows, listing.annotations
    else:
        rows, annotations = _list_part(config, root, base, part, labels, problems)
    return Listing(rows=rows, annotations=annotations, classes=len(names), class_names=names)


def _sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """Folders of images and annotations, synset lists, and the metadata of the V2 split."""
    part = _part(config, split)
    root = config.image_root()
    base = _image_base(config, root, part)
    yield from stamp_folders(root / base / part, part)
    for name in (*SYNSET_LISTS, SOLUTION):
        yield stamp(root / name)
    annotations = _annotation_folder(root, part)
    if annotations and (part != "train" or config.train_boxes):
        yield from stamp_folders(annotations, "annotations")
    folder = _v2_metadata(config, split) if part == "val2" else None
    if folder is not None:
        yield from metadata.folder_sources(config, split, folder)


def read_synsets(config: DatasetConfig, root: Path, base: str, problems: Problems) -> dict[int, str]:
    """Label -> ``n01440764 tench, Tinca tinca``, from the list of synsets or else the folders of the train images.

    Raises
    ------
    ConfigError
        If there is neither, or the YAML's number of classes is another.
    """
    found: dict[str, str] = {}
    path = next((root / name for name in SYNSET_LISTS if (root / name).is_file()), None)
    if path is not None:
        text = read_lines(path, path.name, problems)
        for number, line in enumerate(text.lines, 1):
            synset, _, words = line.partition(" ")
            if line and not (synset[0] == "n" and synset[1:].isdecimal()):
                problems.add(text.at(number), f"does not begin with a synset such as n01440764: {line!r}")
            elif line and synset in found:
                problems.add(text.at(number), f"duplicate synset {synset}")
            elif line:
                first, _, rest = words.strip().partition(" ")  # the devkit's list numbers its synsets
                found[synset] = rest if first.isdecimal() and path.name == "map_clsloc.txt" else words.strip()
    elif (root / base / "train").is_dir():
        found = dict.fromkeys(class_folders(root / base / "train"), "")
    if not found and not problems.lines:
        msg = f"no list of synsets in {root}; looked for {', '.join(SYNSET_LISTS)} and train folders"
        raise config.layout_error(msg)
    if isinstance(config.classes, int) and config.classes != len(found) and not problems.lines:
        msg = (
            f"data set {config.name}: classes: {config.classes}, but {len(found)} synsets in {path or 'train folders'}"
        )
        raise ConfigError(msg)
    return {label: f"{synset} {found[synset]}".strip() for label, synset in enumerate(sorted(found))}


def _part(config: DatasetConfig, split: str) -> str:
    part = config.split_folder(split) or split
    if part not in PARTS:
        msg = f"data set {config.name}: split {split} maps to {part!r}; layout ilsvrc knows {', '.join(PARTS)}"
        raise ConfigError(msg)
    return part


def _image_base(config: DatasetConfig, root: Path, part: str) -> str:
    for base in IMAGE_BASES:
        if (root / base / part).is_dir():
            return base
    looked = " and ".join(str(root / base / part) for base in IMAGE_BASES)
    text = f"no folder of the {part} images; looked for {looked}"
    raise config.layout_error(text, hint="root= is the folder that holds Data/ and Annotations/")


def _annotation_folder(root: Path, part: str) -> Path | None:
    return next((root / base / part for base in ANNOTATION_BASES if (root / base / part).is_dir()), None)


def _list_part(
    config: DatasetConfig,
    root: Path,
    base: str,
    part: str,
    labels: Mapping[str, int],
    problems: Problems,
) -> tuple[list[ListedRow], list[Annotation]]:
    """Images of ``train`` or ``val``: those in synset folders have that label, others that of their annotation."""
    folder = _annotation_folder(root, part) if part != "train" or config.train_boxes else None
    rows: list[ListedRow] = []
    annotations: list[Annotation] = []
    for synset in class_folders(root / base / part):
        if synset not in labels:
            problems.add(str(root / base / part / synset), f"synset {synset} is not in the list of synsets")
            continue
        paths = walk(root / base / part / synset, f"{part}/{synset}/", deep=False)[0]
        rows += [ListedRow(path, base + path, (labels[synset],)) for path in paths]
        if folder is not None:
            below = folder / synset if part == "train" else folder
            for path in paths:
                annotations += _read_boxes(path, below / f"{_stem(path)}.xml", problems)[1]
    loose = walk(root / base / part, f"{part}/", deep=False)[0]
    solution = _read_solution(root, problems) if loose and part == "val" else {}
    for path in loose:
        own, boxes = _read_boxes(path, folder / f"{_stem(path)}.xml", problems) if folder is not None else (None, [])
        named = own or solution.get(_stem(path))
        if named is None:
            problems.add(path, f"no label: neither an XML annotation nor a line in {SOLUTION}")
        elif named not in labels:
            problems.add(path, f"synset {named} is not in the list of synsets")
        else:
            rows.append(ListedRow(path, base + path, (labels[named],)))
            annotations += boxes
    return rows, annotations


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _read_boxes(image_id: str, path: Path, problems: Problems) -> tuple[str | None, list[Annotation]]:
    """Synset of the first object and the boxes of one annotation file, as it has them; nothing if there is no file."""
    try:
        objects = read_voc(path).objects
    except DataError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            problems.take(error.message)
        return None, []
    boxes = []
    for number, item in enumerate(objects, 1):
        x0, y0, x1, y1 = item.edges  # counted from 0 there
        where = f"{path.name}: object {number}"
        boxes.append(Annotation(image_id, "box", x0 + 1, y0 + 1, x1, y1, "", where))
    return (objects[0].name if objects else None), boxes


def _read_solution(root: Path, problems: Problems) -> dict[str, str]:
    """Stem -> synset, from the list of validation labels."""
    path = root / SOLUTION
    if not path.is_file():
        return {}
    found = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        next(reader, None)
        for cells in reader:
            if len(cells) != 2 or not cells[1].strip():
                problems.add(f"{SOLUTION}:{reader.line_num}", f"not 'image,synset box …': {','.join(cells)!r}")
            else:
                found[cells[0]] = cells[1].split()[0]
    return found


def _v2_metadata(config: DatasetConfig, split: str) -> Path | None:
    """Folder of metadata files of the V2 split, by the split's or the part's name."""
    if config.metadata is None:
        return None
    try:
        top = config.locate("metadata", config.metadata)
    except ConfigError:
        return None
    places = [top / split, top / "val2", top]
    return next((place for place in places if (place / metadata.DEFAULT_FILES["image_ids"]).is_file()), None)


def _list_v2(config: DatasetConfig, split: str, root: Path, base: str, problems: Problems, classes: int) -> Listing:
    """V2 images by their metadata files; without those, by folders named 0 … 999 and without boxes."""
    folder = _v2_metadata(config, split)
    if folder is not None:
        listing = metadata.list_folder(config, split, folder, problems)
        return Listing([row._replace(path=base + row.path) for row in listing.rows], listing.annotations)
    top = root / base / "val2"
    rows = []
    for name in class_folders(top):
        if not name.isdecimal() or int(name) >= classes:
            problems.add(str(top / name), f"folder {name!r} is not a label of the {classes} classes")
            continue
        rows += [
            ListedRow(path, base + path, (int(name),)) for path in walk(top / name, f"val2/{name}/", deep=False)[0]
        ]
    return Listing(rows)


LAYOUT = Layout(_list_rows, _sources, TREE, keys=TEXTS - {"masks"} | {"train_boxes"})
