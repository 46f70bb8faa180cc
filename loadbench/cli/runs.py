"""`loadbench runs`: the runs in the folder of results: list, label, delete."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadbench.cli.command import Group
from loadbench.cli.measuring import look, print_document, refuse_wide, say, wide_option
from loadbench.cli.run_names import RUN
from loadbench.core.errors import BadInput
from loadbench.core.text import printable
from loadbench.core.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from loadbench.results.run_summary import RunSummary

_SHOWN = 20
_STATUSES = ("VALID", "INVALID", "INCONCLUSIVE", "OVERLOADED")
_COMMANDS = ("sweep", "replay", "capacity", "compare", "workshop")


class _Runs(Group):
    """A group whose first command is run if none is named: `loadbench runs --model phi` is `loadbench runs list …`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in {"-h", "--help"}):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose runs."""
    for option in (
        click.option("--in", "results", type=click.Path(path_type=Path), metavar="DIR", help="The folder of results."),
        click.option("--since", metavar="WHEN", help="Only runs since then: 12h, 7d, 2w, or a date as in 2026-01-31."),
        click.option("--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="Only runs with this label."),
        click.option("--command", "of_command", type=click.Choice(_COMMANDS), help="Only runs of this command."),
        click.option("--model", metavar="TEXT", help="Only runs of a model with this in its name."),
        click.option("--name", metavar="TEXT", help="Only runs with this --name; * stands for any letters."),
    ):
        function = option(function)
    return function


def chosen(
    *,
    results: Path | None,
    since: str | None,
    labels: tuple[str, ...],
    of_command: str | None,
    model: str | None,
    name: str | None,
    verdict: str | None = None,
    most: int | None = None,
) -> tuple[str, list[RunSummary], int]:
    """The folder of results, the summaries of its runs that fit, the newest first, and how many older were not read.

    With `most` only so many are looked for. Raises `BadInput` for a folder that is not there, and for no moment.
    """
    # ruff: noqa: PLC0415 - the help needs nothing of what is imported in functions
    from loadbench.results.run_list import results_folder, runs_in
    from loadbench.results.run_summary import summary_of

    folder = results or results_folder(os.environ)
    if results is not None and not folder.is_dir():
        raise BadInput(f"--in {folder}: no such folder", hint="name a folder of run folders, as in results")
    after = None if since is None else _moment(since)
    found = [run for run in runs_in(folder) if after is None or run.began >= after]
    summaries: list[RunSummary] = []
    for position, run in enumerate(found):
        if most is not None and len(summaries) >= most:
            return str(folder), summaries, len(found) - position
        if name is not None and not fnmatchcase(run.name, name) and name != run.path.name:
            continue
        summary = summary_of(run)
        wanted = (pair.partition("=") for pair in labels)
        if (
            (model is None or any(model.lower() in one.lower() for one in summary.models))
            and (of_command is None or summary.command == of_command)
            and (verdict is None or verdict in summary.verdicts)
            and all(key in summary.labels and (not sign or summary.labels[key] == value) for key, sign, value in wanted)
        ):
            summaries.append(summary)
    return str(folder), summaries, 0


@click.group(
    cls=_Runs,
    examples=(
        "loadbench runs",
        "loadbench runs --model phi --since 7d",
        "loadbench runs label last gpu=4090",
        "loadbench report last",
    ),
)
def command() -> None:
    """List, label and delete the runs in the folder of results.

    `loadbench runs` alone lists them; `loadbench runs list --help` says how to filter. RUN is a run folder, `last`,
    `last~1` for the one before it, a unique beginning of a folder's name, or a run's --name, which is its latest run.
    """


@command.command(
    "list", reads=True, examples=("loadbench runs list --command sweep --since 7d", "loadbench runs list --json")
)
@filters
@click.option("--verdict", type=click.Choice(_STATUSES, case_sensitive=False), help="Only runs with such a level.")
@click.option("--all", "every", is_flag=True, help=f"Show every run; by default the {_SHOWN} newest.")
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print every run that fits as JSON on stdout.")
def list_command(*, every: bool, as_json: bool, wide: bool, **options: Any) -> None:
    """List runs, the newest first: command, model, loads, result, verdicts, commit and labels."""
    refuse_wide("JSON" if as_json else "text", wide=wide)
    most = None if every or as_json else _SHOWN
    folder, runs, older = chosen(**options, most=most)
    if as_json:
        import msgspec
        import orjson

        from loadbench.core.text import printable_json

        document = {"schema": "loadbench.runs/1", "results": folder, "runs": msgspec.to_builtins(runs)}
        click.echo(printable_json(orjson.dumps(document, option=orjson.OPT_INDENT_2)))
        return
    from loadbench.report.runs import runs_document

    print_document(runs_document(runs, results=folder, left_out=older), wide=wide)


@command.command(
    "trend", reads=True, examples=("loadbench runs trend ttft_p95 --at users=1", "loadbench runs trend requests_per_s")
)
@click.argument("metric")
@filters
@click.option("--at", metavar="LOAD", help="The load, as in users=8. Default: that of the newest run that most have.")
@click.option("--any-server", is_flag=True, help="Also runs of other servers: the same work at another URL.")
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print the trend as JSON on stdout.")
def trend_command(metric: str, *, at: str | None, any_server: bool, as_json: bool, wide: bool, **options: Any) -> None:
    """Show how a metric went over the runs that can be compared with the newest, with intervals and commits.

    METRIC is a latency with a point (ttft_p95, e2e_mean), output_tokens_per_s, requests_per_s, failures, or capacity.
    Runs of another server, other work or an INVALID level are left out, and named with the reason.
    """
    from loadbench.analyze.compare.trend import check_metric, trend_of
    from loadbench.plan.objective import parse_level_label
    from loadbench.report.render_text import render_text
    from loadbench.report.runs import trend_document
    from loadbench.results.folder import contradictions_in, read_run
    from loadbench.results.run import to_json

    refuse_wide("JSON" if as_json else "text", wide=wide)
    check_metric(metric)
    if at is not None:
        try:
            at = parse_level_label(at)
        except ValueError as error:
            raise BadInput(f"--at: {error}") from None
    folder, summaries, _ = chosen(**options)
    runs = []
    for summary in summaries:
        run, reason = None, f"is {summary.state}: {summary.problem}".rstrip(": ")
        if summary.state not in {"damaged", "empty"}:
            try:
                run = read_run(Path(summary.path))
            except BadInput as error:
                reason = "is a comparison" if summary.command == "compare" else error.message
        runs.append((summary, run, reason))
    if not runs:
        raise BadInput(f"no run in {folder} fits", hint="`loadbench runs` lists them")
    with contradictions_in(folder):
        trend = trend_of(runs, metric, at=at, model=options["model"] or "", any_server=any_server)
    content = to_json(trend).decode() if as_json else render_text(trend_document(trend), **look(wide=wide))
    click.echo(content, nl=False)


@command.command(
    "label", examples=("loadbench runs label last gpu=4090 driver=560", "loadbench runs label last driver=")
)
@click.argument("run", type=RUN)
@click.argument("labels", nargs=-1, metavar="KEY=VALUE...")
def label_command(run: Path, labels: tuple[str, ...]) -> None:
    """Label a run, as in `loadbench runs label last gpu=4090 driver=560`; `KEY=` takes a label away.

    Labels are in labels.json in the run's folder. Without KEY=VALUE the labels are printed.
    """
    from loadbench.results.run_delete import own_folder
    from loadbench.results.run_summary import parse_labels, read_labels, write_labels

    own_folder(run)
    now = write_labels(run, parse_labels(labels)) if labels else read_labels(run)
    for key, value in sorted(now.items()):
        click.echo(printable(f"{key}={value}"))
    if not now:
        say(f"{run.name} has no labels")


@command.command("delete", examples=("loadbench runs delete last~1 --yes",))
@click.argument("runs", nargs=-1, required=True, type=RUN, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def delete_command(runs: tuple[Path, ...], *, yes: bool) -> None:
    """Delete runs. What would go is shown, and confirmed at the terminal or with --yes.

    Refused are folders that are no runs, or have files that loadbench did not write, or links; and runs that are being
    measured.
    """
    from loadbench.report.render_text import render_text
    from loadbench.report.runs import deletion_document
    from loadbench.results.run_delete import Deletion

    deletions = [Deletion(path) for path in dict.fromkeys(path.absolute() for path in runs)]
    parts = [(str(one.path), one.files, one.size_bytes) for one in deletions]
    click.echo(render_text(deletion_document(parts), **look()), err=True, nl=False)
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput("runs delete: nobody is there to confirm it", hint="add --yes")
        if not click.confirm("Delete?", err=True):
            say("nothing is deleted")
            return
    for one in deletions:
        one.carry_out()
        say(f"deleted {one.path}")


def _moment(text: str) -> datetime:
    try:
        with suppress(ValueError):
            return datetime.now(UTC) - timedelta(microseconds=parse_duration(text) // 1000)
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(
            f"--since {text:.80}: is no time", hint="write 12h, 7d, 2w, or a date as in 2026-01-31"
        ) from None
