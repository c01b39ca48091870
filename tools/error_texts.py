"""Texts of the errors that the packages raise, read from their source: class, where, message and hint, by ``ast``.

What a message takes from a run stands as ``…``. Where it has one of several words, all of them stand: ``‹A / B›``.
"""

from __future__ import annotations

import ast
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from wsolpipe.contract import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
HALVES = {"wsolpipe": ROOT / "pipeline", "wsoltrain": ROOT / "trainer"}
CLASSES: dict[str, type[Exception]] = {
    **{name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)},
    **{kind.__name__: kind for kind in (ValueError, TypeError, IndexError, AttributeError)},
    **{kind.__name__: kind for kind in (pickle.UnpicklingError, click.UsageError)},
}  # fmt: skip
"""Classes whose texts a user can meet; those of other packages say why a value, an argument or a file is refused."""
OPEN = "…"
DEEPEST = 4
"""Functions within functions whose text a message takes in."""

PART = "Parts of messages"
"""Stands for a class where a text is only a part of the messages of others."""

Node = TypeVar("Node", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Words = dict[str, str]


@dataclass(frozen=True, order=True)
class ErrorText:
    """One message.

    Attributes
    ----------
    kind : str
        Name of the class.
    area : str
        Package in which it is raised, such as ``wsolpipe.images``.
    message, hint : str
        As the module's text says; where nothing else stands for a word, ``‹A›`` is one that may be left out.
    """

    kind: str
    area: str
    message: str
    hint: str


class Source:
    """Modules of both packages, and their functions that return text."""

    def __init__(self) -> None:
        self.modules = {
            path.relative_to(folder): ast.parse(path.read_text(encoding="utf-8"))
            for half, folder in HALVES.items()
            for path in sorted((folder / half).rglob("*.py"))
        }
        self.functions: dict[str, list[Function]] = {}
        self.constants: dict[Function, Words] = {}
        self.areas: dict[Function, str] = {}
        self.kinds = {name: name for name in CLASSES}
        for path, tree in self.modules.items():
            constants = {_name(node.targets[0]): self.template(node.value) for node in tree.body
                         if isinstance(node, ast.Assign)}  # fmt: skip
            for node in ast.walk(tree):
                if isinstance(node, Function):
                    self.constants[node], self.areas[node] = constants, ".".join(path.parent.parts[:2])
                    self.functions.setdefault(node.name, []).append(node)
                elif isinstance(node, ast.ClassDef) and node.name not in CLASSES:
                    self.kinds.update((node.name, base) for base in map(_name, node.bases) if base in CLASSES)

    def texts(self) -> list[ErrorText]:
        """Every message of every module, and of the functions that write parts of messages; sorted, each once."""
        found = set()
        self.writers: list[Function] = []
        for function, area in self.areas.items():
            found |= {ErrorText(kind, area, *words) for kind, *words in self._of(function)}
        for function in self.writers:  # grows while it is read: writers call others
            self._note_writers(function)
            for node in _own(function, ast.Return):
                text = _tidy(self.template(node.value, self.constants[function]))
                if any(letter.isalpha() for letter in text):
                    found.add(ErrorText(PART, self.areas[function], text, ""))
        return sorted(found)

    def _of(self, function: Function) -> Iterator[tuple[str, str, str]]:
        """(class, message, hint) of the errors that a function makes, in itself or by a function that returns one."""
        before = function.lineno
        for call in sorted(_own(function, ast.Call), key=_line):
            kind = self._kind(call)
            if kind is None or not call.args:
                continue
            given = [word.value for word in call.keywords if word.arg == "hint"]
            hints = self._spell(given[0], function, before) if given else [""]
            for message in self._spell(call.args[0], function, before):
                if any(letter.isalpha() for letter in message):
                    yield from ((kind, message, hint) for hint in hints[:1])
            before = call.lineno

    def _kind(self, call: ast.Call) -> str | None:
        name = _name(call.func)
        if name in self.kinds:
            return self.kinds[name]
        made = [returned for node in self.functions.get(name, []) if (returned := _name(node.returns)) in CLASSES]
        return made[0] if made and made[0] in vars(errors) else None

    def _spell(self, text: ast.expr, function: Function, after: int) -> list[str]:
        """Texts that an expression may have; of a name, those it was given since the line `after`, else its last."""
        set_before = sorted((node for node in _own(function, ast.Assign) if node.lineno < text.lineno), key=_line)
        self._note_writers(text)
        constants = self.constants[function]
        values: dict[str, list[str]] = {}
        for node in set_before:
            values.setdefault(_name(node.targets[0]), []).append(self.template(node.value, constants))
        words = constants | {name: _either(*texts) for name, texts in values.items()}
        given = [node for node in set_before if isinstance(text, ast.Name) and text.id == _name(node.targets[0])]
        if not given:
            return [_tidy(self.template(text, words))]
        recent = [node for node in given if node.lineno >= after] or given[-1:]
        for node in recent:
            self._note_writers(node.value)
        return [_tidy(self.template(node.value, words)) for node in recent]

    def template(self, node: ast.expr | None, words: Words | None = None, depth: int = 0) -> str:
        """Text of an expression; `words` are those of the arguments of the function that it is in."""
        words = words or {}
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=parts):
                return "".join(self.template(part, words, depth) for part in parts)
            case ast.FormattedValue(value=value):
                return self.template(value, words, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self.template(left, words, depth) + self.template(right, words, depth)
            case ast.IfExp(body=body, orelse=other):
                return _either(self.template(body, words, depth), self.template(other, words, depth))
            case ast.BoolOp(op=ast.Or(), values=parts):
                return _either(*(self.template(part, words, depth) for part in parts))
            case ast.Name(id=name):
                return words.get(name, OPEN)
            case ast.Dict(values=values):
                return _either(*(self.template(value, words, depth) for value in values))
            case (
                ast.Subscript(value=ast.Name(id=name))
                | ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"))
            ):
                return words.get(name, OPEN)
            case ast.Call(
                func=ast.Attribute(value=ast.Constant(value=str(between)), attr="join"), args=[ast.List(elts=parts)]
            ):
                return between.join(self.template(part, words, depth) for part in parts)
            case ast.Call() if depth < DEEPEST:
                return self._called(node, words, depth)
        return OPEN

    def _writers(self, call: ast.Call) -> list[Function]:
        """Functions of the packages that return text and have the name that is called."""
        return [node for node in self.functions.get(_name(call.func), []) if _name(node.returns) == "str"]

    def _note_writers(self, inside: ast.AST) -> None:
        for node in ast.walk(inside):
            found = self._writers(node) if isinstance(node, ast.Call) else []
            self.writers += [writer for writer in found if writer not in self.writers]

    def _called(self, call: ast.Call, words: Words, depth: int) -> str:
        writers = self._writers(call)
        if len(writers) != 1:
            return OPEN
        (writer,) = writers
        names = [each.arg for each in writer.args.args if each.arg != "self"]
        taken = [self.template(argument, words, depth + 1) for argument in call.args]
        inner = self.constants[writer] | dict(zip(names, taken, strict=False))
        inner |= {word.arg: self.template(word.value, words, depth + 1) for word in call.keywords if word.arg}
        returned = sorted(_own(writer, ast.Return), key=_line)
        return _either(*(self.template(node.value, inner, depth + 1) for node in returned))


def _own(function: Function, kind: type[Node]) -> list[Node]:
    """Nodes of a kind in a function, those of functions within it left out."""
    found: list[Node] = []
    left = list(ast.iter_child_nodes(function))
    while left:
        node = left.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, kind):
            found.append(node)
        left += ast.iter_child_nodes(node)
    return found


def _tidy(text: str) -> str:
    return re.sub(f"{OPEN}+", OPEN, " ".join(text.split()))


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def _name(node: ast.expr | None) -> str:
    """Last part of a name: ``ConfigError`` of ``errors.ConfigError``, and of ``ConfigError | None``."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.BinOp(left=left):
            return _name(left)
    return ""


def _either(*texts: str) -> str:
    """All that say something, each once; ``…`` where one of them may be anything."""
    said = [text for text in dict.fromkeys(texts) if any(letter.isalpha() for letter in text)]
    if OPEN in texts or not said:
        return OPEN
    return f"‹{' / '.join(said)}›" if len(said) > 1 or len(set(texts)) > 1 else said[0]
