"""The table of benches says the truth about limits, exits and what is not there."""

from __future__ import annotations

import pytest

from bench import run_all


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Write a bench of this name and tell run_all where it is."""
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    return write


@pytest.mark.parametrize(
    ("printed", "verdict"),
    [("'{\"ratio\": 5.0}'", "pass"), ("'{\"ratio\": 4.99}'", "FAIL"), ("'nothing'", "FAIL")],
)
def test_a_limit_is_judged_by_the_figure_that_was_printed(script, monkeypatch, printed, verdict):
    monkeypatch.setitem(run_all.BENCHES, "pxap", run_all.Bench(run_all.BENCHES["pxap"].figures))
    script("pxap", f"print({printed})")
    assert run_all.run("pxap", timeout=30).verdict == verdict


def test_an_upper_limit_is_an_upper_limit():
    (figure,) = run_all.BENCHES["help_time"].figures
    text = "python -c pass 0.030 s, wsolpipe --help 0.290 s (limit 0.3), ratio 9.7"
    value = figure.read(text)
    assert value == 0.29
    assert figure.holds(value)
    assert not figure.holds(0.31)


def test_an_exit_code_fails_a_bench_that_nobody_described(script):
    script("fresh", "import sys; sys.exit('too slow')")
    outcome = run_all.run("fresh", timeout=30)
    assert (outcome.verdict, outcome.reason) == ("FAIL", "exit code 1: too slow")


def test_a_bench_without_its_images_is_skipped_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("WSOLPIPE_SHARED", str(tmp_path / "none"))
    outcome = run_all.run("cls_maps", timeout=30)
    assert outcome.verdict == "skip"
    assert "WSOLPIPE_SHARED" in outcome.reason


def test_a_bench_whose_peers_are_not_installed_is_skipped_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("WSOLPIPE_SHARED", str(tmp_path))
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(run_all, "PEERS", tmp_path / "python")
    outcome = run_all.run("cams_beside_grad_cam", timeout=30)
    assert outcome.verdict == "skip"
    assert "make bench" in outcome.reason


def test_every_described_bench_is_there():
    there = {path.stem for path in run_all.FOLDER.glob("*.py")}
    assert set(run_all.BENCHES) <= there
