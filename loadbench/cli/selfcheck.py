"""`loadbench selfcheck`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from loadbench.cli.command import Command

if TYPE_CHECKING:
    from loadbench.engine.selfcheck import SelfCheck
    from loadbench.engine.stamp_errors import ErrorQuantiles


@click.command(cls=Command, examples=("loadbench selfcheck", "loadbench selfcheck --users 64 --gap 10ms --budget 1m"))
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
    """
    import msgspec  # noqa: PLC0415 - not for the help
    import orjson  # noqa: PLC0415

    from loadbench.core.errors import ExitCode  # noqa: PLC0415
    from loadbench.engine.selfcheck import selfcheck  # noqa: PLC0415

    result = selfcheck(
        users=users,
        gap_ns=_duration("gap", gap, least="100us"),
        ttft_ns=_duration("ttft", ttft, least="0s"),
        budget_ns=_duration("budget", budget, least="1s"),
        say=lambda text: click.echo(text, err=True),
    )
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
    load = result.given
    click.echo(f"users={load.users}, {load.events_per_s:,.0f} chunks/s, timestamps: {result.stamp_source}\n")
    click.echo(f"{'error':14}{'p50':>12}{'p99':>12}{'max':>12}{'n':>9}")
    rows = {"timestamp": result.stamp_error_s, "TTFT": result.ttft_error_s, "chunk gap": result.gap_error_s}
    for name, errors in {**rows, "(server delay)": load.server_late_s}.items():
        click.echo(f"{name:14}{_figures(errors)}")
    click.echo(f"\nmerged reads  {_share(load.merged_reads)}\nCPU           {_share(load.cpu_share)} of a core")
    click.echo(f"highest rate  {_rate(result.events_per_s_ceiling)} chunks/s, limited by the {result.ceiling_limit}")
    click.echo(f"              {_rate(result.requests_per_s_ceiling)} short requests/s\n")
    for advice in result.advice:
        click.echo(f"→ {advice}")


def _figures(errors: ErrorQuantiles | None) -> str:
    if errors is None:
        return f"{'-':>12}" * 3 + f"{0:>9}"
    return "".join(f"{value * 1000:>9.3f} ms" for value in (errors.p50, errors.p99, errors.max)) + f"{errors.count:>9}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _rate(rate: float | None) -> str:
    return "no" if rate is None else f"{rate:,.0f}"
