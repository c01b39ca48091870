"""Keys of pixel labels: maps scaled over each crop are what the authors' code sees."""

from __future__ import annotations

import numpy as np
import torch

from wsoltrain.methods.base import Task
from wsoltrain.training.recipe_file import load_recipe

TINY = {
    "backbone": "vit_tiny_patch16_224", "model_args": {"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4},
    "weights": None, "size": 32, "boxes": None, "sampler": "trcam", "crf_weight": 0.0,
}  # fmt: skip


def seen_by_the_sampler(normalised):
    """Maps that reach the sampler, of a map whose crop spans 0.2 to 0.6 of the whole image's range."""
    recipe = load_recipe("dips", dataset="other", changes={**TINY, "maps_normalised": normalised})
    method = recipe.build(Task(3, 32))
    seen = []
    draw = method.sampler
    method.sampler = lambda pseudo, **more: seen.append(pseudo.maps) or draw(pseudo, **more)
    ramp = torch.linspace(0, 1, 64).repeat(64, 1)[None, None].repeat(2, 1, 1, 1)
    window = torch.tensor([[8, 0, 64, 0], [8, 0, 64, 1]])  # 32 of 64 columns, from the eighth on; once mirrored
    batch = {"image": torch.zeros(2, 3, 32, 32), "maps": ramp, "window": window, "row": torch.arange(2)}
    method.losses({**batch, "label": torch.zeros(2, dtype=torch.int64)}, "maps", 1)
    return seen[0].numpy()


def test_maps_span_the_whole_range_over_the_image_or_over_each_crop():
    whole, crop = seen_by_the_sampler("image"), seen_by_the_sampler("crop")
    assert whole.max() < 0.7
    for one, other in zip(whole[:, 0], crop[:, 0], strict=True):
        np.testing.assert_allclose(other, (one - one.min()) / (one.max() - one.min()), atol=1e-6)
    np.testing.assert_allclose(crop[1], crop[0][..., ::-1], atol=1e-5)
