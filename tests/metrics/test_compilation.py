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
COUNT = """
import numpy as np
from wsolpipe import metrics
rng = np.random.default_rng(0)
truth = [np.array([[3 * k, 2 * k, 12 + 3 * k, 20 + k]], float) for k in range(6)]
curves = metrics.iou_curves(rng.random((6, 40, 40)), truth, contours="all", threads=1)
print(round(1e9 * float(np.sum(curves))))
"""
EDITS = [  # of growing regions, of the flood, and of the tables that loops are given
    ("sweep.py", "= max(right, x1), max(low, y1)", "= min(right, x1), max(low, y1)"),
    (
        "flood.py",
        "east = _larger(_larger(values[n, e], values[y, e])",
        "east = _larger(_larger(values[n, w], values[y, e])",
    ),
    ("rings.py", "return min(across, default=1) > 0", "return min(across, default=1) > 1"),
]


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


@pytest.mark.slow
def test_an_edit_anywhere_in_the_sweep_changes_the_counts_without_a_cache_being_deleted(tmp_path):
    """Each part of the algorithm in turn, with what numba kept of the runs before."""
    for folder in ("metrics", "maps", "contract"):
        source = ROOTS[0] / folder
        for path in source.rglob("*.py"):
            target = tmp_path / "wsolpipe" / folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (tmp_path / "wsolpipe/__init__.py").touch()

    def count():
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
        done = subprocess.run(
            [sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return int(done.stdout)

    right = count()
    for name, old, new in EDITS:
        source = tmp_path / "wsolpipe/metrics" / name
        whole = source.read_text()
        assert whole.count(old) == 1
        source.write_text(whole.replace(old, new))
        assert count() != right, f"{old} -> {new} changed nothing"
        source.write_text(whole)
