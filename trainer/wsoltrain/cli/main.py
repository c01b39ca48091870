"""``wsoltrain``: the command, its sub-commands loaded when they are called, and how errors end."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from wsolpipe.keys.console import call

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
    "search": "Search a recipe's ranges for settings that validation pseudo-boxes like.",
    "select": "Choose epoch and threshold by pseudo-boxes, and show what that costs.",
}
"""Sub-command -> one line; the module ``wsoltrain.cli.<name>`` holds it as `command`."""


class LazyGroup(click.Group):
    """A group that imports a sub-command only when it is called, so that help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, D102
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002, D102
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"wsoltrain.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: D102
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from wsolpipe.contract.nearest import unknown

            raise click.UsageError(unknown("command", args[0], COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002, D102
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wsolpipe")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(*, debug: bool) -> None:
    """Train localizers on the pseudo-labels of a wsolpipe store."""
    del debug  # for the help text: `main` takes it out of the words


def main(args: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    if "_WSOLTRAIN_COMPLETE" in os.environ:
        from wsolpipe.keys.bash import register

        register()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(call(cli, "wsoltrain", sys.argv[1:] if args is None else args))


if __name__ == "__main__":
    main()
