"""Giving a level up by a rule, in virtual time: when, what is kept, and what is not run after it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.errors import TargetUnavailable
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.abort import AbortWatch
from loadbench.engine.level import Level
from loadbench.engine.sweep import Sweep
from loadbench.plan.objective import parse_abort
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import LoadSettings, ObjectiveSettings, WorkSettings
from loadbench.record.outcome import Outcome
from tests.building import a_failure, a_sample
from tests.engine.scripted import MS, Act, S, Scripted, ScriptedSession
from tests.engine.test_sweep import Watcher

QUICK = Act(first_ns=100 * MS, tokens=3)
REFUSING = Act(first_ns=130 * MS, status=503)


def swept(act, *rules: str, models=("m",), **load) -> SimpleNamespace:
    """A sweep at 1 and 2 users with these rules to abort by; requests are served as `act`, or that of their model, says
    by their count.
    """
    watcher = Watcher()
    short = {"users": (1, 2), "duration": 60 * S, "warm_up": 10 * S, "ramp": 0} | load
    scenario = Scenario(
        load=LoadSettings(**short),
        work=WorkSettings(prompt="Why?", max_tokens=5),
        slo=ObjectiveSettings(abort_on=tuple(parse_abort(rule) for rule in rules)),
    )

    async def main() -> None:
        clock = VirtualClock()
        transports = {model: Scripted(clock, act[model] if isinstance(act, dict) else act) for model in models}
        sweep = Sweep(
            scenario,
            ScriptedSession(
                clock,
                lambda model: Client(
                    Endpoint(base_url="http://s/v1", model=model), transports[model], clock=clock, timeouts=Timeouts()
                ),
            ),
            models=models,
            observer=watcher,
        )
        await sweep.run()

    run_virtual(main)
    return SimpleNamespace(
        ended=watcher.ended(), recordings=watcher.recordings, samples=watcher.samples, failures=watcher.failures
    )


def begins_ns(samples) -> int:
    """When the level began, with a ramp of 0."""
    return min(sample.due_ns for sample in samples)


def test_level_is_given_up_at_the_second_after_its_twentieth_end():
    """All fail, after 130 ms: at 2 s 15 have ended and are too few, at 3 s the rule holds, and no more is sent."""
    ran = swept(lambda count: QUICK if count == 0 else REFUSING, "failures>20%")
    samples = ran.samples[0]
    given_up_ns = begins_ns(samples) + 3 * S
    assert given_up_ns - 130 * MS < max(sample.due_ns for sample in samples) < given_up_ns
    assert len(samples) == 24


def test_abort_names_its_rule_in_the_verdict_and_ends_the_models_sweep():
    """INVALID, with the code `aborted`; the further level of the model is not run, the other model's levels are."""
    acts = {"m": lambda count: REFUSING if count else QUICK, "n": lambda _: QUICK}
    ran = swept(acts, "failures>20%", models=("m", "n"))
    assert ran.ended == [("m", "users=1"), ("n", "users=1"), ("n", "users=2")]
    first, *others = ran.recordings
    assert first.aborted.startswith("failures>20%: ")
    assert first.interrupted
    assert [recording.aborted for recording in others] == ["", ""]
    level = summarize(first, target="t", model="m", load=SimpleLoad, failure_limit=1.0)
    aborted = [reason for reason in level.verdict.reasons if reason.code == "aborted"]
    assert len(aborted) == 1
    assert "failures>20%" in aborted[0].message
    assert "interrupted" not in [reason.code for reason in level.verdict.reasons]
    assert level.verdict.status == "INVALID"


def test_abort_keeps_what_was_measured():
    """Slow answers are seen in the window: it closes when the level is given up, and what ended until then counts."""
    ran = swept(lambda _: Act(first_ns=2900 * MS, tokens=1), "ttft_p50>2s", users=(4,), warm_up=S, duration=600 * S)
    (recording,) = ran.recordings
    assert recording.aborted.startswith("ttft_p50>2s: it was 2.9s over 20 ended")
    # Four users, 2.9 s each: the twentieth answer ends at 14.5 s, and the rule is next looked at half a second later.
    assert recording.window_s == 14
    assert set(recording.outcomes) == {Outcome.OK}


@pytest.mark.parametrize(
    ("act", "rule"),
    [(QUICK, "failures>20%"), (QUICK, "ttft_p50>1s"), (QUICK, "ttft_max>1s"), (QUICK, "event_gap_p99>1s")],
)
def test_level_whose_rule_never_holds_is_a_whole_level(act, rule):
    """It runs to its end, as without the rule."""
    watched, plain = (swept(lambda _: act, *rules, duration=5 * S) for rules in ((rule,), ()))
    assert watched.ended == plain.ended == [("m", "users=1"), ("m", "users=2")]
    assert [r.aborted for r in watched.recordings] == ["", ""]
    assert [r.outcomes for r in watched.recordings] == [r.outcomes for r in plain.recordings]
    assert not any(r.interrupted for r in watched.recordings)


def test_rule_for_one_level_leaves_the_others_alone():
    """`@users=2` is looked at there only."""
    ran = swept(lambda _: Act(first_ns=200 * MS), "ttft_p50>100ms@users=2", duration=20 * S)
    assert [bool(recording.aborted) for recording in ran.recordings] == [False, True]


class SimpleLoad:
    """As much of a load as a summary looks at."""

    label = "users=1"
    rate_per_s = 1.0
    arrivals = "constant"


# The rule itself.


def watch(rule: str, *samples) -> str:
    """What a rule says after these samples."""
    watcher = AbortWatch([parse_abort(rule)])
    for sample in samples:
        watcher.add(sample)
    return watcher.check()


def ended(ok: int, failed: int = 0, **over) -> list:
    """So many answers and failures."""
    return [a_sample(n, **over) for n in range(ok)] + [a_failure(Outcome.RESET, number=n) for n in range(failed)]


@pytest.mark.parametrize(
    ("rule", "samples", "holds"),
    [
        ("failures>20%", ended(0, 19), False),
        ("failures>20%", ended(0, 20), True),
        ("failures>20%", ended(16, 4), False),
        ("failures>20%", ended(16, 5), True),
        ("ttft_p50>99ms", ended(19), False),
        ("ttft_p50>99ms", ended(20), True),
        ("ttft_p50>101ms", ended(20), False),
        # Failures are infinitely slow in a quantile, and no part of a mean or a maximum.
        ("ttft_p50>60m", ended(10, 10), False),
        ("ttft_p50>60m", ended(10, 11), True),
        ("ttft_p90>60m", ended(17, 3), True),
        ("ttft_mean>1s", ended(1, 30), False),
        ("ttft_mean>99ms", ended(1, 30), True),
        ("ttft_max>99ms", ended(1), True),
        ("ttft_max>101ms", ended(1), False),
        ("ttft_max>1ms", ended(0, 30), False),
        ("event_gap_p99>19ms", ended(20), True),
        ("failures>20%", [a_failure(Outcome.CANCELLED, number=n) for n in range(50)], False),
        ("tpot_p50>1ns", ended(20, output_tokens=None), False),
    ],
)
def test_rule_holds(rule, samples, holds):
    """Above the bound, from twenty ended requests on, or for a maximum from the first."""
    said = watch(rule, *samples)
    assert bool(said) == holds
    assert said.startswith(rule) == holds


def test_an_error_that_ends_a_watched_level_is_told_as_it_is(monkeypatch):
    """Who watches beside the level does not wrap it in a group, which would be a traceback to the user."""

    async def lost(_level):
        raise TargetUnavailable("every worker process has ended")

    monkeypatch.setattr(Level, "run", lost)
    with pytest.raises(TargetUnavailable, match="every worker process has ended"):
        swept(lambda _: QUICK, "failures>20%")
