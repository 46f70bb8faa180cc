"""The glossary has the words of `loadbench explain`, and no second copy of them."""

from __future__ import annotations

import re

from loadbench.report.terms import TERMS
from tests.docs.glossary import FILE, glossary


def test_glossary_is_up_to_date():
    """It is what `python -m tests.docs.glossary` writes."""
    assert FILE.read_text(encoding="utf-8") == glossary()


def test_every_word_has_one_entry():
    """Each has a heading of its own, which links lead to."""
    text = FILE.read_text(encoding="utf-8")
    anchors = [
        re.sub(r"[^\w-]", "", name.lower().replace(" ", "-")) for name in re.findall(r"^## (.+)$", text, re.MULTILINE)
    ]
    assert len(anchors) == len(set(anchors)) == len(TERMS)
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(anchors)
