"""``wsoltrain fit``: train a localizer on the pseudo-labels of a store; called again, it goes on where it stopped."""

from __future__ import annotations

import json
import logging
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsolpipe.contract.errors import ConfigError
from wsolpipe.keys.values import parse_value, split_words
from wsoltrain.cli.words import Key, completer, flag, read_words, table, text, whole

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from wsoltrain.training.loop import Settings
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.tracker import Tracker

KEYS = {
    "recipe": Key(text, "dips", "name of a shipped one, or a YAML file"),
    "dataset": Key(text, None, "name in data/ or a YAML file"),
    "store": Key(text, None, "folder or URL of the store (else WSOLPIPE_STORE, else wsol-store)"),
    "root": Key(text, None, "folder of the image files, instead of the one in the YAML"),
    "images": Key(text, None, "pixels: images come from that stage of the store, not from files"),
    "out": Key(text, None, "folder of the run; runs/<recipe>-<dataset> by default"),
    "split": Key(text, "train", "split that is trained on"),
    "val": Key(text, "val", "split that chooses epoch and threshold"),
    "by": Key(text, "proposals", "stage whose first box a row is the validation's pseudo-box"),
    "gt": Key(flag, False, "evaluate against the ground truth of the validation split as well"),
    "test": Key(text, None, "split scored against its ground truth after each epoch, for the table of select"),
    "workers": Key(whole(0), None, "loader processes of each training process; one a core of its share"),
    "save_every": Key(whole(1), 200, "steps between checkpoints"),
    "device": Key(text, None, "of torch; cuda where there is one"),
    "track": Key(text, "jsonl", "any of jsonl,tensorboard,wandb"),
}


class WithRecipe(click.Command):
    """A command that lists the keys of recipes at the end of its help, and imports them only then."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them."""
        from wsoltrain.training.recipe import Recipe, known_recipes

        with formatter.section("Keys of the recipe, and their defaults where a recipe names none"):
            formatter.write_text(
                ", ".join(
                    name if field.is_required() else f"{name}={json.dumps(field.default)}"
                    for name, field in Recipe.model_fields.items()
                )
            )
        with formatter.section("Recipes"):
            formatter.write_text(", ".join(known_recipes()))
        super().format_epilog(ctx, formatter)


@click.command(
    "fit",
    cls=WithRecipe,
    help="Train a localizer; called again, go on where it stopped. Under torchrun, by several processes.\n\n\b\nKeys:\n"
    f"{table(KEYS)}\n\nAny other key is one of the recipe: epochs=, lr=, size=, pixels.n_fg= …",
    epilog="Example: wsoltrain fit recipe=dips dataset=demo store=wsol-store epochs=8",
)
@click.argument("words", nargs=-1, metavar="KEY=VALUE…", shell_complete=completer(KEYS))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(*, words: tuple[str, ...], as_json: bool) -> None:
    """Train and tell what came of it."""
    own = [word for word in words if word.partition("=")[0] in KEYS or "=" not in word]
    values = read_words(own, KEYS)
    changes = {name: parse_value(given) for name, given in split_words(w for w in words if w not in own).items()}
    recipe, settings = prepare(values, changes)
    from wsoltrain.methods.localizers import complexity
    from wsoltrain.training.loop import Trainer
    from wsoltrain.training.parallel import close_group, open_group
    from wsoltrain.training.tracker import open_trackers

    group = open_group(settings.device)
    if group.world > 1 and settings.device == "cuda":
        settings = replace(settings, device=f"cuda:{group.local}")
    if not group.first:
        logging.getLogger().setLevel(logging.WARNING)
    opened: AbstractContextManager[list[Tracker]] = nullcontext([])
    if group.first:
        opened = open_trackers(values["track"], settings.out, recipe.model_dump(mode="json"))
    with opened as trackers:
        trainer = Trainer(recipe, settings, trackers, group=group)
        if group.first:
            counted = complexity(trainer.model, recipe.size)["heads"]
            size = f"{counted['parameters'] / 1e6:.3f} M parameters, {counted['macs'] / 1e9:.3f} G multiply-accumulates"
            click.echo(f"{recipe.model} on {recipe.backbone}: heads of {size} an image", err=True)
        result = {"out": str(settings.out), **trainer.fit()}
    close_group(group)
    if not group.first:
        return
    if as_json:
        click.echo(json.dumps(result))
        return
    best = ", ".join(f"{score:.2f} by {name}" for name, score in trainer.best.items())
    click.echo(f"{settings.out}: {trainer.step} steps; best validation MaxBoxAcc {best}")


def prepare(values: dict[str, Any], changes: dict[str, Any], *, kind: str = "runs") -> tuple[Recipe, Settings]:
    """Recipe and places of a run; `kind` is the folder in which its folder lies by default.

    Raises
    ------
    ConfigError
        If no data set is named, or a key or value does not fit.
    """
    import torch

    from wsolpipe.images.dataset import load_dataset
    from wsoltrain.data.config import Labelling
    from wsoltrain.training.loop import Settings
    from wsoltrain.training.recipe import load_recipe

    if not values["dataset"]:
        msg = "no data set named"
        raise ConfigError(msg, hint="add dataset=NAME, or dataset=FILE.yaml for your own")
    dataset = load_dataset(values["dataset"], root=values["root"])
    recipe = load_recipe(values["recipe"], dataset=dataset.name, changes=changes)
    store = values["store"] or os.environ.get("WSOLPIPE_STORE", "wsol-store")
    labelling = Labelling(
        store, dataset.name, values["split"], maps=recipe.maps, boxes=recipe.boxes, images=values["images"]
    )
    settings = Settings(
        labelling,
        root=str(dataset.image_root()),
        out=Path(values["out"] or f"{kind}/{Path(values['recipe']).stem}-{dataset.name}"),
        val=values["val"],
        annotators=[values["by"], *(["gt"] if values["gt"] else [])],
        test=values["test"],
        workers=loaders(values["workers"]),
        save_every=values["save_every"],
        device=values["device"] or ("cuda" if torch.cuda.is_available() else "cpu"),
    )
    return recipe, settings


def loaders(given: int | None) -> int:
    """Loader processes: as given, else one a core of this process's share of the machine."""
    share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, (os.cpu_count() or 1) // share) if given is None else given
