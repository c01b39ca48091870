"""Training methods by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.contract.named import Registry

if TYPE_CHECKING:
    from wsoltrain.methods.base import Method

METHODS: Registry[type[Method[Any]]] = Registry(
    "method",
    "wsoltrain.methods",
    {
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
    },
    base="wsoltrain.methods.base:Method",
)
