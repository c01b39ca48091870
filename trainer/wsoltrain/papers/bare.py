"""Networks of recipes with drawn weights: their parameters and their speed, before anything is trained."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, WsolError

if TYPE_CHECKING:
    from wsoltrain.training.recipe import Recipe

#: Length of CLIP's text vectors (ViT-B).
TEXT_WIDTH = 512
#: Images before the clock runs, and those that are timed.
WARM, TIMES = 3, {"cuda": 1000, "cpu": 20}
#: Images of a measurement of a training.
IMAGES = {"cuda": 32, "cpu": 2}
#: A step of training in forward passes: the backward pass costs about two.
STEP = 3.0


def build_bare(recipe: Recipe, classes: int, device_name: str, *, classifier: str = "resnet50") -> Any:
    """Build the network of a recipe with drawn weights, in evaluation mode; inputs from a store are drawn too.

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


def measure_network(recipe: Recipe, classes: int, device_name: str) -> dict[str, Any]:
    """Return parameters of a recipe's network and milliseconds an image, alone in a batch; no weights are read.

    Raises
    ------
    WsolError
        If the network cannot be built without a store.
    """
    import torch

    from wsoltrain.inference.model import complexity

    model = build_bare(recipe, classes, device_name)
    image = torch.zeros(1, 3, recipe.size, recipe.size, device=device_name)
    seconds = [_forward(model, image) for _ in range(WARM + TIMES[torch.device(device_name).type])]
    middle = sorted(seconds[WARM:])[len(seconds[WARM:]) // 2]
    counts = complexity(model, recipe.size)["total"]
    return {"figures": {"parameters": counts["parameters"], "milliseconds": 1e3 * middle}}


def training_rate(recipe: Recipe, device_name: str) -> tuple[float | None, str]:
    """Return seconds an image of training, from forward passes with drawn weights, and how they were measured."""
    import torch

    kind = torch.device(device_name).type
    try:
        model = build_bare(recipe, 200, device_name)
    except WsolError as error:
        return None, f"not measured: {error.message.splitlines()[0]}"
    images = torch.randn(IMAGES[kind], 3, recipe.size, recipe.size, device=device_name)
    _, seconds = _forward(model, images), _forward(model, images)  # the second pass counts
    note = f"{STEP:g} forward passes on {device_name}; loading of images is not in it"
    return STEP * seconds / len(images), note


def _forward(model: Any, images: Any) -> float:
    """Return the seconds of a forward pass."""
    import torch

    with torch.no_grad():
        began = time.perf_counter()
        model.predict(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began
