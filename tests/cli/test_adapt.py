"""Requests are adapted to what a server accepts, before anything is measured, and exact lengths are requested."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.strict_server import requested, strict_server
from tests.cli.typed import typed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT = ("--users=1", "--requests=3", "--warm-up=0s", "--telemetry=off", "--no-live")


def refusing(*fields: str, words: str = "Unknown parameter: '{}'.", status: int = 400) -> Callable[..., Any]:
    """Refuses the first of these fields that a body has, at any depth of `options`; answers in full otherwise."""

    def answer(body: dict[str, Any]) -> Any:
        for field in fields:
            outer, _, inner = field.rpartition(".")
            if inner in (body.get(outer, {}) if outer else body):
                return status, {"error": {"message": words.format(field)}}
        return requested(body)

    return answer


def run_of(folder: Path) -> dict[str, Any]:
    """The only run below a folder."""
    (path,) = folder.rglob("run.json")
    run: dict[str, Any] = json.loads(path.read_bytes())
    return run


def sweep(server: Any, folder: Path, *flags: str) -> Any:
    """`loadbench sweep` against it."""
    return typed("sweep", f"--url={server.url}", *SHORT, *flags, cwd=folder)


def test_a_refused_limit_is_renamed_and_a_refused_value_left_out(tmp_path: Path) -> None:
    """As the models of OpenAI that reason: every measured request is sent as they want it, and all of it is said."""

    def answer(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            message = "Unsupported parameter: 'max_tokens' is not supported with this model."
            return 400, {"error": {"message": f"{message} Use 'max_completion_tokens' instead.", "param": "max_tokens"}}
        if body.get("temperature", 1) != 1:
            message = "Unsupported value: 'temperature' does not support 0 with this model."
            return 400, {"error": {"message": f"{message} Only the default (1) value is supported."}}
        return requested(body)

    with strict_server(answer) as server:
        done = sweep(server, tmp_path)
    assert "the server refuses 'max_tokens'; 'max_completion_tokens' is sent instead" in done.stderr
    assert "the server refuses 'temperature'; it is not sent" in done.stderr
    run = run_of(tmp_path)
    assert run["levels"][0]["outcomes"] == {"ok": 3}
    assert [(one["field"], one["action"], one["to"], one["model"]) for one in run["adapted"]] == [
        ("max_tokens", "renamed", "max_completion_tokens", "m"),
        ("temperature", "left_out", None, "m"),
    ]
    assert "Only the default (1) value" in run["adapted"][1]["words"]
    assert all(body["max_completion_tokens"] and "temperature" not in body for body in server.accepted)
    assert [refused for _, refused in server.bodies[:3]] == [True, True, False]
    assert not any(refused for _, refused in server.bodies[3:])
    assert "'max_tokens' was sent as 'max_completion_tokens'" in done.stdout
    assert "'temperature' was not sent, because the server refuses it" in done.stdout


@pytest.mark.parametrize(
    ("api", "field", "to"),
    [
        ("chat", "stream_options", None),
        ("completions", "seed", None),
        ("responses", "store", None),
        ("responses", "temperature", None),
        ("ollama", "options.seed", None),
        ("completions", "max_tokens", "max_completion_tokens"),
    ],
)
def test_every_api_is_adapted(tmp_path: Path, api: str, field: str, to: str | None) -> None:
    """Under each API's own names, and also by a validator, with status 422."""
    with strict_server(refusing(field, words="{}: Extra inputs are not permitted", status=422)) as server:
        done = sweep(server, tmp_path, f"--api={api}")
    run = run_of(tmp_path)
    assert run["levels"][0]["outcomes"] == {"ok": 3}, done.stderr
    assert [(one["field"], one["to"]) for one in run["adapted"]] == [(field, to)]
    assert len(server.bodies) == len(server.accepted) + 1


@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_refusal_is_one_whatever_its_status(tmp_path: Path, status: int) -> None:
    """A proxy may have answered 200 before it knew, or 500 for an exception of its own."""
    words = "create() got an unexpected keyword argument '{}'"
    with strict_server(refusing("seed", words=words, status=status)) as server:
        done = sweep(server, tmp_path)
    assert run_of(tmp_path)["levels"][0]["outcomes"] == {"ok": 3}, done.stderr
    assert [one["field"] for one in run_of(tmp_path)["adapted"]] == ["seed"]


def test_what_the_user_gave_is_renamed_at_most(tmp_path: Path) -> None:
    """A field of `--extra-body` takes the name that the server proposes; without one, the first request fails."""

    def answer(body: dict[str, Any]) -> Any:
        if "stop" in body:
            return 400, {"error": "Unknown field 'stop'. Did you mean 'stop_sequences'?"}
        return requested(body)

    with strict_server(answer) as server:
        done = sweep(server, tmp_path, "--extra-body", '{"stop": ["END"]}')
    assert server.accepted[-1]["stop_sequences"] == ["END"], done.stderr
    assert run_of(tmp_path)["adapted"][0]["to"] == "stop_sequences"
    for field in ("stop", "top_k", "temperature"):
        with strict_server(refusing(field)) as server:
            done = sweep(server, tmp_path, "--extra-body", json.dumps({field: 1}), f"--name={field}")
        assert done.returncode == 6
        assert f"Unknown parameter: '{field}'" in done.stderr
        assert f"--extra-body '{{\"{field}\":null}}'" in done.stderr
        assert server.accepted == []


def test_fields_of_rows_are_left_out_as_well(tmp_path: Path) -> None:
    """Of whichever row, on every API that has them; each is refused once, before the level."""
    rows = [{"prompt": "Why?", "seed": 3}, {"prompt": "How?", "top_p": 0.5, "temperature": 0.7}, {"prompt": "Who?"}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = {"chat": ("seed", "top_p"), "completions": ("seed", "top_p"), "ollama": ("options.seed", "options.top_p")}
    for api, refused in fields.items():
        (tmp_path / api).mkdir()
        with strict_server(refusing(*refused)) as server:
            done = sweep(server, tmp_path / api, "--prompts=../p.jsonl", f"--api={api}")
        run = run_of(tmp_path / api)
        assert run["levels"][0]["outcomes"] == {"ok": 3}, done.stderr
        assert [(one["field"], one["action"]) for one in run["adapted"]] == [(name, "left_out") for name in refused]
        assert done.stderr.count("the server refuses") == 2
        temperatures = {(body.get("options") or body)["temperature"] for body in server.accepted}
        assert temperatures == {0.0, 0.7}


def test_models_of_a_run_have_the_same_fields_in_every_row(tmp_path: Path) -> None:
    """What the second model refuses in the second row, no level of the first has sent."""
    rows = [{"prompt": "Why?"}, {"prompt": "How?", "top_p": 0.5}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def answer(body: dict[str, Any]) -> Any:
        refuses = body["model"] == "n" and "top_p" in body
        return (400, {"error": "Unknown parameter: 'top_p'."}) if refuses else requested(body)

    with strict_server(answer) as server:
        done = sweep(server, tmp_path, "--prompts=p.jsonl", "--model=m", "--model=n")
    assert [level["outcomes"] for level in run_of(tmp_path)["levels"]] == [{"ok": 3}, {"ok": 3}], done.stderr
    assert sum("top_p" in body for body, _ in server.bodies) == 2  # the two first requests


def test_a_row_that_fails_is_a_failure_of_its_level(tmp_path: Path) -> None:
    """What is in its extra_body is sent as it is; the hint for the first row names the rows, since no flag helps."""
    rows = [{"prompt": "Why?"}, {"prompt": "How?", "extra_body": {"top_k": 5}}]
    for number, order in enumerate((rows, rows[::-1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "p.jsonl").write_text("\n".join(map(json.dumps, order)))
        with strict_server(refusing("top_k")) as server:
            done = sweep(server, folder, "--prompts=p.jsonl")
        if number:
            assert done.returncode == 6
            assert "remove 'top_k' from the rows of the data set" in done.stderr
        else:
            assert run_of(folder)["levels"][0]["outcomes"] == {"ok": 2, "http_error": 1}, done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("max_tokens must be at most 16", "--max-tokens"),
        ("Range of max_tokens should be [1, 8192]", "--max-tokens"),
        ("body.max_tokens: Input should be less than or equal to 16", "--max-tokens"),
        ("Invalid 'max_tokens': integer below minimum value. Expected a value >= 100", "--max-tokens"),
        ("temperature: Input should be greater than 0", "--temperature"),
        ("seed must be positive", "--seed"),
        ("Unknown parameter: 'messages'.", "--api"),
        ("Unknown parameter: 'stream'.", "a route that stream"),
    ],
)
def test_hint_of_a_refused_value_names_its_flag(tmp_path: Path, words: str, hint: str) -> None:
    """A limit, a temperature, a seed; no flag changes what is measured."""
    with strict_server(lambda _: (400, {"error": words})) as server:
        done = sweep(server, tmp_path)
    assert (done.returncode, len(server.bodies)) == (6, 1)
    assert hint in done.stderr
    assert "null" not in done.stderr or "temperature" in words or "seed" in words


def test_a_limit_by_a_name_of_the_users_is_renamed_as_well(tmp_path: Path) -> None:
    """To the newer of the usual names, or to the one that the server proposes."""
    with strict_server(refusing("max_new_tokens")) as server:
        done = sweep(server, tmp_path, "--max-tokens-field=max_new_tokens")
    assert server.accepted[-1]["max_completion_tokens"] == 64, done.stderr
    words = "Unknown parameter: '{}'. Use 'max_output_tokens' instead."
    with strict_server(refusing("max_new_tokens", words=words)) as server:
        done = sweep(server, tmp_path, "--max-tokens-field=max_new_tokens", "--name=other")
    assert server.accepted[-1]["max_output_tokens"] == 64, done.stderr


def test_strict_requests_are_not_adapted(tmp_path: Path) -> None:
    """The server's words are the error, and the hint names the flags."""
    with strict_server(refusing("seed")) as server:
        done = sweep(server, tmp_path, "--strict-request")
        judged = typed("doctor", f"--url={server.url}", "--strict-request", cwd=tmp_path)
    assert done.returncode == 6
    assert "Unknown parameter: 'seed'" in done.stderr
    assert "--extra-body '{\"seed\":null}'" in done.stderr
    assert "leave out --strict-request" in done.stderr
    assert server.accepted == []
    assert judged.returncode != 0


@pytest.mark.parametrize("field", ["messages", "model", "stream"])
def test_what_a_request_is_about_is_never_left_out(tmp_path: Path, field: str) -> None:
    """Without it, another question would be asked: the first request fails, with the server's words."""
    with strict_server(refusing(field)) as server:
        done = sweep(server, tmp_path)
    assert done.returncode == 6
    assert f"Unknown parameter: '{field}'" in done.stderr
    assert len(server.bodies) == 1


def test_a_limit_without_an_accepted_name_fails_and_names_the_flag(tmp_path: Path) -> None:
    """Both usual names are tried, and no third."""
    with strict_server(refusing("max_tokens", "max_completion_tokens")) as server:
        done = sweep(server, tmp_path)
    assert done.returncode == 6
    assert "--max-tokens-field" in done.stderr
    assert len(server.bodies) == 2


def test_at_most_five_tries(tmp_path: Path) -> None:
    """A server that wants another name each time is asked six times in all."""
    names = ("max_tokens", "max_new_tokens", "n_predict", "num_predict", "max_output_tokens", "max_tokens_to_sample")

    def answer(body: dict[str, Any]) -> Any:
        at = next(at for at, name in enumerate(names) if name in body)
        return 400, {"error": f"Unknown field {names[at]}, did you mean {names[(at + 1) % len(names)]}?"}

    with strict_server(answer) as server:
        done = sweep(server, tmp_path)
    assert done.returncode == 6
    assert len(server.bodies) == 6


def test_a_value_out_of_range_is_no_refusal_of_its_field(tmp_path: Path) -> None:
    """The request fails as it is: another limit, or temperature, is for the user to choose."""
    words = "max_tokens must be at least 16, and temperature must be between 1 and 2"
    with strict_server(lambda _: (400, {"error": words})) as server:
        assert sweep(server, tmp_path).returncode == 6
    assert len(server.bodies) == 1


def test_all_models_of_a_run_get_the_same_fields(tmp_path: Path) -> None:
    """What the second model refuses, no level of the first has sent; neither is asked for its first response twice."""

    def answer(body: dict[str, Any]) -> Any:
        refused = body["model"] == "b" and "temperature" in body
        return (400, {"error": "`temperature` is deprecated for this model."}) if refused else requested(body)

    with strict_server(answer, "a", "b") as server:
        done = sweep(server, tmp_path, "--model=a", "--model=b", "--prompt=Hello.")
    run = run_of(tmp_path)
    assert [level["outcomes"] for level in run["levels"]] == [{"ok": 3}, {"ok": 3}], done.stderr
    assert [(one["field"], one["model"], one["from_level"]) for one in run["adapted"]] == [("temperature", "b", 0)]
    assert [status["cold_ttft_s"] is not None for status in run["models"]] == [True, True]
    # The first response of each model, then for each the one that shows it warm, and its level.
    models = [(body["model"], "temperature" in body) for body, _ in server.bodies]
    assert models == [("a", True), ("b", True), ("b", False), *[("a", False)] * 4, *[("b", False)] * 4]


def test_both_sides_of_a_comparison_send_the_same_fields(tmp_path: Path) -> None:
    """What B refuses, A does not send either; the name of the limit may differ, which is the same work."""
    with strict_server(refusing("seed")) as a, strict_server(refusing("max_tokens", "stream_options")) as b:
        done = typed(
            *("compare", a.url, b.url, "--users=1", "--requests=2", "--warm-up=0s", "--settle=0s", "--repeats=1"),
            *("--telemetry=off", "--no-live"),
            cwd=tmp_path,
        )
    runs = {path.parts[-3]: json.loads(path.read_bytes()) for path in tmp_path.rglob("run.json")}
    assert {one["field"] for one in runs["a"]["adapted"]} == {"seed", "stream_options"}, done.stderr
    assert {one["field"] for one in runs["b"]["adapted"]} == {"max_tokens", "stream_options", "seed"}
    measured = a.accepted[-2:], b.accepted[-2:]
    assert all(not {"seed", "stream_options"} & set(body) for side in measured for body in side)
    assert "B: 'seed' is not sent to this side either" in done.stderr
    assert "adapted" not in {
        one["code"] for one in json.loads(next(tmp_path.rglob("compare.json")).read_bytes())["caveats"]
    }


def test_saved_runs_of_unequal_requests_are_compared_with_a_caveat(tmp_path: Path) -> None:
    """Only one of them had a temperature."""
    for name, answer in (("one", refusing("temperature")), ("two", refusing())):
        (tmp_path / name).mkdir()
        with strict_server(answer) as server:
            sweep(server, tmp_path / name)
    runs = [str(path.parent) for path in sorted(tmp_path.rglob("run.json"))]
    done = typed("compare", *runs, cwd=tmp_path)
    assert "a field was sent to one side alone, because the other refuses it: temperature (b only)" in done.stdout


def test_workers_send_what_was_adapted(tmp_path: Path) -> None:
    """Each of the processes that share a load."""
    with strict_server(refusing("seed", "max_tokens")) as server:
        flags = ("--users=4", "--requests=8", "--warm-up=0s", "--workers=2", "--telemetry=off", "--no-live")
        done = typed("sweep", f"--url={server.url}", *flags, cwd=tmp_path)
    assert run_of(tmp_path)["levels"][0]["outcomes"] == {"ok": 8}, done.stderr


def test_a_resumed_search_is_adapted_as_before(tmp_path: Path) -> None:
    """Even if the server now accepts what it refused."""
    flags = ("--slo=e2e_p95<9s", "--at-most=2", "--budget=1s", "--warm-up=5ms", "--telemetry=off", "--no-live")
    with strict_server(refusing("temperature")) as server:
        typed("capacity", f"--url={server.url}", *flags, cwd=tmp_path)
        (folder,) = (path.parent for path in tmp_path.rglob("run.json"))
        server.answer, server.bodies = requested, []
        done = typed(
            *("capacity", f"--url={server.url}", *flags[:2], "--budget=2s", *flags[3:], f"--resume={folder}"),
            cwd=tmp_path,
        )
    assert "measured under other conditions" not in done.stderr
    assert server.bodies, done.stderr
    assert not any("temperature" in body for body in server.accepted)
    assert [one["field"] for one in run_of(tmp_path)["adapted"]] == ["temperature"]


def test_scoring_and_doctor_adapt_too(tmp_path: Path) -> None:
    """Each with its first request; doctor says what a measurement would change."""
    with strict_server(refusing("max_tokens")) as server:
        scored = typed(
            *("score", "stub", "--to=stub.json", f"--url={server.url}", "--model=m", "--prompt=Hello."), cwd=tmp_path
        )
        checked = typed("doctor", f"--url={server.url}", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert json.loads((tmp_path / "stub.json").read_bytes())["answers"][0]["answer"]
    assert "'max_completion_tokens' is sent instead" in checked.stdout


# Exact lengths.


def brief(*fields: str, strict: bool = False) -> Callable[..., Any]:
    """Answers in three tokens, unless one of these fields tells it to go on; a strict one refuses all other fields."""

    def answer(body: dict[str, Any]) -> Any:
        place = body.get("options", body)
        unknown = {"ignore_eos", "min_tokens", "ban_eos_token", "min_new_tokens", "ignore_eos_token"} & set(place)
        if strict and unknown - set(fields):
            return 400, {"error": f"Unknown parameter: '{min(unknown - set(fields))}'."}
        full = any(place.get(name) in (True, requested(body)) for name in fields)
        return requested(body) if full else min(3, requested(body))

    return answer


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (brief("ignore_eos", "min_tokens"), ["ignore_eos", "min_tokens"]),
        (brief("min_tokens", strict=True), ["min_tokens"]),
        (brief("ban_eos_token"), ["ban_eos_token", "min_new_tokens", "ignore_eos_token"]),
    ],
)
@pytest.mark.parametrize("api", ["chat", "completions", "ollama"])
def test_exact_lengths_are_requested_as_the_server_understands(
    tmp_path: Path, api: str, answer: Callable[..., Any], fields: list[str]
) -> None:
    """A trial shows by which fields; then every response is as long as its own limit."""
    with strict_server(answer) as server:
        done = sweep(server, tmp_path, "--exact-output", "--output-tokens=uniform:5,9", f"--api={api}")
    run = run_of(tmp_path)
    assert run["exact_output"] == {"fields": fields, "kept": True}, done.stderr
    assert run["levels"][0]["outcomes"] == {"ok": 3}
    assert (run["levels"][0]["tokens"]["shorter"], run["levels"][0]["tokens"]["longer"]) == (0, 0)
    assert "lengths_not_kept" not in {caveat["code"] for caveat in run["levels"][0]["caveats"]}
    for body in server.accepted[-3:]:
        place = body.get("options", body)
        assert {name: place[name] for name in fields} == {
            name: requested(body) if name.startswith("min_") else True for name in fields
        }


@pytest.mark.parametrize("strict", [False, True])
def test_a_server_that_cannot_keep_lengths_is_measured_with_a_caveat(tmp_path: Path, *, strict: bool) -> None:
    """Whether it ignores the fields or refuses them: nothing of them is sent, and the level counts the responses."""
    with strict_server(brief(strict=strict)) as server:
        done = sweep(server, tmp_path, "--exact-output", "--max-tokens=9")
    run = run_of(tmp_path)
    assert run["exact_output"] == {"fields": [], "kept": False}
    assert "cannot be told to keep to the requested length: a response had 3 of 24 tokens" in done.stderr
    assert not {"ignore_eos", "min_tokens", "ban_eos_token"} & set(server.accepted[-1])
    (level,) = run["levels"]
    (caveat,) = [caveat for caveat in level["caveats"] if caveat["code"] == "lengths_not_kept"]
    assert "3 of 3 responses (100 %) had another length" in caveat["message"]
    assert level["tokens"]["shorter"] == 3


def test_a_server_that_fails_at_unnamed_fields_is_tried_with_each_alone(tmp_path: Path) -> None:
    """It only says that the request is bad."""

    def answer(body: dict[str, Any]) -> Any:
        return (400, {"error": "bad request"}) if "ignore_eos" in body else brief("min_tokens")(body)

    with strict_server(answer) as server:
        done = sweep(server, tmp_path, "--exact-output", "--max-tokens=9")
    run = run_of(tmp_path)
    assert run["exact_output"] == {"fields": ["min_tokens"], "kept": True}, done.stderr
    assert run["adapted"] == []
    assert run["levels"][0]["tokens"]["output"] == 27


def test_shorter_responses_without_it_are_no_caveat_but_advice(tmp_path: Path) -> None:
    """A comparison whose sides differ in length, and a search, name the flag."""
    work = ("--users=1", "--requests=6", "--warm-up=0s", "--telemetry=off", "--no-live", "--max-tokens=9")
    with strict_server(brief()) as short, strict_server(refusing()) as full:
        compared = typed("compare", short.url, full.url, *work, "--settle=0s", "--repeats=2", cwd=tmp_path)
        flags = ("--slo=e2e_p95<9s", "--at-most=1", "--budget=1s", "--warm-up=5ms", *work[3:])
        searched = typed("capacity", f"--url={short.url}", *flags, cwd=tmp_path)
    assert "A ended its first response by itself after 3 of 9 tokens; use --exact-output" in compared.stderr
    assert "100 % of the responses ended before their maximum length" in searched.stdout
    assert "--exact-output requests exactly the maximum" in searched.stdout


def test_servers_that_share_a_load_get_the_same_fields(tmp_path: Path) -> None:
    """What one of them refuses, none is sent."""
    with strict_server(refusing("seed")) as one, strict_server(refusing("temperature")) as two:
        done = typed(
            "sweep", f"--url={one.url}", f"--url={two.url}", *SHORT[:1], "--requests=6", *SHORT[2:], cwd=tmp_path
        )
    run = run_of(tmp_path)
    assert run["levels"][0]["outcomes"] == {"ok": 6}, done.stderr
    assert {one["field"] for one in run["adapted"]} == {"seed", "temperature"}
    for server in (one, two):
        assert len(server.accepted) >= 3
        assert not {"seed", "temperature"} & set(server.accepted[-1])
