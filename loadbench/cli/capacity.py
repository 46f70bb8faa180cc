"""`loadbench capacity`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.measuring import (
    check_report,
    data_or_page,
    finish,
    look,
    print_document,
    progress_line,
    refuse_wide,
    report_option,
    resume_option,
    run_options,
    say_data_set,
    say_unused,
    settings_of_resumed,
)
from loadbench.cli.options import ScenarioCommand, scenario_argument, setting_flags, setting_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@click.command(
    cls=ScenarioCommand,
    examples=(
        "loadbench capacity --url http://127.0.0.1:8080/v1 --slo 'ttft_p95<1s'",
        "loadbench capacity --url http://127.0.0.1:8080/v1 --slo 'ttft_p95<1s' --think 20s --devices-for 200",
        "loadbench capacity --url http://127.0.0.1:8080/v1 --slo 'e2e_p95<5s' --by rate --budget 10m",
    ),
)
@scenario_argument
@setting_options("capacity")
@resume_option
@report_option
@run_options(json="capacity.json", dry_run="Show how the search will use its time budget.")
def command(
    scenario: Path | None,
    *,
    resume: Path | None,
    report: Sequence[Path],
    form: str,
    quiet: bool,
    no_live: bool,
    wide: bool,
    dry_run: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Find the highest load at which every objective holds: how many users can the server take?

    Give the objectives with --slo, and the think time of users with --think. Several models (--model a --model b, or
    --model all) are searched in turn and share the budget. SCENARIO is a TOML or JSON file with the same settings.

    Exit codes: 0 answered (likely and verified, or proven; --require proven wants the latter), 3 not even the lowest
    load meets the objectives, 4 the load generator was the bottleneck, 5 inconclusive: the budget was too short.
    """
    progress = progress_line(quiet=quiet or dry_run, no_live=no_live)
    from loadbench.plan.sources import resolve  # noqa: PLC0415 - the help needs nothing of it
    from loadbench.report.capacity import answer_line  # noqa: PLC0415
    from loadbench.report.capacity_plan import capacity_plan_document  # noqa: PLC0415
    from loadbench.report.formats import renderers  # noqa: PLC0415
    from loadbench.report.line import capacity_lines  # noqa: PLC0415
    from loadbench.report.pages import page_of  # noqa: PLC0415
    from loadbench.results.run import to_json  # noqa: PLC0415
    from loadbench.session.capacity import Resumed, check_search, run_capacity  # noqa: PLC0415
    from loadbench.session.resume import in_its_folder  # noqa: PLC0415
    from loadbench.session.sample_request import sample_request  # noqa: PLC0415

    refuse_wide(form, wide=wide)
    before = settings_of_resumed(resume, "capacity", file=scenario)
    flags = setting_flags("capacity", options)
    resolved = resolve(flags=flags, environment=os.environ, file=scenario, command="capacity", **before)
    resolved = in_its_folder(resolved, resume)
    check_search(resolved, os.environ)
    check_report(report)
    resumed = {} if resume is None else Resumed.read_all(resume, resolved)
    if dry_run:
        sample, earlier = sample_request(resolved, os.environ), [search.capacity for search in resumed.values()]
        plan = capacity_plan_document(resolved, sample, verbose=verbose, resume=resume, earlier=earlier)
        print_document(plan, wide=wide)
        return
    say_unused(resolved)
    say_data_set(resolved)
    searches = run_capacity(resolved, os.environ, progress, resume=resume, resumed=resumed)
    progress.close()
    folder = searches.folder.path

    def content(form: str, file: Path | None) -> str:
        data = data_or_page(form, searches.shown, lambda: page_of([folder]))
        if data is not None:
            return data
        if form == "line":
            return capacity_lines([writer.capacity for writer in searches.writers])
        if form == "json":
            return to_json(searches.result).decode()
        shown = renderers(**look(wide=wide, file=file))
        return searches.junit() if form == "junit" else shown[form](searches.document())

    def say_answers() -> None:
        for writer in searches.writers:
            progress.say(answer_line(writer.capacity, of_several=len(searches.folders) > 1))

    place, code = searches.folder.place, searches.exit_code
    finish(content, place, code, form=form, quiet=quiet, report=report, last=say_answers)
