"""Several models and several servers in one level: who gets which request, and that the parts add up to the whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint
from loadbench.client.transport import TransportError
from loadbench.core.errors import TargetUnavailable
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.level import Level, LevelSpec, level_plan
from loadbench.engine.sweep import Sweep
from loadbench.engine.target import prepare_model
from loadbench.plan.load import WHOLE, Open, Phase, Shard
from loadbench.plan.prompts import Calibration
from loadbench.plan.sources import resolve
from loadbench.record.outcome import Outcome
from tests.engine.no_health import NoHealth
from tests.engine.scripted import MS, PATIENT, Act, S, Scripted, ScriptedSession
from tests.engine.test_sweep import Watcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.client.transport import HttpRequest, Sink
    from loadbench.core.clock import Clock
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample

A, B = "http://a:1/v1", "http://b:1/v1"
URLS = ("http://a:1", "http://b:1")
# The second server is three times as slow.
UNLIKE = {A: Act(first_ns=100 * MS, gap_ns=10 * MS, tokens=5), B: Act(first_ns=300 * MS, gap_ns=30 * MS, tokens=5)}


class Servers:
    """A transport to a scripted server at each URL, which notes what each was sent."""

    def __init__(self, clock: Clock, acts: Mapping[str, Act]) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self._servers = {url: Scripted(clock, lambda _, act=act: act) for url, act in acts.items()}

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        """Pass it on."""
        url = request.url.removesuffix("/chat/completions")
        self.sent.append((url, orjson.loads(request.body)))
        if url not in self._servers:
            raise TransportError(Outcome.REFUSED, "nobody listens")
        await self._servers[url].exchange(request, sink)


class Ran:
    """One level of a mix in virtual time."""

    def __init__(self, acts: Mapping[str, Act] | None = None, *, further: tuple = (), **flags: Any) -> None:
        base = {"warm_up": "2s", "max_tokens": "5", "drain": "30s"} | (
            {} if "requests" in flags else {"duration": "20s"}
        )
        self.scenario = resolve(flags=base | flags, environment={})
        self.samples: list[Sample] = []
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self._further = further
        self.recording: LevelRecording = run_virtual(self._main, UNLIKE if acts is None else acts)
        self.level = summarize(
            self.recording, target=A, model="m", load=self.scenario.loads[0], failure_limit=0.01, targets=[A, B]
        )

    async def _main(self, acts: Mapping[str, Act]) -> LevelRecording:
        clock = VirtualClock()
        servers = Servers(clock, acts)
        target = self.scenario.target
        names = [share.name for share in target.mix_models or ()] or ["m"]
        first, *others = (
            Endpoint(base_url=f"{url}/v1", model=name) for name in names for url in target.url or URLS[:1]
        )
        client = Client(first, servers, clock=clock, timeouts=PATIENT, others=others)
        further = self._further or (None,) * (len(names) - 1)
        spec = LevelSpec(load=self.scenario.loads[0], key="m/0", further=further)
        plan = level_plan(self.scenario, spec)
        level = Level(plan, client=client, clock=clock, health=NoHealth(), on_sample=self.samples.append)
        recording = await level.run()
        self.bodies = servers.sent
        return recording

    @property
    def pairs(self) -> Counter[tuple[str | None, str | None]]:
        """Requests by model and server."""
        return Counter((one.request.destination.model, one.request.destination.server) for one in self.samples)


def adds_up(ran: Ran, groups: str) -> bool:
    """Whether the groups of a kind are the level, in every count and rate."""
    level, parts = ran.level, list(getattr(ran.level, groups).values())
    outcomes: Counter[str] = Counter()
    for part in parts:
        outcomes.update(part.outcomes)
        assert part.requests == sum(part.outcomes.values())
        assert part.ok == part.outcomes.get("ok", 0)
    assert outcomes == Counter(level.outcomes)
    assert sum(part.input_tokens for part in parts) == level.tokens.input
    assert sum(part.output_tokens for part in parts) == level.tokens.output
    for rate in ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s"):
        total = sum(getattr(part.throughput, rate) for part in parts)
        assert total == pytest.approx(getattr(level.throughput, rate), rel=1e-12)
    for metric in ("ttft_s", "tpot_s", "e2e_response_s"):
        assert sum(part.metrics[metric].count for part in parts if part.metrics[metric]) == level.metrics[metric].count
    return len(parts) > 1


LOADS = [{"users": "5"}, {"users": "1"}, {"rate": "7"}, {"users": "3", "requests": "41"}]


@pytest.mark.parametrize("load", LOADS, ids=["users", "one user", "rate", "requests"])
def test_models_and_servers_get_their_shares_and_add_up(load):
    """Whatever the load, though one server is three times as slow as the other."""
    ran = Ran(url=URLS, mix_models=("big:7b=3,org/small=1",), **load)
    assert adds_up(ran, "by_model")
    assert adds_up(ran, "by_server")
    models, servers = Counter(), Counter()
    for (model, server), count in ran.pairs.items():
        models[model] += count
        servers[server] += count
    total = sum(models.values())
    users = int(load.get("users", 1))
    assert set(models) == {"big:7b", "org/small"}
    # Every user is within one request of the weights, and so is every model of an equal number for each server.
    assert abs(models["big:7b"] - 0.75 * total) <= users + 1
    assert abs(servers[A] - servers[B]) <= 2 * (users + 1)
    for url, body in ran.bodies:
        assert (body["model"], url) in ran.pairs


def test_the_slow_server_shows_in_the_figures_and_in_a_caveat():
    """Its medians are its own, and it is named; the fast one is not."""
    ran = Ran(url=URLS, users="4", duration="60s")
    fast, slow = (ran.level.by_server[url].metrics for url in (A, B))
    assert fast["ttft_s"].p50 == pytest.approx(0.1, rel=1e-3)
    assert slow["ttft_s"].p50 == pytest.approx(0.3, rel=1e-3)
    assert slow["tpot_s"].p50 == pytest.approx(0.03, rel=1e-3)
    assert ran.level.by_model == {}
    (caveat,) = [one for one in ran.level.caveats if one.code == "uneven_servers"]
    assert f"{B}: TTFT p50 is 300.0 ms (elsewhere 100.0 ms), TPOT p50 is 30.0 ms (elsewhere 10.0 ms)" in caveat.message
    assert A not in caveat.message


def test_servers_that_are_alike_need_no_caveat():
    """Nor do models of a mix, which are meant to differ."""
    alike = Ran(dict.fromkeys(UNLIKE, UNLIKE[A]), url=URLS, users="4", duration="60s")
    assert "uneven_servers" not in {one.code for one in alike.level.caveats}
    assert alike.level.verdict.status == "VALID"
    mixed = Ran(users="4", mix_models=("m,n",), duration="60s")
    assert mixed.level.by_server == {}
    assert "uneven_servers" not in {one.code for one in mixed.level.caveats}


def test_a_server_that_died_fails_its_own_requests_only():
    """Its half of the requests are refused; the other half are answered, and the dead one is named."""
    ran = Ran({A: UNLIKE[A]}, url=URLS, users="4", duration="60s")
    assert adds_up(ran, "by_server")
    assert ran.level.by_server[A].outcomes == {"ok": ran.level.outcomes["ok"]}
    assert ran.level.by_server[B].outcomes == {"refused": ran.level.outcomes["refused"]}
    (caveat,) = [one for one in ran.level.caveats if one.code == "uneven_servers"]
    refused = ran.level.outcomes["refused"]
    assert f"{B}: {refused} of {refused} requests failed (elsewhere 0 of" in caveat.message
    assert ran.level.verdict.status == "INVALID"


def test_few_requests_prove_nothing_about_a_server():
    """Three failures of three may be chance, as far as anybody can tell."""
    ran = Ran({A: UNLIKE[A]}, url=URLS, rate="0.3", arrivals="constant", duration="20s", warm_up="0s")
    assert ran.level.by_server[B].outcomes == {"refused": 3}
    assert "uneven_servers" not in {one.code for one in ran.level.caveats}


def test_a_conversation_keeps_its_model_and_its_server():
    """Each later turn goes where the first one went; then the next conversation goes to the next place."""
    ran = Ran(url=URLS, mix_models=("m=2,n=1",), users="3", turns="3", max_tokens="5", duration="60s")
    by_user: dict[int, list[Sample]] = {}
    for sample in sorted(ran.samples, key=lambda one: one.number):
        by_user.setdefault(sample.request.user, []).append(sample)
    conversations = Counter()
    for samples in by_user.values():
        for first in range(0, len(samples), 3):
            talk = samples[first : first + 3]
            assert [one.request.turn for one in talk] == [1, 2, 3][: len(talk)]
            assert len({one.request.destination for one in talk}) == 1
            conversations[talk[0].request.destination[1:]] += 1
    assert len(conversations) == 4
    models = Counter()
    for (model, _), count in conversations.items():
        models[model] += count
    assert abs(models["m"] - 2 / 3 * sum(models.values())) <= 4
    assert adds_up(ran, "by_model")
    assert adds_up(ran, "by_server")
    # The history of a turn is that of its own conversation, and so is the model in the body.
    for sample, (url, body) in zip(
        sorted(ran.samples, key=lambda one: (one.sent_ns, one.number)), ran.bodies, strict=True
    ):
        assert len(body["messages"]) == 2 * sample.request.turn - 1
        del url


def test_a_conversation_that_breaks_off_does_not_stay_with_a_dead_server():
    """The user begins another one, with the next server: half the conversations go on."""
    ran = Ran({A: UNLIKE[A]}, url=URLS, users="2", turns="4", duration="60s", max_tokens="5")
    answered = [one for one in ran.samples if one.outcome is Outcome.OK]
    refused = [one for one in ran.samples if one.outcome is Outcome.REFUSED]
    assert {one.request.turn for one in refused} == {1}
    assert {one.request.turn for one in answered} == {1, 2, 3, 4}
    firsts = sum(one.request.turn == 1 for one in answered)
    assert abs(firsts - len(refused)) <= 2


def test_given_prompts_meet_every_model_and_server(tmp_path):
    """As many prompts as there are places in the rotation: without care each would always go to the same place."""
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    for load in ({"users": "1"}, {"rate": "4"}):
        ran = Ran(url=URLS, mix_models=("m,n",), prompts=str(tmp_path / "p.txt"), unique=False, duration="60s", **load)
        met = Counter(
            (one.request.prompt_index, one.request.destination.model, one.request.destination.server)
            for one in ran.samples
        )
        assert len(met) == 8
        assert max(met.values()) - min(met.values()) <= 3


def test_each_model_gets_prompts_by_its_own_calibration():
    """A model whose words are two tokens long gets half as many words for the same length."""
    ran = Ran(users="1", mix_models=("m,n",), input_tokens="400", further=(Calibration(2.0, 0),), duration="20s")
    words = {model: set() for model in ("m", "n")}
    for _, body in ran.bodies:
        words[body["model"]].add(len(body["messages"][0]["content"].split()))
    assert words == {"m": {400}, "n": {200}}
    targets = {one.request.destination.model: one.request.target_input_tokens for one in ran.samples}
    assert targets == {"m": None, "n": 400}


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("load", [{"users": "6"}, {"rate": "6"}], ids=["closed", "open"])
def test_workers_divide_a_level_as_one_process_does(load, shards):
    """Which model and server a request goes to depends on its number and its user, and on no process."""
    flags = {"url": URLS, "mix_models": ("m=2,n=1",), "duration": "10s", "warm_up": "1s", "max_tokens": "5", **load}
    scenario = resolve(flags=flags, environment={})

    def sent(parts: list[Shard]) -> list[tuple]:
        async def main() -> list[tuple]:
            clock = VirtualClock()
            samples: list[Sample] = []
            async with anyio.create_task_group() as group:
                for part in parts:
                    endpoints = [Endpoint(base_url=f"{url}/v1", model=name) for name in "mn" for url in URLS]
                    client = Client(
                        endpoints[0], Servers(clock, UNLIKE), clock=clock, timeouts=PATIENT, others=endpoints[1:]
                    )
                    spec = LevelSpec(load=scenario.loads[0], key="m/0", further=(None,))
                    plan = level_plan(scenario, spec, part)
                    level = Level(plan, client=client, clock=clock, health=NoHealth(), on_sample=samples.append)
                    group.start_soon(level.run_load)
            return sorted((one.number, one.due_ns, one.request.destination) for one in samples)

        return run_virtual(main)

    assert sent([Shard(index, shards) for index in range(shards)]) == sent([WHOLE])


def prepared(acts: Mapping[str, Act], **flags: Any):
    """A mix that was prepared in virtual time, and what its servers were sent."""
    scenario = resolve(flags={"max_tokens": "5", **flags}, environment={})

    async def main() -> tuple:
        clock = VirtualClock()
        servers = Servers(clock, acts)
        endpoints = [Endpoint(base_url=f"{url}/v1", model=name) for name in "mn" for url in URLS]
        client = Client(endpoints[0], servers, clock=clock, timeouts=PATIENT, others=endpoints[1:])
        session = ScriptedSession(clock, lambda _: client)
        return await prepare_model(session, "m=1,n=1", scenario), servers.sent

    return run_virtual(main)


def test_first_requests_go_to_every_model_at_every_server():
    """Before anything is measured; the calibration needs two lengths of each model, at one server."""
    subject, sent = prepared(UNLIKE, url=URLS, mix_models=("m,n",))
    assert len(subject.further) == 1
    firsts = Counter((body["model"], url) for url, body in sent)
    assert set(firsts) == {("m", A), ("m", B), ("n", A), ("n", B)}
    assert firsts["m", B] == firsts["n", B] == 1
    assert firsts["n", A] == 2


def test_a_server_that_does_not_answer_is_an_error_that_names_it():
    """At the start it is no figure: somebody gave a wrong address."""
    with pytest.raises(TargetUnavailable, match=f"m at {B}: the first request failed: refused"):
        prepared({A: UNLIKE[A]}, url=URLS, mix_models=("m,n",))


def test_a_sweep_measures_a_mix_as_one_model():
    """Its levels have its name; keeping it warm is a request to each of its models."""
    flags = {"users": "1,2", "duration": "10s", "mix_models": ("m,n",), "keep_warm": "3s", "max_tokens": "5"}
    scenario = resolve(flags=flags, environment={})
    watcher = Watcher()

    async def main() -> list[tuple[str, dict[str, Any]]]:
        clock = VirtualClock()
        servers = Servers(clock, UNLIKE)
        endpoints = [Endpoint(base_url=A, model=name) for name in "mn"]
        client = Client(endpoints[0], servers, clock=clock, timeouts=PATIENT, others=endpoints[1:])
        await Sweep(scenario, ScriptedSession(clock, lambda _: client), models=["m=1,n=1"], observer=watcher).run()
        return servers.sent

    run_virtual(main)
    assert [set(one.groups_of("model")) for one in watcher.recordings] == [{"m", "n"}] * 2
    for recording in watcher.recordings:
        counts = [stats.requests for stats in recording.groups_of("model").values()]
        assert max(counts) - min(counts) <= 2


def test_requests_outside_the_window_count_in_a_groups_throughput():
    """What arrived inside counts, as for the whole level, though the request was due before."""
    ran = Ran({A: Act(first_ns=3 * S, tokens=5, gap_ns=100 * MS), B: UNLIKE[A]}, url=URLS, users="2", duration="5s")
    warm = [one for one in ran.samples if one.phase is Phase.WARM_UP and one.last_token_ns > ran.recording.window[0]]
    assert warm
    assert adds_up(ran, "by_server")


def test_an_open_loop_divides_arrivals_in_turn():
    """One model at two servers: every other arrival."""
    ran = Ran(url=URLS, rate="5", arrivals="constant")
    assert isinstance(ran.scenario.loads[0], Open)
    in_turn = [one.request.destination.server for one in sorted(ran.samples, key=lambda one: one.number)]
    assert in_turn == [(A, B)[number % 2] for number in range(len(in_turn))]
