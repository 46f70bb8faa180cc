"""The fenced blocks of the documents.

A block without a language, or one in bash, sh or console, is commands: the tests run it. (In a console block, the lines
that begin with `$` are.) Output and the like has another language, as in ```text. A comment before a block says more:

    <!-- not run: REASON -->    the commands cannot run in a test
    <!-- file: NAME -->         the block is this file, which later commands of the page read
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = frozenset({"", "bash", "sh", "console"})
# Of systems that the tests do not run on; or no commands at all.
OTHERS = frozenset({"powershell", "csv", "json", "python", "text", "toml", "yaml"})

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<key>not run|file): (?P<value>.+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\S*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One of a document, which begins in this line."""

    document: Path
    line: int
    language: str
    text: str
    not_run: str | None
    file: str | None

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return self.language in COMMANDS and self.not_run is None

    @property
    def commands(self) -> str:
        """What to type."""
        if self.language != "console":
            return self.text
        return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line.startswith("$ "))

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """All blocks of a document, in their order."""
    text = document.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        body = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        marks = {match["key"]: match["value"]}
        found.append(Block(document, line, match["language"], body, marks.get("not run"), marks.get("file")))
    return found
