"""The small changes that a mutation test makes to a module: one at a time, each an edit of its text."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATORS: dict[type[ast.AST], tuple[tuple[str, str], ...]] = {
    ast.Lt: (("<", "<="), ("<", ">=")),
    ast.LtE: (("<=", "<"), ("<=", ">")),
    ast.Gt: ((">", ">="), (">", "<=")),
    ast.GtE: ((">=", ">"), (">=", "<")),
    ast.Eq: (("==", "!="),),
    ast.NotEq: (("!=", "=="),),
    ast.Is: (("is", "is not"),),
    ast.IsNot: (("is not", "is"),),
    ast.In: (("in", "not in"),),
    ast.NotIn: (("not in", "in"),),
    ast.And: (("and", "or"),),
    ast.Or: (("or", "and"),),
    ast.Add: (("+", "-"),),
    ast.Sub: (("-", "+"),),
    ast.Mult: (("*", "//"),),
    ast.Div: (("/", "*"),),
    ast.FloorDiv: (("//", "*"),),
    ast.Mod: (("%", "//"),),
    ast.Pow: (("**", "*"),),
    ast.LShift: (("<<", ">>"),),
    ast.RShift: ((">>", "<<"),),
    ast.BitAnd: (("&", "|"),),
    ast.BitOr: (("|", "&"),),
    ast.BitXor: (("^", "|"),),
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
# A larger number is a bound or a unit: one more or less of it makes no difference that a test could be asked to see.
SMALL = 100


@dataclass(frozen=True)
class Change:
    """Bytes from `start` to `end` become `text`."""

    start: int
    end: int
    text: bytes
    line: int
    # Those of the statement, of which a test runs one if it runs the statement. None of what runs at import.
    lines_run: frozenset[int] = frozenset()

    def of(self, source: bytes) -> bytes:
        return source[: self.start] + self.text + source[self.end :]

    def lines(self, source: bytes) -> tuple[str, str]:
        """The lines it touches, before and after, each as one line."""
        begin = source.rfind(b"\n", 0, self.start) + 1
        end = source.find(b"\n", self.end)
        end = len(source) if end < 0 else end
        after = source[begin : self.start] + self.text + source[self.end : end]
        return " ".join(source[begin:end].decode().split()), " ".join(after.decode().split())


class _Finder:
    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def begin(self, node: ast.expr | ast.stmt) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        return self.starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    def replaced(self, node: ast.expr | ast.stmt, text: str) -> Change:
        return Change(self.begin(node), self.end(node), text.encode(), node.lineno)

    def negated(self, node: ast.expr) -> Change:
        inner = self.source[self.begin(node) : self.end(node)].decode()
        return self.replaced(node, f"(not ({inner}))")

    def between(self, left: ast.expr, operator: ast.AST, right: ast.expr) -> Iterator[Change]:
        """The operator between two operands becomes another."""
        begin = self.end(left)
        gap = self.source[begin : self.begin(right)].decode()
        for old, new in OPERATORS.get(type(operator), ()):
            words = re.search(r"\s+".join(map(re.escape, old.split())), gap)
            if words:
                start = begin + len(gap[: words.start()].encode())
                line = self.source.count(b"\n", 0, start) + 1
                yield Change(start, start + len(words[0].encode()), new.encode(), line)

    def within(self, node: ast.AST) -> Iterator[Change]:
        """The changes of a node and of all below it."""
        yield from self.at(node)
        for name, value in ast.iter_fields(node):
            # What never runs, and what only words a message.
            if name in {"annotation", "returns", "decorator_list", "pattern", "type_params", "cause"}:
                continue
            for child in value if isinstance(value, list) else (value,):
                if isinstance(child, ast.AST):
                    yield from self.within(child)

    def at(self, node: ast.AST) -> Iterator[Change]:
        match node:
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
                    yield from self.between(left, operator, right)
            case ast.BinOp():
                yield from self.between(node.left, node.op, node.right)
            case ast.BoolOp():
                for left, right in zip(node.values, node.values[1:], strict=False):
                    yield from self.between(left, node.op, right)
            case ast.AugAssign():
                yield from self.between(node.target, node.op, node.value)
                yield self.replaced(node, "pass")
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                yield Change(self.begin(node), self.begin(node.operand), b"", node.lineno)
            case ast.Constant(value=bool()):
                yield self.replaced(node, str(not node.value))
            case ast.Constant(value=int()) if abs(node.value) <= SMALL:
                yield self.replaced(node, f"{node.value + 1}")
                yield self.replaced(node, f"{node.value - 1}" if node.value else "(-1)")
            case ast.Constant(value=int() | float()):
                yield self.replaced(node, f"{node.value * 2}")
                yield self.replaced(node, f"{node.value // 2 if isinstance(node.value, int) else node.value / 2}")
            case ast.Call(func=ast.Name() as function) if function.id in OPPOSITES:
                yield self.replaced(function, OPPOSITES[function.id])
            case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
                yield self.replaced(value, "None")
            case ast.Break():
                yield self.replaced(node, "continue")
            case ast.Continue():
                yield self.replaced(node, "break")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]) | ast.Raise() | ast.Delete():
                yield self.replaced(node, "pass")
            case ast.Expr(value=ast.Call() | ast.Await()):
                yield self.replaced(node, "pass")
        tests = [node.test] if isinstance(node, ast.If | ast.While | ast.IfExp) else getattr(node, "ifs", [])
        for test in tests:
            # The others are turned round by their own operator.
            if not isinstance(test, ast.UnaryOp) and not (isinstance(test, ast.Compare) and len(test.ops) == 1):
                yield self.negated(test)


def statements(tree: ast.Module) -> dict[int, range]:
    """The lines of each statement in a function, without the statements that it contains, by each of its lines."""
    found = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            whole = range(function.body[0].lineno, (function.end_lineno or 0) + 1)
            # A walk comes to the inner ones later. What is no statement, as a handler's line, stays with the function.
            found |= dict.fromkeys(whole, whole)
            for node in (each for statement in function.body for each in ast.walk(statement)):
                if isinstance(node, ast.stmt):
                    below = [
                        child.lineno for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node
                    ]
                    lines = range(node.lineno, min(below, default=(node.end_lineno or 0) + 1))
                    found |= dict.fromkeys(lines, lines)
    return found


def all_changes(source: bytes) -> list[Change]:
    """The changes of a module, in order. Words of messages stay, and what only a type checker reads."""
    tree = ast.parse(source)
    finder = _Finder(source)
    kept: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Raise) and node.exc is not None):
            kept.append(node.exc if isinstance(node, ast.Raise) else node)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            kept.append(node)
    spans = [(finder.begin(node), finder.end(node)) for node in kept]
    original = compile(source, "", "exec")
    lines_of = statements(tree)
    found: dict[tuple[int, int, bytes], Change] = {}
    for change in finder.within(tree):
        if any(begin <= change.start and change.end <= end for begin, end in spans):
            continue
        changed = change.of(source)
        try:
            same = compile(changed, "", "exec") == original
        except SyntaxError:
            continue
        if not same:
            run = frozenset(lines_of.get(change.line, ()))
            found.setdefault((change.start, change.end, change.text), replace(change, lines_run=run))
    return sorted(found.values(), key=lambda change: (change.start, change.end, change.text))
