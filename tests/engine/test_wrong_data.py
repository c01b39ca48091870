"""Data that is not the user's: refused before work, or counted where the run says so."""

from __future__ import annotations

import pytest

from wsolpipe.contract.errors import ConfigError, DataError


def warnings(bench):
    return [event["text"] for event in bench.events if event["event"] == "warning"]


def test_another_data_set_of_the_same_name_is_refused(done):
    bench, _ = done
    for path in sorted(bench.images.glob("*/*.png")):
        path.rename(path.with_name(f"other{path.name}"))
    with pytest.raises(ConfigError, match=r"holds another data set called toy: none of its 72 images"):
        bench.go()


def test_a_data_set_that_grew_or_shrank_is_not_another_one(done):
    bench, _ = done
    for path in sorted(bench.images.glob("*/*.png"))[:-1]:
        path.rename(path.with_name(f"other{path.name}"))
    assert bench.go(stage="index").lines[0].rows == 72 + 71


def test_images_without_a_label_are_said_at_once(bench):
    for path in sorted(bench.images.glob("*/*.png")):
        path.rename(bench.images / f"{path.parent.name}{path.name}")
    for folder in bench.images.glob("class*/"):
        folder.rmdir()
    bench.go(stage="index")
    assert any("no image of split train has a label" in text for text in warnings(bench))
    bench.go(stage="index")
    assert warnings(bench) == []


@pytest.mark.parametrize(("box_format", "wanted"), [("xyxy", (5, 6, 10, 12)), ("xywh", (5, 6, 15, 18))])
def test_boxes_of_metadata_are_read_by_their_format_and_clipped_ones_counted(bench, box_format, wanted):
    names = sorted(path.relative_to(bench.images).as_posix() for path in bench.images.glob("*/*.png"))[:2]
    folder = bench.folder / "metadata"
    folder.mkdir()
    (folder / "class_labels.txt").write_text("".join(f"{name},0\n" for name in names))
    (folder / "localization.txt").write_text(f"{names[0]},5,6,10,12\n{names[1]},5,6,5000,12\n")
    bench.yaml.write_text(
        f"name: toy\nlayout: metadata\nroot: images\nmetadata: metadata\nsplit: train\nbox_format: {box_format}\n"
    )
    bench.go(stage="index")
    index = bench.session().index_of("train")
    first = index.annotations().to_pylist()[0]
    assert (first["x0"], first["y0"], first["x1"], first["y1"]) == wanted
    assert any("1 boxes of split train reach over an edge" in text for text in warnings(bench))


def test_a_path_with_a_nul_is_a_bad_line_of_the_table(bench):
    (bench.folder / "table.csv").write_bytes(b"path,label\nclass0/im\0age.png,0\n")
    bench.yaml.write_text("name: toy\nlayout: csv\nroot: images\nmetadata: table.csv\nsplit: train\n")
    with pytest.raises(DataError, match=r"table.csv:2: path .* holds a NUL"):
        bench.go(stage="index")


def test_a_box_file_of_another_data_set_is_refused(bench):
    (bench.folder / "boxes.txt").write_text("bird/1.jpg,1,2,3,4\n")
    with pytest.raises(ConfigError, match="holds boxes of 'bird/1.jpg', and of no image of this split of toy"):
        bench.go("val_boxes.annotator=file", f"val_boxes.file={bench.folder / 'boxes.txt'}", stage="val_boxes")
