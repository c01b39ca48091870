"""run_all says what each bench says of itself: figures, limits, exits and what is not there."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from bench import run_all

BENCHES = run_all.FOLDER
START = "from figures import Figure, report\nimport sys\n"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Write a bench of this name where run_all looks."""
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(BENCHES))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(START + text)

    return write


@pytest.mark.parametrize(("value", "verdict"), [(5.0, "pass"), (4.99, "FAIL")])
def test_a_new_bench_is_found_run_and_judged_by_its_own_limit(script, value, verdict):
    script("fresh", f"sys.exit(report([Figure(name='ours / plain', value={value}, limit=5)]))")
    assert run_all.find_benches("cpu") == ["fresh"]
    (line,) = run_all.run("fresh", timeout=30)
    found = (line.bench, line.figure, line.measured, line.limit, line.verdict)
    assert found == ("fresh", "ours / plain", f"{value:g}", "≥ 5", verdict)


def test_a_missed_limit_fails_its_figure_alone(script):
    figures = "Figure(name='cam', value=0.99, limit=0.9), Figure(name='adl', value=0.89, limit=0.9)"
    script("fresh", f"sys.exit(report([{figures}]))")
    assert [line.verdict for line in run_all.run("fresh", timeout=30)] == ["pass", "FAIL"]


def test_an_exit_code_that_no_figure_explains_fails_the_bench_with_the_reason(script):
    script("fresh", "report([Figure(name='a', value=1.0, limit=0.9)]); sys.exit('counts differ')")
    figure, failure = run_all.run("fresh", timeout=30)
    assert (figure.verdict, failure.verdict) == ("pass", "FAIL: exit code 1: counts differ")


def test_a_bench_that_prints_no_figure_fails(script):
    script("fresh", "print('nothing')")
    (line,) = run_all.run("fresh", timeout=30)
    assert line.verdict == "FAIL: printed no figure"


def test_a_bench_that_does_not_end_fails(script):
    script("fresh", "import time; time.sleep(60)")
    (line,) = run_all.run("fresh", timeout=0.5)
    assert line.verdict == "FAIL: not done after 0.5 s"


def test_a_bench_is_told_its_device_only_if_it_runs_on_several(script):
    script("both", "DEVICES = ('cpu', 'cuda')\nreport([Figure(name=' '.join(sys.argv[1:]), value=1.0)])")
    script("plain", "report([Figure(name=f'{len(sys.argv)} word', value=1.0)])")
    assert (run_all.find_benches("cpu"), run_all.find_benches("cuda")) == (["both", "plain"], ["both"])
    assert run_all.run("both", timeout=30)[0].figure == "--device cpu"
    assert run_all.run("both", timeout=30, device="cuda")[0].figure == "--device cuda"
    assert run_all.run("plain", timeout=30)[0].figure == "1 word"


def test_only_replaces_the_lines_of_its_benches_and_the_exit_code_says_what_failed(script, tmp_path, monkeypatch):
    page = tmp_path / "page.md"

    def main(*words):
        monkeypatch.setattr(sys, "argv", ["run_all.py", "--write", str(page), *words])
        return run_all.main()

    for name in ("a", "b"):
        script(name, f"sys.exit(report([Figure(name='{name}', value=1.0, limit=0.9)]))")
    assert main() == 0
    script("b", "sys.exit(report([Figure(name='b', value=0.5, limit=0.9)]))")
    assert main("--only", "b") == 1
    assert main("--only", "c") == 3
    text = page.read_text()
    assert "| a | a | 1 | – | ≥ 0.9 | – | pass |" in text
    assert "| b | b | 0.5 | – | ≥ 0.9 | – | FAIL |" in text
    assert "| b | b | 1 |" not in text


def test_lines_of_another_machine_are_not_mixed_with_this_ones(script, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Figures\n\n## CPU\n\nAnother one.\n\n| bench |\n|---|\n")
    script("a", "report([Figure(name='a', value=1.0)])")
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--write", str(page), "--only", "a"])
    assert run_all.main() == 3
    assert "Another one." in capsys.readouterr().err
    assert "Another one." in page.read_text()


def test_a_bench_without_its_images_is_skipped_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("WSOLPIPE_SHARED", str(tmp_path / "none"))
    (line,) = run_all.run("pxap", timeout=60)
    assert line.verdict.startswith("skip: ")
    assert "WSOLPIPE_SHARED" in line.verdict


def test_a_bench_whose_peers_are_not_installed_is_skipped_with_the_command(monkeypatch, capsys, tmp_path):
    import prepare

    monkeypatch.setattr(prepare, "PROGRAMS", tmp_path)
    with pytest.raises(SystemExit) as ended:
        prepare.peer("python")
    assert ended.value.code == 0
    assert "skip, no " in (printed := capsys.readouterr().out)
    assert "make bench" in printed


def test_every_script_is_a_bench_or_no_bench_on_purpose():
    others = {"commits", "peer_cams", "peer_streams", "run_all"}
    scripts = {path.stem for path in BENCHES.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert scripts - others == {*run_all.find_benches("cpu"), *run_all.find_benches("cuda")}


@pytest.mark.parametrize("name", run_all.find_benches("cpu"))
def test_a_bench_ends_with_what_its_figures_say(name):
    """The result of `main` is that of `report`, and is the exit code."""
    tree = ast.parse(Path(BENCHES, f"{name}.py").read_text())
    assert ast.unparse(tree.body[-1].body[0]) == "sys.exit(main())"


@pytest.mark.parametrize("name", run_all.find_benches("cuda"))
def test_a_bench_of_a_gpu_takes_the_device(name):
    text = Path(BENCHES, f"{name}.py").read_text()
    assert "device=" in text or "**NETWORK" in text
