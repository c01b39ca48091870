"""Help answers at once, because nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "timm", "cv2", "numba", "skimage", "scipy", "matplotlib", "dask", "distributed", "zarr", "pyarrow",
         "numpy", "pydantic", "PIL", "rich", "yaml")  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["plan", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; sys.argv = ['wsolpipe', *sys.argv[1:]]\n"
        "from wsolpipe.cli.main import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('loaded', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_planning_imports_no_model_library(toy):
    assert toy.run("limit=4").code == 0
    code = (
        "import sys; sys.argv = ['wsolpipe', *sys.argv[1:]]\n"
        "from wsolpipe.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print('loaded', [name for name in ('torch', 'timm', 'cv2', 'zarr', 'pyarrow', 'distributed')"
        " if name in sys.modules])"
    )
    words = toy.words("limit=4")
    done = subprocess.run([sys.executable, "-c", code, "plan", *words], capture_output=True, text=True, env=toy.env())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"
