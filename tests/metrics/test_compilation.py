"""Machine code that numba keeps on disk never outlives the source it was made of."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import wsolpipe
import wsoltrain
from wsolpipe.maps.compilation import compiled
from wsolpipe.metrics.sweep import best_iou_of

ROOTS = [Path(package.__file__).parent for package in (wsolpipe, wsoltrain)]
LOOP = """
import numpy as np
from wsolpipe.maps.compilation import compiled

FACTOR = 3


@compiled
def total(values):
    found = 0
    for value in values:
        found += FACTOR * value
    return found


@compiled
def twice(values):
    return total(values) * 2


print(twice(np.arange(5)))
"""
EDITS = [(LOOP, 60), (LOOP.replace("FACTOR = 3", "FACTOR = 5"), 100), (LOOP.replace("found +=", "found -="), -60)]
"""Source of a module in which a loop calls another one and reads a constant -> what it prints."""


def modules():
    """Source files that compile loops."""
    found = [path for root in ROOTS for path in root.rglob("*.py") if "compilation import compiled" in path.read_text()]
    assert len(found) > 3
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_a_module_of_compiled_loops_takes_no_code_or_constant_of_another(path):
    """Else numba, which stamps its cache with the loop's own file, would run old machine code after a pull."""
    body = ast.parse(path.read_text()).body
    imported = {
        name.asname or name.name
        for node in body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("wsolpipe", "wsoltrain"))
        for name in node.names
    }
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    loops = [function for function in functions if "compiled" in map(_name, function.decorator_list)]
    assert loops
    used = {item.id for loop in loops for part in loop.body for item in ast.walk(part) if isinstance(item, ast.Name)}
    assert not used & imported


def _name(decorator):
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return called.id if isinstance(called, ast.Name) else ""


def first_iou(truth):
    return best_iou_of(0.0, 0.0, 1.0, 1.0, truth, 0)


def test_a_compiled_function_of_another_module_is_refused():
    with pytest.raises(TypeError, match="first_iou is compiled with best_iou_of of wsolpipe.metrics.sweep"):
        compiled(first_iou)


def test_an_edit_of_a_module_changes_what_its_loops_say_without_a_cache_being_deleted(tmp_path):
    """Of a loop, of one that it calls and of a constant, with what numba kept of the runs before."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    for source, printed in EDITS:
        (tmp_path / "loop.py").write_text(source)
        done = subprocess.run(
            [sys.executable, tmp_path / "loop.py"], env=environment, capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == printed
    assert list((tmp_path / "kept").rglob("*.nbc"))
