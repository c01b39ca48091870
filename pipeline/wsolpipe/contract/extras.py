"""Packages that are not in the base installation, and the command that installs each."""

from __future__ import annotations

from wsolpipe.contract.errors import ConfigError

EXTRAS = {
    "pipeline": ("torch", "torchvision", "timm", "safetensors", "numba", "cv2", "onnxruntime", "huggingface_hub",
                 "distributed", "dask", "open_clip", "transformers"),
    "dashboard": ("bokeh",),
    "train": ("optuna", "onnx", "onnxscript"),
    "video": ("av",),
    "track": ("tensorboard", "wandb"),
    "report": ("jinja2", "markupsafe"),
    "s3": ("obstore",),
}  # fmt: skip
"""Extra of wsolpipe -> names under which its packages are imported."""


def command_for(package: str) -> str | None:
    """Command that installs a package by its import name; None for one that no extra has."""
    for extra, packages in EXTRAS.items():
        if package in packages:
            return f"pip install 'wsolpipe[{extra}]'"
    return None


def missing_package(error: ImportError) -> ConfigError | None:
    """The error for a user who has not installed an extra; None if something else could not be imported."""
    package = (error.name or "").partition(".")[0]
    command = command_for(package)
    return ConfigError(f"this needs the package {package}, which is not installed", hint=command) if command else None
