"""``wsoltrain export``: a trained localizer as files that run without this package."""

from __future__ import annotations

from pathlib import Path

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class, read_keys, require
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs.keys import CHECKPOINT


class _Keys:
    """Keys of ``wsoltrain export``.

    Attributes
    ----------
    out
        folder to write
    formats
        torch (torch.export, .pt2) and onnx
    seed
        seed of the random images on which the files are compared with the network
    """

    checkpoint = CHECKPOINT
    out = Key(kinds.file("folder"), otherwise="export/ beside the checkpoint")
    formats = Key(kinds.list_of(kinds.text("torch or onnx", offers=("torch", "onnx"))), ("torch", "onnx"))
    seed = Key(kinds.integer(0), 0)


KEYS = keys_of_class(_Keys)


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

    for name in values["formats"]:
        if name not in FORMATS:
            raise ConfigError(unknown("format", name, FORMATS))
    trained = load_trained(values["checkpoint"], device=torch.device("cpu"))
    out = Path(values["out"] or trained.path.parent / "export")
    found = export(trained, out, formats=values["formats"], seed=values["seed"])
    lines = [
        f"{out / file}: differs from the network by at most {found['differences'][kind]:.2e}"
        for kind, file in found["files"].items()
    ]
    about = f"input {found['input']}, tau {found['tau']}, {len(found['classes'])} classes"
    show({"out": str(out), **found}, [*lines, f"{out / 'localizer.json'}: {about}"], as_json=as_json)
