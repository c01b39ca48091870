"""Recipes by name: the YAML files of this folder, and those that other packages declare."""

from __future__ import annotations

from pathlib import Path

from wsolpipe.contract.named import Registry

FOLDER = Path(__file__).parent
#: Name -> file. The entry point of another package names an attribute that is the path of its YAML file.
RECIPES: Registry[Path] = Registry(
    "recipe", "wsoltrain.recipes", {path.stem: f"{__name__}:{path.stem}" for path in sorted(FOLDER.glob("*.yaml"))}
)


def __getattr__(name: str) -> Path:
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        msg = f"module {__name__} has no attribute {name}"
        raise AttributeError(msg)
    return path
