"""One set of output flags: the same on every command, with the same meaning."""

from __future__ import annotations

import json

import click
import pytest

from tests.cli.test_help import ALL
from tests.cli.typed import typed

MEASURING = {"sweep", "replay", "capacity", "compare", "workshop"}
READING = {
    *("report", "select", "models", "doctor", "selfcheck", "try", "explain"),
    *("runs list", "runs trend", "score read", "score judge"),
}
COMMANDS = {" ".join(path): command for path, command in ALL}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one short run."""
    cwd = tmp_path_factory.mktemp("output")
    short = ("--users", "1", "--requests", "3", "--warm-up", "0s", "--max-tokens", "2", "--quiet")
    assert typed("sweep", *short, cwd=cwd).returncode in {0, 4, 5}
    return cwd


@pytest.mark.parametrize("name", sorted(MEASURING | READING))
def test_a_command_has_the_flags_of_its_kind(name):
    """Under the heading Output, each once."""
    command = COMMANDS[name]
    flags = [record[0].split()[0] for record in command.records(click.Context(command))["Output"]]
    wanted = {"--json", "--out", "--quiet"} | ({"--no-live"} if name in MEASURING else set())
    assert wanted <= set(flags)
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("line", ["report last", "select last", "models", "doctor", "explain ttft", "runs list"])
def test_out_has_what_stdout_would_have(line, folder, tmp_path):
    """Text and JSON, with the same exit code; stdout stays empty."""
    for flags in ((), ("--json",)):
        printed = typed(*line.split(), *flags, cwd=folder)
        file = tmp_path / "out"
        written = typed(*line.split(), *flags, "--out", str(file), cwd=folder)
        assert (written.stdout, written.returncode) == ("", printed.returncode)
        text = file.read_text(encoding="utf-8")
        # What doctor advises comes and goes with what else the machine does.
        lines, of_file = ([one for one in each.split("\n") if "→" not in one] for each in (printed.stdout, text))
        assert len(of_file) == len(lines)
        if flags:
            assert json.loads(text).keys() == json.loads(printed.stdout).keys()


def test_json_is_the_format_json(folder):
    """And no other format beside it."""
    one, other = (typed("report", "last", *flags, cwd=folder).stdout for flags in (["--json"], ["--format", "json"]))
    assert one == other
    done = typed("report", "last", "--json", "--format", "csv", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --json and --format csv exclude each other\nhint: give one of them\n"


def test_quiet_leaves_errors_only(folder, tmp_path):
    """What is said besides the output is not; a failure is."""
    file = tmp_path / "nowhere" / "out"
    done = typed("doctor", "--quiet", "--out", str(file), cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --out {file}: there is no folder")
    variables = {"LOADBENCH_USERS": "3"}
    assert "not used" in typed("models", cwd=folder, **variables).stderr
    assert typed("models", "--quiet", cwd=folder, **variables).stderr == ""


def test_nothing_is_written_where_a_command_fails(folder, tmp_path):
    """A file that was there stays as it was."""
    file = tmp_path / "out"
    file.write_text("mine", encoding="utf-8")
    assert typed("explain", "nothing-of-this", "--out", str(file), cwd=folder).returncode == 2
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_written_file_is_named_on_stderr(folder, tmp_path):
    """By --out of a report and by --report of a measurement; not with --quiet."""
    file = tmp_path / "page.html"
    for flags in (("--format", "html"), ("--json",)):
        assert typed("report", "last", *flags, "--out", str(file), cwd=folder).stderr == f"written to {file}\n"
    short = ("--users", "1", "--requests", "3", "--warm-up", "0s", "--max-tokens", "2", "--report", str(file))
    assert f"written to {file}" in typed("sweep", *short, cwd=tmp_path).stderr.splitlines()
    assert typed("sweep", *short, "--quiet", cwd=tmp_path).stderr == ""
