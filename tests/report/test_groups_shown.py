"""Tables of the models of a mix, and of the servers that share the load."""

from __future__ import annotations

import msgspec

from loadbench.record.outcome import Outcome
from loadbench.record.request import Destination
from loadbench.report.document import Table
from loadbench.report.formats import render
from loadbench.report.run import run_document
from tests.building import S, a_level, a_run, a_sample

TWO = tuple(
    Destination(index, model, server)
    for index, (model, server) in enumerate((("m", "http://a/v1"), ("n|x", "http://b/v1")))
)


def shared(*, dead: bool = False):
    """A level of 200 requests to two models at a server each; the second may be dead."""
    gone = {"outcome": Outcome.REFUSED, "detail": "nobody", "first_token_ns": None, "last_token_ns": None}
    return a_level(
        a_sample(n, due_ns=n * S // 4, destination=TWO[n % 2], **(gone if dead and n % 2 else {})) for n in range(200)
    )


def tables(run) -> dict[str, Table]:
    """Those of groups, by the header of the column that has their names."""
    made = [block for block in run_document(run).blocks if isinstance(block, Table)]
    return {table.headers[1]: table for table in made if table.headers[1] in {"model", "server"}}


def test_a_row_for_each_model_and_each_server_at_each_level():
    """With its share of the rates; nothing is shown for a level that has one of each."""
    run = a_run(shared(), shared())
    found = tables(run)
    assert [row[1] for row in found["model"].rows] == ["m", "n|x"] * 2
    assert [row[1] for row in found["server"].rows] == ["http://a/v1", "http://b/v1"] * 2
    # 100 responses of 11 tokens in 100 s.
    assert found["model"].rows[0] == ["users=1", "m", "1.00", "11.0", "100 ms", "100 ms", "20.0 ms", "100", "0"]
    assert tables(a_run()) == {}
    assert "n\\|x" in render(run, "markdown")


def test_a_dead_server_has_no_figures_but_failures():
    """Its row has dashes where there is nothing to say."""
    row = tables(a_run(shared(dead=True)))["server"].rows[1]
    assert row == ["users=1", "http://b/v1", "0", "0", "-", "-", "-", "0", "100"]


def test_few_requests_of_a_group_are_marked():
    """As the quantiles of the level are, though groups have no intervals."""
    few = a_level(a_sample(n, due_ns=n * S, destination=TWO[n % 2]) for n in range(8))
    assert tables(a_run(few))["model"].rows[0][5] == "~100 ms"


def test_the_title_names_every_server():
    """A reader of the first line must see that there were two."""
    level = msgspec.structs.replace(shared(), targets=["http://a/v1", "http://b/v1"])
    assert render(a_run(level), "text").startswith("trial: http://a/v1, http://b/v1, ")


def test_machine_figures_say_whose_they_are():
    """The process of one server is sampled."""
    run = a_run(shared())
    run = msgspec.structs.replace(run, environment={**run.environment, "telemetry": {"server": "http://a/v1"}})
    assert "server CPU and RSS: of http://a/v1 only" in render(run, "text")
