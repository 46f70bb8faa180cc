"""`loadbench select`."""

from __future__ import annotations

import math
from pathlib import Path

import click

from loadbench.core.errors import BadInput


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--weight", "weights", multiple=True, metavar="NAME=X", help="How much a dimension counts.  [default: 1]")
@click.option("--at", metavar="LOAD", help="Compare at this load, as in users=4. Default: the lightest common one.")
@click.option("--rater", help="Whose scores count. Default: a person's, else a judge's.")
@click.option(
    "--models", type=click.Path(path_type=Path), metavar="FILE", help="What is known of the models (models.json)."
)
@click.option("--format", "form", type=click.Choice(("text", "markdown", "json")), default="text", show_default=True)
def command(
    runs: tuple[Path, ...],
    *,
    weights: tuple[str, ...],
    at: str | None,
    rater: str | None,
    models: Path | None,
    form: str,
) -> None:
    """Choose a model: speed, memory, quality, disk, licence and load time of every model of these runs in one table.

    Dimensions: latency, ttft, throughput, memory, quality, disk, load. What is not known of every model does not count.
    """
    from loadbench.analyze.quality.selection import candidates, select  # noqa: PLC0415 - only the command itself needs it
    from loadbench.plan.models import read_models  # noqa: PLC0415
    from loadbench.report.selection import selection_json, selection_markdown, selection_text  # noqa: PLC0415
    from loadbench.results.folder import read_run  # noqa: PLC0415
    from loadbench.results.quality import read_quality  # noqa: PLC0415
    from loadbench.results.recorded_prompts import known_facts  # noqa: PLC0415

    if not runs:
        raise BadInput("which runs?", hint="name run folders, as in results/20260101T120000Z-sweep")
    weighed = _weights(weights)
    facts = {} if models is None else known_facts(read_models(models))
    read = [(read_run(run), read_quality(run if run.is_dir() else run.parent)) for run in runs]
    selection = select(candidates(read, at=at, rater=rater, facts=facts), weighed)
    show = {"text": selection_text, "markdown": selection_markdown, "json": selection_json}[form]
    click.echo(show(selection) if form == "text" else show(selection).encode(), nl=False)


def _weights(given: tuple[str, ...]) -> dict[str, float]:
    """Every dimension's weight: 1 where none is given."""
    from loadbench.analyze.quality.selection import DIMENSIONS  # noqa: PLC0415

    weights = dict.fromkeys(DIMENSIONS, 1.0)
    for text in given:
        name, _, number = text.partition("=")
        if name.strip() not in weights:
            raise BadInput(f"--weight {text}: an unknown dimension", hint=f"known are {', '.join(weights)}")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise BadInput(f"--weight {text}: want a number from 0 on", hint="as in --weight latency=2")
        weights[name.strip()] = weight
    return weights
