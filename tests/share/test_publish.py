"""A published store: described so that machines and people understand it, listed so that a web server can give it."""

from __future__ import annotations

import functools
import json
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import mlcroissant
import pyarrow.parquet as pq
import pytest

from e2e.toy import object_bytes
from stores import DATASET, build_store
from wsolpipe import open_store
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.layout import sha256_bytes, sha256_file
from wsolpipe.share.card import About, text
from wsolpipe.share.publish import publish
from wsolpipe.share.selection import Selection
from wsolpipe.share.transfer import pull
from wsolpipe.share.verify import verify


def out(team, about, **choice):
    wanted = Selection(dataset="toy", **choice)
    return publish(str(team.source), str(team.target), wanted, about, jobs=2, emit=team.events.append, stop=team.stop())


ABOUT = About("toy", licence="CC-BY-4.0", title="Toys", citation="Toy Makers, 2025", url="https://example.org/toys")


def test_without_a_licence_nothing_is_published_and_nothing_is_moved(team):
    with pytest.raises(ConfigError, match="has no licence") as caught:
        out(team, About("toy"))
    assert "licence=" in str(caught.value)
    assert not team.target.exists()


def test_the_licence_of_the_data_set_is_enough(team):
    for manifest in team.source.glob("toy/*/*/*/manifest.json"):
        fields = json.loads(manifest.read_bytes())
        manifest.write_text(json.dumps({**fields, "licence": "research only"}))
    out(team, About("toy"))
    assert "research only" in (team.target / "toy/README.md").read_text()


def test_every_file_has_its_checksum_as_sha256sum_checks_it(team):
    done = out(team, ABOUT)
    checked = subprocess.run(["sha256sum", "-c", "--quiet", "checksums.txt"], cwd=team.target, capture_output=True)
    assert checked.returncode == 0, checked.stdout
    listed = {line[66:] for line in (team.target / "checksums.txt").read_text().splitlines()}
    there = {path.relative_to(team.target).as_posix() for path in team.target.rglob("*") if path.is_file()}
    assert listed == there - {"checksums.txt"}
    assert done.files == len(listed)
    assert done.digest == sha256_file(team.target / "checksums.txt")


def test_croissant_is_valid_and_its_records_can_be_read(team, caplog):
    out(team, ABOUT)
    described = mlcroissant.Dataset(jsonld=str(team.target / "toy" / "croissant.json"))
    assert not described.metadata.issues.errors
    assert not described.metadata.issues.warnings
    assert "not standard" not in caplog.text
    rows = next(record.id for record in described.metadata.record_sets if record.id.startswith("train-index"))
    found = list(described.records(rows))
    table = open_store(str(team.target))["toy"]["train"].index().table()
    assert [item[f"{rows}/row"] for item in found] == table.column("row").to_pylist()
    assert [item[f"{rows}/sha256"].decode() for item in found] == table.column("sha256").to_pylist()
    made = next(record.id for record in described.metadata.record_sets if "shade" in record.id)
    assert [item[f"{made}/rows"] for item in described.records(made)] == [72]


def test_published_boxes_are_read_by_datasets(team, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    out(team, ABOUT)
    tables = sorted(team.target.rglob("boxes.parquet"))
    assert tables
    for table in tables:
        read = datasets.Dataset.from_parquet(str(table), cache_dir=str(tmp_path / "cache"))
        assert read.to_list() == pq.read_table(table).to_pylist()


def test_the_card_says_what_how_how_good_on_which_terms(tmp_path):
    tiny = build_store(tmp_path, images=False, quarantined={17: "broken"}, no_object=(3,))
    target = str(tmp_path / "published")
    about = About(DATASET, licence="CC0-1.0", citation="Somebody, 2025")
    publish(
        tiny.url, target, Selection(dataset=DATASET, stages=("proposals", "cls_maps")), about, jobs=2,
        emit=lambda event: None, stop=threading.Event(),
    )  # fmt: skip
    page = (tmp_path / "published" / DATASET / "README.md").read_text()
    for said in ("CC0-1.0", "Somebody, 2025", "## How it was made", "array boxes: float32 40×4×4", "checksums.txt"):
        assert said in page
    (line,) = [line for line in page.splitlines() if line.startswith("| train | proposals | bbbb")]
    assert line.startswith("| train | proposals | bbbb000011112222 | 40 | 38 | 1 | 1 | 3/3 |")
    # Slot 0 of a drawn store is the object itself, so the first box agrees with ground truth to the last bit.
    assert "| train | proposals | 38 | 1.000 | 1.000 |" in page


def test_what_names_say_is_shown_and_never_markup(team):
    about = About("toy", licence="<script>alert(1)</script>", title="a|b](http://x) `c` **d**\n# e")
    out(team, about)
    page = (team.target / "toy/README.md").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.splitlines()[0] == "# a\\|b\\](http://x) \\`c\\` \\*\\*d\\*\\* \\# e"
    described = json.loads((team.target / "toy/croissant.json").read_bytes())
    assert described["license"] == about.licence
    assert text("![x](y)\n<b>") == "\\!\\[x\\](y) &lt;b&gt;"


def test_no_secret_is_in_a_card_and_an_address_with_one_is_refused(team, s3, monkeypatch):
    url = s3.store()
    publish(str(team.source), url, Selection(dataset="toy"), ABOUT, jobs=4, emit=lambda event: None, stop=team.stop())
    backend = open_store(url).backend
    for name in ("toy/README.md", "toy/croissant.json", "checksums.txt"):
        assert b"test-secret" not in backend.get(name)
        assert b"test-key" not in backend.get(name)


def test_anybody_pulls_what_is_published_over_http_and_trusts_it_by_its_digest(team, tmp_path):
    done = out(team, ABOUT)
    handler = functools.partial(Quiet, directory=str(team.target))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        mine = str(tmp_path / "mine")
        with pytest.raises(ConfigError, match="not among the trusted"):
            take(url, mine, trust="0" * 64)
        moved = take(url, mine, trust=done.digest)
        assert moved.refused == []
        assert list(verify(open_store(mine))) == []
        assert object_bytes(tmp_path / "mine") == object_bytes(team.source)
    finally:
        server.shutdown()
        server.server_close()


def take(url, store, *, trust):
    return pull(url, store, Selection(), trust=trust, jobs=2, emit=lambda event: None, stop=threading.Event())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        return


def test_publishing_again_keeps_the_checksums_of_other_data_sets(team):
    (team.target / "birds" / "val" / "index" / "0123456789abcdef").mkdir(parents=True)
    other = f"{'0' * 64}  birds/README.md\n"
    (team.target / "checksums.txt").write_text(f"{other}{'1' * 64}  toy/gone\n")
    out(team, ABOUT)
    listed = (team.target / "checksums.txt").read_text()
    assert other in listed
    assert "toy/gone" not in listed


def test_what_is_torn_is_not_published(team):
    torn = next(team.source.glob("toy/train/shade/*/data.zarr/mean/c/1"))
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(StoreError, match="1 shards were not pushed"):
        out(team, ABOUT)
    assert not (team.target / "checksums.txt").exists()


def test_the_digest_is_that_of_what_is_listed(team):
    first = out(team, ABOUT)
    assert out(team, ABOUT).digest == first.digest
    assert first.digest == sha256_bytes((team.target / "checksums.txt").read_bytes())
