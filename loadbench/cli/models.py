"""`loadbench models`."""

from __future__ import annotations

import os
from typing import Any

import click

from loadbench.cli.measuring import print_document, refuse_wide, say, say_unused, wide_option
from loadbench.cli.options import ScenarioCommand, setting_flags, setting_options


@click.command(
    cls=ScenarioCommand,
    reads=True,
    examples=(
        "loadbench models --url http://127.0.0.1:8080/v1",
        "loadbench models --url http://127.0.0.1:8080/v1 --loaded --json",
    ),
)
@setting_options("models")
@click.option("--cached", is_flag=True, help="Show only the models on disk.")
@click.option("--loaded", is_flag=True, help="Show only the models in memory.")
@click.option("--download", metavar="MODEL", help="Foundry Local: download it with the foundry command, then list.")
@click.option("--load", "to_load", metavar="MODEL", help="Foundry Local: load it, print how long that took, then list.")
@click.option("--unload", "to_unload", metavar="MODEL", help="Foundry Local: remove it from memory, then list.")
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print the catalogue as JSON on stdout.")
def command(
    *,
    cached: bool,
    loaded: bool,
    download: str | None,
    to_load: str | None,
    to_unload: str | None,
    wide: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """List a server's models: id, alias, device, size, license, and whether they are cached and loaded.

    MODEL in the options below is an id, an id without its version, or an alias. Without --url, the models of the
    simulated server are listed.
    """
    import msgspec  # noqa: PLC0415 - the help needs nothing of it

    from loadbench.plan.sources import resolve  # noqa: PLC0415
    from loadbench.report.models import catalogue_document  # noqa: PLC0415
    from loadbench.results.run import to_json  # noqa: PLC0415
    from loadbench.session.models import list_models  # noqa: PLC0415

    refuse_wide("JSON" if as_json else "text", wide=wide)
    scenario = resolve(flags=setting_flags("models", options), environment=os.environ, command="models")
    say_unused(scenario)
    catalogue = list_models(
        scenario, os.environ, download=download, unload=to_unload, load=to_load, quiet_stdout=as_json, say=say
    )
    models = [model for model in catalogue.models if (model.cached or not cached) and (model.loaded or not loaded)]
    catalogue = msgspec.structs.replace(catalogue, models=models)
    if as_json:
        click.echo(to_json(catalogue), nl=False)
    else:
        print_document(catalogue_document(catalogue), wide=wide)
