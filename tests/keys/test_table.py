"""The table of keys: every key is explained, read by its kind, and offered to shells with its values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import inventory
import reference
from wsolpipe.cli.main import cli as wsolpipe
from wsolpipe.contract.errors import ConfigError
from wsolpipe.engine.config import offered_clusters
from wsolpipe.keys import kinds
from wsolpipe.keys.key import Key, keys_of_class, read_keys, require
from wsolpipe.keys.models import keys_of
from wsolpipe.keys.run_keys import RUN_KEYS
from wsolpipe.launch.profiles import Profile
from wsolpipe.stages.registry import load_registry
from wsoltrain.cli.command import recipe_keys
from wsoltrain.cli.main import cli as wsoltrain
from wsoltrain.training.recipe import recipe_type
from wsoltrain.training.recipe_file import known_recipes

PROGRAMS = {"wsolpipe": wsolpipe, "wsoltrain": wsoltrain}
COMMANDS = [(program, name) for program, cli in PROGRAMS.items() for name in cli.listed]


def tables():
    """Every table of keys with its name."""
    for program, name in COMMANDS:
        yield f"{program} {name}", PROGRAMS[program].load(name).table.keys
    yield "run", RUN_KEYS
    registry = load_registry()
    yield from ((name, registry.keys(name)) for name in registry.entries)
    yield "profile", keys_of(Profile, prefix="profile.")
    yield from ((name, recipe_keys(name)) for name in known_recipes())


@pytest.mark.parametrize(("table", "keys"), [pytest.param(name, keys, id=name) for name, keys in tables()])
def test_every_key_has_a_meaning_a_kind_and_a_name_of_its_own(table, keys):
    for key in keys:
        assert len(key.meaning) > 3, f"{table}: {key.name} has no meaning"
        assert key.kind.name, f"{table}: {key.name} has no kind"
        assert not key.meaning.endswith("."), f"{table}: {key.name}: one line without a full stop"
    names = [key.name for key in keys]
    assert len(names) == len(set(names))


def test_the_reference_pages_are_what_the_tables_say():
    pages = reference.write_pages()
    for name, text in pages.items():
        path = reference.FOLDER / name
        assert path.is_file(), f"{name} is missing: python tools/reference.py writes it"
        assert path.read_text(encoding="utf-8") == text, f"{name} is out of date: python tools/reference.py"
    whole = "".join(pages.values())
    for table, keys in tables():
        for key in keys:
            assert f"`{key.name}`" in whole, f"{table}: {key.name} is in no page"


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_help_lists_every_key_with_its_meaning(program, name):
    cli = PROGRAMS[program]
    shown = CliRunner().invoke(cli, [name, "--help"], standalone_mode=False, terminal_width=400, max_content_width=400)
    assert shown.exception is None, shown.exception
    for key in PROGRAMS[program].load(name).table.keys:
        assert f"{key.name}=" in shown.output
        assert key.meaning in shown.output


def test_help_of_a_stage_or_a_recipe_lists_its_parameters_wherever_help_stands():
    for words in (["run", "--help", "stage=cls_maps,val_masks"], ["plan", "stage=cls_maps,val_masks", "--help"]):
        shown = CliRunner().invoke(wsolpipe, words, standalone_mode=False, max_content_width=400, terminal_width=400)
        for stage in ("cls_maps", "val_masks"):
            for key in load_registry().keys(stage):
                assert f"{key.name}=" in shown.output
                assert key.meaning in shown.output
    shown = CliRunner().invoke(
        wsoltrain, ["fit", "recipe=dips", "--help"], standalone_mode=False, max_content_width=400, terminal_width=400
    )
    for key in recipe_keys("dips"):
        assert f"{key.name}=" in shown.output
        assert key.meaning in shown.output


def test_help_of_an_unknown_stage_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'proposals'"):
        CliRunner().invoke(wsolpipe, ["run", "stage=proposal", "--help"], standalone_mode=False, catch_exceptions=False)


def test_help_of_a_run_names_every_cluster():
    shown = CliRunner().invoke(
        wsolpipe, ["run", "--help"], standalone_mode=False, max_content_width=400, terminal_width=400
    )
    assert all(name in shown.output for name in offered_clusters({}))


def complete(program, words, incomplete):
    """What a shell is offered after `words`."""
    cli = PROGRAMS[program]
    found = ShellComplete(cli, {}, program, "_X_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in found]


@pytest.mark.parametrize(
    ("program", "words", "incomplete", "offered"),
    [
        ("wsolpipe", ["run"], "sta", {"stage=", "stages="}),
        ("wsolpipe", ["run"], "cls_maps.s", {"cls_maps.size=", "cls_maps.scale=", "cls_maps.std="}),
        ("wsolpipe", ["run"], "profile.mem", {"profile.memory="}),
        ("wsolpipe", ["run"], "stage=pro", {"stage=proposals"}),
        ("wsolpipe", ["run"], "stage=proposals,cls", {"stage=proposals,cls_maps", "stage=proposals,classifier"}
         - {"stage=proposals,classifier"} | {"stage=proposals,cls_maps"}),
        ("wsolpipe", ["run"], "dataset=dem", {"dataset=demo"}),
        ("wsolpipe", ["run", "dataset=demo"], "split=", {"split=train", "split=val", "split=test"}),
        ("wsolpipe", ["run"], "cluster=slurm", {"cluster=slurm", "cluster=slurm-array"}),
        ("wsolpipe", ["run"], "force=", {"force=true", "force=false"}),
        ("wsolpipe", ["run"], "cls_maps.scale=", {"cls_maps.scale=linear", "cls_maps.scale=sqrt",
                                                  "cls_maps.scale=log", "cls_maps.scale=power"}),
        ("wsolpipe", ["run"], "clip_cams.softmax=", {"clip_cams.softmax=true", "clip_cams.softmax=false"}),
        ("wsolpipe", ["eval"], "conv", {"convention="}),
        ("wsolpipe", ["eval"], "convention=", {"convention=standard", "convention=clean"}),
        ("wsolpipe", ["stages"], "val", {"val_boxes", "val_masks"}),
        ("wsolpipe", ["quarantine"], "r", {"retry", "rows=", "root=", "retries=", "regions."}),
        ("wsolpipe", ["run", "stage", "="], "propo", {"proposals"}),
        ("wsolpipe", ["run", "dataset", "=", "demo", "split"], "=", {"train", "val", "test"}),
        ("wsoltrain", ["fit"], "recipe=d", {"recipe=dips", "recipe=dips_workshop"}),
        ("wsoltrain", ["fit", "recipe=dips"], "epo", {"epochs="}),
        ("wsoltrain", ["fit"], "track=jsonl,w", {"track=jsonl,wandb"}),
        ("wsoltrain", ["select"], "metric=", {"metric=MaxBoxAcc", "metric=MaxBoxAccV2", "metric=iou"}),
        ("wsolpipe", ["run"], "nonsense=", set()),
        ("wsolpipe", ["run"], "nonsense.x", set()),
    ],
)  # fmt: skip
def test_shells_are_offered_names_and_values(program, words, incomplete, offered):
    found = complete(program, words, incomplete)
    assert set(found) >= offered
    assert bool(found) == bool(offered)
    assert len(found) == len(set(found))


def test_shells_are_offered_files_and_stages_of_the_store(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vit.safetensors").touch()
    (tmp_path / "store" / "demo" / "train" / "cams").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert complete("wsolpipe", ["run"], "cls_maps.weights=we") == ["cls_maps.weights=weights/"]
    assert complete("wsolpipe", ["run"], "cls_maps.weights=weights/") == ["cls_maps.weights=weights/vit.safetensors"]
    assert complete("wsoltrain", ["eval", "dataset=demo", "store=store"], "maps=") == ["maps=cams"]
    assert complete("wsolpipe", ["pull", "store=store"], "dataset=") == ["dataset=demo"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_words_that_it_cuts_at_each_equals_sign(tmp_path):
    program = tmp_path / "wsolpipe"
    program.write_text(f"#!{sys.executable}\nfrom wsolpipe.cli.main import main\n\nmain()\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = subprocess.run(
        [program], env={**environment, "_WSOLPIPE_COMPLETE": "bash_source"}, capture_output=True, text=True, check=True
    ).stdout
    lines = [script, "compopt() { :; }"]
    for words in (["stage", "=", "propo"], ["sta"], ["cluster", "="]):
        listed = " ".join(["wsolpipe", "run", *words])
        lines += [
            f"COMP_WORDS=({listed}); COMP_CWORD={len(words) + 1}; COMPREPLY=()",
            f"_wsolpipe_completion {program}; printf '%s ' \"${{COMPREPLY[@]}}\"; echo",
        ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=True)
    offered = [line.split() for line in done.stdout.splitlines()]
    assert offered[0] == ["proposals"], done.stderr
    assert set(offered[1]) == {"stage=", "stages="}
    assert set(offered[2]) >= set(offered_clusters({}))


class _Keys:
    """Keys of a command.

    Attributes
    ----------
    n
        a number
    way
        a way
    names
        names
    place
        a place
    share
        a share
    sure
        whether
    """

    n = Key(kinds.integer(1, 9), 3, unit="rows")
    way = Key(kinds.choice("left", "right"), "left")
    names = Key(kinds.list_of(kinds.text()), ())
    place = Key(kinds.or_null(kinds.file()), "here")
    share = Key(kinds.number(0, 1))
    sure = Key(kinds.flag(), False)


KEYS = keys_of_class(_Keys)


def test_words_are_read_by_the_kinds_of_their_keys():
    assert read_keys([], KEYS) == {"n": 3, "way": "left", "names": (), "place": "here", "share": None, "sure": False}
    words = ["n=4", "way=right", "names=a, b", "place=none", "share=5e-1", "sure=True"]
    assert list(read_keys(words, KEYS).values()) == [4, "right", ("a", "b"), None, 0.5, True]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("n=0", "n=0: expected integer from 1 to 9 \\(rows\\)"), ("n=1.5", "expected integer"), ("n=null", "expected"),
        ("way=rigth", "unknown way 'rigth'; did you mean 'right'"), ("share=2", "expected number from 0 to 1"),
        ("sure=yes", "sure=yes: expected true or false"), ("nn=3", "unknown key 'nn'; did you mean 'n'"),
        ("place=" + "a" * 5000, "expected file"), ("n=" + "9" * 5000, "expected integer"), ("n", "not of the form"),
    ],
)  # fmt: skip
def test_a_word_of_another_kind_is_refused_in_one_short_line(word, told):
    with pytest.raises(ConfigError, match=told) as caught:
        read_keys([word], KEYS)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_a_key_that_is_needed_is_named_with_an_example():
    with pytest.raises(ConfigError, match="pull needs from=") as caught:
        require({"from": None}, "wsolpipe pull", **{"from": "s3://bucket/labels"})
    assert "from=s3://bucket/labels" in str(caught.value)


def test_help_groups_many_keys_by_what_the_class_that_declares_them_says():
    fit = wsoltrain.load("fit").table
    found = {section.title: {key.name for key in section.keys} for section in fit.sections({"recipe": "dips"})}
    assert {"recipe", "dataset", "store", "config"} <= found["Recipe, data and labels"]
    assert {"val", "by", "metric"} <= found["Evaluation, and what chooses the epoch"]
    assert {"lr", "schedule", "warmup"} <= found["Recipe dips: learning rate and schedule"]
    assert {"crf_weight", "size_weight"} <= found["Recipe dips: losses"]
    assert {"backbone", "weights"} <= found["Recipe dips: network and its first weights"]
    assert {"method", "head_epochs", "head_lr", "temperature"} == found["Recipe dips: method"]
    assert [section.title for section in wsolpipe.load("ls").table.sections({})] == ["Keys"]


def test_modules_of_the_table_import_nothing_heavy():
    heavy = ("numpy", "pydantic", "yaml", "torch", "zarr")
    code = (
        f"import sys, wsolpipe.cli.run, wsolpipe.keys.shell\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert Path(reference.__file__).is_file()


def test_the_inventory_names_what_a_later_list_lacks(tmp_path, monkeypatch, capsys):
    found = sorted(inventory.entries())
    assert len(found) > 2000
    assert {"layout folder", "format coco", "method dips", "cluster slurm", "output proposals.boxes"} <= set(found)
    before = tmp_path / "before.txt"
    for lines, code, shown in ((found, 0, "nothing differs"), (["layout paper", *found], 1, "- layout paper")):
        before.write_text("\n".join(lines))
        monkeypatch.setattr(sys, "argv", ["inventory.py", "--compare", str(before)])
        assert inventory.main() == code
        assert capsys.readouterr().out.strip() == shown


@pytest.mark.parametrize("words", [["wsolpipe", "push"], ["wsoltrain", "fit"]], ids=lambda words: words[0])
def test_commands_answer_where_python_drops_docstrings(words):
    program, *rest = words
    done = subprocess.run([sys.executable, "-OO", "-m", program, *rest, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-400:]
    assert "store=" in done.stdout


def test_keys_of_a_recipe_stand_where_python_drops_docstrings(monkeypatch):
    kind = recipe_type("dips")
    names = [key.name for key in keys_of(kind)]
    assert {"crf_weight", "epochs"} <= set(names)
    for each in kind.__mro__[:-1]:
        monkeypatch.setattr(each, "__doc__", None)
    found = keys_of(kind)
    assert [key.name for key in found] == names
    assert not any(key.heading for key in found)
