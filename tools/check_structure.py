"""Check the structure of the packages (import cycles, long modules, modules of one name) and the plainness of words.

    python tools/check_structure.py [ROOT]

An import anywhere in a file counts, one for type checking alone included: modules that need each other's types are
one idea in two files.
In the guide, what stands between full stops, colons and semicolons has at most 30 words.
Prints what is wrong, one line each, and exits with 1 if anything is.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HALVES = {"wsolpipe": "pipeline", "wsoltrain": "trainer"}
MAX_LINES = 400
MAX_WORDS = 30
#: Folders whose modules have the name of their product, and files that every folder may have.
NAMED_ALIKE = ("/cli/", "/stages/", "/sections/", "/recipes/", "/runs/", "/testing/")
SHARED_NAMES = frozenset({"__init__.py", "__main__.py", "base.py"})
#: Public modules that re-export others.
FACES = frozenset({"wsoltrain/crf.py", "wsoltrain/stream.py"})


def modules(root: Path) -> dict[str, Path]:
    """File of every module of both halves, by dotted name."""
    found = {}
    for half, folder in HALVES.items():
        for path in sorted((root / folder / half).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the project that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    named = {name for name in found if name in known}
    # An import of a module does not count as one of its package.
    return {name for name in named if known[name].name != "__init__.py" or not any(_below(one, name) for one in named)}


def _below(name: str, folder: str) -> bool:
    return name.startswith(f"{folder}.")


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a loop, smallest name first (Tarjan's components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in graph[name]:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(found)


def vague_docstrings(path: Path) -> list[int]:
    """Lines of the docstrings that begin with a half sentence such as ``What a stage holds.``."""
    found = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return [number for number, line in found if line.lstrip().startswith('"""What ')]


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and list items of a page, each with its first line; code, tables and headings are left out."""
    fenced, first, held = False, 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        words = line.strip()
        mark = re.match(r"([-*+]|\d+\.) ", words)
        fence = words.startswith("```")
        fenced ^= fence
        ends = fence or fenced or not words or words[0] in "|#<"
        if held and (ends or mark):
            yield first, " ".join(held)
            held = []
        if not ends:
            first = number if not held else first
            held.append(words.removeprefix(mark[0]) if mark else words)


def long_sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """Sentences of a page with more than `MAX_WORDS` words: line of the paragraph, words, and the first of them."""
    for line, prose in paragraphs(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", prose))
        for sentence in re.split(r"(?<=[.!?:;])[\"*)]*\s+", plain):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if len(words) > MAX_WORDS:
                yield line, len(words), " ".join(words[:6])


def check(root: Path) -> list[str]:
    """Problems, one per line."""
    known = modules(root)
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    wrong = [f"import cycle: {', '.join(group)}" for group in cycles(graph)]
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, path in known.items():
        half = name.partition(".")[0]
        short = path.relative_to(root / HALVES[half]).as_posix()
        lines = len(path.read_text().splitlines())
        if lines > MAX_LINES:
            wrong.append(f"{short} has more than {MAX_LINES} lines")
        wrong += [f"{short}:{line} begins with What: say what it does or is" for line in vague_docstrings(path)]
        if path.name not in SHARED_NAMES and short not in FACES and not any(part in short for part in NAMED_ALIKE):
            alike[half, path.stem].append(short)
    wrong += [f"modules of one name: {', '.join(paths)}" for paths in alike.values() if len(paths) > 1]
    for page in sorted((root / "docs/guide").glob("*.md")):
        found = long_sentences(page.read_text(encoding="utf-8"))
        wrong += [f"{page.name}:{line} has a sentence of {count} words: {start} …" for line, count, start in found]
    return wrong


def main() -> int:
    """Print the problems; return 1 if there is one."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    wrong = check(root)
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
