"""The verdict: each rule fires on what it is for, and not on a quiet level."""

from __future__ import annotations

import dataclasses
from array import array
from typing import TYPE_CHECKING

import pytest

from loadbench.analyze.level.verdict import client_reasons, other_names
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.recorder import WorkerPart
from loadbench.record.request import Destination
from loadbench.record.usage_check import UsageCheck
from loadbench.wire.openai import clean
from tests.building import MS, S, a_failure, a_level, a_recording, a_sample, calm

if TYPE_CHECKING:
    from loadbench.record.recorder import Health


def codes(level) -> list[str]:
    """The codes of a level's reasons."""
    return [reason.code for reason in level.verdict.reasons]


def fails(outcome: Outcome, *, number: int, **more: object):
    """A request without an answer, after all the quiet ones."""
    return a_failure(outcome, number=number, due_ns=(10 + 2 * number) * S, **more)


def recorded(samples: list, **facts):
    """The recording of a window of 300 s, which the quiet answers do not fill."""
    return a_recording(samples, window_ns=300 * S, **facts)


def quiet(count: int = 100, **over) -> list:
    """Answers one after another, all alike."""
    return [a_sample(n, due_ns=2 * n * S, **over) for n in range(count)]


def test_quiet_level_is_valid():
    """Nothing was wrong: VALID, no reason, no caveat."""
    level = a_level(quiet())
    assert (level.verdict.status, codes(level), level.caveats) == ("VALID", [], [])


def test_frames_that_were_not_understood_are_quoted():
    """In the reason above 1 % of the requests, in a caveat up to that; counted, with the keep-alives, in the result."""
    for count, where in ((1, "caveats"), (2, "reasons")):
        odd = [a_sample(n, due_ns=2 * n * S, unread_frames=3, detail=f"what {n}?") for n in range(100 - count, 100)]
        level = a_level([*quiet(100 - count, keep_alives=2), *odd])
        (found,) = level.caveats if where == "caveats" else level.verdict.reasons
        assert (found.code, f"{count} of 100" in found.message) == ("unread_frames", True)
        assert f"what {100 - count}?" in found.message
        assert (level.unread.frames, level.unread.requests) == (3 * count, count)
        assert level.unread.keep_alives == 2 * (100 - count)


def test_content_types_and_filters_are_caveats():
    """What was ended by a policy, or had another Content-Type than it should, is valid and said."""
    level = a_level(
        [
            *quiet(99, content_type="Content-Type text/html for a stream"),
            a_sample(99, due_ns=198 * S, finish_reason="SAFETY"),
        ]
    )
    assert {caveat.code: caveat.message for caveat in level.caveats} == {
        "content_type": "99 of 100 responses had Content-Type text/html for a stream; they were read as what they are",
        "filtered": "the server's content policy ended 1 of 100 responses ('SAFETY')",
    }
    assert level.unread.content_types == {"Content-Type text/html for a stream": 99}


def shifted(late_ns: int) -> list:
    """The quiet answers, each sent so much after it was due."""
    return [a_sample(n, due_ns=2 * n * S, sent_ns=2 * n * S + late_ns) for n in range(100)]


def paused(ns: int) -> Health:
    """A client that stood still once, for so short a part of the level that no quantile shows it."""
    health = calm()
    health.loop_lag.record(ns)
    return health


# What happened, and the codes that the verdict must have; gaps of 20 ms make the bound of the client's delay 1 ms.
@pytest.mark.parametrize(
    ("recording", "expected"),
    [
        (recorded([]), ["no_answers"]),
        (recorded(quiet(), interrupted=True), ["interrupted"]),
        (recorded(shifted(5_900_000)), []),
        (recorded(shifted(6_200_000)), ["late_start"]),
        (recorded(quiet(), health=calm(lag_ns=900_000)), []),
        (recorded(quiet(), health=calm(lag_ns=1_100_000)), ["loop_lag"]),
        (recorded(quiet(gaps_ns=100 * MS), health=calm(lag_ns=4_900_000)), []),
        (recorded(quiet(gaps_ns=100 * MS), health=calm(lag_ns=5_200_000)), ["loop_lag"]),
        (recorded([*quiet(), fails(Outcome.PROTOCOL, number=100)]), ["protocol"]),
        (recorded([*quiet(99), fails(Outcome.RESET, number=100)]), []),
        (recorded([*quiet(98), *[fails(Outcome.RESET, number=n) for n in (98, 99)]]), ["failures"]),
        (recorded([*quiet(98), *[fails(Outcome.CANCELLED, number=n) for n in (98, 99)]]), []),
        (recorded([*quiet(99), fails(Outcome.CLIENT_LIMIT, number=99)]), ["client_limit"]),
        (recorded([*quiet(50), *[fails(Outcome.CLIENT_LIMIT, number=n) for n in range(50, 100)]]), ["client_limit"]),
        (recorded(quiet(), health=paused(1_900_000_000)), []),
        (recorded(quiet(), health=paused(2_100_000_000)), ["stood_still"]),
        (recorded(quiet(), health=dataclasses.replace(calm(), slept_ns=1_900_000_000)), []),
        (recorded(quiet(), health=dataclasses.replace(calm(), slept_ns=2_100_000_000)), ["stood_still"]),
        (recorded(quiet(token_source=TokenSource.UNKNOWN, output_tokens=None)), ["unknown_tokens"]),
        (recorded(quiet(target_input_tokens=50)), []),
        (recorded(quiet(target_input_tokens=52)), []),
        (recorded(quiet(cached_tokens=15)), []),
        (recorded(quiet(cached_tokens=16)), ["cached_prompts"]),
        (recorded([*quiet(99), a_sample(99, due_ns=198 * S, unread_frames=3, detail="what?")]), []),
        (
            recorded([*quiet(98), *[a_sample(n, due_ns=2 * n * S, unread_frames=1) for n in (98, 99)]]),
            ["unread_frames"],
        ),
        (recorded(quiet(keep_alives=7)), []),
        (recorded(quiet(content_type="Content-Type text/html for a stream")), []),
        (recorded(quiet(finish_reason="SAFETY")), []),
        (recorded(quiet(model=None)), []),
    ],
)
def test_rule(recording, expected):
    """Each condition gives its code, alone."""
    level = a_level(recording=recording)
    assert codes(level) == expected
    assert level.verdict.status == ("INVALID" if expected else "VALID")
    for reason in level.verdict.reasons:
        assert reason.message
        assert reason.advice


@pytest.mark.parametrize(
    ("answered", "listed", "reasons", "caveats"),
    [
        ("other", {"other"}, ["other_model"], []),
        ("other", {"other", "m"}, [], ["model_name"]),  # a router
        ("other", {"m"}, [], ["model_name"]),  # a name of its own for it
        ("other", set(), [], ["model_name"]),
        ("other", None, [], ["model_name"]),  # a deployment, where there is no list
        ("M:latest", {"M:latest"}, [], []),
        ("org/m-2024-08-06", {"org/m-2024-08-06"}, [], []),
        ("/models/m.gguf", None, [], []),
        ("m-001", None, [], []),
        ("m1", None, [], ["model_name"]),
        ("m.1", {"m.1"}, ["other_model"], []),
        ("m-7b", None, [], ["model_name"]),
    ],
)
def test_another_name_is_another_model_only_where_the_list_says_so(answered, listed, reasons, caveats):
    """Aliases, deployments and routers answer by other names; a server that ignores the name lists its own."""
    level = a_level(recording=recorded(quiet(model=answered)), listed=listed)
    assert codes(level) == reasons
    assert [caveat.code for caveat in level.caveats] == caveats


@pytest.mark.parametrize("name", ["\x1b[31mm\x07", "m\u202e", "a  model\t of mine", "m" * 400])
def test_a_name_that_is_read_in_part_is_the_same(name):
    """Names in responses are one line of what can be printed, and have an end."""
    recording = recorded(quiet(model=clean(name)))
    assert clean(name) != name
    assert list(other_names(recording, name, None)) == []
    assert [message for _, message, _ in other_names(recording, "x", None)]


@pytest.mark.parametrize(("late_ns", "expected"), [(900_000, []), (1_100_000, ["late_start"])])
def test_open_loop_has_a_schedule_to_keep(late_ns, expected):
    """One late request in fifty is above the bound of p99, however little it takes from the load."""
    samples = [*shifted(0)[:98], *shifted(late_ns)[98:]]
    level = a_level(recording=recorded(samples), load=Open(0.5, parse_arrivals("constant")))
    assert codes(level) == expected


@pytest.mark.parametrize(
    ("load", "warm_up_ns", "expected"),
    [
        (Closed(2), 310 * MS, []),
        (Closed(2), 290 * MS, ["short_warm_up"]),
        (Open(0.5, parse_arrivals("poisson")), 0, ["short_warm_up"]),
        (Closed(1), 0, []),
    ],
)
def test_warm_up_lasts_an_answer_at_least(load, warm_up_ns, expected):
    """Answers take 300 ms: after a shorter warm-up the load still builds up, unless it is one user."""
    level = a_level(recording=recorded(quiet(), warm_up_ns=warm_up_ns), load=load)
    assert codes(level) == expected


def kernel(*, lag_ns: int) -> Health:
    """The health of a client whose stamps are the kernel's."""
    return dataclasses.replace(calm(lag_ns=lag_ns), stamp_source="kernel")


@pytest.mark.parametrize(("censored", "expected"), [(5, []), (6, ["late_reads"])])
def test_kernel_stamps_hold_until_events_pile_up(censored, expected):
    """A loop that is late does not move the kernel's stamps; more than 0.5 % with a later one's stamp count."""
    samples = [a_sample(n, due_ns=2 * n * S, censored_events=censored if n == 0 else 0) for n in range(100)]
    level = a_level(recording=recorded(samples, health=kernel(lag_ns=50 * MS)))
    assert codes(level) == expected
    assert level.client.censored_events == censored / 1100


@pytest.mark.parametrize(("late", "expected"), [(1, []), (2, ["late_first_tokens"])])
def test_first_tokens_that_were_read_late_invalidate_their_times(late, expected):
    """Of 1,100 events 2 are few, and of 100 times to first token the highest ones; a single one is no quantile."""
    samples = [a_sample(n, due_ns=2 * n * S, censored_events=n < late, late_first_token=n < late) for n in range(100)]
    level = a_level(recording=recorded(samples, health=kernel(lag_ns=10_000)))
    assert codes(level) == expected
    reasons = client_reasons(level.verdict, per_token=False)
    assert [reason.code for reason in reasons] == expected


@pytest.mark.parametrize(("high_ms", "expected"), [(100, []), (105, []), (107, ["late_first_tokens"])])
def test_few_late_first_tokens_count_where_the_p99_may_be_theirs(high_ms, expected):
    """4 of 1,000: the p99 of TTFT is 12 requests high, and without these 4 it may be what is now the p98.6."""
    samples = [
        a_sample(
            n,
            due_ns=2 * n * S,
            late_first_token=n < 4,
            censored_events=n < 4,
            ttft_ns=(high_ms if n >= 988 else 100) * MS,
        )
        for n in range(1000)
    ]
    level = a_level(recording=recorded(samples, health=kernel(lag_ns=10_000)))
    assert [code for code in codes(level) if code == "late_first_tokens"] == expected


def test_missed_arrivals_invalidate_an_open_level():
    """One arrival that was not sent is enough."""
    load = Open(2.0, parse_arrivals("constant"))
    level = a_level(recording=recorded(quiet(), missed=1), load=load)
    assert codes(level) == ["missed_arrivals"]


def test_requests_cut_while_they_connect_were_started():
    """A server that accepts no connection until the drain ends fails: the load generator did keep to its rate."""
    waiting = [dataclasses.replace(fails(Outcome.ABANDONED, number=n), sent_ns=None) for n in range(50, 100)]
    level = a_level(recording=recorded([*quiet(50), *waiting]), load=Open(0.5, parse_arrivals("constant")))
    assert "failures" in codes(level)
    assert not {"rate_not_reached", "missed_arrivals"} & set(codes(level))


def test_a_server_that_leaves_its_requests_waiting_stands_out():
    """Those that the end of the drain cut failed there, as they do in the level."""
    places = [Destination(0, None, "http://a"), Destination(1, None, "http://b")]
    samples = quiet(100, destination=places[0])
    samples += [fails(Outcome.ABANDONED, number=n, destination=places[1]) for n in range(60)]
    samples += [a_sample(n, due_ns=2 * n * S, destination=places[1]) for n in range(60, 100)]
    (caveat,) = [one for one in a_level(recording=recorded(samples)).caveats if one.code == "uneven_servers"]
    assert "http://b: 60 of 100 requests failed (elsewhere 0 of 100)" in caveat.message
    assert "http://a:" not in caveat.message


@pytest.mark.parametrize(("ttft_ms", "stands_out"), [(149, False), (152, True)])
def test_a_server_that_is_half_as_slow_again_stands_out(ttft_ms, stands_out):
    """By its median, with those of both; a smaller difference is none to look for."""
    places = [Destination(0, None, "http://a"), Destination(1, None, "http://b")]
    samples = [
        a_sample(n, due_ns=2 * n * S, ttft_ns=(100, ttft_ms)[n % 2] * MS, destination=places[n % 2]) for n in range(90)
    ]
    found = [one.message for one in a_level(recording=recorded(samples)).caveats if one.code == "uneven_servers"]
    assert bool(found) is stands_out
    if found:
        assert f"http://b: TTFT p50 is {ttft_ms}.0 ms (elsewhere 100.0 ms)" in found[0]


def test_what_a_lost_worker_took_along_is_counted():
    """Its name, its share, and what it had sent and not reported, which is in no figure."""
    workers = (WorkerPart(name="a", health=calm()), WorkerPart(name="b"))
    for unreported, said in (
        (0, ""),
        (1, "; 1 request that they had sent is"),
        (5, "; 5 requests that they had sent are"),
    ):
        recording = dataclasses.replace(recorded(quiet()), workers=workers, lost_workers=1, unreported=unreported)
        (reason,) = a_level(recording=recording, load=Closed(2)).verdict.reasons
        assert (
            reason.code,
            "1 of the 2 workers ended early (b), and with them 50 % of the load" in reason.message,
        ) == ("lost_worker", True)
        assert reason.message.endswith(f"{said} in no figure") if said else "in no figure" not in reason.message


def test_the_only_worker_that_was_lost_is_no_share_of_several():
    """A cluster of one core has one."""
    recording = dataclasses.replace(recorded([]), workers=(WorkerPart(name="a"),), lost_workers=1)
    (lost,) = [one for one in a_level(recording=recording).verdict.reasons if one.code == "lost_worker"]
    assert lost.message.startswith("the only worker ended early (a), and with it 100 % of the load")


def test_a_level_that_lost_all_that_was_measured_needs_no_longer_duration():
    """What the lost workers had measured is in no figure; without one lost, the measurement was too short."""
    workers = (WorkerPart(name="a", health=calm()), WorkerPart(name="b"))
    for lost, said, advice in (
        (0, "no request was due during the measurement", "use a --duration longer than"),
        (1, "no request that is known was due", "find out what ended or stopped them"),
    ):
        recording = dataclasses.replace(recorded([]), workers=workers, lost_workers=lost)
        (none,) = [one for one in a_level(recording=recording).verdict.reasons if one.code == "no_answers"]
        assert none.message.startswith(said)
        assert none.advice.startswith(advice)


@pytest.mark.parametrize(
    ("load", "lost", "share"),
    [
        (Closed(5), {0}, 60),
        (Closed(5), {1}, 40),
        (Closed(7), {1, 2}, 57),
        (Closed(2), {1}, 50),
        (Open(0.5, parse_arrivals("constant")), {0}, 33),
    ],
)
def test_the_share_of_a_lost_worker_is_that_of_its_users(load, lost, share):
    """Users are dealt in turn, so the first workers may have one more; arrivals come to all alike."""
    many = 2 if load in (Closed(5), Closed(2)) else 3
    workers = tuple(WorkerPart(name=f"w{n}", health=None if n in lost else calm()) for n in range(many))
    recording = dataclasses.replace(recorded(quiet()), workers=workers, lost_workers=len(lost))
    reasons = a_level(recording=recording, load=load).verdict.reasons
    (reason,) = [one for one in reasons if one.code == "lost_worker"]
    assert f"and with them {share} % of the load" in reason.message


def test_arrivals_that_a_lost_worker_missed_need_no_other_limit():
    """What ended the worker is what to look for; without one lost, it is the limit or the rate."""
    workers = (WorkerPart(name="a", health=calm()), WorkerPart(name="b"))
    load = Open(0.5, parse_arrivals("constant"))
    for lost, advice in ((0, "raise --max-in-flight"), (1, "find out what ended the workers")):
        recording = dataclasses.replace(recorded(quiet(), missed=1), workers=workers, lost_workers=lost)
        (missed,) = [
            one for one in a_level(recording=recording, load=load).verdict.reasons if one.code == "missed_arrivals"
        ]
        assert missed.advice.startswith(advice)


def test_what_ended_a_level_comes_before_what_it_lacks():
    """A rule that ends a level in its warm-up leaves no measured request."""
    level = a_level(recording=dataclasses.replace(recorded([]), aborted="failures>3%"))
    assert codes(level)[:2] == ["aborted", "no_answers"]


def a_worker(name: str, late_ms: float, *, count: int = 200, **facts) -> WorkerPart:
    """A worker whose requests were all sent so late."""
    worker = WorkerPart(name=name, **{"health": calm(), "began_ns": 0} | facts)
    for _ in range(count):
        worker.lateness.record(round(late_ms * MS))
    return worker


@pytest.mark.parametrize(
    ("late_ms", "count", "reasons"),
    [(0.1, 200, []), (400, 200, ["late_start"]), (400, 99, [])],
    ids=["well", "sick", "few"],
)
def test_one_sick_worker_of_many_is_named(late_ms, count, reasons):
    """Though among the requests of all its delays are too few to be seen; of too few requests nothing is said."""
    workers = (a_worker("well", 0.1), a_worker("sick", late_ms, count=count))
    level = a_level(recording=dataclasses.replace(recorded(quiet()), workers=workers))
    assert codes(level) == reasons
    told = "sick: loadbench sent the users' next requests late"
    assert all(reason.message.startswith(told) for reason in level.verdict.reasons)


def test_a_worker_that_makes_a_whole_level_late_is_named():
    """Also where the delays of all show it: whose they are is said. Where all are late, nobody is."""
    late = recorded(quiet())
    late.histograms["lateness"].record_many(array("q", [400 * MS] * 400))
    for sick, whose in ((("b",), "; of the 3 workers it was b"), (("a", "b"), "it was a, b"), (("a", "b", "c"), None)):
        workers = tuple(a_worker(name, 400 if name in sick else 0.1) for name in "abc")
        level = a_level(recording=dataclasses.replace(late, workers=workers))
        (reason,) = [reason for reason in level.verdict.reasons if reason.code == "late_start"]
        assert reason.message.startswith("loadbench sent the users' next requests late")
        assert reason.message.endswith(whose) if whose else "workers it was" not in reason.message


@pytest.mark.parametrize(("waited_s", "reasons"), [(0, []), (0.1, []), (60, ["late_start"])])
def test_users_who_wait_for_what_other_workers_have_think_longer(waited_s, reasons):
    """As with a late start: by how much, on average of all requests, is what counts."""
    workers = [a_worker("a", 0.1, waited_ns=round(waited_s * S)), a_worker("b", 0.1)]
    level = a_level(recording=dataclasses.replace(recorded(quiet()), workers=tuple(workers)))
    assert codes(level) == reasons


@pytest.mark.parametrize(("late", "is_sick"), [(8, False), (40, True)])
def test_first_tokens_that_one_worker_read_late_are_its_own(late, is_sick):
    """By more than chance: of many workers one has more of them than the half per cent that is allowed."""
    workers = [a_worker(f"{number}", 0.1, answers=900, events=9000) for number in range(9)]
    workers.append(a_worker("sick", 0.1, answers=900, events=9000, late_first_tokens=late))
    level = a_level(recording=dataclasses.replace(recorded(quiet()), workers=tuple(workers)))
    told = [reason.message for reason in level.verdict.reasons if reason.code == "late_first_tokens"]
    assert [message.startswith(f"sick: loadbench read {late} of 900 first tokens") for message in told] == [
        True
    ] * is_sick


@pytest.mark.parametrize(
    ("count", "late", "workers", "is_sick"),
    [(100, 2, 8, False), (100, 8, 8, True), (2000, 30, 8, False), (2000, 50, 8, True), (200_000, 2100, 100, False)],
)
def test_a_worker_of_an_open_loop_is_sick_only_by_more_than_chance(count, late, workers, is_sick):
    """Of several, one has more late requests than the others anyway; alone, a p99 above the bound would be enough."""
    one = WorkerPart(name="one", health=calm(), began_ns=0)
    one.lateness.record_many(array("q", [MS // 10] * (count - late) + [400 * MS] * late))
    parts = (one, *(a_worker(f"well {number}", 0.1) for number in range(workers - 1)))
    level = a_level(
        recording=dataclasses.replace(recorded(quiet()), workers=parts), load=Open(0.5, parse_arrivals("constant"))
    )
    told = [reason.message for reason in level.verdict.reasons if reason.code == "late_start"]
    assert [message.startswith("one: loadbench sent requests late") for message in told] == [True] * is_sick


@pytest.mark.parametrize(
    ("began_ms", "error_ms", "said"),
    [
        (4, 1, None),
        (70, 1, "began up to 70 ms apart (their clocks are known to 1.0 ms)"),
        (4, 90, "began up to 4 ms apart (their clocks are known to 90.0 ms)"),
    ],
)
def test_workers_that_begin_apart_are_a_caveat(began_ms, error_ms, said):
    """By more than half a slice of the timeline, and also where nobody knows; the result has both."""
    workers = (a_worker("a", 0), a_worker("b", 0, began_ns=began_ms * MS, clock_error_ns=error_ms * MS))
    level = a_level(recording=dataclasses.replace(recorded(quiet()), workers=workers))
    assert [caveat.code for caveat in level.caveats] == ([] if said is None else ["start_skew"])
    assert said is None or said in level.caveats[0].message
    assert level.client.start_skew_s == began_ms / 1e3
    assert [(one.name, one.began_s, one.clock_error_s) for one in level.client.workers] == [
        ("a", 0.0, 0.0),
        ("b", began_ms / 1e3, error_ms / 1e3),
    ]


@pytest.mark.parametrize("servers", [1, 2])
def test_counters_that_restart_say_whose_they_may_be(servers):
    """Of one address it may be a load balancer's replica; of several it is one of them."""
    places = [Destination(0, None, "http://a"), Destination(1, None, "http://b")]
    samples = [a_sample(n, due_ns=2 * n * S, destination=places[n % 2]) for n in range(100)]
    recording = dataclasses.replace(recorded(quiet() if servers == 1 else samples), server_restarted=True)
    (reason,) = a_level(recording=recording).verdict.reasons
    assert reason.code == "server_restarted"
    assert ("behind a load balancer" in reason.advice, "of one of the servers" in reason.message) == (
        servers == 1,
        servers == 2,
    )


@pytest.mark.parametrize(
    ("stopped", "said"),
    [
        ({("m", "a"), ("n", "a")}, [" at http://a"]),  # a server, for both models
        ({("m", "a"), ("m", "b")}, [" to m"]),  # a model, at both servers
        ({("m", "a")}, [" to m at http://a"]),
        ({(model, server) for model in "mn" for server in "ab"}, [" at http://a", " at http://b"]),
    ],
)
def test_what_stopped_is_named(stopped, said):
    """The server, the model, or the one at the other, where the rest went on; since when, and what came instead."""
    places = [(model, server) for model in "mn" for server in "ab"]
    samples = []
    for n in range(120):
        model, server = places[n % 4]
        to, due_ns = Destination(0, model, f"http://{server}"), 2 * n * S
        ended = n >= 60 and (model, server) in stopped
        one = a_failure(Outcome.REFUSED, number=n, due_ns=due_ns, detail="refused", destination=to)
        samples.append(one if ended else a_sample(n, due_ns=due_ns, destination=to, model=model))
    (reason,) = [one for one in a_level(recording=recorded(samples)).verdict.reasons if one.code == "server_stopped"]
    assert [part.partition(" succeeded from ")[0] for part in reason.message.split("; ")] == [
        f"no request{whose}" for whose in said
    ]
    assert " s into the measurement on: " in reason.message
    assert f": {15 * len(stopped) // len(said)} × refused: refused" in reason.message


def test_a_server_that_was_up_and_stopped_has_one_reason_for_it():
    """Neither is it asked whether it runs, nor are its counters, which went with it, a reason of their own; and the
    failures have no advice on a lower load."""
    hint = "connection refused (is the server running, and is this its port?)"
    samples = [
        a_failure(Outcome.REFUSED, number=n, due_ns=n * S, detail=hint) if n >= 60 else a_sample(n, due_ns=n * S)
        for n in range(100)
    ]
    found = a_level(recording=dataclasses.replace(recorded(samples), server_restarted=True)).verdict.reasons
    (stopped,) = [one for one in found if one.code == "server_stopped"]
    assert stopped.message.endswith("× refused: connection refused")
    assert "server_restarted" not in {one.code for one in found}
    assert [one.advice for one in found if one.code == "failures"] == ["see why the server ended"]


def test_assumed_tokens_are_a_caveat():
    """One token an event, assumed, is told; it does not make a level invalid."""
    level = a_level(quiet(token_source=TokenSource.EVENTS))
    assert level.verdict.status == "VALID"
    assert [caveat.code for caveat in level.caveats] == ["assumed_tokens"]


@pytest.mark.parametrize(
    ("counters", "fields", "expected"),
    [
        ({"vllm:prefix_cache_hits_total": 60, "vllm:prefix_cache_queries_total": 1000}, {}, ["cached_by_counter"]),
        ({"vllm:prefix_cache_hits_total": 50, "vllm:prefix_cache_queries_total": 1000}, {}, []),
        ({"sglang:cached_tokens_total": 900, "sglang:prompt_tokens_total": 1000}, {}, ["cached_by_counter"]),
        # Responses that say it, or requests that are to find their prefix there.
        ({"vllm:prefix_cache_hits_total": 60, "vllm:prefix_cache_queries_total": 1000}, {"cached_tokens": 40}, []),
        ({"vllm:prefix_cache_hits_total": 60, "vllm:prefix_cache_queries_total": 1000}, {"warm": True}, []),
        ({"vllm:prefix_cache_hits_total": 60}, {}, []),
        ({"vllm:prefix_cache_queries_total": 1000}, {}, []),
    ],
)
def test_prefix_cache_is_seen_by_the_servers_counter(counters, fields, expected):
    """vLLM's responses do not say what was cached; an earlier run with the same seed left the same prompts there."""
    level = a_level(recording=dataclasses.replace(recorded(quiet(**fields)), server=counters))
    assert [caveat.code for caveat in level.caveats] == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 48}, ["cut_short"]),
        ({"max_tokens": 12}, []),  # one token: the last one, which not all servers count
        ({"max_tokens": 48, "finish_reason": "stop"}, []),
        ({"max_tokens": 48, "reasoning_tokens": 37}, []),  # which some servers count apart
        ({"max_tokens": 48, "token_source": TokenSource.EVENTS}, ["assumed_tokens"]),
    ],
)
def test_responses_that_the_server_cuts_are_a_caveat(fields, expected):
    """They ended for their length before the length that was requested."""
    level = a_level(quiet(**{"finish_reason": "length"} | fields))
    assert level.verdict.status == "VALID"
    assert [caveat.code for caveat in level.caveats] == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [((50, 50), []), ((51, 51), []), ((52, 52), ["prompt_length"]), ((46, 54), ["prompt_length"]), ((None, None), [])],
)
def test_lengths_of_prompts_are_a_caveat_by_their_mean_and_spread(targets, expected):
    """All prompts have 50 tokens; a mean that is more than 2 % off, or lengths that vary by more than 5 %."""
    samples = [a_sample(n, due_ns=2 * n * S, target_input_tokens=targets[n % 2]) for n in range(100)]
    level = a_level(recording=recorded(samples))
    assert level.verdict.status == "VALID"
    assert [caveat.code for caveat in level.caveats] == expected
    if targets == (52, 52):
        assert "50 tokens on average by the server's count (50 to 50), 52 were requested: 3.8 % fewer" in (
            level.caveats[0].message
        )


@pytest.mark.parametrize(("reads", "expected"), [(11, []), (10, ["clumped_events"])])
def test_events_that_the_server_sends_together_are_a_caveat(reads, expected):
    """More than 5 % of events came with a later one, by no fault of the client: gaps are those of writes."""
    level = a_level(quiet(reads=reads, merged_reads=11 - reads))
    assert level.verdict.status == "VALID"
    assert [caveat.code for caveat in level.caveats] == expected


def test_share_of_events_that_came_together_is_of_those_read_in_time():
    """What the client read late is not the server's doing."""
    level = a_level(recording=recorded(quiet(reads=5, merged_reads=1, censored_events=4), health=kernel(lag_ns=10_000)))
    (caveat,) = level.caveats
    assert caveat.message.startswith("18 % of events (streamed chunks, about a token each) came together with the next")
    assert caveat.message.endswith("while TTFT, TPOT, E2E, tok/s and the verdict hold")


def test_late_loop_makes_events_that_came_together_its_own():
    """With kernel stamps, too: where the loop was late and reads brought several events, the client did not keep up."""
    late = recorded(quiet(reads=10, merged_reads=1, separate_events=1), health=kernel(lag_ns=50 * MS))
    assert codes(a_level(recording=late)) == ["late_reads"]
    in_time = recorded(quiet(reads=10, merged_reads=1, separate_events=1), health=kernel(lag_ns=10_000))
    assert codes(a_level(recording=in_time)) == []


def test_arrivals_that_left_after_the_window_were_not_in_it():
    """An open loop whose requests left too late to be in the window did not reach its rate."""
    load = Open(0.5, parse_arrivals("constant"))
    late = [a_sample(n, due_ns=2 * n * S, ttft_ns=401 * S, sent_ns=2 * n * S + 400 * S) for n in range(90, 100)]
    late += quiet(90)
    assert "rate_not_reached" in codes(a_level(recording=recorded(late), load=load))


def test_replaced_connections_are_a_caveat():
    """A kept connection that the server had closed is not its failure, and is told."""
    level = a_level(quiet(reconnects=1))
    assert [caveat.code for caveat in level.caveats] == ["reconnects"]


@pytest.mark.parametrize(
    ("usage", "code", "words"),
    [
        (UsageCheck(hidden=None), "hidden_tokens", "100 of 100 responses have more output tokens by usage"),
        (UsageCheck(hidden=300), "hidden_tokens", "time to the first token shown"),
        (UsageCheck(has_surplus=True), "uncounted_tokens", "neither prompt nor output"),
        (UsageCheck(has_few=True), "fewer_tokens_than_events", "than events with text"),
        (UsageCheck(ignores_limit=True), "limit_ignored", "100 of 100 responses are longer than requested"),
        (UsageCheck(unknown="units, cost"), "usage_not_understood", "it has units, cost"),
    ],
)
def test_doubts_about_counts_are_caveats(usage: UsageCheck, code: str, words: str):
    """The level stays valid, and says what its figures mean."""
    level = a_level(quiet(usage=usage))
    assert level.verdict.status == "VALID"
    assert [caveat.code for caveat in level.caveats] == [code]
    assert words in level.caveats[0].message


def test_usage_that_cannot_be_makes_a_level_invalid():
    """More than one in a hundred; the first of them is quoted."""
    fault = UsageCheck(fault="400 output tokens in 4 events, of at most 4 that were requested")
    samples = [*quiet(98), *(a_sample(98 + n, due_ns=(196 + 2 * n) * S, usage=fault) for n in range(2))]
    level = a_level(samples)
    assert codes(level) == ["impossible_usage"]
    assert "2 of 100 responses cannot be true: 400 output tokens in 4 events" in level.verdict.reasons[0].message
    assert codes(a_level(samples[:99])) == ["impossible_usage"]
    assert codes(a_level([*quiet(199), samples[99]])) == []


def test_hidden_tokens_leave_no_time_per_token():
    """A pace that nobody saw is absent, not too fast."""
    level = a_level(quiet(usage=UsageCheck(hidden=None), event_tokens=None, output_tokens=400))
    assert level.metrics["tpot_s"] is None
    assert level.metrics["ttft_s"].p50 == pytest.approx(0.1, rel=1e-3)
