"""Keys that several commands of the trainer have."""

from __future__ import annotations

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key

CHECKPOINT = Key("checkpoint", kinds.file(), "best-….safetensors of a run, or the folder of the run")
DEVICE = Key(
    "device",
    kinds.text("torch device", offers=("cpu", "cuda")),
    "device of the network",
    otherwise="cuda if available",
)
RECIPE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_recipes")
TABLE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_tables")
STAGE = kinds.name("name of a stage", source="stored stage")
METRIC = kinds.choice("auto", "MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP")
PLOTS = Key(
    "plots", kinds.file("folder"), "folder to write every chart of the page to: SVG, and PDF and PNG for papers",
    otherwise="none",
)  # fmt: skip
_SPLIT = kinds.name("name of a split", source="split")


def split(name: str, meaning: str, default: str | None) -> Key:
    """Key that names a split."""
    return Key(name, _SPLIT, meaning, default)
