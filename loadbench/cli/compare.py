"""`loadbench compare`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from loadbench.cli.complete import files, scenario_files, side
from loadbench.cli.measuring import (
    FORMAT_OF,
    check_files,
    check_report,
    data_or_page,
    github_option,
    hold_resumed,
    look,
    print_document,
    print_result,
    progress_line,
    refuse_wide,
    resume_option,
    run_options,
    say,
    say_data_set,
    say_saved,
    say_trace,
    say_unused,
    say_unused_variables,
    settings_of_resumed,
    tell_github,
    write_file,
    write_reports,
)
from loadbench.cli.options import ScenarioCommand, setting_flags, setting_options
from loadbench.cli.run_names import run_paths
from loadbench.cli.streams import JSON
from loadbench.core.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.plan.settings import Setting
    from loadbench.results.compare import Comparison
    from loadbench.session.paired import PairedRuns

_REPORT = (
    "Write the report to this file, as its name ends: .html (a page with charts), .csv, .md, .json, .xml (JUnit), "
    ".txt, .hlog; repeat the flag for several. With --format, a file of that format is written instead of stdout."
)
# The variables that the sides name themselves.
_KEYS = re.compile(r"\b(?:api_key_env=|header_env=[^,]*?)(\w+)\s*(?:,|$)")
# The settings of a search that a comparison has only with --capacity: the others have the same flag in both.
_OF_SEARCH = frozenset({"by", "at_most", "require", "curve", "precision"})
_WHICH = "name two URLs or two runs, two models with --a-model and --b-model, or two commands with --a-cmd and --b-cmd"
# The settings that name the sides without A and B.
_NAMING = {"a_model", "b_model", "a_cmd", "b_cmd", "same"}


def _of_search(setting: Setting) -> bool:
    """Whether --capacity adds this flag."""
    return setting.section == "capacity" and setting.name in _OF_SEARCH


@click.command(
    cls=ScenarioCommand,
    examples=(
        "loadbench compare http://127.0.0.1:8080/v1 http://127.0.0.1:8081/v1 --users 1,4",
        "loadbench compare --a-cmd './cpu.sh {port}' --b-cmd './gpu.sh {port}' --users 1,4 --budget 20m",
        "loadbench compare results/*-before results/*-after --fail-on 'ttft_p95>5%'",
        "loadbench compare http://127.0.0.1:8080/v1 http://127.0.0.1:8081/v1 --capacity --slo 'ttft_p95<1s'",
    ),
)
@click.argument("sides", nargs=-1, metavar="[A B]", shell_complete=side)
@click.option(
    "--a", "a", multiple=True, metavar="A", shell_complete=side, help="Side A; repeat the flag for several saved runs."
)
@click.option(
    "--b", "b", multiple=True, metavar="B", shell_complete=side, help="Side B; repeat the flag for several saved runs."
)
@click.option(
    "--baseline",
    metavar="FILE",
    shell_complete=files,
    help="Use the runs in this file as side A (see --save-baseline).",
)
@click.option(
    "--save-baseline", type=click.Path(path_type=Path), metavar="FILE", help="Save the runs of side B to this file."
)
@click.option("--paired", is_flag=True, help="Saved runs: pair them in order (first of A with first of B, and so on).")
@click.option("--report", type=click.Path(path_type=Path), multiple=True, metavar="FILE", help=_REPORT)
@github_option
@click.option("--chart", type=click.Path(path_type=Path), metavar="FILE", help="Draw tokens/s by load as SVG.")
@click.option(
    "--scenario",
    type=click.Path(path_type=Path),
    metavar="FILE",
    shell_complete=scenario_files,
    help="When measuring: the scenario file.",
)
@click.option(
    "--capacity",
    is_flag=True,
    help="Search how many users each side serves under the objectives (--slo), A first, then B; --budget is for both.",
)
@setting_options("compare")
@setting_options("capacity", _of_search)
@resume_option
@run_options(json="the comparison as JSON", dry_run="When measuring: show the plan, the order and the time.")
def command(sides: tuple[str, ...], *, scenario: Path | None, **options: Any) -> None:
    """Compare two servers or two saved runs: which is faster, by what factor, and from what load on?

    A and B are URLs (measured now, alternately), saved runs (a run folder, `last`, `last~1`, a run's name, or a folder
    of run folders), or baselines written by --save-baseline. A server can also be written as settings:
    url=URL,model=ID or profile=NAME. For two models at one server, use --url, --a-model and --b-model instead of A and
    B; for servers that loadbench starts itself, one at a time, use --a-cmd and --b-cmd. With --capacity, the users that
    each side serves are compared. With the folder of an earlier comparison alone, its analysis is repeated without
    measuring.

    Exit codes: without --fail-on 0 if a level could be compared, even if nothing is decided; 4 if none could be because
    levels are INVALID, 2 if the sides have no level in common. With --fail-on 3 if a rule fails, 5 if one is undecided.
    """
    # ruff: noqa: PLC0415 - the help needs nothing of what is imported in functions
    from loadbench.plan.sources import refuse_rules_without_level, resolve
    from loadbench.results.folder import contradictions_in
    from loadbench.results.saved import has_pairs, of_model, read_pairs, read_side, save_baseline
    from loadbench.session.paired import PairedRuns
    from loadbench.session.resume import resumed_sides

    a, b = _names(sides, options)
    baseline, flags = options["save_baseline"], setting_flags("compare", options)
    measures = _are_servers(a, b)
    context = click.get_current_context()
    form_given = context.get_parameter_source("form") is ParameterSource.COMMANDLINE
    refuse_wide(options["form"], wide=options["wide"])
    check_files(options, "save_baseline", "chart")
    for path in options["report"]:
        check_files({"report": path}, "report")
    if _searches(options, measures=measures):
        _search_both("".join(a), "".join(b), {**flags, **setting_flags("capacity", options)}, options, scenario)
    given = {"--scenario": scenario, "--dry-run": options["dry_run"], "--resume": options["resume"]}
    flag = next((name for name, value in given.items() if value), "")
    if flag and not measures:
        raise BadInput(f"{flag}: is for measuring, and these runs are saved", hint="leave it out, or name two URLs")
    if not measures:
        a, b = run_paths(a), run_paths(b)
    keys = _KEYS.findall(",".join([*a, *b]))
    resume, both = options["resume"], None
    settings_of_resumed(resume, "compare", file=scenario)
    if resume is not None and scenario is None and not (a or b or _NAMING & flags.keys()):
        both = resumed_sides(resume, flags=flags, environment=os.environ)
        resolved = both[0]
    else:
        resolved = resolve(
            flags=flags,
            environment=os.environ,
            file=scenario,
            command="compare" if measures else "compare-saved",
            key_variables=keys,
        )
    settings = resolved.compare
    named = a or b or any(resolved.is_set(f"compare.{key}") for key in _NAMING)
    if both is None and not named:
        raise BadInput("no two sides are named", hint=_WHICH)
    if not measures:
        say_unused(resolved)

    # The runs of both sides.
    if measures:
        measured = _measure(a, b, options, resolved, both)
        if measured is None:
            return
        runs = measured
    elif a and b:
        runs_a = of_model(read_side(a), settings.a_model, side="a")
        runs_b = of_model(read_side(b), settings.b_model, side="b")
        runs = PairedRuns(runs_a, runs_b, paired=options["paired"])
    elif b and baseline is not None:
        outputs = {**options, "json": context.meta.get(JSON), "format": form_given}
        unused = [name for name in ("report", "chart", "github", "paired", "json", "format") if outputs[name]]
        unused += [name for name in flags if name != "b_model"]
        if unused:
            flag = f"--{unused[0].replace('_', '-')}"
            raise BadInput(f"{flag}: has no effect: side B is saved and not compared", hint="leave it out, or name A")
        say_unused_variables(resolved, {"compare.b_model"}, "side B is saved and not compared")
        save_baseline(baseline, of_model(read_side(b), settings.b_model, side="b"))
        say(f"written to {baseline}")
        return
    elif len(a) == 1 and has_pairs(Path(a[0])):
        if options["paired"]:
            raise BadInput(f"--paired: the runs of {a[0]} are pairs already", hint="leave it out")
        runs_a, runs_b = read_pairs(Path(a[0]))
        runs_a = of_model(runs_a, settings.a_model, side="a")
        runs = PairedRuns(runs_a, of_model(runs_b, settings.b_model, side="b"), paired=True)
    else:
        raise BadInput("only one side is named", hint=_WHICH)
    if not runs.a:
        sys.exit(runs.exit_code)
    if not measures:
        refuse_rules_without_level(resolved, {level.load.label for run in (*runs.a, *runs.b) for level in run.levels})

    # Their comparison.
    with contradictions_in(" or ".join([*a, *b])):
        comparison = runs.compare(settings.fail_on or (), confidence=settings.confidence)
        written = _output(runs, comparison, options, undecided=resolved.slo.undecided)
    sys.exit(runs.exit_code or exit_code(comparison, undecided=resolved.slo.undecided) or written)


def _searches(options: Mapping[str, Any], *, measures: bool) -> bool:
    """Whether the sides are to be searched; raises `BadInput` where that cannot be, and for a search's flag without."""
    idle = next((name for name in sorted(_OF_SEARCH) if options[name] is not None), None)
    if options["capacity"] and not measures:
        raise BadInput("--capacity: is for measuring, and these runs are saved", hint="name two URLs")
    if idle is not None and not options["capacity"]:
        flag = f"--{'no-' * (options[idle] is False)}{idle.replace('_', '-')}"
        raise BadInput(f"{flag}: is for a search", hint="add --capacity, or leave it out")
    return bool(options["capacity"])


def _search_both(a: str, b: str, flags: dict[str, object], options: Mapping[str, Any], file: Path | None) -> NoReturn:
    """Search both sides, print what was found, and exit."""
    from loadbench.plan.pairs import SIDES, searched_sides
    from loadbench.report.compare_capacity import capacity_comparison_document, capacity_sides_plan
    from loadbench.report.formats import renderers
    from loadbench.report.junit import sides_junit, sides_suites
    from loadbench.report.line import capacity_lines
    from loadbench.report.pages import page_of
    from loadbench.report.shown import runs_at
    from loadbench.results.run import to_json
    from loadbench.session.capacity_sides import check_searches, search_sides, searched_before, split_budget
    from loadbench.session.resume import in_its_folder, settings_of_sides
    from loadbench.session.sample_request import sample_request

    unused = [name for name in ("baseline", "save_baseline", "paired", "chart") if options[name]]
    if unused:
        raise BadInput(f"--{unused[0].replace('_', '-')}: has no effect with --capacity", hint="leave it out")
    check_report(options["report"])
    resume = options["resume"]
    if resume is not None:
        hold_resumed(resume)
    before = ({}, {}) if resume is None else settings_of_sides(resume, file=file, named=bool(a or b))
    keys = _KEYS.findall(f"{a},{b}")
    sides = searched_sides(flags, os.environ, file, a=a, b=b, before=before, key_variables=keys)
    sides = split_budget(sides)
    side_a, side_b = (in_its_folder(side, resume) for side in sides)
    check_searches((side_a, side_b), os.environ)
    if options["dry_run"]:
        requests = [sample_request(side, os.environ) for side in (side_a, side_b)]
        earlier = searched_before(resume, (side_a, side_b))
        plan = capacity_sides_plan(
            (side_a, side_b), requests, verbose=options["verbose"], resume=resume, earlier=earlier
        )
        print_document(plan, wide=options["wide"])
        sys.exit(ExitCode.OK)
    for name, of_side in zip(SIDES, (side_a, side_b), strict=True):
        for value in of_side.unused:
            say(f"{name.upper()}: not used: {value}")
    say_data_set(side_a)
    progress = progress_line(quiet=options["quiet"], no_live=options["no_live"])
    both = search_sides((side_a, side_b), os.environ, progress, resume=resume)
    progress.close()
    result, folder, undecided = both.result, both.folder, side_a.slo.undecided

    def content(form: str, to: Path | None) -> str:
        data = data_or_page(form, lambda: runs_at(folder.path), lambda: page_of([folder.path]))
        if data is not None:
            return data
        if form == "json":
            return to_json(result).decode()
        if form == "line":
            return capacity_lines([search for search, _ in both.searches.values()])
        if form == "junit":
            return sides_junit(result, undecided=undecided)
        return renderers(**look(wide=options["wide"], file=to))[form](capacity_comparison_document(result))

    print_result(content, options["form"])
    say_saved(folder.place, quiet=options["quiet"])
    written = write_reports(options["report"], content)
    if options["github"]:
        written = max(written, tell_github(content("markdown", None), sides_suites(result, undecided=undecided)))
    sys.exit(both.exit_code() or written)


def _output(runs: PairedRuns, comparison: Comparison, options: Mapping[str, Any], *, undecided: str | None) -> ExitCode:
    """Print the comparison, or write its report; write the other files. Each is tried, whatever became of the others;
    returns the exit code for the case that nothing else has gone wrong."""
    from loadbench.report.compare_chart import compare_chart
    from loadbench.report.formats import render_comparison
    from loadbench.report.pages import comparison_page
    from loadbench.report.shown import pairs_shown, runs_at
    from loadbench.results.saved import save_baseline

    codes = [ExitCode.OK]
    place = None if runs.folder is None else runs.folder.path

    def content(form: str, file: Path | None) -> str:
        data = data_or_page(
            form,
            lambda: pairs_shown(runs.a, runs.b) if place is None else runs_at(place),
            lambda: comparison_page(comparison, runs.a, runs.b, undecided=undecided),
        )
        if data is not None:
            return data
        return render_comparison(comparison, form, undecided=undecided, **look(wide=options["wide"], file=file))

    # A file of the format that is given, or of none that is known, is what stdout would have had.
    form = options["form"]
    form_given = click.get_current_context().get_parameter_source("form") is ParameterSource.COMMANDLINE
    formats = [(path, FORMAT_OF.get(path.suffix.lower())) for path in options["report"]]
    instead = any(known is None or (form_given and known == form != "html") for _, known in formats)
    print_result(content, form, on_stdout=not instead)
    codes += [write_file("--report", path, content(known or form, path)) for path, known in formats]
    if options["chart"] is not None:
        codes.append(write_file("--chart", options["chart"], compare_chart(comparison)))
    if options["github"]:
        from loadbench.report.junit import compare_suite

        suite = compare_suite(comparison, undecided=undecided)
        codes.append(tell_github(render_comparison(comparison, "markdown", undecided=undecided), [suite]))
    if options["save_baseline"] is not None:
        try:
            save_baseline(options["save_baseline"], runs.b)
            if not options["quiet"]:
                say(f"written to {options['save_baseline']}")
        except BadInput as error:
            say(f"error: {error}")
            codes.append(error.exit_code)
    if runs.folder is not None:
        say_saved(runs.folder.place, quiet=options["quiet"])
        codes.append(runs.folder.place.exit_code)
    return max(codes)


def exit_code(comparison: Comparison, *, undecided: str | None = None) -> ExitCode:
    """How the process ends; the first that holds. `undecided` is what a gate that is not certain counts as."""
    from loadbench.analyze.compare.gates import standing

    standings = {standing(gate, comparison.left_out) for gate in comparison.gates}
    if "failed" in standings:
        return ExitCode.GATE_FAILED
    if not comparison.comparisons:
        invalid = any(reason.code == "invalid" and not reason.run for reason in comparison.left_out)
        return ExitCode.INVALID if invalid else ExitCode.BAD_INPUT
    if "invalid" in standings:
        return ExitCode.INVALID
    if "undecided" in standings and undecided != "pass":
        return ExitCode.GATE_FAILED if undecided == "fail" else ExitCode.INCONCLUSIVE
    return ExitCode.OK


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


def _are_servers(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether the sides are to be measured now, also if settings name them; raises `BadInput` for a mixture."""
    from loadbench.plan.pairs import is_target

    targets = [is_target(name) for name in (*a, *b)]
    if any(targets) and not all(targets):
        raise BadInput("one side is a server and the other a saved run", hint="measure it first: loadbench sweep --url")
    if all(targets) and (len(a) > 1 or len(b) > 1):
        raise BadInput("a side to be measured is one server", hint="measure it more often with --repeats")
    return all(targets)


def _measure(
    a: Sequence[str],
    b: Sequence[str],
    options: Mapping[str, Any],
    resolved: Scenario,
    both: tuple[Scenario, Scenario] | None,
) -> PairedRuns | None:
    """Measure both sides in turn, as they are named or as a folder has `both`; `None` after a dry run."""
    from loadbench.plan.pairs import Pairing, one_up
    from loadbench.plan.pairs import sides as read_sides
    from loadbench.plan.settings import FEWEST_DECIDING
    from loadbench.report.compare_plan import compare_plan_document, few_repeats
    from loadbench.session.paired import check_paired, measure_paired
    from loadbench.session.resume import in_its_folder, whole_repeats
    from loadbench.session.sample_request import sample_request

    if options["paired"] or options["baseline"] is not None:
        raise BadInput("--paired and --baseline are for saved runs", hint="leave them out")
    resume = options["resume"]
    both = both or read_sides(in_its_folder(resolved, resume), a="".join(a), b="".join(b))
    pairing = Pairing.of(resolved, one_up=one_up(*both) is True)
    check_paired(both, pairing, os.environ)
    earlier = ([], []) if resume is None else whole_repeats(resume, both)
    if options["dry_run"]:
        settings = resolved.compare
        requests = [sample_request(side, os.environ) for side in both]
        plan = compare_plan_document(
            both,
            pairing,
            settings.fail_on or (),
            confidence=settings.confidence,
            requests=requests,
            verbose=options["verbose"],
            resume=resume,
            complete=len(earlier[0]),
        )
        print_document(plan, wide=options["wide"])
        return None
    say_unused(both[0])
    say_data_set(both[0])
    progress = progress_line(quiet=options["quiet"], no_live=options["no_live"])
    say_trace(both[0], progress)
    if pairing.most < FEWEST_DECIDING:
        progress.say(f"note: {few_repeats(pairing.most)}")
    runs = measure_paired(both, pairing, os.environ, progress, resume=resume, earlier=earlier)
    progress.close()
    return runs
