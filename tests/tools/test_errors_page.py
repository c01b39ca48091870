"""The reference lists every message that a user can meet: those of the source, and those that wrong words bring."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import wsolpipe.cli.main
import wsoltrain.cli.main
from stores import build_store
from wsolpipe.keys.console import call

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "errors.md").read_text()
LISTED = re.findall(r"(?m)^\| `(.*?)` \|", PAGE)
PROGRAMS = {"wsolpipe": wsolpipe.cli.main.cli, "wsoltrain": wsoltrain.cli.main.cli}


def pattern(listed: str) -> re.Pattern[str]:
    """What a listed message may look like in a run."""
    parts = {"…": ".*", "‹": "(?:", " / ": "|", "›": "|)"}
    text, depth = "", 0
    for part in re.split(r"(…|‹| / |›)", listed):
        depth += (part == "‹") - (part == "›")
        text += parts[part] if part in parts and (part != " / " or depth) else re.escape(part)
    return re.compile(text, re.DOTALL)


def fits(listed: str, text: str) -> bool:
    return pattern(listed).fullmatch(text) is not None


def fixed_words(path: Path) -> set[str]:
    """Parts of at least three words of the texts that a module gives to `msg`, cut where a value stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["msg"]:
            texts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
            found |= {each.value for each in texts if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    tidy = (" ".join(text.replace("`", "'").replace("|", "/").split()) for text in found)
    return {text for text in tidy if len(text.split()) >= 3}


def test_every_message_of_the_source_is_on_the_page():
    missing = {}
    for half in ("pipeline", "trainer"):
        for path in (ROOT / half).rglob("*.py"):
            if left := sorted(text for text in fixed_words(path) if text not in PAGE):
                missing[str(path.relative_to(ROOT))] = left
    assert missing == {}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistaken")
    build_store(folder, rows=8, shard_rows=8)
    (folder / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    (folder / "wrong.yaml").write_text("name: tiny\nlayout: foldr\nevery: none\n")
    (folder / "not.safetensors").write_text("tensors")
    return folder


HERE = "dataset=tiny.yaml store=store"


@pytest.mark.parametrize(
    "line",
    [
        "wsolpipe run", "wsolpipe run stage=cams", "wsolpipe run stage=camz dataset=demo", "wsolpipe runn",
        "wsolpipe run stage=cams dataset=deom", "wsolpipe run stage=cams dataset=no.yaml",
        "wsolpipe run stage=cams dataset=wrong.yaml", "wsolpipe run stage=cams dataset=cub",
        f"wsolpipe run stage=cams {HERE} split=tset", f"wsolpipe run stage=cams {HERE} rows=5",
        f"wsolpipe run stage=cams {HERE} rows=5:2", f"wsolpipe run stage=cams {HERE} cams.methods=cma",
        f"wsolpipe run stage=cams {HERE} cams.batch=0", f"wsolpipe run stage=cams {HERE} cams.bach=1",
        f"wsolpipe run stage=cams {HERE} workers=two", f"wsolpipe run stage=cams {HERE} cluster=slurmm",
        f"wsolpipe run stage=cams {HERE} storr=x", f"wsolpipe run stage=cams {HERE} nonsense",
        f"wsolpipe run stage=cls_maps {HERE} cls_maps.weights=none.pth",
        f"wsolpipe run stage=cls_maps {HERE} cls_maps.weights=not.safetensors",
        "wsolpipe status store=lables", "wsolpipe status store=gopher://x",
        "wsolpipe report dataset=tiny.yaml store=no",
        f"wsolpipe eval stage=cams {HERE}", f"wsolpipe eval stage=proposals {HERE} key=ffff", f"wsolpipe eval {HERE}",
        f"wsolpipe eval stage=cls_maps {HERE} tau=0.5 tau_from=val_boxes", "wsolpipe export stage=proposals " + HERE,
        f"wsolpipe export stage=proposals {HERE} format=coca out=x", f"wsolpipe gc {HERE}",
        "wsolpipe gc store=store drop=ffff", "wsolpipe explain ffff eeee store=store", "wsolpipe push store=store",
        "wsolpipe pull store=store",
        "wsoltrain fit recipe=dips", f"wsoltrain fit recipe=dps {HERE}", f"wsoltrain fit recipe=cam {HERE} epoch=3",
        f"wsoltrain fit recipe=cam {HERE} epochs=three", f"wsoltrain fit recipe=cam {HERE} by=nothing weights=null",
        f"wsoltrain fit recipe=cam {HERE} profile=none", "wsoltrain eval", f"wsoltrain eval checkpoint=none {HERE}",
        "wsoltrain predict checkpoint=none source=photos", f"wsoltrain reproduce table=9.9 {HERE}",
        f"wsoltrain search recipe=cam {HERE} by=noisy:200", "wsoltrain select runs=none",
        "wsoltrain compare recipes=cam",
    ],
)  # fmt: skip
def test_what_a_wrong_line_is_answered_with_is_listed_with_its_exit_code(home, monkeypatch, capsys, line):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    program, *words = line.split()
    code = call(PROGRAMS[program], program, [*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == told["exit_code"] != 0
    message = " ".join(told["error"].split())
    # A whole message, or parts behind the place that they are about; "…: …" would fit anything.
    saying = [listed for listed in LISTED if re.search(r"[a-z]{4}", re.sub("‹.*›", "", listed))]
    *_, parts = message.partition(": ")
    assert any(fits(listed, message) for listed in saying) or all(
        any(fits(listed, part) for listed in LISTED if re.search(r"[a-z]{3}", listed))
        for part in re.split("; (?!did)", parts)
    )


def explained() -> list[str]:
    """Messages that the page of causes and cures is about, and words of pages of the report."""
    page = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text()
    return [words for words in re.findall(r"(?m)^\| `([^`]+)`", page) if words != "Below a centred box"]


@pytest.mark.parametrize("words", explained())
def test_messages_that_are_explained_are_listed(words):
    sought = re.compile(".*".join(map(re.escape, words.split("…"))))
    assert any(sought.search(listed) for listed in LISTED)


def test_both_pages_link_to_each_other():
    assert "(../guide/troubleshooting.md)" in PAGE
    assert "(../reference/errors.md)" in (ROOT / "docs" / "guide" / "troubleshooting.md").read_text()
