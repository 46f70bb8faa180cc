"""A comparison, put together: which two sides, measured now or read, the gates, and where it goes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.drift import drift
from loadbench.core.errors import BadInput, ExitCode
from loadbench.plan.gate import parse_gate
from loadbench.plan.pairs import is_target, read_pairing, sides
from loadbench.plan.scenario import settings
from loadbench.report.compare_chart import compare_chart
from loadbench.report.compare_plan import repeats_text
from loadbench.report.formats import render_comparison
from loadbench.results.compare import to_json
from loadbench.results.saved import has_pairs, of_model, read_pairs, read_side, save_baseline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.gate import GateRule
    from loadbench.results.compare import Comparison
    from loadbench.results.folder import RunFolder
    from loadbench.results.run import Reason, Run

_WHICH = "name two URLs or two runs, or two models by --a-model and --b-model"


@dataclass(slots=True)
class _Sides:
    """The runs of both, and what is known of how they were measured."""

    a: list[Run]
    b: list[Run]
    paired: bool = False
    caveats: list[Reason] = field(default_factory=list)
    folder: RunFolder | None = None
    exit_code: ExitCode = ExitCode.OK


def run_compare(
    named: Sequence[str],
    options: Mapping[str, Any],
    *,
    flags: Mapping[str, object],
    scenario: Path | None,
    environment: Mapping[str, str],
) -> ExitCode:
    """Compare and show; returns the exit code."""
    if math.isnan(options["certainty"]):
        raise BadInput("--confidence nan: is no share", hint="write it as in 0.95")
    gates = _gates(options["rules"])
    a, b = _names(named, options)
    if _measured(a, b, options):
        found = _measure(a, b, options, gates=gates, flags=flags, scenario=scenario, environment=environment)
        if found is None:
            return ExitCode.OK
    else:
        _check_saved(options, flags, scenario)
        if a == [] and b and options["save_baseline"] is not None:
            save_baseline(options["save_baseline"], of_side(read_side(b), options["b_model"], side="b"))
            click.echo(f"kept in {options['save_baseline']}", err=True)
            return ExitCode.OK
        found = _read(a, b, options)
    if not found.a:
        return found.exit_code
    return _tell(found, gates, options)


def _tell(found: _Sides, gates: Sequence[GateRule], options: Mapping[str, Any]) -> ExitCode:
    comparison = compare(
        found.a,
        found.b,
        paired=found.paired,
        gates=gates,
        confidence=options["certainty"],
        caveats=[*found.caveats, *(drift(found.a, found.b) if found.paired else ())],
    )
    if found.folder is not None:
        found.folder.write("compare.json", to_json(comparison))
        found.folder.write("compare.md", render_comparison(comparison, "markdown").encode())
        found.folder.write("compare.svg", compare_chart(comparison).encode())
    if options["save_baseline"] is not None:
        save_baseline(options["save_baseline"], found.b)
    if options["chart"] is not None:
        _write("--chart", options["chart"], compare_chart(comparison))
    content = render_comparison(comparison, options["form"])
    if options["report"] is not None:
        _write("--report", options["report"], content)
    else:
        # What programs read is UTF-8 whatever the terminal speaks.
        click.echo(content if options["form"] == "text" else content.encode(), nl=False)
    return found.exit_code if found.exit_code is not ExitCode.OK else exit_code(comparison)


def exit_code(comparison: Comparison) -> ExitCode:
    """How the process ends; the first that holds."""
    passed = {gate.passed for gate in comparison.gates}
    invalid = {one.level for one in comparison.left_out if one.code == "invalid" and not one.run}
    if False in passed:
        return ExitCode.GATE_FAILED
    if not comparison.comparisons:
        return ExitCode.INVALID if invalid else ExitCode.BAD_INPUT
    if None in passed:
        open_levels = {
            check.level for gate in comparison.gates for check in gate.checks if check.decision == "UNDECIDED"
        }
        return ExitCode.INVALID if open_levels & invalid else ExitCode.INCONCLUSIVE
    return ExitCode.OK


def _gates(rules: Sequence[str]) -> list[GateRule]:
    found = []
    for rule in (one.strip() for text in rules for one in text.split(",")):
        try:
            found.append(parse_gate(rule))
        except ValueError as error:
            hint = "write it as in 'ttft_p95>5%' or 'output_tokens_per_s<-5%@users=8'"
            raise BadInput(f"--fail-on: {error}", hint=hint) from None
    if len(set(found)) < len(found):
        raise BadInput("--fail-on: a rule is given twice", hint="give each once")
    return found


def _names(named: Sequence[str], options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What was named as A and as B; either may be empty."""
    a, b = list(options["a"]), list(options["b"])
    if options["baseline"] is not None:
        if a:
            raise BadInput("--baseline: is side A, and --a is given too", hint="give one of them")
        a = [options["baseline"]]
    if named and (options["a"] or b):
        raise BadInput(f"{named[0]!r} and --a or --b: each names a side", hint="name both in one way")
    match list(named):
        case []:
            return a, b
        case [one] if not a and options["save_baseline"] is None:
            return [one], []
        case many if a or (options["save_baseline"] is not None and len(many) == 1):
            return a, many
        case [one, other]:
            return [one], [other]
    raise BadInput(f"{len(named)} runs are named, and which are of A?", hint="write --a RUN --a RUN --b RUN --b RUN")


def _measured(a: Sequence[str], b: Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether the sides are to be measured now; raises `BadInput` for what is half of each."""
    targets = [is_target(name) for name in (*a, *b)]
    if not targets:
        if options["a_model"] or options["b_model"] or options["same"]:
            return True
        raise BadInput("which two?", hint=_WHICH)
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
    environment: Mapping[str, str],
) -> _Sides | None:
    """Both sides, measured in turn; `None` where only the plan was to be shown."""
    from loadbench.plan.sources import resolve  # noqa: PLC0415 - saved runs need none of it

    if options["paired"] or options["baseline"] is not None:
        raise BadInput("--paired and --baseline are for saved runs", hint="leave them out")
    resolved = resolve(flags=flags, environment=environment, file=scenario)
    if resolved.origins.get("report.name", "default") == "default":
        resolved = replace(resolved, report=replace(resolved.report, name="compare"))
    both = sides(
        resolved,
        a="".join(a),
        b="".join(b),
        a_model=options["a_model"],
        b_model=options["b_model"],
        same=options["same"],
    )
    pairing = read_pairing(repeats=options["repeats"], budget=options["most_time"], settle=options["settle"])
    if options["dry_run"]:
        from loadbench.report.pair_plan import pair_plan_text  # noqa: PLC0415

        needed = repeats_text(gates, [load.label for load in both[0].loads], confidence=options["certainty"])
        click.echo(pair_plan_text(both, pairing) + ("\n" + needed if needed else ""), nl=False)
        return None
    from loadbench.session.paired import measure_paired  # noqa: PLC0415

    found = measure_paired(both, pairing, environment=environment, quiet=options["quiet"], live=not options["no_live"])
    return _Sides(found.a, found.b, paired=True, caveats=found.caveats, folder=found.folder, exit_code=found.exit_code)


def _check_saved(options: Mapping[str, Any], flags: Mapping[str, object], scenario: Path | None) -> None:
    """Nothing is measured: what would say how is a mistake."""
    useless = [name for name in ("repeats", "settle", "same", "dry_run") if options[name]]
    useless += ["budget"] * bool(options["most_time"]) + ["scenario"] * (scenario is not None)
    useless += [setting.word or setting.name for setting in settings() if setting.name in flags]
    if useless:
        flag = "--" + useless[0].replace("_", "-")
        raise BadInput(f"{flag}: is for measuring, and these runs are saved", hint="leave it out, or name two URLs")


def _read(a: Sequence[str], b: Sequence[str], options: Mapping[str, Any]) -> _Sides:
    if not b:
        (folder,) = map(Path, a) if len(a) == 1 else (Path(),)
        if not has_pairs(folder):
            raise BadInput("only one side is named", hint=_WHICH)
        ours, theirs = read_pairs(folder)
        return _Sides(ours, theirs, paired=True)
    if not a:
        raise BadInput("only one side is named", hint=_WHICH)
    ours = of_side(read_side(a), options["a_model"], side="a")
    theirs = of_side(read_side(b), options["b_model"], side="b")
    return _Sides(ours, theirs, paired=options["paired"])


def of_side(runs: list[Run], model: str, *, side: str) -> list[Run]:
    """Its runs, with the one model alone if one is named."""
    return of_model(runs, model, side=side) if model else runs


def _write(flag: str, path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{flag} {path}: {error.strerror or error}", hint="name a file that can be written") from None
