"""Methods by name: those of this package, and those that other packages declare as entry points."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.nearest import unknown

if TYPE_CHECKING:
    from wsoltrain.methods.base import Method

GROUP = "wsoltrain.methods"
"""Entry points of other packages: name of the method -> ``package.module:Class``."""

METHODS = {
    "acol": "wsoltrain.methods.acol:Acol",
    "adl": "wsoltrain.methods.adl:Adl",
    "cam": "wsoltrain.methods.cam:Cam",
    "cutmix": "wsoltrain.methods.cutmix:CutMix",
    "dino": "wsoltrain.methods.dino:Dino",
    "dips": "wsoltrain.methods.dips:Dips",
    "dips_workshop": "wsoltrain.methods.dips_workshop:DipsWorkshop",
    "fcam": "wsoltrain.methods.fcam:FCam",
    "has": "wsoltrain.methods.has:Has",
    "molt": "wsoltrain.methods.molt:Molt",
    "nl_ccam": "wsoltrain.methods.nl_ccam:NlCcam",
    "sat": "wsoltrain.methods.sat:Sat",
    "scm": "wsoltrain.methods.scm:Scm",
    "spg": "wsoltrain.methods.spg:Spg",
    "tedloc": "wsoltrain.methods.tedloc:TedLoc",
    "trcam": "wsoltrain.methods.trcam:TrCam",
    "trcam_attention": "wsoltrain.methods.trcam:TrCamAttention",
    "ts_cam": "wsoltrain.methods.ts_cam:TsCam",
}


def known_methods() -> list[str]:
    """Names of all methods that can be trained here."""
    return sorted({*METHODS, *(point.name for point in entry_points(group=GROUP))})


def find_method(name: str) -> type[Method[Any]]:
    """Return the class of a method.

    Raises
    ------
    ConfigError
        If no method has that name, or the package that declares it cannot be imported.
    """
    from wsoltrain.methods.base import Method

    target = METHODS.get(name)
    if target is None:
        declared = {point.name: point.value for point in entry_points(group=GROUP)}
        if name not in declared:
            raise ConfigError(unknown("method", name, known_methods()))
        target = declared[name]
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        msg = f"method {name} ({target}) cannot be imported: {error}"
        raise ConfigError(msg, hint="install or repair the package that declares it") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        msg = f"method {name} ({target}) is not a subclass of wsoltrain.methods.base.Method"
        raise ConfigError(msg)
    return found
