"""What tutorials and how-to pages show below a command that only reads is what it prints.

A block of `text` belongs to the last command before it. A line `…` stands for lines that the page leaves out.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from loadbench.report.render_text import PLAIN_WIDTH
from tests.cli.typed import typed

ROOT = Path(__file__).parents[2]
# Saved runs, words and plans: the same on each machine, at each time.
_READS = re.compile(r"loadbench (report results/|compare results/|plot results/|explain |serve --list|.* --dry-run$)")
_NEEDS_ITS_PAGE = "questions.txt"  # a file that the page has its reader make
_BLOCK = re.compile(r"^```(bash|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown() -> list[tuple[str, str, str]]:
    """(page, command, block of its output), of all that can be checked."""
    found = []
    for folder in ("tutorials", "how-to"):
        for page in sorted((ROOT / "docs" / folder).glob("*.md")):
            command = ""
            for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
                if kind == "bash":
                    command = re.sub(r"\s*\\\n\s*", " ", text.strip()).splitlines()[-1]
                elif _READS.match(command) and _NEEDS_ITS_PAGE not in command:
                    found.append((page.name, command, text))
    return found


@pytest.fixture(scope="module")
def printed():
    """What a command prints in the repository, each once."""
    known: dict[str, str] = {}

    def of(command: str) -> str:
        if command not in known:
            # A command may start `loadbench serve`.
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            ended = typed(*shlex.split(command)[1:], cwd=ROOT, COLUMNS=str(PLAIN_WIDTH), PATH=path)
            known[command] = "\n".join(line.rstrip() for line in ended.stdout.splitlines())
        return known[command]

    return of


@pytest.mark.parametrize(("page", "command", "block"), shown())
def test_page_shows_what_is_printed(page, command, block, printed):
    """Each part of the block is in the output, one after the other."""
    output, place = printed(command), 0
    for part in re.split(r"^…$", block, flags=re.MULTILINE):
        lines = "\n".join(line.rstrip() for line in part.strip("\n").splitlines())
        place = output.find(lines, place)
        assert place >= 0, f"{page}: `{command}` does not print\n{lines}\nbut\n{output}"


def test_pages_show_output():
    """There is something to check."""
    assert len(shown()) >= 10
