"""``wsoltrain export``: a trained localizer as files that run without this package."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsoltrain.cli.words import Key, completer, need, read_words, table, text, whole

KEYS = {
    "checkpoint": Key(text, None, "best-….safetensors of a run, or the run's folder"),
    "out": Key(text, None, "folder to write; export/ beside the checkpoint by default"),
    "formats": Key(text, "torch,onnx", "torch (torch.export, .pt2), onnx, or both"),
    "seed": Key(whole(0), 0, "of the random images on which the files are compared with the network"),
}


@click.command(
    "export",
    help="Write a trained localizer as a torch.export program and as ONNX, compare both with it on random images, and "
    f"write size, mean, std, threshold and classes beside them as JSON.\n\n\b\nKeys:\n{table(KEYS)}",
    epilog="Example: wsoltrain export checkpoint=runs/dips-demo out=localizer",
)
@click.argument("words", nargs=-1, metavar="KEY=VALUE…", shell_complete=completer(KEYS))
@click.option("--json", "as_json", is_flag=True, help="Print what localizer.json holds.")
def command(*, words: tuple[str, ...], as_json: bool) -> None:
    """Export and tell."""
    values = read_words(words, KEYS)
    need(values, "export", "checkpoint")
    import torch

    from wsoltrain.inference.export import FORMATS, export
    from wsoltrain.inference.model import load_trained

    formats = tuple(name.strip() for name in str(values["formats"]).split(","))
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(unknown("format", name, FORMATS))
    trained = load_trained(values["checkpoint"], device=torch.device("cpu"))
    out = Path(values["out"] or trained.path.parent / "export")
    told = export(trained, out, formats=formats, seed=values["seed"])
    if as_json:
        click.echo(json.dumps({"out": str(out), **told}))
        return
    for kind, file in told["files"].items():
        click.echo(f"{out / file}: differs from the network by at most {told['differences'][kind]:.2e}")
    click.echo(f"{out / 'localizer.json'}: input {told['input']}, tau {told['tau']}, {len(told['classes'])} classes")
