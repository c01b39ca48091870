"""A device or a network that cannot be used ends a command before work starts, in one line."""

from __future__ import annotations

import platform

import pytest

from e2e.toy import object_bytes, records
from stores import build_store
from trained import words
from wsolpipe.contract.errors import ClusterError, ConfigError
from wsolpipe.networks.devices import choose_device
from wsoltrain.cli.main import main as wsoltrain

ABSENT = "cuda:99"  # on a machine with GPUs too


@pytest.mark.parametrize("asked", [ABSENT, "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_named(asked):
    with pytest.raises(ConfigError, match=f"device={asked}"):
        choose_device(asked)


def test_the_processor_is_always_there():
    assert choose_device("cpu") == "cpu"
    assert choose_device(None) == choose_device("auto")


def test_a_run_on_an_absent_device_indexes_nothing(toy):
    done = toy.run(f"device={ABSENT}")
    assert done.code == 3
    assert f"device={ABSENT}: torch sees" in done.err
    assert "Traceback" not in done.err
    assert not toy.store.exists() or not [path for path in toy.store.rglob("*") if path.is_file()]


def test_a_training_on_an_absent_device_writes_nothing(tmp_path, capsys):
    store = build_store(tmp_path, rows=8)
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    given = [word for word in words(store) if not word.startswith("device=")]
    with pytest.raises(SystemExit) as ended:
        wsoltrain([*given, f"device={ABSENT}", f"out={tmp_path / 'run'}"])
    assert ended.value.code == 3
    assert f"wsoltrain: device={ABSENT}: torch sees" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["swinv2_cr_tiny_224", "resnet18"])
def test_a_network_without_a_class_token_is_not_tried_again(toy, model):
    done = toy.refuse("run", f"cls_maps.model={model}", "cls_maps.weights=random:0", stage="cls_maps")
    assert done.code == 3, done.err
    assert model in done.err
    assert "tries" not in done.err
    assert "Traceback" not in done.err
    assert not list(toy.store.glob("*/*/cls_maps/*/commits/*"))


@pytest.mark.parametrize("where", ["shade", "palette"])
def test_a_fault_of_the_device_ends_the_run_and_blames_no_row(toy, undisturbed, where):
    """A rows stage in the middle of its second shard, and an artifact: both leave everything to the next run."""
    first = toy.run(f"{where}.dies={toy.folder / 'dead'}")
    assert first.code == ClusterError.exit_code
    assert f"of {platform.node()}" in first.err
    assert "CUDA error: an illegal memory access" in first.err
    assert "nvidia-smi" in first.err
    assert "Traceback" not in first.err
    assert not list(toy.store.glob("**/leases/*.json"))
    assert [record.quarantined for record in records(toy.store, "shade").values()] == [()] * (
        3 - 2 * (where == "shade")
    )
    second = toy.run(f"{where}.dies={toy.folder / 'dead'}")
    assert second.code == 0, second.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)


def test_a_worker_whose_device_failed_is_replaced_and_another_goes_on(toy, undisturbed):
    done = toy.run(f"shade.dies={toy.folder / 'dead'}", "workers=2")
    assert done.code == 0, done.err
    assert "CUDA error: an illegal memory access was encountered; it is started again" in done.err
    assert object_bytes(toy.store) == object_bytes(undisturbed.store)
