"""Write the reference pages of ``docs/reference/`` from the code; with ``--check``, list those out of date.

python tools/reference.py [--check]
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import architecture
from wsolpipe.cli.main import cli as pipeline_cli
from wsolpipe.evaluate.glossary import read_glossary
from wsolpipe.images.dataset import DatasetConfig, known_datasets
from wsolpipe.images.listing import LAYOUTS
from wsolpipe.keys.models import keys_of
from wsolpipe.keys.safe_yaml import read_yaml
from wsolpipe.keys.shell import under_headings
from wsolpipe.launch.profiles import Profile
from wsolpipe.stages.registry import load_registry
from wsoltrain.cli.command import recipe_keys
from wsoltrain.cli.main import cli as trainer_cli
from wsoltrain.methods.registry import METHODS
from wsoltrain.recipes import FOLDER as RECIPES
from wsoltrain.training.recipe_file import known_recipes, load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.keys.key import Key
    from wsolpipe.keys.program import Program
    from wsolpipe.keys.shell import KeyCommand, Section

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
SETTINGS = Path(__file__).with_name("published_settings.yaml")
THESIS = "Where it says thesis: S. Murtaza, doctoral thesis, École de technologie supérieure, Montréal."
DRAWN = "Pictures are of the demo; `tools/demo/stage_pictures.py` draws them and says of which words."
NOTE = "<!-- Written by tools/reference.py from the table of keys; do not edit. -->\n"


def write_pages() -> dict[str, str]:
    """Text of each page by the name of its file."""
    return {
        "wsolpipe.md": _commands("wsolpipe", pipeline_cli) + _profiles(),
        "wsoltrain.md": _commands("wsoltrain", trainer_cli),
        "stages.md": _stages(),
        "datasets.md": _datasets(),
        "recipes.md": _recipes(),
        "glossary.md": _glossary(),
        "architecture.svg": architecture.draw(FOLDER.parents[1]),
    }


def _commands(program: str, cli: Program) -> str:
    parts = [NOTE, f"# Commands of {program}\n"]
    for name in cli.listed:
        command: KeyCommand = cli.load(name)
        parts.append(f"## {program} {name}\n\n{_prose(command.help or '')}\n")
        parts += _sections(command.table.sections({}))
    return "\n".join(parts)


def _sections(sections: Iterable[Section]) -> list[str]:
    """Tables of keys, each below its heading where there are several."""
    found = list(sections)
    titled = sum(bool(section.keys) for section in found) > 1
    return [
        "\n\n".join(text for text in (f"**{section.title}**" * titled, section.note, _table(section.keys)) if text)
        + "\n"
        for section in found
    ]


def _profiles() -> str:
    words = "Fields of a profile in the file of `profiles=`, or `profile.field=value` on the command line."
    return f"\n## Cluster profiles\n\n{words}\n\n{_table(keys_of(Profile, prefix='profile.'))}\n"


def _prose(text: str) -> str:
    """Help text as Markdown: blocks that click keeps as they are become code."""
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = [line.strip() for line in block.splitlines()]
        kept = lines[0] == "\b"
        blocks.append("```\n" + "\n".join(lines[1:]) + "\n```" if kept else " ".join(lines))
    return "\n\n".join(blocks)


def _datasets() -> str:
    """Keys of a data set's YAML, and its layouts with their trees."""
    parts = [
        NOTE, "# Data sets\n",
        "Keys of the YAML file of `dataset=`. Files and folders in it are relative to the file or to `root`. "
        "`data/folder.yaml` is a commented template, the other files of `data/` are descriptions of known data sets: "
        f"{', '.join(f'`{name}`' for name in known_datasets())}.\n",
        f"{_table(keys_of(DatasetConfig))}\n",
    ]  # fmt: skip
    for name, target in LAYOUTS.builtins.items():
        module, layout = importlib.import_module(target.partition(":")[0]), LAYOUTS.find(name)
        boxes = "the upright image" if layout.upright else "the stored pixels"
        words = f"{_prose(_said(module)[0])}\n\nBoxes are of {boxes}, unless `exif:` says otherwise."
        parts.append(f"## layout: {name}\n\n{words}\n\n```text\n{layout.tree.format(root='<root>')}\n```\n")
    return "\n".join(parts)


def _stages() -> str:
    registry = load_registry()
    parts = [NOTE, "# Stages\n", f"Written `stage.parameter=value` on the command line. {THESIS} {DRAWN}\n"]
    for name, entry in registry.entries.items():
        needs = ", ".join(f"`{need}`" for need in entry.needs) or "the index alone"
        parts.append(f"## {name}\n\nMakes: {entry.about}. Reads {needs}.\n")
        if paper := _said(registry.load(name))[1]:
            parts.append(f"Source: {paper}\n")
        if (FOLDER.parent / "images" / "stages" / f"{name}.webp").is_file():  # drawn by tools/demo/stage_pictures.py
            shown = "frames of the demo's clips" if "frame" in entry.columns else "images of the demo"
            parts.append(f"![{name} of four {shown}](../images/stages/{name}.webp)\n")
        parts.append(f"{_table(registry.keys(name))}\n")
        outputs = [[f"`{output}`", meaning] for output, meaning in entry.outputs.items()]
        parts.append(_rows(["output", "meaning"], outputs) + "\n")
    return "\n".join(parts)


def _said(thing: object) -> tuple[str, str]:
    """Docstring of a module or class without its sections, and its section References in one line."""
    text, _, papers = (inspect.getdoc(thing) or "").partition("References\n----------\n")
    return text.split("\n\nAttributes\n---")[0].strip(), " ".join(papers.split())


def _recipes() -> str:
    """The common keys, then each recipe: what it trains, whose it is, its command, and its own keys and values."""
    common = {key.name: key for key in recipe_keys(None)}
    parts = [
        NOTE, "# Recipes\n",
        f"Keys of `wsoltrain fit recipe=NAME`. {THESIS}\n",
        "## Keys of every recipe\n",
        "With the default that holds where a recipe below does not list another value.\n",
        *_sections(under_headings("Method", tuple(common.values()))),
    ]  # fmt: skip
    parts.append(_published_settings())
    for name in known_recipes():
        recipe = load_recipe(name, dataset="", changes={})
        first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        method = _said(METHODS.find(recipe.method))[0]
        reads = recipe.reads()
        artifacts = [artifact.stage for artifact in reads.artifacts]
        makes = ",".join(dict.fromkeys(stage for stage in (reads.maps, reads.boxes, "proposals", *artifacts) if stage))
        lines = f"wsolpipe run stage={makes} dataset=birds.yaml store=labels"
        lines += f"\nwsoltrain fit recipe={name} dataset=birds.yaml store=labels"
        parts.append(f"## {name}\n\n{first}\n\nMethod `{recipe.method}`. {_prose(method)}\n\n```sh\n{lines}\n```\n")
        own = [key for key in recipe_keys(name) if key.name not in common or key.default != common[key.name].default]
        parts += _sections(under_headings("Method", tuple(own)))
    return "\n".join(parts)


def _published_settings() -> str:
    """What authors trained with, by recipe, data set and profile, each with its source."""
    table = read_yaml(SETTINGS)
    rows = []
    for row in table["rows"]:
        groups = "; ".join(f"{_code(name)} {lr:g} x, {decay:g}" for name, (lr, decay) in row["groups"].items())
        start = "; ".join(f"`{name}` {how}" for name, how in row["start"].items())
        start = "classifier of the weights" if row.get("kept") else start
        profile = f"`{row['profile']}`" if row["profile"] else ""
        drops = f"{row['drop']}, {row['path']}"
        optimiser = f"{row['optimiser']}, {row['batch']}"
        rows.append([
            f"`{row['recipe']}`", row["dataset"], profile, optimiser, groups, _rates(row), start, drops, row["source"],
        ])  # fmt: skip
    sources = "\n".join(f"- {name}: {text}" for name, text in table["sources"].items())
    columns = [
        "recipe", "data set", "profile", "optimiser, batch", "tensors: factor on lr, weight decay", "lr x epochs",
        "first weights", "dropout, drop path", "source",
    ]  # fmt: skip
    return (
        "## Settings of the authors\n\nA test compares each line with what the trainer does. All train in float32 "
        "(`amp=false`) on images of ImageNet's mean and standard deviation, but for `tedloc`, which has CLIP's. Names "
        "of tensors are regular expressions of their beginnings; the first that fits holds.\n\n"
        f"{_rows(columns, rows)}\nSources:\n\n{sources}\n"
    )


def _code(pattern: str) -> str:
    """Show a regular expression by its alternatives: a bar would split the cell."""
    if not pattern:
        return "others"
    head, _, choices = pattern.rstrip(")").rpartition("(")
    return " or ".join(f"`{head}{choice}`" for choice in choices.split("|"))


def _rates(row: dict[str, Any]) -> str:
    """Learning rates of a row, each with its number of epochs, or the rule that gives them."""
    if "polynomial" in row:
        lr, epochs, power = row["polynomial"]
        return f"{lr:g} falling to 0 over {epochs}, power {power:g}"
    if "cosine" in row:
        return f"{row['cosine'][0]:g}, half a cosine over {row['cosine'][1]}"
    return ", ".join(f"{rate:g} x {epochs}" for rate, epochs in row["rates"])


def _glossary() -> str:
    """Figures, how they are printed, and what they mean."""
    words = (
        "Printed: IoU and shares in per cent with one decimal, thresholds of 0 to 1 with three, weights with two, "
        "counts whole. With `--json` and in files a `fraction` is held as 0 to 1, the rest as printed. "
        "`wsolpipe eval glossary=true` shows this table."
    )
    rows = [[entry.shown, f"`{entry.name}`", entry.kind, entry.meaning] for entry in read_glossary().values()]
    table = _rows(["in tables", "in JSON", "held as", "meaning"], rows)
    return f"{NOTE}\n# Figures and what they mean\n\n{words}\n\n{table}\n"


def _table(keys: Iterable[Key]) -> str:
    rows = [[f"`{key.name}`", key.kind.name, key.shown_default(), key.unit, key.meaning] for key in keys]
    return _rows(["key", "type", "default", "unit", "meaning"], rows) if rows else ""


def _rows(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> int:
    """Write the pages, or compare them; 1 if one is out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for name, text in write_pages().items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                FOLDER.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    print(f"{'out of date' if check else 'written'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
