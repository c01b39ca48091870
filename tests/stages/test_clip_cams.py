"""The stage ``clip_cams`` driven directly, against CLIP-ES written out in float64, and through the engine."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from clip_oracle import Oracle, random_state
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.engine.config import build_config
from wsolpipe.engine.graph import resolve as resolve_graph
from wsolpipe.engine.session import Session
from wsolpipe.images.geometry import resize
from wsolpipe.launch.run import run
from wsolpipe.maps.levels import dequantise
from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.classifier import ClassifierRecord, ImageClassifier, save_classifier
from wsolpipe.networks.sources import IMAGENET
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.clip_cams import ClipCams
from wsolpipe.stages.registry import load_registry

NAMES = {0: "circle", 1: "square", 2: "star"}
STATE = random_state(width=64, layers=3, seed=4)
GROUND = ("ground", "sky", "grass")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file(STATE, path)
    return str(path)


def params_of(weights, **given):
    options = {"model": None, "quick_gelu": False, "weights": weights, "background": GROUND, "batch": 4} | given
    return load_registry().params("clip_cams", options)


def stage(weights, *, names=NAMES, classes=3, warn=lambda text: None, artifacts=None, **given):
    params = params_of(weights, **given)
    needed = {name: resolve(spec) for name, spec in ClipCams.weights_needed(params).items()}
    context = Context(
        dataset="d", classes=classes, class_names=names, weights=needed, warn=warn, artifacts=artifacts or {}
    )
    made = ClipCams(params, context)
    made.setup()
    return made


def scene(height, width, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return resize(coarse, (height, width))


IMAGES = [scene(*size, seed) for seed, size in enumerate([(60, 100), (100, 60), (60, 100), (33, 50), (130, 64)])]
LABELS = [[0], [1, 2], [2], [0, 1, 2], [1]]


def rows_of(images=IMAGES, labels=LABELS):
    return Rows(np.arange(len(images)), {"labels": labels}, lambda position: images[position])


def expected(made, position, target, labels, size, mean_std):
    """Refined map of the definition, from the pixels that the stage says it sees."""
    oracle = Oracle(STATE, quick_gelu=False)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in mean_std)
    pixels = torch.from_numpy(resize(IMAGES[position], size, smooth="bicubic")).double() / 255
    vectors = {label: made.clip.encode_names([NAMES[label]], made.params.prompts)[0].double() for label in labels}
    background = made.clip.encode_names(GROUND, made.params.prompts).double()
    names = torch.stack([vectors[label] for label in labels])
    return oracle.maps(((pixels - mean) / std).permute(2, 0, 1), names, background, labels.index(target))


def test_stored_maps_are_the_definitions_within_half_a_step(weights):
    made = stage(weights, slots=2)
    arrays = made.process(rows_of(), {})
    assert arrays["maps"].shape == (5, 2, 4, 4)
    np.testing.assert_array_equal(arrays["class_ids"], [[0, -1], [1, 2], [2, -1], [0, 1], [1, -1]])
    assert np.isnan(arrays["range"][0, 1]).all()
    clip = (made.clip.mean, made.clip.std)
    for position, slot in ((0, 0), (1, 1), (3, 1)):
        target = int(arrays["class_ids"][position, slot])
        _, wanted = expected(made, position, target, LABELS[position], (64, 64), clip)
        found = dequantise(arrays["maps"][position, slot], arrays["range"][position, slot])
        assert wanted.max() > 0.99
        assert np.abs(found - wanted.numpy()).max() <= 0.5 / 255 + 1e-5


def test_kept_aspect_runs_each_image_at_its_own_grid_and_says_which(weights):
    made = stage(weights, geometry="keep", size=96, slots=1)
    arrays = made.process(rows_of(), {})
    assert arrays["maps"].shape == (5, 1, 6, 6)
    np.testing.assert_array_equal(arrays["grid_hw"], [[4, 6], [6, 4], [4, 6], [3, 4], [6, 3]])
    for position, size in ((0, (64, 96)), (3, (48, 64)), (4, (96, 48))):
        labels = LABELS[position]
        _, wanted = expected(made, position, labels[0], labels, size, (made.clip.mean, made.clip.std))
        h, w = arrays["grid_hw"][position]
        stored = arrays["maps"][position, 0]
        assert (
            np.abs(dequantise(stored[:h, :w], arrays["range"][position, 0]) - wanted.numpy()).max() <= 0.5 / 255 + 1e-5
        )
        assert not stored[h:].any()
        assert not stored[:, w:].any()


def test_without_affinity_and_with_trcams_normalisation_the_map_is_the_definitions(weights):
    made = stage(weights, affinity=False, normalisation="imagenet")
    arrays = made.process(rows_of(), {})
    wanted, _ = expected(made, 0, 0, [0], (64, 64), IMAGENET)
    assert np.abs(dequantise(arrays["maps"][0, 0], arrays["range"][0, 0]) - wanted.numpy()).max() <= 0.5 / 255 + 1e-5


def test_predicted_classes_are_the_nearest_names_of_the_class_token(weights):
    made = stage(weights, target="predicted", slots=5)
    arrays = made.process(rows_of(), {})
    assert arrays["class_ids"].shape == (5, 3)  # there are only three
    names = made.clip.encode_names(list(NAMES.values()), made.params.prompts)
    with torch.no_grad():
        images = made.clip.normalise(np.stack([made.fit(image, 0) for image in IMAGES]))
        order = (made.clip.model.encode_image(images) @ names.T).argsort(dim=1, descending=True)
    np.testing.assert_array_equal(arrays["class_ids"], order.numpy())
    labels = arrays["class_ids"][0].tolist()
    _, wanted = expected(made, 0, labels[0], labels, (64, 64), (made.clip.mean, made.clip.std))
    assert np.abs(dequantise(arrays["maps"][0, 0], arrays["range"][0, 0]) - wanted.numpy()).max() <= 0.5 / 255 + 1e-5


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of three classes, and its folder."""
    folder = tmp_path_factory.mktemp("classifier")
    record = ClassifierRecord(model="resnet10t", outputs=3, size=48, mean=(0.5,) * 3, std=(0.25,) * 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = ImageClassifier(record).eval()
        torch.nn.init.normal_(made.last_layer().weight, std=0.3)
    pixels = torch.from_numpy(np.stack([resize(image, (48, 48)) for image in IMAGES]))
    made.last_layer().bias.data.sub_(made.logits(pixels).mean(0))  # so that it does not say the same of all
    for name, content in save_classifier(made).items():
        (folder / name).write_bytes(content)
    return made, folder


@pytest.mark.parametrize("geometry", ["square", "keep"])
def test_the_classifier_says_whose_maps_are_made(weights, classifier, geometry):
    net, folder = classifier
    given = {"slots": 2, "geometry": geometry, "size": 64, "artifacts": {"classifier": folder}}
    made = stage(weights, target="classifier", **given)
    rows = rows_of([*IMAGES, IMAGES[0]], [*LABELS, []])  # a row without a label has a map too
    arrays = made.process(rows, {})
    pixels = np.stack([resize(image, (48, 48)) for image in [*IMAGES, IMAGES[0]]])
    likely = net.logits(torch.from_numpy(pixels)).argsort(dim=1, descending=True)[:, :2].numpy()
    np.testing.assert_array_equal(arrays["class_ids"], likely)
    assert len(np.unique(likely[:, 0])) > 1
    assert (rows.status == Status.OK).all()
    same = stage(weights, slots=2, geometry=geometry, size=64).process(rows_of(labels=likely[:5].tolist()), {})
    np.testing.assert_array_equal(arrays["maps"][:5], same["maps"])


def test_only_the_target_classifier_reads_a_classifier_which_has_to_fit(weights, classifier):
    declared = load_registry()["clip_cams"].needs
    for target, needs in (("true", ()), ("predicted", ()), ("classifier", ("classifier",))):
        assert ClipCams.needs(params_of(weights, target=target), tuple(declared)) == needs
    with pytest.raises(ConfigError, match="3 outputs, and data set d has 4 classes"):
        stage(
            weights, target="classifier", names=NAMES | {3: "dot"}, classes=4, artifacts={"classifier": classifier[1]}
        )


@pytest.mark.parametrize("geometry", ["square", "keep"])
def test_maps_do_not_depend_on_the_batch(weights, geometry):
    found = [
        stage(weights, slots=2, geometry=geometry, batch=batch, size=64).process(rows_of(), {}) for batch in (1, 2, 8)
    ]
    for other in found[1:]:
        assert np.abs(other["maps"].astype(int) - found[0]["maps"]).max() <= 1
        np.testing.assert_array_equal(other["class_ids"], found[0]["class_ids"])


def test_each_text_is_encoded_once_however_many_images(weights, monkeypatch):
    made = stage(weights, slots=2)
    seen = []
    encode = made.clip.encode_text
    monkeypatch.setattr(made.clip, "encode_text", lambda texts: (seen.extend(texts), encode(texts))[1])
    for _ in range(2):
        made.process(rows_of(), {})
    assert sorted(seen) == [f"a clean origami {name}." for name in NAMES.values()]


def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros_that_is_counted(weights):
    """Of forty texts some have a gradient that points away from every patch: the ReLU leaves nothing."""
    words = {label: f"thing {label}" for label in range(40)}
    made = stage(weights, names=words, classes=40, batch=40, size=32, affinity=False)
    texts = torch.nn.functional.normalize(torch.randn(40, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    made.vectors._groups = dict(enumerate(texts.split(32)))  # a random text tower says the same of all words
    rows = rows_of([IMAGES[0]] * 40, [[label] for label in words])
    arrays = made.process(rows, {})
    zero = [label for label in words if not arrays["maps"][label].any()]
    assert 0 < len(zero) < 40
    assert (arrays["range"][zero] == 0).all()
    assert (rows.status == Status.OK).all()
    assert made.summary(arrays, rows) == {"maps": 40, "zero_maps": len(zero)}
    background = made.vectors.background.double()
    image = made.clip.normalise(made.fit(IMAGES[0], 0)[None])[0].double()
    cam, _ = Oracle(STATE, quick_gelu=False).maps(image, texts[zero[:1]].double(), background, 0)
    assert not cam.any()


def test_uniform_attention_gives_a_flat_map_that_counts_as_zeros_not_noise(weights):
    made = stage(weights)
    for block in made.clip.tower.blocks:
        block.module.attn.in_proj_weight[:128] = 0  # no queries and no keys: every share is the same
        block.module.attn.in_proj_bias[:128] = 0
    rows = rows_of(IMAGES[:1], [[0]])
    arrays = made.process(rows, {})
    assert not arrays["maps"].any()
    assert made.summary(arrays, rows)["zero_maps"] == 1
    made.params = params_of(weights, affinity=False)
    assert made.process(rows, {})["maps"].any()


def test_rows_that_cannot_have_a_map_are_quarantined_and_their_neighbours_are_made(weights):
    made = stage(weights, geometry="keep", size=96)
    images = [IMAGES[0], scene(12, 90, 0), IMAGES[1], IMAGES[2]]
    rows = rows_of(images, [[0], [1], [], [2]])
    arrays = made.process(rows, {})
    assert rows.status.tolist() == [Status.OK, Status.QUARANTINED, Status.QUARANTINED, Status.OK]
    assert rows.reasons[1] == "the image of 12 x 90 pixels is smaller than a patch of 16"
    assert "no label" in rows.reasons[2]
    assert arrays["maps"][3].any()
    assert made.summary(arrays, rows)["maps"] == 2


def test_maps_that_are_not_finite_quarantine_their_row_alone(weights):
    made = stage(weights)
    plain = made.clip.normalise

    def spoilt(pixels):
        images = plain(pixels)
        images[1] = torch.nan
        return images

    made.clip.normalise = spoilt
    rows = rows_of(IMAGES[:3], LABELS[:3])
    arrays = made.process(rows, {})
    assert rows.status.tolist() == [Status.OK, Status.QUARANTINED, Status.OK]
    assert rows.reasons == {1: "CLIP maps hold NaN or infinite values"}
    assert arrays["maps"][2].any()


def test_a_label_without_a_name_and_a_prompt_without_a_place_for_it_are_told(weights, tmp_path):
    with pytest.raises(ConfigError, match="label 7 has no name"):
        stage(weights).process(rows_of(IMAGES[:1], [[7]]), {})
    with pytest.raises((ConfigError, ValidationError), match="{}"):
        params_of(weights, prompts="a clean origami.")
    with pytest.raises(ConfigError, match="names no classes"):
        stage(weights, names={}, classes=None)
    with pytest.raises(ConfigError, match="size=70 is not a multiple of the patch size 16"):
        stage(weights, size=70)
    with pytest.raises(ConfigError, match="no published weights"):
        stage(None)


def test_a_softmax_over_one_text_is_warned_of(weights):
    told = []
    stage(weights, background=[], warn=told.append)
    assert "always 1" in told[0]


def test_the_key_holds_what_files_say_and_nothing_that_is_unused(weights, tmp_path):
    first, twin = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("names: [circle, square, star]\nbackground: [sky]\n")
    twin.write_text("# the same\nnames:\n- circle\n- square\n- star\nbackground:\n- sky\n")
    key = params_of(weights, classes=str(first)).in_key()
    assert key == params_of(weights, classes=str(twin), batch=9).in_key()
    twin.write_text("names: [circle, {square: tile}, star]\nbackground: [sky]\n")
    assert key != params_of(weights, classes=str(twin)).in_key()
    assert not ClipCams.reads_class_names(params_of(weights, classes=str(first)))
    assert ClipCams.reads_class_names(params_of(weights))
    assert "box_threshold" not in params_of(weights, affinity=False).in_key()
    assert "weights" not in key


def test_class_names_of_the_data_set_are_in_the_key_of_a_run(weights, tmp_path):
    """Renaming a folder's class changes the prompt, so the stage runs again."""

    def key():
        words = [f"dataset={tmp_path}/d.yaml", f"store={tmp_path}/store", "stage=clip_cams", "device=cpu"]
        words += [
            "clip_cams.model=null",
            "clip_cams.quick_gelu=false",
            f"clip_cams.weights={weights}",
            "clip_cams.background=[sky,sea]",
        ]
        config, _ = build_config(words, load_registry())
        assert run(config, lambda event: None, threading.Event()).code == 0
        return resolve_graph(Session.open(config)).nodes[-1].key

    for name, images in {"cat": IMAGES[:2], "dog": IMAGES[2:4]}.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "d.yaml").write_text(json.dumps({"name": "d", "layout": "folder", "root": "images", "split": "train"}))
    before = key()
    (tmp_path / "images" / "dog").rename(tmp_path / "images" / "dragon")
    assert before not in (None, key())
