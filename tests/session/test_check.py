"""What can be refused before anything starts: the same by every command, and by its dry run."""

from __future__ import annotations

import json

import pytest

from tests.cli.echoing import installed
from tests.cli.running import answering, http
from tests.cli.typed import typed as loadbench
from tests.plan.make_traces import AZURE_TRACE

SERVER = ("--url", "http://127.0.0.1:9")
COMMANDS = {
    "sweep": ("sweep",),
    "replay": ("replay", str(AZURE_TRACE)),
    "capacity": ("capacity", "--slo", "ttft_p95<2s"),
    "compare": ("compare", "--same"),
    "workshop": ("workshop",),
}
MISTAKES = {
    "profile": (("--profile", "huge-gpu"), "--profile: there is no profile 'huge-gpu'"),
    "process": ((*SERVER, "--telemetry", "on", "--server-pid", "4194303"), "--server-pid 4194303: there is no such"),
    "certificates": (("--url", "https://127.0.0.1:9", "--cacert", "no.pem"), "--cacert no.pem"),
    "prompts": (("--prompts", "nothing.jsonl"), "nothing.jsonl"),
    "models": (("--models", "broken.json"), "broken.json, line 1"),
    "key": (("--api-key-env", "NOBODYS_KEY"), "--api-key-env NOBODYS_KEY: this environment variable is not set"),
    "folder": (("--out", "broken.json"), "broken.json: is a file, not a folder"),
    "folder below a file": (("--out", "broken.json/a/b"), "broken.json: is a file, not a folder"),
    "name": (("--name", "..."), "--name: '...' cannot be a folder name"),
    "adapter": (("--adapter", "nobodys:model"), "nobodys"),
}
# Settings that a command does not have.
LACKING = {*(("replay", mistake) for mistake in ("prompts",)), ("workshop", "process"), ("compare", "adapter")}


@pytest.fixture
def folder(tmp_path):
    """A folder with a file that is no JSON."""
    (tmp_path / "broken.json").write_text("{not json", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_mistake_has_one_message(command, mistake, folder):
    """The run and its dry run refuse it in the same words, which are those of a sweep, and nothing is left behind."""
    if (command, mistake) in LACKING:
        pytest.skip("the command has no such setting")
    arguments, message = MISTAKES[mistake]
    run = loadbench(*COMMANDS[command], *arguments, cwd=folder)
    dry = loadbench(*COMMANDS[command], *arguments, "--dry-run", cwd=folder)
    sweep = loadbench("sweep", *arguments, cwd=folder)
    assert message in run.stderr
    assert run.returncode == dry.returncode == 2
    assert dry.stderr == run.stderr == sweep.stderr
    assert dry.stdout == ""
    assert [path.name for path in folder.iterdir()] == ["broken.json"]


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (("--a", "profile=none", "--b", "profile=cpu-laptop"), "--a: profile: there is no profile 'none'"),
        (("--a", SERVER[1], "--b", "url=https://127.0.0.1:1,cacert=no.pem"), "--b: cacert no.pem: "),
        (("--a", SERVER[1], "--b", f"url={SERVER[1]},model=m,api_key_env=NOBODYS_KEY"), "--b: api_key_env NOBODYS_KEY"),
    ],
)
def test_a_mistake_of_a_side_names_that_side(sides, message, folder):
    """Not the flag that both sides share."""
    run, dry = (loadbench("compare", *sides, *more, cwd=folder) for more in ((), ("--dry-run",)))
    assert message in run.stderr
    assert (run.returncode, dry.returncode, dry.stderr) == (2, 2, run.stderr)


@pytest.mark.parametrize("most", ["0.5", "2.5"])
def test_there_is_no_half_a_user(most, folder):
    """A search by users goes up to a whole number of them; one by rate need not."""
    search = ("capacity", "--slo", "e2e_p90<9s", "--at-most", most, "--dry-run")
    refused = loadbench(*search, cwd=folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"--at-most: {most} is no number of users" in refused.stderr
    assert loadbench(*search, "--by", "rate", cwd=folder).returncode == 0


def test_an_adapter_is_not_measured_in_turn(folder):
    """Neither by the run nor in the plan: both say what to do instead."""
    with installed():
        arguments = ("compare", "--adapter", "echo:mine", "--a-model", "one", "--b-model", "two")
        run, dry = loadbench(*arguments, cwd=folder), loadbench(*arguments, "--dry-run", cwd=folder)
        models = ("compare", "--a-model", "one", "--b-model", "two", "--dry-run")
        variable = loadbench(*models, cwd=folder, LOADBENCH_ADAPTER="echo:mine")
        servers = ("compare", "--a", SERVER[1], "--b", "http://127.0.0.1:2", "--dry-run")
        unused = loadbench(*servers, cwd=folder, LOADBENCH_ADAPTER="echo:mine")
    assert (run.returncode, dry.returncode, dry.stdout) == (2, 2, "")
    assert run.stderr == dry.stderr
    assert "compare the saved runs" in dry.stderr
    assert (variable.returncode, variable.stdout) == (2, "")
    assert "LOADBENCH_ADAPTER: two servers are measured in turn" in variable.stderr
    assert (unused.returncode, unused.stderr) == (0, "")
    assert "not used: LOADBENCH_ADAPTER" in unused.stdout


def test_a_trace_is_read_before_the_plan_is_shown(folder):
    """A trace that is none is refused by the dry run as well."""
    dry = loadbench("replay", "broken.json", "--dry-run", cwd=folder)
    assert (dry.returncode, dry.stdout) == (2, "")
    assert "broken.json" in dry.stderr


def test_a_search_that_cannot_continue_has_no_plan(folder):
    """`--resume` with a folder without a search is refused by the dry run as well."""
    dry = loadbench("capacity", "--slo", "e2e_p90<9s", "--resume", "elsewhere", "--dry-run", cwd=folder)
    assert (dry.returncode, dry.stdout) == (2, "")
    assert "elsewhere" in dry.stderr


@pytest.mark.parametrize(("command", "flag"), [("stub", "--api-key-env"), ("judge", "--judge-key-env")])
def test_scoring_refuses_in_the_same_words(command, flag, folder):
    """A key that is not set, before any server is looked for; named by the flag that was given."""
    run = {"schema": "loadbench.run/1", "name": "x", "started_at": "2026-01-01T00:00:00Z", "loadbench_version": "1"}
    run |= {"simulated": False, "complete": True, "scenario": {"work": {"prompt": "Why?"}}, "environment": {}}
    run |= {"levels": [], "target": {"url": SERVER[1]}}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    arguments = {
        "stub": ("run.json", *SERVER, "--api-key-env", "NOBODYS_KEY"),
        "judge": ("run.json", "--judge-model", "m", "--judge-url", SERVER[1], "--judge-key-env", "NOBODYS_KEY"),
    }
    done = loadbench("score", command, *arguments[command], cwd=folder)
    assert done.returncode == 2
    assert f"{flag} NOBODYS_KEY: this environment variable is not set" in done.stderr


def test_a_server_without_models_ends_every_command_in_the_same_words(folder):
    """Not a traceback, and 6: what a server does wrong is the same mistake for all."""
    with answering(http("200 OK", '{"data": "none"}')) as url:
        said = {
            command: loadbench(*arguments, "--url", url, "--quiet", cwd=folder)
            for command, arguments in COMMANDS.items()
            if command != "compare"
        }
        said["models"] = loadbench("models", "--url", url, cwd=folder)
    assert {done.returncode for done in said.values()} == {6}
    assert len({done.stderr for done in said.values()}) == 1
    assert not any("Traceback" in done.stderr for done in said.values())


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (("sweep", "mine.toml", "--rate", "20", "--duration", "300ms", "--warm-up", "0s"), "load.users (mine.toml:2)"),
        (("workshop", "--rounds", "1"), "LOADBENCH_DURATION"),
        (("score", "stub", "--prompt", "Why?", "--to", "made.json"), "LOADBENCH_DURATION"),
    ],
)
def test_value_that_is_not_used_is_named_once(arguments, unused, folder):
    """On stderr by the run, in the plan by the dry run: what is not used and why."""
    (folder / "mine.toml").write_text("[load]\nusers = [3]\n", encoding="utf-8")
    variables = {"LOADBENCH_DURATION": "7s"} if unused.startswith("LOADBENCH") else {}
    run = loadbench(*arguments, "--max-tokens", "2", cwd=folder, **variables)
    named = [line for line in run.stderr.splitlines() if line.startswith("not used: ")]
    assert len(named) == 1
    assert unused in named[0]
    assert "not used" not in run.stdout
    if arguments[0] != "score":
        dry = loadbench(*arguments, "--dry-run", cwd=folder, **variables)
        assert dry.returncode == 0
        assert named[0] in dry.stdout
        assert dry.stderr == ""
