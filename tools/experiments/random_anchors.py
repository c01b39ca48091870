"""Write random orthonormal anchors of a data set's classes, for TeD-Loc without a CLIP.

    python tools/experiments/random_anchors.py dataset=FILE.yaml store=STORE out=anchors.safetensors [dimensions=192]

Such anchors tell classes apart and carry nothing about what their names mean. The store needs cls_maps of train.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from wsolpipe.evaluate.results import StoreResults
from wsolpipe.images.dataset import load_dataset


def main(words: list[str]) -> int:
    """Write both files."""
    values = {"dimensions": "192", **dict(word.split("=", 1) for word in words)}
    dataset = load_dataset(values["dataset"])
    results = StoreResults(values["store"], dataset.name)
    named = results.index_of(results.view("cls_maps", "train")).manifest.class_names
    labels = sorted(map(int, named))
    noise = torch.randn(len(labels), int(values["dimensions"]), generator=torch.Generator().manual_seed(0))
    anchors = torch.linalg.qr(noise.double().T).Q.T.float().contiguous()
    out = Path(values["out"])
    save_file({"plain": anchors, "anchors": anchors.clone()}, out)
    about = {"names": [named[str(label)] for label in labels], "labels": labels, "orthogonal": "qr"}
    out.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
