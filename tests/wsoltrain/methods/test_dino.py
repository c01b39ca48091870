"""DINO: loss, centre and teacher by the paper in numpy, views by their draws, a run whose file cls_maps reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stores import build_store
from trained import settings
from transformer_oracles import NAME, SIZE, VIT, made
from wsolpipe.contract.errors import ConfigError
from wsolpipe.networks.sources import resolve
from wsolpipe.stages.base import Context
from wsolpipe.stages.cls_maps import ClsMaps
from wsolpipe.stages.registry import load_registry
from wsoltrain.methods.dino import cut_views
from wsoltrain.pseudo.draws import RowDraws
from wsoltrain.training.loop import ALONE, Trainer
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.settings import open_stream

SMALL = {"local_views": 2, "local_size": 16, "outputs": 12, "hidden": 16, "bottleneck": 8}


def softmax(values):
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def answers(method, part, views):
    """Cosines of a part's head for each view, [views][B, outputs]."""
    vit, head = getattr(method, part), getattr(method, f"{part}_head")
    with torch.no_grad():
        return [head(vit.forward_features(view)[:, 0]).double().numpy() for view in views]


@pytest.fixture
def method():
    torch.manual_seed(0)
    return made("dino", **SMALL, momentum_teacher=0.5, momentum_centre=0.75)


@pytest.fixture
def batch(method):
    images = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return method.augment({"image": images}, RowDraws(0, 0, torch.arange(5)))


def test_loss_teacher_and_centre_are_those_of_the_paper(method, batch):
    views = [batch[f"views{number}"] for number in range(4)]
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        method.centre.copy_(torch.linspace(-0.02, 0.02, 12))
    before = {name: value.clone() for name, value in method.teacher.named_parameters()}
    centre = method.centre.double().numpy().copy()
    loss = method.losses(batch, "distil", 0).parts["distillation"]
    theirs, own = answers(method, "teacher", views[:2]), answers(method, "student", views)
    total = [
        -(softmax((answer - centre) / 0.04) * np.log(softmax(mine / 0.1))).sum(1).mean()
        for place, answer in enumerate(theirs)
        for other, mine in enumerate(own)
        if other != place
    ]
    assert len(total) == 6
    assert loss.item() == pytest.approx(np.mean(total), rel=1e-4)
    torch.autograd.backward(loss)
    method.after_step()
    for name, value in method.teacher.named_parameters():
        wanted = 0.5 * before[name] + 0.5 * dict(method.student.named_parameters())[name]
        torch.testing.assert_close(value, wanted)
    np.testing.assert_allclose(method.centre, 0.75 * centre + 0.25 * np.concatenate(theirs).mean(0), atol=1e-6)
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(parameter.grad is not None for parameter in method.student_head.parameters())


def test_a_step_of_several_batches_moves_teacher_and_centre_once(method, batch):
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    before = method.teacher.cls_token.clone()
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 5))]
    theirs = [answers(method, "teacher", [part["views0"], part["views1"]]) for part in parts]
    for part in parts:
        method.losses(part, "distil", 0)
    method.after_step()
    torch.testing.assert_close(method.teacher.cls_token, before + 0.5)
    mean = np.concatenate([answer for pair in theirs for answer in pair]).mean(0)
    np.testing.assert_allclose(method.centre, 0.25 * mean, atol=1e-6)


def test_views_are_cut_from_whole_images_of_another_size(tmp_path):
    store = build_store(tmp_path, rows=8, sizes=(30, 40))
    given = {"backbone": NAME, "model_args": VIT, "weights": None, "size": 16, "resize": 36, "batch": 8, "flip": 0.0}
    recipe = load_recipe("dino", dataset="tiny", changes=given)
    (batch,) = open_stream(recipe, settings(store, tmp_path / "run", maps=None, workers=0), ALONE)
    assert batch["image"].shape == (8, 3, 36, 36)
    assert (batch["window"][:, :3] == torch.tensor([0, 0, 36])).all()  # left, top, side


def test_views_hold_what_their_draws_say():
    side = 40
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    images = torch.stack([x, y, torch.ones_like(x)]).expand(2, 3, side, side)
    whole = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.9, 0.5], [1.0, 0.5, 0.5, 0.5, 0.1, 1.0]])
    same, mirrored = cut_views(images, whole, (0.1, 1.0), side, 0.4)
    torch.testing.assert_close(same, images[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored, images[0].flip(2) * 1.4, atol=1e-4, rtol=0)
    corner = cut_views(images[:1], torch.tensor([[0.0, 0.5, 1.0, 0.0, 0.9, 0.5]]), (0.25, 0.25), 10, 0.0)[0]
    assert corner[0].min() > -0.1  # the right half
    assert corner[1].max() < 0.1  # of the upper half
    assert corner.shape == (3, 10, 10)


def test_views_are_drawn_by_row_and_differ_by_epoch(method, batch):
    again = method.augment({"image": batch["image"][2:3]}, RowDraws(0, 0, torch.tensor([2])))
    torch.testing.assert_close(again["views3"], batch["views3"][2:3])
    later = method.augment({"image": batch["image"][2:3]}, RowDraws(0, 1, torch.tensor([2])))
    assert (later["views3"] != again["views3"]).any()
    assert batch["views0"].shape == (5, 3, SIZE, SIZE)
    assert batch["views2"].shape == (5, 3, 16, 16)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"local_size": 20}, "local_size=20 is not a multiple"),
        ({"local_area": (0.5, 0.1)}, "lower one first"),
        ({"global_area": (0.0, 1.0)}, "above 0"),
        ({"backbone": "resnet10t", "model_args": {}}, "resnet10t"),
    ],
)
def test_keys_that_make_no_views_are_refused(keys, words):
    with pytest.raises((ConfigError, ValueError), match=words):
        made("dino", **SMALL | keys)


def test_a_run_without_labels_gives_a_file_that_cls_maps_reads_and_again_the_same(tmp_path):
    build_store(tmp_path, rows=16, sizes=(30, 40), split="val")
    store = build_store(tmp_path, rows=16, sizes=(30, 40), unlabelled=tuple(range(16)))
    changes = {**SMALL, "backbone": NAME, "model_args": VIT, "weights": None, "size": SIZE, "resize": 36, "batch": 8,
               "epochs": 1, "lr": 1e-3, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}  # fmt: skip
    recipe = load_recipe("dino", dataset="tiny", changes=changes)
    first, second = (tmp_path / name / "last.safetensors" for name in ("run", "again"))
    for path in (first, second):
        assert Trainer(recipe, settings(store, path.parent, maps=None), []).fit()["steps"] == 2
    assert first.read_bytes() == second.read_bytes()
    tensors, told = load_file(first), []
    assert not torch.equal(tensors["model.student.cls_token"], tensors["model.teacher.cls_token"])
    for part in ("teacher", "student"):
        given = {"model": NAME, "model_args": VIT, "size": SIZE, "weights": str(first), "weights_part": part}
        params = load_registry().params("cls_maps", given)
        stage = ClsMaps(params, Context(dataset="tiny", weights={"model": resolve(str(first))}, warn=told.append))
        stage.setup()
        assert torch.equal(stage.reader.vit.cls_token, tensors[f"model.{part}.cls_token"])
    assert not told  # mean and deviation are those of the recipe
    torch.testing.assert_close(stage._mean.flatten(), torch.tensor([127.5, 102.0, 76.5]))
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    assert stage.attend(pixels).shape == (2, 4, 4, 4)
