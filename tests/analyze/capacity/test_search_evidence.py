"""What the probes of a search show together: what is proven, what is likely, and where to measure next."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import pytest

from loadbench.analyze.capacity.search_evidence import SearchEvidence, _floor, amount_of, refuse_objectives
from loadbench.analyze.capacity.sequential import HitCount, ProbeCounts
from loadbench.core.errors import BadInput
from loadbench.plan.load import Closed, Open
from loadbench.plan.objective import parse_objective
from loadbench.plan.search import Probe, Purpose, Rates, Standing, Users
from loadbench.record.outcome import Outcome
from loadbench.results.capacity import Capacity, HitShare, ProbeResult
from tests.building import MS, S, a_failure, a_recording, a_sample

TTFT, FAILURES = parse_objective("ttft_p95<1s"), parse_objective("failures<5%")
USERS = Users(200)


def a_probe(
    amount: float, hits: int, n: int, *, second: int | None = None, by="users", inefficiency=None, **more
) -> ProbeResult:
    """A probe of this load of whose requests, independent of each other, so many hit; of the second rule's as many."""
    rules = dict.fromkeys([TTFT.rule], hits) | ({} if second is None else {FAILURES.rule: second})
    attainment = {
        rule: HitShare(share=hit / n, asked=0.95, requests=n, hits=hit, effective=float(n), inefficiency=inefficiency)
        for rule, hit in rules.items()
    }
    grid = USERS if by == "users" else Rates.of(0.1, 100)
    fields = {"decision": "UNDECIDED", "requests": n, "purpose": Purpose.REFINE, "level": 0, "window_s": 60.0}
    fields |= {"at": grid.nearest(amount), "leaning": hits / n - 0.95, "attainment": attainment, by: amount, **more}
    return ProbeResult(**fields)


def evidence(*probes: ProbeResult, objectives=(TTFT,), grid=USERS, confidence=0.95, **more) -> SearchEvidence:
    """What these probes show."""
    found = SearchEvidence(objectives, grid, confidence=confidence, **more)
    found.probes = list(probes)
    return found


GOOD, BAD = a_probe(10, 600, 600), a_probe(40, 300, 600)


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ((), "needs an objective"),
        (("ttft_p95<1s", "output_tokens_per_s>100"), "throughput rises with the load"),
        (("ttft_mean<1s",), "a mean cannot be proven"),
        (("tpot_p95<1s", "ttft_max<1s"), "a max cannot be proven"),
    ],
)
def test_objectives_that_no_search_can_test_are_refused(rules, what):
    """Each in a line that says why; percentiles and shares of failures are tested."""
    refuse_objectives([TTFT, FAILURES])
    with pytest.raises(BadInput, match=what):
        refuse_objectives([parse_objective(rule) for rule in rules])


def test_without_a_probe_nothing_is_known():
    """Neither proven nor likely."""
    assert evidence().standing() == Standing()


def test_loads_that_pass_and_loads_that_fail_enclose_the_capacity():
    """What is proven stands between the two; so does the likely range, with the estimate in it."""
    standing = evidence(GOOD, BAD).standing()
    assert (standing.passed, standing.failed, standing.monotone) == (10, 40, True)
    assert 10 <= standing.low < standing.estimate < standing.high < 40
    wide = evidence(GOOD, BAD, confidence=0.999).standing()
    assert wide.low <= standing.low
    assert wide.high >= standing.high
    assert (evidence(GOOD).standing().passed, evidence(GOOD).standing().failed) == (10, None)
    assert (evidence(BAD).standing().passed, evidence(BAD).standing().failed) == (None, 40)


def test_both_ends_of_the_grid_can_be_proven():
    """The lowest load fails: no capacity is left. The highest passes: there is no end above."""
    lowest = evidence(a_probe(1, 0, 300)).standing()
    assert (lowest.passed, lowest.failed, lowest.low, lowest.estimate) == (None, 1, 0, 0)
    highest = evidence(a_probe(200, 2000, 2000)).standing()
    assert (highest.passed, highest.failed, highest.high, highest.estimate) == (200, None, 200, 200)
    assert evidence(GOOD, a_probe(200, 300, 600)).standing().failed == 200


def test_one_objective_that_is_missed_is_enough():
    """The other one is met at any load."""
    rules = (TTFT, FAILURES)
    met, missed = (evidence(a_probe(40, 1000, 1000, second=hits), objectives=rules).standing() for hits in (1000, 500))
    assert (met.passed, met.failed) == (40, None)
    assert (missed.passed, missed.failed) == (None, 40)


def test_a_higher_load_that_passes_where_a_lower_one_fails_contradicts_it():
    """Then nothing is proven of any load."""
    standing = evidence(a_probe(40, 2000, 2000), a_probe(10, 600, 600, aborted="failures>20%")).standing()
    assert (standing.passed, standing.failed, standing.monotone) == (None, None, False)


@pytest.mark.parametrize("why", [{"overloaded": True}, {"aborted": "failures>20%"}])
def test_a_load_whose_queue_grows_fails_though_all_its_requests_were_quick(why):
    """So does one that an abort rule ended; loads below it may pass."""
    standing = evidence(GOOD, a_probe(30, 600, 600, **why)).standing()
    assert (standing.passed, standing.failed) == (10, 30)
    assert standing.high <= 29
    assert standing.estimate < evidence(GOOD, a_probe(30, 600, 600)).standing().estimate
    # The first requests were quick, before the queue had grown: they prove nothing of lower loads.
    alone = evidence(a_probe(30, 600, 600, **why)).standing()
    assert (alone.passed, alone.failed, alone.monotone) == (None, 30, True)


@pytest.mark.parametrize("hits", [0, 50, 90])
def test_of_a_growing_queue_all_requests_are_taken_as_slow(hits):
    """Later ones would be, so it does not matter how many of the first ones were not."""
    some, all_ = (evidence(GOOD, a_probe(30, one, 100, overloaded=True)).standing() for one in (hits, 100))
    assert (some.low, some.estimate, some.high) == (all_.low, all_.estimate, all_.high)


@pytest.mark.parametrize(
    ("amount", "at"), [(12.0, 12), (12.3, 12), (12.7, 12), (13.0, 13), (1.0, 1), (0.9, 0), (200.4, 200), (900.0, 200)]
)
def test_a_number_of_users_that_is_no_whole_one_is_rounded_down(amount, at):
    """What a load of 12.7 users says holds of 12; below the lowest there is none."""
    assert _floor(USERS, amount) == at


def test_a_growing_queue_says_nothing_of_failures():
    """Its later requests would all be slow, and would not all fail."""
    slow, failing = (
        evidence(a_probe(30, 100, 100, second=100, overloaded=True), objectives=(TTFT, FAILURES))
        .expected(30, 0.95)
        .values()
    )
    assert slow.share < 0.5
    assert failing.share > 0.95


def test_what_the_load_generator_cannot_send_is_no_estimate():
    """The estimate is below the lowest such load, but not below what is proven to pass."""
    found = evidence(GOOD, BAD)
    free = found.standing().estimate
    found.refused = [90, free - 2]
    assert found.standing().estimate == free - 3
    found.refused = [5]
    assert found.standing().estimate == 10


def test_a_running_probe_counts_as_those_that_ended():
    """What it has seen until now is taken as seen."""
    counts = HitCount(600, 300, 600.0)
    running = evidence(GOOD).standing(ProbeCounts(40.0, (counts,)))
    assert running == evidence(GOOD, BAD).standing()
    assert evidence(GOOD).standing(ProbeCounts(40.0, (counts,), True)).failed == 40


def test_requests_that_depend_on_each_other_count_less():
    """A tenth of them are as good as so few independent ones; a probe counts as its neighbours do on average."""
    alone, in_rows = (
        evidence(*(a_probe(users, hits, 600, inefficiency=each) for users, hits in ((10, 590), (40, 300)))).standing()
        for each in (1.0, 10.0)
    )
    assert in_rows.high - in_rows.low > 1.3 * (alone.high - alone.low)
    short = a_probe(12, 118, 120)
    near, far = (
        evidence(short, a_probe(users, 590, 600, inefficiency=10.0)).borders()[0].share_interval(12, 0.95)
        for users in (15, 100)
    )
    assert near != far
    (nobody,) = evidence(short).borders()
    assert nobody.share(12) > nobody.share(24) > nobody.share(48)


def test_the_next_load_is_near_the_estimate_and_within_the_likely_range():
    """At most a factor of 1.45 away, on the grid."""
    for probes in ((GOOD, BAD), (GOOD,), (BAD,), (a_probe(1, 0, 300),), (a_probe(200, 2000, 2000),)):
        found = evidence(*probes)
        standing = found.standing()
        at, estimate = found.next_load(standing), max(1, standing.estimate)
        assert 1 <= at <= 200
        assert estimate / 1.45 - 1 <= at <= estimate * 1.45 + 1
        assert max(1, standing.low) <= at <= standing.high + 1


def test_the_next_load_is_one_above_the_likely_range_at_most():
    """Where nothing has failed, higher loads tell more."""
    for high in (11, 12, 13):
        assert evidence(GOOD).next_load(Standing(None, None, 10, high, 11)) == high + 1


def test_the_next_load_is_the_one_that_tells_most_per_second():
    """Among those that may be measured no other load tells more of the border, times its requests per second."""
    found = evidence(GOOD, BAD)
    standing = found.standing()
    (border,) = found.borders()
    gain = {at: border.information(at) * at for at in range(standing.low, standing.high + 2)}
    assert gain[found.next_load(standing)] >= 0.99 * max(
        gain[at] for at in gain if standing.estimate / 1.45 <= at <= standing.estimate * 1.45
    )


def test_a_verification_is_informed_if_it_could_have_contradicted():
    """Some 14 independent requests by p95; earlier verifications of about the same load count, other probes do not."""

    def informed(n: float, *earlier: ProbeResult, purpose=Purpose.VERIFY, at=20) -> bool:
        found = evidence(*earlier)
        return found._assess(Probe(at, purpose), float(at), (HitCount(round(n), round(n), n),), False).informed

    # ln(7) / KL(0.8, 0.95): four times as many misses as are allowed.
    least = 1.92 / (0.8 * math.log(0.8 / 0.95) + 0.2 * math.log(0.2 / 0.05))
    assert 13 < least < 14
    assert informed(least + 0.01)
    assert not informed(least - 0.01)
    assert informed(0, purpose=Purpose.REFINE)
    before = a_probe(20, 10, 10, purpose=Purpose.VERIFY)
    assert informed(least - 9.99, before)
    assert not informed(least - 10.01, before)
    assert not informed(least - 9.99, msgspec.structs.replace(before, purpose=Purpose.TEST))
    for users, counts in ((18, False), (19, True), (21, True), (22, False)):
        assert informed(least - 9.99, msgspec.structs.replace(before, users=users, at=users)) is counts
    for users, counts in ((46, False), (47, True), (53, True), (54, False)):
        assert informed(least - 9.99, msgspec.structs.replace(before, users=users, at=users), at=50) is counts


def test_each_objective_must_be_able_to_contradict():
    """A verification whose requests lack the figure of one of them tells nothing of that one."""
    rules = (parse_objective("ttft_p50<1s"), TTFT)
    for n, informed in (((0.0, 30.0), False), ((30.0, 5.0), False), ((30.0, 30.0), True)):
        counts = tuple(HitCount(round(one), round(one), one) for one in n)
        found = evidence(objectives=rules)._assess(Probe(20, Purpose.VERIFY), 20.0, counts, False)
        assert found.informed is informed


def test_a_probe_leans_as_its_worst_objective_does():
    """By independent requests; a hopeless one fails by itself, however few requests it has."""
    found = evidence(objectives=(TTFT, FAILURES))
    counts = HitCount(200, 200, 200.0), HitCount(200, 180, 200.0)
    finding = found._assess(Probe(20, Purpose.REFINE), 20.0, counts, False)
    assert finding.leaning == pytest.approx(-(180 * math.log(0.9 / 0.95) + 20 * math.log(0.1 / 0.05)))
    assert finding.misses == pytest.approx(10)
    tenth = tuple(dataclasses.replace(count, inefficiency=10.0) for count in counts)
    assert found._assess(Probe(20, Purpose.REFINE), 20.0, tenth, False).leaning == pytest.approx(finding.leaning / 10)
    hopeless = found._assess(Probe(20, Purpose.REFINE), 20.0, (HitCount(), HitCount()), True)
    assert (hopeless.decision, hopeless.leaning) == ("FAIL", -math.inf)


# Adding what was measured.


def added(samples, *, found=None, load=None, purpose=Purpose.REFINE, aborted="", level=0):
    """(the finding, the evidence) after a probe with these requests."""
    load = load or Closed(4)
    found = found or evidence(objectives=(TTFT, FAILURES), closed=isinstance(load, Closed))
    probe = Probe(found.grid.nearest(amount_of(load)), purpose, visit=2)
    monitor = found.monitor(probe, load, opens_ns=0)
    samples = list(samples)
    for sample in samples:
        monitor.started(sample.number, sample.due_ns)
        monitor.add(sample)
    recording = dataclasses.replace(a_recording(samples), aborted=aborted)
    return found.add_probe(probe, load, recording, monitor, level=level), found


def quick(n: int, first: int = 0):
    """So many answers of half a second, one every 100 ms, in turn with 100 and 200 ms to the first token."""
    return [
        a_sample(number, due_ns=number * S // 10, ttft_ns=(100 + 100 * (number % 2)) * MS)
        for number in range(first, first + n)
    ]


def test_a_finished_probe_is_kept_as_it_was_measured():
    """Its load, its place, its requests by objective, and how long a response usually takes."""
    slow = [a_sample(number, due_ns=number * S // 10, ttft_ns=3 * S) for number in range(90, 98)]
    failed = [a_failure(Outcome.RESET, number=98, due_ns=98 * S // 10)]
    left = [a_failure(Outcome.GAVE_UP, number=99, due_ns=99 * S // 10)]
    finding, found = added([*quick(90), *slow, *failed, *left], level=3)
    (probe,) = found.probes
    assert (probe.users, probe.rate_per_s, probe.level, probe.at, probe.visit) == (4, msgspec.UNSET, 3, 4, 2)
    assert (probe.requests, probe.gave_up, probe.window_s, probe.overloaded) == (100, 1, 100.0, False)
    assert probe.answer_s == pytest.approx(0.4, rel=0.02)
    first, second = probe.attainment[TTFT.rule], probe.attainment[FAILURES.rule]
    assert (first.requests, first.hits, first.asked) == (100, 90, 0.95)
    assert (second.requests, second.hits, second.asked) == (99, 98, 0.95)
    assert first.interval[0] < first.share == 0.9 < first.interval[1] < 1
    assert (probe.leaning, probe.decision, probe.informed) == (finding.leaning, finding.decision, True)
    assert finding.leaning < 0
    assert finding.standing == found.standing()


def test_a_probe_by_rate_has_a_rate():
    """And no number of users."""
    grid = Rates.of(0.1, 100)
    _, found = added(quick(50), found=evidence(objectives=(TTFT,), grid=grid, closed=False), load=Open(10.0, None))
    (probe,) = found.probes
    assert (probe.users, probe.rate_per_s, probe.amount, probe.gave_up) == (msgspec.UNSET, 10.0, 10.0, 0)


def test_an_aborted_probe_fails_whatever_its_requests_show():
    """It leans to FAIL as clearly as bracketing asks for; one that leans more keeps that."""
    finding, found = added(quick(100), aborted="failures>20%: it was 30 %")
    assert (finding.decision, finding.leaning, found.probes[0].leaning) == ("FAIL", -3.0, -3.0)
    assert found.probes[0].aborted == "failures>20%: it was 30 %"
    assert finding.standing.failed == 4
    slow = [a_sample(number, due_ns=number * S // 10, ttft_ns=3 * S) for number in range(100)]
    assert added(slow, aborted="x")[0].leaning < -3.0


def test_a_figure_that_no_request_has_is_one_message():
    """Responses of a single token have no TPOT; where none of the users would have waited, nothing is wrong."""
    rule = parse_objective("tpot_p95<80ms")
    with pytest.raises(BadInput, match="none of 30 requests has a tpot"):
        added([dataclasses.replace(one, output_tokens=1) for one in quick(30)], found=evidence(objectives=(rule,)))
    _, found = added([], found=evidence(objectives=(rule,)))
    assert found.probes[0].attainment[rule.rule].interval is None
    assert found.probes[0].attainment[rule.rule].share is None


def test_a_search_goes_on_with_what_an_earlier_one_has_found():
    """The same standing and the same counts of requests in flight; what is saved can be read again."""
    _, first = added(quick(100), found=evidence(think_s=1.0))
    added(quick(80), found=first, load=Closed(8))
    saved = Capacity(
        status="inconclusive", objectives=[], model="m", budget_s=1.0, probes=first.probes, in_flight=first.in_flight
    )
    again = evidence(think_s=1.0)
    again.resume(msgspec.json.decode(msgspec.json.encode(saved), type=Capacity))
    assert again.probes == first.probes
    assert again.in_flight == first.in_flight
    assert again.standing() == first.standing()
    assert sum(again.in_flight.met) == sum(again.in_flight.ended) == 180
    old = evidence()
    old.resume(msgspec.structs.replace(saved, in_flight=None))
    assert old.probes == first.probes
    assert old.in_flight.met == [0.0]


def test_no_rate_above_what_the_server_completes_is_likely():
    """Three users' worth of slots complete 3 per second; a higher rate was tried, and its requests were still quick."""

    def standing(*probes: ProbeResult, closed=False) -> Standing:
        found = evidence(*probes, grid=Rates.of(0.1, 100), closed=closed)
        found._states.reach(4)
        found._states.seconds[:], found._states.ended[:] = 100.0, [0.0, 100.0, 200.0, 300.0, 300.0]
        return found.standing()

    def top(found: Standing) -> float:
        return Rates.of(0.1, 100).amount(found.estimate)

    low = a_probe(1.0, 300, 300, by="rate_per_s", leaning=1.0)
    near, high = (a_probe(rate, 97, 100, by="rate_per_s", leaning=-0.1) for rate in (3.2, 5.0))
    assert top(standing(low, high)) <= 3.0
    slow = a_probe(1.5, 150, 300, by="rate_per_s", leaning=-9.0)
    assert top(standing(low, slow, high)) < 1.5
    # Not clearly more was tried, or a load that leans to PASS is higher: nothing is known.
    assert top(standing(low, near)) > 3.0
    assert top(standing(low, msgspec.structs.replace(high, leaning=1.0))) > 3.0
    assert top(standing(low, high, closed=True)) > 3.0
