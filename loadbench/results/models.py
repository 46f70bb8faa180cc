"""What is known of a server's models, as `loadbench models --json` prints it and a run records it.

What nothing reports is null: a model that is not known to be loaded may be loaded.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SCHEMA: Final = "loadbench.models/1"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `id` is its name in the server's list; `size_bytes` is its size on disk.

    `device` and `execution_provider` are what the catalogue says, not what a response was computed on. Several variants
    of a model may have the same `alias`.
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
    """A server's models, and the `sources` of these facts; where they disagree, an earlier source counts."""

    schema: Literal["loadbench.models/1"] = SCHEMA
    endpoint: str
    dialect: str
    simulated: bool = False
    sources: list[str] = []
    models: list[Model] = []
