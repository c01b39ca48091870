"""Makes the cells of a paper's table: stages, trainings, scores; each missing cell has its reason."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import WsolError
from wsolpipe.evaluate.mask_scores import compare_masks
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.images.dataset import known_datasets, load_dataset
from wsolpipe.keys.words import as_words
from wsolpipe.metrics.protocol import read_runs
from wsolpipe.metrics.protocol_tables import full_table
from wsoltrain.papers.bare import measure_network
from wsoltrain.papers.found import Found, figure_of_cell, find_figure
from wsoltrain.papers.stages import run_stage, score_stage
from wsoltrain.papers.table import BY_CLASS, CLS_AT_TRUTH, WEIGHTS, Cell, PaperTable, facts_of
from wsoltrain.runs.draws import describe_range, load_ranges, shared_configurations
from wsoltrain.runs.many import Site, Training, run_trainings
from wsoltrain.runs.predict import stage_words
from wsoltrain.runs.score import kept_figures
from wsoltrain.runs.settle import settle_words
from wsoltrain.training.annotators import CLS, read_annotators
from wsoltrain.training.recipe_file import load_recipe

_log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
GROUND_TRUTH = "gt"
#: Kinds of cells that need stages.
STORED = ("fit", "search", "stage", "labels")


@dataclass(frozen=True)
class Request:
    """Part of a table that is wanted, and where.

    Attributes
    ----------
    table : PaperTable
    rows, columns : tuple of int
        What of it.
    out : Path
        Folder of all runs.
    store : str
        Store of all stages.
    datasets : mapping of str to str
        Name of a data set -> word of ``dataset=``.
    words : tuple of str
        Of every training: loaders, device …
    changes : mapping
        Keys of recipes that go over those of the rows.
    by, threshold, configurations
        As in `PaperTable`, the user's where given.
    weights : mapping of str to str
        Name of `wsoltrain.papers.table.WEIGHTS` -> file.
    device : str
        torch device of measurements.
    site : Site
        Where trainings run; stages too.
    """

    table: PaperTable
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    out: Path
    store: str
    datasets: Mapping[str, str]
    words: tuple[str, ...]
    changes: Mapping[str, Any]
    by: str
    threshold: str
    configurations: int
    device: str
    site: Site
    weights: Mapping[str, str] = field(default_factory=dict)

    def cells(self) -> Iterator[tuple[int, int, Cell]]:
        """Chosen cells with their row and column."""
        for row in self.rows:
            for column in self.columns:
                yield row, column, Cell.over(self.table.rows[row], self.table.columns[column])

    def word(self, dataset: str) -> str:
        """Word of ``dataset=``."""
        return self.datasets.get(dataset, dataset)

    def stages_of(self, cell: Cell) -> list[str]:
        """Words of the parameters of a cell's stages."""
        named = {f"{cell.stage}.weights": self.weights[cell.weights_of]} if cell.weights_of in self.weights else {}
        return as_words({**cell.stages, **named})

    def store_of(self, cell: Cell) -> str:
        """Store of a cell's stages."""
        return f"{self.store}-{cell.store}" if cell.store else self.store

    def place(self, cell: Cell, *, made: bool = False) -> list[str]:
        """Words of a cell's data set and store; with `made` those of the site too, where stages are run."""
        site = self.site
        words = [f"dataset={self.word(cell.dataset)}", f"store={self.store_of(cell)}"]
        if not made or site.cluster == "local":
            return words
        profile = [word if word.startswith(("profile=", "profiles=")) else f"profile.{word}" for word in site.profile]
        return [*words, f"cluster={site.cluster}", *([f"workers={site.parallel}"] if site.parallel else []), *profile]

    def keys_of(self, cell: Cell) -> dict[str, Any]:
        """Keys of a cell's recipe, under those that the user gave."""
        return {**cell.changes(), **self.changes}


@dataclass
class Reproduction:
    """The work of a request: every stage, training and score once, however many cells want it.

    Attributes
    ----------
    request : Request
    failed : dict of str to str
        Name of what failed, and why.
    """

    request: Request
    failed: dict[str, str] = field(default_factory=dict)
    _keys: dict[str, dict[str, str]] = field(default_factory=dict)

    def missing(self, cell: Cell) -> str:
        """Why a cell cannot be made, before anything is tried; empty if it can."""
        if cell.kind in ("absent", "range", "complexity"):
            return cell.reason
        if cell.weights_of and cell.weights_of not in self.request.weights:
            (key,) = (key for key in WEIGHTS if key.name == f"weights.{cell.weights_of}")
            return f"{key.name}=FILE is not given: {key.meaning}"
        dataset = cell.dataset
        word = self.request.word(dataset)
        get = f"needed: {facts_of(dataset).get}"
        if word == dataset and dataset not in known_datasets():
            return f"the data set {dataset} is not described here; {get}"
        try:
            config = load_dataset(word)
            config.image_root()
        except WsolError as error:
            first = error.message.splitlines()[0]
            return f"{first} ({error.hint}); {get}" if error.hint else f"{first}; {get}"
        needed = {"stage": (cell.split,), "labels": (cell.labels,)}.get(cell.kind, SPLITS)
        lacking = [split for split in needed if split not in config.splits]
        if lacking:
            return f"data set {dataset} has no split {' and '.join(lacking)}: {get}"
        return ""

    def run(self) -> dict[tuple[int, int], Found]:
        """Make every cell, and return the figures by row and column."""
        chosen = list(self.request.cells())
        reasons = {(row, column): self.missing(cell) for row, column, cell in chosen}
        wanted = [cell for row, column, cell in chosen if not reasons[row, column]]
        for cell in wanted:
            self._make_stages(cell)
        trainings = self.trainings([cell for cell in wanted if not self._lost(cell)])
        ready = {name: each for name, each in trainings.items() if self._settles(each)}
        request = self.request
        self.failed |= run_trainings(list(ready.values()), request.site, request.out / "logs")
        return {
            (row, column): Found(note=reasons[row, column]) if reasons[row, column] else self._find(cell)
            for row, column, cell in chosen
        }

    def trainings(self, cells: Sequence[Cell]) -> dict[str, Training]:
        """Trainings of cells by name; cells that differ in the annotator alone share one."""
        annotators: dict[str, list[str]] = {}
        first: dict[str, Cell] = {}
        for cell in cells:
            if cell.kind == "fit":
                name = self.name_of(cell)
                first.setdefault(name, cell)
                by = cell.by or self.request.by
                annotators[name] = [*annotators.get(name, []), *([] if by in annotators.get(name, []) else [by])]
        found = {name: self._training(name, cell, annotators[name]) for name, cell in first.items()}
        for cell in cells:
            if cell.kind == "search" and self.name_of(cell) not in first:
                first[self.name_of(cell)] = cell
                found |= self._configurations(cell)
        return found

    def name_of(self, cell: Cell) -> str:
        """Name of a cell's training or search, by all that it depends on."""
        table = self.request.table
        apart = "-search" if cell.search in {each.fit for each in (*table.rows, *table.columns) if each.fit} else ""
        stages = {} if cell.then else cell.stages  # made of its predictions, later
        changes = json.dumps([cell.changes(), dict(self.request.changes), stages, cell.store], sort_keys=True)
        digest = f"-{sha256(changes.encode()).hexdigest()[:6]}"
        plain = not (cell.changes() or self.request.changes or stages or cell.store)
        return f"{cell.dataset}-{cell.recipe.rpartition('/')[2]}{'' if plain else digest}{apart}"

    def _training(self, name: str, cell: Cell, by: Sequence[str], **changes: Any) -> Training:
        request = self.request
        keys = as_words({**cell.changes(), **changes, **request.changes})
        tested = ["test=test"] if cell.kind == "search" else []
        words = [*request.place(cell), *request.words, *keys, f"by={','.join(by)}", *tested]
        return Training.at(request.out / name, [f"recipe={cell.recipe}", *words], name=name.replace("/", "-"))

    def _configurations(self, cell: Cell) -> dict[str, Training]:
        ranges = load_ranges(cell.search, dataset=cell.dataset, changes=self.request.keys_of(cell))
        by, search = self._annotators(cell), self.name_of(cell)
        drawn = shared_configurations(ranges, self.request.configurations)
        return {f"{search}/{name}": self._training(f"{search}/{name}", cell, by, **keys) for name, keys in drawn}

    def _annotators(self, cell: Cell) -> list[str]:
        """Words of ``by=`` for a search: each annotator under its name in small letters."""
        words = []
        for name in self.request.table.annotators:
            if name in (CLS, "GT"):
                words.append(name.lower())
            else:
                key = self._keys.get(f"{cell.dataset}{cell.store}{name}", {}).get("val_boxes", "")
                words.append(f"{name.lower()}:val_boxes@{key}" if key else f"{name.lower()}:val_boxes")
        return [GROUND_TRUTH, *(word for word in words if word != GROUND_TRUTH)]

    def _settles(self, training: Training) -> bool:
        if training.name in self.failed:
            return False
        try:
            settle_words(training.words)
        except WsolError as error:
            self.failed[training.name] = _one_line(error)
            return False
        return True

    def stage_runs(self, cell: Cell) -> Iterator[tuple[str, list[str]]]:
        """Name and words of each ``wsolpipe run`` that a cell needs."""
        request = self.request
        if cell.kind not in STORED:
            return
        place = request.place(cell, made=True)
        params = request.stages_of(cell) if not cell.then else []
        base = f"{cell.dataset}{cell.store}"
        if cell.kind == "stage":
            asks = {"select", "classifier"} & cell.words.keys()
            named: dict[str, tuple[str, ...]] = {"classifier": ("train",)} if asks else {}
            named[cell.stage] = (cell.split,)
            if request.threshold == "validation":
                named[cell.stage] = tuple(dict.fromkeys((cell.split, "val")))
                named |= {stage: ("val",) for stage in _stages_of([request.by])}
        elif cell.kind == "labels":
            stages = _stages_of([cell.by or request.by])
            named = dict.fromkeys(["index", *stages], (cell.labels,))
        else:
            reads = load_recipe(cell.recipe, dataset=cell.dataset, changes=request.keys_of(cell)).reads()
            labels = [reads.maps, reads.boxes, *(file.stage for file in reads.artifacts)]
            named = {"index": SPLITS, **{stage: ("train",) for stage in labels if stage}}
            for stage in _stages_of([cell.by or request.by]) if cell.kind == "fit" else ():
                named[stage] = (*named.get(stage, ()), "val")
        for stage, splits in named.items():
            words = [f"stage={stage}", f"split={','.join(splits)}", *place, *params]
            yield f"{base}:{stage}:{','.join(splits)}:{' '.join(params)}", words
        if cell.kind == "search":
            for name, own in request.table.annotators.items():
                if own:
                    yield f"{base}{name}", ["stage=val_boxes", "split=val", *place, *as_words(own)]

    def _make_stages(self, cell: Cell) -> None:
        for name, words in self.stage_runs(cell):
            if name in self._keys or name in self.failed:
                continue
            try:
                self._keys[name] = run_stage(words)
            except WsolError as error:
                self.failed[name] = f"wsolpipe run {words[0]}: {_one_line(error)}"

    def _lost(self, cell: Cell) -> str:
        """Why a stage of a cell was not made; empty where all were."""
        return next((self.failed[name] for name, _ in self.stage_runs(cell) if name in self.failed), "")

    def _find(self, cell: Cell) -> Found:
        lost = self._lost(cell)
        if lost:
            return Found(note=lost)
        try:
            return {
                "fit": self._trained, "stage": self._stage, "search": self._chosen, "range": self._range,
                "complexity": self._complexity, "labels": self._labels,
            }[cell.kind](cell)  # fmt: skip
        except WsolError as error:
            return Found(note=_one_line(error))

    def _trained(self, cell: Cell) -> Found:
        name, by = self.name_of(cell), cell.by or self.request.by
        if name in self.failed:
            return Found(note=self.failed[name])
        settings = settle_words(self._training(name, cell, [by]).words).settings
        best, classes = self.request.threshold == "best", cell.figure.startswith(BY_CLASS)
        if cell.then:
            return self._then(cell, settings.out / settings.first.file_name)
        return find_figure(kept_figures(settings, cell.split, best=best, classes=classes), cell.figure)

    def _then(self, cell: Cell, weights: Path) -> Found:
        """Score the stage that is made of a localizer's predictions."""
        request = self.request
        splits = [cell.split, *(["val"] if request.threshold == "validation" and cell.split != "val" else [])]
        made = {"checkpoint": str(weights), "tau": None, "target": "true", "exact": True, "batch": None}
        given, *params = stage_words(made)
        params += [f"{cell.then}.maps=predictions", *request.stages_of(cell)]
        for words in ([given, *params], [f"stage={cell.then}", *params]):
            name = f"{weights}:{words[0]}:{splits}"
            if name not in self._keys:
                self._keys[name] = run_stage([*words, f"split={','.join(splits)}", *request.place(cell, made=True)])
        return self._stage(cell.model_copy(update={"stage": cell.then, "fit": ""}), params)

    def _stage(self, cell: Cell, params: Sequence[str] | None = None) -> Found:
        request = self.request
        words = [*request.place(cell), *(request.stages_of(cell) if params is None else params), *as_words(cell.words)]
        if cell.figure.startswith(BY_CLASS):
            words.append(f"corloc={'class' if request.threshold == 'best' else 'pooled'}")
        if request.threshold == "validation" and self._needs_threshold(cell):
            words.append(f"tau_from={request.by}")
        return find_figure(score_stage([f"stage={cell.stage}", f"split={cell.split}", *words]), cell.figure)

    def _needs_threshold(self, cell: Cell) -> bool:
        """Whether a stage holds maps, and no threshold of its own; boxes and masks need none."""
        dataset = load_dataset(self.request.word(cell.dataset), need_root=False).name
        manifest = StoreResults(self.request.store_of(cell), dataset).view(cell.stage, cell.split).manifest
        return "maps" in manifest.arrays and "tau" not in manifest.params

    def _chosen(self, cell: Cell) -> Found:
        name = self.name_of(cell)
        folder = self.request.out / name
        if not any(folder.glob("c*/runs")):
            lost = [why for each, why in self.failed.items() if each.startswith(f"{name}-c")]
            return Found(note=lost[0] if lost else f"no configuration of {cell.search} was trained")
        wanted = cell.annotator if cell.annotator == CLS_AT_TRUTH else cell.annotator.lower()
        for line in full_table(read_runs(folder)):
            if (line["annotator"], line["model"], line["threshold"]) == (wanted, *(cell.select or ())):
                return figure_of_cell(line, cell.figure)
        return Found(note=f"runs of {folder} hold no {wanted}, {'-'.join(cell.select or ())}")

    def _labels(self, cell: Cell) -> Found:
        config = load_dataset(self.request.word(cell.dataset))
        results = StoreResults(self.request.store_of(cell), config.name, config.mask_root())
        rows = results.rows(cell.labels)
        annotator = read_annotators([cell.by or self.request.by])[0]
        figures = compare_masks(annotator.find(results, rows), find_truth(results, rows, GROUND_TRUTH))
        return find_figure({"figures": figures}, cell.figure)

    def _range(self, cell: Cell) -> Found:
        named: dict[str, list[str]] = {}
        for recipe in cell.range:
            own = load_ranges(recipe, dataset=cell.dataset, changes=cell.changes())[cell.figure]
            named.setdefault(describe_range(own), []).append(recipe)
        if len(named) == 1:
            return Found(value=next(iter(named)))
        return Found(value="; ".join(f"{shown} ({', '.join(recipes)})" for shown, recipes in named.items()))

    def _complexity(self, cell: Cell) -> Found:
        recipe = load_recipe(cell.complexity, dataset=cell.dataset, changes=cell.changes())
        classes = {"cub": 200, "ilsvrc": 1000}.get(cell.dataset, 8)
        return find_figure(measure_network(recipe, classes, self.request.device), cell.figure)


def _stages_of(by: Sequence[str]) -> list[str]:
    """Stages of the annotators."""
    words = [each.word for each in read_annotators(by) if not each.noise]
    return [word.partition(":")[0] for word in words if word not in (CLS, GROUND_TRUTH) and not set("/.") & set(word)]


def _one_line(error: WsolError) -> str:
    first = error.message.splitlines()[0]
    return f"{first} ({error.hint})" if error.hint else first
