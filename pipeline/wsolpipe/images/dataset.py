"""The YAML that describes a data set: its name, where its files are and how they are laid out."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator

import wsolpipe
from wsolpipe.contract.errors import ConfigError, explain_one, guess_path, nearest, unknown
from wsolpipe.contract.layout import check_name
from wsolpipe.images.listing import LAYOUTS, OWN_KEYS
from wsolpipe.keys.safe_yaml import read_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Exif = Literal["apply", "ignore"]

#: Usual names of splits, and of their folders.
SPLITS = ("train", "val", "test")
MetadataFile = Literal["image_ids", "class_labels", "classes", "image_sizes", "localization", "groups"]


class DatasetConfig(BaseModel, extra="forbid", frozen=True):
    """One data set: the keys of its YAML, each with its meaning.

    Attributes
    ----------
    name
        Names the folder of the store, and in capitals the variable WSOLPIPE_NAME_ROOT
    layout
        How its files are laid out; see below
    root
        Folder of the image files; root= and that variable may name another
    metadata
        Folder of metadata files, or the table of layout csv; below the YAML or the root
    files
        Other names of metadata files, null for none: image_ids, class_labels, classes, image_sizes, localization,
        groups
    split
        One split, or split: folder or file for each
    masks
        Folder of mask images that mirrors the image files by stem
    classes
        Number of classes, or a file of label,name lines
    objectless
        Labels or names of classes whose images hold no object
    licence
        Licence of the images; publish refuses without one
    title
        Name for people, shown on reports and cards
    citation
        What to cite, shown on the card of a published store
    exif
        Whether boxes are of the upright image (apply) or of the stored pixels (ignore); the default is that of the
        layout
    columns
        Layouts csv and parquet: our column: column of the table
    box_format
        Layouts csv, metadata and parquet: what the last two numbers of a box are
    every
        Layouts clips, ytov1, ytov22: list each n-th frame of a clip, and those with truth
    train_boxes
        Layout ilsvrc: read the half million annotations of the train split too
    accept
        Findings of wsolpipe check that are right and stop no run, such as shared_images
    stages
        Defaults of parameters, stage: {parameter: value}; files are looked for beside the YAML
    """

    name: str
    layout: str
    root: Path | None = None
    metadata: str | None = None
    files: dict[MetadataFile, str | None] = Field(default_factory=dict)
    split: str | dict[str, str] = "train"
    masks: str | None = None
    classes: int | str | None = None
    objectless: list[int | str] = Field(default_factory=list)
    licence: str = ""
    title: str = ""
    citation: str = ""
    exif: Exif = "apply"
    columns: dict[str, str] = Field(default_factory=dict)
    box_format: Literal["xyxy", "xywh"] = "xyxy"
    every: int = Field(default=1, ge=1)
    train_boxes: bool = False
    accept: list[str] = Field(default_factory=list)
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    _source: Path | None = PrivateAttr(default=None)
    _root_first: bool = PrivateAttr(default=False)

    @field_validator("layout")
    @classmethod
    def _known_layout(cls, value: str) -> str:
        if value not in LAYOUTS:
            raise ValueError(unknown("layout", value, LAYOUTS.names()))
        return value

    @field_validator("classes")
    @classmethod
    def _positive(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, int) and value < 1:
            msg = "must be at least 1"
            raise ValueError(msg)
        return value

    @property
    def source(self) -> Path | None:
        """The YAML file this was read from."""
        return self._source

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of the YAML."""
        return [self.split] if isinstance(self.split, str) else list(self.split)

    def split_folder(self, split: str) -> str | None:
        """Folder of `split` as the YAML maps it; None where the data set has one split and no folder for it.

        Raises
        ------
        ConfigError
            If there is no such split.
        """
        if split not in self.splits:
            msg = f"data set {self.name}: {unknown('split', split, self.splits)}"
            raise ConfigError(msg)
        return None if isinstance(self.split, str) else self.split[split]

    def unused_keys(self) -> list[str]:
        """Keys with a value of their own that the layout does not read."""
        given = [
            name
            for name in OWN_KEYS
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True)
        ]
        return [name for name in given if name not in LAYOUTS.find(self.layout).keys]

    def image_root(self) -> Path:
        """Folder that row paths are relative to.

        Raises
        ------
        ConfigError
            If no root is known or it does not exist; names the folder looked for and shows the layout.
        """
        if self.root is not None and self.root.is_dir():
            return self.root
        variable = root_variable(self.name)
        if self.root is None:
            looked = f"its YAML ({self.source}) names no root, and {variable} is not set"
        else:
            looked = f"no folder {self.root}"
        msg = f"images not found: {looked}"
        raise self.layout_error(msg, hint=f"root=FOLDER, or export {variable}=FOLDER")

    def mask_root(self) -> Path:
        """Folder that mask paths of annotations are relative to: `masks` where given, else the root."""
        return self.image_root() if self.masks is None else self.locate("masks", self.masks)

    def locate(self, key: str, value: str) -> Path:
        """Absolute path of a file or folder that the YAML names, which may lie beside the YAML or in the root.

        Where `root=` or the environment gave the root, the root is looked in first.

        Raises
        ------
        ConfigError
            If it is in neither.
        """
        places = [self._source.parent] if self._source else []
        if self.root is not None:
            places = [self.root, *places] if self._root_first else [*places, self.root]
        candidates = [place / Path(value).expanduser() for place in places] or [Path(value).expanduser()]
        for candidate in candidates:
            if candidate.exists():
                return candidate
        msg = f"{key}: {value} not found; looked for {' and '.join(map(str, candidates))}"
        raise self.layout_error(msg, hint=f"set {key}: in {self.source or 'the YAML'}")

    def layout_error(self, text: str, *, hint: str | None = None) -> ConfigError:
        """The error for a file or folder missing from the layout, with the tree of the layout."""
        tree = LAYOUTS.find(self.layout).tree.format(root=self.root or "<root>")
        return ConfigError(
            f"data set {self.name}: {text}\nThe {self.layout} layout looks like this:\n{tree}", hint=hint
        )


def data_folder() -> Path:
    """Folder of the YAML files that come with wsolpipe, in a checkout or in a wheel."""
    package = Path(wsolpipe.__file__).parent
    checkout = package.parents[1] / "data"
    return checkout if (package.parents[1] / "pyproject.toml").is_file() else package / "data"


def known_datasets() -> list[str]:
    """Names that ``dataset=`` knows without a path."""
    return sorted(path.stem for path in data_folder().glob("*.yaml"))


def root_variable(name: str) -> str:
    """Environment variable that gives the root of data set `name`."""
    return f"WSOLPIPE_{''.join(c if c.isalnum() else '_' for c in name).upper()}_ROOT"


def load_dataset(name_or_path: str, *, root: str | None = None, need_root: bool = True) -> DatasetConfig:
    """Read the description of a data set.

    Parameters
    ----------
    name_or_path : str
        A name in the `data` folder, or a path to a YAML file.
    root : str, optional
        Folder of the image files; comes before the YAML's own, which comes before ``WSOLPIPE_<NAME>_ROOT``. A root of
        the YAML that does not exist is overridden by the variable.
    need_root : bool
        Whether a missing root is an error; False for commands that read only the store.

    Raises
    ------
    ConfigError
        For an unknown name, a file that is not a YAML mapping, an unknown or wrong key, or a missing root.
    """
    path = _find(name_or_path)
    raw = _read(path)
    layout = str(raw.get("layout"))
    raw.setdefault("exif", "apply" if layout in LAYOUTS and LAYOUTS.find(layout).upright else "ignore")
    given, raw["root"] = _choose_root(raw, path.parent, root)
    config = _validate(raw, path)
    config._source = path
    config._root_first = given
    for params in config.stages.values():
        _resolve_files(params, path.parent)
    if need_root:
        config.image_root()
    return config


def _choose_root(raw: dict[str, Any], folder: Path, root: str | None) -> tuple[bool, Any]:
    """Whether the root came from outside the YAML, and the root; a value of the wrong type is left to validation."""
    own = raw.get("root")
    if root is None and isinstance(own, str):
        own = os.path.abspath(folder / Path(own).expanduser())
    elif root is None and own is not None:
        return False, own
    outside = root
    if outside is None and not (own and os.path.isdir(own)):
        outside = os.environ.get(root_variable(str(raw.get("name"))))
    return bool(outside), os.path.abspath(os.path.expanduser(outside)) if outside else own


def is_path(name_or_path: str) -> bool:
    """Whether a word for a data set is the path of a YAML file, rather than one of `known_datasets`."""
    return name_or_path.endswith((".yaml", ".yml")) or os.sep in name_or_path


def _find(name_or_path: str) -> Path:
    if is_path(name_or_path):
        path = Path(name_or_path).expanduser().absolute()
        if path.is_file():
            return path
        if path.is_dir():
            raise _undescribed(Path(name_or_path))
        msg = f"no data set description {path}{guess_path(path, '*.y*ml')}"
        if path.with_suffix("").is_dir():
            raise ConfigError(msg, hint=f"wsolpipe init {Path(name_or_path).with_suffix('')} writes it")
        raise ConfigError(msg, hint="dataset= takes a YAML file or one of " + ", ".join(known_datasets()))
    path = data_folder() / f"{name_or_path}.yaml"
    if path.is_file():
        return path
    if Path(name_or_path).is_dir():
        raise _undescribed(Path(name_or_path))
    here = {path.stem: path.name for path in Path().glob("*.y*ml")}
    close = nearest(name_or_path, [*here, *known_datasets()])
    if close in here:
        msg = f"unknown data set {name_or_path!r}; did you mean the file {here[close]!r}?"
        raise ConfigError(msg, hint=f"dataset={here[close]}")
    msg = unknown("data set", name_or_path, known_datasets())
    raise ConfigError(msg, hint=f"dataset=FILE.yaml describes your own; {data_folder() / 'folder.yaml'} is a template")


def _undescribed(folder: Path) -> ConfigError:
    """The error for a folder of images without a description."""
    msg = f"dataset={folder} is a folder; dataset= takes a YAML file that says what it holds"
    return ConfigError(msg, hint=f"wsolpipe init {folder} looks at it and writes one")


def _read(path: Path) -> dict[str, Any]:
    raw = read_yaml(path, hint="dataset= takes a YAML file that describes a data set")
    if not isinstance(raw, dict):
        msg = f"{path} is not a mapping of keys to values"
        raise ConfigError(msg)
    return {str(key): value for key, value in raw.items()}


def _validate(raw: dict[str, Any], path: Path) -> DatasetConfig:
    try:
        config = DatasetConfig.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(list(group)) for _, group in groupby(error.errors(), key=_place)]
        msg = f"{path}: " + "; ".join(dict.fromkeys(lines))
        of_split = any(item["loc"][:1] == ("split",) for item in error.errors())
        hint = "write split: train, or each split with its folder: {train: train, val: val}" if of_split else None
        raise ConfigError(msg, hint=hint) from error
    check_name("data set", config.name)
    for split in config.splits:
        check_name("split", split)
    if not config.splits:
        msg = f"{path}: split: names no split"
        raise ConfigError(msg)
    return config


def _place(item: ErrorDetails) -> tuple[str, str]:
    """Errors of one value, which may be of several kinds, have one place."""
    return _key(item), repr(item["input"])


def _key(item: ErrorDetails) -> str:
    place = [str(part) for part in item["loc"]]
    return place[0] if place[0] in ("split", "classes") else ".".join(part for part in place if part != "[key]")


def _explain(items: list[ErrorDetails]) -> str:
    item = items[0]
    place = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        return unknown("key", place[-1], DatasetConfig.model_fields)
    if place[0] == "files" and len(place) > 1 and item["type"] == "literal_error":
        return f"files: {unknown('key', place[1], get_args(MetadataFile))}"
    if item["type"] == "missing":
        return f"missing key {'.'.join(place)!r}"
    if place == ["layout"]:
        return f"layout: {unknown('layout', str(item['input']), LAYOUTS.names())}"
    note = " (quote it: YAML reads a bare yes, no, on or off so)" if isinstance(item["input"], bool) else ""
    return f"{_key(item)}: {explain_one(items)}, not {item['input']!r}{note}"


def _resolve_files(params: dict[str, Any], folder: Path) -> None:
    """Make file names absolute where such a file lies beside the YAML; weights may be a folder.

    A word such as ``log`` is none, whatever lies there: file names have an ending or a slash, but for weights.
    """
    for key, value in params.items():
        if isinstance(value, dict):
            _resolve_files(value, folder)
        elif isinstance(value, str) and value and (key == "weights" or Path(value).suffix or "/" in value):
            path = folder / value
            if path.is_file() or (key == "weights" and path.is_dir()):
                params[key] = str(path.absolute())
