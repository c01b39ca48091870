"""Tables of the papers: published figures, their source, and how each cell is made here; one YAML a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from wsolpipe.contract.errors import ConfigError, explain_all, unknown
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key
from wsolpipe.keys.safe_yaml import read_yaml
from wsoltrain.runs.draws import load_ranges
from wsoltrain.training.recipe_file import load_recipe

FOLDER = Path(__file__).parent / "tables"
#: File beside the tables: sizes of the data sets, and what to put where.
DATASETS = "datasets"
#: Name of a figure -> where results hold it, and the factor to the published unit; other names are such places.
FIGURES: dict[str, tuple[str, float]] = {
    "MaxBoxAcc": ("MaxBoxAcc", 1.0),
    "MaxBoxAccV2": ("MaxBoxAccV2.mean", 1.0),
    "IoU-30": ("MaxBoxAccV2.30", 1.0),
    "IoU-50": ("MaxBoxAccV2.50", 1.0),
    "IoU-70": ("MaxBoxAccV2.70", 1.0),
    "IoU": ("iou", 100.0),
    "PxAP": ("PxAP", 1.0),
    "Top-1": ("top1_loc", 1.0),
    "Top-5": ("top5_loc", 1.0),
    "CL": ("accuracy_top1", 1.0),
    "CorLoc": ("CorLoc.mean", 1.0),
    "LPE": ("errors.LPE", 100.0),
    "LME": ("errors.LME", 100.0),
    "MIns": ("errors.MIE", 100.0),
    "box IoU": ("iou_top1", 100.0),
    "mask error": ("mask_error", 100.0),
    "parameters": ("parameters", 1e-6),
    "milliseconds": ("milliseconds", 1.0),
}
#: Beginning of the figures that need a curve a class.
BY_CLASS = "CorLoc"
#: Files that no one but the user can put there, for rows that name them.
WEIGHTS = tuple(
    Key(kinds.file(), name=f"weights.{name}", meaning=f"weights of {about}")
    for name, about in {
        "esvit": "EsViT, Swin-T (github.com/microsoft/esvit)",
        "mocov3": "MoCo v3, ViT-B (github.com/facebookresearch/moco-v3)",
        "simmim": "SimMIM, ViT-B (github.com/microsoft/SimMIM)",
    }.items()
)


class Cell(BaseModel, extra="forbid", frozen=True):
    """How cells are made: what a row says goes over what their column says.

    Exactly one of `fit`, `stage`, `search`, `range`, `complexity`, `labels` and `absent` makes a cell.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    figure : str
        Of `FIGURES`, or the place of a figure in a result, with dots.
    split : str
        What is scored.
    by : str
        Annotator that chooses epoch and threshold; the table's where it is empty.
    fit : str
        Recipe that is trained, with `keys`, and over these `keys_of` of the data set.
    then : str
        Stage of maps, such as ``refine``, that is made of the predictions of that training and scored instead.
    stage : str
        Stage that is scored, by `wsolpipe eval` with `words`.
    weights_of : str
        Name in `WEIGHTS` of a file that the user gives, for the parameter ``weights`` of `stage`.
    by_figure : dict of str to dict
        `words` and `stages` that go over those of the cell where it is of that figure.
    search : str
        Recipe of which drawn configurations are trained; `select` (BT or BV, TT or VT) and `annotator` name the cell.
    range : tuple of str
        Recipes whose range of the key `figure` is shown.
    complexity : str
        Recipe whose parameters and time an image are shown.
    labels : str
        Split of which the masks of the annotator `by` are held against ground truth.
    absent : str
        Why the row is not made here; ``method`` for one that no recipe and no stage of this package makes.
    stages : dict
        Parameters of stages, ``stage.parameter`` -> value.
    store : str
        Suffix of the store: rows whose stages have other parameters keep apart.
    """

    dataset: str = ""
    figure: str = ""
    split: str = "test"
    by: str = ""
    fit: str = ""
    keys: dict[str, Any] = Field(default_factory=dict)
    keys_of: dict[str, dict[str, Any]] = Field(default_factory=dict)
    then: str = ""
    stage: str = ""
    weights_of: str = ""
    by_figure: dict[str, dict[Literal["words", "stages"], dict[str, Any]]] = Field(default_factory=dict)
    words: dict[str, Any] = Field(default_factory=dict)
    search: str = ""
    select: tuple[Literal["BT", "BV"], Literal["TT", "VT"]] | None = None
    annotator: str = ""
    range: Annotated[tuple[str, ...], BeforeValidator(lambda each: (each,) if isinstance(each, str) else each)] = ()
    complexity: str = ""
    labels: str = ""
    absent: str = ""
    stages: dict[str, Any] = Field(default_factory=dict)
    store: str = ""

    @property
    def kind(self) -> str:
        """Return what makes the cell: a name of `KINDS`."""
        return next((kind for kind in KINDS if getattr(self, kind)), "")

    @property
    def recipe(self) -> str:
        """Recipe that is trained, once or in a search; empty for other cells."""
        return self.fit or self.search

    def over(self, below: Cell) -> Cell:
        """Settings over others: these take precedence; mappings are merged key by key."""
        own = {name: getattr(self, name) for name in Cell.model_fields if name in self.model_fields_set}
        merged = {name: getattr(below, name) for name in Cell.model_fields if name in below.model_fields_set}
        if any(own.get(kind) for kind in KINDS):
            merged = {name: value for name, value in merged.items() if name not in KINDS}
        for name, value in own.items():
            merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in merged.get("by_figure", {}).get(merged.get("figure"), {}).items():
            merged[name] = {**merged.get(name, {}), **value}
        return Cell(**merged)

    @property
    def reason(self) -> str:
        """Why the cell is not made, as a sentence; empty for one that is."""
        return OTHER if self.absent == "method" else self.absent

    def changes(self) -> dict[str, Any]:
        """Keys of its recipe."""
        return {**self.keys, **self.keys_of.get(self.dataset, {})}


OTHER = "a method of another paper, for which there is no recipe here; the published figures are for comparison"
#: Choice by accuracy, at the threshold that suits the scored images best.
CLS_AT_TRUTH = "cls, tau of gt"
KINDS = ("absent", "fit", "stage", "search", "range", "complexity", "labels")


class Column(Cell):
    """A column: its title, and the settings that its cells share."""

    title: str


class Row(Cell):
    """A row: its name, and the published figures, null or text where there is none."""

    name: str
    backbone: str = ""
    published: list[float | str | None]


class PaperTable(BaseModel, extra="forbid", frozen=True):
    """A table of a paper.

    Attributes
    ----------
    title, source : str
        What it shows, and where it was published.
    notes : list of str
        Where the papers contradict themselves, and what is done otherwise here.
    by : str
        Annotator that chooses epochs and thresholds.
    threshold : "best" or "validation"
        Whether figures take the best threshold of the scored images, as the field's evaluator, or the one of `by`.
    configurations : int
        Drawn for each `search`.
    annotators : dict of str to dict
        Name in the table -> parameters of stages with which ``val_boxes`` makes its boxes; none for ``cls`` and ``GT``.
    """

    title: str
    source: str
    notes: list[str] = Field(default_factory=list)
    by: str = "gt"
    threshold: Literal["best", "validation"] = "best"
    configurations: int = Field(0, ge=0)
    annotators: dict[str, dict[str, Any]] = Field(default_factory=dict)
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> PaperTable:
        if len(self.source.split()) < 2:
            msg = f"source: {self.source!r} does not say where the figures were published"
            raise ValueError(msg)
        for row in self.rows:
            if len(row.published) != len(self.columns):
                msg = f"row {row.name} has {len(row.published)} figures for {len(self.columns)} columns"
                raise ValueError(msg)
        for row, column, cell in self.cells():
            where = f"row {row.name}, column {column.title}"
            made = [kind for kind in KINDS if getattr(cell, kind)]
            if len(made) != 1:
                msg = f"{where}: one of {', '.join(KINDS)} must make it, not {', '.join(made) or 'none'}"
                raise ValueError(msg)
            if cell.kind != "absent" and (not cell.figure or not cell.dataset):
                msg = f"{where}: it names no {'figure' if cell.dataset else 'data set'}"
                raise ValueError(msg)
            if cell.weights_of and f"weights.{cell.weights_of}" not in {key.name for key in WEIGHTS}:
                msg = f"{where}: {unknown('weights', cell.weights_of, [key.name for key in WEIGHTS])}"
                raise ValueError(msg)
            if cell.then and cell.kind != "fit":
                msg = f"{where}: then={cell.then} is made of the predictions of a training, and nothing is trained"
                raise ValueError(msg)
            known = {*self.annotators, CLS_AT_TRUTH}
            if cell.kind == "search" and (cell.select is None or cell.annotator not in known):
                msg = f"{where}: select and an annotator of {', '.join(self.annotators)} must name the cell of a search"
                raise ValueError(msg)
        return self

    def cells(self) -> Iterator[tuple[Row, Column, Cell]]:
        """Every cell with its row and column."""
        for row in self.rows:
            for column in self.columns:
                yield row, column, Cell.over(row, column)

    @property
    def datasets(self) -> list[str]:
        """Names of its data sets."""
        return list(dict.fromkeys(cell.dataset for _, _, cell in self.cells() if cell.dataset))


class Facts(BaseModel, extra="forbid", frozen=True):
    """Facts of a data set before it is there: images a split, and how to get it."""

    rows: dict[str, int] = Field(default_factory=dict)
    get: str = Field(min_length=10)


def known_tables() -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != DATASETS)


def load_table(name: str) -> PaperTable:
    """Read a table by name, or a YAML file of the same form.

    Raises
    ------
    ConfigError
        If there is none of that name, or it is not well formed.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("table", name, known_tables()))
    try:
        return PaperTable.model_validate(read_yaml(path))
    except ValidationError as error:
        msg = f"table {name}: {explain_all(error)}"
        raise ConfigError(msg) from error


OWN = Facts(
    get="a data set of your own: write its YAML (data/folder.yaml is a template) and give it as dataset=FILE.yaml"
)


@cache
def known_facts() -> dict[str, Facts]:
    """Return what is known of the data sets of the papers' tables."""
    known = read_yaml(FOLDER / f"{DATASETS}.yaml")
    return {name: Facts.model_validate(facts) for name, facts in known.items()}


def facts_of(dataset: str) -> Facts:
    """Return what is known of a data set; of one that no paper's table has, how to describe it."""
    return known_facts().get(dataset, OWN)


def check_recipes(cells: Iterable[Cell], changes: Mapping[str, Any] | None = None) -> None:
    """Refuse recipes and keys that there are not, and values that do not fit.

    Parameters
    ----------
    cells : iterable of Cell
    changes : mapping, optional
        Keys that go over those of trainings.

    Raises
    ------
    ConfigError
        As `load_recipe` and `load_ranges`.
    """
    for cell in cells:
        keys = {**cell.changes(), **(changes or {} if cell.kind in ("fit", "search") else {})}
        if cell.kind in ("fit", "complexity"):
            load_recipe(getattr(cell, cell.kind), dataset=cell.dataset, changes=keys)
        for recipe in (cell.search,) if cell.kind == "search" else cell.range:
            ranges = load_ranges(recipe, dataset=cell.dataset, changes=keys)
            if cell.kind == "range" and cell.figure not in ranges:
                raise ConfigError(unknown(f"searched key of recipe {recipe}", cell.figure, ranges))
