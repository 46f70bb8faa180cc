"""Foreign text, made fit to be shown and kept."""

from __future__ import annotations

from loadbench.core.text import hide, printable, secrets_of


def test_nothing_that_a_terminal_obeys_is_shown():
    """Escape sequences and line ends become question marks."""
    assert printable("a\x1b[31mb\r\nc\u202e") == "a?[31mb??c?"


def test_secret_that_a_server_repeats_is_hidden():
    """A key is hidden whether it comes back with its scheme or without; short words stay."""
    secrets = secrets_of((("authorization", "Bearer sk-live-0123456789"), ("x-team", "blue")))
    assert (
        hide("Incorrect API key: sk-live-0123456789 (blue, Bearer)", secrets) == "Incorrect API key: *** (blue, Bearer)"
    )
    assert hide("key sk-live-01…', and 'sk-l…' and 'sk…'", secrets) == "key ***…', and '***…' and 'sk…'"
    assert hide("got 'Bearer sk-live-0123456789'", secrets) == "got '***'"
