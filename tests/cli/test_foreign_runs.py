"""A folder of results from somebody else, and files with keys: what they may choose, and where a key goes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import anyio
import pytest

from loadbench.plan.sources import resolve
from loadbench.results.append_log import AppendLog
from loadbench.results.folder import RunFolder
from loadbench.targets.http_get import get, http_client
from tests.cli.any_server import Reply, any_server
from tests.cli.judge import judging
from tests.cli.test_score import rate
from tests.cli.typed import typed

pytestmark = pytest.mark.slow


def respond(prompt: str, _: int) -> str:
    """What a judge says, who is also the model that is rated."""
    return rate(prompt) if '{"scores"' in prompt else "Water."


# A key of the user's, and a file.
SECRET = "tulip-bicycle-candle"
MINE = {"CLOUD_SECRET": SECRET, "LOADBENCH_API_KEY": SECRET}
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def run(tmp_path):
    """A run folder that is not the user's: one that comes with loadbench, without a choice in it."""
    (tmp_path / "private.txt").write_text(f"{SECRET}\n")
    (source,) = RESULTS.glob("*-llamacpp-25m-8slots")
    document = json.loads((source / "run.json").read_text())
    document["scenario"] = {"target": {}, "work": {"prompt": "Why?"}, "limits": {}}
    document["levels"] = []
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(document))
    (folder / "requests.jsonl").touch()
    return folder


def choose(run: Path, **sections: dict[str, object]) -> None:
    """Have the run's record say this."""
    document = json.loads((run / "run.json").read_text())
    for section, values in sections.items():
        document["scenario"].setdefault(section, {}).update(values)
    (run / "run.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("section", "values", "flags"),
    [
        ("target", {"api_key_env": "CLOUD_SECRET"}, ["--api-key-env CLOUD_SECRET"]),
        ("target", {"header_env": {"X-A": "Bearer CLOUD_SECRET"}}, ["--header-env 'X-A: Bearer CLOUD_SECRET'"]),
        ("target", {"cacert": "private.txt"}, ["--cacert private.txt"]),
        ("target", {"insecure": True}, ["--insecure"]),
        ("target", {"kind": "foundry"}, ["--target foundry"]),
        ("target", {"extra_body": "@private.txt"}, ["--extra-body @private.txt"]),
        ("target", {"extra_body": [{"user": "x"}]}, ["--extra-body"]),
        ("target", {}, []),
        ("work", {"prompts": "private.txt"}, ["--prompts private.txt"]),
    ],
)
@pytest.mark.parametrize("command", ["stub", "judge"])
def test_a_run_of_somebody_elses_chooses_nothing(run, tmp_path, command, section, values, flags):
    """No server, key, program or file: nothing is sent or read, and the message shows what it names, to give again."""
    with any_server() as listener:
        choose(run, target={"url": listener.root}, **({} if section == "target" else {section: values}))
        choose(run, **{section: values})
        more = ["--judge-model", "m"] if command == "judge" else []
        done = typed("score", command, str(run), *more, cwd=tmp_path, **MINE)
    assert listener.got == []
    assert (done.returncode, "is not in the history of your own runs" in done.stderr) == (2, True), done.stderr
    url = f"{'--judge-url' if command == 'judge' else '--url'} {listener.root}"
    # A judge is sent no prompts of the run's, and no fields of its requests.
    unused = {"--prompts private.txt", "--extra-body", "--extra-body @private.txt"} if command == "judge" else set()
    named = {"--api-key-env CLOUD_SECRET": "--judge-key-env CLOUD_SECRET"} if command == "judge" else {}
    for flag in {url, *(named.get(flag, flag) for flag in flags)} - unused:
        assert flag in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("value", [10**30, {"a": "b"}, [], "", True, ["x" * 9000] * 9, "\u001b[31m", [[1]]])
@pytest.mark.parametrize("name", ["url", "header_env", "kind"])
@pytest.mark.parametrize("command", [["score", "stub"], ["score", "judge", "--judge-model=m"], ["sweep", "--resume"]])
def test_whatever_stands_in_a_record_is_one_message(run, tmp_path, command, name, value):
    """No traceback, no page of text, and no escape sequence."""
    document = json.loads((run / "run.json").read_text())
    document["origins"] = {f"target.{name}": "flag", "work.prompt": "flag"}
    (run / "run.json").write_text(json.dumps(document))
    # Nothing listens there, should it be used.
    choose(run, target={"url": "http://127.0.0.1:1", name: value})
    done = typed(*command, str(run), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr) < 4000
    assert "\u001b" not in done.stderr


def test_long_conditions_of_a_record_are_cut(run, tmp_path):
    """A message is no page of text."""
    document = json.loads((run / "run.json").read_text())
    document["conditions"] = {"limits.connect_timeout": "x" * 100_000}
    (run / "run.json").write_text(json.dumps(document))
    done = typed("sweep", "--resume", str(run), cwd=tmp_path)
    assert (done.returncode, "limits.connect_timeout was 'xxx" in done.stderr) == (2, True), done.stderr
    assert len(done.stderr) < 4000


@pytest.mark.parametrize("adapter", ["echo:mine", "transformers:someone/model"])
def test_a_run_of_somebody_elses_starts_no_program(run, tmp_path, adapter):
    """An adapter loads code and models."""
    choose(run, target={"adapter": adapter})
    done = typed("score", "stub", str(run), cwd=tmp_path)
    assert (done.returncode, f"--adapter {adapter}" in done.stderr) == (2, True), done.stderr


def test_what_flags_choose_again_is_used_and_nothing_else_of_it(run, tmp_path):
    """The user's server gets the run's text; its key variable, certificates and fields went with its server."""
    with any_server() as theirs, any_server() as mine:
        own = {"url": theirs.root, "api_key_env": "CLOUD_SECRET", "extra_body": [{"top_k": 1}], "adapter": "echo:x"}
        choose(run, target=own)
        done = typed("score", "stub", str(run), "--url", mine.root, "--model=m", cwd=tmp_path, CLOUD_SECRET=SECRET)
        assert done.returncode == 0, done.stderr
        assert (theirs.got, {got.body.get("top_k") for got in mine.posts}) == ([], {None})
        assert not any("authorization" in got.headers for got in mine.got)
        choose(run, work={"prompts": "private.txt", "prompt": None})
        again = ("score", "stub", str(run), "--force", "--model=m", "--url", mine.root)
        assert typed(*again, cwd=tmp_path).returncode == 2
        assert typed(*again, "--prompts", "private.txt", cwd=tmp_path).returncode == 0


def test_a_judge_of_the_users_own_rates_answers_of_somebody_elses(run, tmp_path):
    """With its own server, nothing of the run's is used; answers are not collected at the run's server."""
    with any_server() as theirs, judging(respond) as (url, prompts):
        choose(run, target={"url": theirs.root})
        judge = ("score", "judge", str(run), "--judge-model=judge-1", "--judge-url", url)
        assert typed(*judge, cwd=tmp_path, **MINE).returncode == 2
        assert (theirs.got, prompts) == ([], [])
        assert typed("score", "stub", str(run), "--url", url, "--model=judge-1", cwd=tmp_path).returncode == 0
        done = typed(*judge, cwd=tmp_path, **MINE)
        assert done.returncode == 0, done.stderr
        assert theirs.got == []
    # The key that merely lies in a variable is the measured server's.
    assert {headers["authorization"] for headers in prompts.headers} == {None}
    assert "not used: LOADBENCH_API_KEY" in done.stderr


def test_a_run_of_ones_own_needs_no_flag_until_it_is_changed(tmp_path):
    """As it was measured it is used; with another variable or server in it, it is somebody else's."""
    (tmp_path / "p.txt").write_text("Why?\n")
    with any_server() as server, any_server() as other:
        load = ("--users=1", "--requests=2", "--warm-up=0s", "--telemetry=off", "--quiet")
        flags = ("--url", server.root, "--prompts=p.txt", "--api-key-env=THEIRS")
        assert typed("sweep", *flags, *load, cwd=tmp_path, THEIRS="k-of-theirs", **MINE).returncode in {0, 4, 5}
        (run,) = (tmp_path / "results").iterdir()
        stub = ("score", "stub", str(run), "--force")
        done = typed(*stub, cwd=tmp_path, THEIRS="k-of-theirs", **MINE)
        assert done.returncode == 0, done.stderr
        for change in ({"api_key_env": "CLOUD_SECRET"}, {"url": other.root}, {"api_key_env": "LOADBENCH_API_KEY"}):
            before = (run / "run.json").read_text()
            choose(run, target=change)
            assert typed(*stub, cwd=tmp_path, THEIRS="k-of-theirs", **MINE).returncode == 2
            (run / "run.json").write_text(before)
        assert typed(*stub, cwd=tmp_path, THEIRS="k-of-theirs", **MINE).returncode == 0
    assert other.got == []
    assert {(*got.headers["authorization"],) for got in server.posts} == {("Bearer k-of-theirs",)}


LOAD = ("--requests=4", "--warm-up=0s", "--telemetry=off", "--quiet")


def test_a_sweep_of_ones_own_is_continued_by_its_folder_alone(tmp_path):
    """At its server, with its key and its prompts; changed by somebody it names nothing, and flags name it again."""
    (tmp_path / "p.txt").write_text("Why?\n")
    (tmp_path / "s.toml").write_text("# How fast is it?\n[work]\nmax_tokens = 3\n")
    with any_server() as server, any_server() as other:
        flags = ("--url", server.root, "--prompts=p.txt", "--api-key-env=THEIRS", "--extra-body", '{"top_k": 3}')
        first = typed("sweep", "s.toml", *flags, "--users=2", *LOAD, cwd=tmp_path, THEIRS="k-of-theirs", **MINE)
        assert first.returncode in {0, 4, 5}, first.stderr
        (run,) = (tmp_path / "results").iterdir()
        sent = len(server.posts)
        done = typed("sweep", "--resume", str(run), "--users=2,3", cwd=tmp_path, THEIRS="k-of-theirs", **MINE)
        assert "resumed after 1 whole level" in done.stderr, done.stderr
        assert {got.body["top_k"] for got in server.posts[sent:]} == {3}
        assert 3 in {got.body["max_tokens"] for got in server.posts[sent:]}
        document = json.loads((run / "run.json").read_text())
        assert [level["load"]["users"] for level in document["levels"]] == [2, 3]
        assert document["question"] == "How fast is it?"
        assert {(*got.headers["authorization"],) for got in server.got} == {("Bearer k-of-theirs",)}

        choose(run, target={"url": other.root, "api_key_env": "CLOUD_SECRET"})
        sent = len(server.got)
        more = ("sweep", "--resume", str(run), "--users=2,3,4")
        refused = typed(*more, cwd=tmp_path, THEIRS="k-of-theirs", **MINE)
        assert refused.returncode == 2, refused.stderr
        assert f"--url {other.root}" in refused.stderr
        assert "--api-key-env CLOUD_SECRET" in refused.stderr
        assert len(server.got) == sent
        again = typed(*more, *flags, cwd=tmp_path, THEIRS="k-of-theirs", **MINE)
        assert "resumed after 2 whole levels" in again.stderr, again.stderr
    assert other.got == []


def test_a_search_of_ones_own_is_continued_by_its_folder_alone(tmp_path):
    """With its objectives and its server; one that was changed is not."""
    with any_server() as server, any_server() as other:
        search = ("--slo=e2e_p90<9s", "--at-most=2", "--budget=1500ms", "--warm-up=5ms", "--telemetry=off")
        first = typed("capacity", "--url", server.root, *search, cwd=tmp_path)
        assert first.returncode in {0, 4, 5}, first.stderr
        (run,) = (tmp_path / "results").iterdir()
        more = typed("capacity", "--resume", str(run), "--budget=1600ms", cwd=tmp_path)
        assert more.returncode in {0, 4, 5}, more.stderr
        choose(run, target={"url": other.root})
        refused = typed("capacity", "--resume", str(run), cwd=tmp_path)
        assert (refused.returncode, f"--url {other.root}" in refused.stderr) == (2, True), refused.stderr
    assert other.got == []


def test_a_sweep_with_personas_is_continued_at_more_loads(tmp_path):
    """The scenario's personas are in the folder; what has an effect only at the loads that are new is no condition of
    the levels before, and what would have changed these is."""
    personas = "".join(f"[personas.{name}]\ninput_tokens = 9\noutput_tokens = 4\n" for name in ("chat", "mine"))
    (tmp_path / "s.toml").write_text(f'[work]\nmix = "chat:1,mine:2"\n{personas}')
    assert typed(
        "sweep", "s.toml", "--users=1", *LOAD[:1], "--warm-up=1s", *LOAD[2:], "--out=r", cwd=tmp_path
    ).returncode in {0, 4, 5}
    (run,) = (tmp_path / "r").iterdir()
    more = ("sweep", "--resume", str(run), "--users=1,2")
    for other in ("--ramp=500ms", "--seed=3", "--think=1ms"):
        refused = typed(*more, other, cwd=tmp_path)
        assert (refused.returncode, "measured under other conditions" in refused.stderr) == (2, True), refused.stderr
    done = typed(*more, cwd=tmp_path)
    assert "resumed after 1 whole level" in done.stderr, done.stderr
    again = typed("sweep", "--resume", str(run), "--users=1,2,3", cwd=tmp_path)
    assert "resumed after 2 whole levels" in again.stderr, again.stderr
    document = json.loads((run / "run.json").read_text())
    assert [level["load"]["users"] for level in document["levels"]] == [1, 2, 3]
    assert document["scenario"]["personas"].keys() == {"chat", "mine"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_folder_with_links_is_not_continued(tmp_path):
    """Nothing is cut off, or appended to, in the file that a link leads to."""
    victim = tmp_path / "victim"
    victim.write_text("mine, without a line's end")
    sweep = ("sweep", "--users=1", *LOAD, "--max-tokens=2")
    assert typed(*sweep, cwd=tmp_path).returncode in {0, 4, 5}
    (run,) = (tmp_path / "results").iterdir()
    for name in ("requests.jsonl", "telemetry.jsonl"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)
        done = typed(*sweep, "--resume", str(run), cwd=tmp_path)
        assert (done.returncode, f"{name} is a link" in done.stderr) == (2, True), done.stderr
        (run / name).unlink()
    assert victim.read_text() == "mine, without a line's end"
    (run / "requests.jsonl").symlink_to(victim)
    with pytest.raises(OSError, match="link"):
        AppendLog(RunFolder(run), "requests.jsonl").open()


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "link", "loop", "folder", "socket", "endless line"])
def test_what_is_no_plain_file_is_one_message(tmp_path, kind):
    """Seen: a pipe named `run.json` was waited for, for good, and a link to /dev/zero filled the memory."""
    (source,) = RESULTS.glob("*-capacity-*")
    commands = {
        "run.json": ["report", "select", "score stub", "compare --a-model=m", "sweep --resume"],
        "requests.jsonl": ["report --by-user", "report --by-prompt", "report --as=vllm"],
        "quality.json": ["report"],
        "capacity.json": ["report", "capacity --resume"],
    }
    for name, command in [(name, command) for name, several in commands.items() for command in several]:
        folder = tmp_path / f"{name}-{command}"
        shutil.copytree(source, folder)
        path = folder / name
        path.unlink(missing_ok=True)
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "device" | "link" | "loop":
                path.symlink_to({"device": "/dev/zero", "link": folder / "report.md", "loop": path}[kind])
            case "folder":
                path.mkdir()
            case "socket":
                with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(name)
            case "endless line":
                with path.open("wb") as file:
                    file.truncate(1 << 30)
        done = typed(*command.split(), str(folder), cwd=tmp_path)
        # Without this file there may be enough in the others for a report.
        assert done.returncode in ({0, 2} if command == "report" else {2}), command
        assert len(done.stderr.splitlines()) <= 2


PAIR = ("--users=1", "--requests=2", "--warm-up=0s", "--settle=0s", "--repeats=1", "--telemetry=off", "--quiet")


@pytest.mark.parametrize(
    "named",
    [
        ("{a}", "url={b},model=m", "--name=mine"),
        ('--a=url={a},model=m,extra_body={{"top_k": 3}}', "--b={b}", "--api-key-env=THEIRS", "--model=m"),
        ("--url={a}", "--a-model=m", "--b-model=n"),
        ("--scenario=s.toml", "--same", "--fail-on=ttft_p95>900%"),
        ("--scenario=s.toml", "--b=url={b}"),
        ("profile=slot-server", "profile=small-gpu", "--prompts=p.txt", "--max-tokens=3"),
    ],
)
def test_a_comparison_of_ones_own_is_continued_by_its_folder_alone(tmp_path, named):
    """Each side with its own server, model, fields and key; its conditions are what they were."""
    with any_server() as a, any_server() as b:
        personas = '[personas.mine]\ninput_tokens = 9\noutput_tokens = 4\n[work]\npersona = "mine"\n'
        (tmp_path / "s.toml").write_text(f'# Which?\n[target]\nurl = "{a.root}"\napi_key_env = "THEIRS"\n{personas}')
        (tmp_path / "p.txt").write_text("Why?\n")
        arguments = [one.format(a=a.root, b=b.root) for one in named]
        first = typed("compare", *arguments, *PAIR, cwd=tmp_path, THEIRS="k-of-theirs")
        (folder,) = (tmp_path / "results").iterdir()
        sent = len(a.posts), len(b.posts)
        done = typed("compare", "--resume", str(folder), "--repeats=2", cwd=tmp_path, THEIRS="k-of-theirs")
        before, after = [(len(server.posts) > n) for server, n in zip((a, b), sent, strict=True)], sent
        assert first.returncode == done.returncode or done.returncode in {0, 5}, done.stderr
        assert "resumed after 1 whole repeat" in done.stderr, done.stderr
        assert before == [n > 0 for n in after]
        for server, n in zip((a, b), sent, strict=True):
            bodies = [[got.body.get(key) for key in ("model", "top_k")] for got in server.posts]
            assert all(one in bodies[:n] for one in bodies[n:])
            keys = {tuple(got.headers.get("authorization", ())) for got in server.posts}
            assert len(keys) <= 1
    for side in "ab":
        runs = [json.loads((folder / side / name / "run.json").read_text()) for name in ("01", "02")]
        assert runs[0]["conditions"] | {"work.seed": 1} == runs[1]["conditions"]
        assert runs[0]["name"][:-1] == runs[1]["name"][:-1]
        assert runs[0]["question"] == runs[1]["question"]


def test_sides_of_a_comparison_are_shown_to_be_given_again(tmp_path):
    """Of somebody else's, or one that was changed, nothing is taken from its folder."""
    with any_server() as a, any_server() as b:
        typed("compare", a.root, f"url={b.root},model=m", "--api-key-env=K", *PAIR, cwd=tmp_path, K="k")
        (folder,) = (tmp_path / "results").iterdir()
        sent = len(a.got) + len(b.got)
        choose(folder / "b" / "01", target={"api_key_env": "CLOUD_SECRET"})
        done = typed("compare", "--resume", str(folder), cwd=tmp_path, **MINE)
        assert len(a.got) + len(b.got) == sent
        again = typed(
            "compare", a.root, f"url={b.root},model=m", "--api-key-env=K", *PAIR, "--resume", str(folder), cwd=tmp_path
        )
        assert "not in the history" not in again.stderr
    assert done.returncode == 2
    assert f"its sides were --a url={a.root} --b url={b.root},model=m" in done.stderr
    assert "--api-key-env CLOUD_SECRET" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_folder_leads_to_no_other_file(run, tmp_path):
    """A link in the place of a draft is not written through; a list of folders names none outside."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (".report.md.part", ".quality.json.part"):
        (run / name).symlink_to(victim)
    with judging(respond) as (url, _):
        assert typed("score", "stub", str(run), "--url", url, "--model=judge-1", cwd=tmp_path).returncode == 0
        judge = ("score", "judge", str(run), "--judge-model=judge-1", "--judge-url", url)
        assert typed(*judge, cwd=tmp_path).returncode == 0
    assert victim.read_text() == "mine"
    for name in ("../elsewhere", "..", str(tmp_path), "sub"):
        if name == "sub":
            (run / name).symlink_to(tmp_path)
        listed = {"schema": "loadbench.capacities/1", "folders": {"m": name}}
        (run / "capacities.json").write_text(json.dumps(listed))
        done = typed("capacity", "--slo=e2e_p95<1s", "--resume", str(run), cwd=tmp_path)
        words = "is a link" if name == "sub" else "is no folder in this one"
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
        shown = typed("report", str(run), cwd=tmp_path)
        assert (shown.returncode, "is no folder in this one" in shown.stderr) == (2, True), shown.stderr


# Where keys go.

A, B = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


@pytest.mark.parametrize(
    ("file", "variables", "flags", "sent"),
    [
        # A key goes with the server of its own source.
        ({"url": "A", "api_key_env": "K"}, {}, ["--url=B"], None),
        ({"url": "A", "api_key_env": "K"}, {}, [], "k"),
        ({"url": "A", "api_key_env": "K"}, {}, ["--url=A"], "k"),
        ({"url": "A", "header_env": {"Authorization": "Bearer K"}}, {}, ["--url=B"], None),
        ({"url": "A", "header": {"Authorization": "Bearer k"}}, {}, ["--url=B"], None),
        ({"url": "A", "api_key_env": "K"}, {"LOADBENCH_URL": "B"}, [], None),
        ({}, {"LOADBENCH_URL": "A", "LOADBENCH_API_KEY_ENV": "K"}, ["--url=B"], None),
        ({}, {"LOADBENCH_URL": "A", "LOADBENCH_HEADER_ENV": "Authorization: Bearer K"}, ["--url=B"], None),
        ({}, {"LOADBENCH_URL": "A", "LOADBENCH_API_KEY": "k"}, ["--url=B"], None),
        ({}, {"LOADBENCH_URL": "A", "LOADBENCH_API_KEY": "k"}, [], "k"),
        # Where its source names no server, or a flag gives the key, it goes where the user says.
        ({}, {"LOADBENCH_API_KEY": "k"}, ["--url=B"], "k"),
        ({"api_key_env": "K"}, {}, ["--url=B"], "k"),
        ({}, {"LOADBENCH_URL": "A", "LOADBENCH_API_KEY": "x"}, ["--url=B", "--api-key-env=K"], "k"),
        ({"url": "A"}, {}, ["--url=B", "--api-key-env=K"], "k"),
    ],
)
def test_a_key_is_for_the_server_that_it_was_given_with(tmp_path, file, variables, flags, sent):
    """Scheme, host and port count; a key that stays behind is listed as not used."""
    with any_server() as a, any_server() as b:
        roots = {"A": a.root, "B": b.root}

        def placed(text: object) -> object:
            return roots.get(text, text) if isinstance(text, str) else text

        (tmp_path / "s.json").write_text(json.dumps({"target": {name: placed(one) for name, one in file.items()}}))
        given = [f"--url={roots[flag[-1]]}" if flag.startswith("--url") else flag for flag in flags]
        done = typed(
            "sweep", "s.json", *given, "--users=1", "--requests=1", "--warm-up=0s", "--telemetry=off",
            cwd=tmp_path, K="k", **{name: placed(text) for name, text in variables.items()},
        )  # fmt: skip
    got = [*a.got, *b.got]
    assert got, done.stderr
    assert {tuple(one.headers.get("authorization", ())) for one in got} == {(f"Bearer {sent}",) if sent else ()}
    assert sent or "not used: " in done.stderr


def test_the_key_of_another_servers_variables_is_not_sent_to_a_runs_own(tmp_path):
    """The run names its server, and LOADBENCH_URL another, with which the key was given."""
    with any_server() as a, any_server() as b:
        flags = ("--url", a.root, "--users=1", "--requests=1", "--warm-up=0s", "--telemetry=off", "--prompt=Why?")
        typed("sweep", *flags, cwd=tmp_path)
        (run,) = (tmp_path / "results").iterdir()
        done = typed("score", "stub", str(run), cwd=tmp_path, LOADBENCH_URL=b.root, LOADBENCH_API_KEY=SECRET)
    assert done.returncode == 0, done.stderr
    assert b.got == []
    assert not any("authorization" in got.headers for got in a.got)


def test_small_requests_take_headers_to_their_server_only():
    """Whatever address such a request is given."""

    async def fetch(*urls: str) -> None:
        limits = resolve(flags={}, environment={}).limits
        async with http_client(urls[0], [("X-Key", SECRET)], query="key=1", tls=None, limits=limits) as http:
            for url in urls:
                await get(http, url)

    with any_server() as a, any_server() as b:
        anyio.run(fetch, f"{a.root}/v1/models", f"{b.root}/v1/models")
    assert [(got.path, got.headers.get("x-key")) for got in a.got] == [("/v1/models?key=1", [SECRET])]
    assert [(got.path, got.headers.get("x-key")) for got in b.got] == [("/v1/models", None)]


def test_sides_of_a_comparison_keep_a_key_to_its_server(tmp_path):
    """The key of the file's server goes to the side that is measured there."""
    with any_server() as a, any_server() as b:
        (tmp_path / "s.json").write_text(json.dumps({"target": {"url": a.root, "api_key_env": "K"}}))
        load = ("--users=1", "--requests=1", "--warm-up=0s", "--settle=0s", "--repeats=1", "--telemetry=off")
        done = typed("compare", "--scenario=s.json", "--a-model=m", f"--b=url={b.root}", *load, cwd=tmp_path, K="k")
    assert "saved in" in done.stderr, done.stderr
    assert {tuple(one.headers.get("authorization", ())) for one in a.got} == {("Bearer k",)}
    assert {tuple(one.headers.get("authorization", ())) for one in b.got} == {()}


@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_a_redirect_takes_no_key_along(tmp_path, transport):
    """Neither from the list of models nor from a measured request, to whichever port."""
    with any_server() as other:

        def moved(got: object) -> Reply:
            return Reply(status=307, headers={"Location": f"{other.root}/v1/chat/completions"})

        with any_server(moved, answer=moved) as server:
            flags = ("--url", server.root, "--model=m", "--users=1", "--requests=1", f"--transport={transport}")
            done = typed("sweep", *flags, "--header-env=X-Key: K", cwd=tmp_path, K=SECRET, LOADBENCH_API_KEY=SECRET)
    assert done.returncode == 6, done.stderr
    assert server.got
    assert other.got == []


@pytest.mark.parametrize("command", ["--prompts", "--trace", "--models"])
def test_files_of_prompts_traces_and_models_choose_no_server_key_or_file(tmp_path, command):
    """What looks like an address, a key or a path in them is text, or is refused."""
    (tmp_path / "private.txt").write_text(SECRET)
    with any_server() as mine, any_server() as theirs:
        route = f"{theirs.root}/v1/chat/completions"
        more = {
            "api_key_env": "CLOUD_SECRET",
            "base_url": theirs.root,
            "file": "private.txt",
            "prompts": "@private.txt",
        }
        message = {"role": "user", "content": "@private.txt"}
        body = {"model": "m", "messages": [message], "api_base": theirs.root, "headers": {"X-A": "$CLOUD_SECRET"}}
        rows = {
            "--prompts": {"custom_id": "1", "method": "POST", "url": route, "body": body},
            "--trace": {"timestamp": 0, "input_length": 3, "output_length": 3, "url": route, **more},
            "--models": {"id": "m", "url": theirs.root, **more},
        }
        (tmp_path / "rows.jsonl").write_text(json.dumps(rows[command]) + "\n")
        named = () if command == "--models" else ("--model=m",)
        load = () if command == "--trace" else ("--users=1", "--requests=1", "--warm-up=0s")
        flags = ("--url", mine.root, command, "rows.jsonl", "--telemetry=off", *named, *load)
        done = typed("sweep", *flags, cwd=tmp_path, CLOUD_SECRET=SECRET)
    assert theirs.got == []
    assert (done.returncode == 2 and "error:" in done.stderr) or mine.posts, done.stderr
    sent = json.dumps([[got.path, got.headers, got.body] for got in mine.got])
    assert SECRET not in sent + done.stdout + done.stderr
