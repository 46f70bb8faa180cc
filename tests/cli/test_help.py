"""The help of every command: examples that run as they stand, headings, other names of options."""

from __future__ import annotations

import json
import shlex
import shutil
from contextlib import chdir
from importlib import import_module

import click
import pytest

from loadbench.cli import root
from loadbench.cli.options import SettingOption
from loadbench.plan.settings import settings
from loadbench.sim.process import SimProcess
from tests.cli.typed import typed
from tests.foreign_results import aiperf, guidellm, serving


def walked(command: click.Command, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    """A command and those below it, with the words that name each."""
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found += walked(command.get_command(context, name), *path, name)
    return found


ALL = walked(root)
HELPS = [pytest.param(command, id=" ".join(path) or "loadbench") for path, command in ALL]
# Those that measure are planned only; `serve` runs until it is stopped.
PLANNED = {"sweep", "replay", "capacity", "compare", "workshop"}
LONG = {"serve", "selfcheck", "judge"}
EXAMPLES = list(dict.fromkeys(line for _, command in ALL for line in getattr(command, "examples", ())))


@pytest.fixture(scope="module")
def server():
    """A fast simulated server with the models that examples name."""
    with SimProcess(speed=50.0, models=("small", "large")) as process:
        yield process.url


@pytest.fixture(scope="module")
def folder(server, tmp_path_factory):
    """A folder with what examples name: two runs, scenarios, a filled-in form, results of other tools."""
    cwd = tmp_path_factory.mktemp("examples")
    for name, users in {"vllm-result": 4, "c1": 1, "c8": 8, "c32": 32}.items():
        (cwd / f"{name}.json").write_text(json.dumps(serving(users=users)), encoding="utf-8")
    (cwd / "benchmarks.json").write_text(json.dumps(guidellm()), encoding="utf-8")
    (cwd / "artifacts").mkdir()
    (cwd / "artifacts" / "profile_export_aiperf.json").write_text(json.dumps(aiperf()), encoding="utf-8")
    for name in ("before", "after"):
        short = ("--users", "1", "--requests", "3", "--warm-up", "0s", "--max-tokens", "2", "--prompt", "Say hello.")
        done = typed("sweep", "--url", server, "--model", "small", *short, "--name", name, cwd=cwd)
        assert done.returncode in {0, 4, 5}, done.stderr
    typed("scenarios", "copy", "--all", cwd=cwd)
    for name in ("cpu.sh", "gpu.sh"):
        (cwd / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (cwd / name).chmod(0o700)
    stub = ("score", "stub", "--url", server, "--model", "small", "--prompt", "Say hello.", "--to", "scores.json")
    assert typed(*stub, cwd=cwd).returncode == 0
    text = (cwd / "scores.json").read_text(encoding="utf-8")
    (cwd / "scores.json").write_text(text.replace("null", "4"), encoding="utf-8")
    return cwd


@pytest.mark.parametrize("command", HELPS)
def test_every_help_has_examples(command):
    """Two to four lines for a shell, each with this command."""
    assert 1 <= len(command.examples) <= 4
    assert all(line.startswith("loadbench ") for line in command.examples)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_runs_as_it_stands(line, server, folder, tmp_path):
    """With its server, its runs and its files in place, every line is accepted; what measures is planned only."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "scores.json").rename(tmp_path / "kept.json")
    words = shlex.split(line, comments=True)[1:]
    name = words[0]
    if "read" in words:
        (tmp_path / "kept.json").rename(tmp_path / "scores.json")
        (newest,) = (tmp_path / "results").glob("*-after")
        shutil.copy(tmp_path / "scores.json", newest / "annotation.json")
    if name == "scenarios" and "copy" in words:
        shutil.rmtree(tmp_path / "scenarios")
    words = [word.replace("http://127.0.0.1:8080/v1", server) for word in words]
    found = [sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob(word)) for word in words if "*" in word]
    assert all(len(paths) == 1 for paths in found)
    words = [found.pop(0)[0] if "*" in word else word for word in words]
    if name == "init" and "--yes" not in words:
        words += ["--yes"]  # nobody is there to answer
    if name == "score" and "stub" in words:
        words += ["--model", "small"]  # the server of this test has two
    if name == "select" or (name == "compare" and "results" in line):
        done = typed(*words, cwd=tmp_path)
        assert done.returncode in {0, 3, 4, 5}, done.stderr
        return
    if LONG & {*words}:
        context = click.Context(root)
        command = import_module(f"loadbench.cli.{name}").command
        rest = words[1:]
        if isinstance(command, click.Group):
            command, rest = command.get_command(context, words[1]), words[2:]
        with chdir(tmp_path):
            command.make_context(name, rest, parent=context)
        return
    done = typed(*words, *(["--dry-run", "--verbose"] if name in PLANNED else []), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", HELPS)
def test_options_stand_under_headings_once(command):
    """Each visible option is in the help exactly once."""
    context = click.Context(command, info_name="x")
    text = command.get_help(context)
    shown = text[text.index("\nExamples:") :].splitlines()
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            flag = f"  {param.opts[0]}"
            lines = [line for line in shown if line.startswith(flag) and line[len(flag) :][:1] in " ,"]
            assert len(lines) == 1, flag


def test_every_alias_is_in_the_help_and_sets_its_setting():
    """The help lists it apart, not next to the flag."""
    command = import_module("loadbench.cli.sweep").command
    records = command.records(click.Context(command))
    named = dict(records["Aliases"])
    for setting in settings("sweep"):
        for alias in setting.aliases:
            assert named[alias] == setting.flag
            (option,) = [
                one for one in command.params if isinstance(one, SettingOption) and one.setting.key == setting.key
            ]
            assert alias in option.opts
    assert not any("--base-url" in flags for flags, _ in records["Server"])


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("sweep --max-concurrency 4", "load.users"),
        ("sweep --concurrency 4", "load.users"),
        ("sweep --base-url http://127.0.0.1:9 --num-prompts 4", "load.requests"),
        ("sweep --rate 2 --max-concurrency 4", "load.max_in_flight"),
        ("sweep --request-rate 2 --max-concurrency 4", "load.max_in_flight"),
        ("capacity --slo ttft_p95<1s --max-concurrency 4", "capacity.at_most"),
        ("capacity --slo ttft_p95<1s --by rate --max-concurrency 4", "load.max_in_flight"),
    ],
)
def test_names_of_other_tools_set_what_they_mean(line, setting, tmp_path):
    """Beside a rate, the most at once is the most in flight; without one it is the users."""
    done = typed(*line.split(), "--dry-run", "--verbose", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert any(text.split()[:2] in ([setting, "4"], [setting, "4.0"]) for text in done.stdout.splitlines())


def test_a_rate_of_a_scenario_file_decides_too(tmp_path):
    """Whatever source the rate has."""
    (tmp_path / "s.toml").write_text("[load]\nrate = [2.0]\n", encoding="utf-8")
    done = typed("sweep", "s.toml", "--max-concurrency", "4", "--dry-run", "--verbose", cwd=tmp_path)
    assert any(text.split()[:2] == ["load.max_in_flight", "4"] for text in done.stdout.splitlines())


def test_two_names_of_one_setting_are_refused(tmp_path):
    """Neither silently wins."""
    done = typed("sweep", "--max-concurrency", "4", "--users", "2", cwd=tmp_path)
    assert done.stderr.startswith("error: --max-concurrency and --users are the same setting\n")


WRONG = [
    ("sweep --user 4", "--user", "did you mean --users?"),
    ("swep", "'swep'", "did you mean sweep?"),
    ("run", "'run'", "loadbench sweep --url URL"),
    ("--url http://127.0.0.1:9 sweep", "--url: stands before the command", "loadbench sweep --url"),
    ("sweep -users 3", "-users", "write --users"),
    ("sweep --num-users 3", "--num-users", "use --users"),
    ("sweep --qps 3", "--qps", "use --rate"),
    ("sweep --endpoint /v1/completions", "--endpoint", "--url that ends in a route"),
    ("sweep --backend vllm", "--backend", "use --api"),
    ("sweep --dataset-path x", "--dataset-path", "use --prompts"),
    ("sweep --api-key secret", "--api-key", "LOADBENCH_API_KEY"),
    ("capacity --goodput ttft:100", "--goodput", "use --slo"),
    ("report --num-users 3", "--num-users", "loadbench report --help"),
    ("http://127.0.0.1:9/v1", "no such command", "loadbench sweep --url http://127.0.0.1:9/v1"),
    ("chat.toml", "no such command", "loadbench sweep chat.toml"),
    ("sweep a.toml http://127.0.0.1:9", "http://127.0.0.1:9", "--url http://127.0.0.1:9"),
    ("sweep a.toml users=3", "users=3", "--users 3"),
    ("sweep --users", "--users: has no value", "--users N,..."),
    ("sweep --json=3", "--json: takes no value", "write it alone"),
    ("report x --format xml", "--format: found 'xml', want text, markdown", "loadbench report --help"),
    ("report x --format mardown", "--format: found 'mardown'", "did you mean markdown?"),
    ("serve --port abc", "--port: found 'abc', want a whole number of at least 0 and at most 65535", "serve --help"),
    ("selfcheck --users 0", "--users: found '0', want a whole number of at least 1", "selfcheck --help"),
    ("scenarios cpy", "'cpy': `loadbench scenarios` has no such command", "did you mean copy?"),
    ("score read", "FILE: is missing", "loadbench score read"),
    ("replay", "TRACE: is missing", "loadbench replay"),
    ("doctor --users 3", "--users: has no effect in `loadbench doctor`", "leave it out"),
    ("help", "'help'", "loadbench --help"),
    ("sweep --duration 30", "--duration: '30' is not a duration", "did you mean 30s?"),
    ("sweep --url localhost:8080", "--url: found 'localhost:8080', want a URL", "did you mean http://localhost:8080?"),
    ("sweep --api chta", "--api: found 'chta', want chat, completions, responses or ollama", "did you mean chat?"),
    ("sweep --extra-body @nowhere.json", "--extra-body: nowhere.json: No such file", "name a file that can be read"),
    ("sweep http://127.0.0.1:9/v1", "127.0.0.1:9/v1: ", "name it with --url"),
    ("sweep --cacert no.pem --url https://127.0.0.1:9", "--cacert no.pem: No such file", "name a readable PEM file"),
    ("compare a --verbose", "--verbose: is for the plan of --dry-run", "add --dry-run"),
]


@pytest.mark.parametrize(("line", "place", "remedy"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_wrong_line_gets_its_place_and_its_remedy(line, place, remedy, tmp_path):
    """One error and one hint, exit code 2, nothing on stdout; and no usage text in between."""
    done = typed(*line.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert place in error
    assert hint.startswith("hint: ")
    assert remedy in hint
