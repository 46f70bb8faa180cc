"""`loadbench init`: what it asks, what it writes, and that it replaces nothing without consent."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib

import pytest

from loadbench.plan.new_scenario import scenario_text
from loadbench.plan.sources import resolve
from loadbench.sim.process import SimProcess
from tests.cli.running import COMMAND, environment
from tests.cli.typed import typed


@pytest.fixture(scope="module")
def server():
    """A simulated server with two models."""
    with SimProcess(models=("small", "large")) as process:
        yield process.url


@pytest.mark.parametrize("use", ["chat", "rag", "summariser", "code"])
def test_every_use_is_a_scenario_that_loads(use, tmp_path):
    """With comments, the lengths of its kind of user, and objectives; sweep and capacity take it."""
    done = typed("init", "s.toml", "--use", use, "--yes", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "s.toml\n")
    assert "written to s.toml; next: loadbench sweep s.toml --dry-run" in done.stderr
    text = (tmp_path / "s.toml").read_text(encoding="utf-8")
    assert text.startswith("# How well does ")
    scenario = resolve(flags={}, environment={}, file=tmp_path / "s.toml")
    assert scenario.work.output_tokens is not None
    assert scenario.slo.objectives
    assert scenario.unused == ()
    for command in ("sweep", "capacity"):
        assert typed(command, "s.toml", "--dry-run", cwd=tmp_path).returncode == 0


def test_every_line_that_is_a_comment_for_a_setting_is_one(tmp_path):
    """Without its `#` it loads too, alone."""
    typed("init", "s.toml", "--yes", cwd=tmp_path)
    lines = (tmp_path / "s.toml").read_text(encoding="utf-8").splitlines()
    settings = [
        number for number, line in enumerate(lines) if line.startswith("# ") and " = " in line and "FILE" not in line
    ]
    settings = [number for number in settings if lines[number].split()[2] == "="]
    assert len(settings) >= 4
    for number in settings:
        tried = [line.removeprefix("# ") if at == number else line for at, line in enumerate(lines)]
        (tmp_path / "tried.toml").write_text("\n".join(tried), encoding="utf-8")
        resolve(flags={}, environment={}, file=tmp_path / "tried.toml")


def test_flags_are_the_answers(server, tmp_path):
    """The server's first model where none is named, the others in a comment."""
    flags = ("--users", "3, 5", "--duration", "7s", "--slo", "e2e_p95<9s", "--slo", "failures<1%")
    done = typed("init", "s.toml", "--url", server, *flags, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "s.toml").read_text(encoding="utf-8")
    written = tomllib.loads(text)
    assert written["target"] == {"url": server, "model": ["small"]}
    assert written["load"] == {"users": [3, 5], "duration": "7s"}
    assert written["slo"] == {"objectives": ["e2e_p95<9s", "failures<1%"]}
    assert "# The server lists small, large." in text


def test_a_server_that_is_not_there_is_a_note(tmp_path):
    """The file is written without a model."""
    done = typed("init", "s.toml", "--url", "http://127.0.0.1:9/v1", "--yes", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: no list of models: http://127.0.0.1:9/v1/models: connection refused" in done.stderr
    assert "model" not in tomllib.loads((tmp_path / "s.toml").read_text(encoding="utf-8"))["target"]


def test_texts_of_others_stay_texts(tmp_path):
    """Quotes, line ends and what looks like TOML in a model's name end neither a string nor a comment."""
    name = 'a"b\\c\n[load]\nusers = 7\x7f'
    done = typed("init", "s.toml", "--url", "http://127.0.0.1:9/v1", "--model", name, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = tomllib.loads((tmp_path / "s.toml").read_text(encoding="utf-8"))
    assert written["target"]["model"] == [name]
    assert written["load"] == {"users": [1, 2, 4, 8]}


def test_nothing_is_replaced_without_consent(tmp_path):
    """--yes is no consent, --force is."""
    (tmp_path / "scenario.toml").write_text("mine", encoding="utf-8")
    done = typed("init", "--yes", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: scenario.toml: exists")
    assert (tmp_path / "scenario.toml").read_text(encoding="utf-8") == "mine"
    assert typed("init", "--yes", "--force", cwd=tmp_path).returncode == 0
    assert "[target]" in (tmp_path / "scenario.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("init --users 3,x --yes", "--users: found 'x'"),
        ("init --duration 5 --yes", "--duration: '5' is not a duration"),
        ("init --slo ttft<x --yes", "--slo: "),
        ("init --use prompts --yes", "--use prompts: no file is named"),
        ("init --use chat --prompts p.txt --yes", "--prompts and --use chat"),
        ("init --prompts nowhere.txt --yes", "--prompts: nowhere.txt: there is no such file"),
        ("init s.json --yes", "s.json: JSON has no comments"),
        ("init no/where.toml --yes", "there is no folder no"),
        ("init", "init: nobody is there to answer"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(line, place, tmp_path):
    """With its place; not even a draft stays."""
    done = typed(*line.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert place in done.stderr.splitlines()[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_it_asks_at_a_terminal_and_asks_again(server, tmp_path):
    """Server, model by its number, use, users, duration, objectives; a wrong answer is explained, and asked again."""
    import pty  # noqa: PLC0415 - not on Windows

    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "init", "s.toml"],
        cwd=tmp_path,
        env=environment(),
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
    )
    os.close(theirs)
    shown = ""
    try:
        for question, answer in (
            ("Server's URL", server),
            ("Model, by number or name [small]", "2"),
            ("Use [chat]", "cod"),
            ("want chat, rag", None),
            ("Use [chat]", "code"),
            ("Users at each level", "2,4"),
            ("How long", ""),
            ("Objectives", "-"),
        ):
            while question not in shown:
                shown += os.read(mine, 4096).decode()
            shown = shown.partition(question)[2]
            if answer is not None:
                os.write(mine, f"{answer}\n".encode())
        while "next: loadbench sweep s.toml --dry-run" not in shown:
            shown += os.read(mine, 4096).decode()
        assert process.communicate()[0] == b"s.toml\n"
    finally:
        process.kill()
        process.wait()
        os.close(mine)
    written = tomllib.loads((tmp_path / "s.toml").read_text(encoding="utf-8"))
    assert written["target"] == {"url": server, "model": ["large"]}
    assert written["load"] == {"users": [2, 4]}
    assert "objectives" not in written["slo"]
    assert written["work"]["output_tokens"] == "normal:50,10"


links = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions of POSIX")


@links
def test_a_link_that_leads_nowhere_is_there(tmp_path):
    """Without --force it stays, and nothing is made where it leads; with it, that file is."""
    (tmp_path / "s.toml").symlink_to("elsewhere.toml")
    done = typed("init", "s.toml", "--yes", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: s.toml: exists")
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]
    assert typed("init", "s.toml", "--yes", "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "s.toml").is_symlink()
    assert "[target]" in (tmp_path / "elsewhere.toml").read_text(encoding="utf-8")


@links
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_replaced_file_keeps_its_permissions(mode, tmp_path):
    """A scenario may hold a password."""
    mine = tmp_path / "s.toml"
    mine.write_text("mine", encoding="utf-8")
    mine.chmod(mode)
    assert typed("init", "s.toml", "--yes", "--force", cwd=tmp_path).returncode == 0
    assert stat.S_IMODE(mine.stat().st_mode) == mode
    assert "[target]" in mine.read_text(encoding="utf-8")


@links
def test_what_is_no_file_is_not_replaced(tmp_path):
    """A pipe stays, even with --force."""
    os.mkfifo(tmp_path / "pipe.toml")
    done = typed("init", "pipe.toml", "--yes", "--force", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: pipe.toml: is no plain file")
    assert (tmp_path / "pipe.toml").is_fifo()


def test_a_file_that_was_made_while_it_asked_is_not_replaced(tmp_path, monkeypatch):
    """There was none as it began: nobody has consented."""

    def made_meanwhile(*arguments, **named):
        (tmp_path / "s.toml").write_text("somebody's", encoding="utf-8")
        return scenario_text(*arguments, **named)

    monkeypatch.setattr("loadbench.plan.new_scenario.scenario_text", made_meanwhile)
    done = typed("init", "s.toml", "--yes", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: s.toml: exists")
    assert (tmp_path / "s.toml").read_text(encoding="utf-8") == "somebody's"
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("more", [(), ("--url", "http://127.0.0.1:9/v1")])
def test_a_model_that_is_no_text_is_refused(more, tmp_path):
    """Half of a surrogate pair, which an argument that is no UTF-8 becomes."""
    done = typed("init", "s.toml", "--model", "qwen\udcff", *more, "--yes", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-2]) == (2, "error: --model qwen?: not valid Unicode")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not allow")
@pytest.mark.parametrize("name", ["a\n[load]\nusers = 7\n.toml", "a\x1b]0;x\x07\r.toml", "it's mine\u202e.toml"])
def test_a_path_stays_in_its_comment(name, tmp_path):
    """Whatever it has in it: the file loads, with the settings that were given."""
    done = typed("init", name, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert tomllib.loads(text)["load"] == {"users": [1, 2, 4, 8]}
    assert all(line.isprintable() for line in text.splitlines())
    assert text.splitlines()[2].startswith("#   loadbench sweep '")
