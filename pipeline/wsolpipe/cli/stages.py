"""``wsolpipe stages``."""

from __future__ import annotations

from wsolpipe.cli.command import make_command
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json, print_table
from wsolpipe.keys.key import Key, read_keys

KEYS = (Key("stages", kinds.file("YAML file"), "file of your own stages"),)


@make_command("stages", keys=KEYS, as_run=False, positional=kinds.name("name of a stage", source="stage"))
def command(words: tuple[str, ...], as_json: bool) -> int:
    """List the stages; with names, their parameters: type, default, unit and meaning.

    \b
    wsolpipe stages
    wsolpipe stages cls_maps proposals
    """
    from wsolpipe.launch.terminal import describe_stage, show_stage
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
        return 0
    for stage in described:
        show_stage(stage)
    return 0
