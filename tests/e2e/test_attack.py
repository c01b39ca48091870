"""A few of the attacks of `make torture`, and that its tally sees what it is there to see."""

from __future__ import annotations

import json
import random
import shutil

import pytest

import attack
import kills
from wsolpipe.contract.layout import sha256_bytes

ATTACKS = 4


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The stores that all attacks copy."""
    with kills.begin(tmp_path_factory.mktemp("attacked"), seed=3, s3=False) as started:
        yield attack.Attacker(started)


@pytest.fixture
def attacker(begun):
    begun.rng.seed(3)
    begun.attacks.clear()
    return begun


@pytest.mark.slow
def test_damaged_files_cost_no_row_no_wrong_byte_no_hang_and_no_traceback(attacker):
    for number in range(ATTACKS):
        done = attacker.attack(number)
        assert done.failed == [], done
    assert attack.show(attacker) == 0


def test_wrong_bytes_with_a_record_that_agrees_are_counted(attacker, tmp_path):
    store = shutil.copytree(attacker.torture.whole.store, tmp_path / "store")
    first, second = sorted(store.glob("toy/train/shade/*/data.zarr/mean/c/*"))[:2]
    first.write_bytes(second.read_bytes())
    record = first.parents[3] / "commits/0.json"
    fields = json.loads(record.read_bytes())
    data = first.read_bytes()
    fields["objects"]["mean"] = {"sha256": sha256_bytes(data), "bytes": len(data)}
    record.write_text(json.dumps(fields))
    done = attack.Attack("damaged files", "run", "flip", "before")
    attacker._look(done, "read", store)
    assert [what for what, _ in done.failed] == ["wrong in silence"]


def test_an_error_that_is_not_of_the_product_is_counted(attacker, monkeypatch):
    monkeypatch.setattr(attack, "verify", lambda store: 1 / 0)
    done = attack.Attack("damaged files", "run", "flip", "before")
    attacker._look(done, "verify", attacker.torture.whole.store)
    assert [what for what, _ in done.failed] == ["tracebacks"]


@pytest.mark.parametrize("how", attack.HOW)
def test_each_kind_of_damage_changes_the_file(tmp_path, how):
    path, before = tmp_path / "file.json", b'{"rows": 12}'
    path.write_bytes(before)
    (tmp_path / "other.json").write_bytes(b'{"rows": 7}')
    attack.HOW[how](path, random.Random(1))
    assert path.is_symlink() or not path.is_file() or path.read_bytes() != before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unfinished keys", "bombs"])
def test_other_attacks_cost_no_row_either(attacker, tmp_path, name):
    done = attack.Attack(name, name, "")
    (tmp_path / "attacked").mkdir()
    attack.attack_scenes.SCENES[name](attacker, done, tmp_path / "attacked")
    assert done.failed == [], done
