"""The simulated server in process, under virtual time: exact stamps and no sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.transport import HttpRequest
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.level import Level, LevelPlan
from loadbench.plan.load import Closed, LevelDuration
from loadbench.plan.prompts import Prompt
from loadbench.plan.sim_profile import PROFILES
from loadbench.record.outcome import Outcome
from loadbench.sim.transport import SimTransport
from tests.engine.no_health import NoHealth
from tests.sim.steady_state import steady_state

if TYPE_CHECKING:
    from loadbench.record.recorder import LevelRecording

EXACT = PROFILES["slot-server"].exact()
CHAT = "http://simulated/v1/chat/completions"
S = 1_000_000_000


class Log:
    """A sink that keeps all it is told."""

    def __init__(self) -> None:
        self.reused: bool | None = None
        self.sent_ns = self.headers_ns = -1
        self.status = 0
        self.data_ns: list[int] = []
        self.body = b""

    def reconnecting(self) -> None:
        raise AssertionError("there is nothing to reconnect")

    def connected(self, at_ns: int, *, reused: bool, connect_ns: int | None) -> None:
        self.reused = reused
        assert (connect_ns is None) == reused

    def sent(self, at_ns: int) -> None:
        self.sent_ns = at_ns

    def headers(self, at_ns: int, status: int, headers: Any) -> None:
        self.headers_ns, self.status = at_ns, status
        assert dict(headers)[b"server"] == b"loadbench-sim"

    def data(self, at_ns: int, chunk: bytes) -> None:
        self.data_ns.append(at_ns)
        self.body += chunk


def chat(**fields: Any) -> HttpRequest:
    """A chat with 3 words, so 7 tokens."""
    messages = [{"role": "user", "content": "three short words"}]
    body = {"model": "sim-chat", "messages": messages, "max_tokens": 4, "stream": True} | fields
    return HttpRequest("POST", CHAT, (), json.dumps(body).encode())


def test_events_are_stamped_when_they_are_made() -> None:
    """Alone on the server, the first event comes one prefill after `sent`, then one with each decode step."""

    async def main() -> Log:
        log = Log()
        async with SimTransport(EXACT, clock=VirtualClock()).serving() as transport:
            await transport.exchange(chat(), log)
        return log

    log = run_virtual(main)
    prefill_ns, step_ns = EXACT.prefill_ns(7), EXACT.decode_ns(1)
    assert (log.status, log.sent_ns, log.headers_ns) == (200, 0, 0)
    assert log.data_ns == [prefill_ns + k * step_ns for k in range(4)]
    assert log.body.endswith(b"data: [DONE]\n\n")


def test_an_answer_in_one_piece_comes_with_its_last_token() -> None:
    """Headers and body of an answer that is not streamed arrive together at the end."""

    async def main() -> Log:
        log = Log()
        async with SimTransport(EXACT, clock=VirtualClock()).serving() as transport:
            await transport.exchange(chat(stream=False), log)
        return log

    log = run_virtual(main)
    assert [log.headers_ns] == log.data_ns == [EXACT.prefill_ns(7) + 3 * EXACT.decode_ns(1)]
    assert json.loads(log.body)["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


def test_an_error_is_an_answer() -> None:
    """A refusal comes at once, with its status and error object; other paths are served as over HTTP."""

    async def main() -> tuple[Log, Log]:
        wrong, models = Log(), Log()
        async with SimTransport(EXACT, clock=VirtualClock(), models=("a",)).serving() as transport:
            await transport.exchange(chat(), wrong)
            await transport.exchange(HttpRequest("GET", "http://simulated/v1/models"), models)
        return wrong, models

    wrong, models = run_virtual(main)
    assert (wrong.status, wrong.data_ns) == (404, [0])
    assert json.loads(wrong.body)["error"]["code"] == "model_not_found"
    assert json.loads(models.body)["data"][0]["id"] == "a"


def test_a_kept_connection_is_used_again() -> None:
    """The first exchange and those beside another are on new connections, one after another on a kept one."""

    async def main() -> list[bool | None]:
        logs = [Log() for _ in range(4)]
        async with SimTransport(EXACT, clock=VirtualClock()).serving() as transport:
            for log in logs[:2]:
                await transport.exchange(chat(), log)
            async with anyio.create_task_group() as both:
                for log in logs[2:]:
                    both.start_soon(transport.exchange, chat(), log)
            await transport.aclose()
        return [log.reused for log in logs]

    assert run_virtual(main) == [False, True, True, False]


def test_a_cancelled_exchange_frees_its_slot_and_is_told_nothing_more() -> None:
    """With all slots taken and given up, the next one is prefilled at the next step."""

    async def main() -> tuple[list[Log], Log]:
        logs, later = [Log() for _ in range(EXACT.slots)], Log()
        async with SimTransport(EXACT, clock=VirtualClock()).serving() as transport:
            with anyio.move_on_after(1):
                async with anyio.create_task_group() as all_slots:
                    for log in logs:
                        all_slots.start_soon(transport.exchange, chat(max_tokens=1000), log)
            await transport.exchange(chat(), later)
            assert transport.service.engine.counts.cancelled == EXACT.slots
            assert transport.service.engine.running == 0
        return logs, later

    logs, later = run_virtual(main)
    assert max(at for log in logs for at in log.data_ns) <= S
    assert len(later.data_ns) == 4
    assert later.data_ns[0] - later.sent_ns <= EXACT.prefill_ns(7) + EXACT.decode_ns(EXACT.slots)


class _Prompts:
    """Every request asks with the same three words."""

    def next(self, number: int, user: int | None) -> Prompt:
        return Prompt("three short words")


def _level(users: int, *, seconds: int, max_tokens: int = 10) -> LevelRecording:
    """A closed loop on the exact server, through the client, in virtual time."""

    async def main() -> LevelRecording:
        clock = VirtualClock()
        async with SimTransport(EXACT, clock=clock).serving() as transport:
            endpoint = Endpoint(base_url="http://simulated/v1", model=EXACT.model)
            client = Client(endpoint, transport, clock=clock, timeouts=Timeouts())
            extent = LevelDuration(duration_ns=seconds * S, warm_up_ns=20 * S)
            plan = LevelPlan(load=Closed(users), duration=extent, prompts=_Prompts(), max_tokens=max_tokens)
            return await Level(plan, client=client, clock=clock, health=NoHealth()).run()

    return run_virtual(main)


@pytest.mark.slow
@pytest.mark.parametrize("users", [1, 5, 8, 12])
def test_a_level_measures_what_the_formulas_say(users: int) -> None:
    """Client, loop and recorder find the server's truth: no time is lost between an answer and the next request."""
    truth = steady_state(EXACT, users, input_tokens=7, output_tokens=10)
    recording = _level(users, seconds=60)
    assert set(recording.outcomes) == {Outcome.OK}
    # The edges of the window cut at most one cycle of every user.
    edge = users / truth.requests_per_s / 60
    assert recording.production.answers / recording.window_s == pytest.approx(truth.requests_per_s, rel=edge)
    # A histogram keeps three digits.
    assert recording.histograms["e2e"].mean / S == pytest.approx(truth.e2e_mean_s, rel=0.01)
    assert recording.histograms["ttft"].mean / S == pytest.approx(truth.ttft_mean_s, rel=0.01)
    assert recording.in_flight_mean == pytest.approx(users, rel=1e-9)
