"""The recorder: measured requests' latencies, the window's production, and every request somewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.plan.load import LevelDuration, Phase, Phases
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.recorder import METRICS, Health, LevelRecording, Production, Recorder
from loadbench.record.request import Destination
from loadbench.record.timings import Timings
from loadbench.record.window_tally import WindowTally
from tests.building import record_in_order
from tests.record.test_sample import make_sample

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

MS = 1_000_000
HEALTH = Health(stamp_source="virtual", loop_lag=Histogram(), gc_pauses=Histogram(), cpu_share=None)
# The window of most tests: from 1000 to 2000 ms.
OPENS, CLOSES = 1000 * MS, 2000 * MS


def _phases(*, duration_ns: int = CLOSES - OPENS) -> Phases:
    return Phases(LevelDuration(duration_ns=duration_ns, warm_up_ns=OPENS, cool_down_ns=10**12), 0)


def _close(recorder: Recorder, window: tuple[int, int] = (OPENS, CLOSES)) -> LevelRecording:
    return recorder.close(window=window, arrivals_due=0, missed=0, interrupted=False, health=HEALTH)


def _record(*samples: Sample) -> LevelRecording:
    """The recording of these requests, started and ended in the order of time."""
    recorder = Recorder(_phases())
    record_in_order(recorder, samples)
    assert recorder.in_flight == 0
    return _close(recorder)


def _at(*ms: int, **more: object) -> Sample:
    """Due and sent at the first of these ms, one token at each of the others."""
    stamps = [at * MS for at in ms[1:]]
    facts = {"tokens": [1] * len(stamps), "due_ns": ms[0] * MS, "sent_ns": ms[0] * MS, "input_tokens": 10} | more
    return make_sample(stamps, **facts)  # type: ignore[arg-type]


def test_every_figure_of_a_request_lands_in_its_histogram() -> None:
    """One request with distinct marks: each metric holds exactly its own figure."""
    sample = make_sample(
        [1140 * MS, 1340 * MS, 1940 * MS],
        tokens=[2, 1, 2],
        due_ns=1000 * MS,
        sent_ns=1010 * MS,
        end_ns=1950 * MS,
        first_byte_ns=1120 * MS,
        first_visible_ns=1340 * MS,
        connect_ns=4 * MS,
    )
    histograms = _record(sample).histograms
    means = {name: None if one.mean is None else one.mean / MS for name, one in histograms.items()}
    assert tuple(means) == METRICS
    assert means == {
        "ttft": 130,
        "ttft_response": 140,
        "ttfo": 330,
        "ttfb": 110,
        "e2e": 930,
        "e2e_response": 940,
        "stream_end": 940,
        "event_gap": 400,
        "itl": pytest.approx(800 / 3),
        "tpot": pytest.approx(800 / 3),
        "tpot_classic": 200,
        "e2e_per_token": 186,
        "lateness": 6,
        "connect": 4,
    }
    assert (histograms["itl"].count, histograms["event_gap"].count) == (3, 2)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1000, 1500), st.lists(st.integers(1, 40), min_size=1, max_size=8)), min_size=1, max_size=8
    )
)
def test_sums_close_exactly_over_a_level(plan: list[tuple[int, list[int]]]) -> None:
    """Σ E2E - Σ TTFT = Σ event gaps, and tokens by request = tokens in the window that holds them all."""
    samples = []
    for sent, gaps in plan:
        stamps = [sent + sum(gaps[: n + 1]) for n in range(len(gaps))]
        samples.append(_at(sent, *stamps, tokens=[2] * len(gaps)))
    recording = _record(*samples)
    sums = {name: histogram.sum for name, histogram in recording.histograms.items()}
    assert sums["e2e"] - sums["ttft"] == sums["event_gap"]
    assert sums["e2e_response"] - sums["ttft_response"] == sums["event_gap"]
    assert recording.output_tokens == sum(2 * len(gaps) for _, gaps in plan)
    inside = sum(2 for sample in samples for at in sample.event_ns if at > OPENS)
    assert recording.production.output_tokens == inside == recording.output_tokens


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=30).map(sorted),
    st.integers(1, 60),
    st.integers(1, 30),
    st.booleans(),
)
def test_tokens_are_attributed_to_adjacent_windows_without_loss(
    stamps: list[int], output_tokens: int, pieces: int, known: bool
) -> None:
    """Windows that tile the time share a request's tokens out, none lost and none twice, known per event or not."""
    sample = make_sample(
        [at * MS + MS for at in stamps],
        tokens=[output_tokens] * len(stamps) if known else None,
        output_tokens=output_tokens * len(stamps) if known else output_tokens,
    )
    total = 0
    for piece in range(pieces):
        bounds = 3002 * MS * piece // pieces, 3002 * MS * (piece + 1) // pieces
        recorder = Recorder(Phases(LevelDuration(duration_ns=bounds[1] - bounds[0], warm_up_ns=bounds[0]), 0))
        recorder.started(0)
        recorder.add(sample)
        total += _close(recorder, bounds).production.output_tokens
    assert total == sample.output_tokens


def test_the_window_counts_what_arrives_inside_it_whoever_asked() -> None:
    """A request of the warm-up that still streams in the window produces there, but is no latency of the level."""
    warm = _at(900, 950, 1000, 1001, 1999, 2000, 2001, phase=Phase.WARM_UP)
    recording = _record(warm)
    assert recording.production == Production(answers=0, output_tokens=3, input_tokens=0)
    assert recording.outcomes == {}
    assert recording.output_tokens == 0
    assert recording.phases == {Phase.WARM_UP: 1}
    assert all(not histogram.count for histogram in recording.histograms.values())


def test_a_measured_request_is_a_latency_however_late_it_ends() -> None:
    """It became due inside: it is measured, though its last tokens and its answer belong to no window."""
    recording = _record(_at(1990, 1995, 2500, 3000))
    assert recording.outcomes == {Outcome.OK: 1}
    assert recording.histograms["e2e"].max == 1010 * MS
    assert (recording.output_tokens, recording.input_tokens) == (3, 10)
    assert recording.production == Production(answers=0, output_tokens=1, input_tokens=10)


def test_a_prompt_counts_when_its_first_token_comes() -> None:
    """Input is work done by the first token: inside for the one, before the window for the other."""
    recording = _record(_at(900, 990, 1100, phase=Phase.WARM_UP), _at(950, 1010, 1100, phase=Phase.WARM_UP))
    assert recording.production == Production(answers=2, output_tokens=3, input_tokens=10)


def test_a_failure_produces_nothing_and_is_no_latency() -> None:
    """Its tokens are not throughput and its times are in no histogram but lateness; what it said is kept."""
    broken = _at(1100, 1200, 1300, outcome=Outcome.TRUNCATED, detail="the stream ended early")
    recording = _record(broken, _at(1100, 1400))
    assert recording.outcomes == {Outcome.TRUNCATED: 1, Outcome.OK: 1}
    assert recording.details == {(Outcome.TRUNCATED, "the stream ended early"): 1}
    assert recording.production == Production(answers=1, output_tokens=1, input_tokens=10)
    assert {name: recording.histograms[name].count for name in ("e2e", "ttft", "lateness")} == {
        "e2e": 1,
        "ttft": 1,
        "lateness": 2,
    }


def test_what_we_cut_short_ourselves_was_produced() -> None:
    """The server made the tokens of an abandoned request; only its answer is missing."""
    recording = _record(_at(1100, 1200, 1300, outcome=Outcome.ABANDONED))
    assert recording.production == Production(answers=0, output_tokens=2, input_tokens=10)


def test_failures_in_endless_variety_stay_bounded() -> None:
    """Beyond 50 different details they are counted together, and no failure is lost."""
    # Letters, as numbers alone make no other kind.
    words = [f"it is {chr(0x4E00 + n)}" for n in range(200)]
    failures = [_at(1000, outcome=Outcome.HTTP_ERROR, detail=detail, end_ns=1001 * MS) for detail in words]
    recording = _record(*failures)
    assert len(recording.details) == 51
    assert sum(recording.details.values()) == recording.outcomes[Outcome.HTTP_ERROR] == 200
    assert recording.details[Outcome.HTTP_ERROR, "(others)"] == 150


def test_words_in_endless_variety_stay_bounded() -> None:
    """Names, reasons and types that are new in each response: 50 of each are kept, by group too, and none is lost."""
    words = [f"it is {chr(0x4E00 + n)}" for n in range(200)]
    samples = [_at(1000, 1100, model=word, finish_reason=word, content_type=word, persona="chat") for word in words]
    recording = _record(*samples)
    by_persona = recording.groups["persona", "chat"].models
    for counted in (recording.models, recording.finish_reasons, recording.unread.content_types, by_persona):
        assert (len(counted), sum(counted.values()), counted["(others)"]) == (51, 200, 150)


def test_undefined_figures_are_counted_and_never_imputed() -> None:
    """One token: no gaps, no ITL, no TPOT. Figures and undefined ones together are all ok requests."""
    recording = _record(_at(1000, 1100), _at(1000, 1100, 1200), _at(1000, 1100, 1300, tokens=None))
    undefined = {"event_gap": 1, "itl": 2, "tpot": 2, "tpot_classic": 2, "e2e_per_token": 1}
    assert recording.undefined == undefined
    for name in ("tpot", "tpot_classic", "e2e_per_token"):
        assert recording.histograms[name].count + recording.undefined[name] == 3


def test_b10_the_peak_in_flight_is_exact() -> None:
    """Back-to-back requests of two users are two in flight, though four touch the same second."""
    recording = _record(_at(1000, 1400), _at(1000, 1500), _at(1400, 1900), _at(1500, 1900))
    assert recording.in_flight_peak == 2
    assert recording.in_flight_mean == pytest.approx((400 + 500 + 500 + 400) / 1000)


def test_the_peak_is_that_of_the_window() -> None:
    """A crowd that has gone before the window, or comes after it, is no peak of it; who is still there is."""
    crowd = [_at(100, 200 + n, phase=Phase.WARM_UP) for n in range(9)]
    late = [_at(2100, 2200 + n, phase=Phase.COOL_DOWN) for n in range(9)]
    lasting = [_at(900, 2500, phase=Phase.WARM_UP) for _ in range(3)]
    recording = _record(*crowd, *late, *lasting, _at(1500, 1600))
    assert recording.in_flight_peak == 4
    assert recording.in_flight_mean == pytest.approx(3.1)


def test_requests_that_last_over_the_whole_window_are_in_flight_in_it() -> None:
    """Whether they begin before it or as it opens, and though nothing else happens inside."""
    for begins_ms, ends_ms in ((900, 2500), (1000, 2500), (900, 2000), (1000, 2000)):
        recording = _record(_at(begins_ms, ends_ms), _at(begins_ms, ends_ms))
        assert (recording.in_flight_peak, recording.in_flight_mean) == (2, 2.0)
    outside = _record(_at(100, 1000, phase=Phase.WARM_UP), _at(2000, 2100, phase=Phase.COOL_DOWN))
    assert (outside.in_flight_peak, outside.in_flight_mean) == (0, 0.0)


def test_an_end_that_is_reported_late_still_finds_its_place() -> None:
    """Up to five seconds late: two requests that followed each other were never in flight together."""
    phases = Phases(LevelDuration(duration_ns=20_000 * MS), 0)
    recorder = Recorder(phases)
    for sent_ms in (1000, 3000, 5900):
        recorder.started(sent_ms * MS)
    for sent_ms, end_ms in ((1000, 1500), (3000, 4000), (5900, 6000)):
        recorder.add(_at(sent_ms, end_ms))
    assert _close(recorder, (0, 20_000 * MS)).in_flight_peak == 1


def test_only_what_happened_lately_waits_for_its_place() -> None:
    """A level of many hours takes no more memory: what is older than a few seconds is counted."""
    phases = Phases(LevelDuration(duration_ns=10**12), 0)
    tally = WindowTally(phases)
    for number in range(1000):
        tally.started(100 * number * MS)
        tally.ended(_at(100 * number, 100 * number + 50))
    assert len(tally._waiting) <= 200
    assert tally.production.answers > 900


def test_a_window_that_opens_later_has_its_slices_from_then_on() -> None:
    """How long a warm-up by number takes is known only as it ends."""
    phases = Phases(LevelDuration(duration_ns=1000 * MS, warm_up_ns=0, most_warm_up_ns=10**12), 0)
    recorder = Recorder(phases)
    early, first, second = _at(300, 310, phase=Phase.WARM_UP), _at(1000, 1250), _at(1000, 1290)
    recorder.started(300 * MS)
    recorder.add(early)
    phases.opens_ns, phases.closes_ns = OPENS, CLOSES
    for sample in (first, second):
        recorder.started(1000 * MS)
        recorder.add(sample)
    recording = _close(recorder)
    assert recording.answers_by_slice == recording.tokens_by_slice == (0, 0, 2, 0, 0, 0, 0, 0, 0, 0)
    assert recording.timeline.ttft_count == (2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert recording.timeline.in_flight == pytest.approx((2, 2, 1.4, 0, 0, 0, 0, 0, 0, 0))


def test_the_totals_of_the_audit_and_the_course_are_of_the_same_requests() -> None:
    """Spans, gaps and first tokens of a request that lies inside, and of one that was there before."""
    recording = _record(_at(1100, 1200, 1300, 1450, tokens=[2, 1, 3]), _at(900, 1150, phase=Phase.WARM_UP))
    totals = recording.audit_totals
    assert (totals.ended, totals.residence_ns, totals.edge_ns) == (2, 600 * MS, 100 * MS)
    assert (totals.paced_ns, totals.paced_tokens, totals.unpaced) == (250 * MS, 4, 0)
    assert (totals.swept_ns, totals.foreign_tokens) == (500 * MS, 1)
    assert recording.timeline.ttft_ns == (0, 100 * MS, 0, 0, 0, 0, 0, 0, 0, 0)
    after = _record(_at(1900, 1910, 1920, 2300, tokens=[1, 0, 2])).audit_totals
    assert (after.ended, after.edge_ns, after.unpaced, after.paced_tokens) == (0, 100 * MS, 1, 0)


def test_responses_are_counted_by_the_slice_in_which_they_end() -> None:
    """Each once; those outside the window in none."""
    recording = _record(_at(1000, 1250), _at(1000, 1010), _at(1000, 1290), _at(1000, 2100))
    assert recording.answers_by_slice == (1, 0, 2, 0, 0, 0, 0, 0, 0, 0)


def test_what_was_never_sent_has_arrived_if_it_was_due_and_not_cut() -> None:
    """Refused ones of the window count as sent; those of other phases, and those that the user cut, do not."""
    unsent = {"sent_ns": None, "end_ns": 1300 * MS}
    refused, cut = (_at(1200, outcome=outcome, **unsent) for outcome in (Outcome.REFUSED, Outcome.CANCELLED))
    early = _at(900, outcome=Outcome.REFUSED, phase=Phase.WARM_UP, **unsent)
    assert _record(refused, cut, early).arrivals_sent == 1


def test_refused_request_was_started_and_never_in_flight() -> None:
    """A refused connection has an outcome, counts as started, and has no share in concurrency."""
    refused = _at(1200, outcome=Outcome.REFUSED, sent_ns=None, end_ns=1300 * MS)
    recording = _record(
        refused, _at(1000, 1100), _at(999, 1100, phase=Phase.WARM_UP), _at(2000, 2100, phase=Phase.COOL_DOWN)
    )
    assert recording.arrivals_sent == 2
    assert recording.in_flight_mean == pytest.approx(0.2)
    assert recording.undefined["lateness"] == 1


def test_a_level_by_number_counts_to_where_its_window_closes() -> None:
    """While the window is open everything after the warm-up is inside; as it closes, nothing more is."""
    phases = Phases(LevelDuration(requests=2, warm_up_ns=OPENS), 0)
    recorder = Recorder(phases)
    for due in (1000 * MS, 1000 * MS):
        assert phases.admit(due) is Phase.MEASURED
        recorder.started(due)
    recorder.add(_at(1000, 1100, 1200))
    phases.close(1200 * MS)
    recorder.add(_at(1000, 1100, 1200, 1300))
    recording = _close(recorder, (OPENS, 1200 * MS))
    assert recording.production == Production(answers=1, output_tokens=4, input_tokens=20)
    assert recording.in_flight_mean == pytest.approx(2.0)
    assert recording.window_s == 0.2


def test_sources_reasons_reads_and_names_are_counted() -> None:
    """What a verdict asks for: where counts come from, how answers ended, how bytes came, who answered."""
    sample = _at(
        1000,
        1100,
        1200,
        token_source=TokenSource.USAGE,
        finish_reason="stop",
        reads=2,
        merged_reads=1,
        reused=True,
        reconnects=1,
        cached_tokens=16,
        model="m",
    )
    recording = _record(sample, _at(1000, 1100, input_tokens=None))
    assert recording.token_sources == {TokenSource.USAGE: 1, TokenSource.UNKNOWN: 1}
    assert recording.finish_reasons == {"stop": 1, "none": 1}
    assert (recording.reads, recording.merged_reads, recording.reused, recording.reconnects) == (2, 1, 1, 1)
    assert (recording.cached, recording.unknown_input_tokens) == (1, 1)
    assert recording.models == {"m": 1, "": 1}


@pytest.mark.parametrize(("asked", "told"), [(100, 102), (100, None), (None, 100)])
def test_h2_lengths_of_prompts_are_those_that_the_server_reports(asked: int | None, told: int | None) -> None:
    """Only where a length was asked for and the server told the true one."""
    lengths = _record(_at(1000, 1100, target_input_tokens=asked, input_tokens=told)).prompt_lengths
    known = asked is not None and told is not None
    assert (lengths.requests, lengths.tokens, lengths.target) == ((1, told, asked) if known else (0, 0, 0))


def test_h2_mean_and_spread_of_prompt_lengths() -> None:
    """Relative to the target of each prompt."""
    pairs = [(100, 90), (100, 110), (200, 220), (200, 180)]
    samples = [_at(1000 + n, 1100 + n, target_input_tokens=a, input_tokens=t) for n, (a, t) in enumerate(pairs)]
    lengths = _record(*samples).prompt_lengths
    assert lengths.error == 0
    assert lengths.spread == pytest.approx(0.1)
    assert (lengths.least, lengths.most) == (90, 220)


def test_the_spread_of_prompt_lengths_is_that_of_their_ratios() -> None:
    """Also where every prompt is too long; the sums are the server's and the targets' own."""
    pairs = [(100, 150), (200, 220)]
    samples = [_at(1000 + n, 1100 + n, target_input_tokens=a, input_tokens=t) for n, (a, t) in enumerate(pairs)]
    lengths = _record(*samples).prompt_lengths
    assert (lengths.requests, lengths.tokens, lengths.target, lengths.least, lengths.most) == (2, 370, 300, 150, 220)
    assert lengths.error == pytest.approx(370 / 300 - 1)
    assert lengths.spread == pytest.approx(0.2)  # ratios of 1.5 and 1.1
    none = _record(_at(1000, 1100)).prompt_lengths
    assert (none.error, none.spread) == (0, 0)


USAGE = {"token_source": TokenSource.USAGE, "finish_reason": "length"}


@pytest.mark.parametrize(
    ("facts", "shorter", "longer", "cut_short"),
    [
        ({"output_tokens": 10, **USAGE}, 0, 0, 0),
        ({"output_tokens": 11, **USAGE}, 0, 1, 0),
        ({"output_tokens": 9, **USAGE}, 1, 0, 0),  # some count the last token, some do not
        ({"output_tokens": 8, **USAGE}, 1, 0, 1),
        ({"output_tokens": 8, **USAGE, "finish_reason": "stop"}, 1, 0, 0),
        ({"output_tokens": 8, **USAGE, "reasoning_tokens": 2}, 1, 0, 0),
        ({"output_tokens": 8, **USAGE, "token_source": TokenSource.UNKNOWN}, 1, 0, 0),
        ({"output_tokens": None, "tokens": None, "finish_reason": "length"}, 0, 0, 0),
    ],
)
def test_answers_are_as_long_as_requested_or_not(
    facts: dict[str, object], shorter: int, longer: int, cut_short: int
) -> None:
    """Of at most 10 tokens; one is cut short only where its server surely counted, and ended it for its length."""
    recording = _record(_at(1000, 1100, **{"max_tokens": 10, **facts}), _at(1000, 1100, **{"max_tokens": 10, **facts}))
    found = recording.answers_shorter, recording.answers_longer, recording.cut_short
    assert found == (2 * shorter, 2 * longer, 2 * cut_short)


@pytest.mark.parametrize(
    ("facts", "busy"),
    [
        ({"outcome": Outcome.HTTP_ERROR, "status": 429}, True),
        ({"outcome": Outcome.HTTP_ERROR, "status": 503}, True),
        ({"outcome": Outcome.HTTP_ERROR, "status": 504}, True),
        ({"outcome": Outcome.HTTP_ERROR, "status": 500}, False),
        ({"outcome": Outcome.REFUSED}, True),
        ({"outcome": Outcome.TIMEOUT_IDLE}, True),
        ({"outcome": Outcome.TRUNCATED}, False),
    ],
)
def test_some_failures_are_those_of_a_busy_server(facts: dict[str, object], busy: bool) -> None:
    """By status or by outcome, each once."""
    assert _record(*(_at(1000, 1100, **facts) for _ in range(2))).refused_load == 2 * busy


def test_the_servers_own_times_are_kept() -> None:
    """What it reports, and the rest of the time to first token, which is never negative."""
    timings = Timings(queue_ns=10 * MS, prefill_ns=60 * MS, decode_ns=40 * MS)
    recording = _record(_at(1000, 1100, 1140, timings=timings), _at(1000, 1050, 1100, timings=timings))
    times = {name: recording.histograms[f"server_{name}"] for name in ("queue", "prefill", "decode", "rest")}
    assert {name: (one.count, one.sum) for name, one in times.items()} == {
        "queue": (2, 20 * MS),
        "prefill": (2, 120 * MS),
        "decode": (2, 80 * MS),
        "rest": (2, 30 * MS),
    }
    only_decode = _record(_at(1000, 1100, 1140, timings=Timings(decode_ns=40 * MS)))
    assert {name for name in only_decode.histograms if name.startswith("server")} == {"server_decode"}


@pytest.mark.parametrize(("reported_ns", "contradicted"), [(101 * MS, 0), (101 * MS + 1, 2)])
def test_a_server_that_reports_more_than_was_waited_contradicts_itself(reported_ns: int, contradicted: int) -> None:
    """By more than servers round their times."""
    samples = [_at(1000, 1100, timings=Timings(prefill_ns=reported_ns)) for _ in range(2)]
    assert _record(*samples).contradicted == contradicted


def test_what_came_besides_the_text_is_counted() -> None:
    """Keep-alives of all measured requests; of ok ones the frames that were not understood, and what the first said."""
    odd = [_at(1000, 1100, unread_frames=n, detail=f"what {n}?", keep_alives=2) for n in (2, 3)]
    broken = _at(1000, 1100, outcome=Outcome.TRUNCATED, detail="ended", unread_frames=7, keep_alives=4)
    unread = _record(_at(1000, 1100, detail="nothing odd"), broken, *odd).unread
    assert (unread.frames, unread.requests, unread.words, unread.keep_alives) == (5, 2, "what 2?", 8)


@pytest.mark.parametrize(("template_tokens", "least"), [(0, 16), (10, 16), (11, 17), (30, 36)])
def test_a_cached_template_is_no_cached_prompt(template_tokens: int, least: int) -> None:
    """A request counts as cached from a block of vLLM on, and above the template and a few more tokens."""
    recorder = Recorder(_phases(), template_tokens=template_tokens)
    for tokens in (least - 1, least, None, 5):
        recorder.started(1000 * MS)
        recorder.add(_at(1000, 1100, cached_tokens=tokens, warm=tokens != 5))
    recording = _close(recorder)
    assert recording.cached == 1
    cache = recording.prefix_cache
    assert (cache.requests, cache.cached, cache.cached_tokens, cache.input_tokens) == (3, 1, 2 * least - 1, 20)


def test_groups_stand_in_the_order_in_which_they_were_given() -> None:
    """Those of a mix by endpoint; personas by name; each with its requests only."""
    to = [Destination(0, "z", "http://b"), Destination(1, "a", "http://a")]
    samples = [_at(1000 + n, 1100 + n, destination=to[n % 2], persona="yx"[n % 2], turn=1 + n) for n in range(3)]
    recording = _record(*samples, _at(2100, 2200, destination=to[0], phase=Phase.COOL_DOWN))
    assert [(name, stats.requests) for name, stats in recording.groups_of("model").items()] == [("z", 2), ("a", 1)]
    assert list(recording.groups_of("server")) == ["http://b", "http://a"]
    assert list(recording.groups_of("persona")) == ["x", "y"]
    assert recording.turns == {1: 1, 2: 1, 3: 1}
    assert recording.groups_of("model")["z"].produced == Production(answers=2, output_tokens=2, input_tokens=20)


def test_tokens_that_nobody_counted_are_not_summed() -> None:
    """Neither those of the prompt nor those of the response."""
    recording = _record(_at(1000, 1100, tokens=None, input_tokens=None), _at(1000, 1100, 1200))
    assert (recording.output_tokens, recording.input_tokens, recording.unknown_input_tokens) == (2, 10, 1)


def test_a_request_that_was_given_up_is_no_failure() -> None:
    """It has an outcome, and no words among those of the failures."""
    recording = _record(_at(1000, 1100, outcome=Outcome.GAVE_UP, detail="left", status=429))
    assert (recording.outcomes, recording.details, recording.refused_load) == ({Outcome.GAVE_UP: 1}, {}, 0)


def test_what_the_level_knows_goes_through() -> None:
    """Arrivals, missed slots, interruption and health are the level's to tell."""
    recording = Recorder(_phases()).close(
        window=(OPENS, CLOSES), arrivals_due=7, missed=2, interrupted=True, health=HEALTH
    )
    assert (recording.arrivals_due, recording.missed, recording.interrupted) == (7, 2, True)
    assert recording.health is HEALTH
    assert (recording.lost_workers, recording.unreported) == (0, 0)
    assert (recording.in_flight_peak, recording.in_flight_mean, recording.window_s) == (0, 0.0, 1.0)


def test_an_empty_window_divides_nothing() -> None:
    """Stopped before the window opened, a level still has a recording."""
    recording = replace(_close(Recorder(_phases()), (OPENS, OPENS)))
    assert (recording.in_flight_mean, recording.window_s) == (0.0, 0.0)


def test_one_of_two_processes_reports_long_after_the_other() -> None:
    """Their requests are in flight when they were, and not when they became known: two at most, one of each."""
    phases = _phases(duration_ns=30_000 * MS)
    recorder, late = Recorder(phases), [_at(1000 * n, 1000 * n + 500) for n in range(30)]
    recorder.reported_until(0)
    for sample in late:
        recorder.started(sample.due_ns)
        recorder.add(sample)
    for sample in late:  # the other one, in one batch: what began in it comes before what ended
        recorder.started(sample.due_ns)
    for sample in late:
        recorder.add(sample)
    recording = _close(recorder, (OPENS, 30_000 * MS))
    assert recording.in_flight_peak == 2
