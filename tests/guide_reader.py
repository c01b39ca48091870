"""The folder of somebody who types the guide's commands: small data under the guide's names, and small networks.

What the guide fetches, and what takes hours, is replaced by something small of the same kind.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from guide_blocks import ROOT, blocks
from tiny_models import save_clipseg, save_sam
from videos import write_video
from wsolpipe.images.dataset import load_dataset
from wsoltrain.methods.base import Task
from wsoltrain.training.recipe_file import known_recipes, lay_over, load_recipe, read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEMO = ROOT / "data" / "demo"
ROWS = range(0, 32, 16)
"""Number of the first image of each round of the demo's classes; three of each round are birds.yaml."""
RECIPES = [name for name in known_recipes() if "demo" in read_recipe(name).datasets]
STAND_INS: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"dataset=(demo|demo_video|cub|glas)(?= |$)": r"dataset=\1.yaml",
    r" root=/data/CUB_200_2011": "",
    r"init birds( out=shared.yaml)?$": lambda word: f"init few out={'shared' if word[1] else 'again'}.yaml",
    r"store=(stores/demo|wsol-store)": "store=labels",
    r"anchors=\S+": lambda _: (
        f"anchors={next(Path('labels').glob('cub/artifacts/text_anchors/*/files/*.safetensors'))}"
    ),
    r"s3://": "",
    r"=facebook/": "=",
    r"runs=FOLDER": "runs=searches/cam-birds",
    r"in=corrected.json": "in=coco/annotations/instances_val.json",
    r"maps=scores": "maps=scores/test",
    r"cls_maps.model=vit_small_patch16_224.dino ": "",
    r"size=224 backbone=vit_base_patch16_clip_224.openai": "size=96",
    r"recipes?=\S+": lambda word: re.sub(r"[a-z_]+(?=,|$)", lambda name: f"{name[0]}.yaml", word[0]),
    # as many, as large and as good as a minute allows
    r"blocks=8-11": "blocks=2-3",
    r"blocks=11,8-11": "blocks=3,2-3",
    r"sizes=\[224,336\]": "sizes=[64,96]",
    r"slots=5": "slots=2",
    r"trials=50 parallel=2": "trials=1",
    r"configurations=12": "configurations=1",
    r"must_beat=true": "must_beat=false",
}
"""Words of the guide -> what is typed in the reader's folder instead."""


def fill(folder: Path) -> None:
    """Make the reader's files in an empty folder."""
    stages = load_dataset("demo").stages
    stages["classifier"]["epochs"] = 1
    small = {
        "regions": {"top_n": 12}, "val_boxes": {"slots": 12}, "segments": {"size": 64},
        "clipseg_cams": {"weights": str(save_clipseg(folder / "clipseg"))}, "refine_weight": {"weights": [0.0, 0.5]},
    }  # fmt: skip
    own = {name: {key: value for key, value in keys.items() if key != "classes"} for name, keys in stages.items()}
    for split in ("train", "val", "test"):
        keep_lines(
            DEMO / "metadata" / split, folder / "metadata" / split, {row + kind for row in ROWS for kind in (0, 1, 2)}
        )
    printed = yaml.safe_load(next(text for label, text in blocks("README.md") if label == "yaml"))
    splits = {name: name for name in ("train", "val", "test")}
    boxes = {
        "layout": "metadata",
        "metadata": "metadata",
        "split": splits,
        "licence": "CC0-1.0",
        "stages": {**own, **small},
    }
    for name in ("birds", "cub"):
        write_yaml(folder / f"{name}.yaml", {**printed, "name": name, **boxes})
    for target, kind in {"photos": "car", "few/car": "car", "few/fish": "fish"}.items():
        (folder / target).mkdir(parents=True)
        for path in sorted((DEMO / "images" / "test" / kind).iterdir())[:7]:
            shutil.copy(path, folder / target)
    fill_demo(folder, {**stages, **small})
    fill_clips(folder, {**stages, **small})
    write_video(folder / "film.mp4", 6)
    fill_weights(folder)
    for name in RECIPES:
        write_recipe(folder / f"{name}.yaml", name)
    for split in ("train", "val"):  # as a report saves them
        line = {"image_id": f"{split}/butterfly/000.jpg", "boxes": [{"box": [20, 30, 90, 100]}]}
        (folder / f"corrections-birds-{split}.jsonl").write_text(f"{json.dumps(line)}\n")
        listed = {"dataset": "birds", "split": split, "rows": [{"row": 0, "image_id": line["image_id"]}]}
        (folder / f"rows-birds-{split}.json").write_text(json.dumps(listed))
    write_yaml(folder / "names.yaml", {"names": ["butterfly", "car", "fish"], "background": ["ground", "sky"]})


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def fill_demo(folder: Path, stages: dict[str, Any]) -> None:
    """demo.yaml: a scene of each class a split; glas.yaml: the same with masks alone."""
    for split in ("train", "val", "test"):
        keep_lines(DEMO / "metadata" / split, folder / "scenes" / split, set(range(8)))
    shipped = yaml.safe_load((ROOT / "data" / "demo.yaml").read_text())
    places = {"root": str(DEMO / "images"), "masks": str(DEMO / "masks"), "metadata": "scenes", "stages": stages}
    write_yaml(folder / "demo.yaml", {**shipped, **places})
    write_yaml(folder / "glas.yaml", {**shipped, **places, "name": "glas", "files": {"localization": None}})


def fill_clips(folder: Path, stages: dict[str, Any]) -> None:
    """demo_video.yaml: one clip of each of two classes a split, every sixth frame of it."""
    for split in ("train", "val", "test"):
        for kind in ("butterfly", "car"):
            (folder / "clips" / split / kind).mkdir(parents=True)
            shutil.copy(DEMO / "clips" / split / kind / "00.mp4", folder / "clips" / split / kind)
    shipped = yaml.safe_load((ROOT / "data" / "demo_video.yaml").read_text())
    write_yaml(folder / "demo_video.yaml", {**shipped, "root": "clips", "metadata": None, "every": 6, "stages": stages})


def keep_lines(source: Path, target: Path, rows: set[int]) -> None:
    """Copy metadata with the lines of some images alone, by the number in their names; classes are numbered so too."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        names = [(line, line.partition(",")[0]) for line in path.read_text().splitlines()]
        kept = [line for line, name in names if int(Path(name).stem) in rows]
        (target / path.name).write_text("".join(f"{line}\n" for line in kept))


def write_recipe(path: Path, name: str) -> None:
    """A recipe with the values of its section of the demo, which has small networks, and small steps."""
    file = read_recipe(name)
    keys = lay_over(file.keys, file.datasets["demo"])
    keys |= {"epochs": 1, "batch": 4} | ({"head_epochs": 0} if "head_epochs" in keys else {})
    by = {"by": file.by["demo"]} if "demo" in file.by else {}
    write_yaml(path, {**keys, **by, "profiles": file.profiles, "search": file.search})


def fill_weights(folder: Path) -> None:
    """Files of weights that the guide names, each as a program of its kind writes it."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(DEMO / "weights" / "demo_clip.safetensors"), folder / "ViT-B-16.pt")
    for name, file in (("cam", "best_checkpoint.pth.tar"), ("scm", "scm.pth.tar")):
        recipe = load_recipe(name, dataset="demo", changes={"weights": None})
        state = recipe.build(Task(3, recipe.size)).state_dict()
        torch.save({"state_dict": {key.removeprefix("net."): value for key, value in state.items()}}, folder / file)
    save_sam(folder / "sam-vit-base")
    save_detector(folder / "detector.onnx")


def save_detector(path: Path) -> None:
    """A detector with YOLOX's output, the same candidates for every image."""
    import onnx

    side = 64
    count = sum((side // stride) ** 2 for stride in (8, 16, 32))
    found = np.random.default_rng(0).random((1, count, 7), np.float32)
    image = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, side, side])
    output = onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, count, 7])
    parts = {"found": found, "zero": np.zeros(1, np.float32)}
    nodes = [
        onnx.helper.make_node("ReduceMean", ["images"], ["grey"], keepdims=0),
        onnx.helper.make_node("Mul", ["grey", "zero"], ["nothing"]),
        onnx.helper.make_node("Add", ["found", "nothing"], ["output"]),
    ]
    held = [onnx.numpy_helper.from_array(value, name) for name, value in parts.items()]
    graph = onnx.helper.make_graph(nodes, "detector", [image], [output], held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def typed(line: str, keys: Iterable[str] = ()) -> str:
    """A line of the guide as the reader types it here; words that name keys of a store become `keys`, in turn."""
    for pattern, word in STAND_INS.items():
        line = re.sub(pattern, word, line)
    left = iter(keys)
    return re.sub(r"KEY_A|KEY_B|(?<=@)(1f2e|3a4b)|(?<=drop=)3fa9", lambda _: next(left), line)


def keys_of(store: Path, stage: str) -> list[str]:
    """Keys of a stage of birds.yaml in a store, the oldest first."""
    found = [path for path in store.glob(f"birds/*/{stage}/*") if path.is_dir()]
    return list(dict.fromkeys(path.name for path in sorted(found, key=lambda path: path.stat().st_mtime)))
