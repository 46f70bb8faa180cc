"""How much a run is expected to write, by its loads and their lengths."""

from __future__ import annotations

import sys

import pytest

from loadbench.plan.sources import resolve
from loadbench.results.space import expected_bytes, largest_file, usual_tokens_per_s

RUN, LEVEL, REQUEST = 40_000, 60_000, 1_100


def expected(command="sweep", **flags):
    """The least and the usual, in bytes; the warm-up is as given, and 100 tokens/s a user."""
    flags = {"url": "http://127.0.0.1:9/v1", "users": "4", "duration": "100s", "warm_up": "20s", **flags}
    flags = {"max_tokens": "50", **flags}
    flags = {name: value for name, value in flags.items() if value is not None}
    return expected_bytes(resolve(flags=flags, environment={}, command=command))


def of_requests(count: float, *, levels=1, models=1, token=10) -> int:
    """The bytes of so many requests a model, of 50 tokens each."""
    return round(RUN + models * (LEVEL * levels + count * (REQUEST + 50 * token)))


def test_users_send_one_request_after_another():
    """4 users at 100 tokens/s have 8 responses of 50 tokens a second; the warm-up is written too."""
    assert expected() == (RUN + LEVEL, of_requests(8 * 120))
    assert expected(cool_down="30s") == (RUN + LEVEL, of_requests(8 * 150))
    assert expected(users="4,8") == (RUN + LEVEL, of_requests(8 * 120 + 16 * 120, levels=2))
    assert expected(keep_texts=True) == (RUN + LEVEL, of_requests(8 * 120, token=15))
    assert expected(model=("a", "b")) == (RUN + 2 * LEVEL, of_requests(8 * 120, models=2))


def test_the_speed_of_the_simulated_server_is_known():
    """By its profile: a user of the slow one gets about 14 tokens/s, and more users than slots wait for each other."""
    scenarios = {
        name: resolve(flags={"profile": name, "max_tokens": "64"}, environment={}, command="sweep")
        for name in ("cpu-laptop", "slot-server")
    }
    cases = [("cpu-laptop", 1), ("cpu-laptop", 4), ("cpu-laptop", 8), ("slot-server", 1)]
    speeds = [usual_tokens_per_s(scenarios[profile], users) for profile, users in cases]
    assert speeds == pytest.approx([12.9, 7.06, 3.53, 178], rel=0.1)
    assert speeds[2] == speeds[1] / 2


def test_a_rate_sends_what_it_says():
    """And a number of requests is that number, at each level."""
    assert expected(users=None, rate="3") == (RUN + LEVEL, of_requests(3 * 120))
    assert expected(requests="70", duration=None) == (RUN + LEVEL, of_requests(70))
    assert expected(requests="70", duration=None, users="4,8")[1] == of_requests(140, levels=2)


def test_a_trace_has_its_requests(tmp_path):
    """However long it takes."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        "".join(f'{{"timestamp": {n * 1000}, "input_length": 9, "output_length": 50}}\n' for n in range(30))
    )
    flags = {"users": None, "duration": None, "max_tokens": None, "trace": str(trace)}
    assert expected("replay", **flags)[1] == of_requests(30)


def test_a_level_without_a_length_may_take_its_share_of_the_time():
    """15 minutes for all levels, unless another --max-total is given."""
    flags = {"duration": None, "warm_up": None}
    assert expected(**flags)[1] == of_requests(8 * 900)
    assert expected(**flags, max_total="60s", users="4,8")[1] == of_requests((8 + 16) * 30, levels=2)


def test_a_search_is_only_known_to_write_something():
    """Which loads it tries is not known before."""
    flags = {"users": None, "duration": None, "warm_up": None, "objectives": ["ttft_p95<1s"]}
    assert expected("capacity", **flags) == (RUN + LEVEL, RUN + LEVEL)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_the_limit_of_a_file_is_that_of_the_process(monkeypatch):
    """And there may be none."""
    import resource  # noqa: PLC0415 - not on Windows

    for limits, most in (((5000, 9000), 5000), ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        assert largest_file() == most


def test_requests_that_stay_on_the_nodes_of_a_cluster_are_not_written_here():
    """Unless they are gathered, or what is done with the responses needs them; those of local nodes are here."""
    here = of_requests(8 * 120)
    assert expected(cluster="auto") == (RUN + LEVEL, RUN + LEVEL)
    assert expected(cluster="auto", model=("a", "b"), users="4,8") == (RUN + 2 * LEVEL, RUN + 4 * LEVEL)
    assert expected(cluster="auto", gather_requests=True) == (RUN + LEVEL, here)
    assert expected(cluster="auto", keep_texts=True)[1] > here
    assert expected(cluster="local:2") == (RUN + LEVEL, here)
