"""CLIPSeg from a folder: its own forward, its tokens, and what is refused."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from tiny_models import save_clipseg
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.models.saved_models import ClipSeg, find_saved, load_clipseg
from wsolpipe.models.weight_sources import resolve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clipseg(tmp_path_factory.mktemp("clipseg") / "tiny")


@pytest.fixture(scope="module")
def clipseg(folder: Path) -> ClipSeg:
    return load_clipseg(folder, name="tiny")


@pytest.mark.parametrize("side", [32, 56])
def test_logits_are_those_of_transformers_own_forward_for_each_text(clipseg: ClipSeg, side: int) -> None:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    prompts = [["a fish", "a very small house"], ["fog", "a fish"]]
    texts = torch.stack([clipseg.encode_text(pair) for pair in prompts])
    found = clipseg.logits(images, texts)
    assert found.shape == (2, 2, side, side)
    for slot in range(2):
        tokens = clipseg._tokenise([pair[slot] for pair in prompts])
        with torch.no_grad():
            want = clipseg.model(pixel_values=images, input_ids=tokens, interpolate_pos_encoding=True).logits
        assert torch.allclose(found[:, slot], want, atol=1e-5)
    assert found.std() > 1e-3


def test_padding_behind_the_last_token_changes_no_text_vector(clipseg: ClipSeg) -> None:
    tokens = clipseg._tokenise(["a fish"])
    end = int(tokens.argmax()) + 1
    with torch.no_grad():
        bare = clipseg.model.get_conditional_embeddings(1, input_ids=tokens[:, :end])
    assert torch.allclose(clipseg.encode_text(["a fish"]), bare, atol=1e-6)


def test_same_files_have_one_digest_wherever_they_lie_and_other_weights_another(folder: Path, tmp_path: Path) -> None:
    first = resolve(f"transformers:{folder}")
    assert first is not None
    assert first.source == "transformers:tiny"
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "notes.txt").write_text("not read")
    again = resolve(f"transformers:{copy}")
    assert again is not None
    assert again.sha256 == first.sha256
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "extract_layers": [0, 1]}))
    changed = resolve(f"transformers:{copy}")
    assert changed is not None
    assert changed.sha256 != first.sha256


def test_folder_that_is_no_clipseg_is_refused_with_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no name of the Hugging Face hub"):
        find_saved("./nowhere", fetch=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json and model\.safetensors missing"):
        find_saved(str(tmp_path / "empty"), fetch=False)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ConfigError, match="of type 'clip', not clipseg"):
        load_clipseg(other, name="other")
    torn = shutil.copytree(folder, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot load torn"):
        load_clipseg(torn, name="torn")


def test_tensors_that_are_missing_are_never_replaced_by_random_ones(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    state = load_file(copy / "model.safetensors")
    state["decoder.film_mal.weight"] = state.pop("decoder.film_mul.weight")
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        WeightsError, match=r"1 missing: decoder.film_mul.weight; 1 unexpected: decoder.film_mal.weight"
    ):
        load_clipseg(copy, name="copy")


def test_text_tower_with_other_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="knows 100 tokens"):
        load_clipseg(save_clipseg(tmp_path / "other", vocabulary=100), name="other")
