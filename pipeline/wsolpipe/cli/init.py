"""``wsolpipe init`` and ``demo``."""

from __future__ import annotations

import csv
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import make_command
from wsolpipe.contract.errors import ConfigError, raise_as
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, keys_of_class, read_keys

if TYPE_CHECKING:
    from wsolpipe.images.dataset import DatasetConfig
    from wsolpipe.images.describing import Described


class _Keys:
    """Keys of ``wsolpipe init``.

    Attributes
    ----------
    out
        file to write
    seed
        seed of the splits that are drawn where there are none
    """

    out = Key(kinds.file("YAML file"), otherwise="the folder's name.yaml, here")
    seed = Key(kinds.integer(0), 0)


KEYS = keys_of_class(_Keys)
HEAD = """\
# Written by wsolpipe init of {folder}: {text}.
# The template data/folder.yaml and the reference of data sets explain the keys; paths are relative to this file.
"""
DRAWN = "# Drawn with seed {seed}, 70/15/15 by class, images that look alike in one split. The table may be edited.\n"
UNLABELLED = """\
# No classes: every image is of the one class "object". Boxes are then scored by their size alone, without a classifier.
"""
CHOSEN = """\
# Maps choose their blocks, scale and size themselves, by how little their boxes change when images are mirrored or
# cropped; boxes are ordered by the overlap with the mean map too. The papers' own settings: remove these lines.
"""
STAND_IN = """\
# Published weights are not within reach of this machine, so the tiny ones of the demo stand in. They learned eight
# kinds of rendered shapes: their labels try commands, and are worth less than a box in the middle of each image.
# One file changes that: replace these lines by  cls_maps: {weights: FILE}, such as dino_deitsmall16_pretrain.pth
"""


@make_command("init", keys=KEYS, as_run=False, positional=kinds.file("folder"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Look at a folder of images and write the YAML that describes it, with splits where it has none.

    Class folders, images alone, a csv table, and the files of COCO, VOC, YOLO, CUB, ILSVRC, tar, Parquet and video are
    known. Nothing in the folder is changed.

    \b
    wsolpipe init photos
    wsolpipe init photos out=birds.yaml seed=1
    """
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.images.describing import describe_folder
    from wsolpipe.images.index import list_split

    folders = [word for word in words if "=" not in word]
    hint = "wsolpipe init FOLDER, where FOLDER holds the images; its other arguments: wsolpipe init --help"
    own = read_keys([word for word in words if "=" in word], KEYS, hint=hint)
    if len(folders) != 1:
        msg = "init looks at one folder"
        raise ConfigError(msg, hint=hint)
    folder = Path(folders[0]).expanduser()
    found = describe_folder(folder)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", folder.resolve().name).lstrip("._-") or "mine"
    path = Path(own["out"] or f"{name}.yaml").expanduser()
    if path.suffix not in {".yaml", ".yml"}:
        msg = f"out={path}: dataset= takes a file that ends in .yaml"
        raise ConfigError(msg, hint=f"out={path}.yaml")
    if path.exists():
        msg = f"{path} exists already"
        raise ConfigError(msg, hint=f"dataset={path} uses it; out=OTHER.yaml writes another")
    table = _draw(found, path, own["seed"]) if found.drawn else None
    stand_in = not _published()
    text = _description(folder, path, name, found, table, own["seed"], stand_in=stand_in)
    with raise_as(ConfigError, f"{path} cannot be written", OSError, hint="name another file with out="):
        path.write_text(text, encoding="utf-8")
    config = load_dataset(str(path))
    counts = {split: _count(list_split(config, split)) for split in config.splits}
    if as_json:
        print_json({"dataset": str(path), "layout": config.layout, "root": str(config.root), "splits": counts,
                    "drawn": str(table) if table else None, "stand_in": stand_in})  # fmt: skip
        return 0
    print(f"{folder}: {found.text}; layout {config.layout}")
    for split, (images, classes, boxes) in counts.items():
        print(f"  {split}: {images:,} images of {classes:,} class{'es' * (classes != 1)}, {boxes:,} boxes")
    print(f"wrote {path}" + (f" and {table}, its splits" if table else ""))
    _show_next(config, path, stand_in=stand_in)
    return 0


def _count(listing: Any) -> tuple[int, int, int]:
    """Images, classes that have one, and boxes."""
    classes = {label for row in listing.rows for label in row.labels}
    return len(listing.rows), len(classes), sum(item.kind == "box" for item in listing.annotations)


def _published() -> bool:
    """Whether the weights of the default maps are here or can be fetched."""
    from wsolpipe.networks.pretrained import within_reach
    from wsolpipe.stages.registry import load_registry

    return within_reach(str(load_registry()["cls_maps"].params["model"])) != ""


def _draw(found: Described, path: Path, seed: int) -> Path:
    """Write the table of the images with a split each; return its path.

    Raises
    ------
    ConfigError
        If it is there already, or the folder cannot be listed.
    """
    from wsolpipe.images.describing import draw_splits, near_groups
    from wsolpipe.images.importers.folder import class_folders, walk
    from wsolpipe.images.importers.table import read_rows

    target = path.with_suffix(".csv")
    if target.exists():
        target = path.with_name(f"{path.stem}-splits.csv")
    if target.exists():
        msg = f"{target} exists already"
        raise ConfigError(msg, hint="remove it, or name another YAML file with out=")
    if found.layout == "csv":
        header, lines, place, label = read_rows(found.root / found.keys["metadata"], found.keys.get("columns", {}))
        paths, labels = [line[place] for line in lines], [line[label] if label is not None else "" for line in lines]
    else:
        header = ["path", "label"]
        lines = [[inside, name] for name in class_folders(found.root)
                 for inside in sorted(walk(found.root / name, f"{name}/", deep=True)[0])]  # fmt: skip
        paths, labels = ([line[column] for line in lines] for column in (0, 1))
    label_of = dict(zip(reversed(paths), reversed(labels), strict=True))  # of several lines the first
    own = list(dict.fromkeys(paths))
    splits = dict(
        zip(own, draw_splits([label_of[item] for item in own], near_groups(found.root, own), seed), strict=True)
    )
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "split"])
        writer.writerows([*line, splits[inside]] for line, inside in zip(lines, paths, strict=True))
    return target


def _description(
    folder: Path, path: Path, name: str, found: Described, table: Path | None, seed: int, *, stand_in: bool
) -> str:
    """The commented YAML."""
    import yaml

    here = path.absolute().parent
    root = found.root.resolve()
    shown = os.path.relpath(root, here) if root.is_relative_to(here) else str(root)
    keys: dict[str, Any] = {"name": name, "layout": "csv" if table else found.layout, "root": shown}
    keys |= found.keys | ({"metadata": table.name, "split": _three(table)} if table else {})
    if table is None and "metadata" in keys:  # it is looked for beside the YAML first
        keys["metadata"] = os.path.normpath(os.path.join(shown, keys["metadata"]))
    stages: dict[str, Any] = {} if found.labelled else {"proposals": {"score": "size"}}
    text = HEAD.format(folder=folder, text=found.text)
    text += "" if found.labelled else UNLABELLED
    text += DRAWN.format(seed=seed) if table else ""
    text += _dump(keys)
    if stand_in:
        from wsolpipe.images.dataset import load_dataset

        demo = load_dataset("demo").stages
        parts = ("model", "model_args", "weights", "mean", "std", "size", "blocks", "scale")
        stages["cls_maps"] = {part: demo["cls_maps"][part] for part in parts}
        if found.labelled:
            stages["classifier"] = {key: value for key, value in demo["classifier"].items() if key not in {"epochs"}}
        text += STAND_IN
    else:
        stages["cls_maps"] = dict.fromkeys(("blocks", "scale", "size"), "auto")
        given = keys.get("split", "train")
        splits = [given] if isinstance(given, str) else list(given)
        if "train" not in splits:
            stages["map_choice"] = {"split": splits[0]}
        ranked = {"rank": "margin" if found.labelled else "agreement", "min_area": 0.02}
        stages["proposals"] = {**stages.get("proposals", {}), **ranked}
        text += CHOSEN
    text += _dump({"stages": stages}) if stages else ""
    text += "# What is drawn on reports and published cards:\n"
    return text + yaml.safe_dump({"title": "", "licence": "", "citation": ""}, sort_keys=False)


def _three(table: Path) -> dict[str, str]:
    with table.open(encoding="utf-8", newline="") as file:
        held = {line[-1] for line in csv.reader(file)}
    return {split: split for split in ("train", "val", "test") if split in held}


def _dump(keys: dict[str, Any]) -> str:
    """YAML with one key a line, values in flow style."""
    import yaml

    parts = []
    for key, value in keys.items():
        if key == "stages":
            inner = "".join(f"  {line}\n" for line in _dump(value).splitlines())
            parts.append(f"stages:\n{inner}")
        else:
            shown = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
            parts.append(f"{key}: {shown.removesuffix('...' + chr(10)).strip()}\n")
    return "".join(parts)


def _show_next(config: DatasetConfig, path: Path, *, stand_in: bool) -> None:
    """Say what the labels will be worth, and which commands come next."""
    if stand_in:
        print("published weights are not within reach: the demo's tiny ones stand in, for trying commands alone")
        print("  cls_maps.weights=FILE in the YAML gives labels worth training on; wsolpipe doctor says what is here")
    first = "val" if "val" in config.splits else config.splits[0]
    print("\nNext:")
    print(f"  wsolpipe check dataset={path}")
    print(f"  wsolpipe run stage=proposals dataset={path} split={first} limit=50")
    print(f"  wsolpipe report dataset={path}")


FOLDER = "wsolpipe-demo"
NAMES = ("demo.yaml", "demo_video.yaml", "demo")


@make_command("demo", as_run=False, positional=kinds.file("folder"))
def demo_command(words: tuple[str, ...], as_json: bool) -> int:  # noqa: ARG001
    """Copy the demo's images, weights and descriptions, 14 MB, and show the commands that try it.

    \b
    wsolpipe demo
    wsolpipe demo FOLDER
    """
    from wsolpipe.images.dataset import data_folder

    if len(words) > 1 or any("=" in word for word in words):
        msg = "demo takes one folder"
        raise ConfigError(msg, hint=f"wsolpipe demo FOLDER, or none for {FOLDER}")
    target = Path(words[0] if words else FOLDER).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target} exists already"
        raise ConfigError(msg, hint="wsolpipe demo OTHER copies it elsewhere")
    with raise_as(
        ConfigError, f"{target} cannot be written", OSError, hint="name another folder: wsolpipe demo FOLDER"
    ):
        target.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            source = data_folder() / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target / name)
    print(f"copied the demo to {target}: eight classes of rendered scenes with boxes and masks. Next:\n")
    print(f"  cd {target}")
    print("  wsolpipe run stage=proposals dataset=demo.yaml store=labels     # half a minute on two cores")
    print("  wsolpipe eval stage=proposals dataset=demo.yaml store=labels")
    print("  wsolpipe report dataset=demo.yaml store=labels")
    print("  wsoltrain fit recipe=dips_workshop dataset=demo.yaml store=labels")
    return 0
