"""Calls of the pipeline's commands, and networks with drawn weights."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsoltrain.training.recipe import Recipe


PIPELINE = "wsolpipe.cli.main"
"""Module of the command; a process of its own, since the trainer imports no stage."""


def score_stage(words: Sequence[str]) -> dict[str, Any]:
    """Score a stage by the words of ``wsolpipe eval``: ``figures``, ``intervals`` and ``rows``.

    Raises
    ------
    RunFailed
        If that command fails; says why.
    """
    found = call_pipeline("eval", [*words, "interval=true"])
    rows = found.get("rows_scored") or found.get("rows")
    return {"figures": found, "intervals": found.get("intervals", {}), "rows": rows}


def call_pipeline(command: str, words: Sequence[str]) -> Any:
    """What ``wsolpipe COMMAND WORDS --json`` prints; its messages pass through.

    Raises
    ------
    RunFailed
        If it fails, with its last message.
    """
    called = [sys.executable, "-m", PIPELINE, command, *words, "--json"]
    last = ""
    with subprocess.Popen(called, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            told = line.strip().removeprefix("wsolpipe: ").removeprefix("error: ")
            last = told if "resume with" not in told and not told.startswith("->") and told else last
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode:
        raise RunFailed(last or f"wsolpipe {command} ended with {process.returncode}")
    return json.loads(printed)


def build_bare(recipe: Recipe, classes: int, device_name: str) -> Any:
    """The network of a recipe with drawn weights, in evaluation mode."""
    import torch

    from wsoltrain.methods.base import Task

    bare = recipe.model_copy(update={"weights": None} if "weights" in type(recipe).model_fields else {})
    device = torch.device(device_name)
    task = Task(classes, recipe.size, recipe.seed, recipe.mean, recipe.std, device=device)
    return bare.build(task).to(device).eval()
