"""The words of a training, settled: checked values, the recipe and the places, before anything is trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.key import Key, read_keys, require
from wsolpipe.keys.run_keys import read_row_list, store_of
from wsolpipe.keys.words import parse_value, split_words
from wsoltrain.runs.keys import TRAINING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings


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
