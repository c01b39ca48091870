"""Input of a report: one split of a store, the stages that belong together, and the folder of its images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, NotFoundError
from wsolpipe.contract.making import run_command
from wsolpipe.contract.reader import Artifact, Dataset, Index, StageView, Store, open_store
from wsolpipe.contract.schema import RETIRED
from wsolpipe.engine.chosen_maps import find_view, index_of
from wsolpipe.engine.session import Session
from wsolpipe.evaluate.map_sources import map_names
from wsolpipe.evaluate.results import read_beside
from wsolpipe.images.video import file_of
from wsolpipe.report.quality import Pick, Quality, choose, measure
from wsolpipe.stages.registry import StageRegistry, load_registry

if TYPE_CHECKING:
    from wsolpipe.keys.run_keys import RunConfig

PREFERRED_SPLITS = ("test", "val")
PREFERRED_STAGES = ("proposals", "val_boxes", "regions", "cls_maps")
DEFAULT_SAMPLE = 100
MOST_MAPS = 13


@dataclass(frozen=True)
class Material:
    """Everything that sections may show.

    Attributes
    ----------
    views : tuple of StageView
        Rows stages, each after those it reads; all of one chain of keys.
    artifacts : tuple of Artifact
        Finished artifacts that those stages read.
    root : Path or None
        Folder of the image files, None where it is not known or not there.
    notes : tuple of str
        What a reader of the page should know, such as missing images or unfinished shards.
    n, seed : int
        Rows to show, and the seed of the random part of them.
    others : tuple of StageView
        Newest result of each other stage of the split: layers that can be switched on.
    rival : StageView or None
        Result of boxes or maps that the page compares with.
    pages : str
        Folder beside the report that holds pages of its rows; empty where the report is one file.
    listed : tuple of dict
        `wsolpipe.pages.cards.facts_of` the rows of those pages.
    served : str
        Token of the server that keeps corrections; empty for a page that is a file.
    registry : StageRegistry
        The stages that are known, for what each advises.
    """

    store: Store
    dataset: str
    split: str
    index: Index
    views: tuple[StageView, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    root: Path | None = None
    notes: tuple[str, ...] = ()
    n: int = DEFAULT_SAMPLE
    seed: int = 0
    others: tuple[StageView, ...] = ()
    rival: StageView | None = None
    pages: str = ""
    listed: tuple[dict[str, Any], ...] = ()
    served: str = ""
    registry: StageRegistry = field(default_factory=load_registry)

    @cached_property
    def boxes(self) -> StageView | None:
        """The stage whose boxes are shown and measured."""
        return next((view for view in reversed(self.views) if "boxes" in view.manifest.arrays), None)

    @cached_property
    def maps(self) -> StageView | None:
        """The stage whose maps are shown: the input of the boxes, if the store holds it."""
        return next((view for view in reversed(self.views) if "maps" in view.manifest.arrays), None)

    @property
    def subject(self) -> str:
        """Return the subject of the page: data set, split, and the stage with its key."""
        view = self.boxes or self.maps
        return f"{self.dataset} {self.split}" + (f", {view.stage} {view.key}" if view else "")

    @cached_property
    def quality(self) -> Quality:
        """Boxes scored against ground truth, row by row."""
        return measure(self.index, self.boxes, self.maps)

    @cached_property
    def rival_quality(self) -> Quality | None:
        """The compared result against the same ground truth."""
        if self.rival is None:
            return None
        boxes = "boxes" in self.rival.manifest.arrays
        return measure(self.index, self.rival if boxes else None, None if boxes else self.rival)

    @cached_property
    def map_slots(self) -> list[MapSlot]:
        """Maps that the page shows: those of the main stage, then the first of each other stage."""
        names = [] if self.maps is None else map_names(self.maps)[:MOST_MAPS]
        found = [MapSlot(self.maps, place, name) for place, name in enumerate(names) if self.maps is not None]
        for view in (*self.views, *self.others):
            if "maps" in view.manifest.arrays and view is not self.maps:
                slot = MapSlot(view, 0, map_names(view)[0])
                found.append(replace(slot, name=slot.title))
        return found

    @cached_property
    def sample(self) -> list[Pick]:
        """The rows of the gallery: best, median, worst, and some at random."""
        quality = self.quality
        return choose(quality.ranking, np.flatnonzero(quality.shown), n=self.n, seed=self.seed)

    @cached_property
    def front(self) -> list[Pick]:
        """Rows of the first page: all of the sample, unless they lie on pages of their own."""
        quality = self.quality
        if not self.pages:
            return self.sample
        return choose(quality.ranking, np.flatnonzero(quality.shown), n=DEFAULT_SAMPLE, seed=self.seed)

    def require_images(self) -> None:
        """Refuse a folder of images that holds none of the rows of the page.

        Raises
        ------
        ConfigError
            Before anything is written: the page would replace a good one by empty frames.
        """
        table = self.index.table(["path"]).column("path")
        paths = [table[pick.row].as_py() for pick in self.sample] if self.root is not None else []
        if self.root is None or not paths or any((self.root / file_of(path)).exists() for path in paths):
            return
        msg = f"root={self.root} holds none of the {len(paths)} images of the page, such as {paths[0]}"
        raise ConfigError(msg, hint="name the folder of the image files with root=FOLDER; nothing was written")

    @property
    def over(self) -> StageView | None:
        """Result that corrections of these rows are laid over: earlier ones, else the boxes that are shown."""
        drawn = [view for view in (*self.views, *self.others) if "drawn" in view.manifest.arrays]
        return drawn[0] if drawn else self.boxes

    @cached_property
    def likeliest(self) -> tuple[StageView, str] | None:
        """A result that says the likeliest classes of each row, and the array in which it does."""
        for view in (*reversed(self.views), *self.others):
            guesses = view.manifest.params.get("target", view.manifest.params.get("targets")) in (
                "predicted",
                "classifier",
            )
            for name in ("classes", "class_ids"):
                if name in view.manifest.arrays and (guesses or name == "classes"):
                    return view, name
        return None

    @cached_property
    def quarantined(self) -> list[dict[str, Any]]:
        """Every quarantined row: row, image_id, path, stage, reason; with the first stage that quarantined it."""
        found: dict[int, dict[str, Any]] = {}
        if self.index.manifest.quarantined:
            for item in self.index.table(["row", "image_id", "path", "reason"]).to_pylist():
                if item["reason"] not in {"", RETIRED}:
                    found[item["row"]] = {**item, "stage": "index"}
        for view in self.views:
            for item in view.quarantined():
                found.setdefault(item["row"], item)
        return [found[row] for row in sorted(found)]

    def class_name(self, label: int | None) -> str:
        """Name of a class, empty where the data set gives none."""
        return "" if label is None else self.index.manifest.class_names.get(str(label), "")

    def map_name(self, position: int) -> str:
        """Name of a position on the maps' axis."""
        names = [] if self.maps is None else map_names(self.maps)
        return names[position] if 0 <= position < len(names) else ""


@dataclass(frozen=True)
class MapSlot:
    """One map of each row: its stage, its place on that stage's axis, and its name below its picture."""

    view: StageView
    place: int
    name: str

    @property
    def title(self) -> str:
        """Its name with that of its stage, for where it stands alone."""
        return self.name if self.name.startswith(self.view.stage) else f"{self.view.stage} {self.name}"


def gather(config: RunConfig, *, n: int = DEFAULT_SAMPLE, beside: str = "") -> Material:
    """Find what the configuration names; by the name of a data set alone, the newest of each stage.

    Parameters
    ----------
    config : RunConfig
        ``dataset`` is a name, a YAML, or just the name of a data set in the store.
    n : int
        Rows of the gallery.
    beside : str
        Result to compare with, of the same split: ``STAGE``, ``STAGE:KEY`` or the beginning of a key of the same stage.

    Raises
    ------
    ConfigError
        If no data set or more than one split is named, or what is named does not fit the data set or is not there.
    StoreError
        If the store does not hold it.
    """
    store = open_store(config.store)
    session = _session(config, store)
    name = session.dataset.name if session else config.dataset
    dataset = store[name]
    split = _choose_split(dataset, config)
    views = _views(dataset, split, config, session)
    if views and session:
        index = index_of(session, views[-1])
    else:
        index = views[-1].index() if views else dataset[split].index()
    root, notes = _image_root(session, config)
    newest = [dataset[split].stage(stage) for stage in dataset[split].stages()]
    others = tuple(view for view in newest if view.stage not in {each.stage for each in views})
    rival = _rival(dataset, split, views, beside)
    notes += [
        note for view in dict.fromkeys((*views, *([rival] if rival else []), *others)) for note in shards_note(view)
    ]
    further = [other for other in dataset.splits() if other != split]
    if further:
        notes.append(f"Other splits in this store: {', '.join(further)} (wsolpipe report split=…).")
    return Material(
        store, name, split, index, views, _artifacts(dataset, views), root, tuple(notes), n=n, seed=config.seed,
        others=tuple(view for view in others if view.committed()), rival=rival, registry=load_registry(config.stages),
    )  # fmt: skip


def shards_note(view: StageView) -> list[str]:
    """How many shards of a result are shown, where that is not all of them."""
    made, shards = len(view.committed()), len(view.shards)
    if made == shards:
        return []
    return [f"{view.stage} {view.key}: {made} of {shards} shards are used, the others are not made."]


def _rival(dataset: Dataset, split: str, views: tuple[StageView, ...], beside: str) -> StageView | None:
    """The result that is named, which must hold boxes or maps."""
    if not beside:
        return None
    if not views:
        msg = f"beside={beside}: {split} of {dataset.name} has no result beside which another could lie"
        raise NotFoundError(msg, hint=run_command("proposals", store=dataset.store.url, split=split))
    stage, key = read_beside(views[-1], beside)
    view = dataset[split].stage(stage, key)
    if not {"boxes", "maps"} & set(view.manifest.arrays):
        msg = f"beside={beside}: stage {stage} holds neither boxes nor maps"
        raise ConfigError(msg)
    return view


def _session(config: RunConfig, store: Store) -> Session | None:
    """The session of a described data set; None for a name that only the store knows."""
    try:
        return Session.open(config, need_root=False)
    except ConfigError:
        if config.dataset in store.datasets() and not config.params:
            return None
        raise


def _choose_split(dataset: Dataset, config: RunConfig) -> str:
    if len(config.split) > 1:
        msg = f"split={','.join(config.split)}: a report shows one split"
        raise ConfigError(msg, hint="one command a split, each with its own out=FILE.html")
    if config.split:
        return dataset[config.split[0]].name
    present = dataset.splits()
    if not present:
        msg = f"{dataset.store.url} holds no split of {dataset.name}"
        raise NotFoundError(msg, hint=run_command("proposals", store=config.store))
    best = max(present, key=lambda name: len(_ranked(dataset, name)))
    reached = len(_ranked(dataset, best))
    return next((name for name in PREFERRED_SPLITS if name in present and len(_ranked(dataset, name)) == reached), best)


def _ranked(dataset: Dataset, split: str) -> list[str]:
    """Stages of a split, the most informative first."""
    present = dataset[split].stages()
    return [name for name in PREFERRED_STAGES if name in present] + [
        name for name in present if name not in PREFERRED_STAGES
    ]


def _views(dataset: Dataset, split: str, config: RunConfig, session: Session | None) -> tuple[StageView, ...]:
    """The stages asked for, or the last one made, each after its inputs."""
    asked = [name for name in config.stage if name != "index"] if config.stage else _ranked(dataset, split)[:1]
    found: list[StageView] = []
    for stage in asked:
        entry = session.registry.entries.get(stage) if session else None
        if entry is not None and entry.kind == "artifact":
            msg = f"stage {stage} is an artifact of the whole data set; a report shows stages with rows"
            raise ConfigError(msg, hint="it is listed on the page of every stage that was made with it")
        if session is None or entry is None:
            view = dataset[split].stage(stage)
        else:
            named = Session.open(replace(config, stage=(stage,), split=(split,)), need_root=False)
            view = find_view(named, stage, split)
        _add_chain(dataset, view, found)
    return tuple(found)


def _add_chain(dataset: Dataset, view: StageView, found: list[StageView]) -> None:
    """Add a stage after everything that its manifest says it was made from, as far as the store still holds it."""
    for stage, fingerprint in view.manifest.upstream.items():
        for key in dataset[view.split].keys(stage):
            if fingerprint.startswith(key):
                _add_chain(dataset, dataset[view.split].stage(stage, key), found)
    if view not in found:
        found.append(view)


def _artifacts(dataset: Dataset, views: tuple[StageView, ...]) -> tuple[Artifact, ...]:
    """Artifacts by the content that the stages' manifests name."""
    backend, found = dataset.store.backend, []
    wanted = {item for view in views for item in view.manifest.artifacts.items()}
    for stage, content in sorted(wanted):
        for name in backend.names(f"{dataset.name}/artifacts/{stage}"):
            artifact = Artifact(dataset.store, dataset.name, stage, name.rstrip("/"))
            if artifact.record is not None and artifact.record.content == content:
                found.append(artifact)
                break
    return tuple(found)


def _image_root(session: Session | None, config: RunConfig) -> tuple[Path | None, list[str]]:
    folder = session.dataset.root if session else Path(config.root) if config.root else None
    if folder is not None and folder.is_dir():
        return folder, []
    if config.root:
        msg = f"root={config.root}: no such folder"
        raise ConfigError(msg, hint="name the folder of the image files; without root= frames stay empty")
    return None, ["The image files are not here, so boxes and maps are drawn on empty frames; root=FOLDER brings them."]
