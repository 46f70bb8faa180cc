"""`loadbench selfcheck` from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import loadbench

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("selfcheck", "--users", "2", "--gap", "2ms", "--ttft", "2ms", "--budget", "1s")


def is_spread(found: object) -> bool:
    """Whether it has the quantiles of an error, in order."""
    return isinstance(found, dict) and found["p50"] <= found["p99"] <= found["max"] and found["count"] > 0


def test_json_has_its_shape(tmp_path: Path) -> None:
    """The document stands alone on stdout with the promised keys; the exit code says what its figures say."""
    done = loadbench(*SHORT, "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["schema"] == "loadbench.selfcheck/1"
    assert found["stamp_source"] in {"kernel", "user"}
    assert all(is_spread(found[name]) for name in ("stamp_error_s", "ttft_error_s", "gap_error_s"))
    assert found["events_per_s_ceiling"] is None or found["events_per_s_ceiling"] > 0
    assert found["requests_per_s_ceiling"] > 0
    assert found["advice"]
    assert all(isinstance(line, str) for line in found["advice"])
    late = found["given"]["server_late_s"]
    if late is None or late["p99"] > found["given"]["gap_s"] / 2:
        expected = 5  # the machine was too busy for the server: nothing is known of the client
    else:
        expected = 0 if found["stamp_error_s"]["p99"] <= 0.001 else 4
    assert done.returncode == expected
    assert not list(tmp_path.iterdir())


def test_people_get_a_table_and_words(tmp_path: Path) -> None:
    """The errors, the ceilings and the advice on stdout; how it goes on stderr."""
    done = loadbench(*SHORT, cwd=tmp_path)
    assert done.returncode in {0, 4, 5}  # as the figures say; the test above compares
    for part in ("timestamp", "TTFT", "chunk gap", "merged reads", "highest rate", "short requests/s", "→ "):
        assert part in done.stdout
    assert "users=2: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--gap", "3"), "--gap: '3' is not a duration"),
        (("--gap", "0s"), "--gap: found 0s\nhint: 100us or more"),
        (("--budget", "10ms"), "--budget: found 10ms\nhint: 1s or more"),
        (("--users", "0"), "--users: found '0', want a whole number of at least 1"),
    ],
)
def test_a_wrong_option_is_one_clear_message(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    """It is named with what was found and what is allowed, before anything is started."""
    done = loadbench("selfcheck", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout == ""
