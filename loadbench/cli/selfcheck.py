"""`loadbench selfcheck`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from loadbench.cli.command import Command
from loadbench.cli.measuring import print_document, say

if TYPE_CHECKING:
    from loadbench.engine.selfcheck import SelfCheck


@click.command(
    cls=Command, reads=True, examples=("loadbench selfcheck", "loadbench selfcheck --users 64 --gap 10ms --budget 1m")
)
@click.option("--users", type=click.IntRange(1), default=32, show_default=True, metavar="N", help="Concurrent streams.")
@click.option("--gap", default="20ms", show_default=True, metavar="TIME", help="Time between two streamed chunks.")
@click.option(
    "--ttft", default="50ms", show_default=True, metavar="TIME", help="Time from a request to its first streamed chunk."
)
@click.option("--budget", default="30s", show_default=True, metavar="TIME", help="Roughly how long the check takes.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on stdout.")
def command(*, users: int, gap: str, ttft: str, budget: str, as_json: bool) -> None:
    """Measure the timing error of loadbench, and the highest load that it can generate on this machine.

    loadbench measures a test server that reports when it sent each streamed chunk. Exits with 4 if more than 1 % of the
    timestamps are wrong by over 1 ms at the given load, with 5 if the test server itself was late.

    The highest load is kept in your state folder: `--dry-run` with `--cluster` says by it how many workers and machines
    a load needs.
    """
    import msgspec  # noqa: PLC0415 - not for the help
    import orjson  # noqa: PLC0415

    from loadbench.core.errors import ExitCode  # noqa: PLC0415
    from loadbench.engine.selfcheck import selfcheck  # noqa: PLC0415
    from loadbench.results.ceiling import remember_ceiling  # noqa: PLC0415

    result = selfcheck(
        users=users,
        gap_ns=_duration("gap", gap, least="100us"),
        ttft_ns=_duration("ttft", ttft, least="0s"),
        budget_ns=_duration("budget", budget, least="1s"),
        say=say,
    )
    if result.events_per_s_ceiling is not None and result.requests_per_s_ceiling is not None:
        is_lower_bound = result.ceiling_limit != "client"
        remember_ceiling(result.events_per_s_ceiling, result.requests_per_s_ceiling, is_lower_bound=is_lower_bound)
    if as_json:
        click.echo(orjson.dumps(msgspec.to_builtins(result), option=orjson.OPT_INDENT_2))
    else:
        _show(result)
    if result.given.server_was_late:
        sys.exit(ExitCode.INCONCLUSIVE)
    sys.exit(ExitCode.OK if result.given.stamps_hold else ExitCode.INVALID)


def _duration(name: str, text: str, *, least: str) -> int:
    from loadbench.core.errors import BadInput  # noqa: PLC0415
    from loadbench.core.units import parse_duration  # noqa: PLC0415

    try:
        duration_ns = parse_duration(text)
    except ValueError as error:
        raise BadInput(f"--{name}: {error}") from None
    if duration_ns < parse_duration(least):
        raise BadInput(f"--{name}: found {text}", hint=f"{least} or more")
    return duration_ns


def _show(result: SelfCheck) -> None:
    from loadbench.report.document import Document, Notes, Table  # noqa: PLC0415

    load = result.given
    errors = {"timestamp": result.stamp_error_s, "TTFT": result.ttft_error_s, "chunk gap": result.gap_error_s}
    rows = []
    for name, quantiles in {**errors, "(server delay)": load.server_late_s}.items():
        if quantiles is None:
            rows.append([name, "-", "-", "-", "0"])
        else:
            values = (quantiles.p50, quantiles.p99, quantiles.max)
            rows.append([name, *(f"{value * 1000:.3f} ms" for value in values), str(quantiles.count)])
    facts = [
        ("merged reads", _share(load.merged_reads)),
        ("CPU", f"{_share(load.cpu_share)} of a core"),
        ("highest rate", f"{_rate(result.events_per_s_ceiling)} chunks/s, limited by the {result.ceiling_limit}"),
        ("", f"{_rate(result.requests_per_s_ceiling)} short requests/s"),
    ]
    document = Document(
        f"users={load.users}, {load.events_per_s:,.0f} chunks/s, timestamps: {result.stamp_source}",
        [
            Table(("error", "p50", "p99", "max", "n"), rows, "lrrrr"),
            Table((), facts, "ll"),
            Notes([f"→ {advice}" for advice in result.advice]),
        ],
    )
    print_document(document)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _rate(rate: float | None) -> str:
    return "no" if rate is None else f"{rate:,.0f}"
