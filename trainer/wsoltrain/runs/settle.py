"""The words of a training, settled: checked values, the recipe and the places, before anything is trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class, read_keys, require
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE, read_row_list, store_of
from wsolpipe.keys.words import parse_value, split_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings


class _SharedKeys:
    """Keys that several commands have.

    Attributes
    ----------
    checkpoint
        best-….safetensors of a run, or the folder of the run
    device
        device of the network
    plots
        folder to write every chart of the page to: SVG, PDF and PNG for papers, and CSV; compare adds its table as
        LaTeX and CSV
    """

    checkpoint = Key(kinds.file())
    device = Key(kinds.text("torch device", offers=("cpu", "cuda")), otherwise="cuda if available")
    plots = Key(kinds.file("folder"), otherwise="none")


CHECKPOINT, DEVICE, PLOTS = keys_of_class(_SharedKeys)
RECIPE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_recipes")
TABLE = kinds.file("name or YAML file", source="wsoltrain.cli.command:offered_tables")
STAGE = kinds.name("name of a stage", source="stored stage")
METRIC = kinds.choice("auto", "MaxBoxAcc", "MaxBoxAccV2", "iou", "PxAP")
A_SPLIT = kinds.name("name of a split", source="split")


CLUSTERS = ("local", "dask-local", "dask-cuda", "slurm", "slurm-array", "tcp://")


class _SiteKeys:
    """Keys that say where trainings run.

    Attributes
    ----------
    **Machines and jobs**
    cluster
        where trainings run, each as one process or job; cluster.profile=, cluster.profiles= and cluster.FIELD= choose
        and change the profile of the site
    parallel
        trainings at once
    """

    cluster = Key(kinds.text("name or tcp://HOST:PORT", offers=CLUSTERS), "local")
    parallel = Key(kinds.integer(1), otherwise="one here, one a GPU with dask-cuda, else all")


SITE_KEYS = keys_of_class(_SiteKeys)


class _TrainingKeys:
    """Keys of a training.

    Attributes
    ----------
    **Recipe, data and labels**
    recipe
        recipe: a shipped one, or a YAML file
    dataset, store, root
    where
        only the images of split= on this list, which a report saved
    images
        pixels: read images from that stage of the store, not from files
    split
        split that is trained on
    **Evaluation, and what chooses the epoch**
    val
        split that chooses epoch and threshold
    val_rows_per_class
        images of each class of val= that choose, the first ones
    by
        what chooses on validation, the first one decides: stages of boxes or masks (STAGE, NAME:STAGE@KEY), gt,
        noisy:PERCENT, cls
    metric
        figure that chooses epochs; auto: PxAP where truth is masks, else MaxBoxAcc
    gt
        evaluate against the ground truth of the validation split as well
    test
        split scored against its ground truth after each epoch, for the table of select
    outcomes
        keep the boxes of all validation maps, some 15 kB an epoch for 100 images, for wsoltrain noise
    **Folder and figures of the run**
    out
        folder of the run
    save_every
        steps between checkpoints
    track
        where figures go: jsonl, tensorboard, wandb, mlflow; all but jsonl show pictures and the recipe too
    **Machines and jobs**
    workers
        loader processes of each training process
    device
    """

    recipe = Key(RECIPE, "dips")
    dataset = DATASET
    store = STORE
    root = ROOT
    where = Key(kinds.file("@FILE"), otherwise="all")
    images = Key(kinds.choice("pixels"))
    out = Key(kinds.file("folder"), otherwise="runs/<recipe>-<dataset>")
    split = Key(A_SPLIT, "train")
    val = Key(A_SPLIT, "val")
    val_rows_per_class = Key(kinds.integer(1), unit="images", otherwise="all")
    by = Key(
        kinds.list_of(kinds.text("annotator", offers=("gt", "cls", "noisy:10"), source="stored stage")),
        otherwise="that of the recipe's file, else proposals",
    )
    metric = Key(METRIC, "auto")
    gt = Key(kinds.flag(), False)
    test = Key(A_SPLIT)
    outcomes = Key(kinds.flag(), False)
    workers = Key(kinds.integer(0), otherwise="one a core of its share")
    save_every = Key(kinds.integer(1), 200, unit="steps")
    device = DEVICE
    track = Key(kinds.list_of(kinds.text("tracker", offers=("jsonl", "tensorboard", "wandb", "mlflow"))), ("jsonl",))


#: Of ``wsoltrain fit``; commands that train several take most of them too.
TRAINING = (*keys_of_class(_TrainingKeys), *SITE_KEYS)


@dataclass(frozen=True)
class Settled:
    """A training that can begin.

    Attributes
    ----------
    values : dict
        Of the keys of ``wsoltrain fit``.
    recipe : Recipe
        What is learned.
    settings : Settings
        Where it is read and written.
    """

    values: dict[str, Any]
    recipe: Recipe
    settings: Settings


def read_recipe_words(words: Iterable[str], keys: tuple[Key, ...] = TRAINING) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of `keys`, given or default, and those of all other words, which are a recipe's.

    Raises
    ------
    ConfigError
        If a word has no ``=``, a key is given twice, or a value is of another kind.
    """
    given = split_words(words)
    own = {key.name for key in keys}
    values = read_keys([f"{name}={text}" for name, text in given.items() if name in own], keys)
    return values, {name: parse_value(text) for name, text in given.items() if name not in own}


def settle_words(words: Iterable[str]) -> Settled:
    """Settle the words of ``wsoltrain fit``; raises as `settle`."""
    return settle(*read_recipe_words(words))


def settle(values: Mapping[str, Any], changes: Mapping[str, Any], *, kind: str = "runs") -> Settled:
    """Settle a training.

    Parameters
    ----------
    values : mapping
        Of some of the keys of a training; the others have their defaults.
    changes : mapping
        Keys of the recipe that go over its file.
    kind : str
        Folder in which the run's folder lies by default.

    Raises
    ------
    ConfigError
        If no data set is named, or a key or value does not fit.
    """
    from wsolpipe.contract.reader import open_store
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.data.config import Labelling
    from wsoltrain.training.annotators import read_annotators
    from wsoltrain.training.recipe_file import load_recipe, read_recipe
    from wsoltrain.training.settings import Settings

    values = {**{key.name: key.default for key in TRAINING}, **values}
    require(values, f"wsoltrain {'fit' if kind == 'runs' else 'search'}", dataset="demo")
    dataset = load_dataset(values["dataset"], root=values["root"])
    recipe = load_recipe(values["recipe"], dataset=dataset.name, changes=changes)
    store = store_of(values["store"])
    open_store(store)[dataset.name][values["split"]]  # raises where it is not there
    reads = recipe.reads()
    labelling = Labelling(
        store, dataset.name, values["split"], maps=reads.maps, boxes=reads.boxes, images=values["images"],
        where=values["where"] and f"@{read_row_list(values['where']).path.absolute()}", drawn=reads.drawn,
    )  # fmt: skip
    by = values["by"] or read_recipe(values["recipe"]).annotators(dataset.name)
    read_annotators(by)
    settings = Settings(
        labelling,
        root=str(dataset.image_root()),
        out=Path(values["out"] or f"{kind}/{Path(values['recipe']).stem}-{dataset.name}"),
        annotators=[*by, *(["gt"] if values["gt"] and "gt" not in by else [])],
        masks=dataset.mask_root(),
        workers=loader_count(values["workers"]),
        device=choose_device(values["device"]),
        **{name: values[name] for name in ("val", "metric", "val_rows_per_class", "test", "outcomes", "save_every")},
    )
    _refuse_place(settings.out, Path(settings.root))
    return Settled(values, recipe, settings)


def _refuse_place(out: Path, images: Path) -> None:
    """Refuse to write a run among the images or into a store."""
    from wsolpipe.contract.backends.opening import holds_results, open_backend

    if out.is_dir() and (out.resolve() == images.resolve() or holds_results(open_backend(str(out)))):
        held = "the folder of the images" if out.resolve() == images.resolve() else "a store of labels"
        msg = f"out={out} is {held}: a run would lie among them"
        raise ConfigError(msg, hint="name a new folder with out=, such as out=runs/dips-birds")


def loader_count(given: int | None) -> int:
    """Return the number of loader processes: as given, else one a core of this process's share of the machine."""
    share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, (os.cpu_count() or 1) // share) if given is None else given
