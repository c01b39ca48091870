"""Ctrl-C ends a command with the line that resumes it, where typing it again does that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial

import click
import pytest

from wsolpipe.keys.console import call


@pytest.mark.parametrize(("word", "resumes"), [("fit", True), ("run", True), ("eval", False)])
def test_an_interrupted_command_ends_with_the_line_that_resumes_it(capsys, word, resumes):
    @click.group()
    def program():
        """Stand for a program of one command."""

    @program.command(word)
    @click.argument("words", nargs=-1)
    def body(words):
        """Be interrupted."""
        raise KeyboardInterrupt

    assert call(program, "wsoltrain", [word, "recipe=cam", "out=my runs"]) == 130
    said = capsys.readouterr().err
    assert said.lstrip().startswith("interrupted")
    assert ("-> resume with: wsoltrain fit recipe=cam 'out=my runs'" in said) == (word == "fit")
    assert ("resume with" in said) == resumes


@pytest.mark.parametrize("program", ["wsolpipe", "wsoltrain"])
def test_an_interrupt_while_modules_load_shows_no_traceback(tmp_path, program):
    (tmp_path / "click.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    assert ended.returncode == -signal.SIGINT
    assert ended.stdout + ended.stderr == ""
