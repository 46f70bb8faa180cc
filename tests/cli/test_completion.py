"""Completion in a shell: the script, and what it asks for."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.any_server import Reply, any_server
from tests.cli.typed import typed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed(tmp_path, shell):
    """Each shell gets a script that asks loadbench."""
    done = typed("completion", shell, cwd=tmp_path)
    assert done.returncode == 0
    assert "_LOADBENCH_COMPLETE" in done.stdout


def test_runs_are_completed(tmp_path):
    """The name of a run is completed from the folder of results."""
    (tmp_path / "results" / "20260101T000000Z-night").mkdir(parents=True)
    variables = {"_LOADBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "loadbench report ni", "COMP_CWORD": "2"}
    assert typed(cwd=tmp_path, **variables).stdout.split() == ["plain,night"]


def completed(cwd: Path, *words: str, **variables: str) -> list[str]:
    """What Tab offers in bash after these words, the last of which is only begun."""
    colons = [piece for word in words for piece in re.split("(:+)", word) if piece or word == ""]
    variables |= {"_LOADBENCH_COMPLETE": "bash_complete", "COMP_CWORD": str(len(colons))}
    done = typed(cwd=cwd, COMP_WORDS="\n".join(["loadbench", *(shlex.quote(one) for one in colons)]), **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.removeprefix("plain,") for line in done.stdout.splitlines()]


def test_models_are_those_that_the_server_lists(tmp_path):
    """The server of the command line or of the variable; of several models the last one is completed, and of a name
    with a colon what follows it, which is what bash has in place of the word."""
    names = ["qwen2.5:3b", "qwen2.5:7b", "phi-4"]
    with any_server(lambda _: Reply({"data": [{"id": name} for name in names]})) as server:
        url = server.root
        assert completed(tmp_path, "sweep", "--url", url, "--model", "") == names
        assert completed(tmp_path, "sweep", "--url", url, "--model", "phi-4,ph") == ["phi-4,phi-4"]
        assert completed(tmp_path, "sweep", "--model", "qwen2.5:", LOADBENCH_URL=url) == ["3b", "7b"]
        assert completed(tmp_path, "compare", "--url", url, "--a-model", "p") == ["phi-4"]
        assert {got.method for got in server.got} == {"GET"}


def test_models_are_those_of_saved_runs_where_no_server_answers(tmp_path):
    """At once, and without a word on stderr."""
    short = ("--users=1", "--requests=3", "--warm-up=0s", "--max-tokens=2", "--quiet")
    typed("sweep", *short, cwd=tmp_path)
    assert completed(tmp_path, "sweep", "--url", "http://127.0.0.1:9/v1", "--model", "s") == ["sim-chat"]
    assert completed(tmp_path, "sweep", "--model", "") == ["sim-chat"]


def test_scenario_files_are_completed(tmp_path):
    """TOML and JSON, and folders that have some; flags that stand twice are no obstacle."""
    (tmp_path / "mine").mkdir()
    for name in ("chat.toml", "code.json", "notes.txt", "mine/rag.toml"):
        (tmp_path / name).write_text("")
    assert completed(tmp_path, "sweep", "--seed", "1", "--seed", "1", "") == ["chat.toml", "code.json", "mine/"]
    assert completed(tmp_path, "capacity", "mine/") == ["mine/rag.toml"]
    assert completed(tmp_path, "compare", "--scenario", "ch") == ["chat.toml"]
    assert completed(tmp_path, "sweep", "no") == ["file,no"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_names_are_one_word_of_the_line_and_no_command(tmp_path):
    """Whatever a server calls its models, and whatever files are called: bash reads back the name, and runs nothing."""
    names = [
        "$(touch run)",
        "`touch run`",
        "a; touch run",
        "a b",
        "*",
        "~root",
        "it's",
        'q"',
        "x\\y",
        "a&b|c>d<e",
        "#1",
    ]
    hidden = ["two\nlines", "esc\x1b[31m", "\u202egnp.exe"]
    with any_server(lambda _: Reply({"data": [{"id": name} for name in [*names, *hidden, "plain"]]})) as server:
        words = completed(tmp_path, "sweep", "--url", server.root, "--model", "")
    (tmp_path / "my file").write_text("")
    done = subprocess.run(
        ["bash", "--norc", "-c", f"printf '%s\\n' {' '.join(words)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [*names, "plain"]
    assert not (tmp_path / "run").exists()
    (tmp_path / "a b.toml").write_text("")
    assert completed(tmp_path, "sweep", "a") == [r"a\ b.toml"]
    assert completed(tmp_path, "sweep", "a b") == [r"a\ b.toml"]


def test_sides_of_a_comparison_are_completed(tmp_path):
    """Saved runs, profiles of the simulated server, and the beginning of a URL."""
    for name in ("20260101T000000Z-before", "20260102T000000Z-after"):
        (tmp_path / "results" / name).mkdir(parents=True)
    assert completed(tmp_path, "compare", "be") == ["before"]
    assert completed(tmp_path, "compare", "before", "af") == ["after"]
    assert completed(tmp_path, "compare", "--a", "be") == ["before"]
    assert completed(tmp_path, "compare", "profile=sl") == ["profile=slot-server"]
    assert completed(tmp_path, "compare", "ht") == ["http://"]
    assert completed(tmp_path, "compare", "--baseline", "x") == ["file,x"]


def test_words_that_a_setting_takes_are_completed(tmp_path):
    """Those of the help, and names that come with loadbench."""
    assert completed(tmp_path, "sweep", "--api", "co") == ["completions"]
    assert completed(tmp_path, "sweep", "--persona", "r") == ["rag"]
    assert completed(tmp_path, "sweep", "--profile", "slot") == ["slot-server"]
    assert completed(tmp_path, "sweep", "--prompts", "x") == ["file,x"]
    assert completed(tmp_path, "sweep", "--format", "h") == ["html", "hlog", "hgrm"]
    assert completed(tmp_path, "scenarios", "copy", "ch") == ["chat"]


@pytest.fixture
def shell_folder(tmp_path):
    """A folder with a saved run, a program `loadbench`, and the script of each shell."""
    (tmp_path / "results" / "20260101T000000Z-night").mkdir(parents=True)
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / f"script.{shell}").write_text(typed("completion", shell, cwd=tmp_path).stdout)
    starter = tmp_path / "bin" / "loadbench"
    starter.parent.mkdir()
    starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m loadbench "$@"\n')
    starter.chmod(0o755)
    return tmp_path


def shell_says(shell: str, program: str, cwd: Path, *flags: str) -> str:
    """What a shell prints that reads none of the user's files."""
    found = f"{cwd / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PATH": found, "HOME": str(cwd), "ZDOTDIR": str(cwd), "TERM": "dumb"}
    done = subprocess.run(
        [shell, *flags, "-c", program], cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=120
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes(shell_folder):
    """The script in a real bash, with the words as bash divides them."""
    program = "source script.bash\nCOMP_WORDS=(loadbench report ni); COMP_CWORD=2\n"
    program += '_loadbench_completion loadbench\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    assert shell_says("bash", program, shell_folder, "--norc") == "night\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish (on Debian: apt-get install fish)")
def test_fish_itself_completes(shell_folder):
    """What a real fish offers: runs, words of a setting, options with their help."""
    program = "source script.fish; complete -C 'loadbench report ni'; complete -C 'loadbench sweep --api co'; "
    offered = shell_says("fish", program + "complete -C 'loadbench sweep --max-tok'", shell_folder, "--no-config")
    names = [line.split("\t")[0] for line in offered.splitlines()]
    assert names[:2] == ["night", "completions"]
    assert "--max-tokens" in names


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh (on Debian: apt-get install zsh)")
def test_zsh_itself_completes(shell_folder):
    """Tab in a real zsh, on a terminal of its own, finishes the word of the line, which then runs."""
    program = """
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z 'autoload -Uz compinit; compinit -u -d dump; source script.zsh; print re"ady"'
        zpty -r z said '*ready*'
        zpty -w -n z $'loadbench report ni\\t'
        zpty -r z said '*night*'
        print -r -- "${said##*report}"
    """
    assert "night" in shell_says("zsh", program, shell_folder, "-f")
