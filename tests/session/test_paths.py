"""Paths that no system takes: a message and 2, wherever they are named."""

from __future__ import annotations

import pytest

from tests.cli.typed import typed as loadbench

LONG = "y" * 400


@pytest.mark.parametrize(
    "arguments",
    [
        ("sweep", "--out", LONG),
        ("sweep", "--out", LONG, "--dry-run", "--verbose"),
        ("replay", LONG),
        ("report", LONG),
        ("compare", LONG),
        ("compare", LONG, "other"),
        ("compare", "--baseline", LONG, "--b", "other"),
        ("score", "stub", LONG),
        ("score", "stub", "--prompt", "Why?", "--to", LONG),
        ("score", "read", LONG),
        ("score", "judge", LONG, "--judge-model", "m"),
        ("select", LONG),
        ("workshop", "--from", LONG),
        ("capacity", "--slo", "ttft_p95<1s", "--resume", LONG),
    ],
)
def test_path_that_is_too_long_is_refused(arguments, tmp_path):
    """The path and the system's reason, and no traceback."""
    done = loadbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert LONG in done.stderr
    assert "too long" in done.stderr
    assert "Traceback" not in done.stderr
