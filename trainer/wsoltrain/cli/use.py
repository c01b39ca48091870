"""``wsoltrain predict``, ``export`` and ``preview``: a localizer used, written as files, and what it sees."""

from __future__ import annotations

import sys
from pathlib import Path

from wsolpipe.contract.errors import ConfigError, unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class, read_keys, require
from wsolpipe.keys.words import split_words
from wsoltrain.cli.command import make_command, show
from wsoltrain.runs import predict, preview
from wsoltrain.runs.settle import CHECKPOINT


@make_command(
    "predict",
    predict.KEYS,
    example="wsoltrain predict checkpoint=runs/dips-demo source=photos out=found",
    json_help="Print what boxes.json holds.",
)
def predict_command(words: tuple[str, ...], as_json: bool) -> None:
    """Find the object in images and videos, or in a data set.

    Of source=, writes boxes.json and boxes.csv (xyxy, half-open, pixels of the upright picture), maps and overlays. Of
    dataset=, makes the stage predictions of the store: in shards, resumable, and read like any other stage.
    """
    values, given = read_keys(words, predict.KEYS), split_words(words)
    if "dataset" in given:
        code = predict.predict_dataset(values, given, as_json=as_json)
        if code:
            sys.exit(code)
        return
    result, lines = predict.predict_pictures(values, given)
    show(result, lines, as_json=as_json)
    predict.refuse_unread(result)


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


EXPORT_KEYS = keys_of_class(_Keys)


@make_command(
    "export",
    EXPORT_KEYS,
    example="wsoltrain export checkpoint=runs/dips-demo out=localizer",
    json_help="Print what localizer.json holds.",
)
def export_command(words: tuple[str, ...], as_json: bool) -> None:
    """Write a trained localizer as a torch.export program and as ONNX.

    Both are compared with the network on random images. Size, mean, std, threshold and classes are written
    beside them as JSON.
    """
    values = read_keys(words, EXPORT_KEYS)
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


@make_command(
    "preview",
    preview.KEYS,
    example="wsoltrain preview store=wsol-store dataset=demo n=16 out=preview.png",
    json_help="Print what was drawn as JSON.",
)
def preview_command(words: tuple[str, ...], as_json: bool) -> None:
    """Draw the inputs and labels of a training step into one picture."""
    values = read_keys(words, preview.KEYS)
    require(values, "wsoltrain preview", dataset="demo")
    show(*preview.preview(values), as_json=as_json)
