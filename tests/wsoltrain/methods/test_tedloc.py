"""TeD-Loc: its losses in closed form, anchors, backbones and grids, errors, and that classes cost no memory of maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch.utils._python_dispatch import TorchDispatchMode

from wsolpipe.contract.errors import ConfigError, DataError, StoreError
from wsoltrain.inference.model import complexity
from wsoltrain.methods.base import Task
from wsoltrain.methods.tedloc import TedLoc, pooled
from wsoltrain.networks.class_anchors import chosen_anchors, parse_anchors, read_anchor_files, transferred
from wsoltrain.pseudo.samplers import BACKGROUND, FOREGROUND, Patches, Pseudo
from wsoltrain.training.recipe import recipe_type
from wsoltrain.training.settings import read_artifacts

SMALL = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
VIT = "vit_tiny_patch16_224"


def texts(classes, dimensions, *, cosine=0.0, seed=0):
    """Unit vectors [K, d]: all pairs at one cosine, up to what random directions add."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.nn.functional.normalize(torch.randn(classes, dimensions, generator=generator, dtype=torch.float64))
    shared = torch.nn.functional.normalize(torch.randn(dimensions, generator=generator, dtype=torch.float64), dim=0)
    own = torch.nn.functional.normalize(own - (own @ shared)[:, None] * shared)
    return cosine**0.5 * shared + (1 - cosine) ** 0.5 * own


def anchor_files(plain, *, names=None, made=None, how="none", labels=None):
    """Content of the two files of an artifact."""
    names = names or [f"class {number}" for number in range(len(plain))]
    about = {"names": names, "labels": labels or list(range(len(plain))), "orthogonal": how}
    tensors = {"plain": plain.float().clone(), "anchors": (plain if made is None else made).float().clone()}
    return save(tensors), json.dumps(about).encode()


def network(classes=5, dimensions=12, *, size=32, plain=None, files=None, task=None, **keys):
    """The method on its own, with random weights; its artifacts are `files`, or made of `plain`."""
    tensors, about = files or anchor_files(texts(classes, dimensions) if plain is None else plain)
    given = {"backbone": VIT, "model_args": SMALL, "weights": None, "decoder_width": 8, "patches": 4, **keys}
    recipe = recipe_type("tedloc").model_validate({"method": "tedloc", "size": size, **given})
    artifacts = {"text_anchors/anchors.safetensors": tensors, "text_anchors/anchors.json": about}
    return recipe.build(Task(classes, size, artifacts=artifacts, **(task or {})))


def batch_of(size=32, rows=3, *, classes=5, seed=0):
    """A batch as the stream gives it: a bump in each seed, the whole image as the view."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.linspace(0, 1, 8)
    bump = torch.exp(-8 * ((at[:, None] - 0.3) ** 2 + (at - 0.6) ** 2))
    return {
        "image": torch.randn(rows, 3, size, size, generator=generator),
        "maps": bump.expand(rows, 1, 8, 8) + 0.01 * torch.rand(rows, 1, 8, 8, generator=generator),
        "window": torch.tensor([[0, 0, size, 0]]).expand(rows, 4),
        "label": torch.arange(rows) % classes,
        "row": torch.arange(rows) + 7,
    }


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_the_three_equations_written_out(reduction):
    model = network(reduction=reduction, kd_weight=0.5, pcl_weight=0.3, icl_weight=0.2).train()
    torch.nn.init.normal_(model.g.weight)
    batch = batch_of()
    found = {name: float(value.detach()) for name, value in model.losses(batch, "maps", epoch=2).parts.items()}
    with torch.no_grad():
        z, logits = (value.double().numpy() for value in model(batch["image"]))
    seeds = torch.nn.functional.interpolate(batch["maps"], (32, 32), mode="bilinear", align_corners=False)
    seeds = seeds.unflatten(2, (16, 2)).unflatten(4, (16, 2)).mean((3, 5))
    labels = Patches(n_fg=4, n_bg=4)(Pseudo(seeds, batch["row"]), seed=0, epoch=2).labels.numpy()
    t, y = model.anchors.double().numpy(), batch["label"].tolist()
    kd, pcl, icl, drawn = 0.0, 0.0, 0.0, {FOREGROUND: 0, BACKGROUND: 0}
    for b in range(3):
        g = 1 / (1 + np.exp(-logits[b]))
        for i, j in np.argwhere(labels[b] >= 0):
            side = int(labels[b, i, j])
            drawn[side] += 1
            pcl -= np.log(g[i, j] if side == FOREGROUND else 1 - g[i, j])
            if side == FOREGROUND:
                scores = t @ z[b, :, i, j]
                kd -= scores[y[b]] - np.log(np.exp(scores).sum())
        h = sum(g[i, j] * z[b, :, i, j] for i in range(16) for j in range(16)) / g.sum()
        icl -= (t @ h)[y[b]] - np.log(np.exp(t @ h).sum())
    assert drawn == {FOREGROUND: 12, BACKGROUND: 12}
    counts = (12, 24) if reduction == "mean" else (3, 3)
    expected = {"kd": 0.5 * kd / counts[0], "pcl": 0.3 * pcl / counts[1], "icl": 0.2 * icl / 3}
    assert found == pytest.approx(expected, rel=1e-5)


def test_pooling_weighs_patches_by_g():
    z = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    logits = torch.full((2, 2, 2), -200.0, dtype=torch.float64)
    logits[0, 1, 0] = 200
    logits[1] = 0.3
    h = pooled(z, logits)
    torch.testing.assert_close(h[0], z[0, :, 1, 0])
    torch.testing.assert_close(h[1], z[1].mean((1, 2)))
    assert pooled(z.float(), torch.full((2, 2, 2), -1e4)).isfinite().all()  # g vanishes everywhere


def test_gradients_are_those_of_finite_differences():
    model = network(classes=3, dimensions=4, normalise=True, logit_scale=3.0).double()
    z = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    foreground = torch.rand(2, 2, 3) > 0.5
    label, known = torch.tensor([2, 0]), foreground | (torch.rand(2, 2, 3) > 0.5)
    assert torch.autograd.gradcheck(lambda z: model._kd(z, foreground, label), z)
    assert torch.autograd.gradcheck(lambda logits: model._pcl(logits, foreground, known), logits)
    assert torch.autograd.gradcheck(lambda z, logits: model.scores(pooled(z, logits)), (z, logits))


def test_ablations_leave_losses_out_and_what_no_loss_reaches_is_not_trained():
    for losses, expected in (("kd", {"kd"}), ("kd+pcl", {"kd", "pcl"}), ("all", {"kd", "pcl", "icl"})):
        model = network(losses=losses)
        assert model.losses(batch_of(), "maps", 0).parts.keys() == expected
        trained = {id(value) for phase in model.phases() for value in phase.parameters}
        assert (id(model.g.weight) in trained) == (losses != "kd")
        assert id(model.decoder[1].weight) in trained
        assert not any(id(value) in trained for value in model.encoder.parameters())
    found = network(losses="kd").eval().predict(torch.randn(2, 3, 32, 32))
    assert not found.unit  # g is not trained, so the text map is shown


def test_an_image_without_labelled_patches_costs_nothing():
    batch = batch_of()
    batch["maps"] = torch.full_like(batch["maps"], 0.5)
    parts, counts = network(losses="kd+pcl").losses(batch, "maps", 0)
    assert {name: float(value.detach()) for name, value in parts.items()} == {"kd": 0.0, "pcl": 0.0}
    sum(parts.values()).backward()
    assert int(counts["no_region"]) == 3


class Recorded:
    """Sums over processes, of which the second half of a batch is elsewhere."""

    world = 2

    def __init__(self, totals):
        self.totals = totals

    def sum(self, tensor):
        return self.totals.pop(0).to(tensor)


def test_mean_gradient_of_two_processes_is_that_of_one():
    whole, totals = network(), []

    class Alone:
        world = 1

        def sum(self, tensor):
            totals.append(tensor.clone())
            return tensor

    batch = batch_of(rows=4)
    batch["maps"] = batch["maps"].clone()
    batch["maps"][0] = 0.5  # no labels: the halves have other numbers of patches
    gradients = []
    for model, processes, parts in (
        (whole, Alone(), [slice(0, 4)]),
        (network(), None, [slice(0, 2), slice(2, 4)]),
    ):
        model.eval()  # statistics of batch normalisation are shared by `synchronised`, tested there
        for part in parts:
            shared = processes or Recorded(list(totals))
            model.task = Task(**{**vars(model.task), "processes": shared})
            losses = model.losses({name: value[part] for name, value in batch.items()}, "maps", 0).parts
            (sum(losses.values()) / len(parts)).backward()
        gradients.append([value.grad for phase in model.phases() for value in phase.parameters])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


def accuracy_after(anchors, steps=20):
    """Accuracy of a linear student of noisy class patterns, trained by cross-entropy of its products with anchors."""
    classes, dimensions = anchors.shape
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(classes, 24, generator=generator)

    def draw(count):
        label = torch.randint(classes, (count,), generator=generator)
        return patterns[label] + 0.7 * torch.randn(count, 24, generator=generator), label

    weight = torch.zeros(24, dimensions, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.05, momentum=0.9)
    for _ in range(steps):
        seen, label = draw(64)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(seen @ weight @ anchors.T, label).backward()
        optimiser.step()
    seen, label = draw(2000)
    noisy = torch.nn.functional.normalize(seen @ weight) + 0.1 * torch.randn(2000, dimensions, generator=generator)
    return float(((noisy @ anchors.T).argmax(1) == label).float().mean())


def test_close_texts_confuse_classes_and_qr_parts_them():
    found = parse_anchors(*anchor_files(texts(20, 64, cosine=0.95)))
    cosines = found.plain @ found.plain.T
    assert cosines[~torch.eye(20, dtype=torch.bool)].mean() == pytest.approx(0.95, abs=0.01)
    plain, qr = (accuracy_after(chosen_anchors(found, how)) for how in ("none", "qr"))
    assert qr > 0.9
    assert plain < qr - 0.1
    assert accuracy_after(chosen_anchors(found, "polar")) > 0.9


def test_anchors_are_orthonormal_and_polar_beyond_the_dimensions():
    few, many = (parse_anchors(*anchor_files(texts(count, 6, cosine=0.5))) for count in (4, 9))
    torch.testing.assert_close(chosen_anchors(few, "auto") @ chosen_anchors(few, "auto").T, torch.eye(4))
    torch.testing.assert_close(chosen_anchors(few, "none"), few.plain)
    tight = chosen_anchors(many, "auto")
    torch.testing.assert_close(tight.T @ tight, 9 / 6 * torch.eye(6), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="9 classes in 6 dimensions") as caught:
        network(9, 6, files=anchor_files(texts(9, 6)), orthogonal="qr")
    assert "orthogonal=polar" in str(caught.value)
    stored = anchor_files(few.plain, made=2 * few.plain, how="polar")
    torch.testing.assert_close(chosen_anchors(parse_anchors(*stored), "polar"), 2 * few.plain)  # the stage's own


def test_new_classes_lie_where_the_map_of_texts_to_anchors_puts_them():
    trained = parse_anchors(*anchor_files(texts(5, 12, cosine=0.7)))
    anchors = chosen_anchors(trained, "qr")
    torch.testing.assert_close(transferred(trained, trained, anchors), anchors, atol=1e-5, rtol=0)
    between = torch.nn.functional.normalize(trained.plain[:1] + trained.plain[1:2])
    new = parse_anchors(*anchor_files(between))
    expected = torch.nn.functional.normalize(anchors[:1] + anchors[1:2])
    torch.testing.assert_close(transferred(new, trained, anchors), expected, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="7 dimensions, those of training 12"):
        transferred(parse_anchors(*anchor_files(texts(5, 7))), trained, anchors)


@pytest.mark.parametrize(
    ("backbone", "args", "size", "patch"),
    [
        (VIT, {**SMALL, "patch_size": 14}, 42, 14),
        (VIT, {**SMALL, "class_token": False, "global_pool": "avg"}, 32, 8),
        ("eva02_tiny_patch14_224", {"embed_dim": 48, "depth": 2, "num_heads": 3}, 56, 14),
        ("vit_base_patch16_clip_224.openai", {"embed_dim": 32, "depth": 2, "num_heads": 2}, 64, 16),
        ("vit_base_patch16_clip_quickgelu_224", {"embed_dim": 32, "depth": 2, "num_heads": 2}, 64, 16),
        ("vit_small_patch14_reg4_dinov2", {"embed_dim": 32, "depth": 2, "num_heads": 2}, 70, 14),
    ],
)
def test_vision_transformers_of_any_patch_size_are_read(backbone, args, size, patch):
    model = network(backbone=backbone, model_args=args, size=size).eval()
    image = torch.randn(2, 3, size, size)
    found = model.predict(image)
    assert (found.maps.shape, found.unit, found.scores.shape) == ((2, *[4 * (size // patch)] * 2), True, (2, 5))
    own = model.encoder.vit.forward_features(image)[:, getattr(model.encoder.vit, "num_prefix_tokens", 0) :]
    torch.testing.assert_close(model.encoder(image).flatten(2).mT, own)
    with pytest.raises(ConfigError, match=f"size={size + 2} is not a multiple|{size + 2}"):
        network(backbone=backbone, model_args=args, size=size + 2)


def test_a_network_without_patches_is_refused():
    with pytest.raises(ConfigError, match="resnet18"):
        network(backbone="resnet18", model_args={})


def test_maps_of_text_are_products_with_the_anchor_of_the_class():
    model = network(map="text").eval()
    image = torch.randn(3, 3, 32, 32)
    z, _ = model(image)
    given = model.predict(image, torch.tensor([4, 1, -1]))
    torch.testing.assert_close(given.maps[1], torch.einsum("dhw,d->hw", z[1], model.anchors[1]))
    likeliest = int(given.scores[2].argmax())
    torch.testing.assert_close(given.maps[2], torch.einsum("dhw,d->hw", z[2], model.anchors[likeliest]))
    assert not given.unit
    assert model.frame_side == 256


class Largest(TorchDispatchMode):
    """Largest tensor that any operation returns, in numbers."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().size() >= tensor.numel():
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("shown", ["g", "text"])
def test_class_scores_are_never_made_for_all_patches(shown):
    model, batch = network(2000, 16, plain=texts(2000, 16, cosine=0.5), map=shown), batch_of(rows=4, classes=2000)
    with Largest() as seen:
        sum(model.losses(batch, "maps", 0).parts.values()).backward()
        model.eval().predict(batch["image"], batch["label"])
    assert 4 * 16 * 16 * 16 <= seen.numbers <= 2000 * 16  # z; anchors, and scores of the 16 patches that are drawn
    assert seen.numbers < 4 * 2000 * 16 * 16 / 10


def test_checkpoints_leave_the_encoder_out_and_know_which_it_was():
    model = network()
    saved = model.saved()
    assert not any(name.startswith(("encoder.", "anchors")) for name in saved)
    network().restore(saved)
    other = dict(saved, encoder_sha256=saved["encoder_sha256"] ^ 1)
    with pytest.raises(ConfigError, match="trained on an encoder with weights"):
        model.restore(other)
    with pytest.raises(ConfigError, match="another network"):
        network(decoder_width=4).restore(saved)
    counted = complexity(model, 32)
    assert 0 < counted["heads"]["macs"] < counted["total"]["macs"]


def test_anchors_that_do_not_fit_are_refused_in_one_line(tmp_path):
    plain = texts(5, 12)
    names = ["001.Black_footed_Albatross", "wren", "gull", "tern", "jay"]
    same = ["black-footed albatross", "wren", "gull", "tern", "jay"]
    task = {"class_names": names}
    network(files=anchor_files(plain, names=same), task=task)
    network(files=anchor_files(plain, names=list("vwxyz")), task=task)  # codes against words: nothing to compare
    swapped = [same[0], "gull", "wren", *same[3:]]
    with pytest.raises(ConfigError, match="label 1 is 'wren' in the data set and 'gull' in the anchors"):
        network(files=anchor_files(plain, names=swapped), task=task)
    with pytest.raises(ConfigError, match="anchors are of 4 classes, the data set has 5"):
        network(files=anchor_files(texts(4, 12)))
    with pytest.raises(ConfigError, match="two classes are named 'wren'"):
        network(files=anchor_files(plain, names=["wren", "wren", "a", "b", "c"]), orthogonal="none")
    with pytest.raises(ConfigError, match="no direction of its own"):
        network(files=anchor_files(plain[[0, 1, 2, 3, 3]]))
    with pytest.raises(DataError, match="not anchors of classes"):
        network(files=(b"torn", b"{}"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_anchor_files(str(tmp_path / "anchors.safetensors"))


def test_a_missing_artifact_is_named_with_the_command_that_makes_it(trainable):
    from wsoltrain.data.config import Labelling

    keys = TedLoc.Keys(backbone=VIT)
    with pytest.raises(StoreError, match="text_anchors") as caught:
        read_artifacts(Labelling(trainable.url, "tiny", "train"), TedLoc.reads(keys).artifacts)
    assert "stage=text_anchors" in str(caught.value)


def test_the_word_none_is_read_as_text_where_a_key_takes_it():
    from wsoltrain.training.recipe_file import load_recipe

    assert load_recipe("tedloc", dataset="x", changes={"orthogonal": None}).orthogonal == "none"
    assert load_recipe("tedloc", dataset="x", changes={"weights": None}).weights is None


def test_background_is_as_many_and_outside_unless_keys_say_otherwise():
    maps = torch.linspace(0, 0.2, 256).view(1, 1, 16, 16)
    maps[..., 6:10, 6:10] += 0.8
    inside = maps[0, 0] > 0.5
    papers, other = (
        network(patches=4, bg_share=1.0, **keys).sampler(Pseudo(maps, torch.tensor([0])), seed=0, epoch=0).labels[0]
        for keys in ({}, {"bg_patches": 100, "background": "anywhere"})
    )
    assert (papers == FOREGROUND).sum() == (papers == BACKGROUND).sum() == 4
    assert not ((papers == BACKGROUND) & inside).any()
    assert (other == FOREGROUND).any()
    assert (other == BACKGROUND).sum() > 90  # a place that both sides draw is neither
    assert ((other == BACKGROUND) & inside).any()
