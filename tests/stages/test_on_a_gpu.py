"""Stages with a network on a virtual GPU: what the CPU makes, few waits and copies, and faults that blame no row."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.torch import save_file

from clip_oracle import random_state
from stages import (
    test_cams,
    test_clip_cams,
    test_cls_maps,
    test_proposals,
    test_refine,
    test_regions,
    test_sam_boxes,
    test_segments,
    test_text_maps,
    test_val_boxes,
)
from stages.drawn import draw
from tiny_models import save_clipseg, save_sam
from virtual_device import virtual_gpu
from wsolpipe.contract.schema import Status
from wsolpipe.engine.isolation import process_guarded
from wsolpipe.networks.devices import is_device_fault
from wsolpipe.stages.base import Context, Upstream
from wsolpipe.stages.clip_masks import ClipMasks
from wsolpipe.stages.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wsolpipe.stages.base import Rows

ROWS = 8
"""Two batches of four."""
MOST = {
    "cls_maps": (0, 4, 2), "cams": (0, 4, 4), "cams by gradients": (0, 4, 4), "proposals": (0, 290, 96),
    "clip_cams": (0, 9, 4), "clip_masks": (0, 16, 8), "clipseg_cams": (8, 10, 2), "text_maps": (0, 9, 2),
    "sam_boxes": (0, 64, 16), "regions": (16, 51, 16), "val_boxes": (0, 75, 24), "refine by the CRF": (0, 24, 16),
    "segments by deep clusters": (12, 12, 1),
}  # fmt: skip
"""Waits, copies to the device and copies from it that these rows may cost: as few as when this was written."""


@dataclass(frozen=True)
class Files:
    """Weights that the stages load."""

    folder: Path
    classifier: Path
    clip: str
    clipseg: Path
    sam: Path
    text: str


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    (folder / "classifier").mkdir()
    test_cams.write(folder / "classifier", test_cams.build("resnet10t", test_cams.SMALL, outputs=4, size=64))
    save_file(random_state(width=64, layers=3, seed=4), folder / "clip.safetensors")
    (folder / "tiny.json").write_text(test_text_maps.json.dumps(test_text_maps.CONFIG))
    return Files(
        folder, folder / "classifier", str(folder / "clip.safetensors"), save_clipseg(folder / "clipseg"),
        save_sam(folder / "sam"), str(folder / "tiny.json"),
    )  # fmt: skip


def ok() -> np.ndarray[Any, Any]:
    return np.full(ROWS, Status.OK, np.uint8)


def maps_of(count: int, side: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 256, (ROWS, count, side, side)).astype(np.uint8)


def boxes() -> dict[str, Upstream]:
    found = np.tile(np.float32([[5, 6, 40, 50], [20, 10, 55, 58]]), (ROWS, 1, 1))
    found = np.concatenate([found, np.full((ROWS, 1, 4), np.nan, np.float32)], 1)
    source = np.zeros((ROWS, 3), np.int8)
    return {"proposals": Upstream({"boxes": found, "count": ok() * 0 + 2, "source": source}, ok(), {})}


def ranged(count: int, side: int) -> dict[str, np.ndarray[Any, Any]]:
    limits = np.tile(np.float32([-2, 6]), (ROWS, count, 1))
    return {"maps": maps_of(count, side), "range": limits, "class_ids": np.zeros((ROWS, count), np.int32)}


def regions() -> dict[str, Upstream]:
    corners = np.random.default_rng(1).integers(0, 30, (ROWS, 24, 2))
    found = np.concatenate([corners, corners + 25], 2).astype(np.float32)
    scores = np.random.default_rng(2).random((ROWS, 24)).astype(np.float32)
    made = {"boxes": found, "scores": scores, "count": np.full(ROWS, 24, np.int16)}
    cams = Upstream(ranged(1, 4), ok(), {"slots": 1})
    return {"regions": Upstream(made, ok(), {"method": "selective_search"}), "cams": cams}


def refined(_: Files, **given: Any) -> tuple[Any, dict[str, Upstream]]:
    labels = np.random.default_rng(5).integers(0, 9, (ROWS, 14, 14)).astype(np.uint16).repeat(4, 1).repeat(4, 2)
    side = test_refine.SIDE
    labels = labels[:, :side, :side]
    stage = test_refine.stage(**given)
    segments = Upstream({"labels": labels, "count": ok()}, ok(), {})
    return stage, {"cams": Upstream(ranged(2, 7), ok(), {}), "segments": segments}


def masks(_: Files) -> tuple[Any, dict[str, Upstream]]:
    made = ClipMasks(load_registry().params("clip_masks", {"size": 32}), Context(dataset="d"))
    return made, {"clip_cams": Upstream(ranged(2, 8), ok(), {})}


Case = tuple[Any, dict[str, Upstream]]
STAGES: dict[str, Callable[[Files], Case]] = {
    "cls_maps": lambda _: (test_cls_maps.stage(), {}),
    "cams": lambda files: (test_cams.stage(files.classifier, classes=4), {}),
    "cams by gradients": lambda files: (test_cams.stage(files.classifier, classes=4, methods=["gradcam"]), {}),
    "proposals": lambda files: (
        test_proposals.stage(files.classifier, batch=4),
        {"cls_maps": Upstream({"maps": maps_of(6, 14)}, ok(), {})},
    ),
    "clip_cams": lambda files: (test_clip_cams.stage(files.clip, names=test_text_maps.NAMES, classes=4), {}),
    "clip_masks": masks,
    "clipseg_cams": lambda files: (test_text_maps.clipseg(files.clipseg), {}),
    "text_maps": lambda files: (test_text_maps.text_maps(files.text), {}),
    "sam_boxes": lambda files: (test_sam_boxes.stage(files.sam), boxes()),
    "regions": lambda _: (test_regions.stage(method="rpn", model=test_regions.RPN, weights="random:0", top_n=8), {}),
    "val_boxes": lambda files: (test_val_boxes.stage(files.classifier, batch=8, images=4), regions()),
    "refine by the CRF": lambda files: refined(files, by="crf"),
    "segments by deep clusters": lambda _: (test_segments.stage(**test_segments.SMALL_DIC), {}),
}
OTHERWISE = {"segments by deep clusters", "regions"}
"""Stages of which a GPU makes other results: groups of networks, and random weights drawn anew."""


def rows() -> Rows:
    return draw(ROWS, seed=5).rows(threads=1)


@pytest.fixture(scope="module", params=STAGES)
def done(request, files):
    """A stage of a GPU, what it made of the rows there, what it asked of the device, and what the CPU makes."""
    stage, inputs = STAGES[request.param](files)
    wanted = stage.process(rows(), inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "device", property(lambda self: "cuda"))
        with virtual_gpu() as counts:
            stage, inputs = STAGES[request.param](files)
            counts.clear()
            made = stage.process(rows(), inputs)
            asked = counts.totals()
            yield SimpleNamespace(
                name=request.param, stage=stage, inputs=inputs, made=made, wanted=wanted, asked=asked, counts=counts
            )


def test_a_stage_makes_on_a_gpu_what_it_makes_on_the_cpu(done):
    """Had it mixed devices, it would have raised."""
    for name, values in done.wanted.items():
        if done.name not in OTHERWISE:
            np.testing.assert_allclose(done.made[name], values, rtol=1e-4, atol=1.01, err_msg=name)
        assert done.made[name].shape == values.shape


def test_a_stage_waits_and_copies_no_more_often_than_it_did(done):
    most = dict(zip(("waits", "up", "down"), MOST[done.name], strict=True))
    assert all(done.asked[kind] <= bound for kind, bound in most.items()), (done.asked, most)


@pytest.mark.parametrize("after", [0, 40])
def test_a_fault_of_the_gpu_ends_every_stage_and_quarantines_no_row(done, after):
    done.counts.fails_in = after
    try:
        seen = rows()
        with pytest.raises(Exception, match="CUDA error") as raised:
            process_guarded(done.stage, seen, done.inputs, done.stage.arrays())
    finally:
        done.counts.fails_in = None
    assert is_device_fault(raised.value)
    assert not seen.reasons
    assert (seen.status != Status.QUARANTINED).all()
