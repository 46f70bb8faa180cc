"""The words that `loadbench explain` explains."""

from __future__ import annotations

import ast
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

import loadbench
from loadbench.core.errors import BadInput
from loadbench.record.outcome import Outcome
from loadbench.report.capacity import _PHASES
from loadbench.report.grid import BEST, FRONT, MAYBE
from loadbench.report.run import AT_LEAST, KNEE, UNKNOWN, UNSURE
from loadbench.report.terms import KINDS, TERMS, find_term
from loadbench.results import capacity, grid, run, run_summary
from loadbench.results.compare import NO_SAMPLES, NOT_COMPARED, TOO_FEW_REQUESTS
from loadbench.targets import check_result
from tests.building import a_level
from tests.cli.typed import typed

METRICS = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
PACKAGE = Path(__file__).parents[2] / "loadbench"


def section(title: str) -> str:
    """The part of docs/metrics.md under a title."""
    return METRICS.partition(f"## {title}\n")[2].partition("\n## ")[0].partition("\n### Self-audit")[0]


def codes(text: str) -> list[str]:
    """The names in the first columns of tables."""
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([A-Za-z_]+)`", cell)]


def test_every_figure_is_explained():
    """Each metric of a level has its term, with a formula."""
    for name in a_level().metrics:
        term = find_term(name)
        assert term.kind == "figure"
        assert term.formula


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_explained(outcome):
    """Each way in which a request can end has its term."""
    assert find_term(outcome).text


@pytest.mark.parametrize("title", ["Timestamps of a request", "Figures of a request", "The verdict"])
def test_documented_names_are_explained(title):
    """Each name in the first column of these tables of docs/metrics.md has its term."""
    names = codes(section(title))
    assert names
    for name in names:
        assert find_term(name).text


def codes_of_comparisons() -> set[str]:
    """The codes of caveats and of what is left out, as the code writes them."""
    found = {*NOT_COMPARED, NO_SAMPLES, TOO_FEW_REQUESTS}
    package = Path(loadbench.__file__).parent
    for file in [*(package / "analyze" / "compare").glob("*.py"), package / "session" / "paired.py"]:
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            named = {"Reason": 0, "leave_out": 1}.get(getattr(call.func, "id", "") or getattr(call.func, "attr", ""))
            given = call.args[named : named + 1] if named is not None else []
            found |= {one.value for one in given if isinstance(one, ast.Constant)}
    return found


@pytest.mark.parametrize("code", sorted(codes_of_comparisons()))
def test_every_code_of_a_comparison_is_explained(code):
    """`loadbench explain` knows each caveat, and each reason why something is not compared."""
    assert find_term(code).text


def test_every_code_of_a_reason_is_explained():
    """Reports show it in parentheses, for `loadbench explain` to be asked about it."""
    codes_made = {
        node.args[0].value
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Reason" and node.args
        if isinstance(node.args[0], ast.Constant)
    }
    assert len(codes_made) > 60
    for code in codes_made - {"failed", "damaged"}:  # errors of a grid's cells, which are shown by their text alone
        assert find_term(code).text


def column_heads() -> set[str]:
    """The names that the code gives to columns: those in the first argument of `Table`, or in what this is made of."""
    heads: set[str] = set()
    for file in [*(PACKAGE / "report").glob("*.py"), *(PACKAGE / "cli").glob("*.py")]:
        tree, made = ast.parse(file.read_text(encoding="utf-8")), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value is not None:
                for target in getattr(node, "targets", None) or [node.target]:
                    # A row is a dict in some tables: each of its keys is the name of a column.
                    is_key = isinstance(target, ast.Subscript)
                    made.setdefault(ast.unparse(target.value if is_key else target), []).append(
                        target.slice if is_key else node.value
                    )

        def names(node: ast.AST, above: tuple[str, ...] = (), made: dict[str, list[ast.expr]] = made) -> set[str]:
            if isinstance(node, ast.Constant):
                return {node.value} if isinstance(node.value, str) else set()
            if isinstance(node, ast.Name) and node.id not in above:
                return set().union(*(names(each, (*above, node.id)) for each in made.get(node.id, [])))
            inner = [key for key in node.keys if key] if isinstance(node, ast.Dict) else ast.iter_child_nodes(node)
            return set() if isinstance(node, ast.JoinedStr) else set().union(*(names(each, above) for each in inner))

        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Table" and call.args:
                heads |= names(call.args[0])
    parts = {" long", " short", " at all"}  # of texts, and no columns
    return {head for head in heads if re.search("[A-Za-z]{2}|^[AB]$", head) and head not in parts}


def test_every_column_is_explained():
    """Whoever reads a table can ask for the name of each column."""
    heads = column_heads()
    assert len(heads) > 120
    for head in heads:
        assert find_term(head).text


GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def test_every_column_of_the_kept_reports_is_explained():
    """So that names which the code puts together are known, too."""
    heads: set[str] = set()
    for file in GOLDEN.glob("*.txt"):
        lines = file.read_text(encoding="utf-8").splitlines()
        for head, rule in pairwise(lines):
            if re.fullmatch(r"-+(  -+)*", rule):
                heads |= {head[dashes.start() : dashes.end()].strip() for dashes in re.finditer("-+", rule)}
    assert len(heads) > 30
    for head in heads - {"", "max_tokens", "temperature"}:
        assert find_term(head).text


@pytest.mark.parametrize("kind", [run_summary.State, capacity.Status, capacity.Strength, run.Decision, run.Status])
def test_every_state_is_explained(kind):
    """As it is kept, and as it is printed."""
    for state in get_args(kind):
        assert find_term(state.replace("_", " ")).text == find_term(state).text


def test_phases_marks_and_decisions_are_explained():
    """Those that reports print next to figures."""
    marks = [KNEE, UNSURE, UNKNOWN, AT_LEAST, BEST, MAYBE, FRONT, "±", f"±{UNKNOWN}", "*", "+"]
    phases = [name for name, _ in _PHASES.values()]
    decisions = ["leans to PASS", "unclear", "faster", "slower", "better", "worse", "undecided", "no difference"]
    for word in [*marks, *phases, *decisions, *get_args(check_result.Status), *get_args(grid.CellStatus)]:
        assert find_term(word).text
    assert all(mark in find_term("marks").text for mark in marks)


def test_terms_are_whole():
    """Each has a known kind, its own name, and leads to terms that exist."""
    names = [term.name for term in TERMS]
    assert len(names) == len(set(names))
    for term in TERMS:
        assert term.kind in KINDS
        assert term.text.endswith(".")
        assert [name for name in term.see if name not in names] == []


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *(("TTFT", "ttft"), ("ttft_p95", "ttft"), ("ttft_p95<1s", "ttft"), ("tpot_s", "tpot"), ("E2EL", "e2e")),
        *(("tok/s", "output_tokens_per_s"), ("warmup", "warm-up"), ("Think time", "think"), ("slo", "objective")),
        *(("overloaded", "OVERLOADED"), ("pareto", "Pareto front"), ("Front", "Pareto front")),
        *(
            (word, word)
            for word in ("probe", "verification", "running", "queued", "prefill", "profile", "cold", "knee")
        ),
        *((word, word) for word in ("assumed_drift", "same_device", "not_in_turns", "not_monotone", "shared_evenly")),
    ],
)
def test_a_term_has_several_spellings(written, name):
    """Case, percentiles, units and the names of other tools do not matter."""
    assert find_term(written).name == name


def test_a_word_of_several_terms_names_them():
    """Which of them is meant is not guessed."""
    with pytest.raises(BadInput) as raised:
        find_term("limit")
    assert "did you mean one of: client_limit, limit_ignored" in raised.value.hint


def test_unknown_word_is_refused():
    """With the nearest word, and where all are listed."""
    with pytest.raises(BadInput) as raised:
        find_term("goodputt")
    assert "did you mean goodput?" in raised.value.hint


def test_word_is_explained(tmp_path):
    """Definition, formula and the names in other tools are printed; --json has the same."""
    done = typed("explain", "tpot", cwd=tmp_path)
    assert "(last_token − first_token)" in done.stdout
    assert "guidellm" in done.stdout
    assert json.loads(typed("explain", "tpot", "--json", cwd=tmp_path).stdout)["name"] == "tpot"


@pytest.mark.parametrize("columns", ["60", "80"])
def test_list_fits(tmp_path, columns):
    """All words are listed within the width."""
    done = typed("explain", cwd=tmp_path, COLUMNS=columns)
    assert max(map(len, done.stdout.splitlines())) <= int(columns)
    assert all(term.name in done.stdout for term in TERMS)
    assert not re.search(r"  (Comparison|Not compared|Prediction|Of a \w+)$", done.stdout, re.MULTILINE)
