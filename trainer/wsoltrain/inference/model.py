"""A run's best weights, loaded for use as they were chosen, and the size of a network."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError, guess_path, shorten
from wsoltrain.methods.base import Method, Task
from wsoltrain.methods.registry import METHODS
from wsoltrain.training import checkpoint
from wsoltrain.training.recipe import Recipe, read_saved


@dataclass(frozen=True)
class Trained:
    """Content of a ``best-….safetensors``.

    Attributes
    ----------
    path : Path
        The file.
    model : Method
        In evaluation mode.
    recipe : Recipe
        With which it was trained.
    tau : float or None
        Threshold of the foreground map in 0..1, chosen on validation with these weights.
    class_names : list of str
        By label; numbers where the data set names none.
    epoch : int or None
        Of the localizer.
    annotator : str
        What chose epoch and threshold.
    """

    path: Path
    model: Method[Any]
    recipe: Recipe
    tau: float | None
    class_names: list[str]
    epoch: int | None
    annotator: str = ""


def load_trained(named: str, *, device: torch.device, anchors: str | None = None) -> Trained:
    """Load the weights of a run.

    Parameters
    ----------
    named : str
        A .safetensors file that ``wsoltrain fit`` wrote, or a run's folder with one ``best-….safetensors``.
    device : torch.device
        Device of the network.
    anchors : str, optional
        Classes to name instead of those of training; see `wsoltrain.methods.base.Method.new_classes`.

    Raises
    ------
    ConfigError
        If the folder holds none of them, or several, or the method cannot name other classes.
    DataError, WeightsError
        If the file is damaged, or the backbone's weights are missing.
    """
    path = checkpoint_file(named)
    state = checkpoint.state_of(path)
    if "classes" not in state:
        msg = f"{path} is for resuming training: it holds no chosen epoch and threshold"
        raise ConfigError(msg, hint="checkpoint=best-….safetensors of the same folder")
    recipe = read_saved(state["recipe"])
    artifacts = checkpoint.artifacts_of(path)
    names = state.get("class_names") or [str(number) for number in range(state["classes"])]
    if anchors is not None:
        files, names = METHODS.find(recipe.method).new_classes(anchors)
        artifacts |= files
    model = recipe.build(
        Task(len(names), recipe.size, recipe.seed, recipe.mean, recipe.std, artifacts=artifacts, device=device)
    )
    checkpoint.load(path, model)
    chosen = state.get("tau"), names, state.get("epoch"), state.get("annotator", "")
    return Trained(path, model.to(device).eval(), recipe, *chosen)


def checkpoint_file(named: str) -> Path:
    """File that is named, or the one ``best-….safetensors`` of the folder that is.

    Raises
    ------
    ConfigError
        If nothing has that name, or the folder holds none of them, or several.
    """
    path = Path(named)
    if not path.exists():
        msg = f"no checkpoint at {shorten(named)}{guess_path(path)}"
        raise ConfigError(msg, hint="name a run's folder, the out= of wsoltrain fit, or best-….safetensors in it")
    if not path.is_dir():
        return path
    found = sorted(path.glob("best-*.safetensors"))
    if not found:
        msg = f"{path} holds no best-….safetensors"
        raise ConfigError(msg, hint="name the folder of a finished training: the out= of wsoltrain fit")
    if len(found) > 1:
        msg = f"{path} holds {', '.join(each.name for each in found)}"
        raise ConfigError(msg, hint=f"name one of them, as in checkpoint={found[0]}")
    return found[0]


def complexity(model: Method[Any], size: int) -> dict[str, Any]:
    """Count parameters and multiply-accumulates of a prediction: ``heads`` (all but what is fixed) and ``total``.

    Parameters
    ----------
    model : Method
        Parts that its `fixed` names are counted in the total alone.
    size : int
        Side of the image, pixels.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _Predict(model)(image)
    model.train(training)
    counts = {name: sum(kinds.values()) / 2 for name, kinds in counter.get_flop_counts().items()}
    modules = dict(model.named_modules())
    parts = [prefix.rstrip(".") for prefix in model.fixed if prefix.rstrip(".") in modules]  # the others are buffers
    fixed_macs = sum(counts.get(name, 0.0) for name in {_counted(part, counts) for part in parts})
    parameters = {name: value.numel() for name, value in model.named_parameters()}
    fixed = sum(count for name, count in parameters.items() if name.startswith(model.fixed))
    total = sum(parameters.values())
    macs = counter.get_total_flops() / 2
    return {
        "heads": {"parameters": total - fixed, "macs": macs - fixed_macs},
        "total": {"parameters": total, "macs": macs},
    }


class _Predict(nn.Module):
    """A prediction as a module call, so that parts are counted under their names in the method."""

    def __init__(self, model: Method[Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.predict(image).maps


def _counted(part: str, counts: Container[str]) -> str:
    """Name under which a part was counted, or the nearest one that it is in."""
    root = f"{_Predict.__name__}.model"
    name = f"{root}.{part}"
    while name != root and name not in counts:
        name = name.rpartition(".")[0]
    return name
