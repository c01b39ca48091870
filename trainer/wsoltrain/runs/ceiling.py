"""Ceiling of a recipe's network on ground truth, measured beside its labels and a student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE, store_of
from wsoltrain.runs.settle import A_SPLIT, DEVICE, RECIPE, STAGE, loader_count


class _Keys:
    """Keys of ``wsoltrain ceiling``.

    Attributes
    ----------
    recipe
        recipe: a shipped one, or a YAML file
    split
        split whose ground truth is trained on
    val
        split whose ground truth chooses the ceiling's threshold
    test
        split that is scored
    by
        stage whose boxes of val choose the threshold of the labels' maps
    checkpoint
        best-….safetensors of a student to be shown beside
    out
        folder of ceiling.json
    workers
        loader processes
    """

    recipe = Key(RECIPE, "dips")
    dataset = DATASET
    store = STORE
    root = ROOT
    split = Key(A_SPLIT, "train")
    val = Key(A_SPLIT, "val")
    test = Key(A_SPLIT, "test")
    by = Key(STAGE, "proposals")
    checkpoint = Key(kinds.or_null(kinds.file()))
    out = Key(kinds.file("folder"), otherwise="ceilings/<recipe>-<dataset>")
    workers = Key(kinds.integer(0), otherwise="one a core")
    device = DEVICE


KEYS = keys_of_class(_Keys)


def measure(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Train the network of a recipe on ground truth, score it beside labels and student, and write ``ceiling.json``.

    Parameters
    ----------
    values : mapping
        Of `KEYS`.
    changes : mapping
        Keys of the recipe.

    Raises
    ------
    WsolError
        As `train_ceiling`, and where stages or weights are missing.
    """
    import torch

    from wsolpipe.evaluate.results import StoreResults
    from wsolpipe.evaluate.scored import BEST, Threshold, score_beside
    from wsolpipe.evaluate.truth import find_truth
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.metrics.protocol import write_ceiling
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.data.config import Labelling
    from wsoltrain.inference.model import Trained, load_trained
    from wsoltrain.runs.score import Opened, choose_by
    from wsoltrain.training.ceiling import train_ceiling
    from wsoltrain.training.recipe_file import load_recipe
    from wsoltrain.training.scoreboard import Evaluator

    device = torch.device(choose_device(values["device"]))
    dataset = load_dataset(values["dataset"], root=values["root"])
    root, workers = str(dataset.image_root()), loader_count(values["workers"])
    recipe = load_recipe(values["recipe"], dataset=dataset.name, changes=changes)
    store = store_of(values["store"])
    results = StoreResults(store, dataset.name, dataset.mask_root())
    labelling = Labelling(store, dataset.name, values["split"], maps=None, boxes=None)

    def opened(trained: Trained, name: str) -> Opened:
        plain = replace(labelling, split=name)
        return Opened(trained, Evaluator(trained.recipe, plain, root, ["gt"], workers, dataset.mask_root()), device)

    truth = find_truth(results, results.rows(values["split"]), "gt")
    model = train_ceiling(recipe, labelling, truth, root=root, device=device, workers=workers)
    own = Trained(Path("ceiling.json"), model, recipe, None, [], None)
    on_val = opened(own, values["val"]).score(BEST, details=False).scores
    chosen = Threshold(on_val.choose_tau(), f"ground truth of {values['val']}")
    tested = opened(own, values["test"])
    reads, there = recipe.reads(), results.split(values["test"]).stages()
    boxes, maps = (
        results.view(stage, values["test"]) if stage in there else None for stage in (reads.boxes, reads.maps)
    )
    known = maps is not None and values["by"] in results.split(values["val"]).stages()
    rules = [choose_by(results, maps, values["by"], values["val"])] if maps is not None and known else []
    scored = score_beside(tested.truth, boxes=[boxes] if boxes else [], maps=maps, rules=(*rules, BEST))
    if values["checkpoint"] is not None:
        student = opened(load_trained(values["checkpoint"], device=device), values["test"])
        scored.append(student.score(student.rule(), name="student", details=False).scored)
    scored.append(tested.score(chosen, name="ceiling", details=False).scored)
    result = {
        "recipe": values["recipe"], "dataset": dataset.name, "split": values["test"], "epochs": recipe.epochs,
        "parameters": recipe.model_dump(mode="json"), "table": [asdict(each.line()) for each in scored],
    }  # fmt: skip
    write_ceiling(Path(values["out"] or f"ceilings/{Path(values['recipe']).stem}-{dataset.name}"), result)
    return result
