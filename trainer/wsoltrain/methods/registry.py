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
        "acol": "wsoltrain.methods.branches:Acol",
        "adl": "wsoltrain.methods.augmented_cams:Adl",
        "cam": "wsoltrain.methods.cam:Cam",
        "cutmix": "wsoltrain.methods.augmented_cams:CutMix",
        "dino": "wsoltrain.methods.dino:Dino",
        "dips": "wsoltrain.methods.dips:Dips",
        "dips_workshop": "wsoltrain.methods.dips:DipsWorkshop",
        "fcam": "wsoltrain.methods.fcam:FCam",
        "has": "wsoltrain.methods.augmented_cams:Has",
        "molt": "wsoltrain.methods.ts_cam:Molt",
        "nl_ccam": "wsoltrain.methods.cam:NlCcam",
        "sat": "wsoltrain.methods.sat:Sat",
        "scm": "wsoltrain.methods.ts_cam:Scm",
        "spg": "wsoltrain.methods.branches:Spg",
        "tedloc": "wsoltrain.methods.tedloc:TedLoc",
        "trcam": "wsoltrain.methods.dips:TrCam",
        "trcam_attention": "wsoltrain.methods.dips:TrCamAttention",
        "ts_cam": "wsoltrain.methods.ts_cam:TsCam",
    },
    base="wsoltrain.methods.base:Method",
)
