"""Push and pull from the command line: killed and repeated, refused and resumed, with nothing half-arrived."""

from __future__ import annotations

import signal

import pytest

from e2e.toy import object_bytes
from wsolpipe import open_store
from wsolpipe.share.verify import verify


def wsolpipe(toy, *words, **env):
    """Run a command that takes stores, not data sets."""
    return toy.command_line([*map(str, words), "--json"], **env)


@pytest.mark.parametrize("verb", ["push", "pull"])
@pytest.mark.parametrize("fault", ["between_arrays:9", "before_record:5"])
def test_a_transfer_killed_at_any_moment_goes_on_to_the_same_bytes(undisturbed, tmp_path, verb, fault):
    theirs = tmp_path / "theirs"
    if verb == "push":
        words = ["push", f"store={undisturbed.store}", f"to={theirs}", "jobs=2"]
    else:
        words = ["pull", f"from={undisturbed.store}", f"store={theirs}", "jobs=2"]
    assert wsolpipe(undisturbed, *words, WSOLPIPE_FAULT=fault).code == -signal.SIGKILL
    assert [item for item in verify(open_store(str(theirs))) if item.kind != "orphan"] == []
    done = wsolpipe(undisturbed, *words)
    assert done.code == 0, done.err
    assert object_bytes(theirs) == object_bytes(undisturbed.store)
    assert list(verify(open_store(str(theirs)))) == []
    last = wsolpipe(undisturbed, *words)
    assert {line["moved"] for line in last.json["stages"]} == {0}


def test_a_pulled_store_is_run_on_as_if_it_was_made_here(undisturbed, toy):
    done = wsolpipe(toy, "pull", f"from={undisturbed.store}", f"store={toy.store}")
    assert done.code == 0, done.err
    ran = toy.run()
    assert ran.code == 0, ran.err
    assert toy.calls("shade") == []
    assert toy.calls("frame") == []
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def test_a_pulled_index_that_is_damaged_is_listed_again(undisturbed, toy):
    assert wsolpipe(toy, "pull", f"from={undisturbed.store}", f"store={toy.store}").code == 0
    (table,) = toy.store.glob("toy/train/index/*/index.parquet")
    table.write_bytes(table.read_bytes()[:100])
    ran = toy.run()
    assert ran.code == 0, ran.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def test_a_data_set_is_published_by_one_command_if_it_has_a_licence(undisturbed, tmp_path):
    words = ["publish", f"store={undisturbed.store}", f"to={tmp_path / 'out'}", "dataset=toy"]
    refused = wsolpipe(undisturbed, *words)
    assert refused.code == 3
    assert "licence=" in refused.err
    done = wsolpipe(undisturbed, *words, "licence=CC-BY-4.0")
    assert done.code == 0, done.err
    assert done.json["checksums"] in done.err
    assert {path.name for path in tmp_path.glob("out/toy/*.*")} == {"README.md", "croissant.json"}


def test_what_was_refused_gives_exit_code_4_and_the_command_that_goes_on(toy, undisturbed, tmp_path):
    source = tmp_path / "source"
    assert wsolpipe(undisturbed, "push", f"store={undisturbed.store}", f"to={source}").code == 0
    torn = next(source.glob("toy/train/shade/*/data.zarr/mean/c/1"))
    torn.write_bytes(torn.read_bytes()[:-3])
    done = wsolpipe(toy, "pull", f"from={source}", f"store={toy.store}")
    assert done.code == 4
    assert "mean/c/1 has other bytes than recorded" in done.err
    assert done.err.splitlines()[-1].startswith("resume with: wsolpipe pull from=")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["push"], "add to="),
        (["pull"], "add from="),
        (["push", "to=x", "stagse=a"], "did you mean 'stages'"),
        (["pull", "from=x", "jobs=many"], "jobs=many"),
        (["pull", "from=x", "replace=always"], "unknown replace 'always'"),
        (["pull", "from=s3://me:secret@x/y"], "written to logs"),
    ],
)
def test_wrong_words_are_said_before_anything_is_done(toy, words, says):
    done = wsolpipe(toy, *words)
    assert done.code == 3
    assert says in done.err
    assert "secret" not in done.err
