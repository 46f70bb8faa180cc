"""Tables of the models of a mix, and of the servers that share the load."""

from __future__ import annotations

import msgspec

from loadbench.plan.abandonment import Patience
from loadbench.record.outcome import Outcome
from loadbench.record.request import Destination
from loadbench.report.document import Table
from loadbench.report.formats import render
from loadbench.report.run import run_document
from loadbench.results.run import MixPart, ModelStatus
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
    assert [row[1] for row in found["server"].rows] == ["a", "b"] * 2
    # 100 responses of 11 tokens in 100 s.
    assert found["model"].rows[0] == ["users=1", "m", "1.00", "11.0", "100 ms", "100 ms", "20.0 ms", "100", "0"]
    assert tables(a_run()) == {}
    assert "n\\|x" in render(run, "markdown")


def test_a_dead_server_has_no_figures_but_failures():
    """Its row has dashes where there is nothing to say."""
    row = tables(a_run(shared(dead=True)))["server"].rows[1]
    assert row == ["users=1", "b", "0", "0", "-", "-", "-", "0", "100"]


def test_few_requests_of_a_group_are_marked():
    """As the quantiles of the level are, though groups have no intervals."""
    few = a_level(a_sample(n, due_ns=n * S, destination=TWO[n % 2]) for n in range(8))
    assert tables(a_run(few))["model"].rows[0][5] == "~100 ms"
    assert "figures of one model, server or persona have no interval; ~ is at those" in render(a_run(few), "text")
    assert "have no interval" not in render(a_run(), "text")


def test_the_title_names_every_server():
    """A reader of the first line must see that there were two."""
    level = msgspec.structs.replace(shared(), targets=["http://a/v1", "http://b/v1"])
    assert render(a_run(level), "text").startswith("trial: http://a/v1, http://b/v1, ")


def test_machine_figures_say_whose_they_are():
    """The process of one server is sampled."""
    run = a_run(shared())
    run = msgspec.structs.replace(run, environment={**run.environment, "telemetry": {"server": "http://a/v1"}})
    assert "server CPU and RSS: of http://a/v1 only" in render(run, "text")


def level_of(servers: list[str], *, dead: str = "", gave_up: bool = False):
    """A level of ten requests to each server, in this order; one of them may be dead."""
    to = [Destination(index, None, server) for index, server in enumerate(servers)]
    gone = {"outcome": Outcome.REFUSED, "detail": "nobody", "first_token_ns": None, "last_token_ns": None}
    left = {"outcome": Outcome.GAVE_UP, "patience": Patience(1)}
    return a_level(
        a_sample(
            n,
            due_ns=n * S // 4,
            destination=one,
            **(gone if one.server == dead else left if gave_up and n % 10 == 0 else {}),
        )
        for n, one in enumerate(to * 10)
    )


def test_servers_are_in_the_order_in_which_they_were_given():
    """And not in that of their letters, in which 10 comes before 2. Where scheme or path differ, both are shown."""
    urls = [f"http://h:{port}/v1" for port in (2, 10, 1)]
    assert list(level_of(urls).by_server) == urls
    assert [row[1] for row in tables(a_run(level_of(urls)))["server"].rows] == ["h:2", "h:10", "h:1"]
    unlike = ["http://h:2/v1", "https://h:1/v1"]
    assert [row[1] for row in tables(a_run(level_of(unlike)))["server"].rows] == unlike


def test_of_very_many_servers_those_that_matter_are_shown():
    """Twenty of them, the dead one too, with the number of all; the title names a few."""
    urls = [f"http://h{number}/v1" for number in range(100)]
    level = msgspec.structs.replace(level_of(urls, dead="http://h77/v1"), targets=urls)
    rows = tables(a_run(level))["server"].rows
    assert len(rows) == 20
    assert ["h77", "0", "10"] in [[row[1], *row[-2:]] for row in rows]
    shown = render(a_run(level), "text")
    assert "of 100 servers, the 20 with the most failures and the highest TTFT p50 are shown; run.json has all" in shown
    assert shown.startswith("trial: http://h0/v1, http://h1/v1, http://h2/v1 and 97 more, ")


def test_users_who_gave_up_are_counted_by_server():
    """Where some did, in a column of their own."""
    table = tables(a_run(level_of(["http://a", "http://b"], gave_up=True)))["server"]
    assert table.headers[-2:] == ("failed", "gave up")
    assert [row[-3:] for row in table.rows] == [["8", "0", "2"], ["10", "0", "0"]]


def test_the_first_token_of_a_mix_is_that_of_its_first_model():
    """Of the others nothing is known that one line could say."""
    run = a_run(shared())
    status = ModelStatus(
        model="m=1,n=1", status="ok", cold_ttft_s=0.2, warm_ttft_s=0.1, mix=[MixPart(model="m", share=0.5)]
    )
    assert "m=1,n=1: TTFT of m 200 ms cold, 100 ms warm" in render(
        msgspec.structs.replace(run, models=[status]), "text"
    )
