"""``wsoltrain eval``: score a trained localizer on a split, at the threshold that was chosen with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import RunFailed
from wsolpipe.evaluate.glossary import UNITS
from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, read_keys, require
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE
from wsoltrain.cli.command import loader_count, make_command, store_of
from wsoltrain.cli.common_keys import CHECKPOINT, DEVICE, STAGE, split
from wsoltrain.cli.tables import format_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEYS = (
    CHECKPOINT,
    DATASET,
    STORE,
    ROOT,
    split("split", "split to score", "test"),
    Key(
        "against",
        kinds.file("gt, name of a stage, file or folder", offers=("gt",), source="stored stage"),
        "what counts as true: gt; first boxes or masks of a stage; a localization.txt; a folder of masks",
        "gt",
    ),
    Key("beside", kinds.or_null(STAGE), "stage whose first boxes are scored beside; auto: proposals if made", "auto"),
    Key(
        "maps",
        kinds.or_null(STAGE),
        "stage whose maps are scored beside, at the threshold chosen on val and at their best",
    ),
    split("val", "split on which the threshold of these maps is chosen, by the annotator of the run", "val"),
    Key("must_beat", kinds.flag(), "exit with 1 unless the localizer beats all that is beside it", False),
    Key(
        "classifier",
        kinds.text("classifier, STAGE or either with :KEY"),
        "for Top-1 and Top-5 figures, the classes by another network: the scoring classifier of the store, which reads "
        "the images, or a stage that holds classes, as predictions",
        otherwise="the localizer's own, where it classifies",
    ),
    Key(
        "corloc",
        kinds.choice("pooled", "class"),
        "CorLoc, pooled and by class: at one threshold, or (an oracle) at each class's own best",
    ),
    Key("tau", kinds.number(0, 1), "threshold", otherwise="chosen on validation, from the checkpoint"),
    Key(
        "otsu",
        kinds.flag(),
        "score boxes at each map's own Otsu threshold as well, which no split chooses; always of a run chosen by cls",
        False,
    ),
    Key("workers", kinds.integer(0), "loader processes", otherwise="one a core"),
    DEVICE,
)  # fmt: skip


@make_command(
    "eval",
    KEYS,
    example="wsoltrain eval checkpoint=runs/dips-demo/best-proposals.safetensors dataset=demo split=test",
    json_help="Print the figures as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Score a trained localizer on a split, beside the boxes that it learned from."""
    values = read_keys(words, KEYS)
    require(values, "wsoltrain eval", checkpoint="runs/dips-demo", dataset="demo")
    result = _score(values)
    if as_json:
        print_json(result)
        _refuse_worse(result, asked=values["must_beat"])
        return
    click.echo(f"{result['split']}, {result['table'][-1]['rows']} rows against {result['against']}:")
    for line in format_lines(result["table"]):
        click.echo(line)
    for line in _format_more(result["localizer"]):
        click.echo(line)
    click.echo(UNITS)
    for name, better in result["beats"].items():
        click.echo(f"the localizer {'beats' if better else 'does NOT beat'} {name}")
    _refuse_worse(result, asked=values["must_beat"])


def _format_more(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lines of figures that have no column."""
    errors, corloc = figures.get("errors"), figures.get("CorLoc")
    if errors:
        named = (f"{name} {100 * errors[name]:.1f}" for name in ("LPE", "LME", "MIE", "wrong class"))
        yield f"  errors of the localizer, per cent of rows: {', '.join(named)}"
    if corloc:
        at = "each class's own best threshold, an oracle" if corloc["oracle"] else f"threshold {corloc['tau']:.3f}"
        yield f"  CorLoc {corloc['pooled']:.1f}, mean of classes {corloc['mean']:.1f}, at {at}"
        for label, value in corloc["per_class"].items():
            yield f"    class {label}: {value:.1f}"


def _refuse_worse(result: dict[str, Any], *, asked: bool) -> None:
    worse = [name for name, better in result["beats"].items() if not better]
    if asked and worse:
        msg = f"the localizer of {result['checkpoint']} does not beat {' and '.join(worse)} on {result['split']}"
        raise RunFailed(msg, hint="more epochs, or another recipe; wsoltrain select shows every epoch")


def _score(values: dict[str, Any]) -> dict[str, Any]:
    import torch

    from wsolpipe.contract.machine import cores
    from wsolpipe.evaluate.box_scores import score_boxes
    from wsolpipe.evaluate.class_ranks import find_ranks
    from wsolpipe.evaluate.frame import Frame
    from wsolpipe.evaluate.map_sources import StageMaps
    from wsolpipe.evaluate.otsu_scores import OtsuScores
    from wsolpipe.evaluate.results import StoreResults, counterpart
    from wsolpipe.evaluate.rows import rows_of_index
    from wsolpipe.evaluate.tables import OTSU, baselines, beats, line_of_boxes, line_of_maps
    from wsolpipe.evaluate.tau import Chooser
    from wsolpipe.evaluate.truth import find_truth
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.data.config import Labelling
    from wsoltrain.inference.model import load_trained
    from wsoltrain.training import checkpoint
    from wsoltrain.training.annotators import CLS
    from wsoltrain.training.evaluation import Evaluator

    device = torch.device(choose_device(values["device"]))
    trained = load_trained(values["checkpoint"], device=device)
    tau = values["tau"] if values["tau"] is not None else trained.tau
    dataset = load_dataset(values["dataset"], root=values["root"])
    store = store_of(values)
    results = StoreResults(store, dataset.name, dataset.mask_root())
    split, against = values["split"], values["against"]
    beside = values["beside"]
    if beside == "auto":
        beside = "proposals" if "proposals" in results.split(split).stages() else None
    boxes = results.view(beside, split) if beside else None
    maps = results.view(values["maps"], split) if values["maps"] else None
    by = checkpoint.state_of(trained.path).get("annotator", "proposals")
    chooser = None
    unchosen = by == CLS and tau is None  # boxes are those of each map's own Otsu threshold
    at_otsu = values["otsu"] or unchosen
    if maps is not None and by != CLS:
        twin = counterpart(results, maps, values["val"])
        rows = rows_of_index(results.index_of(twin))
        chooser = Chooser(StageMaps(twin, 0, rows), find_truth(results, rows, by), Frame())

    labelling = Labelling(store, dataset.name, split, maps=None, boxes=None)
    evaluator = Evaluator(
        trained.recipe,
        labelling,
        str(dataset.image_root()),
        [against],
        loader_count(values["workers"]),
        dataset.mask_root(),
    )
    truth = evaluator.truths[against]
    lines = baselines(truth, boxes=[boxes] if boxes else [], maps=maps, chooser=chooser, otsu=at_otsu)
    ranks = None
    if values["classifier"]:
        ranks = find_ranks(
            results, values["classifier"], truth.rows, dataset.image_root, device=str(device), threads=cores()
        )
    more = ("errors", "values", *(["otsu"] if at_otsu and truth.found else []))
    scores = evaluator.run(
        trained.model, device, thresholds=1000, more=more, classes=bool(values["corloc"]), ranks=ranks
    )[against]
    figures = scores.result(tau)
    if values["corloc"] == "class" and "CorLoc" in figures:
        figures["CorLoc"] = scores.boxes.corloc(class_oracle=True)
    tau_from = "given" if values["tau"] is not None else "these very images" if tau is None else "validation"
    shown = f"{by} of validation" if tau_from == "validation" else tau_from
    own = line_of_maps("localizer", scores, f"{figures['tau']:.3f} by {shown}", tau=tau)
    table, found, otsu = [*lines, own], scores.more.get("otsu"), None
    if isinstance(found, OtsuScores):
        otsu = found.scores(scores.quarantined)
        table.append(line_of_boxes("localizer", otsu, OTSU))
        own = table[-1] if unchosen else own
    return {
        "checkpoint": str(trained.path),
        "split": split,
        "against": against,
        "classifier": None if ranks is None else ranks.name,
        "tau_from": tau_from,
        "oracle": tau is None,
        "localizer": figures,
        "otsu": None if otsu is None else otsu.figures,
        "beside": beside,
        "boxes": score_boxes(boxes, truth).figures if boxes is not None and truth.found else None,
        "table": [asdict(line) for line in table],
        "beats": beats(own, lines),
    }
