"""TS-CAM: maps as in the paper on the same random weights, published checkpoints, and what is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from trained import build, settings
from transformer_oracles import DEPTH, NAME, SIZE, VIT, made, spread, ts_cam
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsoltrain.inference.model import load_trained
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe


def test_scores_maps_and_loss_are_those_of_the_paper_on_the_same_weights():
    model = made().eval()
    state = spread(model.net).state_dict()
    images, labels = torch.randn(3, 3, SIZE, SIZE), torch.tensor([4, 0, -1])
    scores, maps, attention = ts_cam(state, images)
    found = model.predict(images, labels)
    assert not found.unit
    torch.testing.assert_close(found.scores, scores, rtol=1e-5, atol=1e-5)
    picked = [4, 0, int(scores[2].argmax())]
    expected = torch.stack([maps[row, label] * attention[row] for row, label in enumerate(picked)])
    assert expected.std() > 0.01
    torch.testing.assert_close(found.maps, expected, rtol=1e-5, atol=1e-5)
    labels = torch.tensor([4, 0, 2])
    parts = model.losses({"image": images, "label": labels}, "train", 0).parts
    torch.testing.assert_close(parts["classes"], cross_entropy(scores, labels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("blocks", "chosen"), [(-1, {DEPTH - 1}), ("1-2", {1, 2}), ([0, -1], {0, DEPTH - 1})])
def test_the_map_sums_the_attention_of_the_blocks_that_are_asked_for(blocks, chosen):
    model, images = made(blocks=blocks).eval(), torch.randn(2, 3, SIZE, SIZE)
    scores, maps, attention = ts_cam(spread(model.net).state_dict(), images, blocks=chosen)
    found = model.predict(images, torch.tensor([1, 3]))
    torch.testing.assert_close(found.maps, maps[[0, 1], [1, 3]] * attention, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.scores, scores, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="names no blocks of this model"):
        made(blocks=DEPTH)


def test_query_and_key_norms_of_a_transformer_are_applied_to_its_attention():
    model = made(model_args={**VIT, "qk_norm": True}).eval()
    spread(model.net)
    rows = []
    for block in model.net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, given, weights: rows.append(weights))
    images = torch.randn(2, 3, SIZE, SIZE)
    found = model.predict(images, torch.tensor([1, 1])).maps
    attention = torch.stack([weights.mean(1)[:, 0, 1:] for weights in rows]).sum(0).view(-1, 4, 4)
    tokens = model.net.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(found, model.net.head(tokens)[:, 1] * attention, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("nesting", ["model", "state_dict", None])
def test_published_checkpoint_loads_with_its_convolution(tmp_path, nesting):
    published = spread(made().net).state_dict()
    names = {f"module.{name}": value for name, value in published.items()}
    file = tmp_path / "ts_cam.pth.tar"
    torch.save({nesting: names, "epoch": 3} if nesting else names, file)
    loaded = made(weights=str(file)).net.state_dict()
    assert loaded.keys() == published.keys()
    assert all(torch.equal(value, published[name]) for name, value in loaded.items())


@pytest.mark.parametrize(
    ("method", "missing"), [("ts_cam", "head.bias"), ("scm", "layers.1.thred"), ("sat", "loc_embed")]
)
def test_a_checkpoint_of_the_method_is_loaded_whole_or_refused(tmp_path, method, missing):
    """What a file lacks must not keep its random start in silence."""
    published = spread(made(method=method).net).state_dict()
    del published[missing]
    save_file(published, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match=f"is not of this run's network: it lacks {missing}\n"):
        made(method=method, weights=str(tmp_path / "half.safetensors"))


@pytest.mark.parametrize(
    ("holds", "run", "message", "words"),
    [
        (
            "sat",
            "ts_cam",
            "holds SAT on a vision transformer of 4 blocks.* and this run is TS-CAM on",
            "recipe=sat weights=",
        ),
        ("scm", "sat", "holds SCM on .*, and this run is SAT on", "recipe=scm weights="),
        ("cam", "ts_cam", "holds one linear layer of classes on a ResNet of 10 layers, 5 classes", "recipe=cam, has"),
    ],
)
def test_a_checkpoint_of_another_method_is_named_with_its_recipe(tmp_path, caplog, holds, run, message, words):
    net = build("cam", "resnet10t", weights=None, size=64, classes=5).net if holds == "cam" else made(method=holds).net
    save_file(net.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=message) as caught:
        made(method=run, weights=str(tmp_path / "other.safetensors"))
    assert words in (caught.value.hint or "")
    assert not caplog.text


def test_parts_of_which_a_file_holds_nothing_start_anew_and_are_named(tmp_path, caplog):
    save_file(spread(made().net).state_dict(), tmp_path / "ts_cam.safetensors")
    net = made(method="scm", weights=str(tmp_path / "ts_cam.safetensors")).net
    assert net.layers[0].thred.item() == 0.5
    assert "layers.0.thred" in caplog.text
    assert "start anew" in caplog.text


def test_plain_transformers_weights_load_without_their_classifier(tmp_path):
    torch.manual_seed(3)
    plain = timm.create_model(NAME, img_size=SIZE, num_classes=10, **VIT)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    net = made(weights=str(tmp_path / "plain.safetensors")).net
    assert torch.equal(net.blocks[2].mlp.fc1.weight, plain.blocks[2].mlp.fc1.weight)
    assert net.head.weight.shape == (5, 24, 3, 3)


def test_position_embeddings_are_resampled_to_another_size(tmp_path):
    plain = timm.create_model(NAME, img_size=SIZE, num_classes=0, **VIT)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    net = made(weights=str(tmp_path / "plain.safetensors"), size=48).net
    assert net.pos_embed.shape == (1, 1 + 36, 24)
    grid = plain.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    grid = torch.nn.functional.interpolate(grid, (6, 6), mode="bicubic", antialias=True)
    torch.testing.assert_close(net.pos_embed[:, 1:], grid.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_checkpoints_of_other_classes_or_networks_are_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file(made(classes=7).net.state_dict(), file)
    with pytest.raises(WeightsError, match="holds TS-CAM on .*, 7 classes, and this run is TS-CAM on .*, 5 classes"):
        made(weights=str(file))
    save_file(made(classes=5, model_args={**VIT, "depth": 3}).net.state_dict(), file)
    with pytest.raises(WeightsError, match="holds TS-CAM on a vision transformer of 3 blocks.* of 4 blocks"):
        made(weights=str(file))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"backbone": "resnet18", "model_args": {}}, "resnet18"),
        ({"backbone": "deit_tiny_distilled_patch16_224"}, "one class token"),
        ({"backbone": "deit3_small_patch16_224", "size": 30}, "size=30 is not a multiple of the patch size 8"),
        ({"backbone": "swin_tiny_patch4_window7_224", "model_args": {}, "size": 224}, "class token"),
    ],
)
def test_networks_that_give_no_class_token_attention_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message) as caught:
        made(**keys)
    assert "\n" not in caught.value.message


def test_training_and_loading_go_through_the_recipe(trainable, tmp_path):
    keys = {"backbone": NAME, "model_args": VIT, "weights": None, "size": SIZE, "batch": 8, "epochs": 1, "lr": 1e-3}
    recipe = load_recipe("ts_cam", dataset="tiny", changes=keys)
    Trainer(recipe, settings(trainable, tmp_path, maps=None), []).fit()
    trained = load_trained(str(tmp_path), device=torch.device("cpu"))
    assert trained.model.predict(torch.zeros(1, 3, SIZE, SIZE)).maps.shape == (1, 4, 4)
    assert trained.tau is not None
