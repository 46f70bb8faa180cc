"""What is known of a server's models, as `loadbench models --json` prints it and a run keeps it.

What nobody told is null: that a model is not known to be loaded is not the same as that it is not.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SCHEMA: Final = "loadbench.models/1"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `id` is what the server lists it as; `size_bytes` is what it takes on disk.

    `device` and `execution_provider` are what the catalogue promises, not what an answer was computed on. `alias` may
    stand for several variants of one model.
    """

    id: str
    alias: str | None = None
    version: int | None = None
    device: str | None = None
    execution_provider: str | None = None
    size_bytes: int | None = None
    license: str | None = None
    cached: bool | None = None
    loaded: bool | None = None
    context_length: int | None = None


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """A server's models, and `sources`: who told of them, in the order in which they were believed."""

    schema: Literal["loadbench.models/1"] = SCHEMA
    endpoint: str
    dialect: str
    simulated: bool = False
    sources: list[str] = []
    models: list[Model] = []
