"""`loadbench compare`."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.measuring import print_report, progress_line, run_options, write_file
from loadbench.cli.options import ScenarioCommand, given, scenario_options
from loadbench.core.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.gate import GateRule
    from loadbench.results.compare import Comparison
    from loadbench.session.paired import PairedRuns

FORMATS = ("text", "markdown", "json", "junit")
_WHICH = "name two URLs or two runs, or two models with --a-model and --b-model"


@click.command(cls=ScenarioCommand)
@click.argument("sides", nargs=-1, metavar="[A B]")
@click.option("--a", "a", multiple=True, metavar="URL|RUN", help="Side A; repeat it for several saved runs.")
@click.option("--b", "b", multiple=True, metavar="URL|RUN", help="Side B; repeat it for several saved runs.")
@click.option("--baseline", metavar="FILE", help="Use the runs in this file as side A (see --save-baseline).")
@click.option(
    "--save-baseline", type=click.Path(path_type=Path), metavar="FILE", help="Save the runs of side B to this file."
)
@click.option("--paired", is_flag=True, help="Saved runs: the first of A was measured with the first of B, and so on.")
@click.option(
    "--fail-on",
    "rules",
    multiple=True,
    metavar="RULE",
    help="Exit with 3 if B is surely worse by more, as in 'ttft_p95>5%' or 'output_tokens_per_s<-5%@users=8'; "
    "with 5 if that is not sure.",
)
@click.option(
    "--confidence",
    "certainty",
    type=click.FloatRange(0.5, 0.9999),
    metavar="SHARE",
    default=0.95,
    show_default=True,
    help="Confidence level of the intervals and decisions.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE", help="Write the report to this file.")
@click.option("--chart", type=click.Path(path_type=Path), metavar="FILE", help="Draw tokens/s over the load as SVG.")
@click.option("--scenario", type=click.Path(path_type=Path), metavar="FILE", help="Two URLs: the load and the work.")
@click.option("--a-model", metavar="ID", default="", help="A's model, if --a does not name it.")
@click.option("--b-model", metavar="ID", default="", help="B's model, if --b does not name it.")
@click.option("--repeats", metavar="N", help="Measure every level this often on each side.  [default: 8]")
@click.option("--budget", "most_time", metavar="TIME", help="Do not start a repeat that would exceed this time: 20m.")
@click.option("--settle", metavar="TIME", help="Wait this long before each level of a side.  [default: 1s]")
@click.option("--same", is_flag=True, help="Allow both sides to be the same: how much do two measurements differ?")
@scenario_options(without=("fail_on",))
@run_options(json="the comparison as JSON", dry_run="Two URLs: show the plan, the order and the time.")
def command(sides: tuple[str, ...], *, scenario: Path | None, as_json: bool, **options: Any) -> None:
    """Compare two servers or two saved runs: which is faster, by what factor, and from what load on?

    A and B are URLs, which are then measured in turn (for two models at one --url, use --a-model and --b-model). Or
    they are run folders, folders of run folders, or baselines. The folder of a comparison is compared again.
    """
    from loadbench.results.saved import read_side, save_baseline  # noqa: PLC0415 - the help needs nothing of it

    if math.isnan(options["certainty"]):
        raise BadInput("--confidence nan: not a number", hint="write it as in 0.95")
    gates = _gates(options["rules"])
    a, b = _names(sides, options)
    baseline, flags = options["save_baseline"], given(options)
    if _are_servers(a, b, options):
        runs = _measure(a, b, options, gates=gates, flags=flags, scenario=scenario)
        if runs is None:
            return
    else:
        _refuse_measuring(options, flags, scenario)
        if a == [] and b and baseline is not None:
            save_baseline(baseline, _of_model(read_side(b), options, "b"))
            click.echo(f"kept in {baseline}", err=True)
            return
        runs = _read(a, b, options)
    if not runs.a:
        sys.exit(runs.exit_code)

    comparison = runs.compare(gates, confidence=options["certainty"])
    if baseline is not None:
        save_baseline(baseline, runs.b)
    _print(comparison, "json" if as_json else options["form"], report=options["report"], chart=options["chart"])
    sys.exit(runs.exit_code or exit_code(comparison))


def _print(comparison: Comparison, form: str, *, report: Path | None, chart: Path | None) -> None:
    from loadbench.report.compare_chart import compare_chart  # noqa: PLC0415
    from loadbench.report.formats import render_comparison  # noqa: PLC0415

    if chart is not None:
        write_file("--chart", chart, compare_chart(comparison))
    content = render_comparison(comparison, form)
    if report is not None:
        write_file("--report", report, content)
    else:
        print_report(content, form)


def exit_code(comparison: Comparison) -> ExitCode:
    """How the process ends; the first that holds."""
    passed = {gate.passed for gate in comparison.gates}
    invalid = {reason.level for reason in comparison.left_out if reason.code == "invalid" and not reason.run}
    if False in passed:
        return ExitCode.GATE_FAILED
    if not comparison.comparisons:
        return ExitCode.INVALID if invalid else ExitCode.BAD_INPUT
    if None in passed:
        undecided = {check.level for gate in comparison.gates for check in gate.checks if check.decision == "UNDECIDED"}
        return ExitCode.INVALID if undecided & invalid else ExitCode.INCONCLUSIVE
    return ExitCode.OK


def _gates(rules: Sequence[str]) -> list[GateRule]:
    from loadbench.plan.gate import parse_gate  # noqa: PLC0415

    gates = []
    for rule in (rule.strip() for text in rules for rule in text.split(",")):
        try:
            gates.append(parse_gate(rule))
        except ValueError as error:
            hint = "write it as in 'ttft_p95>5%' or 'output_tokens_per_s<-5%@users=8'"
            raise BadInput(f"--fail-on: {error}", hint=hint) from None
    if len(set(gates)) < len(gates):
        raise BadInput("--fail-on: a rule is given twice", hint="give each once")
    return gates


# Which two sides.


def _names(sides: Sequence[str], options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of A's and of B's runs or servers; either may be empty."""
    a, b = list(options["a"]), list(options["b"])
    if options["baseline"] is not None:
        if a:
            raise BadInput("--baseline: is side A, and --a is given too", hint="give one of them")
        a = [options["baseline"]]
    if sides and (options["a"] or b):
        raise BadInput(f"{sides[0]!r} and --a or --b: each names a side", hint="name both in one way")
    match list(sides):
        case []:
            return a, b
        case [folder] if not a and options["save_baseline"] is None:
            return [folder], []
        case names if a or (options["save_baseline"] is not None and len(names) == 1):
            return a, names
        case [first, second]:
            return [first], [second]
    raise BadInput(f"{len(sides)} runs are named; which are of A?", hint="write --a RUN --a RUN --b RUN --b RUN")


def _are_servers(a: Sequence[str], b: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether the sides are to be measured now; raises `BadInput` for a mixture."""
    from loadbench.plan.pairs import is_target  # noqa: PLC0415

    targets = [is_target(name) for name in (*a, *b)]
    if not targets:
        if options["a_model"] or options["b_model"] or options["same"]:
            return True
        raise BadInput("no two sides are named", hint=_WHICH)
    if any(targets) and not all(targets):
        raise BadInput("one side is a server and the other a saved run", hint="measure it first: loadbench sweep --url")
    if all(targets) and (len(a) > 1 or len(b) > 1):
        raise BadInput("a side to be measured is one server", hint="measure it more often with --repeats")
    return all(targets)


def _measure(
    a: Sequence[str],
    b: Sequence[str],
    options: Mapping[str, Any],
    *,
    gates: Sequence[GateRule],
    flags: Mapping[str, object],
    scenario: Path | None,
) -> PairedRuns | None:
    """Measure both sides in turn; `None` after a dry run."""
    from loadbench.plan.pairs import read_pairing  # noqa: PLC0415
    from loadbench.plan.pairs import sides as read_sides  # noqa: PLC0415
    from loadbench.plan.sources import resolve  # noqa: PLC0415
    from loadbench.report.compare_plan import compare_plan_document  # noqa: PLC0415
    from loadbench.report.render_text import render_text  # noqa: PLC0415
    from loadbench.session.paired import check_paired, measure_paired  # noqa: PLC0415

    if options["paired"] or options["baseline"] is not None:
        raise BadInput("--paired and --baseline are for saved runs", hint="leave them out")
    resolved = resolve(flags=flags, environment=os.environ, file=scenario)
    if resolved.origins.get("report.name", "default") == "default":
        resolved = replace(resolved, report=replace(resolved.report, name="compare"))
    both = read_sides(
        resolved,
        a="".join(a),
        b="".join(b),
        a_model=options["a_model"],
        b_model=options["b_model"],
        same=options["same"],
    )
    pairing = read_pairing(repeats=options["repeats"], budget=options["most_time"], settle=options["settle"])
    check_paired(both, pairing, os.environ)
    if options["dry_run"]:
        plan = compare_plan_document(both, pairing, gates, confidence=options["certainty"])
        click.echo(render_text(plan), nl=False)
        return None
    progress = progress_line(quiet=options["quiet"], no_live=options["no_live"])
    runs = measure_paired(both, pairing, os.environ, progress)
    assert runs.folder is not None  # noqa: S101 - what was measured has one
    progress.say(f"kept in {runs.folder.path}")
    return runs


def _refuse_measuring(options: Mapping[str, Any], flags: Mapping[str, object], scenario: Path | None) -> None:
    """Refuse the flags that say how to measure, since the runs are saved already."""
    from loadbench.plan.scenario import settings  # noqa: PLC0415

    useless = [name for name in ("repeats", "settle", "same", "dry_run") if options[name]]
    useless += ["budget"] * bool(options["most_time"]) + ["scenario"] * (scenario is not None)
    useless += [setting.word or setting.name for setting in settings() if setting.name in flags]
    if useless:
        flag = "--" + useless[0].replace("_", "-")
        raise BadInput(f"{flag}: is for measuring, and these runs are saved", hint="leave it out, or name two URLs")


def _read(a: Sequence[str], b: Sequence[str], options: Mapping[str, Any]) -> PairedRuns:
    """Read the saved runs of both sides."""
    from loadbench.results.saved import has_pairs, read_pairs, read_side  # noqa: PLC0415
    from loadbench.session.paired import PairedRuns  # noqa: PLC0415

    if a and b:
        runs_a, runs_b = _of_model(read_side(a), options, "a"), _of_model(read_side(b), options, "b")
        return PairedRuns(runs_a, runs_b, paired=options["paired"])
    if b or len(a) != 1 or not has_pairs(Path(a[0])):
        raise BadInput("only one side is named", hint=_WHICH)
    return PairedRuns(*read_pairs(Path(a[0])), paired=True)


def _of_model(runs: Any, options: Mapping[str, Any], side: str) -> Any:
    """The side's runs; if a model is named for it, with that model alone."""
    from loadbench.results.saved import of_model  # noqa: PLC0415

    model = options[f"{side}_model"]
    return of_model(runs, model, side=side) if model else runs
