"""``wsoltrain search``: find the settings of a recipe that score best on validation pseudo-boxes."""

from __future__ import annotations

import json

from wsoltrain.cli.command import make_command, show, show_trainings
from wsoltrain.runs.many import Site, split_site
from wsoltrain.runs.search import KEYS, result_of, search_by_trials, shared_trainings
from wsoltrain.runs.settle import read_recipe_words


@make_command(
    "search",
    KEYS,
    recipe=True,
    example="wsoltrain search recipe=dips dataset=demo store=wsol-store trials=30 parallel=2",
    json_help="Print the result as JSON.",
)
def command(words: tuple[str, ...], as_json: bool) -> None:
    """Search the ranges of a recipe's section search for the best score on validation, against the first of by=.

    Ground truth is not read unless by=, gt= or test= ask for it. Keys of the recipe that are given are not searched.
    configurations=N trains N drawn configurations instead, whose learning rates and other keys that all recipes have
    are the same for every recipe: the runs of one table of several methods. Called again, resume where it stopped.
    """
    plain, profile = split_site(words)
    values, changes = read_recipe_words(plain, KEYS)
    if values["configurations"] or values["shared"]:
        site = Site(values["cluster"], values["parallel"], profile)
        show_trainings(*shared_trainings(values, changes, plain), site, as_json=as_json)
        return
    study, settings = search_by_trials(values, changes, words)
    result = result_of(study, settings.out)
    counts = ", ".join(f"{number} {state}" for state, number in result["trials"].items())
    given = [word for word in words if word.partition("=")[0] in changes]
    keys = [f"{name}={json.dumps(value)}" for name, value in result["settings"].items()]
    lines = (
        f"{settings.out}: {counts}; best {result['best']:.1f} by {settings.first.name}",
        f"wsoltrain fit recipe={values['recipe']} dataset={values['dataset']} {' '.join([*given, *keys])}",
    )
    show(result, lines, as_json=as_json)
