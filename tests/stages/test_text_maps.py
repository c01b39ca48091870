"""The stages of texts, driven directly with small random networks: what is stored, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from safetensors.torch import save_file

from stages.drawn import draw
from tiny_models import save_clipseg
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.maps.levels import dequantise
from wsolpipe.models.clip_texts import load_texts
from wsolpipe.models.weight_sources import resolve
from wsolpipe.stages.base import Context
from wsolpipe.stages.clipseg_cams import ClipsegCams
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.text_anchors import TextAnchors
from wsolpipe.stages.text_maps import TextMaps

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {0: "red box", 1: "green box", 2: "blue box", 3: "yellow box"}
CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def context(weights: str, **fields: Any) -> Context:
    resolved = resolve(weights)
    assert resolved is not None
    return Context(**{"dataset": "d", "class_names": NAMES, "weights": {"model": resolved}, **fields})


def text_maps(model: str, surroundings: dict[str, Any] | None = None, **params: Any) -> TextMaps:
    chosen = load_registry().params("text_maps", {"model": model, "weights": "random:2", "batch": 4, **params})
    made = TextMaps(chosen, context("random:2", **(surroundings or {})))  # type: ignore[arg-type]
    made.setup()
    return made


def test_stored_maps_are_cosines_of_the_rows_own_class_method_by_method(model: str) -> None:
    made, drawn = text_maps(model), draw(6)
    rows = drawn.rows(bad=[2])
    arrays = made.process(rows, {})
    assert {name: array.shape[1:] for name, array in arrays.items()} == {
        name: spec.shape for name, spec in made.arrays().items()
    }
    assert arrays["maps"].shape == (6, 3, 4, 4)
    assert [rows.status[at] for at in (1, 2)] == [Status.OK, Status.QUARANTINED]
    assert arrays["class_ids"].tolist() == [
        [label] * 3 if at != 2 else [-1] * 3 for at, label in enumerate([0, 1, 2, 3, 0, 1])
    ]
    pixels = np.stack([made.fit(drawn.images[at], at) for at in (0, 1, 3)])
    want, _ = made.make_maps(pixels, [0, 1, 3], [0, 1, 3])
    stored = dequantise(arrays["maps"][[0, 1, 3]], arrays["range"][[0, 1, 3]])
    assert np.abs(stored - want).max() <= np.ptp(want, axis=(2, 3)).max() / 510 + 1e-6
    for slot, name in enumerate(("vanilla", "sclip", "naclip")):
        alone = text_maps(model, methods=name)
        assert np.allclose(alone.make_maps(pixels, [0, 1, 3], [0, 1, 3])[0][:, 0], want[:, slot], atol=1e-6)


def test_top_five_are_the_classes_nearest_to_the_image_best_first(model: str) -> None:
    many = {number: f"thing number {number}" for number in range(40)}
    made = text_maps(model, {"class_names": many}, target="top5", methods="sclip")
    pixels = np.stack([made.fit(image, 0) for image in draw(3).images])
    _, classes = made.make_maps(pixels, [0, 0, 0], [0, 1, 2])
    with torch.no_grad():
        vectors = made.clip.model.encode_image(made.clip.normalise(pixels), normalize=True)
    cosines = vectors @ made.clip.encode_names(list(many.values()), made.params.prompts).T
    assert classes.tolist() == cosines.topk(5).indices.tolist()


def test_row_without_label_is_given_up_and_label_without_name_is_a_mistake_of_the_list(model: str) -> None:
    made, drawn = text_maps(model), draw(3)
    rows = drawn.rows(labels=[[0], [], [1]])
    arrays = made.process(rows, {})
    assert [int(status) for status in rows.status] == [Status.OK, Status.QUARANTINED, Status.OK]
    assert "no label" in rows.reasons[1]
    assert arrays["class_ids"][:, 0].tolist() == [0, -1, 1]
    with pytest.raises(ConfigError, match="label 9 has no name in data set d"):
        made.process(drawn.rows(labels=[[0], [9], [1]]), {})


def test_maps_that_are_not_finite_give_up_their_row_alone(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = text_maps(model), draw(3).rows()
    make_maps = made.make_maps

    def broken(pixels: Any, labels: Any, numbers: Any) -> Any:
        maps, classes = make_maps(pixels, labels, numbers)
        maps[1, 0, 0, 0] = np.nan
        return maps, classes

    monkeypatch.setattr(made, "make_maps", broken)
    made.process(rows, {})
    assert [int(status) for status in rows.status] == [Status.OK, Status.QUARANTINED, Status.OK]


def test_mistakes_in_parameters_are_named_before_any_image_is_read(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="text_maps.size=30 is not a multiple of the patch size 8"):
        text_maps(model, size=30)
    with pytest.raises(ConfigError, match="names no classes"):
        text_maps(model, {"class_names": {}})
    with pytest.raises(ConfigError, match=r"'a photo' has no \{\}"):
        text_maps(model, prompts="a photo")
    with pytest.raises(ConfigError, match="did you mean 'methods'"):
        text_maps(model, method="sclip")
    listed = tmp_path / "classes.yaml"
    listed.write_text("names: [green box, red box, blue box, yellow box]\n")
    with pytest.raises(ConfigError, match="label 0 is 'red box' in data set d and 'green box'"):
        text_maps(model, classes=str(listed))


def test_key_holds_what_files_say_and_nothing_that_is_not_used(model: str, tmp_path: Path) -> None:
    def key(**params: Any) -> dict[str, Any]:
        return load_registry().params("text_maps", {"model": model, "weights": "random:2", **params}).in_key()

    copy = tmp_path / "elsewhere.json"
    copy.write_text(json.dumps(CONFIG, indent=3))
    assert key(model=str(copy)) == key()
    assert key(methods="sclip", sigma=2.0) == key(methods="sclip")
    assert key(sigma=2.0) != key()
    listed = tmp_path / "classes.yaml"
    listed.write_text("names: [a, b]\n")
    first = key(classes=str(listed))
    listed.write_text("names: [a, b: c]\n")
    assert key(classes=str(listed)) != first


# -- anchors -------------------------------------------------------------------------------------------------------


def anchors(model: str, names: dict[int, str] = NAMES, **params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    chosen = load_registry().params("text_anchors", {"model": model, "weights": "random:2", **params})
    made = TextAnchors(chosen, context("random:2", class_names=names)).produce({})  # type: ignore[arg-type]
    assert set(made.files) == {"anchors.safetensors", "anchors.json"}
    return load(made.files["anchors.safetensors"]), json.loads(made.files["anchors.json"])


def test_anchors_are_orthonormal_in_the_order_of_the_labels_on_the_side_of_their_texts(model: str) -> None:
    tensors, about = anchors(model)
    rows, plain = tensors["anchors"].astype(np.float64), tensors["plain"].astype(np.float64)
    assert np.abs(rows @ rows.T - np.eye(4)).max() < 1e-6
    assert about["prompts"] == list(NAMES.values())
    assert np.allclose(rows[0], plain[0], atol=1e-6)
    assert (np.einsum("kd,kd->k", rows, plain) > 0).all()
    assert about["largest_deviation"] < 1e-6 < about["largest_cosine_of_texts"]
    turned, _ = anchors(model, dict(enumerate(reversed(NAMES.values()))))
    assert np.allclose(turned["plain"], tensors["plain"][::-1], atol=1e-6)
    assert not np.allclose(turned["anchors"], tensors["anchors"][::-1], atol=1e-2)


TEXTS = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
TOWERS = {
    "resnet": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    },
    "timm": {
        "embed_dim": 24, "custom_text": True,
        "vision_cfg": {"timm_model_name": "resnet10t", "image_size": 32, "timm_pool": "avg", "timm_proj": "linear"},
    },
    "captioner": {
        "embed_dim": 24, "vision_cfg": {**CONFIG["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2},
        "multimodal_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
}  # fmt: skip


@pytest.mark.parametrize("tower", TOWERS)
def test_any_text_tower_makes_anchors_whatever_the_images_go_through(tower: str, tmp_path: Path) -> None:
    text = {**TEXTS, **({"embed_cls": True, "output_tokens": True} if tower == "captioner" else {})}
    path = tmp_path / f"{tower}.json"
    path.write_text(json.dumps({**TOWERS[tower], "text_cfg": text}))
    tensors, about = anchors(str(path))
    assert tensors["anchors"].shape == (4, TOWERS[tower]["embed_dim"])
    assert about["dimensions"] == TOWERS[tower]["embed_dim"]
    assert np.abs(tensors["anchors"] @ tensors["anchors"].T - np.eye(4)).max() < 1e-5
    kept = load_texts(str(path), resolve("random:2"))  # the file of the same network gives the same vectors
    save_file(kept.model.state_dict(), tmp_path / "own.safetensors")
    again = load_texts(str(path), resolve(str(tmp_path / "own.safetensors")), quick_gelu=False)
    assert torch.equal(again.encode_text(["red box"]), kept.encode_text(["red box"]))
    with pytest.raises(ConfigError):
        text_maps(str(path))  # patches need a vision transformer with a class token


def test_plain_vectors_are_means_over_templates_of_unit_vectors(model: str) -> None:
    templates = ["a photo of a {}.", "{} on the left"]
    tensors, about = anchors(model, prompts=templates, orthogonal="none")
    clip = text_maps(model).clip
    each = torch.stack(
        [clip.encode_text([template.replace("{}", name) for name in NAMES.values()]) for template in templates]
    )
    mean = each.mean(dim=0)
    assert np.allclose(tensors["plain"], (mean / mean.norm(dim=1, keepdim=True)).numpy(), atol=1e-6)
    assert np.array_equal(tensors["anchors"], tensors["plain"])
    assert about["templates"] == templates


def test_more_classes_than_dimensions_are_refused_unless_a_tight_frame_is_asked_for(model: str) -> None:
    things = ("fish", "car", "house", "mug", "fog")
    many = dict(enumerate(f"{kind} {thing}" for kind in ("red", "green", "blue", "old", "new") for thing in things))
    with pytest.raises(ConfigError, match="25 classes in 12 dimensions: at most 12"):
        anchors(model, many)
    tensors, about = anchors(model, many, orthogonal="polar")
    frame = tensors["anchors"].astype(np.float64)
    assert np.abs(frame.T @ frame - 25 / 12 * np.eye(12)).max() < 1e-5
    assert (about["classes"], about["dimensions"]) == (25, 12)


def test_classes_called_alike_are_refused_by_name(model: str) -> None:
    with pytest.raises(ConfigError, match=r"\('missile'\) has no direction of its own; nearest is class 2"):
        anchors(model, {0: "missile", 1: "crane", 2: "missile"}, orthogonal="polar")


# -- CLIPSeg -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clipseg(tmp_path_factory.mktemp("clipseg") / "tiny")


def clipseg(folder: Path, **params: Any) -> ClipsegCams:
    chosen = load_registry().params("clipseg_cams", {"weights": str(folder), "size": 32, "batch": 4, **params})
    needed = ClipsegCams.weights_needed(chosen)["model"]  # type: ignore[arg-type]
    made = ClipsegCams(chosen, context(needed))  # type: ignore[arg-type]
    made.setup()
    return made


def test_clipseg_maps_are_the_sigmoid_of_the_networks_logits_for_each_label(folder: Path) -> None:
    made, drawn = clipseg(folder, slots=2, prompt="a photo of a {}."), draw(5)
    rows = drawn.rows(bad=[1], labels=[[0, 3], [1], [2], [], [3, 1, 0]])
    arrays = made.process(rows, {})
    assert arrays["class_ids"].tolist() == [[0, 3], [-1, -1], [2, -1], [-1, -1], [3, 1]]
    assert [int(status) for status in rows.status] == [1, 2, 1, 2, 1]
    assert np.isnan(arrays["range"][2, 1]).all()
    pixels = made.fit(drawn.images[4], 4)
    mean, std = (np.array(values, np.float32) for values in made.preprocessing)
    image = torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(2, 0, 1)[None].float()
    tokens = made.clipseg._tokenise(["a photo of a green box."])
    with torch.no_grad():
        want = made.clipseg.model(pixel_values=image, input_ids=tokens).logits.sigmoid()[0].numpy()
    stored = dequantise(arrays["maps"][4, 1], arrays["range"][4, 1])
    assert np.abs(stored - want).max() <= np.ptp(want) / 510 + 1e-5


def test_stored_resolution_is_the_mean_of_equal_squares(folder: Path) -> None:
    whole, small = clipseg(folder), clipseg(folder, resolution=8)
    pixels = np.stack([whole.fit(image, 0) for image in draw(2).images])
    means = whole.make_maps(pixels, [[0], [1]], [0, 1])[0].reshape(2, 1, 8, 4, 8, 4).mean(axis=(3, 5))
    assert np.allclose(small.make_maps(pixels, [[0], [1]], [0, 1])[0], means, atol=1e-6)
    with pytest.raises(ConfigError, match="resolution=5 does not divide"):
        clipseg(folder, resolution=5)
    with pytest.raises(ConfigError, match="size=36 is not a multiple of the patch size 8"):
        clipseg(folder, size=36)


def test_broken_clipseg_gives_up_its_rows_and_the_run_goes_on(folder: Path) -> None:
    made, rows = clipseg(folder), draw(3).rows()
    with torch.no_grad():
        made.clipseg.model.decoder.film_add.bias.fill_(float("nan"))
    arrays = made.process(rows, {})
    assert [int(status) for status in rows.status] == [Status.QUARANTINED] * 3
    assert "NaN" in rows.reasons[0]
    assert np.isnan(arrays["range"]).all()
