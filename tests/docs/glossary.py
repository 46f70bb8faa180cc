"""The glossary of the documents, made of the words that `loadbench explain` explains. To write it again:

python -m tests.docs.glossary
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.report.terms import KINDS, TERMS, alike

if TYPE_CHECKING:
    from loadbench.report.terms import Term

# Flags and names in a text are code: `--resume`, `ttft_p95<1s`, `[DONE]`.
_CODE = re.compile(r"--[a-z][\w-]*|[\w.]*\w_\w[\w.]*(?:<\w+)?(?<!\.)|\[DONE\]")

FILE = Path(__file__).parents[2] / "docs" / "glossary.md"
_INTRODUCTION = """\
# Glossary

The words of loadbench, in alphabetical order. `loadbench explain WORD` prints one of them in the terminal, in any
spelling (`TTFT`, `ttft_p95`, `tok/s`). [What the figures mean](metrics.md) has the definitions in full.

This page is made from the table that `loadbench explain` uses: `python -m tests.docs.glossary` writes it.
"""


def glossary() -> str:
    """The page, in Markdown."""
    words = sorted(TERMS, key=lambda term: (term.name.lower().strip("_"), term.name))
    return "\n".join([_INTRODUCTION, *map(_entry, words)])


def _entry(term: Term) -> str:
    lines = [f"- {title}: {value}" for title, value in _facts(term) if value]
    kind = KINDS[term.kind][0]
    text = f"*{kind[0].upper()}{kind[1:]}.* {prose(term.text)}"
    is_plain = term.kind in {"concept", "level", "status", "column", "state"} or " " in term.name
    title = prose(term.name) if is_plain else f"`{term.name}`"
    return "\n".join([f"## {title}", "", text, *([""] if lines else []), *lines, ""])


def _facts(term: Term) -> list[tuple[str, str]]:
    return [
        ("Formula", f"`{term.formula}`" if term.formula else ""),
        ("Undefined if", prose(term.undefined)),
        ("What to do", prose(term.remedy)),
        ("In other tools", "; ".join(f"{tool}: {prose(name)}" for tool, name in term.others)),
        (alike(term).capitalize(), ", ".join(map(prose, term.also))),
        ("See also", ", ".join(f"[{prose(name)}](#{anchor(name)})" for name in term.see)),
    ]


def prose(text: str) -> str:
    """Text with code in backticks, whether it stands in some already or not."""
    parts = text.split("`")
    return "`".join(part if number % 2 else _CODE.sub(r"`\g<0>`", part) for number, part in enumerate(parts))


def anchor(name: str) -> str:
    """What GitHub and MkDocs make of a heading."""
    return "".join(letter for letter in name.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


if __name__ == "__main__":
    FILE.write_text(glossary(), encoding="utf-8", newline="\n")
