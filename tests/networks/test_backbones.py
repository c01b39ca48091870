"""What one half loads, the other loads: files and names of pretraining repositories, one line where they do not fit."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from networks.checkpoints import dino_state
from stores import build_store
from trained import trainer
from wsolpipe.cli.run import command as run
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.contract.reader import open_store
from wsolpipe.networks.architectures import build_backbone
from wsolpipe.networks.sources import resolve
from wsolpipe.networks.weights import load_state
from wsoltrain.networks.encoders import FrozenVit

VIT = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
MODEL = "vit_tiny_patch16_224"


def state(grid=4):
    return dino_state(width=32, depth=4, patch=8, grid=grid)


def led(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


HEAD = {"head.mlp.0.weight": torch.zeros(2, 2), "head.last_layer.weight_g": torch.zeros(2)}
OTHER = {name: value + 1 for name, value in state().items()}
#: As the repositories write them: DINO, its exported teacher, DINOv2/iBOT, MoCo v3, SimMIM, DataParallel, compiled.
LAYOUTS = {
    "bare": state(),
    "dino": {"student": led("module.backbone.", OTHER), "teacher": led("backbone.", state()) | HEAD, "epoch": 3},
    "student alone": {"student": led("module.backbone.", state()) | led("module.", HEAD)},
    "dotted teacher": led("student.backbone.", OTHER) | led("teacher.backbone.", state()) | led("teacher.", HEAD),
    "moco v3": {
        "state_dict": led("module.base_encoder.", state() | HEAD)
        | led("module.momentum_encoder.", OTHER | HEAD)
        | {"module.predictor.0.weight": torch.zeros(2, 2)}
    },
    "momentum encoder": {"state_dict": led("momentum_encoder.", state())},
    "simmim": {"model": led("encoder.", state() | {"mask_token": torch.zeros(1, 1, 32)}) | led("decoder.0.", HEAD)},
    "parallel": led("module.", state()),
    "compiled": {"model": led("_orig_mod.", state())},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt", ".bin"])
def test_every_layout_gives_the_same_encoder_and_backbone(tmp_path, layout, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save(LAYOUTS[layout], path)
    want = state()
    for spec in (str(path), f"file:{path}"):
        net = build_backbone(MODEL, weights=spec, model_args=VIT, img_size=32)
        assert all(torch.equal(value, want[name]) for name, value in net.state_dict().items())
    encoder = FrozenVit(MODEL, weights=str(path), size=32, model_args=VIT)
    assert torch.equal(encoder.vit.blocks[3].attn.qkv.weight, want["blocks.3.attn.qkv.weight"])


def test_an_encoder_that_is_part_of_the_network_keeps_its_name(tmp_path):
    own = {"encoder.layers.0.weight": torch.zeros(1), "patch_embedder.weight": torch.zeros(1)}
    torch.save(own, tmp_path / "w.pth")
    assert load_state(resolve(str(tmp_path / "w.pth"))).keys() == own.keys()


def test_a_file_and_no_file_leave_the_same_random_numbers_behind(tmp_path):
    """What is drawn after an encoder, such as its head, must not depend on where the encoder's weights came from."""
    torch.save(state(), tmp_path / "w.pth")
    left = []
    for spec in (None, str(tmp_path / "w.pth")):
        torch.manual_seed(3)
        build_backbone(MODEL, weights=spec, model_args=VIT, img_size=32)
        left.append(torch.rand(4))
    assert torch.equal(*left)


def test_random_weights_depend_on_their_seed_alone():
    first, other, again = (
        build_backbone(MODEL, weights=spec, model_args=VIT, img_size=32).patch_embed.proj.weight
        for spec in ("random:1", "random:2", "random:1")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("resnet10t", {"channels": [8, 8, 8, 8], "stem_width": 8, "out_indices": [0, 1]}),
        ("convnext_atto", {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
        ("mobilenetv2_100", {}),
    ],
)
def test_a_pyramid_takes_the_weights_of_the_whole_network(tmp_path, model, arguments):
    plain = {name: value for name, value in arguments.items() if name != "out_indices"}
    whole = timm.create_model(model, num_classes=7, **plain)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    net = build_backbone(
        model, weights=str(tmp_path / "w.safetensors"), model_args=arguments, features_only=True
    ).eval()
    want = timm.create_model(model, num_classes=7, features_only=True, **arguments)
    images = torch.rand(1, 3, 64, 64)
    levels = net(images)
    assert [tuple(level.shape) for level in levels] == [tuple(level.shape) for level in want(images)]
    seen = []
    part = dict(whole.eval().named_modules())[net.feature_info[0]["module"]]
    part.register_forward_hook(lambda module, given, made: seen.append(made))
    whole(images)
    assert torch.equal(levels[0], seen[0])


def test_a_file_of_another_network_gets_one_line_in_both_halves(tmp_path):
    save_file(timm.create_model("mobilenetv2_100").state_dict(), tmp_path / "cnn.safetensors")
    with pytest.raises(WeightsError) as raised:
        FrozenVit(MODEL, weights=str(tmp_path / "cnn.safetensors"), size=32, model_args=VIT)
    message = "the weights do not fit vit_tiny_patch16_224: missing cls_token and 53 more; unexpected blocks.0.0.bn1."
    assert raised.value.message.startswith(message)
    assert "\n" not in raised.value.message
    deeper = dino_state(width=32, depth=5, patch=8, grid=4)  # its first four blocks alone would fit
    torch.save(deeper, tmp_path / "deeper.pth")
    with pytest.raises(WeightsError, match=r"unexpected blocks.4.norm1.weight and 11 more"):
        FrozenVit(MODEL, weights=str(tmp_path / "deeper.pth"), size=32, model_args=VIT)


@pytest.mark.parametrize("model", ["swin_tiny_patch4_window7_224", "mixer_s32_224", "resnet18"])
def test_networks_without_a_class_token_are_refused_in_one_line(model):
    with pytest.raises(ConfigError) as raised:
        FrozenVit(model, weights=None, size=224)
    assert model in raised.value.message
    assert "\n" not in raised.value.message


def test_an_official_dino_checkpoint_makes_maps_and_trains_dips(tmp_path):
    """The file as the DINO repository writes it, named alike to both halves."""
    path = tmp_path / "dino_checkpoint.pth"
    torch.save(LAYOUTS["dino"], path)
    tiny = build_store(tmp_path, rows=24, sizes=(30, 50))
    build_store(tmp_path, rows=24, sizes=(30, 50), split="val")
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    words = [
        "stage=cls_maps", f"dataset={tmp_path / 'tiny.yaml'}", f"store={tmp_path / 'made'}", "device=cpu",
        f"cls_maps.model={MODEL}", f"cls_maps.model_args={json.dumps(VIT)}", f"cls_maps.weights={path}",
        "cls_maps.size=32", "cls_maps.mean=0.5", "cls_maps.std=0.5",
    ]  # fmt: skip
    result = CliRunner().invoke(run, words)
    assert result.exit_code == 0, result.output
    dataset = open_store(str(tmp_path / "made"))["tiny"]
    (split,) = dataset.splits()
    assert dataset[split]["cls_maps"].manifest.weights[0].source == "dino_checkpoint.pth"
    fitted = trainer(tiny, tmp_path / "run", weights=str(path), model_args=VIT, epochs=1)
    want = state()["blocks.2.mlp.fc1.weight"]
    assert torch.equal(fitted.model.encoder.vit.blocks[2].mlp.fc1.weight, want)
    fitted.fit()
    assert fitted.step > 0


def test_the_trainer_imports_nothing_that_only_the_pipeline_needs():
    code = (
        "import importlib, pkgutil, sys, wsoltrain\n"
        "for part in pkgutil.walk_packages(wsoltrain.__path__, 'wsoltrain.'):\n"
        "    if not part.name.endswith('__main__'): importlib.import_module(part.name)\n"
        "print(sorted({'dask', 'distributed', 'open_clip', 'cv2', 'skimage'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
