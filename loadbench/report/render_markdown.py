"""A document as Markdown, for a file, a pull request or the summary page of a build."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.report.document import COMMAND, PICTURES, Heading, Notes, Table, padded

if TYPE_CHECKING:
    from loadbench.report.document import Document


def render_markdown(document: Document, *, level: int = 1) -> str:
    """The document as GitHub's Markdown; `level` is that of its title. Tables with a summary fold."""
    parts = []
    if document.title:
        parts.append(f"{'#' * level} {escaped(document.title)}")
    for number, block in enumerate(document.blocks):
        if isinstance(block, Heading):
            parts.append(f"{'#' * (level + 1)} {escaped(block.text)}")
        elif isinstance(block, Table):
            parts.append(_table(block) if block.rows else "")
        elif isinstance(block, Notes):
            if block.lines and number and isinstance(before := document.blocks[number - 1], Notes) and before.lines:
                parts.append("<!-- -->")  # without it, two lists are one
            parts.append("\n".join(f"- {escaped(line)}" for line in block.lines))
        elif not isinstance(block, PICTURES):
            parts += map(escaped, block.lines)
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(table: Table) -> str:
    # Markdown has no table without a header row.
    headers = table.headers or [""] * len(table.align)
    lines = padded([[escaped(cell) for cell in row] for row in (headers, *table.rows)], table.align)
    rule = ["-" * (len(cell) + 1) for cell in lines[0]]
    rule = [f"{dashes}:" if letter == "r" else f":{dashes}" for dashes, letter in zip(rule, table.align, strict=True)]
    body = "\n".join(
        [f"| {' | '.join(lines[0])} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(line)} |" for line in lines[1:])]
    )
    if not table.summary:
        return body
    return f"<details><summary>{escaped(table.summary)}</summary>\n\n{body}\n\n</details>"


def escaped(text: str) -> str:
    """Foreign text as text: nothing in it becomes a table, a link, code, a tag, an entity or a heading, and where
    GitHub shows it, no address becomes a link and no name a mention.
    """
    # Every second part is a command of ours.
    parts = COMMAND.split("".join(letter if letter.isprintable() else " " for letter in text))
    return "".join(f"`{part}`" if place % 2 else _escaped(part) for place, part in enumerate(parts))


def _escaped(text: str) -> str:
    plain = re.sub(
        r"(?i)([\\`*_|<>\[\]#&]|(?<=http):(?=//)|(?<=https):(?=//)|(?<=ftp):(?=//)|(?<=www)\.)", r"\\\1", text
    )
    # Names are found after Markdown has been read, so that only a comment keeps them apart from their sign.
    return re.sub(r"(?<!\w)@(?=\w)|@(?=[\w-]+\.\w)", "@<!-- -->", plain)
