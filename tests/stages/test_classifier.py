"""The stage ``classifier``: imported, probed and fine-tuned; what it refuses; what goes into its key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from stages.drawn import draw
from wsolpipe.contract.errors import ConfigError, WeightsError
from wsolpipe.contract.schema import Status
from wsolpipe.images.decode import decode
from wsolpipe.images.geometry import resize
from wsolpipe.models.weight_sources import resolve
from wsolpipe.networks.classifier import load_classifier
from wsolpipe.networks.saved_state import Unfinished
from wsolpipe.stages.base import Context, Rows
from wsolpipe.stages.classifier import Classifier
from wsolpipe.stages.registry import load_registry

SMALL_VIT = {"embed_dim": 48, "depth": 4, "num_heads": 4, "patch_size": 8}
NET = {"model": "resnet10t", "size": 64, "measure": ["val"]}
TINY = {"size": 32, "model_args": {"channels": [8, 16, 16, 32], "stem_width": 8}}
"""Where it does not matter what is learnt."""


def parameters(**params):
    return load_registry().params("classifier", NET | params)


def stage(*, classes=4, names=None, warn=lambda text: None, objectless=(), **params):
    chosen = parameters(**params)
    weights = {name: resolve(spec) for name, spec in Classifier.weights_needed(chosen).items()}
    context = Context(
        dataset="drawn", classes=classes, class_names=names or {}, weights=weights, warn=warn, objectless=objectless
    )
    return Classifier(chosen, context)


def probe(**params):
    return stage(mode="probe", start="random:0", **({"epochs": 20, "lr": 0.1} | params))


@pytest.fixture(scope="module")
def drawn():
    return draw(48), draw(24, seed=1)


def splits(drawn, **options):
    return {"train": drawn[0].rows(**options), "val": drawn[1].rows()}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"views": 3, "min_crop": 0.5},
        {"model": "vit_tiny_patch16_224", "model_args": SMALL_VIT, "features": "class_mean"},
        {"model": "vit_tiny_patch16_224", "model_args": SMALL_VIT, "features": "class_last4"},
    ],
)
def test_probe_learns_colours_and_makes_the_same_bytes_twice(drawn, params):
    made, again = (probe(**params).produce(splits(drawn, threads=threads)) for threads in (1, 3))
    assert made.files == again.files
    assert made.summary["accuracy"]["val"]["top1"] >= 0.9
    assert made.summary["accuracy"]["val"]["rows"] == 24


def test_probe_of_pooled_features_is_a_plain_timm_model(drawn, tmp_path):
    made = probe(views=2).produce(splits(drawn))
    for name, content in made.files.items():
        (tmp_path / name).write_bytes(content)
    classifier = load_classifier(tmp_path)
    assert classifier.record.made["params"]["mode"] == "probe"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        frozen = timm.create_model("resnet10t", num_classes=4).state_dict()
    state = classifier.net.state_dict()
    assert all(torch.equal(state[name], frozen[name]) for name in frozen if not name.startswith("fc."))
    assert not torch.equal(state["fc.weight"], frozen["fc.weight"])
    # Accuracy in the summary is that of the stored files.
    images = np.stack([resize(image, (64, 64)) for image in drawn[1].images])
    right = classifier.logits(torch.from_numpy(images)).argmax(1).numpy() == drawn[1].labels
    assert right.mean() == made.summary["accuracy"]["val"]["top1"]


def test_fine_tuning_learns_and_makes_the_same_bytes_twice(drawn):
    params = {"mode": "finetune", "start": "random:0", "epochs": 4, "batch": 8, "lr": 0.05, "head_lr": 1.0, **TINY}
    made, again, uncached = (
        stage(**params, cache_mib=cache).produce(splits(drawn, threads=threads))
        for threads, cache in ((1, 100), (3, 100), (2, 0))
    )
    assert made.files == again.files == uncached.files
    assert made.summary["accuracy"]["val"]["top1"] > 0.5
    other = stage(**params, seed=1).produce(splits(drawn))
    assert other.files["model.safetensors"] != made.files["model.safetensors"]


def test_a_bad_image_is_quarantined_and_the_rest_is_learnt(drawn):
    rows = splits(drawn, bad={3, 40})
    made = probe().produce(rows)
    assert np.flatnonzero(rows["train"].status == Status.QUARANTINED).tolist() == [3, 40]
    assert rows["train"].reasons[3] == "the file ends early"
    assert made.summary["accuracy"]["val"]["top1"] >= 0.9
    tuned = stage(mode="finetune", start="random:0", epochs=1, **TINY).produce(splits(drawn, bad={3}))
    assert tuned.files


def test_rows_without_a_label_are_left_out(drawn):
    labels = [[label] if position % 3 else [] for position, label in enumerate(drawn[0].labels)]
    assert probe().produce({"train": drawn[0].rows(labels=labels)}).files
    with pytest.raises(ConfigError, match="no usable row"):
        probe().produce({"train": drawn[0].rows(labels=[[]] * 48)})


def test_no_train_split_says_how_to_import(drawn):
    with pytest.raises(ConfigError, match=r"classifier\.weights=FILE classifier\.mode=import"):
        probe().produce({"val": drawn[1].rows()})
    assert "classifier.weights=FILE" in Classifier.without_split(parameters(), "train")


def test_start_weights_lose_only_their_last_layer(drawn, tmp_path):
    net = timm.create_model("resnet10t", num_classes=9)
    save_file(net.state_dict(), tmp_path / "start.safetensors", metadata={"mean": "0.5", "std": "0.25"})
    made = stage(mode="probe", start=str(tmp_path / "start.safetensors")).produce(splits(drawn))
    for name, content in made.files.items():
        (tmp_path / name).write_bytes(content)
    classifier = load_classifier(tmp_path)
    assert classifier.record.outputs == 4
    assert classifier.record.mean == (0.5,) * 3
    assert torch.equal(classifier.net.conv1[0].weight, net.conv1[0].weight)
    headless = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    save_file(headless, tmp_path / "headless.safetensors")
    assert stage(mode="probe", start=str(tmp_path / "headless.safetensors")).produce(splits(drawn)).files


@pytest.fixture
def finished(tmp_path):
    net = timm.create_model("resnet10t", num_classes=4)
    path = tmp_path / "finished.safetensors"
    save_file(net.state_dict(), path)
    return path


def test_import_keeps_the_classifier_and_warns_of_unknown_preprocessing(finished, tmp_path):
    told = []
    made = stage(weights=str(finished), warn=told.append).produce({})
    assert made.summary == {"mode": "import", "accuracy": {}}
    assert len(told) == 1
    assert "finished.safetensors does not record its preprocessing" in told[0]
    for name, content in made.files.items():
        (tmp_path / name).write_bytes(content)
    plain = timm.create_model("resnet10t", num_classes=4).eval()
    plain.load_state_dict(load_file(finished))
    classifier = load_classifier(tmp_path)
    inputs = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(classifier(inputs), plain(inputs).detach(), rtol=1e-4, atol=1e-4)
    stage(weights=str(finished), mean=0.5, std=0.5, warn=told.append).produce({})
    assert len(told) == 1


def test_what_the_stage_made_can_be_imported_again(drawn, tmp_path):
    names = {0: "red", 2: "blue"}
    made = probe(model="vit_tiny_patch16_224", model_args=SMALL_VIT, features="class_mean", mean=0.3, std=0.2).produce(
        splits(drawn)
    )
    (tmp_path / "model.safetensors").write_bytes(made.files["model.safetensors"])
    told = []
    imported = stage(
        model="vit_tiny_patch16_224",
        model_args=SMALL_VIT,
        weights=str(tmp_path / "model.safetensors"),
        warn=told.append,
        names=names,
    ).produce({"val": drawn[1].rows()})
    assert imported.summary["accuracy"]["val"] == made.summary["accuracy"]["val"]
    assert told == []
    with pytest.raises(WeightsError, match="is a classifier of vit_tiny_patch16_224"):
        stage(weights=str(tmp_path / "model.safetensors")).produce({})


def test_a_classifier_of_another_number_of_classes_is_refused(finished, drawn):
    with pytest.raises(ConfigError, match="4 outputs, and data set drawn has 7 classes"):
        stage(weights=str(finished), classes=7).produce({})
    labels = [[position] for position in range(24)]
    with pytest.raises(ConfigError, match="has a label 4, and the classifier resnet10t only 4 outputs"):
        stage(weights=str(finished), classes=None).produce({"val": drawn[1].rows(labels=labels)})


def test_class_names_of_a_trained_classifier_are_compared(drawn, tmp_path):
    made = probe(names={0: "red", 1: "green"}).produce(splits(drawn))
    (tmp_path / "model.safetensors").write_bytes(made.files["model.safetensors"])
    path = str(tmp_path / "model.safetensors")
    assert stage(weights=path, names={1: "green", 3: "yellow"}).produce({}).files
    with pytest.raises(ConfigError, match="label 1 is 'green' .* and 'blue' in data set drawn"):
        stage(weights=path, names={1: "blue"}).produce({})


def test_weights_of_another_architecture_are_refused_by_their_keys(tmp_path):
    net = timm.create_model("mobilenetv2_050", num_classes=4)
    path = tmp_path / "other.safetensors"
    save_file(net.state_dict(), path)
    with pytest.raises(WeightsError, match=r"no tensor fc\.weight of resnet10t"):
        stage(weights=str(path)).produce({})
    with pytest.raises(WeightsError, match=r"do not fit resnet10t: missing conv1\.0\.weight.*unexpected blocks"):
        stage(mode="probe", start=str(path)).produce({"train": draw(8).rows()})


def test_a_label_outside_the_classes_is_refused_before_training(drawn):
    with pytest.raises(ConfigError, match="label of split train is 3, and data set drawn has 2 classes"):
        probe(classes=2).produce(splits(drawn))


def test_accuracy_is_measured_on_rows_spread_over_the_split(finished, drawn):
    made = stage(weights=str(finished), measure_rows=7).produce({"val": drawn[1].rows()})
    assert made.summary["accuracy"]["val"]["rows"] == 7
    assert made.summary["accuracy"]["val"]["rows_with_label"] == 24


def test_mode_auto_imports_where_weights_are_given():
    assert parameters().way == "finetune"
    assert parameters(weights="x.pth").way == "import"
    assert Classifier.splits_needed(parameters()) == ("train",)
    assert Classifier.splits_needed(parameters(weights="x.pth")) == ()
    assert Classifier.weights_needed(parameters()) == {"start": "timm:resnet10t"}
    assert Classifier.weights_needed(parameters(weights="x.pth")) == {"weights": "x.pth"}


def test_key_of_an_import_does_not_hold_training_parameters():
    assert parameters(weights="x", lr=0.5).in_key() == parameters(weights="y", mode="import").in_key()
    assert parameters(lr=0.5).in_key() != parameters().in_key()
    assert parameters(measure_rows=1, cache_mib=1).in_key() == parameters().in_key()
    assert "frozen_bn" not in parameters().in_key()  # stores of before the parameter keep their keys
    assert parameters(frozen_bn=True).in_key()["frozen_bn"] is True
    assert parameters(frozen_bn=True, mode="probe").in_key() == parameters(mode="probe").in_key()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "import"}, r"classifier\.weights=FILE"),
        ({"mode": "probe", "weights": "x"}, r"classifier\.start=FILE"),
        ({"mode": "finetune", "features": "class_mean"}, "mode=probe"),
        ({"resize": 32}, "smaller than size=64"),
        ({"epoch": 3}, "did you mean 'epochs'"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parameters(**params)
    assert len(caught.value.message) < 700  # what contradicts what, not all parameters


@pytest.mark.slow
def test_imagenet_accuracy_depends_on_the_preprocessing(shared):
    # shared/weights/README.md: top-1 78.6 %, top-5 94.4 % over all 780 images with mean = std = 0.5.
    folder = shared / "data" / "ilsvrc_val_acuity"
    lines = (folder / "class_labels.txt").read_text().split("\n")[:130:2]
    ids, labels = zip(*(line.split(",") for line in lines), strict=True)
    images = [decode((folder / "images" / name).read_bytes(), orientation=1) for name in ids]
    rows = Rows(np.arange(len(ids)), {"labels": [[int(label)] for label in labels]}, images.__getitem__)
    file = shared / "weights" / "mobilenetv2_100_tf_in1k.safetensors"
    params = {"model": "mobilenetv2_100", "size": 224, "weights": str(file), "model_args": {"pad_type": "same"}}
    right = stage(classes=1000, **params).produce({"val": rows}).summary["accuracy"]["val"]
    wrong = stage(classes=1000, **params, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert right["top1"] > 0.7
    assert right["top5"] > 0.88
    assert wrong.produce({"val": rows}).summary["accuracy"]["val"]["top1"] < right["top1"] - 0.08


class Stop(BaseException):
    """Ends a training from within, as a signal does."""


@pytest.mark.parametrize(
    ("params", "at"),
    [
        ({"mode": "finetune", "start": "random:0", "epochs": 3, "batch": 8, **TINY}, 11),
        (
            {
                "mode": "finetune",
                "start": "random:0",
                "epochs": 3,
                "batch": 8,
                "momentum": 0,
                "nesterov": False,
                **TINY,
            },
            6,
        ),
        ({"mode": "probe", "start": "random:0", "epochs": 3, **TINY}, 1),
    ],
)
def test_a_training_that_was_stopped_goes_on_to_the_same_bytes(drawn, tmp_path, params, at):
    whole = stage(**params).produce(splits(drawn)).files
    path, calls = tmp_path / "unfinished.safetensors", []

    def once(*_):
        calls.append(1)
        if len(calls) == at:
            raise Stop

    kept = Unfinished(path, every=0.0)
    first = stage(**params)
    first.context = replace(first.context, unfinished=kept, progress=once, check=once)
    with pytest.raises(Stop):
        first.produce(splits(drawn))
    assert path.exists()
    calls.clear()
    again = stage(**params)
    again.context = replace(again.context, unfinished=kept, check=lambda: calls.append(1))
    steps = []
    again.context = replace(again.context, progress=lambda done, total: steps.append(done))
    assert again.produce(splits(drawn)).files == whole
    if params["mode"] == "finetune":
        assert steps[0] == at + 1  # no step is made again
    else:
        assert len(calls) == 1  # of two batches of features the second alone


def test_a_damaged_state_is_not_gone_on_from(drawn, tmp_path):
    params = {"mode": "finetune", "start": "random:0", "epochs": 1, "batch": 8, **TINY}
    whole = stage(**params).produce(splits(drawn)).files
    path = tmp_path / "unfinished.safetensors"
    made = stage(**params)
    made.context = replace(made.context, unfinished=Unfinished(path, every=0.0))
    made.produce(splits(drawn))
    for file in (path, path.with_name(path.name + ".previous")):
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)
    again = stage(**params)
    again.context = replace(again.context, unfinished=Unfinished(path, every=1000.0))
    assert again.produce(splits(drawn)).files == whole
