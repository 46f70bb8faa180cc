"""What docs/troubleshooting.md quotes is what loadbench says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import loadbench
from loadbench.report.terms import find_term

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def quoted(head: str) -> list[str]:
    """What stands between backticks in the first columns of the tables with this head."""
    found, inside = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        inside = line.startswith("|") and (inside or line.startswith(f"| {head} |"))
        if inside:
            found += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    return found


@cache
def texts() -> tuple[str, ...]:
    """All texts in the code, `…` for what is filled in."""
    found = []
    for path in Path(loadbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
    return tuple(found)


@pytest.mark.parametrize("message", quoted("message"))
def test_message_is_one_of_loadbench(message):
    """Each message of the page stands in the code like this, but for what is filled in."""
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("…"))
    assert any(re.search(pattern, text) for text in texts())


@pytest.mark.parametrize("code", quoted("code"))
def test_code_is_one_of_loadbench(code):
    """Each code of the page is a word that `loadbench explain` knows."""
    assert find_term(code)


def test_page_has_messages():
    """There is something to check."""
    assert len(quoted("message")) > 40
    assert len(quoted("code")) > 12
