"""The command ``wsolpipe``: each command is imported when it is called, so that help answers at once."""

from __future__ import annotations

import gc
import os
import sys

import click

from wsolpipe import __version__
from wsolpipe.keys.console import call
from wsolpipe.keys.program import Program, register_bash

COMMANDS = {
    "init": "Look at a folder of images and write the YAML that describes it.",
    "demo": "Copy the demo, to try every command offline.",
    "check": "Look for faults of a data set that would spoil training.",
    "run": "Run stages, and whatever they need that is missing.",
    "plan": "Say what would run and why.",
    "stages": "List the stages and what their parameters mean.",
    "status": "Show the progress of every stage of a store, from any shell.",
    "verify": "Read a store again and compare it with its records.",
    "repair": "Remove or set aside what is damaged, so that run makes it again.",
    "ls": "List what a store holds and who refers to it.",
    "gc": "Show or remove results that nothing refers to.",
    "push": "Copy finished shards to another store.",
    "pull": "Copy finished shards from another store.",
    "publish": "Push labels with a card, croissant.json and checksums.",
    "explain": "Explain why two keys of a stage differ.",
    "adopt": "Accept shards of an older key, with the reason.",
    "quarantine": "List, retry or drop quarantined rows.",
    "eval": "Score maps or boxes against ground truth.",
    "report": "Write the HTML report.",
    "serve": "Show the report at an address of this machine and keep corrections made in it.",
    "export": "Write boxes, masks or maps in a format that other tools read.",
    "import": "Take boxes that people drew or corrected into the store.",
    "doctor": "Check this machine and a store.",
}
#: Commands that share a module, whose name is not theirs.
HOMES = {
    **dict.fromkeys(("plan", "stages"), "run"),
    **dict.fromkeys(("push", "pull", "publish"), "transfer"),
    **dict.fromkeys(("ls", "gc", "explain", "adopt"), "store"),
    **dict.fromkeys(("status", "verify", "repair", "quarantine", "doctor"), "health"),
    "demo": "init",
    "import": "export",
    "serve": "report",
}

FIRST = """\
From images and their classes to boxes. A first hour:

  wsolpipe init FOLDER                                  looks at your images and writes FOLDER.yaml
  wsolpipe check dataset=FOLDER.yaml                    looks for faults that would spoil every label
  wsolpipe run stage=proposals dataset=FOLDER.yaml      maps, then boxes; the same command resumes it
  wsolpipe report dataset=FOLDER.yaml                   one page to look at
  wsolpipe export stage=proposals dataset=FOLDER.yaml format=coco out=boxes

Without images: wsolpipe demo. All commands: wsolpipe --help."""


@click.group(
    cls=Program,
    listed=COMMANDS,
    package="wsolpipe.cli",
    homes=HOMES,
    first=FIRST,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="wsolpipe")
def cli() -> None:
    """Pseudo-labels for weakly supervised object localization.

    \b
    wsolpipe run stage=proposals dataset=demo
    wsolpipe run stage=proposals dataset=mine.yaml cls_maps.batch=64 workers=2
    wsolpipe status

    Words are key=value: keys of the run (store=, split=, workers= …) or stage.parameter=value. wsolpipe run
    stage=NAME --help lists the parameters of a stage.
    """


def main() -> None:
    """Entry point."""
    gc.set_threshold(10_000, 20, 20)  # thousands of small records are read at a time, and none of them in a circle
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look through every installed package
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own keeps what it once took: memory would grow
    if "_WSOLPIPE_COMPLETE" in os.environ:
        register_bash()
    sys.exit(call(cli, "wsolpipe", sys.argv[1:]))


if __name__ == "__main__":
    main()
