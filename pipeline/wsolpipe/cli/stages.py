"""``wsolpipe stages``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.cli.command import make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.keys.key import Key, read_keys

if TYPE_CHECKING:
    from wsolpipe.stages.registry import Registry

KEYS = (Key("stages", kinds.file("YAML file"), "file of your own stages"),)


@make_command("stages", keys=KEYS, as_run=False, positional=kinds.name("name of a stage", source="stage"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """List the stages; with names, their parameters: type, default, unit and meaning.

    \b
    wsolpipe stages
    wsolpipe stages cls_maps proposals
    """
    from wsolpipe.stages.registry import load_registry

    names = [word for word in words if "=" not in word]
    own = read_keys([word for word in words if "=" in word], KEYS)
    registry = load_registry(own["stages"])
    if not names and not as_json:
        rows = [[name, entry.kind, ", ".join(entry.needs), entry.about] for name, entry in registry.entries.items()]
        print_table(["stage", "kind", "needs", "makes"], rows)
        return 0
    described = [describe_stage(registry, name) for name in names or registry.entries]
    if as_json:
        print_json({"stages": described})
    else:
        for stage in described:
            _show(stage)
    return 0


def describe_stage(registry: Registry, name: str) -> dict[str, Any]:
    """What a stage makes and needs, its parameters and outputs, as plain values.

    Raises
    ------
    ConfigError
        If there is no such stage, or its class cannot be imported.
    """
    entry = registry[name]
    return {
        "name": name,
        "about": entry.about,
        "kind": entry.kind,
        "needs": list(entry.needs),
        "columns": list(entry.columns),
        "parameters": [
            {
                "name": key.name.removeprefix(f"{name}."), "type": key.kind.name, "default": key.default,
                "unit": key.unit, "meaning": key.meaning,
            }
            for key in registry.keys(name)
        ],
        "outputs": dict(entry.outputs),
    }  # fmt: skip


def _show(stage: dict[str, Any]) -> None:
    needs = ", ".join(stage["needs"]) or "the index alone"
    print(f"{stage['name']} ({stage['kind']}, reads {needs}): {stage['about']}")
    columns = ["name", "type", "default", "unit", "meaning"]
    rows = [["null" if item[name] is None else str(item[name]) for name in columns] for item in stage["parameters"]]
    print_table(["parameter", *columns[1:]], rows)
    print_table(["output", "meaning"], [[name, meaning] for name, meaning in stage["outputs"].items()])
