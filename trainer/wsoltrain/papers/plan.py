"""Plan of a reproduction and its time, from rates measured on the device at hand."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import WsolError
from wsoltrain.papers.bare import STEP, training_rate
from wsoltrain.papers.stages import plan_stage
from wsoltrain.papers.table import Cell, facts_of
from wsoltrain.papers.work import STORED, Reproduction
from wsoltrain.training import checkpoint
from wsoltrain.training.recipe_file import load_recipe


@dataclass(frozen=True)
class Planned:
    """A piece of work.

    Attributes
    ----------
    what : str
        A stage with its data set and split, or a training.
    state : str
        Such as ``to make``, ``done``, ``missing``.
    rows, epochs : int or None
        Images, and passes over them.
    hours : float or None
        Left, of one worker; None where no rate is known.
    note : str
        What is missing and where to put it, or how the hours were measured.
    """

    what: str
    state: str
    rows: int | None = None
    epochs: int | None = None
    hours: float | None = None
    note: str = ""


def make_plan(work: Reproduction) -> list[Planned]:
    """Every stage and training that the cells of a request need, each once; nothing is made."""
    found: dict[str, Planned] = {}
    for _, _, cell in work.request.cells():
        if cell.kind not in STORED:
            continue
        reason = work.missing(cell)
        if reason:
            own = cell.weights_of if reason.startswith("weights.") else ""
            what = f"weights.{own}" if own else f"data set {cell.dataset}"
            note = reason.removeprefix(f"{what}=FILE ").removeprefix(f"{what}: ").removeprefix(f"{what} ")
            found.setdefault(f"{what}: {reason}", Planned(what, "missing", note=note))
        for name, words in work.stage_runs(cell):
            if name not in found:
                found[name] = Planned(_told(words), "missing") if reason else _stage(words)
    rates: dict[str, tuple[float | None, str]] = {}
    for _, _, cell in work.request.cells():
        if cell.kind in ("fit", "search") and work.name_of(cell) not in found:
            found[work.name_of(cell)] = _training(work, cell, rates)
    return list(found.values())


def total_hours(plan: list[Planned]) -> float:
    """Sum of all hours that are known."""
    return sum(each.hours or 0.0 for each in plan)


def plan_json(plan: list[Planned]) -> dict[str, Any]:
    """The plan for scripts."""
    return {"work": [asdict(each) for each in plan], "hours": total_hours(plan)}


def _told(words: list[str]) -> str:
    given = dict(word.split("=", 1) for word in words)
    return f"stage {given['stage']} of {given['dataset']}, {given['split']}"


def _stage(words: list[str]) -> Planned:
    try:
        pending, seconds = plan_stage([word for word in words if not word.startswith(("cluster=", "workers="))])
    except WsolError as error:
        return Planned(_told(words), "to make", note=error.message.splitlines()[0])
    if not pending:
        return Planned(_told(words), "done", hours=0.0)
    note = "no shard was measured yet" if seconds is None else "from measured shards"
    return Planned(_told(words), "to make", hours=None if seconds is None else seconds / 3600, note=note)


def _training(work: Reproduction, cell: Cell, rates: dict[str, tuple[float | None, str]]) -> Planned:
    request, name = work.request, work.name_of(cell)
    recipe = load_recipe(cell.recipe, dataset=cell.dataset, changes=request.keys_of(cell))
    rows = facts_of(cell.dataset).rows
    number = request.configurations if cell.kind == "search" else 1
    epochs = recipe.epochs + int(getattr(recipe, "head_epochs", 0))
    what = f"training {name}" if number == 1 else f"{number} trainings of {name}"
    folders = [request.out / name] if cell.kind == "fit" else sorted((request.out / name).glob("c*"))
    ended = sum(_ended(folder, epochs) for folder in folders)
    seconds, note = _own_rate(folders), "from its own steps"
    if seconds is None:
        network = recipe.model_dump_json(include={"method", "backbone", "encoder", "model", "model_args", "size"})
        if network not in rates:
            rates[network] = training_rate(recipe, request.device)
        seconds, note = rates[network]
    hours = None
    if seconds is not None and "train" in rows:
        images = epochs * (rows["train"] + rows.get("val", 0) / STEP)
        hours = (number - ended) * images * seconds / 3600
    note += f"; then {cell.then} of its predictions, whose hours are not in it" if cell.then else ""
    state = "done" if ended == number else "begun" if folders and any(map(_begun, folders)) else "to train"
    return Planned(what, state, rows.get("train"), epochs, hours, note)


def _begun(folder: Path) -> bool:
    return (folder / "last.safetensors").exists()


def _ended(folder: Path, epochs: int) -> bool:
    last = folder / "last.safetensors"
    return last.exists() and int(checkpoint.state_of(last)["stream"]["epoch"]) >= epochs


def _own_rate(folders: list[Path]) -> float | None:
    """Seconds an image of training, from the speed that runs have noted."""
    for folder in folders:
        path = folder / "metrics.jsonl"
        if not path.exists():
            continue
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        speeds = [line for line in lines if line["kind"] == "speed" and line["steps"]]
        if speeds and _begun(folder):
            batch = checkpoint.state_of(folder / "last.safetensors")["recipe"]["batch"]
            return float(speeds[-1]["seconds"] / speeds[-1]["steps"] / batch)
    return None
