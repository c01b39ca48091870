"""``wsoltrain eval``: score a trained localizer on a split, at the threshold that was chosen with it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError, StoreError
from wsoltrain.cli.words import Key, completer, read_words, table, text, whole

if TYPE_CHECKING:
    from wsoltrain.config import Labelling

KEYS = {
    "checkpoint": Key(text, None, "best-….safetensors of a run, or the run's folder"),
    "dataset": Key(text, None, "name in data/ or a YAML file"),
    "store": Key(text, None, "folder or URL of the store (else WSOLPIPE_STORE, else wsol-store)"),
    "root": Key(text, None, "folder of the image files, instead of the one in the YAML"),
    "split": Key(text, "test", "split to score"),
    "against": Key(text, "gt", "gt, or the stage whose first box a row counts as true"),
    "beside": Key(text, "proposals", "stage whose first boxes are scored beside, or none"),
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
    for name in ("checkpoint", "dataset"):
        if not values[name]:
            msg = f"no {name} named"
            raise ConfigError(msg, hint=f"add {name}=…; wsoltrain eval --help shows an example")
    result = _score(values)
    if as_json:
        click.echo(json.dumps(result))
        return
    localizer, boxes = result["localizer"], result["boxes"]
    v2 = localizer["MaxBoxAccV2"]["mean"]
    click.echo(f"{result['split']}, {localizer['rows_scored']} rows against {result['against']}:")
    click.echo(f"  localizer   MaxBoxAcc {localizer['MaxBoxAcc']:.2f}  MaxBoxAccV2 {v2:.2f}  iou {localizer['iou']:.3f}"
               f"  at tau {localizer['tau']:.3f} ({result['tau_from']})")  # fmt: skip
    if boxes is not None:
        accuracy, v2, iou = 100 * boxes["recall50_top1"], 100 * boxes["box_maxboxacc_v2"], boxes["iou_top1"]
        figures = f"MaxBoxAcc {accuracy:.2f}  MaxBoxAccV2 {v2:.2f}  iou {iou:.3f}"
        click.echo(f"  {result['beside']:<11} {figures}; a centred box has iou {boxes['iou_centre']:.3f}")


def _score(values: dict[str, Any]) -> dict[str, Any]:
    import torch

    from wsolpipe.images.dataset import load_dataset
    from wsoltrain.config import Labelling
    from wsoltrain.evaluation import Evaluator
    from wsoltrain.trained import load_trained

    device = torch.device(values["device"] or ("cuda" if torch.cuda.is_available() else "cpu"))
    trained = load_trained(values["checkpoint"], device=device)
    tau = values["tau"] if values["tau"] is not None else trained.tau
    dataset = load_dataset(values["dataset"], root=values["root"])
    store = values["store"] or os.environ.get("WSOLPIPE_STORE", "wsol-store")
    labelling = Labelling(store, dataset.name, values["split"], maps=None, boxes=None)
    root, against = str(dataset.image_root()), values["against"]
    evaluator = Evaluator(trained.recipe, labelling, root, [against], values["workers"])
    figures = evaluator.run(trained.model, device, thresholds=1000)[against].result(tau=tau)
    return {
        "checkpoint": str(trained.path),
        "split": values["split"],
        "against": against,
        "tau_from": "given" if values["tau"] is not None else "these very images" if tau is None else "validation",
        "localizer": figures,
        "beside": values["beside"],
        "boxes": _beside(values["beside"], labelling, evaluator.boxes[against]),
    }


def _beside(stage: str | None, labelling: Labelling, truth: dict[int, Any]) -> dict[str, Any] | None:
    """Figures of a stage's boxes on the same rows; None where the split has no such stage."""
    import numpy as np

    from wsolpipe.contract.reader import open_store
    from wsolpipe.metrics import BoxEvaluation
    from wsoltrain.rows import StoredRows

    if stage is None:
        return None
    try:
        stored = open_store(labelling.store)[labelling.dataset][labelling.split].stage(stage)["boxes"]
    except StoreError:
        return None
    sizes = StoredRows(labelling).sizes
    score = BoxEvaluation()
    for row, boxes in enumerate(np.asarray(stored[:], np.float64).reshape(stored.shape[0], -1, 4)):
        width, height = (float(edge) for edge in sizes[row])
        score.add(boxes, truth.get(row, np.zeros((0, 4))), size=(width, height))
    return dict(score.result())
