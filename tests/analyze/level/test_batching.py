"""Whether a server batches: said where the response times prove it, and nothing where they do not."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from loadbench.analyze.level.batching import batching_sentence, unbatched
from loadbench.plan.load import Closed
from loadbench.plan.sim_profile import PROFILES
from loadbench.report.page import conclusion
from loadbench.report.run import notes
from loadbench.results.run import ClosedLoad, OpenLoad, Reason, TokenCounts, Verdict
from tests.analyze.serving import sweep
from tests.building import a_level, a_run

SOUND = msgspec.structs.replace(a_level(load=Closed(1)), verdict=Verdict("VALID"))


def level(users: int, e2e_s: float, *, reach: float = 0.01, ttft_s: float = 0.1, length: int = 64, **over: object):
    """A level with this median response time, give or take this share of it."""
    whole = msgspec.structs.replace(
        SOUND.metrics["e2e_s"], mean=e2e_s, p50=e2e_s, interval={"p50": (e2e_s * (1 - reach), e2e_s * (1 + reach))}
    )
    first = msgspec.structs.replace(SOUND.metrics["ttft_s"], mean=ttft_s, p50=ttft_s)
    return msgspec.structs.replace(
        SOUND,
        **{
            "load": ClosedLoad(users),
            "metrics": SOUND.metrics | {"e2e_s": whole, "ttft_s": first},
            "tokens": TokenCounts(input=5000, output=length * 100, source={"usage": 100}),
            "outcomes": {"ok": 100},
            **over,
        },
    )


def swept(times: dict[int, float], **over: object):
    """Levels of these response times by users, in seconds."""
    return [level(users, e2e_s, **over) for users, e2e_s in times.items()]


def test_server_that_divides_its_time_is_named_with_its_overhead():
    """Four users take 4.9 times as long as one: 22 % more than if they had queued, with intervals."""
    levels = swept({1: 1.0, 2: 2.1, 4: 4.88})
    found = unbatched(levels)
    assert found is not None
    assert (found.users, found.times) == (4, pytest.approx(4.88))
    assert (found.low, found.high) == pytest.approx((4.88 * 0.99 / 1.01, 4.88 * 1.01 / 0.99))
    expected = "does not batch: 4 users take 4.9 × as long as one (4.8 to 5.0), 22 % over queueing (20 to 24 %)"
    assert batching_sentence(levels) == f"this server {expected}"
    assert f"This server {expected}." in conclusion(a_run(*levels))
    assert f"this server {expected}" in notes(a_run(*levels))[0]


def test_server_that_takes_one_at_a_time_adds_nothing():
    """A queue is n times one; what lies within the noise is not called overhead."""
    sentence = batching_sentence(swept({1: 1.0, 8: 8.1}))
    assert sentence == "this server does not batch: 8 users take 8.1 × as long as one (7.9 to 8.3), as if they queued"


def test_of_two_models_each_has_its_own_sentence():
    """Named by the model that it serves."""
    levels = [
        msgspec.structs.replace(one, model=model)
        for model, times in (("slow", {1: 1.0, 4: 4.2}), ("fast", {1: 1.0, 4: 1.5}))
        for one in swept(times)
    ]
    found = [line for line in notes(a_run(*levels))[0] if "batch" in line]
    assert len(found) == 1
    assert found[0].startswith("the server of slow does not batch: 4 users")


@pytest.mark.parametrize(
    "levels",
    [
        swept({1: 1.0, 4: 1.4}),  # it batches
        swept({1: 1.0, 4: 3.7}),  # it gains a little
        swept({1: 1.0, 2: 1.6, 8: 8.5}),  # it gains with two, and then something else limits it
        swept({1: 1.0, 4: 4.0}, reach=0.06),  # may be 3.5 times
        swept({1: 1.0, 4: 9.0}, reach=0.11),  # too vague, however far beyond
        # Two servers of the committed runs that batch, on a machine that was slower for a while.
        swept({1: 0.146, 2: 0.456, 4: 1.341, 8: 1.320}),
        swept({1: 0.275, 2: 1.048, 4: 0.999, 8: 1.249}),
        [*swept({1: 1.0, 4: 4.9}), level(8, 5.0, reach=0.5)],  # vague, and yet it shows a gain
        swept({2: 1.0, 8: 4.0}),  # nobody was alone
        swept({1: 1.0}),
        [],
        swept({1: 1.0, 4: 4.0}, ttft_s=0.6),  # prompts take most of the time: they fill any device
        [level(1, 1.0), level(4, 4.9, length=70)],  # longer responses
        [level(1, 1.0), level(4, 4.9, load=ClosedLoad(4, think="1s"))],
        [level(1, 1.0), level(4, 4.9, load=OpenLoad(4.0, "poisson"))],
        [level(1, 1.0), level(4, 4.9, verdict=Verdict("INVALID"))],
        [level(1, 1.0, caveats=[Reason("busy_machine", "", "")]), level(4, 4.9)],
        [level(1, 1.0), level(4, 4.9, caveats=[Reason("throttled_heat", "", "")])],
        [level(1, 1.0), level(4, 4.9, targets=["http://127.0.0.1:1", "http://127.0.0.1:2"])],
        [level(1, 1.0), level(4, 4.9, metrics=SOUND.metrics | {"e2e_s": None})],
    ],
)
def test_where_it_is_not_proven_nothing_is_said(levels):
    """One sentence too few is better than a wrong one."""
    assert unbatched(levels) is None
    assert batching_sentence(levels) == ""


@pytest.mark.parametrize(
    ("profile", "over", "batches"),
    [
        ("slot-server", {"slots": 1}, False),  # one at a time, the others wait
        ("slot-server", {"slots": 64, "decode_base_s": 1e-6, "decode_per_sequence_s": 0.01}, False),  # time is divided
        ("slot-server", {}, True),
        ("small-gpu", {}, True),
        ("cpu-laptop", {}, True),  # it gains little
        ("slot-server", {"prefill_per_token_s": 0.01}, True),  # prompts fill it, so nobody can tell
    ],
)
def test_whole_sweeps_of_servers_that_do_and_do_not(profile, over, batches):
    """Served, measured and judged as any run, in virtual time: what is said is true of that server."""
    levels = sweep(replace(PROFILES[profile], **over), (1, 2, 4), seconds=40, warm_up=10)
    found = unbatched(levels)
    assert (found is None) is batches
    assert found is None or (found.users == 4 and found.low <= 4 <= found.high)
