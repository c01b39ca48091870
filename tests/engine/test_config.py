"""What the words of a command line become, and which are refused."""

from __future__ import annotations

import pytest

from wsolpipe.contract.errors import ConfigError
from wsolpipe.engine.config import build_config, for_worker, merge
from wsolpipe.engine.session import Session
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.stages.registry import load_registry


def build(*words):
    return build_config(words, load_registry())[0]


def test_words_go_to_the_run_or_to_their_stage():
    config = build(
        "stage=proposals,cls_maps", "dataset=demo", "workers=2", "max_failed=1", "limit=null", "proposals.top_k=3",
        "classifier.model_args.pad_type=same", "classifier.model_args.drop=0.1", "split=train,val", "store=s=1",
    )  # fmt: skip
    assert config.stage == ("proposals", "cls_maps")
    assert (config.workers, config.max_failed, config.limit) == (2, 1, None)
    assert config.split == ("train", "val")
    assert config.store == "s=1"
    assert config.params == {
        "proposals": {"top_k": 3},
        "classifier": {"model_args": {"pad_type": "same", "drop": 0.1}},
    }


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("stagee=proposals", "unknown key 'stagee'; did you mean 'stage'\\?\n  -> the same command with --help"),
        ("stage=proposal", "unknown stage 'proposal'; did you mean 'proposals'.*cls_maps"),
        ("proposal.top_k=3", "unknown stage 'proposal'; did you mean 'proposals'"),
        ("cluster=dask_local", "unknown cluster 'dask_local'; did you mean 'dask-local'.*local"),
        ("index.size=3", "the index has no parameters"),
        ("workers=two", "workers=two: expected integer, at least 1"),
        ("workers=1.5", "workers=1.5: expected integer"),
        ("workers=true", "workers=true: expected integer"),
        ("workers=0", "workers=0: expected integer, at least 1"),
        ("shard_rows=0", "expected integer, at least 1, or null"),
        ("limit=-1", "expected integer, at least 1, or null"),
        ("limit=many", "limit=many: expected integer, at least 1, or null"),
        ("max_failed=-0.1", "max_failed=-0.1: expected number, at least 0"),
        ("max_failed=lots", "max_failed=lots: expected number"),
        ("force=1", "force=1: expected true or false"),
        ("force=no", "force=no: expected true or false"),
        ("proposals.heads=[1, 2", "the value .*not valid YAML"),
        ("stage", "not of the form key=value"),
        ("=3", "not of the form key=value"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(word, told):
    with pytest.raises(ConfigError, match=told) as caught:
        build(word)
    assert "\n" not in caught.value.message


def test_a_parameter_that_has_a_value_cannot_have_parts():
    with pytest.raises(ConfigError, match="model"):
        build("classifier.model=resnet50", "classifier.model.depth=3")


@pytest.mark.parametrize("rows", ["5", "a:b", "1:2:3", "-1:5"])
def test_rows_are_written_as_start_and_stop(rows):
    with pytest.raises(ConfigError, match="rows=start:stop"):
        build(f"rows={rows}")


@pytest.mark.parametrize("rows", ["10:5", "5:5", ":0"])
def test_rows_that_hold_nothing_are_refused(rows):
    with pytest.raises(ConfigError, match=f"rows={rows} holds no row"):
        build(f"rows={rows}")


def test_rows_may_be_open_on_either_side():
    assert build("rows=3:").row_range() == (3, None)
    assert build("rows=:7").row_range() == (0, 7)


def test_a_configuration_crosses_process_borders():
    config = build("stage=proposals", "dataset=demo", "proposals.top_k=3", "workers=4", "force=true")
    assert RunConfig.from_json(config.to_json()) == config
    worker = for_worker(config)
    assert (worker.cluster, worker.workers, worker.force, worker.params) == ("local", 1, False, config.params)


def test_the_store_comes_from_the_environment_where_no_word_names_it(monkeypatch):
    monkeypatch.setenv("WSOLPIPE_STORE", "/somewhere")
    assert build("stage=proposals").store == "/somewhere"
    assert build("stage=proposals", "store=here").store == "here"


def test_mappings_are_merged_key_by_key():
    assert merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "b": {"z": 1}}) == {
        "a": {"x": 1, "y": 3},
        "b": {"z": 1},
    }


def test_an_empty_mapping_that_is_typed_clears_that_of_the_data_set():
    def model_args(word):
        return Session.open(build("dataset=demo", word)).params("cls_maps").model_args

    assert model_args("cls_maps.model_args.depth=2")["num_heads"] == 4
    assert model_args("cls_maps.model_args={}") == {}
    assert merge({"a": 1}, {}) == {"a": 1}


def test_an_unknown_data_set_split_or_parameter_names_the_nearest(bench):
    bench.go("limit=2")
    with pytest.raises(ConfigError, match="unknown split of toy 'trian'; did you mean 'train'"):
        bench.go("split=trian")
    with pytest.raises(ConfigError, match="unknown parameter of stage shade 'gian'; did you mean 'gain'.*grid"):
        bench.go("shade.gian=2")
    with pytest.raises(ConfigError, match="unknown data set 'deom'; did you mean 'demo'"):
        bench.go("dataset=deom")
    with pytest.raises(ConfigError, match=r"shade.grid=big: expected a whole number"):
        bench.go("shade.grid=big")


def test_another_shard_rows_than_the_first_runs_is_refused_with_both(bench):
    bench.go("limit=20", stage="shade")
    with pytest.raises(ConfigError, match=r"shard_rows=32, but shade of train was started with shard_rows=16"):
        bench.go("limit=20", "shard_rows=32", stage="shade")
    assert bench.go("limit=20", "shard_rows=null", stage="shade").code == 0
