"""Explain names what changed; adopt lets older shards stand, says why, and consumers go on from them."""

from __future__ import annotations

import pytest

from e2e.toy import object_bytes, records
from wsolpipe.contract.errors import ConfigError
from wsolpipe.share.other_keys import adopt, explain, locate
from wsolpipe.share.selection import Selection


def differences(bench, a, b, **choice):
    places = [locate(word, str(bench.store), Selection(**choice)) for word in (a, b)]
    return [(item.field, item.before, item.after) for item in explain(*places)]


def test_explain_names_the_parameter_that_changed(done):
    bench, _ = done
    old = bench.keys()
    assert bench.go("shade.gain=2.0", stage="shade").code == 0
    new = bench.keys("shade.gain=2.0")
    assert differences(bench, old["shade"], new["shade"]) == [("params.gain", 1.0, 2.0)]
    assert differences(bench, f"shade/{old['shade'][:6]}", f"{bench.store}/toy/train/shade/{new['shade']}") == [
        ("params.gain", 1.0, 2.0)
    ]


def test_explain_follows_what_was_read_to_the_field_that_changed(done):
    bench, _ = done
    old = bench.keys()
    assert bench.go("shade.gain=2.0", "palette.seed=3", "frame.spread=0.5").code == 0
    new = bench.keys("shade.gain=2.0", "palette.seed=3", "frame.spread=0.5")
    assert differences(bench, old["frame"], new["frame"]) == [
        ("params.spread", 1.0, 0.5),
        ("shade.params.gain", 1.0, 2.0),
        ("palette.params.seed", 0, 3),
    ]


def test_explain_names_a_bumped_version_and_relabelled_rows(done):
    bench, _ = done
    old = bench.keys()
    bench.write_stages(lambda text: text.replace("version: 1", "version: 2", 1))
    assert bench.go(stage="shade").code == 0
    assert differences(bench, old["shade"], bench.keys()["shade"]) == [("version", 1, 2)]
    (bench.images / "class0" / "image000.png").rename(bench.images / "class1" / "image000.png")
    assert bench.go(stage="palette").code == 0
    fields = [item[0] for item in differences(bench, old["palette"], bench.keys()["palette"])]
    assert fields == ["index.train/labels", "index.train/retired"]


@pytest.mark.parametrize(
    ("word", "says"), [("zz", "names no key"), ("0123", "unknown key"), ("0123456789abcdefg", "names no key")]
)
def test_explain_says_what_is_no_key(done, word, says):
    bench, _ = done
    with pytest.raises(ConfigError, match=says):
        differences(bench, word, bench.keys()["shade"])


def test_explain_refuses_two_stages(done):
    bench, _ = done
    keys = bench.keys()
    with pytest.raises(ConfigError, match="compare two keys of one stage"):
        differences(bench, keys["shade"], keys["frame"])


def test_adopted_shards_stand_with_their_reason_and_consumers_go_on_from_them(done):
    bench, before = done
    old = bench.keys()
    bench.write_stages(lambda text: text.replace("version: 1", "version: 2", 1))
    assert bench.keys()["shade"] != old["shade"]
    (done_now,) = adopt(bench.session(), "shade", old["shade"][:6], "only a comment changed")
    assert (done_now.shards, done_now.present, done_now.left) == (5, 0, [])
    for record in records(bench.store, "shade").values():
        if record.adopted:
            assert (record.adopted, record.taken_over_from) == ("only a comment changed", old["shade"])
    assert sum(1 for record in records(bench.store, "shade").values() if record.adopted) == 5
    assert bench.go().code == 0
    assert {stage for stage, _ in bench.made()} == {"frame"}
    new = bench.keys()
    after = object_bytes(bench.store)
    for name, data in before.items():
        for stage in ("shade", "frame"):  # a group names its key
            name = name.replace(str(old[stage]), str(new[stage]))
            data = data.replace(str(old[stage]).encode(), str(new[stage]).encode())
        assert after[name] == data
    assert adopt(bench.session(), "shade", str(old["shade"]), "again")[0].present == 5


def test_adopt_leaves_shards_whose_images_are_others_now(done):
    bench, _ = done
    old = bench.keys()
    bench.draw(["class0/image000.png"], seed=7)
    bench.write_stages(lambda text: text.replace("version: 1", "version: 2", 1))
    assert bench.go("force=true", stage="index").code == 0
    (result,) = adopt(bench.session(), "shade", str(old["shade"]), "good enough")
    assert [shard for shard, _ in result.left] == [0]
    assert "its images are others now" in result.left[0][1]
    assert result.shards == 4
    assert bench.go(stage="shade").code == 0
    assert bench.made() == [("shade", 0)]


@pytest.mark.parametrize(
    ("stage", "key", "reason", "says"),
    [
        ("shade", "old", "  ", "no reason given"),
        ("palette", "old", "why not", "makes an artifact"),
        ("shade", "ffff0000", "why not", "has shade with key"),
        ("shade", "old", "why not", "nothing to adopt"),
    ],
)
def test_adopt_says_what_cannot_be(done, stage, key, reason, says):
    bench, _ = done
    key = str(bench.keys()[stage]) if key == "old" else key
    with pytest.raises(ConfigError, match=says):
        adopt(bench.session(), stage, key, reason)


def test_the_commands_do_the_same(toy):
    assert toy.run("shade.gain=1.0").code == 0
    old = next(iter(toy.store.glob("toy/train/shade/*"))).name
    assert toy.run("shade.gain=2.0", stage="shade").code == 0
    new = next(path.name for path in toy.store.glob("toy/train/shade/*") if path.name != old)
    told = toy.command_line(["explain", old, new, f"store={toy.store}", "--json"])
    assert told.code == 0, told.err
    assert told.json["differences"] == [{"field": "params.gain", "before": 1.0, "after": 2.0}]
    done = toy.call("adopt", f"key={old}", "reason=so it is", "shade.gain=3.0", stage="shade")
    assert done.code == 0, done.err
    shards = len(list(toy.store.glob(f"toy/train/shade/{old}/commits/*")))
    assert done.json["adopted"][0]["shards"] == shards
    made = len(toy.calls("shade"))
    assert toy.run("shade.gain=3.0", stage="shade").line("shade")["shards_done"] == shards
    assert len(toy.calls("shade")) == made
