"""Foreign text, made fit to be shown and kept."""

from __future__ import annotations

import json

from loadbench.core.text import printable, printable_json


def test_nothing_that_a_terminal_obeys_is_shown():
    """Escape sequences and line ends become question marks."""
    assert printable("a\x1b[31mb\r\nc\u202e") == "a?[31mb??c?"


def test_json_says_the_same_without_what_a_terminal_obeys():
    """C1 controls, bidirectional signs and DEL become escapes, and read back as they were."""
    value = {"model": "a\x9b31mb\u202ec\x7f\U000e0001 é 日本 \u00a0"}
    shown = printable_json(json.dumps(value, ensure_ascii=False).encode()).decode()
    assert shown.isprintable()
    assert "é 日本" in shown
    assert json.loads(shown) == value
