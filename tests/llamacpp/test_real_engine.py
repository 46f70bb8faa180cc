"""Against a real engine: what loadbench says of llama.cpp is what llama.cpp says of itself.

The model is tiny and one thread does all the work, so that times differ from machine to machine by much. What is
asserted of them are ratios within one run, far from where they lie. Counts are asserted exactly.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from loadbench.client.fast_transport import FastTransport
from loadbench.client.transport import HttpRequest
from loadbench.plan.prompts import calibration_texts
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import TargetSettings
from loadbench.targets import machine
from loadbench.targets.checks import run_checks
from loadbench.telemetry.devices import Device
from tests.cli.running import loadbench

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from loadbench.client.transport import Header

pytestmark = pytest.mark.engine

SLOTS = 4
USERS = (1, 2, 4, 8, 16)
REQUESTS = 64
TOKENS = 32
PROMPT = 128
SMALL = ("--users=1", "--requests=3", "--warm-up=0s", "--telemetry=off", f"--max-tokens={TOKENS}")
# What a shared machine may do to the client: these say that it was the limit, which is true, and no fault.
CLIENT_LIMITS = {"late_start", "late_reads", "loop_lag", "late_first_tokens"}
# Checks of the machine that runs the test, which may be busy.
OF_MACHINE = {"gpu", "acceleration", "cpu", "governor", "power", "power saving"}


# The server, asked directly.


def fetched(url: str, body: object = None) -> bytes:
    """A document by GET, or by POST of this body."""
    document = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, document, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        content: bytes = response.read()
    return content


def counters(url: str) -> Counter[str]:
    """llama.cpp's own counts, over all requests since it began."""
    told = dict(re.findall(r"(?m)^llamacpp:(\w+) (\S+)$", fetched(f"{url}/metrics").decode()))
    return Counter({name: int(told[name]) for name in ("prompt_tokens_total", "tokens_predicted_total")})


def first_prompt_tokens(url: str, *, chat: bool) -> int:
    """The lengths of the first prompts, by the server's own template and tokenizer: the first is asked twice."""
    total = 0
    texts = [text for _, text in calibration_texts()]
    for text in (*texts, " ".join(reversed(texts[0].split()))):
        content = text
        if chat:
            messages = [{"role": "user", "content": text}]
            content = json.loads(fetched(f"{url}/apply-template", {"messages": messages}))["prompt"]
        document = {"content": content, "parse_special": True, "add_special": True}
        total += len(json.loads(fetched(f"{url}/tokenize", document))["tokens"])
    return total


# A run, and what it left.


@dataclass(frozen=True)
class Measured:
    """A sweep that was run to its end; `counted` is what the server's counters rose by."""

    url: str
    process: subprocess.CompletedProcess[str]
    run: dict[str, Any]
    requests: list[dict[str, Any]]
    counted: Counter[str]

    @property
    def levels(self) -> dict[int, dict[str, Any]]:
        """The levels by their number of users."""
        return {level["load"]["users"]: level for level in self.run["levels"]}

    def total(self, name: str) -> int:
        """The sum of a fact of all requests, whatever their phase."""
        return sum(request[name] or 0 for request in self.requests)

    def p50(self, metric: str, users: int) -> float:
        """The median of a metric at so many users, in seconds."""
        return float(self.levels[users]["metrics"][metric]["p50"])


def swept(url: str, folder: Path, *arguments: str) -> Measured:
    """`loadbench sweep` against this server, as a process."""
    before = counters(url)
    process = loadbench("sweep", f"--url={url}", f"--out={folder}", *arguments, cwd=folder)
    rose = counters(url)
    rose.subtract(before)
    kept = next(folder.glob("*-sweep"), None)
    assert kept is not None, process.stderr
    requests = [json.loads(line) for line in (kept / "requests.jsonl").read_text().splitlines()]
    return Measured(url, process, json.loads((kept / "run.json").read_bytes()), requests, rose)


def codes(level: dict[str, Any]) -> set[str]:
    """Why a level is not valid."""
    return {reason["code"] for reason in level["verdict"]["reasons"]}


@pytest.fixture(scope="module")
def sweep(llamacpp: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """1 to 16 users against 4 slots, 64 requests a level."""
    return swept(
        llamacpp(parallel=SLOTS),
        tmp_path_factory.mktemp("sweep"),
        f"--users={','.join(map(str, USERS))}",
        f"--requests={REQUESTS}",
        f"--max-tokens={TOKENS}",
    )


def test_every_request_is_answered(sweep: Measured) -> None:
    """The outcomes of each level are 64 times ok and nothing else, and the client is the only one to be blamed."""
    for level in sweep.levels.values():
        assert level["outcomes"] == {"ok": REQUESTS}
        assert level["failures"] == []
        # What else runs on this machine may slow the server down, which is no fault of either.
        busy = any(caveat["code"] == "busy_machine" for caveat in level["caveats"])
        assert codes(level) <= CLIENT_LIMITS | ({"busy_machine", "not_steady"} if busy else set())
    valid = all(level["verdict"]["status"] == "VALID" for level in sweep.levels.values())
    assert sweep.process.returncode == (0 if valid else 4)
    assert sweep.run["complete"]


def test_output_tokens_are_the_servers_own_count(sweep: Measured) -> None:
    """The server predicted the tokens of all requests in requests.jsonl and of the first answers, and no more."""
    assert sweep.total("output_tokens") == TOKENS * len(sweep.requests)
    assert sweep.counted["tokens_predicted_total"] == sweep.total("output_tokens") + 2 * TOKENS + 1


def test_each_level_tells_what_the_server_counted(sweep: Measured) -> None:
    """A level's `server` has the tokens that the server predicted for its requests of all phases, and no others."""
    for number, level in enumerate(sweep.run["levels"]):
        own = sum(one["output_tokens"] for one in sweep.requests if one["level"] == number)
        assert level["server"]["llamacpp:tokens_predicted_total"] == own > REQUESTS


def test_prompt_tokens_are_the_servers_own_count(sweep: Measured) -> None:
    """Neither more nor fewer prompt tokens than the server worked through, the first prompts included."""
    expected = sweep.total("input_tokens") + first_prompt_tokens(sweep.url, chat=True)
    assert sweep.counted["prompt_tokens_total"] == expected


def test_run_sums_its_measured_requests(sweep: Measured) -> None:
    """The tokens of a level in run.json are those of its measured requests in requests.jsonl; usage told them all."""
    for number, level in enumerate(sweep.run["levels"]):
        measured = [one for one in sweep.requests if one["level"] == number and one["phase"] == "measured"]
        assert len(measured) == REQUESTS
        tokens = level["tokens"]
        assert tokens["output"] == sum(one["output_tokens"] for one in measured)
        assert tokens["input"] == sum(one["input_tokens"] for one in measured)
        assert tokens["source"] == {"usage": REQUESTS}


def test_prompts_have_the_asked_length(sweep: Measured) -> None:
    """After the calibration every prompt is within 2 % of 128 tokens, by the server's tokenizer."""
    assert {one["asked_input_tokens"] for one in sweep.requests} == {PROMPT}
    assert all(abs(one["input_tokens"] - PROMPT) <= 0.02 * PROMPT for one in sweep.requests)


def test_no_prompt_comes_from_a_cache(sweep: Measured) -> None:
    """Not one token of a prompt had been worked through before."""
    assert sweep.total("cached_tokens") == 0
    assert all(level["tokens"]["cached_requests"] == 0 for level in sweep.levels.values())


def test_every_token_is_seen(sweep: Measured) -> None:
    """A token is an event here: each request has as many stamps as usage counts tokens, in order, after it was sent."""
    for one in sweep.requests:
        assert len(one["event_gaps_ns"]) + 1 == one["output_tokens"]
        assert sum(one["event_gaps_ns"]) == one["last_token_ns"] - one["first_token_ns"]
        assert one["due_ns"] <= one["sent_ns"] <= one["first_byte_ns"] <= one["first_token_ns"] <= one["end_ns"]


def test_answers_come_from_the_asked_model(sweep: Measured) -> None:
    """The name in the answers is the one that the server lists and loadbench chose."""
    assert {one["answered_model"] for one in sweep.requests} == {"tiny"}
    assert {level["model"] for level in sweep.levels.values()} == {"tiny"}


@pytest.mark.parametrize("users", USERS)
def test_peak_in_flight_is_the_number_of_users(sweep: Measured, users: int) -> None:
    """Each user has one request in flight at some moment, all of them together, and never one more."""
    concurrency = sweep.levels[users]["concurrency"]
    assert concurrency["peak"] == users
    assert 0 < concurrency["mean"] <= users


def test_first_tokens_wait_once_there_are_more_users_than_slots(sweep: Measured) -> None:
    """16 users at 4 slots wait for three before them: the median TTFT is many times that of 4 users."""
    assert sweep.p50("ttft_s", 16) > 3 * sweep.p50("ttft_s", SLOTS)


def test_the_wait_for_a_slot_is_in_the_first_token_and_not_between_tokens(sweep: Measured) -> None:
    """With a slot for each, decoding is the longer part; with three waiting for each slot, waiting is, by far.

    All of one level, so that a machine that grows slow from level to level does not matter. Were the 16 decoded
    together, decoding would have grown as the users did, and would still be the longer part.
    """
    decoding = {users: (TOKENS - 1) * sweep.p50("tpot_s", users) for users in USERS}
    assert sweep.p50("ttft_s", SLOTS) < decoding[SLOTS]
    assert sweep.p50("ttft_s", 16) > 2 * decoding[16]


def test_a_connection_closed_after_the_answer_is_no_failure(sweep: Measured) -> None:
    """llama.cpp closes after each stream though it says keep-alive: that is noticed before the next request is sent.

    Where the closing comes later than the next request, that is sent again, counted as a reconnect, and ok.
    """
    assert not any(one["reused"] for one in sweep.requests)
    assert sum(one["reconnects"] > 0 for one in sweep.requests) < len(sweep.requests) / 2


# The transport and llama.cpp's way to end a kept connection.


@dataclass
class Heard:
    """A sink that remembers of each exchange whether its connection was reused, and its status."""

    reused: list[bool] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def reconnecting(self) -> None:
        """Told again by `connected`."""
        self.reused.pop()

    def connected(self, at_ns: int, *, reused: bool, connect_ns: int | None, **_: object) -> None:
        self.reused.append(reused)

    def sent(self, at_ns: int) -> None:
        """Not of interest."""

    def headers(self, at_ns: int, status: int, headers: Sequence[Header]) -> None:
        self.statuses.append(status)

    def data(self, at_ns: int, chunk: bytes) -> None:
        """Not of interest."""


def test_the_hundredth_answer_and_an_idle_connection_end_in_a_new_one(llamacpp: Callable[..., str]) -> None:
    """The server ends a connection with its 100th answer, and after 5 idle seconds: both give a new one, no failure."""
    heard = Heard()
    exchange = HttpRequest("GET", f"{llamacpp(parallel=SLOTS)}/health", (), b"")

    async def main() -> None:
        transport = FastTransport()
        for _ in range(150):
            await transport.exchange(exchange, heard)
        await anyio.sleep(5.5)
        await transport.exchange(exchange, heard)
        await transport.aclose()

    anyio.run(main)
    assert heard.statuses == [200] * 151
    assert [number for number, reused in enumerate(heard.reused) if not reused] == [0, 100, 150]


# Other ways to ask, and to be refused.


def test_completions_api_with_a_cool_down(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """The plain completions route counts as exactly, over warm-up, window and cool-down, and has the asked lengths."""
    found = swept(
        llamacpp(parallel=SLOTS),
        tmp_path,
        "--api=completions",
        "--users=6",
        "--duration=600ms",
        "--warm-up=600ms",
        "--cool-down=200ms",
        "--max-tokens=16",
    )
    assert {one["outcome"] for one in found.requests} == {"ok"}
    assert {one["phase"] for one in found.requests} == {"warm_up", "measured", "cool_down"}
    # A window of 600 ms on a machine that also runs other tests may be unsteady.
    assert codes(found.levels[6]) <= CLIENT_LIMITS | {"busy_machine", "not_steady"}
    assert found.levels[6]["tokens"]["source"] == {"usage": found.levels[6]["outcomes"]["ok"]}
    assert found.counted["tokens_predicted_total"] == found.total("output_tokens") + 2 * 16 + 1
    first = first_prompt_tokens(found.url, chat=False)
    assert found.counted["prompt_tokens_total"] == found.total("input_tokens") + first


def test_the_responses_route_counts_as_exactly(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Its events are read as those of the chat are: every answer ends, and its tokens are the server's own count."""
    brief = ("--users=4", "--requests=16", "--warm-up=0s", "--max-tokens=12")
    found = swept(llamacpp(parallel=SLOTS), tmp_path, "--api=responses", *brief)
    assert {one["outcome"] for one in found.requests} == {"ok"}
    assert found.levels[4]["tokens"]["source"] == {"usage": 16}
    assert found.counted["tokens_predicted_total"] == found.total("output_tokens") + 2 * 12 + 1


def test_open_loop_counts_as_exactly(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Arrivals at a constant rate are all sent, none is missed, and their tokens are the server's own count."""
    found = swept(
        llamacpp(parallel=SLOTS),
        tmp_path,
        "--rate=20/s",
        "--arrivals=constant",
        "--duration=1s",
        "--warm-up=0",
        "--max-tokens=8",
    )
    (level,) = found.run["levels"]
    assert (level["outcomes"], level["missed"]) == ({"ok": 20}, 0)
    assert found.counted["tokens_predicted_total"] == found.total("output_tokens") + 2 * 8 + 1


def test_prompts_longer_than_the_listed_context_are_refused(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """A slot holds 2048 tokens, and the engine lists that: nothing is sent, and the message says what to change."""
    url = llamacpp(parallel=SLOTS)
    before = counters(url)
    process = loadbench("sweep", f"--url={url}", "--input-tokens=3000", cwd=tmp_path)
    assert process.returncode == 2
    assert "--input-tokens: prompts of 3,000 tokens" in process.stderr
    assert "lists 2,048 tokens for tiny" in process.stderr
    assert counters(url) == before


def test_a_prompt_longer_than_the_context_is_a_failed_request(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Given prompts are not measured beforehand: a long one ends as http_error with the engine's words, and advice."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("short\n" + "long " * 4000 + "\n", encoding="utf-8")
    found = swept(
        llamacpp(parallel=SLOTS), tmp_path, f"--prompts={prompts}", "--users=1", "--requests=10", "--warm-up=0"
    )
    (level,) = found.run["levels"]
    assert found.process.returncode == 4
    assert level["outcomes"] == {"http_error": 5, "ok": 5}
    assert all(failure["detail"].startswith("HTTP 400: ") for failure in level["failures"])
    assert all("context" in failure["detail"] for failure in level["failures"])
    assert all("use shorter prompts" in failure["advice"] for failure in level["failures"])
    assert "failures" in codes(level)


def test_an_unknown_model_is_named(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """llama.cpp serves its model under any name: the level is measured, and its verdict says which model answered."""
    url = llamacpp(parallel=SLOTS)
    process = loadbench("sweep", f"--url={url}", "--model=other", *SMALL, cwd=tmp_path)
    assert process.returncode == 4, process.stderr
    assert "has no model 'other'; it lists tiny; continuing" in process.stderr
    said = " ".join(process.stdout.split())
    assert "3 of 3 responses came from 'tiny', not 'other' (other_model); check the model's name" in said
    (run,) = tmp_path.glob("results/*/run.json")
    (level,) = json.loads(run.read_bytes())["levels"]
    assert "other_model" in codes(level)
    assert level["outcomes"] == {"ok": 3}


def test_a_wrong_key_is_refused(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Without the key, and with a wrong one, loadbench exits with 6 and says where the key belongs; no key is shown."""
    url = llamacpp(parallel=1, api_key="open-sesame")
    for variables in ({}, {"LOADBENCH_API_KEY": "open-barley"}):
        process = loadbench("sweep", f"--url={url}", cwd=tmp_path, **variables)
        assert process.returncode == 6
        assert "HTTP 401" in process.stderr
        assert "the key is that in LOADBENCH_API_KEY, or in the variable of --api-key-env" in process.stderr
        assert "barley" not in process.stderr


def test_the_right_key_opens_and_is_not_kept(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """With the key in the variable that --api-key-env names the checkup is well, and a run's files do not have it."""
    url = llamacpp(parallel=1, api_key="open-sesame")
    key = {"MY_KEY": "open-sesame"}
    assert loadbench("doctor", f"--url={url}", "--api-key-env=MY_KEY", cwd=tmp_path, **key).returncode == 0
    brief = ("--users=1", "--requests=2", "--warm-up=0", "--max-tokens=2", "--out=.")
    process = loadbench("sweep", f"--url={url}", "--api-key-env=MY_KEY", *brief, cwd=tmp_path, **key)
    assert "2 ok, 0 failed" in process.stderr
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 4
    assert not any(b"sesame" in content for content in [*written, process.stdout.encode(), process.stderr.encode()])


def test_doctor_finds_all_well(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Every check of a healthy server is ok, and names what was found; the machine is not tested here."""
    url = llamacpp(parallel=SLOTS)
    process = loadbench("doctor", f"--url={url}", "--json", cwd=tmp_path)
    checks = {check["name"]: check for check in json.loads(process.stdout)["checks"]}
    assert process.returncode == 0
    assert {check["status"] for name, check in checks.items() if name not in OF_MACHINE} == {"ok"}
    assert checks["endpoint"]["message"] == f"{url}/v1, server llama.cpp"
    assert checks["models"]["message"] == "1 listed: tiny"
    assert checks["response tiny"]["message"].startswith("16 tokens")


def test_doctor_says_that_a_build_for_the_cpu_does_not_use_a_gpu(llamacpp: Callable[..., str], monkeypatch) -> None:
    """By the libraries that its process has loaded; with a GPU in the machine, which few of those that test have."""
    url = llamacpp(parallel=SLOTS)
    monkeypatch.setattr(machine, "present_devices", lambda _: [Device("GPU", "NVIDIA", "NVIDIA RTX 4090")])
    scenario = Scenario(target=TargetSettings(url=(f"{url}/v1",)))
    report = asyncio.run(run_checks(scenario, {}, url=f"{url}/v1"))
    (check,) = (check for check in report.checks if check.name == "acceleration")
    server = re.fullmatch(r"a GPU is here \(NVIDIA RTX 4090\), but (.+) has loaded no library for it.*", check.message)
    assert server is not None
    assert server[1].startswith("llama.cpp ")
    assert "--n-gpu-layers" in check.advice
