"""Weights of CLIP in every layout, and what files that do not fit are told."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from clip_oracle import random_state
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.models import clip_config
from wsolpipe.models.clip import load_clip
from wsolpipe.models.clip_files import ClipState, decide_gelu
from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.sources import Weights
from wsolpipe.networks.torchscript import read_archive

# Archives are written here with the very function that made OpenAI's.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")

MARKS = {"input_resolution": torch.tensor(64), "context_length": torch.tensor(16), "vocab_size": torch.tensor(49408)}
PARTS = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
STATE = random_state(width=64, layers=2)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WORDS = ["a photo of a cat.", "a clean origami sky."]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.json"
    path.write_text(json.dumps(PARTS))
    return str(path)


def network(*, quick, state=None):
    model = CLIP(**PARTS, quick_gelu=quick).eval()
    model.load_state_dict(state or STATE)
    return model


class Published(torch.nn.Module):
    """A program around the network, with the three numbers beside it, as OpenAI's archives have them."""

    def __init__(self, model):
        super().__init__()
        for name, part in model.named_children():
            setattr(self, name, part)
        for name, value in model.named_parameters(recurse=False):
            setattr(self, name, value)
        for name, value in MARKS.items():
            self.register_buffer(name, value)

    def forward(self, images):
        return (
            self.visual(images) * self.logit_scale.exp()
            + self.ln_final.weight[:24].sum()
            + self.positional_embedding.sum()
        )


def save_archive(path, dtype=torch.float32):
    model = Published(network(quick=True).to(dtype))
    model.text_projection = torch.nn.Parameter(STATE["text_projection"].to(dtype))
    traced = torch.jit.trace(model, IMAGES[:1].to(dtype), check_trace=False)
    torch.jit.save(traced, path)


def written(layout, folder):
    """A file of the layout, and whether it is run with QuickGELU."""
    path = folder / "clip.pt"
    if layout == "openai archive":
        save_archive(path)
    elif layout == "openai state dict":
        torch.save(OrderedDict(STATE | MARKS), path)
    elif layout == "openai safetensors":
        path = path.with_suffix(".safetensors")
        save_file(STATE | MARKS, path)
    elif layout == "open_clip checkpoint":
        torch.save(
            {"epoch": 3, "name": "run", "state_dict": {f"module.{key}": value for key, value in STATE.items()}}, path
        )
    elif layout == "open_clip state dict":
        torch.save(STATE, path)
    else:
        path = path.with_suffix(".safetensors")
        save_file(STATE, path)
    return path


@pytest.mark.parametrize("model", ["named", "inferred"])
@pytest.mark.parametrize(
    "layout",
    [
        "openai archive",
        "openai state dict",
        "openai safetensors",
        "open_clip checkpoint",
        "open_clip state dict",
        "open_clip safetensors",
    ],
)
def test_every_layout_gives_the_outputs_of_the_network_that_was_saved(layout, model, config, tmp_path):
    quick = layout.startswith("openai")
    weights = resolve(str(written(layout, tmp_path)))
    clip = load_clip(
        config if model == "named" else None, weights, quick_gelu=None if quick or model == "named" else False
    )
    wanted = network(quick=quick)
    with torch.no_grad():
        torch.testing.assert_close(clip.model.encode_image(IMAGES), wanted.encode_image(IMAGES))
        words = clip._tokenise(WORDS)
        torch.testing.assert_close(clip.encode_text(WORDS), wanted.encode_text(words, normalize=True))


def test_half_precision_archives_are_read_as_float32(tmp_path):
    save_archive(tmp_path / "half.pt", torch.bfloat16)
    tensors = read_archive(tmp_path / "half.pt")
    assert tensors["visual.proj"].dtype == torch.bfloat16
    clip = load_clip(None, resolve(str(tmp_path / "half.pt")))
    assert clip.model.visual.proj.dtype == torch.float32
    torch.testing.assert_close(clip.model.visual.proj, STATE["visual.proj"].bfloat16().float())


def test_the_archive_reader_gives_what_torch_gives_for_the_same_file(tmp_path):
    save_archive(tmp_path / "clip.pt")
    wanted = torch.jit.load(tmp_path / "clip.pt").state_dict()  # our own file: its program is known
    found = read_archive(tmp_path / "clip.pt")
    assert set(found) >= set(wanted)
    for key, value in wanted.items():
        assert torch.equal(found[key], value)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_inside_an_archive_runs_nothing(tmp_path):
    path, mark = tmp_path / "evil.pt", tmp_path / "mark"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/constants.pkl", b"")
        archive.writestr("evil/data.pkl", pickle.dumps(Evil(str(mark)), protocol=2))
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_clip(None, resolve(str(path)))
    assert not mark.exists()


def test_a_torn_archive_is_told_to_be_torn(tmp_path):
    path = tmp_path / "clip.pt"
    save_archive(path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "torn.pt", "w") as torn:
        for name in whole.namelist():
            if not name.endswith("/data/3"):
                torn.writestr(name, whole.read(name))
    with pytest.raises(WeightsError, match="cannot read .*torn.pt as a TorchScript archive"):
        load_clip(None, resolve(str(tmp_path / "torn.pt")))


def test_quick_gelu_can_be_set_against_what_the_layout_says(config, tmp_path):
    path = str(written("open_clip safetensors", tmp_path))
    clip = load_clip(config, resolve(path), quick_gelu=True)
    with torch.no_grad():
        torch.testing.assert_close(clip.model.encode_image(IMAGES), network(quick=True).encode_image(IMAGES))


@pytest.mark.parametrize("model", [None, "ViT-B-16", "ViT-B/16"])
def test_tensors_that_do_not_say_their_activation_are_refused(model, tmp_path):
    """As `clip.load(...)[0].state_dict()` saves them: OpenAI's tensors without the three numbers beside them."""
    weights = resolve(str(written("open_clip state dict", tmp_path)))
    with pytest.raises(ConfigError, match="clip.pt does not say how it was trained") as raised:
        load_clip(model, weights)
    assert "quick_gelu=true" in raised.value.hint
    assert "quick_gelu=false" in raised.value.hint
    for quick in (True, False):
        clip = load_clip(None, weights, quick_gelu=quick)
        with torch.no_grad():
            torch.testing.assert_close(clip.model.encode_image(IMAGES), network(quick=quick).encode_image(IMAGES))


def test_a_name_that_says_the_activation_or_has_only_one_is_taken():
    def decided(name):
        state = ClipState(STATE, "open_clip")
        return decide_gelu(clip_config.read_config(name), state, Weights("0", "clip.pt", Path("clip.pt")), None)

    assert decided("ViT-B-16-quickgelu")
    assert not decided("ViT-B-16-plus")
    assert not decided("EVA02-B-16")
    with pytest.raises(ConfigError, match="QuickGELU"):
        decided("ViT-L-14")


def test_a_custom_text_tower_takes_a_plain_files_text_keys(tmp_path):
    path, custom = tmp_path / "custom.json", PARTS | {"custom_text": True}
    path.write_text(json.dumps(custom))
    clip = load_clip(str(path), resolve(str(written("open_clip safetensors", tmp_path))))
    assert torch.equal(clip.model.text.text_projection, STATE["text_projection"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("visual.ln_post.bias"), "missing visual.ln_post.bias$"),
        (lambda state: state.update({"visual.extra": torch.zeros(2)}), "unexpected visual.extra$"),
        (
            lambda state: state.update({"visual.proj": torch.zeros(64, 25)}),
            r"visual.proj is \[64, 25\] where .* \[64, 24\]",
        ),
        (lambda state: [state.pop(key) for key in list(state) if "resblocks.1" in key], "missing .* and 11 more"),
    ],
    ids=["missing", "unexpected", "shape", "shallower"],
)
def test_a_file_that_does_not_fit_says_which_keys(change, message, config, tmp_path):
    state = dict(STATE)
    change(state)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError) as error:
        load_clip(config, resolve(str(tmp_path / "wrong.safetensors")))
    assert "do not fit small.json" in error.value.message
    assert re.search(message, error.value.message)


def test_a_file_of_another_kind_shows_its_keys_and_ours(config, tmp_path):
    save_file({"backbone.conv.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="none of the 1 tensors .* conv.weight") as error:
        load_clip(config, resolve(str(tmp_path / "other.safetensors")))
    assert "logit_scale" in str(error.value.hint) or "visual" in str(error.value.hint)
    with pytest.raises(ConfigError, match="it has no visual.conv1.weight"):
        load_clip(None, resolve(str(tmp_path / "other.safetensors")))


def test_names_that_open_clip_does_not_know_are_answered_with_near_ones():
    with pytest.raises(ConfigError, match="ViT-B-16"):
        clip_config.read_config("ViT-B-15")
    with pytest.raises(WeightsError, match="openai"):
        resolve("open_clip:ViT-B-16/openia")
    with pytest.raises(WeightsError, match="no published weights of 'nothing'"):
        resolve("open_clip:nothing/openai")


def test_published_weights_have_their_tag_and_their_quick_gelu():
    name, tag, entry = clip_config.published("ViT-B/16/")
    assert (name, tag, entry["quick_gelu"]) == ("ViT-B-16", "openai", True)
    assert clip_config.published("EVA02-L-14/")[1] == "merged2b_s4b_b131k"


def test_published_weights_in_the_cache_need_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    entry = {"url": "https://example.invalid/clip.pt"}
    monkeypatch.setattr(clip_config, "published", lambda spec: ("ViT-B-16", "own", entry))
    assert resolve("open_clip:ViT-B-16/own", fetch=False) is None
    path = tmp_path / ".cache/clip/clip.pt"
    path.parent.mkdir(parents=True)
    torch.save(STATE, path)
    found = resolve("open_clip:ViT-B-16/own", fetch=False)
    assert found is not None
    assert (found.path, found.source) == (path, "open_clip:ViT-B-16/own")


@pytest.mark.parametrize(
    ("tower", "reason"),
    [
        ({"layers": [1, 1, 1, 1], "width": 16, "head_width": 64}, "not a vision transformer"),
        ({"attentional_pool": True, "attn_pooler_heads": 1}, "pools by attention"),
        ({"scaled_cosine_attn": True}, "on cosines"),
        ({"timm_model_name": "vit_tiny_patch16_gap_224.none"}, "cannot build"),
        ({"timm_model_name": "vit_small_r26_s32_224", "timm_pool": "token", "timm_proj": "linear"}, "convolutional"),
        ({"timm_model_name": "test_vit3", "timm_pool": "avg", "timm_proj": "linear"}, "no class token"),
    ],
)
def test_towers_whose_patches_or_attention_are_of_another_kind_are_refused(tower, reason, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(PARTS | {"vision_cfg": PARTS["vision_cfg"] | tower}))
    with pytest.raises(ConfigError, match=reason):
        load_clip(str(path), resolve("random:0"))


def test_a_configuration_says_how_its_images_are_normalised_and_enters_keys_by_content(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"model_cfg": PARTS, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": 0.25}}))
    config = clip_config.read_config(str(path))
    assert (config.mean, config.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    twin = tmp_path / "b.json"
    twin.write_text(path.read_text())
    assert clip_config.in_key(str(path)) == clip_config.in_key(str(twin)) != clip_config.in_key("ViT-B-16")
    path.write_text(json.dumps({"embed_dim": 3}))
    with pytest.raises(ConfigError, match="lacks vision_cfg, text_cfg"):
        clip_config.in_key(str(path))


def test_texts_are_encoded_as_open_clip_does_and_names_are_means_over_templates(config, tmp_path):
    clip = load_clip(config, resolve(str(written("open_clip safetensors", tmp_path))))
    templates = ["a photo of a {}.", "{}"]
    units = [clip.encode_text([template.replace("{}", name) for template in templates]) for name in ("cat", "dog")]
    wanted = torch.stack([rows.mean(0) / rows.mean(0).norm() for rows in units])
    torch.testing.assert_close(clip.encode_names(["cat", "dog"], templates), wanted)
    assert clip.encode_text([]).shape == clip.encode_names([], templates).shape == (0, 24)
    with pytest.raises(ConfigError, match="no {}"):
        clip.encode_names(["cat"], ["a photo."])
