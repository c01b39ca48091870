"""``wsoltrain fit`` for several values of a key, with words from a file, and as processes of their own."""

from __future__ import annotations

import json

import pytest

from trained import words
from wsoltrain.cli.main import main


def call(capsys, *given: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(given))
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def given(store, out, **more):
    return [*words(store, epochs=1, head_epochs=0, **more), f"out={out}", "workers=0", "val=val"]


@pytest.fixture(scope="module")
def swept(trainable, tmp_path_factory):
    """A sweep of two values, its file of words, and what it printed."""
    out = tmp_path_factory.mktemp("sweep")
    file = out.parent / "sweep.yaml"
    file.write_text("sweep: {lr: [0.05, 0.01]}\nepochs: 7\ntrack: [jsonl]\n")
    return out, [*given(trainable, out), f"config={file}"]


def test_each_value_is_a_run_and_the_table_names_the_best(swept, capsys):
    out, command = swept
    code, text, _ = call(capsys, *command)
    assert code == 0
    head, *lines, last = text.splitlines()
    assert head.split()[:3] == ["lr", "MaxBoxAcc", "by"]
    assert [line.split()[0] for line in lines] == ["0.05", "0.01"]
    scores = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert [line.endswith("best") for line in lines] == [each == max(scores.values()) for each in scores.values()]
    assert last == f"wsoltrain select runs={out} chooses among all epochs"
    kept = json.loads((out / "lr=0.01" / "runs" / "lr=0.01-0000.json").read_text())
    assert kept["parameters"]["lr"] == 0.01
    assert kept["parameters"]["epochs"] == 1  # the command line goes over the file

    code, text, _ = call(capsys, "select", f"runs={out}", "--json")
    assert json.loads(text)["score"] == pytest.approx(max(scores.values()), abs=0.005)


def test_again_as_processes_of_their_own_nothing_is_trained_twice(swept, capsys):
    out, command = swept
    before = {path: path.read_bytes() for path in out.rglob("metrics.jsonl")}
    code, text, errors = call(capsys, *command, "cluster=dask-local", "parallel=1", "--json")
    assert code == 0, errors
    found = json.loads(text)
    assert [line["lr"] for line in found["runs"]] == ["0.05", "0.01"]
    assert found["failed"] == {}
    steps = {path: [line for line in text.splitlines() if b'"kind": "step"' in line] for path, text in before.items()}
    for path, lines in steps.items():
        assert [line for line in path.read_bytes().splitlines() if b'"kind": "step"' in line] == lines
    assert "resumed at step" in (out / "logs" / "lr=0.05.log").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["sweep.lr=0.1,x"], "lr: expected a number"),
        (["sweep.epochs=1,2"], "epochs= is given both by itself"),
        (["sweep.out=a,b"], "sweep.out= is not possible"),
        (["sweep.lrr=1,2"], "unknown key 'lrr'; did you mean 'lr'"),
        (["cluster=slrm"], "unknown cluster 'slrm'; did you mean 'slurm'"),
        (["cluster=slurm", "cluster.memry=3"], "unknown field 'memry'; did you mean 'memory'"),
        (["config=none.yaml"], "cannot read none.yaml"),
    ],
)
def test_wrong_words_are_one_line_before_anything_is_trained(trainable, tmp_path, capsys, more, message):
    code, _, errors = call(capsys, *[word for word in given(trainable, tmp_path) if word.partition("=")[0] not in
                                     {"out"} or "sweep.out" not in more[0]], *more)  # fmt: skip
    assert code == 3
    assert message in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_training_that_fails_is_named_and_the_others_end(trainable, tmp_path, capsys):
    command = [*given(trainable, tmp_path), "sweep.lr=0.01,1e30", "--json"]
    code, text, errors = call(capsys, *command)
    assert code == 1
    assert "lr=1e30: the loss is NaN or infinite" in errors
    assert [line["lr"] for line in json.loads(text)["runs"]] == ["0.01"]
