"""``wsoltrain export``: a trained localizer as files that run without this package."""

from __future__ import annotations

from pathlib import Path

import click

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, read_keys, require
from wsoltrain.cli.command import make_command
from wsoltrain.cli.common_keys import CHECKPOINT

KEYS = (
    CHECKPOINT,
    Key("out", kinds.file("folder"), "folder to write", otherwise="export/ beside the checkpoint"),
    Key(
        "formats",
        kinds.list_of(kinds.text("torch or onnx", offers=("torch", "onnx"))),
        "torch (torch.export, .pt2) and onnx",
        ("torch", "onnx"),
    ),
    Key("seed", kinds.integer(0), "seed of the random images on which the files are compared with the network", 0),
)  # fmt: skip


@make_command(
    "export",
    KEYS,
    example="wsoltrain export checkpoint=runs/dips-demo out=localizer",
    json_help="Print what localizer.json holds.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Write a trained localizer as a torch.export program and as ONNX.

    Both are compared with the network on random images. Size, mean, std, threshold and classes are written
    beside them as JSON.
    """
    values = read_keys(words, KEYS)
    require(values, "wsoltrain export", checkpoint="runs/dips-demo")
    import torch

    from wsoltrain.inference.export import FORMATS, export
    from wsoltrain.inference.model import load_trained

    formats = values["formats"]
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(unknown("format", name, FORMATS))
    trained = load_trained(values["checkpoint"], device=torch.device("cpu"))
    out = Path(values["out"] or trained.path.parent / "export")
    written = export(trained, out, formats=formats, seed=values["seed"])
    if as_json:
        print_json({"out": str(out), **written})
        return
    for kind, file in written["files"].items():
        click.echo(f"{out / file}: differs from the network by at most {written['differences'][kind]:.2e}")
    click.echo(
        f"{out / 'localizer.json'}: input {written['input']}, tau {written['tau']}, {len(written['classes'])} classes"
    )
