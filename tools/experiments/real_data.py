"""Make data sets of photographs that lie in one folder with the field's metadata: fixed splits, and a YAML for each.

    python tools/experiments/real_data.py packs=FOLDER weights=FOLDER out=work [sets=fewclass5,cub10,ilsvrc_val_acuity]

A pack holds `images/` and image_ids.txt, class_labels.txt, classes.txt, image_sizes.txt and localization.txt. Its files
are split within each class in the order of the sha256 of their names, so that a split depends on nothing but the names.
The YAML says how pseudo-labels are made: a supervised ViT-Ti's class-token maps, and a linear probe of MobileNetV2.
A pack of fewer images than classes is for scores alone: a third of it is `val`, the rest `test`, and the classifier is
MobileNetV2 as it is. Where localization_stored227.txt is there, its boxes fit the stored files, of 227 pixels a side.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
SCORED = {"val": 1 / 3, "test": 2 / 3}
KINDS = ("image_ids", "class_labels", "image_sizes", "localization")
STORED = "localization_stored227.txt"


def split_ids(labels: dict[str, str], shares: dict[str, float] = SHARES) -> dict[str, set[str]]:
    """Ids of each split: within a class by the sha256 of the id, in the order of `shares`; what is over is in none."""
    classes = defaultdict(list)
    for name, label in labels.items():
        classes[label].append(name)
    splits: dict[str, set[str]] = {name: set() for name in shares}
    for names in classes.values():
        ordered = sorted(names, key=lambda name: sha256(name.encode()).hexdigest())
        start, so_far = 0, 0.0
        for split, share in shares.items():
            so_far += share
            stop = round(so_far * len(ordered))
            splits[split].update(ordered[start:stop])
            start = stop
    return splits


def write_set(pack: Path, weights: Path, out: Path, shares: dict[str, float] = SHARES) -> Path:
    """Write the metadata of the splits of one pack below `out`, and its YAML; returns that."""
    folder = out / pack.name
    lines = {kind: (pack / f"{kind}.txt").read_text(encoding="utf-8").splitlines() for kind in KINDS}
    if (pack / STORED).exists():
        lines["localization"] = (pack / STORED).read_text(encoding="utf-8").splitlines()
        lines["image_sizes"] = [f"{name},227,227" for name in lines["image_ids"]]
    labels = dict(line.rsplit(",", 1) for line in lines["class_labels"] if line)
    if len(labels) < _classes(pack):
        labels, shares = dict.fromkeys(labels, "any"), SCORED
    for split, names in split_ids(labels, shares).items():
        target = folder / split
        target.mkdir(parents=True, exist_ok=True)
        for kind, of_all in lines.items():
            kept = [line for line in of_all if line.split(",", 1)[0] in names]
            (target / f"{kind}.txt").write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        (target / "classes.txt").write_text((pack / "classes.txt").read_text(encoding="utf-8"), encoding="utf-8")
    path = out / f"{pack.name}.yaml"
    path.write_text(yaml.safe_dump(description(pack, weights, folder, shares), sort_keys=False), encoding="utf-8")
    return path


def _classes(pack: Path) -> int:
    return sum(1 for line in (pack / "classes.txt").read_text(encoding="utf-8").splitlines() if line)


def description(pack: Path, weights: Path, folder: Path, shares: dict[str, float] = SHARES) -> dict[str, Any]:
    """Return what the YAML of a pack says."""
    half = 0.5  # both networks take colours in -1..1
    weights_file = str((weights / "mobilenetv2_100_tf_in1k.safetensors").resolve())
    how = {"mode": "probe", "start": weights_file} if "train" in shares else {"mode": "import", "weights": weights_file}
    return {
        "name": pack.name,
        "layout": "metadata",
        "root": str((pack / "images").resolve()),
        "metadata": str(folder.resolve()),
        "split": {name: name for name in shares},
        "classes": _classes(pack),
        "stages": {
            "cls_maps": {
                "model": "vit_tiny_patch16_224",
                "weights": str((weights / "vit_tiny_patch16_224_in1k.safetensors").resolve()),
                "mean": half,
                "std": half,
                "blocks": "8-11",
                "scale": "log",
            },
            "classifier": {
                "model": "mobilenetv2_100",
                "model_args": {"pad_type": "same"},
                **how,
                "mean": half,
                "std": half,
            },
        },
    }


def main(words: list[str]) -> int:
    """Write the sets that the words ask for and print their YAML files."""
    values = {"sets": "fewclass5,cub10", **dict(word.split("=", 1) for word in words)}
    for name in values["sets"].split(","):
        print(write_set(Path(values["packs"]) / name, Path(values["weights"]), Path(values["out"])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
