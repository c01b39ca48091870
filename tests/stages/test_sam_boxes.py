"""Boxes made tight by a SAM with random weights: its own forward, geometry, kept boxes, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.sam.image_processing_sam import SamImageProcessor

from stages.drawn import draw
from tiny_models import SAM_SIDE, save_sam
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.contract.schema import ArraySpec, Status, boxes_spec
from wsolpipe.models.saved_models import load_sam
from wsolpipe.models.weight_sources import resolve
from wsolpipe.stages.base import Context, Upstream
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.sam_boxes import SamBoxes

SIDE, COUNT, SLOTS = SAM_SIDE, 5, 3
NOT_BOXES = {"maps": ArraySpec(dtype="uint8", shape=(1, 7, 7))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_sam(tmp_path_factory.mktemp("sam") / "tiny")


@pytest.fixture
def inputs():
    boxes = np.full((COUNT, SLOTS, 4), np.nan, np.float32)
    boxes[:, 0], boxes[:3, 2] = [5, 6, 40, 50], [20, 10, 55, 58]
    boxes[3] = np.nan
    count = np.isfinite(boxes[..., 0]).sum(1).astype(np.uint8)
    source = np.arange(COUNT * SLOTS, dtype=np.int8).reshape(COUNT, SLOTS)
    status = np.ones(COUNT, np.uint8)
    return {"proposals": Upstream({"boxes": boxes, "count": count, "source": source}, status, {})}


def stage(folder, held=None, **given):
    params = load_registry().params("sam_boxes", {"weights": str(folder)} | given)
    known = {"boxes": boxes_spec(SLOTS, "boxes"), "source": ArraySpec(dtype="int8", shape=(SLOTS,), fill=-1)}
    view = SimpleNamespace(stage="proposals", manifest=SimpleNamespace(arrays=held or known))
    weights = {name: resolve(spec) for name, spec in SamBoxes.weights_needed(params).items()}
    made = SamBoxes(params, Context(dataset="drawn", upstream={"proposals": view}, weights=weights))
    made.setup()
    return made


@pytest.mark.parametrize("several", [False, True])
def test_masks_are_those_of_transformers_own_steps(folder, several):
    sam, processor = load_sam(folder, name="tiny"), SamImageProcessor(
        size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (48, SIDE, 3)).astype(np.uint8)
    boxes = np.array([[3, 4, 40, 30], [20, 10, 60, 45]], np.float64)
    logits, fits = sam.masks(pixels, boxes, several=several)
    given = processor(pixels, return_tensors="pt")
    with torch.no_grad():
        found = sam.model(
            pixel_values=given["pixel_values"], input_boxes=torch.tensor(boxes[None], dtype=torch.float32),
            multimask_output=several,
        )  # fmt: skip
    masks = processor.post_process_masks(found.pred_masks, given["original_sizes"], given["reshaped_input_sizes"],
                                         binarize=False)[0]  # fmt: skip
    best = found.iou_scores[0].argmax(1)
    assert found.iou_scores.shape[-1] == (3 if several else 1)
    for number, chosen in enumerate(best):
        np.testing.assert_allclose(logits[number], masks[number, chosen], atol=1e-4)
        assert fits[number] == pytest.approx(float(found.iou_scores[0, number, chosen]), abs=1e-5)
    assert logits.shape == (2, 48, SIDE)
    assert np.std(logits) > 1e-3
    assert np.abs(logits[0] - logits[1]).max() > 1e-3  # the box is read


def test_each_box_is_that_of_its_mask_or_stays_as_it_was(folder, inputs, monkeypatch):
    made, drawn = stage(folder), draw(COUNT)
    rows = drawn.rows(bad=(4,))
    sizes = [image.shape[:2] for image in drawn.images]

    def masks(pixels, boxes, *, several):
        """The left half of the first box, nothing of the others."""
        assert not several
        logits = np.full((len(boxes), *pixels.shape[:2]), -1, np.float32)
        x0, y0, x1, y1 = boxes[0].round().astype(int)
        logits[0, y0:y1, x0 : (x0 + x1) // 2] = 1
        return logits, boxes[:, 0].astype(np.float32)

    monkeypatch.setattr(made.sam, "masks", masks)
    monkeypatch.setattr(made, "params", made.params.model_copy(update={"min_iou": 0.3}))
    given = inputs["proposals"].arrays
    arrays = made.process(rows, inputs)
    assert rows.status.tolist() == [1, 1, 1, 1, Status.QUARANTINED]
    height, width = sizes[0]
    tight = arrays["boxes"][0, 0]
    step = max(height, width) / SIDE
    np.testing.assert_allclose(tight, [5, 6, 22.5, 50], atol=step)
    assert tight[2] < 30
    np.testing.assert_array_equal(arrays["boxes"][:3, 2], given["boxes"][:3, 2])  # empty masks
    assert arrays["moved"].tolist() == [[1, 0, 0]] * 3 + [[0, 0, 0]] * 2
    assert np.isnan(arrays["boxes"][3]).all()
    np.testing.assert_array_equal(arrays["source"][:4], given["source"][:4])
    assert made.summary(arrays, rows) == {"boxes": 6, "boxes_kept": 3}
    monkeypatch.setattr(made, "params", made.params.model_copy(update={"min_iou": 0.9}))
    again = made.process(drawn.rows(), inputs)
    np.testing.assert_array_equal(again["boxes"], given["boxes"])
    assert not again["moved"].any()


def test_a_row_does_not_depend_on_those_beside_it(folder, inputs):
    made = stage(folder, min_iou=0.0, several=True)
    whole = made.process(draw(COUNT).rows(), inputs)
    alone = made.process(draw(COUNT).rows(bad=(0, 2, 4)), inputs)
    assert whole["moved"][:3].any()
    for name in ("boxes", "scores", "moved"):
        np.testing.assert_array_equal(alone[name][[1, 3]], whole[name][[1, 3]])
    sizes = np.array([[image.shape[1], image.shape[0]] * 2 for image in draw(COUNT).images])
    assert (whole["boxes"][:3, 0] <= sizes[:3]).all()
    assert (whole["boxes"][:3, 0] >= 0).all()


def test_what_is_no_sam_and_what_holds_no_boxes_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="holds no boxes, but maps"):
        stage(folder, NOT_BOXES)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clipseg"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="of type 'clipseg', not sam"):
        stage(tmp_path)
    with pytest.raises(WeightsError, match=r"no name of the Hugging Face hub"):
        stage("./nowhere")
    with pytest.raises(ConfigError, match="min_iou"):
        load_registry().params("sam_boxes", {"min_iou": 2})
    needed = load_registry().params("sam_boxes", {"boxes": "mine"})
    assert SamBoxes.needs(needed, ()) == ("mine",)
