"""The structure of the package: which modules import each other, how much code there is, and how it is cut up."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "loadbench"
# Enough for what the package does today, and little enough for a newcomer to read. The last ones: 400 for codings of
# secrets, plain files, addresses; 200 for a quick start; 350 for runs continued; 600 for bounds on all input;
# 100 for the truth server's record; 330 for local addresses and ports, and levels of 10,000 users;
# 150 for reading several streams for one wake-up, cores in use, and requests that workers share;
# 50 for first tokens that were read late; 100 for small requests without httpx; 250 for levels of very many requests;
# 2,500 for files that other tools open, their results here, schemas, OTLP and Prometheus.
# 300 for wrong command lines, examples and headings of the help.
# 2,000 for saved runs and their names, one request, explanations, and where settings come from.
# 2,700 for pages: their charts, what they show of runs, searches and comparisons, and levels in time.
# 150 for what a plan reckons and warns of.
# 300 for scenarios written by asking.
# 250 for what may have been meant by a wrong value, and one set of output flags.
# 250 for screens of any width, colours, and the same note once for all levels.
# 800 for the live view: the screen, the time left, and what is read of a running level.
# 170 for events that differ in values without a meaning, and for the use of boards by a server.
# 900 for every format of every folder, lines to paste, the server's version, and what completes names.
# 1,000 for exporters that wait for nobody, results of one more tool, and values that no measurement has.
# 100 for what levels that do not count leave unknown, one rule of exit codes, and words that a shell cannot run.
# 1,400 for servers that loadbench starts: their guard, how they become ready, and how they end.
# 1,700 for grids: their cells, budgets, which of them is surely the best, reports and pages.
# 350 for comparisons with one side up at a time, and models that a service loads in turns.
# 200 for answers whose ends are open, reasons with their cause and code, and whether prediction and search agree.
# 1,300 for boards, batteries and modes of power on three systems, whether a server uses them, and whether it batches.
# 1,500 for what a comparison of hardware says in a sentence, and for the capacity of both sides.
# 300 for captions that lie on nothing, tables on paper, and what results of other tools contradict.
# 300 for the servers of grids.
# 300 for sentences that say why a run decides nothing, and what to do.
# 250 for started servers: a second guard, logs without secrets, restarts by a supervisor, and prices that cross.
# 100 for gaps as arrays, and for what is allowed for before the first token.
# 400 for words that explain every column and state, plans of what a resumed run has left, and why levels end.
# 150 for pages on narrow screens, and for reasons and intervals that pages show as terminals do.
# 500 for what all processes of a started server need and how they end, and for words that follow from intervals.
# 400 for which runs of a comparison and cells of a grid count, and the command that measures the others again.
# 200 for how long a level must be for its p95, and for reasons that each level has with its own advice.
# 350 for the fitted curve of a search, what is risked with each load, and why one that passed is not planned with.
# 150 for what a comparison does not rule out, the figures of one side alone, and the words that set its sides apart.
# 2,950 for workers on the nodes of a cluster: links, health, recorders that are added up, plans of what a load needs.
# 100 for the verdict on a bottleneck, what an answer still needs with its sum, and what makes it surer.
# 100 for which cells of a grid surely differ at one load, and why its Pareto front is not known.
# 150 for idle cores in an advice, workers that are late by more than chance, and errors of a cluster in one line.
# 250 for a number of requests that machines share, and for what is said of workers and lines that were lost.
# 100 for windows whose intervals say nothing of later, and what a budget and the requests of a verification are worth.
# 100 for what was requested of a grid, what measuring it again takes, and why a cell is not ruled out.
# 250 for a cluster that ends or does not answer, requests that workers give back, and who made the load of a run.
# 150 for requests that stay on the nodes of a cluster, and what a plan for a cluster says this machine lacks.
# 200 for which processes of a cluster are this machine's, how its connection ends, and runs of several clusters.
# 50 for workers that wait for cores of a cluster, and a run that cannot go on without them.
MOST_LINES = 74_520
# A private function of a few lines with one caller sends the reader away for little. Some hide a decision: they stay.
MOST_SHORT_FUNCTIONS, FEW_LINES = 75, 6
# The packages that may import a library, by the contract that keeps the others from it.
DOORS = {
    "door-httpx": {"client"},
    "door-click": {"cli"},
    "door-hdrh": {"record"},
    "door-jinja2": {"report"},
    "door-ray": {"cluster"},
}


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax tree of each module, by its dotted name."""
    trees = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(file.read_text(encoding="utf-8"))
    return trees


def imports(name: str, tree: ast.Module) -> set[str]:
    """The modules of this package that a module imports, wherever it does: in functions and for type checkers too."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                imported.add(inner if inner in modules() else node.module)
    return (imported & modules().keys()) - {name}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other: of each module, those that it reaches and that reach it."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        reached[start] = seen
    groups = {tuple(sorted(other for other in reached[name] if name in reached[other])) for name in graph}
    return sorted(list(group) for group in groups if group)


def test_circles_are_seen():
    """Of modules that import each other each group is named; a chain and a diamond are none."""
    graph = {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": {"e"}, "e": {"f"}, "f": {"d"}, "g": {"h"}, "h": {"g", "a"}}
    assert circles(graph) == [["d", "e", "f"], ["g", "h"]]


def test_no_modules_import_each_other():
    """Each module can be read after those that it imports, type annotations included."""
    assert circles({name: imports(name, tree) for name, tree in modules().items()}) == []


def test_package_is_small_enough():
    """The product code stays within its bound."""
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py"))
    assert lines <= MOST_LINES


def short_functions(trees: dict[str, ast.Module]) -> list[str]:
    """Private functions of a few lines, docstring apart, whose name occurs once in all modules."""
    uses: Counter[str] = Counter()
    short = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                uses[node.id] += 1
            elif isinstance(node, ast.Attribute):
                uses[node.attr] += 1
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if node.name.startswith("_") and not node.name.startswith("__") and lines <= FEW_LINES:
                    short.append((module, node.name))
    return [f"{module}.{name}" for module, name in short if uses[name] == 1]


def test_short_functions_are_seen():
    """One that is called once counts; one that is called twice, a public, a special and a long one do not."""
    text = '''
def _once():
    """Documented."""
    return 1
def _twice():
    return _once()
def public():
    return _twice() + _twice() + public()
class A:
    def __init__(self):
        self._method()
        _long()
    def _method(self):
        pass
def _long():
    a = 1
    a = 2
    a = 3
    a = 4
    a = 5
    a = 6
    return a
'''
    assert short_functions({"m": ast.parse(text)}) == ["m._once", "m._method"]


def test_few_short_functions_have_one_caller():
    """Steps that are taken once stand where they are taken."""
    short = short_functions(modules())
    assert len(short) <= MOST_SHORT_FUNCTIONS, short


@pytest.mark.parametrize("door", DOORS)
def test_doors_hold_for_every_package(door):
    """A contract that keeps a library to some packages names all others: a new package is not left out."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (contract for contract in settings["contracts"] if contract["id"] == door)
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert set(contract["source_modules"]) == {f"loadbench.{name}" for name in packages - DOORS[door]}


def test_layers_name_every_package():
    """The order of packages is that of the table in pyproject.toml, and no package is without a place in it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in settings["contracts"] if contract["id"] == "layers")
    assert sorted(layers) == sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("tool", ["bench", "fuzz", "kills", "soak"])
def test_tools_outside_of_the_suite_can_be_loaded(tool):
    """What they take from the package is still there."""
    assert importlib.import_module(f"tests.{tool}.__main__").main
