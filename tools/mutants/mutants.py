"""Draw mutations of the code that results depend on, and count how many the tests notice.

Each is one change that cosmic-ray knows, such as ``<`` to ``<=`` or a number plus one, made in a copy of the checkout.
The tests that run its line, by a coverage of each test made first, are run until one fails: the mutation is killed. Of
each room as many are drawn, by a seed. Exit code 1 if fewer are killed than `WANTED`.

    python tools/mutants/mutants.py [--count 150] [--seed 0] [--jobs 2] [--only ROOM …] [--out build/mutants]
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
WANTED = 0.9
ROOMS = {
    "pipeline/wsolpipe/contract": ("tests/contract", "tests/engine/test_protocol.py"),
    "pipeline/wsolpipe/engine": ("tests/engine", "tests/launch/test_wall_time.py"),
    "pipeline/wsolpipe/metrics": ("tests/metrics", "tests/evaluate"),
    "trainer/wsoltrain/losses": ("tests/wsoltrain/losses", "tests/wsoltrain/methods"),
    "trainer/wsoltrain/pseudo": ("tests/wsoltrain/pseudo", "tests/wsoltrain/methods"),
}
"""Folder that is mutated -> the tests that may notice: those that run in their own process."""
OPERATORS = (
    "NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue",
    "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub", "ReplaceBreakWithContinue",
    *(f"ReplaceBinaryOperator_{name}" for name in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div")),
    *(f"ReplaceComparisonOperator_{name}" for name in (
        "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt",
        "Is_IsNot", "IsNot_Is",
    )),
)  # fmt: skip
LONGEST = 900.0
"""Seconds of the tests of one mutation; one that makes them hang is killed."""


@dataclass(frozen=True)
class Mutation:
    """One change of one line.

    Attributes
    ----------
    file : str
        Relative to the checkout.
    operator : str
        One of `OPERATORS`.
    occurrence : int
        Which of the places of the file that the operator can change.
    line : int
        Line of that place, from 1.
    """

    file: str
    operator: str
    occurrence: int
    line: int


def find_mutations(path: Path, name: str) -> Iterator[Mutation]:
    """List every change that can be made in a file, outside of annotations and of imports for them."""
    from cosmic_ray.ast import ast_nodes, get_ast  # type: ignore[import-not-found]
    from cosmic_ray.plugins import get_operator  # type: ignore[import-not-found]

    source = path.read_text(encoding="utf-8")
    left_out = unseen_spans(source)
    nodes = list(ast_nodes(get_ast(source)))
    for operator in OPERATORS:
        changes = get_operator(f"core/{operator}")()
        starts = (start for node in nodes for start, _ in changes.mutation_positions(node))
        for occurrence, start in enumerate(starts):
            if not any(first <= start < last for first, last in left_out):
                yield Mutation(name, operator, occurrence, start[0])


def unseen_spans(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Places, as (line, column) of begin and end, that are never run: annotations, and imports for type checkers."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
            found.append(node.returns)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found.append(node)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))  # type: ignore[attr-defined]
        for node in found
    ]


def draw(count: int, seed: int, rooms: Sequence[str]) -> list[Mutation]:
    """Draw as many mutations of each room, of each file with a chance by its number of places."""
    drawn = []
    for number, room in enumerate(rooms):
        share = (count * (number + 1)) // len(rooms) - (count * number) // len(rooms)
        files = sorted((ROOT / room).rglob("*.py"))
        places = [each for path in files for each in find_mutations(path, str(path.relative_to(ROOT)))]
        drawn += random.Random(f"{seed} {room}").sample(places, min(share, len(places)))
    return drawn


def copy_checkout(folder: Path) -> Path:
    """Copy the files that git knows, with what numba compiled beside them, which stays valid in unchanged files."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    compiled = [str(path.relative_to(ROOT)) for path in (*ROOT.glob("*/*/**/*.nbi"), *ROOT.glob("*/*/**/*.nbc"))]
    for name in (*listed.splitlines(), *compiled):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(folder: Path, *words: str, timeout: float, coverage: Path | None = None) -> tuple[int, str]:
    """Run tests of a copy; return pytest's exit code, 1 if they take too long, and what it printed."""
    import os

    environment = {
        **os.environ, "PYTHONPATH": f"{folder / 'pipeline'}:{folder / 'trainer'}", "OMP_NUM_THREADS": "1",
        "WSOLPIPE_SHARED": os.environ.get("WSOLPIPE_SHARED", str(ROOT.parent / "shared")),
    }  # fmt: skip
    tests = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *words]
    if coverage:
        settings = folder / "coverage.ini"
        sources = "\n".join(f"  {folder / room}" for room in ROOMS)
        settings.write_text(f"[run]\ndynamic_context = test_function\nsource =\n{sources}\n")
        tests = ["-m", "coverage", "run", f"--rcfile={settings}", f"--data-file={coverage}", *tests]
    try:
        done = subprocess.run(
            [sys.executable, *tests], cwd=folder, env=environment, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"not done after {timeout:g} s"
    return done.returncode, done.stdout.decode(errors="replace")


def tests_of_lines(folder: Path, data: Path) -> dict[str, dict[int, set[str]]]:
    """Read from coverage which tests run each line: file -> line -> node names."""
    from coverage import CoverageData

    found: dict[str, dict[int, set[str]]] = {}
    kept = CoverageData(str(data))
    kept.read()
    for path in kept.measured_files():
        lines = kept.contexts_by_lineno(path)
        found[str(Path(path).relative_to(folder))] = {
            line: {node for context in contexts if (node := node_of(context, folder))}
            for line, contexts in lines.items()
        }
    return found


def node_of(context: str, folder: Path) -> str | None:
    """Name for pytest of the test that coverage names ``tests.metrics.test_x.test_y``; None of a fixture or import."""
    *module, name = context.split(".")
    for end in range(len(module), 0, -1):
        for base in ("", "tests"):
            path = Path(base, *module[:end]).with_suffix(".py")
            if (folder / path).is_file():
                return "::".join([path.as_posix(), *module[end:], name]) if name.startswith("test") else None
    return None


def choose_tests(mutation: Mutation, known: Mapping[str, Mapping[int, set[str]]]) -> list[str]:
    """Tests that run the line; of a line that runs on import alone, those that run any of the file."""
    lines = known.get(mutation.file, {})
    return sorted(lines.get(mutation.line) or set().union(*lines.values()))


def mutate(folder: Path, mutation: Mutation) -> tuple[str, str]:
    """Make a mutation in a copy; the line before and after."""
    from cosmic_ray.mutating import mutate_code  # type: ignore[import-not-found]
    from cosmic_ray.plugins import get_operator

    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    changed = mutate_code(source, get_operator(f"core/{mutation.operator}")(), mutation.occurrence)
    (folder / mutation.file).write_text(changed, encoding="utf-8")
    pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
    return next(((old.strip(), new.strip()) for old, new in pairs if old != new), ("", ""))


def judge(mutation: Mutation, known: Mapping[str, Mapping[int, set[str]]], copies: SimpleQueue[Path]) -> str:
    """Make a mutation, run its tests, take it back; a line that begins with the verdict."""
    folder = copies.get()
    try:
        before, after = mutate(folder, mutation)
        tests = choose_tests(mutation, known)
        began = time.perf_counter()
        code, _ = run_tests(folder, *tests, timeout=LONGEST) if tests else (0, "")
        verdict = "killed" if code not in (0, 5) else "SURVIVED"
        shutil.copy2(ROOT / mutation.file, folder / mutation.file)
    finally:
        copies.put(folder)
    place, took = f"{mutation.file}:{mutation.line}", f"{len(tests)} tests, {time.perf_counter() - began:.0f} s"
    return f"{verdict:<8} {place}: {before}  ->  {after}  ({took})"


def main() -> int:
    """Draw, run and count; 1 if too few are killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(ROOMS), choices=list(ROOMS), metavar="ROOM")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    drawn = draw(given.count, given.seed, given.only)
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, ThreadPoolExecutor(given.jobs) as pool:
        folders = [copy_checkout(Path(scratch, str(number))) for number in range(given.jobs)]
        known = learn(folders, given.only, given.out, pool)
        copies: SimpleQueue[Path] = SimpleQueue()
        for folder in folders:
            copies.put(folder)
        lines = []
        for line in pool.map(lambda mutation: judge(mutation, known, copies), drawn):
            lines.append(line)
            print(line, flush=True)
    killed = sum(line.startswith("killed") for line in lines)
    total = f"{killed} of {len(lines)} mutations killed, {100 * killed / len(lines):.0f} %; wanted {100 * WANTED:.0f} %"
    (given.out / "mutants.txt").write_text("\n".join([*lines, total, ""]), encoding="utf-8")
    print(total)
    return int(killed < WANTED * len(lines))


def learn(
    folders: list[Path], rooms: Sequence[str], out: Path, pool: ThreadPoolExecutor
) -> dict[str, dict[int, set[str]]]:
    """Run the tests of every room once with coverage; exits where some fail on the code as it is."""
    known: dict[str, dict[int, set[str]]] = {}

    def cover(item: tuple[int, str]) -> tuple[str, int, str]:
        number, room = item
        return room, *run_tests(
            folders[number % len(folders)], *ROOMS[room], timeout=3600, coverage=out / f"coverage-{number}"
        )

    for number, (room, code, printed) in enumerate(pool.map(cover, enumerate(rooms))):
        if code:
            sys.exit(f"{printed[-2000:]}\ntests of {room} fail on the code as it is: {' '.join(ROOMS[room])}")
        found = tests_of_lines(folders[number % len(folders)], out / f"coverage-{number}")
        known |= {name: lines for name, lines in found.items() if name.startswith(room)}
    return known


if __name__ == "__main__":
    sys.exit(main())
