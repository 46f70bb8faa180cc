"""`loadbench compare`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options
from loadbench.cli.paired_options import paired_options

FORMATS = ("text", "markdown", "json", "junit")


@click.command(cls=ScenarioCommand)
@click.argument("sides", nargs=-1, metavar="[A B]")
@click.option("--a", "a", multiple=True, metavar="URL|RUN", help="Side A; repeat it for several saved runs.")
@click.option("--b", "b", multiple=True, metavar="URL|RUN", help="Side B, likewise.")
@click.option("--baseline", metavar="FILE", help="Side A is what --save-baseline kept.")
@click.option("--save-baseline", type=click.Path(path_type=Path), metavar="FILE", help="Keep the runs of B in a file.")
@click.option("--paired", is_flag=True, help="Saved runs: the first of A was measured with the first of B, and so on.")
@click.option(
    "--fail-on",
    "rules",
    multiple=True,
    metavar="RULE",
    help="Exit with 3 where B is surely worse by more, as in 'ttft_p95>5%' or 'output_tokens_per_s<-5%@users=8'; "
    "with 5 where that is not sure.",
)
@click.option(
    "--confidence",
    "certainty",
    type=click.FloatRange(0.5, 0.9999),
    metavar="SHARE",
    default=0.95,
    show_default=True,
    help="That of every interval, and what decisions leave to chance.",
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="What is printed."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, not to stdout.")
@click.option("--chart", type=click.Path(path_type=Path), metavar="FILE", help="Draw tokens/s over the load as SVG.")
@click.option("--scenario", type=click.Path(path_type=Path), metavar="FILE", help="Two URLs: the load and the work.")
@paired_options
@scenario_options(without=("fail_on",))
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--no-live", is_flag=True, help="Progress in plain lines, also on a terminal.")
@click.option("--dry-run", is_flag=True, help="Two URLs: show the plan, the order and the time; send nothing.")
def command(sides: tuple[str, ...], *, scenario: Path | None, as_json: bool, **options: Any) -> None:
    """Compare two servers, or two saved runs: which is faster, by what factor, from how many users on?

    A and B are URLs, which are then measured in turn (two models at one --url are named by --a-model and --b-model); or
    they are run folders, folders of run folders, or baselines. One folder that a comparison has made is compared again.
    """
    from loadbench.cli.comparing import run_compare  # noqa: PLC0415 - only the command itself needs it

    if as_json:
        options["form"] = "json"
    sys.exit(run_compare(sides, options, flags=given(options), scenario=scenario, environment=os.environ))
