"""`loadbench score`: collect responses for people to rate, read their scores back, or have a second model judge."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.command import Group
from loadbench.cli.measuring import check_files, look, refuse_wide, say, say_data_set, say_unused, wide_option
from loadbench.cli.options import ScenarioCommand, setting_flags, setting_options
from loadbench.cli.run_names import RUN, RUN_OR_FILE
from loadbench.core.errors import BadInput, ExitCode, Interrupted, TargetUnavailable
from loadbench.core.new_file import is_taken


@click.group(
    cls=Group,
    examples=(
        "loadbench score stub --url http://127.0.0.1:8080/v1 --prompt 'Explain caching briefly.' --to scores.json",
        "loadbench score judge results/*-before --judge-model large",
    ),
)
def command() -> None:
    """Rate responses: by people, by a second model, and by what each prompt expects.

    Scores are whole numbers from 1 (bad) to 5 (good) for coherence, factuality, brevity and each facet of the prompt. A
    facet is something that a good response contains; the file of --prompts names the facets of each prompt.
    """


@command.command(
    "stub",
    cls=ScenarioCommand,
    examples=(
        "loadbench score stub --url http://127.0.0.1:8080/v1 --prompt 'Explain caching briefly.' --to scores.json",
        "loadbench score stub results/*-before --to answers.json",
    ),
)
@click.argument("run", required=False, type=RUN)
@setting_options("score")
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="FILE", help="Write to this file. Default: annotation.json in RUN."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file; the scores in it are lost.")
def stub_command(run: Path | None, *, to: Path | None, force: bool, **options: Any) -> None:
    """Write a form that people fill in with scores.

    Responses are collected at temperature 0. RUN is a run folder: its prompts are sent to its models. Without RUN, name
    the prompts with --prompts and the server with --url.
    """
    from loadbench.results.folder import folder_of, read_run, write_or_keep  # noqa: PLC0415 - the help needs nothing of it
    from loadbench.results.quality import ANNOTATION_FILE  # noqa: PLC0415
    from loadbench.results.run import to_json  # noqa: PLC0415
    from loadbench.session import scoring  # noqa: PLC0415
    from loadbench.session.setup import check  # noqa: PLC0415

    check_files({"to": to}, "to")
    path = to or (Path() if run is None else folder_of(run)) / ANNOTATION_FILE
    scenario = scoring.scoring_scenario(
        None if run is None else read_run(run), setting_flags("score", options), os.environ
    )
    check(scenario, os.environ)
    say_unused(scenario)
    say_data_set(scenario)
    if is_taken(path) and not force:
        raise BadInput(f"{path}: exists, and may hold scores", hint="name another file with --to, or add --force")
    annotation = scoring.stub(run, scenario, os.environ, say=say)
    write_or_keep(path, to_json(annotation), replace=force)
    failed = [answer for answer in annotation.answers if answer.failure]
    click.echo(f"{len(annotation.answers) - len(failed)} responses to rate in {path}")
    for answer in failed:
        say(f"no response: {answer.model}, prompt {answer.prompt}: {answer.failure}")
    if not annotation.complete:
        raise Interrupted("stopped before all responses had come", hint="run it again with --force to collect all")
    sys.exit(ExitCode.TARGET_UNAVAILABLE if failed else ExitCode.OK)


@command.command(
    "read",
    reads=True,
    examples=("loadbench score read last --rater Ada", "loadbench score read scores.json --rater Ada"),
)
@click.argument("file", type=RUN_OR_FILE)
@click.option("--run", type=RUN, metavar="RUN", help="The run of FILE. Default: the folder of FILE.")
@click.option("--rater", metavar="NAME", help="The name of the person who gave the scores. Default: the one in FILE.")
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print quality.json on stdout.")
def read_command(file: Path, *, run: Path | None, rater: str | None, wide: bool, as_json: bool) -> None:
    """Add the scores in FILE, a filled-in form, to its run folder.

    FILE may also be a run: its annotation.json is read.
    """
    import msgspec  # noqa: PLC0415 - the help needs nothing of it

    from loadbench.results.folder import folder_of  # noqa: PLC0415
    from loadbench.results.quality import Quality, merged, ratings_of, read_annotation  # noqa: PLC0415
    from loadbench.session import scoring  # noqa: PLC0415

    refuse_wide("JSON" if as_json else "text", wide=wide)
    file = file / "annotation.json" if file.is_dir() else file
    annotation = read_annotation(file)
    annotation = annotation if not rater else msgspec.structs.replace(annotation, rater=rater)
    if not ratings_of(annotation):
        raise BadInput(f"{file}: has no score", hint="write whole numbers from 1 to 5 in place of the nulls")
    run = run or (file.parent if (file.parent / "run.json").exists() else None)
    quality = merged(Quality(), annotation) if run is None else scoring.keep(run, [(annotation, [])])
    _show(quality, wide=wide, as_json=as_json)
    say("not saved: no --run was named" if run is None else f"saved in {folder_of(run)}")


@command.command(
    "judge",
    cls=ScenarioCommand,
    reads=True,
    examples=(
        "loadbench score judge results/*-before --judge-model large",
        "loadbench score judge results/*-before --judge-model large --judge-url http://127.0.0.1:8081/v1 --judgings 3",
    ),
)
@click.argument("run", type=RUN)
@setting_options("judge")
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print quality.json on stdout.")
def judge_command(run: Path, *, wide: bool, as_json: bool, **options: Any) -> None:
    """Have a second model rate the responses of a run.

    RUN is a run folder. The responses are those that `loadbench score stub` collected; if there are none, they are
    collected now. Exits with 5 if some responses could not be rated, with 6 if none could.
    """
    from loadbench.results.folder import folder_of, read_run  # noqa: PLC0415 - the help needs nothing of it
    from loadbench.results.quality import ratings_of  # noqa: PLC0415
    from loadbench.session import scoring  # noqa: PLC0415
    from loadbench.session.setup import check  # noqa: PLC0415

    refuse_wide("JSON" if as_json else "text", wide=wide)
    scenario = scoring.judge_scenario(read_run(run), setting_flags("judge", options), os.environ)
    check(scenario, os.environ)
    say_unused(scenario)
    annotation = scoring.answers_of(run, os.environ, say=say, yes_load=scenario.target.yes_load)
    if not annotation.complete:
        say("some responses are missing, since collecting them was stopped: run `loadbench score stub --force`")
    rated = scoring.judged(annotation, scenario, os.environ, say=say)
    if not rated:
        raise Interrupted("stopped before the first rating", hint="nothing is kept")
    _show(scoring.keep(run, rated), wide=wide, as_json=as_json)
    say(f"saved in {folder_of(run)}")
    if len(rated) < scenario.judge.judgings or any(ratings.complete < annotation.complete for ratings, _ in rated):
        raise Interrupted("stopped before all responses were rated", hint="what was rated is kept")
    if not any(ratings_of(ratings) for ratings, _ in rated):
        raise TargetUnavailable(f"{scenario.judge.model}: rated no response", hint="see the reasons above")
    sys.exit(ExitCode.INCONCLUSIVE if any(unrated for _, unrated in rated) else ExitCode.OK)


def _show(quality: Any, *, wide: bool, as_json: bool) -> None:
    from loadbench.report.quality import quality_document  # noqa: PLC0415
    from loadbench.report.render_text import render_text  # noqa: PLC0415
    from loadbench.results.run import to_json  # noqa: PLC0415

    click.echo(to_json(quality) if as_json else render_text(quality_document(quality), **look(wide=wide)), nl=False)
