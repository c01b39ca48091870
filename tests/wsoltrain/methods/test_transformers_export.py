"""Transformers of TS-CAM, SCM, SAT and MOLT are one graph of operations for any number of images."""

from __future__ import annotations

import pytest
import torch

from transformer_oracles import SIZE, made, spread
from wsoltrain.inference.export import INPUT, Exported


@pytest.mark.parametrize(
    ("method", "keys"),
    [("ts_cam", {}), ("scm", {}), ("sat", {}), ("molt", {"sizes": (24, 32)})],
    ids=lambda v: str(v)[:6],
)
def test_an_exported_program_gives_the_same_maps_for_any_batch(method, keys):
    model = made(method, **keys).eval()
    for net in model.nets if method == "molt" else [model.net]:
        spread(net)
    network = Exported(model)
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    program = torch.export.export(network, (torch.randn(2, 3, SIZE, SIZE),), dynamic_shapes=shapes).module()
    for count in (1, 3):
        images = torch.randn(count, 3, SIZE, SIZE)
        for own, theirs in zip(network(images), program(images), strict=True):
            torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)
