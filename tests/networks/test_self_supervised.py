"""Every self-supervised transformer of the tables: maps by the model's own attention, files by the official names.

The files are written here with random tensors under the names and nestings of the released ones.
"""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import nn

from networks.checkpoints import dino_state
from networks.test_vit import TINY, stirred
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.attention import WindowAttentionShares
from wsolpipe.networks.positions import stretch
from wsolpipe.networks.vit import build_vit
from wsolpipe.networks.weights import HEAD_KEYS, load_into, load_state
from wsolpipe.stages.base import Context
from wsolpipe.stages.cls_maps import ClsMaps
from wsolpipe.stages.registry import load_registry

SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 2], "num_heads": [1, 1, 2, 4]}


def small_swin(size=224, seed=0, **options):
    return stirred(build_vit("swin_tiny_patch4_window7_224", size=size, model_args=SWIN | options, windows=True), seed)


def own_attention(swin, images, block):
    """What timm's own unfused forward drops out in a block of the last stage: float [windows, heads, N, N]."""
    layer, seen = swin.layers[-1].blocks[block].attn, {}
    layer.fused_attn = False
    hook = layer.attn_drop.register_forward_pre_hook(lambda module, args: seen.update(found=args[0]))
    with torch.inference_mode():
        swin.forward_features(images)
    hook.remove()
    return seen["found"]


@pytest.mark.parametrize(("size", "block"), [(224, 1), (448, 0), (448, 1), (96, 1)])
def test_window_shares_are_the_models_own_attention_averaged_over_queries_and_stitched(size, block):
    swin = small_swin(size)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    reader = WindowAttentionShares(swin, (block,))
    with torch.inference_mode():
        maps = reader(images)[:, 0]
    side, last = size // 32, swin.layers[-1].blocks[block]
    shift, window = last.shift_size[0], last.window_size[0]
    assert shift == (3 if (size, block) == (448, 1) else 0)
    assert maps.shape == (2, 4, side, side) == (2, 4, *reader.grid((size, size)))
    full, per_row = own_attention(swin, images, block), side // window
    wanted = np.zeros(maps.shape)
    for number, attention in enumerate(full.numpy()):
        image, place = divmod(number, per_row**2)
        top, left = divmod(place, per_row)
        for cell in range(window**2):
            y, x = top * window + cell // window + shift, left * window + cell % window + shift
            wanted[image, :, y % side, x % side] = attention[:, :, cell].mean(axis=1)
    np.testing.assert_allclose(maps.numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(maps.sum(dim=(2, 3)), per_row**2, atol=1e-4)
    assert wanted.max() > 1.5 * wanted.mean()


def microsofts(swin):
    """State under the official names: a stage ends with the downsampling that timm's next one begins with."""
    names = {
        re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name): value
        for name, value in swin.state_dict().items()
    }
    buffers = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    return names | buffers


def write(path, content):
    torch.save(content, path)
    return resolve(str(path))


def test_esvit_files_give_the_teachers_swin_whatever_their_heads(tmp_path):
    swin = small_swin(seed=3)
    state = microsofts(swin)
    heads = {"head.mlp.0.weight": torch.zeros(2, 2), "head_dense.last_layer.weight_g": torch.zeros(2, 1)}
    official = {
        "teacher": {f"backbone.{name}": value for name, value in state.items()} | heads,
        "student": {f"module.backbone.{name}": value + 1 for name, value in state.items() if value.is_floating_point()},
        "epoch": 300,
    }
    for number, content in enumerate((official, {"state_dict": state | heads})):
        back = small_swin(seed=4)
        load_into(back, load_state(write(tmp_path / f"{number}.pth.tar", content)), what="swin", ignore=HEAD_KEYS)
        assert all(torch.equal(value, swin.state_dict()[name]) for name, value in back.state_dict().items())


def test_tables_of_relative_positions_are_stretched_to_another_window(tmp_path):
    beit = {**TINY, "use_abs_pos_emb": False}
    for small, large in (
        (small_swin(224), small_swin(384, window_size=12)),
        tuple(build_vit("beit_base_patch16_224", size=size, model_args=beit) for size in (96, 160)),
    ):
        state = load_state(write(tmp_path / "w.pth", small.state_dict()))
        load_into(large, state, what="the model", ignore=HEAD_KEYS)
        tables = [name for name in state if name.endswith("relative_position_bias_table")]
        assert tables
        changed = [large.state_dict()[name].shape != state[name].shape for name in tables]
        assert any(changed)


class CfgNode(dict):
    """As yacs pickles its configuration: a dictionary with attributes of its own, and others inside."""

    def __init__(self, **values):
        super().__init__(values)
        self.__dict__["__immutable__"] = True


class Odd:
    """Of a class that nobody knows."""


@pytest.fixture
def yacs(monkeypatch):
    """yacs as a module that is there only while a file is written."""
    monkeypatch.setattr(CfgNode, "__module__", "yacs.config")
    package, module = ModuleType("yacs"), ModuleType("yacs.config")
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", package)
    monkeypatch.setitem(sys.modules, "yacs.config", module)


def simmims(**other):
    """SimMIM's encoder, whose blocks share one table, and its checkpoint under the official names."""
    shared = TINY | {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "img_size": 96, "num_classes": 0}
    vit = stirred(timm.create_model("beit_base_patch16_224", **shared)).eval()
    encoder = {f"encoder.{name}": value for name, value in vit.state_dict().items() if "fc_norm" not in name}
    encoder |= {
        "encoder.rel_pos_bias.relative_position_index": torch.zeros(37, 37, dtype=torch.int64),
        "encoder.mask_token": torch.zeros(1, 1, 48),
        "encoder.norm.weight": torch.ones(48),
        "encoder.norm.bias": torch.zeros(48),
    }
    return vit, {"model": encoder | {"decoder.0.weight": torch.zeros(3, 48, 1, 1)}, "epoch": 799} | other


BEIT = ("beit_base_patch16_224", 96, TINY)


def test_simmims_shared_table_gives_each_block_the_attention_of_its_own_encoder(tmp_path, yacs):
    vit, official = simmims(config=CfgNode(MODEL=CfgNode(VIT=CfgNode(USE_SHARED_RPB=True)), TAG="s"), max_accuracy=0.0)
    path = write(tmp_path / "s.pth", official).path
    del sys.modules["yacs"], sys.modules["yacs.config"]  # where the file is read nobody has yacs
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3)).astype(np.uint8)
    last, seen = vit.blocks[-1].attn, {}
    last.fused_attn = False
    last.attn_drop.register_forward_pre_hook(lambda module, args: seen.update(found=args[0]))
    with torch.inference_mode():
        vit.forward_features(torch.from_numpy(pixels / 127.5 - 1).float().permute(0, 3, 1, 2))
    maps = maps_of(path, *BEIT)
    np.testing.assert_allclose(maps[:, 1:], seen["found"][:, :, 0, 1:].reshape(1, 4, 6, 6), atol=1e-5)
    assert maps_of(path, "beit_base_patch16_224", 128, TINY).shape == (1, 5, 8, 8)


def test_a_file_with_tables_of_both_kinds_is_refused(tmp_path):
    _, official = simmims()
    table = official["model"]["encoder.rel_pos_bias.relative_position_bias_table"]
    official["model"] |= {f"encoder.blocks.{n}.attn.relative_position_bias_table": table for n in range(3)}
    with pytest.raises(WeightsError, match="unexpected rel_pos_bias.relative_position_bias_table"):
        maps_of(write(tmp_path / "s.pth", official).path, *BEIT)


def test_a_class_that_is_not_read_is_named_and_its_tensors_alone_are_read(tmp_path):
    _, official = simmims(config=Odd())
    path = write(tmp_path / "s.pth", official).path
    with pytest.raises(WeightsError, match=r"holds \S*test_self_supervised\.Odd, and only tensors") as raised:
        maps_of(path, *BEIT)
    assert "save tensors alone" in raised.value.hint
    assert maps_of(write(tmp_path / "tensors.pth", official["model"]).path, *BEIT).shape == (1, 5, 6, 6)


@pytest.mark.parametrize("name", ["simmim", "moco v3", "mae", "esvit", "plain"])
def test_released_checkpoints_are_seen_as_they_were_trained_and_the_key_says_so(tmp_path, name):
    heads = {"teacher": STATE | {"head.last_layer.weight_g": torch.zeros(2, 1)}}
    content = {"simmim": simmims()[1], "esvit": heads, "plain": {"state_dict": STATE}} | FILES
    path, warnings = write(tmp_path / "w.pth", content[name]).path, []
    model, size, model_args = BEIT if name == "simmim" else VIT
    stage = stage_of(path, model, size, model_args, warnings, mean=None, std=None)
    black = stage.normalise(np.zeros((1, size, size, 3), np.uint8))[0, :, 0, 0].tolist()
    key = stage.params.in_key()
    if name == "plain":
        assert black == [-1, -1, -1]
        assert key["mean"] is None
        assert "does not record its preprocessing" in warnings[0]
    else:
        assert black == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rel=1e-5)
        assert (key["mean"], key["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        assert not warnings
    given = stage_of(path, model, size, model_args, mean=0.25, std=None)
    assert given.params.in_key()["mean"] == 0.25
    assert given.normalise(np.zeros((1, size, size, 3), np.uint8))[0, 0, 0, 0] < 0


def stage_of(path, model, size, model_args, warnings=None, **given):
    params = {"model": model, "size": size, "model_args": model_args, "weights": str(path), "mean": 0.5, "std": 0.5}
    chosen = load_registry().params("cls_maps", params | {"positions": "timm"} | given)
    told = [] if warnings is None else warnings
    context = Context(dataset="d", weights={"model": resolve(str(path))}, warn=told.append)
    made = ClsMaps(chosen, context)
    made.setup()
    return made


def maps_of(path, model, size, model_args, **given):
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    return stage_of(path, model, size, model_args, **given).attend(pixels)


VIT = ("vit_tiny_patch16_224", 96, TINY)
STATE = dino_state(grid=6)
OTHER = {name: value + 0.1 for name, value in STATE.items()}
MODULE = {f"module.base_encoder.{name}": value for name, value in STATE.items()}
MOMENTUM = {f"module.momentum_encoder.{name}": value for name, value in OTHER.items()}
FILES = {
    "moco v3": {"arch": "vit_small", "state_dict": MODULE | MOMENTUM | {
        "module.base_encoder.head.0.weight": torch.zeros(2, 2), "module.predictor.0.weight": torch.zeros(2, 2),
    }},
    "mae": {"model": STATE | {
        "mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 37, 8),
        "decoder_blocks.0.norm1.weight": torch.zeros(8), "decoder_embed.weight": torch.zeros(8, 48),
    }},
    "ibot": {"state_dict": STATE | {"masked_embed": torch.zeros(1, 48), "head.last_layer.weight_v": torch.zeros(2, 2)}},
    "ibot's pair": {
        "student": {f"module.backbone.{name}": value for name, value in OTHER.items()},
        "teacher": {f"backbone.{name}": value for name, value in STATE.items()},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_official_files_of_vits_give_the_network_that_is_evaluated(tmp_path, name):
    plain = maps_of(write(tmp_path / "plain.pth", STATE).path, *VIT)
    found = maps_of(write(tmp_path / "official.pth.tar", FILES[name]).path, *VIT)
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize(("name", "part"), [("moco v3", "momentum_encoder"), ("ibot's pair", "student")])
def test_another_part_of_a_checkpoint_is_taken_by_name(tmp_path, name, part):
    path = write(tmp_path / "official.pth", FILES[name]).path
    other = maps_of(write(tmp_path / "other.pth", OTHER).path, *VIT)
    np.testing.assert_array_equal(maps_of(path, *VIT, weights_part=part), other)
    assert not np.array_equal(maps_of(path, *VIT), other)
    with pytest.raises(WeightsError, match="holds no part"):
        maps_of(write(tmp_path / "plain.pth", STATE).path, *VIT, weights_part=part)


def test_the_part_is_in_the_key_where_it_is_given():
    params = load_registry().params
    assert "weights_part" not in params("cls_maps").in_key()
    assert params("cls_maps", {"weights_part": "student"}).in_key()["weights_part"] == "student"
    with pytest.raises(ConfigError, match="weights_part=student is for a file of several networks"):
        params("cls_maps", {"weights_part": "student", "weights": "random:0"})


def test_dinov2_and_v3_with_registers_are_read_by_their_official_names(tmp_path, capsys):
    v2 = stirred(build_vit("vit_small_patch14_reg4_dinov2", size=112, model_args=TINY))
    official = {name.replace("reg_token", "register_tokens"): value for name, value in v2.state_dict().items()}
    official["pos_embed"] = torch.cat([torch.randn(1, 1, 48), official["pos_embed"]], dim=1)  # one for the class token
    official["cls_token"] = official["cls_token"] - official["pos_embed"][:, :1]  # which timm adds to the token itself
    official["mask_token"] = torch.zeros(1, 48)
    found = maps_of(write(tmp_path / "v2.pth", official).path, "vit_small_patch14_reg4_dinov2", 112, TINY)
    plain = maps_of(write(tmp_path / "v2p.pth", v2.state_dict()).path, "vit_small_patch14_reg4_dinov2", 112, TINY)
    np.testing.assert_allclose(found, plain, atol=1e-6)
    v3 = stirred(build_vit("vit_small_patch16_dinov3", size=96, model_args=TINY))
    names = (("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"))
    official = {}
    for name, value in v3.state_dict().items():
        for own, theirs in names:
            name = name.replace(own, theirs)
        official[name] = value
    official |= {"mask_token": torch.zeros(1, 48), "rope_embed.periods": torch.ones(3)}
    for number in range(3):
        official |= {f"blocks.{number}.attn.qkv.{part}": torch.zeros(144) for part in ("bias", "bias_mask")}
    found = maps_of(write(tmp_path / "v3.pth", official).path, "vit_small_patch16_dinov3", 96, TINY)
    plain = maps_of(write(tmp_path / "v3p.pth", v3.state_dict()).path, "vit_small_patch16_dinov3", 96, TINY)
    np.testing.assert_array_equal(found, plain)
    assert capsys.readouterr().out == ""


def test_positions_of_dinov2_with_registers_are_stretched_as_asked(tmp_path):
    model, trained = "vit_small_patch14_reg4_dinov2", 112
    vit = stirred(build_vit(model, size=trained, model_args=TINY))
    official = {name.replace("reg_token", "register_tokens"): value for name, value in vit.state_dict().items()}
    official["pos_embed"] = torch.cat([torch.zeros(1, 1, 48), vit.pos_embed], dim=1)
    official["mask_token"] = torch.zeros(1, 48)
    path = write(tmp_path / "v2.pth", official).path
    for positions in ("dino", "bilinear", "timm"):
        table = stretch(vit.pos_embed[0], (8, 8), (14, 14), prefix=0, positions=positions)[None]
        plain = write(tmp_path / f"{positions}.pth", {**vit.state_dict(), "pos_embed": table}).path
        found = maps_of(path, model, 196, TINY, positions=positions)
        np.testing.assert_allclose(found, maps_of(plain, model, 196, TINY), atol=1e-6)
    assert not np.allclose(found, maps_of(path, model, 196, TINY, positions="dino"), atol=1e-4)


def test_mocos_small_transformer_in_timms_is_said():
    said = []
    stage = SimpleNamespace(reader=SimpleNamespace(heads=6), context=SimpleNamespace(warn=said.append))
    fixed = torch.ones(1, 197, 384)
    fixed[0, 0] = 0
    for heads, table in ((6, torch.ones(1, 197, 384)), (12, fixed), (6, fixed)):
        stage.reader.heads = heads
        ClsMaps._look_for_moco(stage, SimpleNamespace(embed_dim=384), {"pos_embed": table})
    assert len(said) == 1
    assert "num_heads=12" in said[0]


@pytest.mark.parametrize(
    ("model", "size", "options", "words"),
    [
        ("vit_tiny_patch16_224", 96, {"class_token": False, "global_pool": "avg"}, "no class token"),
        ("swin_tiny_patch4_window7_224", 288, SWIN, "set size=224 or 448"),
        ("swin_tiny_patch4_window7_224", 230, SWIN, "set size=224 or 448"),
        ("swinv2_tiny_window8_256", 256, {}, "no class token"),
        ("resnet18", 96, {}, "it is not a vision transformer"),
    ],
)
def test_what_gives_no_maps_says_what_is_missing(model, size, options, words):
    with pytest.raises(ConfigError) as raised:
        build_vit(model, size=size, model_args=options, windows=True)
    assert words in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize(
    ("state", "model_args", "words"),
    [
        (dino_state(patch=8, grid=12), TINY, r"patch_embed.proj.weight is \[48, 3, 8, 8\]"),
        (
            {f"net.{name}": value for name, value in STATE.items()},
            TINY,
            "missing cls_token .* unexpected net.cls_token",
        ),
        ({name: value for name, value in STATE.items() if name != "cls_token"}, TINY, "missing cls_token"),
        (STATE | {"pos_embed": torch.zeros(5)}, TINY, r"pos_embed is \[5\] where the model has \[1, 37, 48\]"),
    ],
)
def test_files_that_do_not_fit_name_the_tensor(tmp_path, state, model_args, words):
    with pytest.raises(WeightsError, match=words):
        maps_of(write(tmp_path / "w.pth", state).path, "vit_tiny_patch16_224", 96, model_args)


@pytest.mark.parametrize(("model", "size"), [("vit_tiny_patch16_224", 16), ("swin_tiny_patch4_window7_224", 32)])
def test_maps_of_a_single_cell_are_refused(model, size):
    made = load_registry().params("cls_maps", {"model": model, "size": size})
    with pytest.raises(ConfigError, match=f"size={size} leaves {model} a single cell"):
        ClsMaps(made, Context(dataset="d", weights={"model": resolve("random:0")})).setup()


@pytest.mark.parametrize("size", [196, 227, 225, 224, 420, 448])
def test_a_swin_takes_every_side_whose_windows_tile_its_last_stage(size):
    cells = 7 if size < 230 else 14
    assert WindowAttentionShares(small_swin(size), (1,)).grid((size, size)) == (cells, cells)


def test_a_swin_in_the_stage_gives_a_map_a_head_and_their_mean():
    made = load_registry().params(
        "cls_maps", {"model": "swin_tiny_patch4_window7_224", "model_args": SWIN, "mean": 0.5, "std": 0.5}
    )
    stage = ClsMaps(made, Context(dataset="d", weights={"model": resolve("random:0")}))
    stage.setup()
    spec = stage.arrays()["maps"]
    assert spec.shape == (5, 7, 7)
    assert spec.meaning.startswith("share of attention that each cell receives")
    maps = stage.attend(np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8))
    np.testing.assert_allclose(maps[:, 0], maps[:, 1:].mean(axis=1), rtol=1e-5)
    assert isinstance(stage.reader, nn.Module)


def test_a_swin_away_from_its_trained_size_says_for_which_grid_it_is_built():
    told = []
    for size in (224, 448):
        params = {"model": "swin_tiny_patch4_window7_224", "model_args": SWIN, "mean": 0.5, "std": 0.5, "size": size}
        context = Context(dataset="d", weights={"model": resolve("random:0")}, warn=told.append)
        ClsMaps(load_registry().params("cls_maps", params), context).setup()
    (line,) = told
    assert "built for 448 pixels: 14 x 14 cells in its last stage, in windows of 7" in line
    assert "shifts them by 3; EsViT's own code builds it for 224 pixels" in line
