"""``wsoltrain fit``: train a localizer on the pseudo-labels of a store; called again, it resumes where it stopped."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.keys import kinds
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key, require
from wsolpipe.keys.run_keys import DATASET, ROOT, STORE
from wsolpipe.keys.words import PREFIX
from wsoltrain.cli.command import loader_count, make_command, read_recipe_words, store_of
from wsoltrain.cli.common_keys import DEVICE, METRIC, RECIPE, split
from wsoltrain.cli.progress import FitProgress
from wsoltrain.cli.sites import SITE_KEYS, site_of, split_site

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.settings import Settings
    from wsoltrain.training.tracker import Tracker

KEYS = (
    Key("recipe", RECIPE, "recipe: a shipped one, or a YAML file", "dips"),
    DATASET,
    STORE,
    ROOT,
    Key("where", kinds.file("@FILE"), "only the images of split= on this list, which a report saved", otherwise="all"),
    Key("images", kinds.choice("pixels"), "pixels: read images from that stage of the store, not from files"),
    Key("out", kinds.file("folder"), "folder of the run", otherwise="runs/<recipe>-<dataset>"),
    split("split", "split that is trained on", "train"),
    split("val", "split that chooses epoch and threshold", "val"),
    Key(
        "val_rows_per_class", kinds.integer(1), "images of each class of val= that choose, the first ones",
        otherwise="all", unit="images",
    ),
    Key(
        "by", kinds.list_of(kinds.text("annotator", offers=("gt", "cls", "noisy:10"), source="stored stage")),
        "what chooses on validation, the first one decides: stages of boxes or masks (STAGE, NAME:STAGE@KEY), gt, "
        "noisy:PERCENT, cls",
        otherwise="that of the recipe's file, else proposals",
    ),
    Key("metric", METRIC, "figure that chooses epochs; auto: PxAP where truth is masks, else MaxBoxAcc", "auto"),
    Key("gt", kinds.flag(), "evaluate against the ground truth of the validation split as well", False),
    split("test", "split scored against its ground truth after each epoch, for the table of select", None),
    Key(
        "outcomes", kinds.flag(),
        "keep the boxes of all validation maps, some 15 kB an epoch for 100 images, for wsoltrain noise", False,
    ),
    Key("workers", kinds.integer(0), "loader processes of each training process", otherwise="one a core of its share"),
    Key("save_every", kinds.integer(1), "steps between checkpoints", 200, unit="steps"),
    DEVICE,
    Key(
        "track", kinds.list_of(kinds.text("tracker", offers=("jsonl", "tensorboard", "wandb", "mlflow"))),
        "where figures go: jsonl, tensorboard, wandb, mlflow; all but jsonl show pictures and the recipe too",
        ("jsonl",),
    ),
    *SITE_KEYS,
)  # fmt: skip


@make_command(
    "fit",
    KEYS,
    recipe=True,
    example="wsoltrain fit recipe=dips dataset=demo store=wsol-store epochs=8",
    json_help="Print the result as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Train a localizer; called again, resume where it stopped. Under torchrun, by several processes.

    sweep.KEY=a,b,c trains once for each value and ends with one table; several sweeps give all combinations.
    """
    rest, profile = split_site(words)
    if any(word.startswith(PREFIX) for word in rest) or not site_of(read_recipe_words(rest, KEYS)[0], profile).here:
        from wsoltrain.cli.sweep import run_sweep

        run_sweep(rest, profile, settle=_settle, train=train, as_json=as_json)
        return
    values, changes = read_recipe_words(rest, KEYS)
    recipe, settings = prepare(values, changes)
    from wsoltrain.inference.complexity import complexity
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.parallel import close_group, open_group

    group = open_group(settings.device)
    if group.world > 1 and settings.device == "cuda":
        settings = replace(settings, device=f"cuda:{group.local}")
    if not group.first:
        logging.getLogger().setLevel(logging.WARNING)
    opened: AbstractContextManager[list[Tracker]] = nullcontext([])
    if group.first:
        opened = _opened(values["track"], settings.out, recipe)
    with opened as trackers:
        trainer = Trainer(recipe, settings, trackers, group=group)
        if group.first:
            counted = complexity(trainer.model, recipe.size)["heads"]
            size = f"{counted['parameters'] / 1e6:.3f} M parameters, {counted['macs'] / 1e9:.3f} G multiply-accumulates"
            click.echo(f"{recipe.method}: {size} an image, without what is frozen", err=True)
            shown = FitProgress(trainer.steps, sum(running.epochs for running in trainer.phases.values()))
            trainer.trackers.append(shown)
            _follow(trainer)
        result = {"out": str(settings.out), **trainer.fit()}
    close_group(group)
    if not group.first:
        return
    if as_json:
        print_json(result)
        return
    best = ", ".join(f"{score:.1f} by {name}" for name, score in trainer.best.items())
    click.echo(f"{settings.out}: {trainer.step} steps; best validation score {best}")


def _settle(words: Iterable[str]) -> tuple[dict[str, Any], Settings]:
    """Values of a training's keys, and its places; everything about it is checked."""
    values, changes = read_recipe_words(words, KEYS)
    return values, prepare(values, changes)[1]


def train(words: Iterable[str]) -> None:
    """Train by the words of ``wsoltrain fit``, in this process and without a word on standard output.

    Raises
    ------
    WsolError
        As `prepare` and the training do.
    """
    from wsoltrain.training.loop import Trainer

    values, changes = read_recipe_words(words, KEYS)
    recipe, settings = prepare(values, changes)
    with _opened(values["track"], settings.out, recipe) as trackers:
        trainer = Trainer(recipe, settings, trackers)
        _follow(trainer)
        trainer.fit()


@contextmanager
def _opened(track: Iterable[str], out: Path, recipe: Recipe) -> Iterator[list[Tracker]]:
    """Hold the run's folder and open its trackers."""
    from wsoltrain.training.run_lock import hold
    from wsoltrain.training.tracker import open_trackers

    with hold(out) as lock, open_trackers(",".join(track), out, recipe.model_dump(mode="json")) as trackers:
        yield [lock, *trackers]


def _follow(trainer: Trainer) -> None:
    """Keep the record of a run in its folder, and give pictures to the trackers that show any."""
    from wsoltrain.training.run_record import record_run
    from wsoltrain.training.tracker import PictureTracker

    trainer.trackers.append(record_run(trainer))
    if shown := [tracker for tracker in trainer.trackers if isinstance(tracker, PictureTracker)]:
        from wsoltrain.inference.panels import Panels

        trainer.trackers.append(Panels(trainer, shown))


def prepare(values: dict[str, Any], changes: dict[str, Any], *, kind: str = "runs") -> tuple[Recipe, Settings]:
    """Recipe and places of a run; `kind` is the folder in which its folder lies by default.

    Raises
    ------
    ConfigError
        If no data set is named, or a key or value does not fit.
    """
    from wsolpipe import open_store
    from wsolpipe.images.dataset import load_dataset
    from wsolpipe.keys.row_list import read_row_list
    from wsolpipe.networks.devices import choose_device
    from wsoltrain.data.config import Labelling
    from wsoltrain.training.annotators import read_annotators
    from wsoltrain.training.recipe_file import load_recipe, read_recipe
    from wsoltrain.training.settings import Settings

    require(values, "wsoltrain fit", dataset="demo")
    dataset = load_dataset(values["dataset"], root=values["root"])
    recipe = load_recipe(values["recipe"], dataset=dataset.name, changes=changes)
    store = store_of(values)
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
        val=values["val"],
        annotators=[*by, *(["gt"] if values["gt"] and "gt" not in by else [])],
        metric=values["metric"],
        masks=dataset.mask_root(),
        val_rows_per_class=values["val_rows_per_class"],
        test=values["test"],
        outcomes=values["outcomes"],
        workers=loader_count(values["workers"]),
        save_every=values["save_every"],
        device=choose_device(values["device"]),
    )
    return recipe, settings
