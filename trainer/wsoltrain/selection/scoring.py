"""Calls of the pipeline's commands, and networks with drawn weights."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.evaluate.tau import BEST, Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsoltrain.training.recipe import Recipe


TEXT_WIDTH = 512
"""Length of CLIP's text vectors (ViT-B)."""
PIPELINE = "wsolpipe.cli.main"
"""Module of the command; a process of its own, since the trainer imports no stage."""


def score_stage(words: Sequence[str]) -> dict[str, Any]:
    """Score a stage by the words of ``wsolpipe eval``: ``figures``, ``intervals``, ``rows`` and ``threshold``.

    Raises
    ------
    RunFailed
        If that command fails; says why.
    """
    found = call_pipeline("eval", [*words, "interval=true"])
    rows = found.get("rows_scored") or found.get("rows")
    threshold = Threshold()
    if "tau_from" in found:
        own = Threshold(found["tau"], found["tau_from"], found["oracle"])
        threshold = BEST if found["tau_from"] == "these images" else own
    return {"figures": found, "intervals": found.get("intervals", {}), "rows": rows, "threshold": threshold}


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


def build_bare(recipe: Recipe, classes: int, device_name: str, *, classifier: str = "resnet50") -> Any:
    """Build the network of a recipe with drawn weights, in evaluation mode; what it reads of a store is drawn too.

    Parameters
    ----------
    classifier : str
        timm name of the classifier, for methods that read one.

    Raises
    ------
    ConfigError
        If the method reads an artifact that cannot be drawn.
    """
    import torch

    from wsoltrain.methods.base import Task

    bare = recipe.model_copy(update={"weights": None} if "weights" in type(recipe).model_fields else {})
    device = torch.device(device_name)
    wanted = {file.stage for file in recipe.reads().artifacts}
    files = {name: data for stage in wanted for name, data in _drawn(stage, classes, classifier, recipe.size).items()}
    task = Task(classes, recipe.size, recipe.seed, recipe.mean, recipe.std, artifacts=files, device=device)
    return bare.build(task).to(device).eval()


def _drawn(stage: str, classes: int, classifier: str, size: int) -> dict[str, bytes]:
    """Draw the files of an artifact, of the shapes that the real ones have."""
    import timm
    import torch
    from safetensors.torch import save

    from wsolpipe.networks.classifier import RECORD_KEY, WEIGHTS_FILE

    if stage == "classifier":
        tensors = timm.create_model(classifier, pretrained=False, num_classes=classes).state_dict()
        record = {"model": classifier, "outputs": classes, "size": size, "mean": [0.5] * 3, "std": [0.5] * 3}
        return {f"{stage}/{WEIGHTS_FILE}": save(tensors, {RECORD_KEY: json.dumps(record)})}
    if stage == "text_anchors":
        anchors = torch.nn.functional.normalize(torch.randn(classes, TEXT_WIDTH), dim=1)
        names = [str(number) for number in range(classes)]
        about = {"names": names, "labels": list(range(classes)), "orthogonal": "none"}
        tensors = {"plain": anchors, "anchors": anchors.clone()}
        return {f"{stage}/anchors.safetensors": save(tensors), f"{stage}/anchors.json": json.dumps(about).encode()}
    msg = f"the network is built of the artifact {stage}, which is made from data"
    raise ConfigError(msg)
