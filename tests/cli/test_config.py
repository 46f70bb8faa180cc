"""`loadbench config`: settings and their origins, without a request."""

from __future__ import annotations

import json

import pytest

from tests.cli.typed import typed

SCENARIO = "[load]\nusers = [1, 2]\n[work]\nmax_tokens = 7\n"


def shown(*arguments, cwd, **variables):
    """What it said, as JSON."""
    done = typed("config", *arguments, "--json", cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_setting_has_its_origin(tmp_path):
    """Flag, variable, file with its line, and default."""
    (tmp_path / "s.toml").write_text(SCENARIO)
    said = shown("sweep", "s.toml", "--seed", "3", cwd=tmp_path, LOADBENCH_TEMPERATURE="0.5")["settings"]
    assert said["work.seed"]["origin"] == "flag --seed"
    assert said["work.temperature"]["origin"] == "environment LOADBENCH_TEMPERATURE"
    assert said["work.max_tokens"] == {
        "value": 7, "origin": "scenario s.toml:4: work.max_tokens", "flag": "--max-tokens",
        "variable": "LOADBENCH_MAX_TOKENS",
    }  # fmt: skip
    assert said["target.api"]["origin"] == "default"


def test_only_what_was_set_is_shown(tmp_path):
    """By default the table has what differs from the defaults; --all has everything, wherever it stands."""
    short = typed("config", "sweep", "--seed", "3", cwd=tmp_path).stdout
    whole = typed("config", "sweep", "--seed", "3", "--all", cwd=tmp_path).stdout
    assert "work.seed" in short
    assert "target.api" not in short
    assert "target.api" in whole


def test_overridden_values_are_named(tmp_path):
    """What is given and not used is listed with the reason."""
    (tmp_path / "s.toml").write_text(SCENARIO)
    said = shown("s.toml", "--rate", "2", cwd=tmp_path)
    assert said["not_used"] == ["load.users (s.toml:2): overridden by --rate"]


def test_secrets_are_not_shown(tmp_path):
    """Values of headers and keys stay secret."""
    flags = ["--url", "http://127.0.0.1:9", "--header", "X-Key: sk-0123456789", "--all"]
    for form in ([], ["--json"]):
        done = typed("config", *flags, *form, cwd=tmp_path, LOADBENCH_API_KEY="key-0123456789")
        assert done.returncode == 0
        assert "0123456789" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "setting"),
    [("capacity", "capacity.budget"), ("compare", "compare.settle"), ("replay", "load.trace"), ("doctor", "target.url"),
     ("workshop", "workshop.rounds"), ("models", "target.url"), ("try", "work.max_tokens")],
)  # fmt: skip
def test_every_command_has_its_settings(tmp_path, command, setting):
    """The settings are those that the command takes."""
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-01-01 00:00:00,10,10\n")
    line = {"replay": ["t.csv"], "capacity": ["--slo", "ttft_p95<1s"]}.get(command, [])
    assert setting in shown(command, *line, cwd=tmp_path)["settings"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--userss", "3"], "did you mean --users?"),
        (["sweep", "nix.toml"], "nix.toml"),
        (["try", "--slo", "x"], "single request"),
    ],
)
def test_wrong_line_is_refused(tmp_path, line, words):
    """As the command itself would refuse it."""
    done = typed("config", *line, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr


def test_nothing_is_written(tmp_path):
    """No run, no folder."""
    typed("config", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
