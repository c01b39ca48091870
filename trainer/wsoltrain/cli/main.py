"""``wsoltrain``: the command, its sub-commands loaded when they are called, and how errors end."""

from __future__ import annotations

import logging
import os
import sys

import click

from wsolpipe.keys.console import call
from wsolpipe.keys.program import Program, register_bash

#: Sub-command -> one line; in the module ``wsoltrain.cli.<name>``, or the one in `HOMES`.
COMMANDS = {
    "ceiling": "Train a recipe's network on ground truth: what its tokens could reach.",
    "compare": "Train several recipes and score all on the same images.",
    "eval": "Score a trained localizer on a split, beside the boxes it learned from.",
    "export": "Write a trained localizer as a torch program and as ONNX, and check both.",
    "fit": "Train a localizer; called again, resume where it stopped.",
    "noise": "Choose again by noisy validation boxes: how much noise a selection tolerates.",
    "predict": "Find the object in images and videos.",
    "preview": "Draw what a training step would see.",
    "report": "Write one HTML page about training runs.",
    "reproduce": "Make a table of the papers: published figures beside those found here.",
    "search": "Search a recipe's ranges for the settings that score best on validation pseudo-boxes.",
    "select": "Choose epoch and threshold by pseudo-boxes, and show what that costs.",
}


#: Commands that share a module, whose name is not theirs.
HOMES = {
    **dict.fromkeys(("eval", "compare", "ceiling", "select", "report"), "figures"),
    **dict.fromkeys(("predict", "export", "preview"), "use"),
}


@click.group(
    cls=Program,
    listed=COMMANDS,
    package="wsoltrain.cli",
    homes=HOMES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="wsolpipe")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(*, debug: bool) -> None:
    """Train localizers on the pseudo-labels of a wsolpipe store."""
    del debug  # for the help text: `main` takes it out of the words


def main(args: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    if "_WSOLTRAIN_COMPLETE" in os.environ:
        register_bash()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(call(cli, "wsoltrain", sys.argv[1:] if args is None else args))


if __name__ == "__main__":
    main()
