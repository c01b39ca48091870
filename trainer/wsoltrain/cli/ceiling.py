"""``wsoltrain ceiling``: what a recipe's network reaches on ground truth, beside its labels and a student."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, require
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE
from wsoltrain.cli.command import loader_count, make_command, read_recipe_words, store_of
from wsoltrain.cli.common_keys import DEVICE, RECIPE, STAGE, split
from wsoltrain.cli.tables import format_lines

KEYS = (
    Key(
        "recipe",
        RECIPE,
        "recipe: a shipped one, or a YAML file",
        "dips",
    ),
    DATASET,
    STORE,
    ROOT,
    split("split", "split whose ground truth is trained on", "train"),
    split("val", "split whose ground truth chooses the ceiling's threshold", "val"),
    split("test", "split that is scored", "test"),
    Key("by", STAGE, "stage whose boxes of val choose the threshold of the labels' maps", "proposals"),
    Key("checkpoint", kinds.or_null(kinds.file()), "best-….safetensors of a student to be shown beside", None),
    Key("out", kinds.file("folder"), "folder of ceiling.json", otherwise="ceilings/<recipe>-<dataset>"),
    Key("workers", kinds.integer(0), "loader processes", otherwise="one a core"),
    DEVICE,
)


@make_command(
    "ceiling",
    KEYS,
    recipe=True,
    example="wsoltrain ceiling recipe=dips dataset=demo store=wsol-store epochs=5",
    json_help="Print the table as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Train a recipe's network on ground truth and show what it reaches, beside its labels and a student.

    A student far below its ceiling has bad labels; a ceiling near the labels means a backbone that cannot see objects.
    The network is not kept, and the file that is written cannot be selected from: it has seen ground truth.
    """
    values, changes = read_recipe_words(words, KEYS)
    require(values, "wsoltrain ceiling", dataset="demo")
    result = _measure(values, changes)
    if as_json:
        print_json(result)
        return
    click.echo(
        f"{result['split']}, ceiling of recipe {result['recipe']} after {result['epochs']} epochs on ground truth:"
    )
    for line in format_lines(result["table"]):
        click.echo(line)


def _measure(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    import torch

    from wsolpipe.evaluate.frame import Frame
    from wsolpipe.evaluate.map_sources import StageMaps
    from wsolpipe.evaluate.results import StoreResults, counterpart
    from wsolpipe.evaluate.rows import rows_of_index
    from wsolpipe.evaluate.tables import baselines, line_of_maps
    from wsolpipe.evaluate.tau import Chooser
    from wsolpipe.evaluate.truth import find_truth
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.metrics.protocol import write_ceiling
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.data.config import Labelling
    from wsoltrain.inference.model import load_trained
    from wsoltrain.training.ceiling import train_ceiling
    from wsoltrain.training.evaluation import Evaluator
    from wsoltrain.training.recipe_file import load_recipe

    device = torch.device(choose_device(values["device"]))
    dataset = load_dataset(values["dataset"], root=values["root"])
    root, workers = str(dataset.image_root()), loader_count(values["workers"])
    recipe = load_recipe(values["recipe"], dataset=dataset.name, changes=changes)
    results = StoreResults(store_of(values), dataset.name, dataset.mask_root())
    labelling = Labelling(store_of(values), dataset.name, values["split"], maps=None, boxes=None)

    def scores(model: Any, of: Any, name: str) -> tuple[Any, Any]:
        plain = replace(labelling, split=name, where=None, drawn=None)
        evaluator = Evaluator(of, plain, root, ["gt"], workers, dataset.mask_root())
        return evaluator.run(model, device, thresholds=1000)["gt"], evaluator.truths["gt"]

    truth = find_truth(results, results.rows(values["split"]), "gt")
    model = train_ceiling(recipe, labelling, truth, root=root, device=device, workers=workers)
    tau = scores(model, recipe, values["val"])[0].choose_tau()
    own, wanted = scores(model, recipe, values["test"])
    reads, there = recipe.reads(), results.split(values["test"]).stages()
    boxes, maps = (
        results.view(stage, values["test"]) if stage in there else None for stage in (reads.boxes, reads.maps)
    )
    chooser = None
    if maps is not None and values["by"] in results.split(values["val"]).stages():
        twin = counterpart(results, maps, values["val"])
        rows = rows_of_index(results.index_of(twin))
        chooser = Chooser(StageMaps(twin, 0, rows), find_truth(results, rows, values["by"]), Frame())
    lines = baselines(wanted, boxes=[boxes] if boxes else [], maps=maps, chooser=chooser)
    if values["checkpoint"] is not None:
        student = load_trained(values["checkpoint"], device=device)
        found = scores(student.model, student.recipe, values["test"])[0]
        shown = "its best on these images" if student.tau is None else f"{student.tau:.3f} by its validation"
        lines.append(line_of_maps("student", found, shown, tau=student.tau))
    lines.append(line_of_maps("ceiling", own, f"{tau:.3f} by ground truth of {values['val']}", tau=tau))
    result = {
        "recipe": values["recipe"], "dataset": dataset.name, "split": values["test"], "epochs": recipe.epochs,
        "parameters": recipe.model_dump(mode="json"), "table": [asdict(line) for line in lines],
    }  # fmt: skip
    out = Path(values["out"] or f"ceilings/{Path(values['recipe']).stem}-{dataset.name}")
    write_ceiling(out, result)
    return result
