"""The table's figures and marks, in people's units."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.cluster import REQUESTS_ELSEWHERE
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome, failed_of
from loadbench.report.html import render_html
from loadbench.report.page import run_page
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.report.run import (
    KNEE,
    UNSURE,
    by_model,
    level_table,
    load_from,
    quantile,
    run_document,
    start_text,
    title,
)
from loadbench.report.values import duration, significant, spread
from loadbench.results.run import ClosedLoad, ModelStatus, OpenLoad, ServerStart, Verdict, WorkerHealth
from tests.building import MS, S, a_failure, a_level, a_run, a_sample
from tests.report.golden import all_notes, bending, empty, level, models, stopped


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.000123, "0.000123"),
        (0.0123, "0.0123"),
        (0.5, "0.500"),
        (9.994, "9.99"),
        (9.996, "10.0"),  # rounded up into the next power of ten: still three digits
        (12.34, "12.3"),
        (99.96, "100"),
        (123.4, "123"),
        (1234.5, "1234"),
        (123456.7, "123457"),
        (-12.34, "-12.3"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_three_significant_digits(value, text):
    """Three digits, more only where whole numbers have more; never a power of ten."""
    assert significant(value) == text


@given(st.floats(1e-3, 1e9))
def test_significant_is_within_half_a_digit(value):
    """What is shown is the value to three digits or better."""
    shown = significant(value)
    assert float(shown) == pytest.approx(value, rel=0.005)
    assert "e" not in shown
    assert value >= 1000 or sum(letter.isdigit() for letter in shown.lstrip("0.")) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2.3e-7, "0.230 µs"),
        (0.00085, "850 µs"),
        (0.0009994, "999 µs"),
        (0.0009996, "1.00 ms"),
        (0.0413, "41.3 ms"),
        (0.9996, "1.00 s"),
        (1.62, "1.62 s"),
        (75.0, "75.0 s"),
        (3600.0, "3600 s"),
    ],
)
def test_duration_has_the_unit_that_suits(seconds, text):
    """Microseconds, milliseconds or seconds, changing where rounding does."""
    assert duration(seconds) == text


def cells(of, *, name: str) -> list[str]:
    """A column of a run's only table; of two columns with one name the first."""
    (levels,) = by_model(of).values()
    table = level_table(levels)
    return [row[table.headers.index(name)] for row in table.rows]


def test_bend_is_marked_once_and_explained():
    """◄ stands where throughput stops growing, and the notes say what it means."""
    run = bending()
    assert [KNEE in cell for cell in cells(run, name="tok/s")] == [False, False, True, False]
    assert any(
        note.startswith(
            "◄ the knee, where throughput stops growing, is above 2 and at most 4 users: even with the noise"
        )
        for note in all_notes(run)
    )


def test_sweep_that_still_grows_says_so():
    """Without a bend there is no mark, and the reader learns that it lies beyond."""
    run = a_run(level(1, tokens_per_s=10.0), level(2, tokens_per_s=20.0))
    assert not any(KNEE in cell for cell in cells(run, name="tok/s"))
    assert any("still grows at users=2" in note for note in all_notes(run))


def test_quantile_with_an_open_end_is_marked_and_explained():
    """100 requests bound a p95 on both sides and a p99 from below only: the latter has ~ and its lower end."""
    run = a_run(level(1, tokens_per_s=10.0))
    assert quantile(run.levels[0].metrics["ttft_s"], "p99") == "~99.0 ms (≥98)"
    assert quantile(run.levels[0].metrics["ttft_s"], "p95") == "98.0 ms ±2 %"
    assert "(≥low) the lower end of the 95 % interval: nothing bounds the value from above" in all_notes(run)
    assert any(note.startswith("~ too few independent requests") for note in all_notes(run))


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ((0.97, 1.03), "1.00 s ±3 %"),
        ((0.999, 1.0), "1.00 s ±0.1 %"),
        ((1.0, 1.0), "1.00 s ±0.1 %"),
        ((0.995, 1.0051), "1.00 s ±0.6 %"),
        ((0.901, 1.099), "1.00 s ±10 %"),
        ((0.9, 1.102), "~1.00 s ±11 %"),
        ((0.8, 1.1), "~1.00 s ±15 %"),
        ((0.97, 1.14), "1.00 s (0.97–1.1)"),
        ((0.1, 4.1), "~1.00 s (0.10–4.1)"),
        ((0.0, 17.6), "~1.00 s (0–18)"),
        ((0.9, None), "~1.00 s (≥0.90)"),
        ((0.996, None), "~1.00 s (≥1.0)"),
        ((1.0, None), "~1.00 s (≥1.0)"),
        (None, "~1.00 s"),
    ],
)
def test_quantile_is_shown_with_how_well_it_is_known(interval, shown):
    """Half the width beside it, rounded up, or the ends where its middle is more than 5 % away. ~ where it is known to
    10 % at best, only from below, or not at all."""
    ttft = level(1, tokens_per_s=10.0).metrics["ttft_s"]
    assert quantile(msgspec.structs.replace(ttft, p50=1.0, interval={"p50": interval}), "p50") == shown


def test_p999_is_told_where_the_sample_allows_its_interval():
    """A column of its own, for the few runs that are long enough, and for both ends only."""
    known = level(4, tokens_per_s=100.0)
    ttft = known.metrics["ttft_s"]
    for interval, told in (((1.9, 2.1), True), ((1.9, None), False), (None, False)):
        metric = msgspec.structs.replace(ttft, p999=2.0, interval={**ttft.interval, "p999": interval})
        table = level_table([msgspec.structs.replace(known, metrics={**known.metrics, "ttft_s": metric})])
        row = dict(zip(table.headers, table.rows[0], strict=True))
        assert row.get("TTFT p99.9") == ("2.00 s ±5 %" if told else None)


def test_mark_that_is_not_used_is_not_explained():
    """With requests enough for every quantile shown, no note speaks of too few."""
    run = a_run(a_level(a_sample(n, due_ns=n * S // 8) for n in range(500)))
    assert not any(note.startswith(UNSURE) for note in all_notes(run))
    assert not any(UNSURE in cell for row in level_table(run.levels).rows for cell in row)


def test_absent_metric_is_a_dash():
    """Where nothing was answered there is no latency, and no zero that looks like one."""
    run = a_run(a_level([a_failure(Outcome.RESET)]))
    assert cells(run, name="TTFT p50") == ["-"]
    assert cells(run, name="failed") == ["1"]


def test_requests_cut_by_the_user_are_no_failures():
    """What the user stopped failed nobody; what the drain cut did not answer in time."""
    cut = a_level([a_sample(), a_failure(Outcome.CANCELLED, number=1), a_failure(Outcome.ABANDONED, number=2)])
    assert failed_of(cut.outcomes)[0] == 1


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (Closed(1), "users=1"),
        (Closed(8), "users=8"),
        (Open(0.5, parse_arrivals("poisson")), "rate=0.5"),
        (Open(30.0, parse_arrivals("constant")), "rate=30"),
    ],
)
def test_load_is_written_as_rules_and_files_write_it(load, text):
    """The first cell of a row is the load's label."""
    assert level_table([a_level(load=load)]).rows[0][0] == text


def test_failures_are_told_in_the_servers_words():
    """The most frequent first, with their number; those beyond the third are counted."""
    samples = [a_failure(Outcome.HTTP_ERROR, number=n, detail="HTTP 503: busy") for n in range(5)]
    samples += [a_failure(Outcome.RESET, number=5 + n, detail=f"kind {n}") for n in range(4)]
    lines = all_notes(a_run(a_level(samples)))
    assert "users=1: 5 × http_error: HTTP 503: busy" in lines
    assert "users=1: 2 further failures, see run.json" in lines


def test_failures_that_differ_only_in_numbers_are_one_line():
    """A server that quotes the length of each prompt says the same each time; another status is something else."""
    samples = [
        a_failure(Outcome.HTTP_ERROR, number=n, detail=f"HTTP 400: {2900 + n // 2} tokens exceed 2048")
        for n in range(6)
    ]
    samples += [a_failure(Outcome.HTTP_ERROR, number=6, detail="HTTP 500: 2900 tokens exceed 2048")]
    lines = [line for line in all_notes(a_run(a_level(samples))) if "exceed" in line]
    assert [line.partition(" → ")[0] for line in lines] == [
        "users=1: 6 × http_error: HTTP 400: 2900 tokens exceed 2048, and others like it",
        "users=1: 1 × http_error: HTTP 500: 2900 tokens exceed 2048",
    ]


def test_notes_name_the_model_where_there_are_several():
    """The same load stands in two tables: a note says which it means."""
    lines = all_notes(models())
    assert any(line.startswith("INVALID: rate=0.5 of small: 2 of 10 requests failed") for line in lines)
    assert "gone: failed: has no model 'gone'" in lines


def test_each_model_has_its_own_table_in_order():
    """Models stand in the order of the run, each with its own levels."""
    assert [(model, len(levels)) for model, levels in by_model(models()).items()] == [("m", 1), ("small", 1)]


@pytest.mark.parametrize("run", [stopped(), empty()])
def test_run_that_is_not_complete_says_so(run):
    """Nobody shall take half a run for a whole one."""
    assert any("not complete" in note for note in all_notes(run))


def test_complete_run_with_nothing_to_say_says_nothing_more():
    """A quiet level of one model gives no note but that on how to read its figures."""
    quiet = a_run(a_level(a_sample(n, due_ns=n * S // 8, ttft_ns=50 * MS, gaps_ns=5 * MS) for n in range(500)))
    assert all_notes(msgspec.structs.replace(quiet, levels=[valid(quiet.levels[0])])) == [
        "± half the width of the 95 % interval"
    ]


def valid(one):
    """The level without what its verdict says."""
    return msgspec.structs.replace(one, verdict=msgspec.structs.replace(one.verdict, status="VALID", reasons=[]))


def test_title_names_the_target_also_without_levels():
    """From the levels, from the scenario, or the simulated server."""
    run = msgspec.structs.replace(
        a_run(), levels=[], scenario={"target": {"url": "http://127.0.0.1:9"}}, models=[ModelStatus("m", "failed")]
    )
    assert "http://127.0.0.1:9" in title(run)
    assert "http://127.0.0.1:1/v1" in title(a_run())
    assert "simulated" in title(empty())


def test_first_tokens_of_a_started_server_are_said_once():
    """In the line of its model, and not in that of its start as well."""
    start = ServerStart(command="serve", url="http://127.0.0.1:1", ready_s=4.12, cold_ttft_s=0.171, warm_ttft_s=0.0223)
    status = ModelStatus(model="m", status="ok", cold_ttft_s=0.171, warm_ttft_s=0.0223)
    run = msgspec.structs.replace(a_run(a_level()), server_start=start, models=[status])
    text = "\n".join(all_notes(run))
    assert text.count("171 ms cold") == 1
    assert "started by loadbench: ready 4.12 s after its start" in text


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        (None, "; memory 1.00 GiB after loading, 2.00 GiB at most"),
        (1, "; memory 1.00 GiB after loading, 2.00 GiB at most"),
        (6, "; memory of its 6 processes, shared pages counted in each: 1.00 GiB after loading, 2.00 GiB at most"),
    ],
)
def test_memory_of_several_processes_says_what_is_counted_twice(processes, words):
    """A server that forks its workers needs less than the sum."""
    memory = {"memory_loaded_bytes": 1 << 30, "memory_peak_bytes": 2 << 30, "processes": processes}
    assert start_text(ServerStart(command="serve", url="http://127.0.0.1:1", ready_s=4.12, **memory)).endswith(words)


@pytest.mark.parametrize(
    ("rates", "why"),
    [
        ({1: 100.0, 2: 100.0, 4: 100.0}, "--users auto ended at users=4: "),
        ({1: 100.0, 2: 200.0}, "--users auto ended at users=2: the time of --max-total was spent"),
    ],
)
def test_a_sweep_that_finds_its_levels_says_why_it_ended(rates, why):
    """By its levels, or where these left a further one by its time; nothing where somebody chose the loads."""
    run = a_run(*(level(users, tokens_per_s=rate) for users, rate in rates.items()))
    found = msgspec.structs.replace(run, scenario={"load": {"users": "auto"}})
    assert [note for note in all_notes(found) if note.startswith(why)]
    assert not [note for note in all_notes(run) if "--users auto" in note]
    stopped = msgspec.structs.replace(found, complete=False)
    assert not [note for note in all_notes(stopped) if "--users auto" in note]


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (10.3, 7.2, 10.4, "(7.2–10.4)"),
        (9.97, 9.96, 30.4, "(9.96–30)"),
        (26.4, 9.8, 141.0, "(9.8–141)"),
        (10.0, 9.0, 11.0, "±10 %"),
    ],
)
def test_the_ends_of_an_interval_are_on_both_sides_of_the_value(value, low, high, shown):
    """As they are rounded, too."""
    assert spread(value, low, high) == shown


def _changed(load, *, window_s=100.0, per_s=4.0, evidence=()):
    """A quiet level, of requests of about 150 ms + 24 tokens, with another load, window and throughput."""
    quiet = a_level()
    throughput = msgspec.structs.replace(quiet.throughput, requests_per_s=per_s)
    verdict = Verdict("OVERLOADED" if evidence else "VALID", load_evidence=[*evidence])
    return msgspec.structs.replace(quiet, load=load, window_s=window_s, throughput=throughput, verdict=verdict)


def test_intervals_of_a_window_shorter_than_a_cycle_of_a_user_are_said_to_be_of_it_alone():
    """Users who have not come round yet make the queue longer, which no interval of the window includes; the length
    that it will have follows from Little's law, where the highest throughput is known."""
    alone = _changed(ClosedLoad(16), per_s=10.0)
    short = [_changed(ClosedLoad(users, "exponential:20s"), window_s=3.0) for users in (100, 900, 400)]
    long = _changed(ClosedLoad(50, "exponential:20s"), window_s=60.0)
    own = next(line for line in all_notes(a_run(alone, *short, long)) if line.startswith("intervals of"))
    assert own.startswith("intervals of users=100, 900, 400: those of their window alone")
    mean = duration(short[0].metrics["e2e_s"].mean)
    assert own.endswith(
        f"at the 10.0 requests/s of users=16 without think time: users=900 70.0 s (here {mean}), "
        f"users=400 20.0 s (here {mean})"
    )
    without = next(line for line in all_notes(a_run(*short)) if line.startswith("intervals of"))
    assert "in the long run" not in without
    assert not any(line.startswith("intervals of") for line in all_notes(a_run(alone, long)))


def test_intervals_where_more_requests_arrive_than_complete_are_said_to_be_of_the_window_alone():
    """There is no latency that such a load has in the long run."""
    over = _changed(OpenLoad(8.0, "poisson"), evidence=["not_steady"])
    kept = _changed(OpenLoad(2.0, "poisson"))
    (line,) = [line for line in all_notes(a_run(kept, over)) if line.startswith("intervals of")]
    assert line.startswith("intervals of rate=8: those of their window alone; more requests arrive than complete")


APART, CLOCKS = ", which began at most 200 µs apart", "; their clocks are known to 300 µs"
TWO_HOSTS = {"address": "auto", "nodes": 2, "workers": [{"host": "here"}, {"host": "there"}]}
LOCAL = {"address": "local:1", "nodes": 1, "workers": [{"host": "here"}]}


@pytest.mark.parametrize(
    ("workers", "cluster", "said"),
    [
        (1, None, ""),
        (2, None, f"load from 2 worker processes{APART}"),
        (2, TWO_HOSTS, f"load from 2 workers on 2 nodes of the Ray cluster auto (here, there){APART}{CLOCKS}"),
        (1, LOCAL, f"load from 1 worker on 1 node of the Ray cluster local:1{APART}{CLOCKS}"),
        (
            2,
            {**TWO_HOSTS, "head": "10.0.0.1:6379"},
            "load from 2 workers on 2 nodes of the Ray cluster auto at 10.0.0.1:6",
        ),
        (1, {**LOCAL, "head": "10.0.0.1:6379"}, f"load from 1 worker on 1 node of the Ray cluster local:1{APART}"),
        (3, {"workers": "x", "nodes": "y"}, "load from 3 workers of the Ray cluster None"),
    ],
)
def test_who_made_the_load_is_said(workers, cluster, said):
    """Of workers, where they were and how well they began together; also of a file that somebody changed."""
    one = level(1, tokens_per_s=40.0)
    health = [WorkerHealth(name="a", requests=5, clock_error_s=3e-4 if cluster else 0.0)] * workers
    client = msgspec.structs.replace(one.client, start_skew_s=2e-4, workers=health)
    about = {"host": "here", "workers": workers} | ({} if cluster is None else {"cluster": cluster})
    run = msgspec.structs.replace(a_run(msgspec.structs.replace(one, client=client)), environment=about)
    assert f"load from {load_from(run)}".startswith(said) if said else load_from(run) == ""
    assert said in render_text(run_document(run), width=400)


@pytest.mark.parametrize(
    ("counts", "workers", "cluster", "said"),
    [
        (
            {1: 2, 2: 3, 4: 2},
            2,
            TWO_HOSTS,
            "2 workers (users=1, 4), 3 workers (users=2); when last started 2 workers on 2 nodes of the Ray cluster ",
        ),
        (
            {1: 0, 2: 3},
            3,
            LOCAL,
            "1 worker (users=1), 3 workers (users=2); when last started 3 workers on 1 node of the Ray",
        ),
        ({1: 3, 2: 0}, 1, None, "3 workers (users=1), 1 worker (users=2), which began"),
        ({1: 0, 2: 0}, 3, None, "3 worker processes, which began"),
    ],
)
def test_levels_that_other_workers_made_are_told_apart(counts, workers, cluster, said):
    """A run may go on with another cluster, or with fewer of its workers; older runs do not say it of each level."""
    levels = []
    for users, count in counts.items():
        one = level(users, tokens_per_s=40.0)
        health = [WorkerHealth(name="a", requests=5)] * count
        client = msgspec.structs.replace(one.client, start_skew_s=2e-4, workers=health)
        levels.append(msgspec.structs.replace(one, client=client))
    about = {"host": "here", "workers": workers} | ({} if cluster is None else {"cluster": cluster})
    text = load_from(msgspec.structs.replace(a_run(*levels), environment=about))
    assert text.startswith(said)
    assert text.endswith("; workers began at most 200 µs apart") is (cluster is not None)


def test_every_report_says_that_the_requests_stayed_on_the_nodes():
    """By one sentence, with where they are and what brings them here; of gathered ones nothing is said."""
    one = level(1, tokens_per_s=40.0)

    def shown(log: str) -> list[str]:
        client = msgspec.structs.replace(one.client, workers=[WorkerHealth(name="a", requests=5, log=log)])
        run = a_run(msgspec.structs.replace(one, client=client))
        document = run_document(run)
        page = render_html(run_page(run, None))
        return [
            render_text(document, width=400),
            render_markdown(document).replace("\\", ""),
            re.sub("<[^>]+>", "", page),
        ]

    for text in shown("/tmp/loadbench-x/requests.jsonl"):
        assert REQUESTS_ELSEWHERE in text
        assert "client.workers[].log" in text
        assert "--gather-requests" in text
    assert not any(REQUESTS_ELSEWHERE in text for text in shown(""))


def test_requests_of_some_levels_that_stayed_on_the_nodes_are_those_of_these():
    """A run may go on elsewhere, or with --gather-requests."""
    far = level(4, tokens_per_s=40.0)
    client = msgspec.structs.replace(far.client, workers=[WorkerHealth(name="a", requests=5, log="/tmp/x")])
    run = a_run(level(1, tokens_per_s=40.0), msgspec.structs.replace(far, client=client))
    assert f"{REQUESTS_ELSEWHERE} (those of users=4); " in "\n".join(all_notes(run))
