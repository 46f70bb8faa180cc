"""The scenario files and examples that come with the package: each can be used, listed and copied."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from loadbench.cli.scenarios import scenarios
from loadbench.plan.sources import resolve
from loadbench.report.plan import plan_document
from loadbench.report.render_text import render_text
from tests.cli.typed import typed

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))
EXAMPLES = sorted((ROOT / "docs" / "examples").iterdir())


def command_lines(file: Path) -> list[str]:
    """The commands in a scenario's header."""
    return re.findall(r"^#\s+(loadbench .*)$", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_there_are_scenarios():
    """The folders are where the tests look for them."""
    assert len(SCENARIOS) >= 12
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.name)
def test_shipped_scenario_can_be_used(file, monkeypatch):
    """Each reads without an error, has its question on its first line and itself in its commands, and has a plan."""
    # Files that they name are named from where the commands in them are typed.
    monkeypatch.chdir(ROOT)
    scenario = resolve(flags={}, environment={}, file=file)
    assert scenario.question.endswith("?")
    assert scenario.loads
    assert all(load.label in render_text(plan_document(scenario)) for load in scenario.loads)
    assert command_lines(file)[0].startswith(f"loadbench sweep scenarios/{file.name}")
    assert all(f"scenarios/{file.name}" in line for line in command_lines(file))


@pytest.mark.parametrize("folder", ["scenarios", "mine/of today"])
@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.name)
def test_commands_in_a_copy_can_be_typed(file, folder, tmp_path):
    """Wherever a scenario is copied to, each command in its header has a plan there: it names the copies."""
    assert typed("scenarios", "copy", file.stem, "--to", folder, cwd=tmp_path).returncode == 0
    lines = command_lines(tmp_path / folder / file.name)
    assert len(lines) == len(command_lines(file))
    for line in lines:
        assert f"{folder}/{file.name}" in line
        arguments = shlex.split(line.replace(folder, shlex.quote(folder)))[1:]
        done = typed(*arguments, "--dry-run", "--verbose", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), line


def test_list_names_each_file_and_what_it_is_for(tmp_path):
    """A scenario has its question and the commands of its header, an example what it is."""
    done = typed("scenarios", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for file in SCENARIOS:
        question = file.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
        commands = ", ".join(shlex.split(line)[1] for line in command_lines(file))
        assert re.search(rf"^{file.stem} +{re.escape(question)}\n +for {commands}$", done.stdout, re.MULTILINE)
    for file in EXAMPLES:
        assert re.search(rf"^{re.escape(file.name)} +[A-Z].*[.]$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_copy_is_the_file_itself(tmp_path):
    """By its name, with or without the suffix, under ./scenarios; what it names comes along; the paths are printed."""
    done = typed("scenarios", "copy", "replay", "chat.toml", "prompts.json", cwd=tmp_path)
    names = ["replay.toml", "azure.csv", "chat.toml", "prompts.json"]
    assert done.stdout.splitlines() == [str(Path("scenarios") / name) for name in names]
    for name in names:
        source = (EXAMPLES[0].parent if name == "prompts.json" else SCENARIOS[0].parent) / name
        assert (tmp_path / "scenarios" / name).read_bytes() == source.read_bytes()
    assert len(list((tmp_path / "scenarios").iterdir())) == len(names)


def test_copy_all(tmp_path):
    """Every scenario with the files that it uses, and every example, unchanged but for the folder's name."""
    assert typed("scenarios", "copy", "--all", "--to", "out", cwd=tmp_path).returncode == 0
    sources = [*(ROOT / "scenarios").iterdir(), *EXAMPLES]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in sources}
    for source in sources:
        text = (tmp_path / "out" / source.name).read_text(encoding="utf-8")
        assert text == source.read_text(encoding="utf-8").replace("scenarios/", "out/")
    assert json.loads((tmp_path / "out" / "models.json").read_text(encoding="utf-8"))


def test_what_is_there_is_replaced_only_by_force(tmp_path):
    """One file that exists keeps all from being written, exit code 2; --force replaces it."""
    mine = tmp_path / "scenarios" / "chat.toml"
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    done = typed("scenarios", "copy", "arrivals", "chat", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "chat.toml: already there" in done.stderr
    assert "--force" in done.stderr
    assert [path.read_text(encoding="utf-8") for path in mine.parent.iterdir()] == ["mine"]
    assert typed("scenarios", "copy", "arrivals", "chat", "--force", cwd=tmp_path).returncode == 0
    assert mine.read_bytes() == (ROOT / "scenarios" / "chat.toml").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chatt",), "did you mean chat?"),
        (("nothing of this kind",), "there are arrivals, chat,"),
        ((), "name what to copy, or give --all"),
        (("chat", "--all"), "name what to copy, or give --all"),
        (("chat", "--to", "file/below"), "name another folder with --to"),
        (("chat", "--to", "a\nb"), "without quotes, backslashes and control characters"),
        (("chat", "--to", 'a" b'), "without quotes, backslashes and control characters"),
    ],
)
def test_what_cannot_be_copied_is_refused(arguments, message, tmp_path):
    """One message with the remedy, exit code 2, and nothing is written."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = typed("scenarios", "copy", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_scenario_is_known_by_its_question():
    """The command reads what the tests read."""
    assert [one.name for one in scenarios()] == [file.stem for file in SCENARIOS]
    assert len({one.about for one in scenarios()}) == len(SCENARIOS)


@pytest.mark.skipif(sys.platform == "win32", reason="links and permissions of POSIX")
def test_copy_follows_no_link_without_force(tmp_path):
    """One that leads nowhere is a file that exists; a replaced file keeps its permissions."""
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "chat.toml").symlink_to(tmp_path / "made")
    assert typed("scenarios", "copy", "chat", cwd=tmp_path).returncode == 2
    assert not (tmp_path / "made").exists()
    (folder / "chat.toml").unlink()
    (folder / "chat.toml").touch(mode=0o600)
    assert typed("scenarios", "copy", "chat", "--force", cwd=tmp_path).returncode == 0
    assert (folder / "chat.toml").stat().st_mode & 0o777 == 0o600
