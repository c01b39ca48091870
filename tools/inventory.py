"""List everything that has a name: commands with their keys, stages, recipes, layouts, formats; compare with a list.

A list made before a change of structure, compared after it, shows what got lost.

    python tools/inventory.py > before.txt
    python tools/inventory.py --compare before.txt
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.cli.main import cli as pipeline_cli
from wsolpipe.contract.named import Registry
from wsolpipe.evaluate.glossary import read_glossary
from wsolpipe.images.dataset import DatasetConfig, known_datasets
from wsolpipe.keys.models import keys_of
from wsolpipe.launch.profiles import Profile
from wsolpipe.stages.registry import load_registry
from wsoltrain.cli.command import recipe_keys
from wsoltrain.cli.main import cli as trainer_cli
from wsoltrain.training.recipe_file import known_recipes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wsolpipe.keys.key import Key

TABLES = {
    "layout": "wsolpipe.images.listing:LAYOUTS",
    "format": "wsolpipe.share.formats.base:FORMATS",
    "cluster": "wsolpipe.engine.config:LAUNCHERS",
    "method": "wsoltrain.methods.registry:METHODS",
    "figure of maps": "wsolpipe.evaluate.figures:FIGURES",
    "CAM method": "wsolpipe.ops.cam_methods:METHODS",
}


def entries() -> Iterator[str]:
    """A line for each thing that has a name."""
    for program, cli in (("wsolpipe", pipeline_cli), ("wsoltrain", trainer_cli)):
        for name in cli.listed:
            command = cli.load(name)
            table = command.table
            named = [key for key in table.names({}, "") if not isinstance(key, str)]
            listed = [key for section in table.sections({}) for key in section.keys]
            yield f"command {program} {name}{' takes words' * (table.positional is not None)}"
            yield from _keys(f"key {program} {name}", [*listed, *(key for key in named if key not in listed)])
            for option in command.params:
                yield from (f"option {program} {name} {text}" for text in option.opts if text.startswith("-"))
    registry = load_registry()
    for name, entry in registry.entries.items():
        yield f"stage {name}, version {entry.version}, {entry.kind}, needs {', '.join(entry.needs) or 'nothing'}"
        yield from _keys(f"parameter {name}", registry.keys(name))
        yield from (f"output {name}.{output}" for output in entry.outputs)
    for name in known_recipes():
        yield from _keys(f"recipe {name}", recipe_keys(name))
    yield from _keys("profile", keys_of(Profile))
    yield from _keys("data set", keys_of(DatasetConfig))
    yield from (f"data set of the package {name}" for name in known_datasets())
    yield from (f"figure {name}, {entry.kind}" for name, entry in read_glossary().items())
    for kind, target in TABLES.items():
        module, _, attribute = target.partition(":")
        table = getattr(importlib.import_module(module), attribute)
        names = table.names() if isinstance(table, Registry) else table
        yield from (f"{kind} {name}" for name in names)


def _keys(where: str, keys: Iterable[Key]) -> Iterator[str]:
    for key in keys:
        unit = f" {key.unit}" if key.unit else ""
        yield f"{where} {key.name} ({key.kind.name}{unit}) [{key.shown_default()}]: {key.meaning}"


def main() -> int:
    """Print the list, or compare; 1 if something of the other list is missing here."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--compare", type=Path, help="list that was made before")
    other = parser.parse_args().compare
    found = sorted(set(entries()))
    if other is None:
        print("\n".join(found))
        return 0
    before = other.read_text(encoding="utf-8").splitlines()
    lost, added = sorted(set(before) - set(found)), sorted(set(found) - set(before))
    print("\n".join([*(f"- {line}" for line in lost), *(f"+ {line}" for line in added)]) or "nothing differs")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
