"""``wsoltrain eval``: score a trained localizer on a split, at the threshold that was chosen with it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import RunFailed
from wsoltrain.cli.words import Key, completer, flag, need, read_words, table, text, whole

if TYPE_CHECKING:
    from wsoltrain.selection.comparison import Line

KEYS = {
    "checkpoint": Key(text, None, "best-….safetensors of a run, or the run's folder"),
    "dataset": Key(text, None, "name in data/ or a YAML file"),
    "store": Key(text, None, "folder or URL of the store (else WSOLPIPE_STORE, else wsol-store)"),
    "root": Key(text, None, "folder of the image files, instead of the one in the YAML"),
    "split": Key(text, "test", "split to score"),
    "against": Key(text, "gt", "gt, or the stage whose first box a row counts as true"),
    "beside": Key(text, "proposals", "stage whose first boxes are scored beside, or none"),
    "maps": Key(
        text,
        None,
        "stage whose maps are scored beside, such as cams: at the threshold that val chooses, and at its best",
    ),
    "val": Key(text, "val", "split on which the threshold of these maps is chosen, by the boxes that chose the run"),
    "must_beat": Key(flag, False, "exit code 1 unless the localizer beats all that is beside it"),
    "tau": Key(float, None, "threshold; the one chosen on validation, which the checkpoint holds, by default"),
    "workers": Key(whole(0), max(1, os.cpu_count() or 1), "loader processes"),
    "device": Key(text, None, "of torch; cuda where there is one"),
}


@click.command(
    "eval",
    help=f"Score a trained localizer on a split, beside the boxes it learned from.\n\n\b\nKeys:\n{table(KEYS)}",
    epilog="Example: wsoltrain eval checkpoint=runs/dips-demo/best-proposals.safetensors dataset=demo split=test",
)
@click.argument("words", nargs=-1, metavar="KEY=VALUE…", shell_complete=completer(KEYS))
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(*, words: tuple[str, ...], as_json: bool) -> None:
    """Score and tell."""
    values = read_words(words, KEYS)
    need(values, "eval", "checkpoint", "dataset")
    result = _score(values)
    if as_json:
        click.echo(json.dumps(result))
        _refuse_worse(result, asked=values["must_beat"])
        return
    click.echo(f"{result['split']}, {result['localizer']['rows_scored']} rows against {result['against']}:")
    for line in _shown(result["table"]):
        click.echo(line)
    for name, better in result["beats"].items():
        click.echo(f"the localizer {'beats' if better else 'does NOT beat'} {name}")
    _refuse_worse(result, asked=values["must_beat"])


def _shown(lines: list[dict[str, Any]]) -> list[str]:
    """The table as text, a line a method."""
    width = max(len(line["name"]) for line in lines)
    head = f"  {'':<{width}}  MaxBoxAcc  MaxBoxAccV2    iou  threshold"
    return [
        head,
        *(
            f"  {line['name']:<{width}}  {line['accuracy']:9.2f}  {line['v2']:11.2f}  {line['iou']:.3f}"
            f"  {line['threshold']}".rstrip()
            for line in lines
        ),
    ]


def _refuse_worse(result: dict[str, Any], *, asked: bool) -> None:
    worse = [name for name, better in result["beats"].items() if not better]
    if asked and worse:
        msg = f"the localizer of {result['checkpoint']} does not beat {' and '.join(worse)} on {result['split']}"
        raise RunFailed(msg, hint="more epochs, or another recipe; wsoltrain select shows every epoch")


def _score(values: dict[str, Any]) -> dict[str, Any]:
    import torch

    from wsolpipe.images.dataset import load_dataset
    from wsoltrain.data.config import Labelling
    from wsoltrain.inference.model import load_trained
    from wsoltrain.selection.comparison import beats, box_figures, compare
    from wsoltrain.selection.evaluation import Evaluator
    from wsoltrain.training import checkpoint

    device = torch.device(values["device"] or ("cuda" if torch.cuda.is_available() else "cpu"))
    trained = load_trained(values["checkpoint"], device=device)
    tau = values["tau"] if values["tau"] is not None else trained.tau
    dataset = load_dataset(values["dataset"], root=values["root"])
    store = values["store"] or os.environ.get("WSOLPIPE_STORE", "wsol-store")
    labelling = Labelling(store, dataset.name, values["split"], maps=None, boxes=None)
    root, against = str(dataset.image_root()), values["against"]
    evaluator = Evaluator(trained.recipe, labelling, root, [against], values["workers"])
    figures = evaluator.run(trained.model, device, thresholds=1000)[against].result(tau=tau)
    tau_from = "given" if values["tau"] is not None else "these very images" if tau is None else "validation"
    truth, by = evaluator.boxes[against], checkpoint.state_of(trained.path).get("annotator", "proposals")
    shown = f"{by} of validation" if tau_from == "validation" else tau_from
    val = Labelling(store, dataset.name, values["val"], maps=None, boxes=None)
    beside: list[Line] = compare(
        figures, shown, truth, labelling, boxes=values["beside"], maps=values["maps"], val=val, by=by
    )
    return {
        "checkpoint": str(trained.path),
        "split": values["split"],
        "against": against,
        "tau_from": tau_from,
        "localizer": figures,
        "beside": values["beside"],
        "boxes": box_figures(labelling, truth, values["beside"]) if values["beside"] else None,
        "table": [asdict(line) for line in beside],
        "beats": beats(beside),
    }
