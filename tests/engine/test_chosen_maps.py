"""What ``eval`` asks a classifier, by hand: which map shows the class best, and which class an image is of."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from stages.drawn import draw
from wsolpipe import open_store
from wsolpipe.cli.main import cli
from wsolpipe.contract.errors import ConfigError, DataError, NotFoundError, StoreError
from wsolpipe.images.geometry import resize
from wsolpipe.networks.classifier import load_classifier

COUNT = 8
WORDS = (
    "cls_maps.model=vit_tiny_patch16_224", "cls_maps.weights=random:0", "cls_maps.size=64",
    "cls_maps.model_args.embed_dim=48", "cls_maps.model_args.depth=2", "cls_maps.model_args.num_heads=4",
    "cls_maps.mean=0.5", "cls_maps.std=0.5", "classifier.model=resnet10t", "classifier.size=64",
    "classifier.weights=null", "classifier.start=random:0", "classifier.epochs=1", "classifier.batch=8",
    "classifier.lr=0.05", "classifier.measure=[]",
)  # fmt: skip


def call(command, folder, *words):
    with pytest.raises(SystemExit) as end:
        cli.main(
            [command, f"dataset={folder / 'd.yaml'}", f"store={folder / 'store'}", *words],
            standalone_mode=False,
        )
    assert end.value.code == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Attention maps and a classifier of drawn images, made by the commands."""
    folder, drawn = tmp_path_factory.mktemp("chosen"), draw(COUNT, seed=5)
    names = [f"drawn_{number}.png" for number in range(COUNT)]
    for name, image in zip(names, drawn.images, strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / "image_ids.txt").write_text("\n".join(names))
    lines = [f"{name},{label}" for name, label in zip(names, drawn.labels, strict=True)]
    (folder / "class_labels.txt").write_text("\n".join(lines))
    boxes = [f"{name},{','.join(map(str, box))}" for name, box in zip(names, drawn.boxes.tolist(), strict=True)]
    (folder / "localization.txt").write_text("\n".join(boxes))
    (folder / "d.yaml").write_text(
        f"name: drawn\nlayout: metadata\nroot: {folder}\nmetadata: {folder}\nsplit: train\nclasses: 4\n"
        "files: {image_sizes: null}\n"
    )
    for stage in ("cls_maps", "classifier"):
        call("run", folder, f"stage={stage}", *WORDS)
    return folder, drawn


def figures(place, capsys, *words):
    capsys.readouterr()
    call("eval", place[0], "split=train", "threads=1", "--json", *words)
    return json.loads(capsys.readouterr().out)


def by_hand(place):
    """Posteriors of each whole image [N, K], and inside the mask of each head [N, H, K], by OpenCV."""
    folder, drawn = place
    store = open_store(str(folder / "store"))["drawn"]
    (path,) = (folder / "store/drawn/artifacts/classifier").glob("*/files")
    net, view = load_classifier(path), store["train"]["cls_maps"]
    levels, ranges = view["maps"][:].astype(np.float64), view["range"][:].astype(np.float64)
    maps = ranges[..., :1, None] + levels * (ranges[..., 1:, None] - ranges[..., :1, None]) / 255
    whole, inside = [], []
    for row, image in enumerate(drawn.images):
        pixels = resize(image, (64, 64))
        seen = net.normalise(torch.from_numpy(pixels[None]))[0].permute(1, 2, 0).numpy()
        half = round(32 * 64 / 224)
        blurred = cv2.GaussianBlur(seen, (2 * half + 1,) * 2, 20 * 64 / 224, borderType=cv2.BORDER_REFLECT_101)
        crops = [seen]
        for head in maps[row, 1:]:
            large = cv2.resize(head.astype(np.float32), (64, 64), interpolation=cv2.INTER_LINEAR)
            scaled = (255 * (large - large.min()) / (large.max() - large.min())).astype(np.uint8)
            mask = cv2.threshold(scaled, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1].astype(bool)
            crops.append(np.where(mask[..., None], seen, blurred))
        with torch.no_grad():
            found = net(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()).softmax(1).numpy()
        whole.append(found[0])
        inside.append(found[1:])
    return np.stack(whole), np.stack(inside), maps


def save_chosen(folder, slots, maps):
    for row, slot in enumerate(slots):
        path = folder / f"drawn_{row}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, maps[row, 1 + slot].astype(np.float32))
    return folder


def test_the_chosen_maps_score_as_those_that_opencv_chooses(place, capsys, tmp_path):
    _, drawn = place
    whole, inside, maps = by_hand(place)
    labels, rows = np.array(drawn.labels), np.arange(COUNT)
    slots = inside[rows, :, labels].argmax(1)
    assert len(set(slots.tolist())) > 1
    found = figures(place, capsys, "stage=cls_maps", "select=classifier")
    want = figures(place, capsys, f"maps={save_chosen(tmp_path / 'true', slots, maps)}")
    for name in ("MaxBoxAcc", "MaxBoxAccV2", "iou", "iou_otsu"):
        assert found[name] == want[name], name
    assert found["select"].startswith("classifier ")
    assert "map" not in found
    assert found["labels"] == "true"
    assert found["accuracy_top1"] == pytest.approx(100 * (whole.argmax(1) == labels).mean())

    likely = inside[rows, :, whole.argmax(1)].argmax(1)
    found = figures(place, capsys, "stage=cls_maps", "select=classifier", "labels=predicted")
    want = figures(place, capsys, f"maps={save_chosen(tmp_path / 'predicted', likely, maps)}", "labels=predicted")
    assert (found["iou"], found["labels"]) == (want["iou"], "predicted")
    assert (likely != slots).any()
    # Top-5 Loc takes the map that the label itself chooses; of four classes the label is always among the first five.
    fixed = ("tau=0.65", "stage=cls_maps", "select=classifier")
    found, want = figures(place, capsys, *fixed, "labels=predicted"), figures(place, capsys, *fixed)
    assert found["top5_loc_v2"] == want["MaxBoxAccV2"] != found["MaxBoxAccV2"]


def test_the_threshold_of_chosen_maps_can_be_chosen_on_a_split_and_they_can_be_compared(place, capsys):
    words = ("stage=cls_maps", "select=classifier", "tau_from=gt", "tau_split=train")
    alone = figures(place, capsys, "stage=cls_maps", "select=classifier")
    found = figures(place, capsys, *words, f"beside={alone['key']}")
    assert (found["tau_rows"], found["MaxBoxAcc"]) == (COUNT, alone["MaxBoxAcc"])
    assert found["beside"]["MaxBoxAcc"]["difference"] == 0


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (("stage=cls_maps", "select=detector"), ConfigError, "maps are chosen by the classifier"),
        (("stage=cls_maps", "select=classifier:ffff"), StoreError, "classifier"),
        (("stage=cls_maps", "select=classifier", "map=1"), ConfigError, "both say which map"),
        (("maps=x", "select=classifier"), ConfigError, "both say which map"),
        (("stage=cams", "select=classifier"), ConfigError, "of a class already"),
        (("stage=cls_maps", "classifier=cls_maps"), ConfigError, "holds no classes of images"),
        (("stage=cls_maps", "classifier=classifier:ffff"), StoreError, "classifier"),
        (("stage=cls_maps", "classifier=detector"), ConfigError, "unknown stage"),
    ],
)
def test_wrong_words_are_told(place, capsys, words, kind, told):
    folder = place[0]
    if "stage=cams" in words:
        call("run", folder, "stage=cams", *WORDS)
    with pytest.raises(kind, match=told):
        cli.main(["eval", f"dataset={folder / 'd.yaml'}", f"store={folder / 'store'}", *words], standalone_mode=False)


def test_top_1_takes_the_classes_of_another_network_for_maps_of_a_stage_and_of_a_folder(place, capsys, tmp_path):
    folder, drawn = place
    whole, _, maps = by_hand(place)
    labels, fixed = np.array(drawn.labels), ("tau=0.3", "map=1")
    right = whole.argmax(1) == labels
    assert 0 < right.sum() < COUNT
    plain = figures(place, capsys, "stage=cls_maps", *fixed)
    found = figures(place, capsys, "stage=cls_maps", *fixed, "classifier=classifier")
    assert (plain["top1_loc"], plain["CL"]) == (None, None)
    assert found["MaxBoxAccV2"] == plain["MaxBoxAccV2"]
    assert found["CL"] == found["accuracy_top1"] == pytest.approx(100 * right.mean())
    assert found["accuracy_top5"] == 100  # of four classes
    assert found["top5_loc_v2"] == plain["MaxBoxAccV2"]
    alone = [
        figures(place, capsys, f"maps={folder_of(tmp_path / str(row), row, maps)}", "tau=0.3") for row in range(COUNT)
    ]
    hits = np.array([each["MaxBoxAccV2"]["30"] > 0 for each in alone])
    assert found["top1_loc_v2"]["30"] == pytest.approx(100 * (hits & right).mean())
    assert (hits & right).any()
    assert found["classifier"].startswith("classifier ")
    saved = save_chosen(tmp_path / "maps", [0] * COUNT, maps)
    again = figures(place, capsys, f"maps={saved}", "tau=0.3", f"classifier={found['classifier'].replace(' ', ':')}")
    assert [again[name] for name in ("top1_loc_v2", "CL")] == [found[name] for name in ("top1_loc_v2", "CL")]


def folder_of(folder, row, maps):
    """The map of one row alone: the others score as empty maps."""
    folder.mkdir()
    np.save(folder / f"drawn_{row}.npy", maps[row, 1].astype(np.float32))
    return folder


def test_an_image_that_is_gone_is_told(place):
    folder = place[0]
    path = folder / "drawn_3.png"
    data = path.read_bytes()
    path.unlink()
    try:
        for word in ("select", "classifier"):
            with pytest.raises(DataError, match=rf"drawn_3\.png that {word}= needs"):
                cli.main(
                    ["eval", f"dataset={folder / 'd.yaml'}", f"store={folder / 'store'}", "stage=cls_maps",
                     f"{word}=classifier"],
                    standalone_mode=False,
                )  # fmt: skip
    finally:
        path.write_bytes(data)


def test_arguments_whose_artifact_is_not_made_are_not_answered_by_the_maps_of_another_key(place):
    folder, maps = place[0], [word for word in WORDS if word.startswith("cls_maps.")]
    words = [f"dataset={folder / 'd.yaml'}", f"store={folder / 'store'}", "stage=cls_maps", "split=train", *maps]
    with pytest.raises(NotFoundError, match=r"cls_maps of train is not made with .*blocks=auto: key after map_choice"):
        cli.main(["eval", *words, "cls_maps.blocks=auto"], standalone_mode=False)
    call("eval", folder, *words[2:], "classifier.epochs=7")  # the maps are not made of a classifier
