"""`loadbench score`: quality beside speed. A stub for people, their scores read back, a second model as judge."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options
from loadbench.core.errors import BadInput, ExitCode, Interrupted, TargetUnavailable
from loadbench.core.text import printable

# Room for a dozen facets and a sentence; a model that thinks aloud needs more.
_JUDGE_TOKENS = 512
# Settings of the work that mean nothing to answers that are collected once, at temperature 0.
_NOT_OF_A_STUB = (
    *("input_tokens", "output_tokens", "persona", "mix", "turns"),
    *("temperature", "unique", "deterministic", "time_loads"),
)


@click.group()
def command() -> None:
    """Rate answers: by people, by a second model, and by what each prompt expects.

    Scores are whole numbers from 1 to 5 for coherence, factuality, brevity, and each facet of the prompt itself.
    """


@command.command("stub", cls=ScenarioCommand)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@scenario_options("target", "work", "limits", without=_NOT_OF_A_STUB)
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="FILE", help="Write it there. Default: annotation.json in RUN."
)
@click.option("--force", is_flag=True, help="Write over a file that is there, and over the scores in it.")
def stub_command(run: Path | None, *, to: Path | None, force: bool, **options: Any) -> None:
    """Collect answers at temperature 0 and write them down with room for scores.

    RUN is a run folder: its models are asked its prompts. Without it, --prompts and --url say what and whom.
    """
    from loadbench.results.folder import RunFolder, read_run  # noqa: PLC0415
    from loadbench.results.quality import ANNOTATION_FILE, to_json  # noqa: PLC0415
    from loadbench.session import scoring  # noqa: PLC0415 - only the command itself needs it

    path = to or (Path() if run is None else scoring.folder_of(run)) / ANNOTATION_FILE
    scenario = scoring.scoring_scenario(None if run is None else read_run(run), given(options), os.environ)
    if path.exists() and not force:
        raise BadInput(f"{path}: exists, and may hold scores", hint="name another with --to, or write over it: --force")
    annotation = scoring.stub(run, scenario, os.environ, say=_say)
    RunFolder(path.parent).write(path.name, to_json(annotation))
    failed = [one for one in annotation.answers if one.failure]
    click.echo(f"{len(annotation.answers) - len(failed)} answers to rate in {path}")
    for one in failed:
        _say(f"no answer: {one.model}, prompt {one.prompt}: {one.failure}")
    if not annotation.complete:
        raise Interrupted("stopped before all answers had come", hint="to collect all, write over these: --force")
    sys.exit(ExitCode.TARGET_UNAVAILABLE if failed else ExitCode.OK)


@command.command("read")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="The run that it is of. Default: the file's own folder.")
@click.option("--rater", help="Who gave the scores; wins over the file's.")
@click.option("--json", "as_json", is_flag=True, help="Print quality.json on stdout.")
def read_command(file: Path, *, run: Path | None, rater: str | None, as_json: bool) -> None:
    """Check the scores in FILE and keep them in their run folder, beside those of other raters."""
    import msgspec  # noqa: PLC0415 - only the command itself needs it

    from loadbench.results.quality import Quality, merged, ratings_of, read_annotation  # noqa: PLC0415
    from loadbench.session import scoring  # noqa: PLC0415

    annotation = read_annotation(file)
    annotation = annotation if not rater else msgspec.structs.replace(annotation, rater=rater)
    if not ratings_of(annotation):
        raise BadInput(f"{file}: no score in it", hint="write whole numbers from 1 to 5 in place of the nulls")
    run = run or (file.parent if (file.parent / "run.json").exists() else None)
    quality = merged(Quality(), annotation) if run is None else scoring.keep(run, [(annotation, [])])
    _show(quality, as_json=as_json)
    click.echo("not kept: no --run was named" if run is None else f"kept in {scoring.folder_of(run)}", err=True)


@command.command("judge")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--judge-model", required=True, metavar="ID", help="The model that judges.")
@click.option("--judge-url", metavar="URL", help="Its server. Default: the run's.")
@click.option("--judge-key-env", metavar="TEXT", help="The environment variable that holds its API key.")
@click.option("--judgings", type=click.IntRange(1, 9), default=1, show_default=True, help="How often it rates all.")
@click.option("--max-tokens", type=click.IntRange(1), default=_JUDGE_TOKENS, show_default=True, help="For each reply.")
@click.option("--json", "as_json", is_flag=True, help="Print quality.json on stdout.")
def judge_command(
    run: Path,
    *,
    judge_model: str,
    judge_url: str | None,
    judge_key_env: str | None,
    judgings: int,
    max_tokens: int,
    as_json: bool,
) -> None:
    """Have a second model rate the answers of RUN, those that a stub collected or, without one, collected now.

    Exits with 5 if some answers could not be rated, with 6 if none could.
    """
    from loadbench.results.folder import read_run  # noqa: PLC0415
    from loadbench.results.quality import ratings_of  # noqa: PLC0415
    from loadbench.session import scoring  # noqa: PLC0415 - only the command itself needs it

    flags: dict[str, object] = {"model": [judge_model]}
    flags |= {"url": judge_url} if judge_url else {}
    flags |= {"api_key_env": judge_key_env} if judge_key_env else {}
    annotation = scoring.answers_of(run, os.environ, say=_say)
    if not annotation.complete:
        _say("the answers are not all there: collecting them was stopped; to have all, `loadbench score stub --force`")
    scenario = scoring.judge_scenario(read_run(run), flags, os.environ)
    made = scoring.judged(
        annotation,
        scenario,
        os.environ,
        judgings=judgings,
        max_tokens=max_tokens,
        say=_say,
    )
    if not made:
        raise Interrupted("no answer is rated yet", hint="nothing is kept")
    _show(scoring.keep(run, made), as_json=as_json)
    click.echo(f"kept in {scoring.folder_of(run)}", err=True)
    if len(made) < judgings or any(rated.complete < annotation.complete for rated, _ in made):
        raise Interrupted("stopped before all answers were rated", hint="what was rated is kept")
    if not any(ratings_of(rated) for rated, _ in made):
        raise TargetUnavailable(f"{judge_model}: rated no answer", hint="see the reasons above; take another model")
    sys.exit(ExitCode.INCONCLUSIVE if any(unrated for _, unrated in made) else ExitCode.OK)


def _say(text: str) -> None:
    click.echo(printable(text), err=True)


def _show(quality: Any, *, as_json: bool) -> None:
    from loadbench.report.quality import quality_document  # noqa: PLC0415
    from loadbench.report.render_text import render_text  # noqa: PLC0415
    from loadbench.results.quality import to_json  # noqa: PLC0415

    click.echo(to_json(quality) if as_json else render_text(quality_document(quality)), nl=False)
