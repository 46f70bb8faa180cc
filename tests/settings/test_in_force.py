"""What the record says is in force is what requests are sent with, whichever source names it."""

from __future__ import annotations

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.sources import resolve
from loadbench.sim.process import SimProcess
from tests.cli.typed import typed

OWN = '[personas.writer]\noutput_tokens = 90\nthink = "3s"\nturns = 4\n'


@pytest.fixture
def file(tmp_path):
    """Write a scenario file and return its path."""

    def write(text, name="s.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("who", [{"persona": "rag"}, {"mix": ("summariser:2,rag:1",)}])
@pytest.mark.parametrize("limit", [{}, {"max_tokens": "7"}])
def test_max_tokens_limits_a_deterministic_run_of_personas(who, limit):
    """The lengths of the personas neither decide max_tokens nor are they recorded."""
    made = resolve(flags={**who, **limit, "deterministic": True, "prompt": "why?"}, environment={})
    source = prompt_source(made.work, key="k", calibration=None)
    assert {source.next(number, number).output_tokens for number in range(9)} == {None}
    assert made.effective()["work"]["max_tokens"] == int(limit.get("max_tokens", 64))
    assert all("output_tokens" not in persona for persona in made.effective()["personas"].values())


@pytest.mark.parametrize(
    ("flags", "recorded"),
    [
        ({"mix": ("rag:2,code:1",), "prompt": "x", "think": "4s"}, {"output_tokens": "normal:512,128", "think": "4s"}),
        ({"persona": "rag", "rate": "3", "prompts": "p.txt"}, {"output_tokens": "normal:512,128"}),
        (
            {"persona": "rag", "think": "4s"},
            {"input_tokens": "normal:4096,512,2048,6144", "output_tokens": "normal:512,128", "think": "4s"},
        ),
    ],
)
def test_personas_are_recorded_with_what_is_in_force(flags, recorded):
    """Given prompts have no lengths, arrivals no think time, and a given think time is that of all."""
    assert resolve(flags=flags, environment={}).effective()["personas"]["rag"] == recorded


@pytest.mark.parametrize("variable", ["LOADBENCH_TIME_LOADS", "LOADBENCH_ALLOW_ALIAS"])
def test_a_setting_that_is_off_needs_no_foundry(variable, tmp_path):
    """What says that something is off runs with any server, as the dry run promises."""
    short = ("--users=1", "--requests=1", "--warm-up=0s", "--max-tokens=1")
    assert "saved in" in typed("sweep", *short, cwd=tmp_path, **{variable: "no"}).stderr


def test_the_doctor_refuses_what_a_sweep_refuses(tmp_path):
    """Another server than Foundry Local loads its models itself."""
    with SimProcess("slot-server", seed=0) as server:
        answer = typed("doctor", "--json", "--no-load", f"--url={server.url}", cwd=tmp_path)
    assert answer.returncode != 0
    assert "loads its models itself" in answer.stdout + answer.stderr


@pytest.mark.parametrize("name", ["api_key_env", "judge_key_env"])
def test_a_key_may_be_in_any_variable(name, file):
    """A flag, a file or another variable may name it; without a name it is unknown."""
    secret = {"LOADBENCH_TEAM_KEY": "s"}
    section, command = ("judge", "judge") if name == "judge_key_env" else ("target", "sweep")
    flag = {"api_key_env": "LOADBENCH_TEAM_KEY"}
    url = {"model": "m", "url": "http://h:9"}
    resolve(flags=flag | url, environment=secret, command=command)
    named = {f"LOADBENCH_{name.upper()}": "LOADBENCH_TEAM_KEY"}
    resolve(flags=url, environment=secret | named, command=command)
    path = file(f'[{section}]\napi_key_env = "LOADBENCH_TEAM_KEY"\n')
    resolve(flags=url, environment=secret, file=path, command=command)
    with pytest.raises(BadInput, match="LOADBENCH_TEAM_KEY: an unknown"):
        resolve(flags=url, environment=secret, command=command)


def test_a_side_may_name_the_variable_of_its_key(tmp_path):
    """The variable is no unknown setting."""
    sides = ("--a=url=http://h:9,api_key_env=LOADBENCH_A", "--b=http://h:8")
    answer = typed("compare", *sides, "--dry-run", "--verbose", cwd=tmp_path, LOADBENCH_A="s")
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize(
    ("section", "first", "second"),
    [
        ("load", "rate = [2]", "rates = [1]"),
        ("target", "model = ['a']", "models = ['b']"),
        ("slo", "slo = ['ttft_p95<1s']", "objectives = ['ttft_p95<2s']"),
    ],
)
def test_two_names_of_one_setting_are_refused(section, first, second, file):
    """Neither of them wins silently."""
    path = file(f"[{section}]\n{first}\n{second}\n")
    with pytest.raises(BadInput, match=f"{path}:3: .*the same setting as {section}"):
        resolve(flags={}, environment={}, file=path)


@pytest.mark.parametrize(
    "text", ['{"load": {"ramp": "1s", "ramp": "2s"}}', '{"slo": {}, "load": {}, "slo": {"slo": ["ttft_p95<1s"]}}']
)
def test_a_repeated_key_of_json_is_refused(text, file):
    """TOML has no repeated keys either."""
    with pytest.raises(BadInput, match=r"(ramp|slo) is given twice"):
        resolve(flags={}, environment={}, file=file(text, "s.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--users=1", "--concurrency", "2"], "--users and --concurrency are the same setting"),
        (["--users", "1", "--users=2"], "--users is given twice"),
        (["--concurrency=1", "--concurrency=1"], "--concurrency is given twice"),
        (["--no-unique", "--unique"], "--unique and --no-unique are the same setting"),
    ],
)
def test_flags_that_give_one_setting_twice_are_refused(arguments, said, tmp_path):
    """Which of them wins cannot be guessed."""
    twice = typed("sweep", *arguments, "--dry-run", "--verbose", cwd=tmp_path)
    assert (twice.returncode, said in twice.stderr) == (2, True)


def test_flags_that_may_be_repeated_and_values_like_flags_are_taken(tmp_path):
    """Several headers and rules, and texts that begin as a flag does."""
    rules = ("--slo=ttft_p95<1s", "--slo", "failures<1%", "--unique", "--unique")
    texts = ("--users", "1", "--prompt", "--users", "--system=--users=2")
    once = typed("sweep", *rules, *texts, "--dry-run", "--verbose", cwd=tmp_path)
    assert (once.returncode, once.stderr) == (0, "")


@pytest.mark.parametrize(
    "text", ['{"question": "a\\ud800"}', '{"personas": {"a\\udcff": {"turns": 2}}}', '{"work": {"prompt": "\\ud800"}}']
)
def test_text_of_json_that_is_not_unicode_is_refused(text, file):
    """It could be neither sent nor saved."""
    with pytest.raises(BadInput, match=r"s.json: .*want text that is valid Unicode"):
        resolve(flags={}, environment={}, file=file(text, "s.json"))


def test_empty_variable_is_not_zero():
    """`LOADBENCH_THINK=` gives no think time at all."""
    with pytest.raises(BadInput, match="LOADBENCH_THINK: '' is not a duration"):
        resolve(flags={}, environment={"LOADBENCH_THINK": ""})


@pytest.mark.parametrize("flag", [{"temperature": "0.3"}, {"unique": True}, {"output_tokens": "9"}])
def test_a_flag_overrides_a_files_deterministic(flag, file):
    """The flag wins with all that it needs; the file's setting is listed as not used."""
    path = file("[work]\nprompt = 'x'\ndeterministic = true\n")
    made = resolve(flags=flag, environment={}, file=path)
    assert (made.work.deterministic, made.work.unique) == (False, True)
    assert [value.key for value in made.unused] == ["work.deterministic"]


def test_a_rate_overrides_the_turns_of_a_files_personas(file):
    """As it overrides plain turns of a file; turns of personas that a flag names are refused."""
    path = file(f'{OWN}[work]\nmix = "writer:2,chat:1"\n')
    made = resolve(flags={"rate": "2"}, environment={}, file=path)
    assert [str(value) for value in made.unused] == [f"personas.writer.turns ({path}:6): overridden by --rate"]
    assert made.effective()["personas"]["writer"] == {"output_tokens": "90"}
    with pytest.raises(BadInput, match="writer has turns"):
        resolve(flags={"rate": "2", "persona": "writer"}, environment={}, file=path)


def test_a_replay_to_the_end_has_no_cool_down(tmp_path):
    """A duration beyond the trace leaves nothing after the window: a cool-down is refused with the reason."""
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2025-01-01 00:00:00,9,3\n2025-01-01 00:00:05,9,3\n", encoding="utf-8"
    )
    flags = {"trace": str(trace), "cool_down": "2s"}
    with pytest.raises(BadInput, match="--cool-down: has no effect: the trace is measured to its end"):
        resolve(flags={**flags, "duration": "1h"}, environment={}, command="replay")
    assert resolve(flags={**flags, "duration": "3s"}, environment={}, command="replay").load.cool_down == 2_000_000_000


def test_a_switched_off_flag_is_named_as_it_was_typed():
    """The origin of `--no-unique` is that flag, and not the one that switches it on."""
    assert str(resolve(flags={"unique": False}, environment={}).origins["work.unique"]) == "flag --no-unique"
