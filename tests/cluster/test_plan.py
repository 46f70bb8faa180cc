"""What `--dry-run` says of a cluster: the workers and machines that a load needs, where source ports end, what
is too small, and what cannot be. What a worker keeps up with is what `loadbench selfcheck` measured here."""

from __future__ import annotations

import pytest

from loadbench.cluster import connection
from loadbench.core.errors import BadInput
from loadbench.engine import selfcheck
from loadbench.engine.selfcheck import SelfCheck
from loadbench.plan.sources import resolve
from loadbench.report import cluster_plan
from loadbench.report.capacity_plan import capacity_plan_document
from loadbench.report.cluster_plan import cluster_facts, cluster_warnings
from loadbench.report.plan import plan_document
from loadbench.report.render_text import render_text
from loadbench.results.ceiling import EVERYDAY, ceiling_file, known_ceiling, remember_ceiling
from loadbench.session.setup import check
from tests.cli.typed import typed
from tests.engine.test_selfcheck import load_check


@pytest.fixture(autouse=True)
def one_machine(tmp_path, monkeypatch):
    """With a state folder of its own, four cores, and Ray."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(cluster_plan, "usable_cores", lambda: 4)
    monkeypatch.setattr(connection, "find_spec", lambda _: object())
    monkeypatch.setenv("RAY_AUTH_MODE", "token")


def planned(command="sweep", **flags):
    """A scenario with these settings, on a cluster; a response has 64 tokens."""
    return resolve(flags={"url": "http://10.0.0.1:8000", "cluster": "auto"} | flags, environment={}, command=command)


@pytest.mark.parametrize(
    ("flags", "load", "workers", "machines"),
    [
        ({"users": "1,8"}, "users=8: about 800 chunks/s in 8 streams, 12 requests/s", "1, ", "1 of 4"),
        (
            {"users": "1000,64"},
            "users=1000: about 100,000 chunks/s in 1,000 streams, 1,562 requests/s",
            "5, ",
            "2 of 4",
        ),
        ({"rate": "300"}, "rate=300: about 19,200 chunks/s in 192 streams, 300 requests/s", "1, ", "1 of 4"),
        ({"rate": "3000", "max_tokens": "1"}, "rate=3000: about 3,000 chunks/s in 30 streams", "2, ", "1 of 4"),
        (
            {"users": "1000", "think": "640ms"},
            "users=1000: about 50,000 chunks/s in 1,000 streams",
            "3, ",
            "1 of 4 cores",
        ),
    ],
)
def test_the_measured_ceiling_says_what_a_load_needs(flags, load, workers, machines):
    """Streams and requests both cost; the largest load counts."""
    remember_ceiling(30_000, 2_000, is_lower_bound=False)
    facts = dict(cluster_facts(planned(**flags)))
    assert facts["cluster"] == "auto"
    assert facts["largest load"].startswith(load)
    assert facts["workers needed"].startswith(workers)
    assert facts["machines needed"].startswith(machines)
    assert "30,000 chunks/s, or 2,000 short requests/s: measured on this machine" in facts["a worker"]


@pytest.mark.parametrize(("limit", "least"), [("client", ""), ("server", "at least ")])
def test_a_self_check_leaves_its_ceiling_for_plans(limit, least, tmp_path, monkeypatch):
    """What limited it says whether the load generator's own end was seen."""
    given = load_check()
    result = SelfCheck(
        stamp_source="kernel",
        stamp_error_s=given.stamp_error_s,
        ttft_error_s=given.ttft_error_s,
        gap_error_s=given.gap_error_s,
        events_per_s_ceiling=20_000.0,
        requests_per_s_ceiling=1_500.0,
        advice=[],
        given=given,
        ceiling_limit=limit,
        steps=[],
    )
    monkeypatch.setattr(selfcheck, "selfcheck", lambda **_: result)
    assert typed("selfcheck", cwd=tmp_path).returncode == 0
    text = dict(cluster_facts(planned(users="512")))["a worker"]
    assert text.startswith(f"keeps up with {least}20,000 chunks/s, or 1,500 short requests/s: measured on this machine")


def test_a_plan_without_a_measurement_says_so():
    """It is cautious, and names the command that measures."""
    facts = dict(cluster_facts(planned(users="512")))
    assert "12,800 chunks/s" in facts["a worker"]
    assert "`loadbench selfcheck`" in facts["a worker"]
    assert facts["workers needed"].startswith("5, ")


def test_what_was_measured_elsewhere_says_nothing_or_is_damaged_is_not_used(monkeypatch):
    """A home folder may be that of several machines, a check may have been too short, and a file may hold anything."""
    remember_ceiling(30_000, 2_000, is_lower_bound=True)
    remember_ceiling(500, 2_000, is_lower_bound=True)
    assert known_ceiling().chunks_per_s == 30_000
    monkeypatch.setattr("platform.node", lambda: "another")
    assert known_ceiling() == EVERYDAY
    for content in (b"", b"{", b'{"chunks_per_s":0,"requests_per_s":1,"measured_at":"2026-01-01","host":"another"}'):
        ceiling_file().write_bytes(content)
        assert known_ceiling() == EVERYDAY


@pytest.mark.parametrize(
    ("flags", "ports", "machines"),
    [
        ({"users": "60000"}, "for 60,000 connections; a machine has 28,232 for each server", "3, for their"),
        ({"users": "60000", "url": ("http://a:1", "http://b:1")}, "for 60,000 connections", "2, for their"),
        ({"rate": "100"}, "for 6,000 connections", "1 of 4"),
    ],
)
def test_a_plan_says_where_source_ports_end(flags, ports, machines):
    """Each server has those of a machine once more; of a rate a minute's arrivals may be open."""
    remember_ceiling(1e6, 1e5, is_lower_bound=False)
    facts = dict(cluster_facts(planned(**flags, **({"max_tokens": "8", "think": "1m"} if "users" in flags else {}))))
    assert facts["source ports"].startswith(ports)
    assert facts["machines needed"].startswith(machines)


@pytest.mark.parametrize(
    ("flags", "machines"),
    [
        ({"users": "8"}, "1, which this one is"),
        (
            {"users": "4000"},
            "10 of 4 cores, as this one has; fewer with more cores, at least 1. local:3 is this machine alone",
        ),
        ({"users": "60000", "think": "1h"}, "3, for their source ports. local:3 is this machine alone, which"),
    ],
)
def test_a_plan_for_local_nodes_says_what_this_machine_has_not(flags, machines):
    """The load needs as many cores there as elsewhere."""
    facts = dict(cluster_facts(planned(cluster="local:3", **flags)))
    assert facts["machines needed"].startswith(machines)


@pytest.mark.parametrize(
    ("flags", "load", "workers", "ports"),
    [
        ({"users": "1"}, "users=1: about 100 chunks/s in 1 stream, 2 requests/s", "1, on", "for 1 connection;"),
        (
            {"rate": "0.08"},
            "rate=0.08: about 5 chunks/s in less than 1 stream, less than 1 request/s",
            "1, on",
            "for 5",
        ),
    ],
)
def test_a_plan_for_a_small_load_is_in_words_that_fit(flags, load, workers, ports):
    """One is no plural, and a part of one is not none."""
    facts = dict(cluster_facts(planned(**flags)))
    assert facts["largest load"].startswith(load)
    assert facts["workers needed"].startswith(workers)
    assert facts["source ports"].startswith(ports)


@pytest.mark.parametrize(
    ("flags", "stay"),
    [({}, True), ({"gather_requests": True}, False), ({"keep_texts": True}, False), ({"cluster": "local:2"}, False)],
)
def test_a_plan_says_where_the_requests_will_be(flags, stay):
    """On the nodes, unless something brings them here; what stays there needs no room here."""
    text = " ".join(render_text(plan_document(planned(users="4", duration="600s", **flags)), width=400).split())
    assert ("stay on the nodes; --gather-requests copies them" in text) is stay
    assert ("run.json, requests.jsonl" in text) is not stay
    assert ("97.7 KiB to write;" in text) is stay


def test_every_plan_says_it():
    """That of a sweep, and that of a search for its largest load; without a cluster nothing is said."""
    sweep = render_text(plan_document(planned(users="1000")))
    search = planned("capacity", at_most="900", objectives=["ttft_p90<2s"])
    assert "workers needed" in sweep
    assert "users=900: about 90,000 chunks/s" in " ".join(render_text(capacity_plan_document(search)).split())
    alone = resolve(flags={"users": "1024"}, environment={})
    assert (cluster_facts(alone), cluster_warnings(alone)) == ([], [])


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        ({"users": "1000", "workers": "10"}, []),
        ({"users": "1000", "workers": "4"}, ["4 workers may be too few: users=1000 needs about 10"]),
        ({"users": "1000", "cluster": "local:2"}, ["2 workers may be too few"]),
        ({"users": "8", "cluster": "local:6"}, ["6 local nodes share 4 cores: they make no more load than 4 do"]),
        ({"rate": "7000"}, []),
        ({"users": "30000", "think": "1h", "workers": "2"}, []),
        (
            {"users": "30000", "think": "1h", "workers": "1"},
            ["--workers 1: 30,000 connections at one time need more source ports than as many machines usually have"],
        ),
        (
            {"users": "30000", "think": "1h", "cluster": "local:1"},
            ["local:1: 30,000 connections at one time need more source ports than this machine usually has: 28,232"],
        ),
        ({"rate": "9000"}, []),
        (
            {"rate": "9000", "otlp": "http://127.0.0.1:4318"},
            ["the export of metrics reads each request, about 7,000/s of 128 tokens, and 9,000/s are planned"],
        ),
    ],
)
def test_what_is_too_small_is_a_warning(flags, warned):
    """The workers that were given, or the process that records what all of them report."""
    warnings = cluster_warnings(planned(**flags))
    assert len(warnings) == len(warned)
    assert all(warning.startswith(start) for warning, start in zip(warnings, warned, strict=True))


@pytest.mark.parametrize(
    ("flags", "refused", "hint"),
    [
        ({"cluster": "local:2", "workers": "3"}, "each worker needs a core, and --cluster local:2 has 2", "local:3"),
        (
            {"users": "100000", "workers": "1"},
            "100,000 connections at one time need more source ports than as many machines have: 64,511 at most",
            "--workers 4 or more",
        ),
        (
            {"cluster": "local:2", "rate": "100000"},
            "100,000 requests/s, and this machine sends 4,000 short ones at most from local:2",
            "more machines",
        ),
    ],
)
def test_what_cannot_be_is_refused(flags, refused, hint, monkeypatch):
    """Before anything starts, with what to do; a rate, by what was measured on this machine."""
    monkeypatch.setattr("loadbench.session.setup.usable_cores", lambda: 4)
    remember_ceiling(30_000, 2_000, is_lower_bound=False)
    with pytest.raises(BadInput, match=refused) as error:
        check(planned(**flags), {})
    assert hint in error.value.hint


def test_a_grid_plans_for_the_cell_that_needs_the_most(tmp_path):
    """Whichever it is; what is too small for it is a warning. A grid without a cluster has no such lines."""
    url = ("--url", "http://10.0.0.1:8000", "--dry-run")
    vary = ("sweep", *url, "--users=8", "--vary=max_tokens=16,64", "--vary=workers=1,3")
    shown = typed(*vary, "--cluster=auto", cwd=tmp_path).stdout
    assert "users=8: about 800 chunks/s" in shown
    assert "may be too few" not in shown
    shown = typed("sweep", *url, "--vary=users=900,8", "--vary=workers=1,3", "--cluster=auto", cwd=tmp_path).stdout
    assert "users=900: about 90,000 chunks/s" in shown
    assert "warning: 1 worker may be too few: users=900 needs about 9" in shown
    assert "a worker" not in typed(*vary, cwd=tmp_path).stdout
