"""Commands of the trainer: their own keys beside those of recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wsolpipe.keys import kinds, shell
from wsolpipe.keys.console import print_json
from wsolpipe.keys.key import Key
from wsolpipe.keys.shell import Body, Given, Section, under_headings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from wsoltrain.runs.many import Site, Training


class OfRecipe:
    """Keys of the recipe that is named, else those of every recipe; see `wsolpipe.keys.shell.More`."""

    def listed(self) -> tuple[Key, ...]:
        """Return nothing: the command's own keys come first."""
        return ()

    def sections(self, given: Given) -> Iterator[Section]:
        """List the keys of the recipe."""
        if "recipe" in given:
            name = given["recipe"]
            yield from under_headings(f"Recipe {name}: method", recipe_keys(name), prefix=f"Recipe {name}: ")
            return
        names = ", ".join(offered_recipes(given))
        note = f"Any other key is one of the recipe. recipe=NAME --help lists them; recipes: {names}."
        yield Section("Keys of recipes", (), note)

    def names(self, given: Given, start: str) -> Iterator[Key]:  # noqa: ARG002
        """List the keys of the recipe."""
        yield from recipe_keys(given.get("recipe"))


def offered_recipes(given: Given) -> list[str]:  # noqa: ARG001
    """Names for completion: the recipes of the package."""
    from wsoltrain.training.recipe_file import known_recipes

    return known_recipes()


def offered_tables(given: Given) -> list[str]:  # noqa: ARG001
    """Names for completion: the tables of the papers."""
    from wsoltrain.papers.table import known_tables

    return known_tables()


def recipe_keys(name: str | None) -> tuple[Key, ...]:
    """Keys of a recipe and its method, with the values that its file gives them; those of all recipes where None.

    Raises
    ------
    ConfigError
        If there is no such recipe.
    """
    from wsolpipe.keys.models import keys_of
    from wsoltrain.training.recipe import Recipe
    from wsoltrain.training.recipe_file import read_recipe, recipe_type_of

    if name is None:
        return keys_of(Recipe, {})
    file = read_recipe(name)
    keys = keys_of(recipe_type_of(file), file.keys)
    if not file.profiles:
        return keys
    without = f"; without it: {file.default}" if file.default else ""
    meaning = f"values that the recipe keeps beside its own{without}"
    profile = Key(kinds.choice(*file.profiles), name="profile", meaning=meaning)
    return (profile, *keys)


def make_command(
    name: str, keys: tuple[Key, ...], *, example: str, json_help: str, recipe: bool = False
) -> Callable[[Body], click.Command]:
    """Turn a function into a command, as `wsolpipe.keys.shell.make_command`; with `recipe`, its keys are taken too."""
    more = OfRecipe() if recipe else None
    return shell.make_command(name, keys, more=more, example=example, json_help=json_help)


def show(result: Mapping[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print the result of a command as JSON, else lines of text."""
    if as_json:
        print_json(dict(result))
        return
    for line in lines:
        click.echo(line)


def show_trainings(trainings: Sequence[Training], out: Path, site: Site, *, as_json: bool) -> None:
    """Train several runs, show the best epoch of each, and fail where one failed."""
    from wsoltrain.runs.evaluate import align
    from wsoltrain.runs.many import best_epochs, refuse_failed, run_trainings, table_of

    failed = run_trainings(trainings, site, out / "logs")
    found = best_epochs(each for each in trainings if each.name not in failed)
    lines = [*align(table_of(found)), f"wsoltrain select runs={out} chooses among all epochs"] if found else []
    show({"out": str(out), "runs": found, "failed": failed}, lines, as_json=as_json)
    refuse_failed(failed)
