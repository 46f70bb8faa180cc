"""`loadbench serve`."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--profile", default="slot-server", show_default=True, help="Which machine to be like; --list shows them."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of its noise and its words.")
@click.option("--model", "models", multiple=True, metavar="ID", help="A model to list; repeat it for several.")
@click.option("--list", "listing", is_flag=True, help="Show the profiles and leave.")
def command(*, profile: str, port: int, host: str, seed: int, models: tuple[str, ...], listing: bool) -> None:
    """Run the simulated server: OpenAI-compatible, batching as real engines do, at speeds that formulas give.

    Prints READY and its URL once it listens, and serves until Ctrl-C.
    """
    from loadbench.sim.command import profiles_text, serve_until_signal  # noqa: PLC0415 - only when it serves

    if listing:
        click.echo(profiles_text(), nl=False)
        return
    serve_until_signal(profile, host=host, port=port, seed=seed, models=models)
