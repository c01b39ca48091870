"""A trained localizer as programs that need no code of ours: torch.export and ONNX, checked against the network."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from wsolpipe.contract.errors import ConfigError, RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wsoltrain.inference.model import Trained
    from wsoltrain.methods.localizers import Localizer

FORMATS = ("torch", "onnx")
INPUT, MAP, CLASSES = "image", "map", "classes"
TOLERANCE = 1e-3
"""Largest difference of maps and probabilities, both in 0..1, that is taken for rounding."""
CHECKED_BATCHES = (1, 3)


class Exported(nn.Module):
    """What is written: images to foreground maps and class probabilities.

    Parameters
    ----------
    model : Localizer
        In evaluation mode.
    classes : bool
        Whether it has a class head.
    """

    def __init__(self, model: Localizer, *, classes: bool) -> None:
        super().__init__()
        self.model = model
        self.classes = classes

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Normalised images [B, 3, S, S] -> foreground [B, S, S] in 0..1, and probabilities [B, classes]."""
        found = self.model(image)
        foreground = found.logits.softmax(1)[:, 1]
        return (foreground, found.classes.softmax(1)) if self.classes else (foreground,)


def export(trained: Trained, out: Path, *, formats: tuple[str, ...] = FORMATS, seed: int = 0) -> dict[str, Any]:
    """Write a localizer and what its user must know, and compare what was written with the network.

    Parameters
    ----------
    trained : Trained
        On the CPU.
    out : Path
        Folder: ``localizer.pt2``, ``localizer.onnx`` and ``localizer.json``.
    formats : tuple of str
        Of `FORMATS`.
    seed : int
        Of the random images that are compared.

    Returns
    -------
    dict
        What ``localizer.json`` holds; ``differences`` the largest one of each format over `CHECKED_BATCHES`.

    Raises
    ------
    ConfigError
        If a package is missing.
    RunFailed
        If what was written says something else than the network by more than `TOLERANCE`; its file is removed.
    """
    size = trained.recipe.size
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(count, 3, size, size, generator=generator) for count in CHECKED_BATCHES]
    network = Exported(trained.model, classes=trained.model.has_head).eval()
    with torch.no_grad():
        wanted = [[part.numpy() for part in network(image)] for image in images]
    out.mkdir(parents=True, exist_ok=True)
    with _quiet():
        program = torch.export.export(network, (images[-1],), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}})
    files, differences = {}, {}
    for kind in formats:
        write = {"torch": _write_torch, "onnx": _write_onnx}[kind]
        path = out / {"torch": "localizer.pt2", "onnx": "localizer.onnx"}[kind]
        ask = write(program, path, network)
        got = [ask(image) for image in images]
        difference = max(
            float(np.abs(own - theirs).max())
            for both in zip(wanted, got, strict=True)
            for own, theirs in zip(*both, strict=True)
        )
        if not difference <= TOLERANCE:
            path.unlink()
            msg = f"{path} differs from the network by {difference:.3g} on random images"
            raise RunFailed(msg, hint=f"formats={','.join(other for other in FORMATS if other != kind)}")
        files[kind], differences[kind] = path.name, difference
    told = _card(trained) | {"files": files, "differences": differences}
    (out / "localizer.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def _card(trained: Trained) -> dict[str, Any]:
    """What must be known to use the files."""
    recipe = trained.recipe
    outputs = {MAP: ["batch", recipe.size, recipe.size]}
    if trained.model.has_head:
        outputs[CLASSES] = ["batch", len(trained.class_names)]
    return {
        "checkpoint": trained.path.name,
        "model": recipe.model,
        "backbone": recipe.backbone,
        "input": {INPUT: ["batch", 3, recipe.size, recipe.size]},
        "outputs": outputs,
        "size": recipe.size,
        "resize": "squash the whole picture, bilinear with antialias",
        "colour": "RGB, (value / 255 - mean) / std",
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "tau": trained.tau,
        "classes": trained.class_names,
        "epoch": trained.epoch,
    }


def _write_torch(program: Any, path: Path, network: Exported) -> Callable[[Tensor], list[Any]]:
    """Write a program of torch.export; how to ask what was written."""
    del network
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()

    def ask(image: Tensor) -> list[Any]:
        with torch.no_grad():
            return [part.numpy() for part in loaded(image)]

    return ask


def _write_onnx(program: Any, path: Path, network: Exported) -> Callable[[Tensor], list[Any]]:
    """Write ONNX, weights inside; how to ask what was written."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it
    except ImportError as error:
        msg = f"ONNX needs the package {error.name}"
        raise ConfigError(msg, hint=f"pip install onnx onnxscript onnxruntime, or formats={FORMATS[0]}") from error
    names = [MAP, CLASSES] if network.classes else [MAP]
    with _quiet():
        torch.onnx.export(
            program, (), path, dynamo=True, external_data=False, input_names=[INPUT], output_names=names, verbose=False
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def ask(image: Tensor) -> list[Any]:
        found: list[Any] = session.run(names, {INPUT: image.numpy()})
        return found

    return ask


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' notes about their own parts from the user."""
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    loud.setLevel(level)
