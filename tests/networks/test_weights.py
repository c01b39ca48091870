"""Weights: found by specification, named by content, loaded whole or refused with the first difference."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from networks.checkpoints import dino_state
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.networks import pretrained
from wsolpipe.networks.architectures import require_model
from wsolpipe.networks.sources import Weights, choose_preprocessing, recorded_preprocessing, resolve
from wsolpipe.networks.weights import load_into, load_state


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Caches of their own, so that no test sees this user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small_vit(**options):
    options = {"embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 0} | options
    return timm.create_model("vit_tiny_patch16_224", **options)


def saved(path, state, **metadata):
    if path.suffix == ".safetensors":
        save_file(state, path, metadata=metadata or None)
    else:
        torch.save(state, path)
    return resolve(str(path))


def test_a_file_is_named_by_its_bytes_and_never_by_its_folder(tmp_path):
    path = tmp_path / "w.safetensors"
    weights = saved(path, {"a": torch.ones(3)})
    assert weights == resolve(f"file:{path}")
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights.source == "w.safetensors"


def test_digest_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    first = pretrained.file_sha256(path)

    def refuse(*args):
        raise AssertionError(args)

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", refuse)
        assert pretrained.file_sha256(path) == first
    path.write_bytes(b"two")
    os.utime(path, (2, 2))
    assert pretrained.file_sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_a_file_just_written_is_hashed_again(tmp_path):
    path = tmp_path / "w.pt"
    now = time.time()
    for text in (b"one", b"two"):
        path.write_bytes(text)
        os.utime(path, (now, now))
        assert pretrained.file_sha256(path) == hashlib.sha256(text).hexdigest()


def test_a_broken_digest_cache_costs_nothing_but_time(tmp_path, caches):
    path = tmp_path / "w.pt"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    want = hashlib.sha256(b"one").hexdigest()
    assert pretrained.file_sha256(path) == want
    for entry in (caches / "wsolpipe" / "sha256").iterdir():
        entry.write_text("torn")
    assert pretrained.file_sha256(path) == want
    blocked = caches / "elsewhere"
    blocked.write_text("a file where the folder should be")
    os.environ["XDG_CACHE_HOME"] = str(blocked)  # put back by the fixture's monkeypatch
    assert pretrained.file_sha256(path) == want


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("file:/nowhere/w.safetensors", "/nowhere/w.safetensors"),
        ("nowhere.pth", "nowhere.pth"),
        ("random:x", "whole number"),
        ("random:-1", "whole number"),
        ("timm:vit_small_patch16_224.dinosaur", "vit_small_patch16_224.dino"),
    ],
)
def test_what_cannot_be_found_is_named(spec, words):
    with pytest.raises(WeightsError, match=words) as raised:
        resolve(spec)
    assert "weights=" in raised.value.hint


def test_folders_and_foreign_files_are_no_weights(tmp_path):
    foreign = tmp_path / "w.pkl"
    foreign.write_bytes(b"x")
    for path in (tmp_path, foreign):
        with pytest.raises(WeightsError, match="not weights"):
            resolve(str(path))


def test_random_weights_are_known_by_their_seed():
    assert resolve("random:3") == resolve("random:03")
    assert resolve("random:3").sha256 != resolve("random:4").sha256
    assert resolve("random:3").seed == 3
    with pytest.raises(WeightsError, match="initialisation"):
        load_state(resolve("random:3"))


def test_pretrained_weights_come_from_the_cache_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert resolve("timm:vit_small_patch16_224.dino", fetch=False) is None
    path = Path(torch.hub.get_dir()) / "checkpoints" / "dino_deitsmall16_pretrain.pth"
    path.parent.mkdir(parents=True)
    torch.save(dino_state(), path)
    weights = resolve("timm:vit_small_patch16_224.dino", fetch=False)
    assert weights.source == "timm:vit_small_patch16_224.dino"
    assert weights.path == path
    assert recorded_preprocessing(weights).mean == (0.485, 0.456, 0.406)
    assert resolve("timm:vit_small_patch16_224", fetch=False) is None  # another tag is another file


def test_planning_needs_neither_torch_nor_timm_once_a_name_was_looked_up(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert resolve("timm:vit_small_patch16_224.dino", fetch=False) is None
    code = (
        "import sys; from wsolpipe.networks.sources import resolve; "
        "assert resolve('timm:vit_small_patch16_224.dino', fetch=False) is None; "
        "sys.exit(bool({'torch', 'timm'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_network_says_how_to_go_on(monkeypatch):
    def unreachable(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsError, match="vit_small_patch8_224.dino: no network") as raised:
        resolve("timm:vit_small_patch8_224.dino")
    assert "weights=FILE" in raised.value.hint


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_every_format_gives_the_same_tensors_in_float32(tmp_path, suffix):
    state = dino_state(dtype=torch.float16)
    back = load_state(saved(tmp_path / f"w{suffix}", state))
    assert back.keys() == state.keys()
    assert all(value.dtype == torch.float32 for value in back.values())
    assert all(torch.equal(back[key], state[key].float()) for key in state)


def test_training_checkpoints_give_their_teachers_backbone(tmp_path):
    state = dino_state()
    backbone = {f"backbone.{key}": value for key, value in state.items()}
    head = {"head.mlp.0.weight": torch.zeros(2, 2)}
    student = {f"module.{key}": value + 1 for key, value in (backbone | head).items()}
    official = {
        "student": student,
        "teacher": backbone | head,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", out_dim=65536),
    }
    nested = {"state_dict": {"model": {f"module.{key}": value for key, value in state.items()}}, "epoch": 3}
    for number, checkpoint in enumerate((official, nested, {f"_orig_mod.{k}": v for k, v in state.items()})):
        back = load_state(saved(tmp_path / f"{number}.pth", checkpoint))
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"cls_token": torch.zeros(1), "x": Payload()}, tmp_path / "w.pth")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload()))
    for name in ("w.pth", "plain.pt"):
        with pytest.raises(WeightsError, match=name):
            load_state(resolve(name))
    assert not Path("executed").exists()


def test_torn_and_empty_files_are_refused(tmp_path):
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"w{suffix}"
        saved(path, dino_state())
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(WeightsError, match=f"cannot read .*w{suffix}|not a plain checkpoint"):
            load_state(resolve(str(path)))
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        load_state(resolve(str(tmp_path / "none.pth")))


def test_official_dino_names_are_timms(tmp_path):
    state = dino_state()
    model = small_vit()
    load_into(model, load_state(saved(tmp_path / "dino.pth", {"teacher": state})), what="small ViT")
    own = model.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], state[key]) for key in state)


def test_positions_of_another_size_are_resampled_as_timm_does():
    state = dino_state(grid=14)
    model = small_vit(img_size=448)
    load_into(model, state, what="small ViT")
    want = timm.layers.resample_abs_pos_embed(state["pos_embed"], (28, 28), (14, 14), num_prefix_tokens=1)
    assert torch.equal(model.pos_embed, want)


def test_wrong_architecture_names_the_first_missing_unexpected_and_misshapen_key():
    state = dino_state(depth=4)
    del state["blocks.1.norm1.weight"]
    model = small_vit()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as raised:
        load_into(model, state, what="vit_x")
    assert "vit_x: missing blocks.1.norm1.weight; unexpected blocks.3.norm1.weight and 11 more" in str(raised.value)
    with pytest.raises(WeightsError, match=r"cls_token is \[1, 1, 24\] where the model has \[1, 1, 48\]"):
        load_into(model, dino_state(width=24), what="vit_x")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_another_patch_size_is_refused_and_not_resampled():
    with pytest.raises(WeightsError, match=r"patch_embed.proj.weight is \[48, 3, 8, 8\]"):
        load_into(small_vit(), dino_state(patch=8, grid=28), what="vit_x")


def test_what_timm_fails_to_translate_is_said_and_a_fault_of_the_machine_is_not_swallowed(monkeypatch):
    state = {**dino_state(), "pos_embed": torch.zeros(5)}
    with pytest.raises(WeightsError, match=r"pos_embed is \[5\].*; timm could not translate them either \(\w+Error: "):
        load_into(small_vit(), state, what="vit_x")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(timm.models.vision_transformer, "checkpoint_filter_fn", full)
    with pytest.raises(MemoryError):
        load_into(small_vit(), dino_state(), what="vit_x")


@pytest.mark.parametrize(
    ("name", "listed", "left_out"),
    [
        ("dino", "vit_small_patch16_224.dino", "davit_tiny"),
        ("vit_smal_patch16_224", "vit_small_patch16_224", "vit_tiny"),
        ("resnet5", "resnet50", "res2net"),
        ("nothing-alike", "none of a name like it", "resnet"),
    ],
)
def test_an_unknown_model_is_answered_by_the_families_that_hold_parts_of_its_name(name, listed, left_out):
    with pytest.raises(ConfigError) as raised:
        require_model(name)
    assert listed in str(raised.value)
    assert left_out not in str(raised.value)


def test_a_head_is_ignored_only_where_the_caller_says_so():
    state = dino_state() | {"head.weight": torch.zeros(10, 48), "head.bias": torch.zeros(10)}
    with pytest.raises(WeightsError, match="unexpected head.weight and 1 more"):
        load_into(small_vit(), state, what="vit_x")
    load_into(small_vit(), state, what="vit_x", ignore=("head.",))


def choice(weights, told, **given):
    given = {"mean": None, "std": None} | given
    return choose_preprocessing(weights, model="vit_tiny_patch16_224", stage="cls_maps", warn=told.append, **given)


def test_preprocessing_is_given_or_recorded_or_warned_about(tmp_path):
    told = []
    recorded = saved(tmp_path / "a.safetensors", dino_state(), mean="0.5", std="[0.1, 0.2, 0.3]")
    assert choice(recorded, told).mean == (0.5, 0.5, 0.5)
    assert choice(recorded, told).std == (0.1, 0.2, 0.3)
    assert choice(recorded, told, mean=[0.4, 0.5, 0.6]).mean == (0.4, 0.5, 0.6)
    silent = saved(tmp_path / "b.pth", dino_state())
    assert choice(silent, told, mean=0.1, std=0.2).std == (0.2, 0.2, 0.2)
    assert choice(resolve("random:0"), told).mean == (0.5, 0.5, 0.5)
    assert not told
    assert choice(silent, told).mean == (0.5, 0.5, 0.5)  # timm's for this model
    (line,) = told
    for words in ("b.pth", "mean 0.5,0.5,0.5", "vit_tiny_patch16_224", "cls_maps.mean=", "cls_maps.std="):
        assert words in line


def test_impossible_preprocessing_is_refused(tmp_path):
    weights = saved(tmp_path / "a.safetensors", dino_state(), mean="half", std="0.5")
    with pytest.raises(WeightsError, match="mean in the metadata of .*a.safetensors"):
        recorded_preprocessing(weights)
    for given in ({"mean": [1, 2]}, {"std": 0.0}, {"mean": float("nan")}):
        with pytest.raises(WeightsError, match="cls_maps"):
            choice(weights, [], **({"mean": 0.5, "std": 0.5} | given))


def test_shared_weights_record_their_preprocessing(shared):
    weights = resolve(str(shared / "weights/vit_tiny_patch16_224_in1k.safetensors"))
    assert isinstance(weights, Weights)
    assert recorded_preprocessing(weights).mean == (0.5, 0.5, 0.5)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    load_into(model, load_state(weights), what="vit_tiny_patch16_224", ignore=("head.",))
