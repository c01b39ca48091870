"""The shipped demo CLIP: that it loads as any other, that words mean something to it, and that maps find objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import open_clip
import pytest
import torch
from clip_quality import Split, cam_maps, centred_iou, clip_cams, mean_iou, read_split, zero_shot
from safetensors import safe_open

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def split() -> Split:
    """Every third image of the test split, with every class."""
    whole = read_split("test")
    part = Split(whole.images[::3], whole.labels[::3], whole.boxes[::3])
    assert set(part.labels) == set(whole.labels)
    return part


def test_weights_are_small_and_open_clip_loads_them_by_itself(repo: Path) -> None:
    path = repo / "data/demo/weights/demo_clip.safetensors"
    assert path.stat().st_size <= 8e6
    with safe_open(path, framework="numpy") as file:
        assert {str(file.get_tensor(key).dtype) for key in file.keys()} == {"float16"}  # noqa: SIM118
    open_clip.add_model_config(path.with_suffix(".json"))
    model = open_clip.create_model("demo_clip", pretrained=str(path)).eval()
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(clip_cams().cam.open(images).image, model.encode_image(images), atol=1e-4)


def test_affinity_helps_and_both_maps_beat_a_centred_box_on_the_test_split(split: Split) -> None:
    plain, refined = mean_iou(cam_maps(split, affinity=False), split), mean_iou(cam_maps(split), split)
    assert refined > plain > centred_iou(split), (refined, plain)


def test_classes_of_the_test_split_are_known_by_their_names(split: Split) -> None:
    assert zero_shot(split) > 0.5  # one in eight by chance
