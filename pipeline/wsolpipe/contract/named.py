"""Named implementations, built in or declared by installed packages, all found in one way; and packages of extras."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from wsolpipe.contract.errors import ConfigError, unknown

#: Extra of wsolpipe -> names under which its packages are imported.
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


T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Implementations of one kind by name.

    A package of its own adds one by an entry point of `group`, whose value is ``package.module:attribute`` as for the
    built-in ones.

    Attributes
    ----------
    kind : str
        What messages call one of them, such as ``layout``.
    group : str
        Group of entry points in which other packages declare theirs, such as ``wsolpipe.layouts``.
    builtins : mapping of str to str
        Name -> ``package.module:attribute``; nothing is imported before it is used.
    base : str
        ``package.module:Class`` of which each must be a subclass or an instance; empty where any object will do.
    """

    kind: str
    group: str
    builtins: Mapping[str, str]
    base: str = ""

    def names(self) -> list[str]:
        """All names in alphabetical order."""
        return sorted({*self.builtins, *(point.name for point in entry_points(group=self.group))})

    def __contains__(self, name: str) -> bool:
        return name in self.builtins or any(point.name == name for point in entry_points(group=self.group))

    def find(self, name: str) -> T:
        """Import the implementation of a name; a built-in one goes before one of another package.

        Raises
        ------
        ConfigError
            If nothing has that name (names the nearest) or two packages declare it, or if it cannot be imported or is
            not of `base`.
        """
        target = self.builtins.get(name) or self._declared(name)
        found: T = load(self.kind, name, target, hint="install or repair the package that declares it")
        if self.base and not _is_of(found, load(self.kind, name, self.base)):
            msg = f"{self.kind} {name} ({target}) is not of {self.base.replace(':', '.')}"
            raise ConfigError(msg, hint=f"the entry point {name} of {self.group} names another object")
        return found

    def _declared(self, name: str) -> str:
        declared = sorted({point.value for point in entry_points(group=self.group) if point.name == name})
        if not declared:
            raise ConfigError(unknown(self.kind, name, self.names()))
        if len(declared) > 1:
            msg = f"{self.kind} {name} is declared by {' and by '.join(declared)}"
            raise ConfigError(msg, hint="uninstall one of the two packages")
        return declared[0]


def load(kind: str, name: str, target: str, *, hint: str | None = None) -> Any:
    """Import ``package.module:attribute``.

    Raises
    ------
    ConfigError
        If the module, the attribute or a package that they need is missing.
    """
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ImportError) and (known := missing_package(error)):
            raise known from error
        msg = f"{kind} {name} ({target}) cannot be imported: {error}"
        raise ConfigError(msg, hint=hint) from error


def _is_of(found: Any, base: type) -> bool:
    return issubclass(found, base) if isinstance(found, type) else isinstance(found, base)
