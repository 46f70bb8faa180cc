"""What a mutation test changes, and what it leaves alone."""

from __future__ import annotations

import textwrap

import pytest

from tests.mutants.changes import all_changes


def changed(text: str) -> list[str]:
    source = textwrap.dedent(text).encode()
    return [change.lines(source)[1] for change in all_changes(source)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a not in b", ["a in b"]),
        ("a is None", ["a is not None"]),
        ("a and b or c", ["a or b or c", "a and b and c"]),
        ("not a", ["a"]),
        ("a // b", ["a * b"]),
        ("a + 'ä' + b", ["a - 'ä' + b", "a + 'ä' - b"]),
        ("a[1:]", ["a[0:]", "a[2:]"]),
        ("0", ["(-1)", "1"]),
        ("4_096", ["2048", "8192"]),
        ("0.5", ["0.25", "1.0"]),
        ("min(a)", ["max(a)"]),
        ("a if b else c", ["a if (not (b)) else c"]),
        ("[a for a in b if a.c]", ["[a for a in b if (not (a.c))]"]),
    ],
)
def test_an_expression_becomes_what_is_almost_the_same(line: str, expected: list[str]) -> None:
    """Each operator, boundary, number and condition by itself."""
    assert changed(f"x = {line}") == [f"x = {text}" for text in expected]


def test_a_statement_is_left_out_or_ends_another_way() -> None:
    """Calls, assignments into objects, returned values and the ways out of a loop."""
    text = """
        def f(a):
            while a.go():
                a.n += b
                a.m = b
                continue
            raise b
            return b
    """
    assert changed(text) == ["while (not (a.go())):", "pass", "a.n -= b", "pass", "break", "pass", "return None"]


def test_words_and_types_are_left_alone() -> None:
    """Messages, annotations, decorators, and what only a type checker runs."""
    text = """
        if TYPE_CHECKING:
            import a
        @d(1)
        def f(a: T[1]) -> T[2]:
            '''Words.'''
            match a:
                case 1:
                    return None
            raise V(f"{a + 1}")
    """
    assert changed(text) == ["pass"]


def test_a_change_knows_the_lines_that_run_it() -> None:
    """Those of its statement without the ones inside; none for what runs at import."""
    source = b"a = 1\ndef f(b=2):\n    if (b and\n        a):\n        return 3\n"
    lines = {(change.line, change.text): sorted(change.lines_run) for change in all_changes(source)}
    assert lines[1, b"2"] == lines[2, b"3"] == []
    assert lines[3, b"or"] == [3, 4]
    assert lines[5, b"4"] == [5]
