"""`loadbench select`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click

from loadbench.cli.command import Command
from loadbench.cli.measuring import look, print_report, refuse_wide, wide_option
from loadbench.cli.run_names import RUN
from loadbench.core.errors import BadInput, ExitCode


@click.command(
    cls=Command,
    reads=True,
    examples=(
        "loadbench select results/*-before",
        "loadbench select results/*-before results/*-after --format markdown",
    ),
)
@click.argument("runs", nargs=-1, type=RUN, metavar="RUN...")
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="NAME=X",
    help="The weight of a group, or of a dimension in its group.  [default: quality=2, all others 1]",
)
@click.option(
    "--min-quality",
    type=click.FloatRange(1, 5),
    metavar="X",
    help="Recommend no model that is rated below this, from 1 to 5.",
)
@click.option("--at", metavar="LOAD", help="Compare at this load, as in users=4. Default: the lowest that all have.")
@click.option(
    "--rater", metavar="NAME", help="Use this rater's scores. Default: a person's if any, otherwise the judge model's."
)
@click.option(
    "--models", type=click.Path(path_type=Path), metavar="FILE", help="Size, license and load times of models (JSON)."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "markdown", "json")),
    default="text",
    show_default=True,
    help="Output format.",
)
@wide_option
def command(
    runs: tuple[Path, ...],
    *,
    weights: tuple[str, ...],
    min_quality: float | None,
    at: str | None,
    rater: str | None,
    models: Path | None,
    form: str,
    wide: bool,
) -> None:
    """Choose a model: one table with speed, memory, quality, disk, license and load time of every model in the runs.

    RUN is a run folder, or the folder of a comparison. Groups and their dimensions: speed (latency, ttft, throughput),
    quality, resources (memory, disk, load time). A dimension counts only if it is known for every model. Exit code 4:
    no model has a valid measurement; 3: none has the quality that --min-quality requires; 5: the best do not differ
    clearly.
    """
    from loadbench.analyze.quality.selection import WEIGHTS, candidates, select  # noqa: PLC0415 - not for the help
    from loadbench.plan.models import read_models  # noqa: PLC0415
    from loadbench.plan.objective import parse_level_label  # noqa: PLC0415
    from loadbench.report.formats import renderers  # noqa: PLC0415
    from loadbench.report.selection import selection_document, selection_json  # noqa: PLC0415
    from loadbench.results.folder import contradictions_in, folder_of  # noqa: PLC0415
    from loadbench.results.quality import read_quality  # noqa: PLC0415
    from loadbench.results.recorded_prompts import known_facts  # noqa: PLC0415
    from loadbench.results.saved import runs_of  # noqa: PLC0415

    refuse_wide(form, wide=wide)
    if not runs:
        raise BadInput("no run given", hint="name run folders, as in results/20260101T120000Z-sweep")
    weighed = dict(WEIGHTS)
    for text in weights:
        name, _, number = text.partition("=")
        if name.strip() not in weighed:
            raise BadInput(f"--weight {text}: an unknown dimension or group", hint=f"known are {', '.join(weighed)}")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise BadInput(f"--weight {text}: want a number from 0 on", hint="as in --weight latency=2")
        weighed[name.strip()] = weight
    if at is not None:
        try:
            at = parse_level_label(at)
        except ValueError as error:
            raise BadInput(f"--at: {error}") from None
    facts = {} if models is None else known_facts(read_models(models))
    read = [(run, read_quality(folder_of(path))) for path in runs for run in runs_of(path)]
    with contradictions_in(" or ".join(map(str, runs))):
        selection = select(candidates(read, at=at, rater=rater, facts=facts), weighed, min_quality=min_quality)
        content = (
            selection_json(selection)
            if form == "json"
            else renderers(**look(wide=wide))[form](selection_document(selection))
        )
    print_report(content, form)
    if not selection.ranked:
        of_quality = all("--min-quality" in candidate.excluded for candidate in selection.excluded)
        sys.exit(ExitCode.GATE_FAILED if of_quality and selection.excluded else ExitCode.INVALID)
    sys.exit(ExitCode.INCONCLUSIVE if selection.tied else ExitCode.OK)
