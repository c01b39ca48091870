"""Layout `metadata`: the text files of the WSOL evaluation protocol, one folder a split.

``image_ids.txt`` (a path a line), ``class_labels.txt`` (``path,label``), ``image_sizes.txt`` (``path,width,height``),
``localization.txt`` (``path,x0,y0,x1,y1`` or ``path,mask.png,ignore.png``) and ``classes.txt`` (``label,name``), as in
Choe et al., "Evaluating weakly supervised object localization methods right" (CVPR 2020). Beyond it: several labels
(the line repeated, or ``path,1;4``), and ``groups.txt`` (``path,group,frame``).
"""

from __future__ import annotations

from itertools import count, repeat
from typing import TYPE_CHECKING, Any, cast

from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.importers.ground_truth import mask_annotations, read_localization
from wsolpipe.images.importers.lines import (
    Stamp,
    TextFile,
    path_fault,
    read_classes,
    read_lines,
    stamp,
)
from wsolpipe.images.listing import TEXTS, Layout, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from wsolpipe.images.dataset import DatasetConfig

TREE = """\
  {root}/                       image files, at the paths that image_ids.txt names
  <metadata>/                   or <metadata>/<split>/ where the YAML maps splits to folders
    image_ids.txt               path
    class_labels.txt            path,label            (several: repeat the line, or path,1;4)
    image_sizes.txt             path,width,height     (optional)
    localization.txt            path,x0,y0,x1,y1  or  path,mask.png,ignore.png   (optional)
    classes.txt                 label,name            (optional)"""
OPENIMAGES_TREE = """\
  {root}/
    train/<class>/<id>.jpg  val/…  test/…
    train/<class>/<id>_m<class>_<hash>.png  <id>_ignore.png      masks, beside the images or under masks:
    metadata/train|val|test/    image_ids.txt class_labels.txt image_sizes.txt localization.txt"""
DEFAULT_FILES = {
    "image_ids": "image_ids.txt",
    "class_labels": "class_labels.txt",
    "classes": "classes.txt",
    "image_sizes": "image_sizes.txt",
    "localization": "localization.txt",
    "groups": "groups.txt",
}

Labels = tuple[int, ...]
Size = tuple[int, int, str]


def list_rows(config: DatasetConfig, split: str, problems: Problems) -> Listing:
    """Read the metadata files of a split.

    An id of ``class_labels``, ``image_sizes`` or ``localization`` that ``image_ids`` lacks is an error, unless the YAML
    names another file for `image_ids` (such as ``image_ids_proxy.txt``): that one then chooses a subset.
    """
    return list_folder(config, split, metadata_folder(config, split), problems)


def list_folder(config: DatasetConfig, split: str, folder: Path, problems: Problems) -> Listing:
    """As `list_rows`, of the metadata files in `folder`."""
    texts, classes, names = read_texts(config, split, folder, problems)
    ids = read_ids(texts["image_ids"], problems) if "image_ids" in texts else None
    problems.settle()  # a bad id would be reported again from every other file
    subset = config.files.get("image_ids") not in (None, DEFAULT_FILES["image_ids"])
    labels = read_labels(texts.get("class_labels"), ids, classes, problems, subset=subset)
    if ids is None:
        problems.settle()
        ids = dict.fromkeys(labels or {}, 0)
    if labels is not None and len(labels) < len(ids) and not problems.lines:
        missing = [name for name in ids if name not in labels]
        for name in missing:
            problems.add(texts["image_ids"].at(ids[name]), f"{name!r} has no line in {texts['class_labels'].shown}")
    sizes = read_sizes(texts.get("image_sizes"), ids, problems, subset=subset)
    groups = read_groups(texts.get("groups"), ids, problems, subset=subset)
    rows = make_rows(ids, labels or {}, sizes, groups)
    annotations = read_localization(config, texts.get("localization"), ids, problems, subset=subset)
    annotations += mask_annotations(config, rows, problems)
    return Listing(rows=rows, annotations=annotations, classes=classes, class_names=names)


def read_texts(
    config: DatasetConfig, split: str, folder: Path, problems: Problems
) -> tuple[dict[str, TextFile], int | None, dict[int, str]]:
    """The metadata files in `folder` by key, but the class list; of that, the number of classes and their names."""
    files = metadata_files(config, folder, split)
    classes, names = read_classes(config, files.get("classes"), problems)
    texts = {
        key: read_lines(path, _shown(path, folder, split), problems) for key, path in files.items() if key != "classes"
    }
    return texts, classes, names


def sources(config: DatasetConfig, split: str) -> Iterator[Stamp]:
    """The metadata files, existing or not."""
    yield from folder_sources(config, split, metadata_folder(config, split))


def folder_sources(config: DatasetConfig, split: str, folder: Path) -> Iterator[Stamp]:
    """As `sources`, of the metadata files in `folder`."""
    found = metadata_files(config, folder, split)
    for key, default in DEFAULT_FILES.items():
        yield stamp(found.get(key, folder / default), key)


def metadata_folder(config: DatasetConfig, split: str) -> Path:
    """Folder of a split's metadata files.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    name = config.split_folder(split)
    top = config.locate("metadata", config.metadata or ".")
    folder = top if name in (None, "", ".") else top / str(name)
    if not folder.is_dir():
        msg = f"data set {config.name}: no folder {folder} with the metadata of split {split}"
        raise ConfigError(msg, hint="metadata: names the folder, split: maps each split to its folder there")
    return folder


def metadata_files(config: DatasetConfig, folder: Path, split: str) -> dict[str, Path]:
    """The existing metadata files, by key.

    Raises
    ------
    ConfigError
        If a file that the YAML names is not there, or neither ids nor labels are.
    """
    found: dict[str, Path] = {}
    for key, default in DEFAULT_FILES.items():
        named = config.files.get(key, default)  # type: ignore[call-overload]  # keys of DEFAULT_FILES are MetadataFile
        if named is None:
            continue
        # Class names are the same for all splits and often lie one folder up.
        places = [folder / named, folder.parent / named] if key == "classes" else [folder / named]
        there = next((place for place in places if place.is_file()), None)
        if there is not None:
            found[key] = there
        elif key in config.files:
            msg = f"data set {config.name}: files: {key}: no file {folder / named} (split {split})"
            raise ConfigError(msg, hint=f"files: {{{key}: null}} in {config.source} if there is none")
    if "image_ids" not in found and "class_labels" not in found:
        msg = f"data set {config.name}: neither image_ids.txt nor class_labels.txt in {folder} (split {split})"
        raise ConfigError(msg, hint="files: gives them other names")
    return found


def read_ids(text: TextFile, problems: Problems) -> dict[str, int]:
    """Image ids -> line number, counted from 1."""
    ids = dict(zip(text.lines, count(1), strict=False))
    if len(ids) == len(text.lines) and "" not in ids and _all_plain(text.lines):
        return ids
    ids = {}
    for number, line in enumerate(text.lines, 1):
        if not line:
            continue
        if line in ids:
            problems.add(text.at(number), f"duplicate id {line!r}, first in line {ids[line]}")
        elif (line[0] in "/\\" or ".." in line or line[1:2] == ":") and (fault := path_fault(line)):
            problems.add(text.at(number), fault)
        else:
            ids[line] = number
    return ids


def _all_plain(lines: list[str]) -> bool:
    """Whether no line can be an absolute path or leave the root; if False, each has to be checked."""
    text = "\n" + "\n".join(lines)
    return not any(sign in text for sign in ("..", "\\", ":", "\n/"))


def read_labels(
    text: TextFile | None,
    ids: Mapping[str, int] | None,
    classes: int | None,
    problems: Problems,
    *,
    subset: bool,
) -> dict[str, Labels] | None:
    """Labels by image id, None without a file of labels; the order of labels is that of the file."""
    if text is None:
        return None
    known: dict[str, Labels | str] = {}
    labels = _plain_labels(text, ids, classes, known) if ids is not None else {}
    if labels:
        return labels
    for number, line in enumerate(text.lines, 1):
        if not line:
            continue
        name, comma, field = line.rpartition(",")
        parsed = known.get(field)
        if parsed is None:
            parsed = known[field] = _parse_labels(field, classes)
        if not comma:
            problems.add(text.at(number), f"not 'path,label': {line!r}")
        elif isinstance(parsed, str):
            problems.add(text.at(number), parsed)
        elif ids is not None and name not in ids:
            if not subset:
                problems.add(text.at(number), f"{name!r} is not in the image ids")
        elif ids is None and (fault := path_fault(name)):
            problems.add(text.at(number), fault)
        elif name not in labels:
            labels[name] = parsed
        elif set(parsed) & set(labels[name]):
            problems.add(text.at(number), f"duplicate id {name!r} with label {field} again")
        else:
            labels[name] += parsed
    return labels


def _plain_labels(
    text: TextFile, ids: Mapping[str, int], classes: int | None, known: dict[str, Labels | str]
) -> dict[str, Labels]:
    """Labels of a file without errors or repeated lines, four times faster than line by line; else empty."""
    parts = [line.rpartition(",") for line in text.lines if line]
    for field in {part[2] for part in parts}:
        known[field] = _parse_labels(field, classes)
    if any(isinstance(value, str) for value in known.values()):
        return {}
    labels = {part[0]: known[part[2]] for part in parts}
    plain = len(labels) == len(parts) and labels.keys() <= ids.keys()
    return cast("dict[str, Labels]", labels) if plain else {}


def read_sizes(text: TextFile | None, ids: Collection[str], problems: Problems, *, subset: bool) -> dict[str, Size]:
    """Declared (width, height, file:line) by image id."""
    sizes: dict[str, Size] = {}
    for number, line in enumerate(text.lines if text else (), 1):
        if not line or text is None:
            continue
        name, *numbers = line.rsplit(",", 2)
        try:
            width, height = map(int, numbers)
        except ValueError:
            problems.add(text.at(number), f"not 'path,width,height': {line!r}")
            continue
        if width < 1 or height < 1:
            problems.add(text.at(number), f"size {width}x{height} is not a size of an image")
        elif name not in ids:
            if not subset:
                problems.add(text.at(number), f"{name!r} is not in the image ids")
        elif name in sizes:
            problems.add(text.at(number), f"duplicate id {name!r}")
        else:
            sizes[name] = (width, height, text.at(number))
    return sizes


def read_groups(
    text: TextFile | None, ids: Collection[str], problems: Problems, *, subset: bool
) -> dict[str, tuple[str, int | None]]:
    """Group and position in it, by image id, of ``path,group,frame`` lines (frame may be empty)."""
    groups: dict[str, tuple[str, int | None]] = {}
    for number, line in enumerate(text.lines if text else (), 1):
        if not line or text is None:
            continue
        fields = line.rsplit(",", 2)
        if len(fields) != 3 or not (fields[2] == "" or fields[2].strip().isdecimal()):
            problems.add(text.at(number), f"not 'path,group,frame': {line!r}")
        elif fields[0] in groups:
            problems.add(text.at(number), f"duplicate id {fields[0]!r}")
        elif fields[0] in ids:
            groups[fields[0]] = (fields[1].strip(), int(fields[2]) if fields[2] else None)
        elif not subset:
            problems.add(text.at(number), f"{fields[0]!r} is not in the image ids")
    return groups


def make_rows(
    ids: Collection[str],
    labels: Mapping[str, Labels],
    sizes: Mapping[str, Size],
    groups: Mapping[str, tuple[str, int | None]],
) -> list[ListedRow]:
    """Rows whose path is their id."""
    names = list(ids)
    found = map(labels.get, names, repeat(()))
    if not sizes and not groups:
        return [ListedRow(name, name, label) for name, label in zip(names, found, strict=True)]
    no_size: tuple[Any, ...] = (None, None, "")
    no_group: tuple[Any, ...] = ("", None)
    return [
        ListedRow(name, name, label, *sizes.get(name, no_size), *groups.get(name, no_group))
        for name, label in zip(names, found, strict=True)
    ]


def _parse_labels(field: str, count: int | None) -> Labels | str:
    """Labels of one field such as ``3`` or ``1;4``, or what is wrong with it."""
    try:
        labels = tuple(int(part) for part in field.split(";"))
    except ValueError:
        return f"label {field!r} is not an integer"
    outside = [label for label in labels if label < 0 or (count is not None and label >= count)]
    if outside:
        known = f"outside the {count} classes (0 to {count - 1})" if count is not None else "negative"
        return f"label {outside[0]} is {known}"
    return labels if len(set(labels)) == len(labels) else f"label list {field!r} names one twice"


def _shown(path: Path, folder: Path, split: str) -> str:
    """Name of a file in messages: with the split's folder where splits have folders of their own."""
    return f"{folder.name}/{path.name}" if folder.name == split and path.parent == folder else path.name


LAYOUT = Layout(list_rows, sources, TREE, keys=TEXTS)
#: The same files, with the images in folders by split and class.
OPENIMAGES = Layout(list_rows, sources, OPENIMAGES_TREE, keys=TEXTS)
