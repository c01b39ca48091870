"""wsolpipe: pseudo-labels for weakly supervised object localization, made once and shared."""

from __future__ import annotations

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Store


def open_store(url: str) -> Store:
    """Open a store for reading: ``open_store(url)[dataset][split][stage]`` gives named arrays by row."""
    from wsolpipe.contract.reader import open_store as opener

    return opener(url)


def __dir__() -> list[str]:
    return ["__version__", "metrics", "open_store"]


def __getattr__(name: str) -> Any:
    if name == "metrics":
        import importlib

        return importlib.import_module("wsolpipe.metrics")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
