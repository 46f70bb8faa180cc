"""What `--dry-run` says of a cluster: the workers and machines that the largest load needs, and what is too small."""

from __future__ import annotations

import pytest

from loadbench.plan.load_generator import machines_for_ports
from loadbench.plan.sources import resolve
from loadbench.report.plan import cluster_facts, cluster_warnings


def planned(**flags):
    """A scenario with these settings, on a cluster."""
    return resolve(flags={"url": "http://10.0.0.1:8000", "cluster": "auto"} | flags, environment={})


@pytest.mark.parametrize(
    ("flags", "workers", "machines"),
    [
        ({"users": "1,8"}, "1, each of which keeps up with about 128 streams", "1, "),
        ({"users": "1024,64"}, "8, each of which keeps up with about 128 streams", "1, "),
        ({"users": "60000"}, "469, ", "3, "),
        ({"rate": "950"}, "10, each of which keeps up with about 100 requests/s", "1, "),
    ],
)
def test_the_largest_load_says_what_it_needs(flags, workers, machines):
    """By what one worker keeps up with, and by the source ports of one machine."""
    facts = dict(cluster_facts(planned(**flags)))
    assert facts["cluster"] == "auto"
    assert facts["workers needed"].startswith(workers)
    assert facts["machines needed"].startswith(machines)


def test_without_a_cluster_nothing_is_said():
    """The plan of one machine is as it was."""
    alone = resolve(flags={"users": "1024"}, environment={})
    assert (cluster_facts(alone), cluster_warnings(alone)) == ([], [])


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        ({"users": "1024", "workers": "8"}, []),
        ({"users": "1024", "workers": "4"}, ["4 workers may be too few: the largest load needs about 8"]),
        ({"users": "1024", "cluster": "local:2"}, ["2 workers may be too few: the largest load needs about 8"]),
        ({"rate": "7000"}, []),
        ({"rate": "9000"}, ["the main process records about 7,000 requests/s of 128 tokens, and 9,000/s are planned"]),
    ],
)
def test_what_is_too_small_is_a_warning(flags, warned):
    """The workers that were given, or the process that records what all of them report."""
    warnings = cluster_warnings(planned(**flags))
    assert len(warnings) == len(warned)
    assert all(warning.startswith(start) for warning, start in zip(warnings, warned, strict=True))


def test_each_server_has_ports_of_its_own():
    """So two servers need half the machines."""
    one = planned(users="90000")
    two = planned(users="90000", url=("http://10.0.0.1:8000", "http://10.0.0.2:8000"))
    assert (machines_for_ports(one), machines_for_ports(two)) == (4, 2)
