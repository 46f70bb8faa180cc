"""The endpoint that is tested, as the main process and its workers know it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadbench.client.client import Endpoint
from loadbench.core.secrets import secrets_of
from loadbench.wire.body import NO_CHANGES, BodyChanges
from loadbench.wire.openai import Api

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from loadbench.client.adapter import Adapter
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.settings import LimitSettings
    from loadbench.targets.http_get import HttpClient

# A name is compared with so many others, which takes some 20 µs each.
_MOST_COMPARED = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An endpoint and how requests reach it.

    Requests go below `base_url`, or to the `route` that was given in full; each has the `query`. `models` are the ids
    of the server's list, `None` if it has no usable list: then `list_problem` says what is wrong with it. `listing` has
    the whole entries, and `more_models` is set if they are only the first page. A model in this process has an
    `adapter`, and nothing else.
    """

    base_url: str
    route: str = ""
    query: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)  # that no message may show, besides those of the headers
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: ssl.SSLContext | None = None
    sources: tuple[str, ...] = ()  # local addresses to connect from, in turn; empty: the system chooses
    models: tuple[str, ...] | None = None
    more_models: bool = False
    list_problem: str = ""
    server: str | None = None
    listing: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    adapter: Adapter | None = field(default=None, repr=False)
    changes: BodyChanges = NO_CHANGES  # of every request's body

    def note_on(self, model: str) -> str:
        """What the list says against a model, with the name that was probably meant; empty if it lists the model."""
        # Ollama leaves out a tag, Gemini a prefix.
        known = {*(self.models or ()), *(re.sub(r"^models/|:latest$", "", name) for name in self.models or ())}
        if not self.models or self.more_models or model in known:
            return ""
        return f"{not_listed(model, self.models)}; {self.models_text}"

    @property
    def root(self) -> str:
        """Where a server has its own routes, besides those of the API."""
        return re.sub(r"(/api)?/v\d+$", "", self.base_url)

    @property
    def models_text(self) -> str:
        """The first of the models that it lists."""
        models = self.models or ()
        rest = " and more" if self.more_models else f" and {len(models) - 20} more" if len(models) > 20 else ""
        return f"it lists {', '.join(models[:20])}{rest}"

    def http(self, limits: LimitSettings) -> AbstractAsyncContextManager[HttpClient]:
        """A client for small requests to it."""
        from loadbench.targets.http_get import http_client  # noqa: PLC0415 - workers send none

        return http_client(
            self.base_url,
            self.headers,
            query=self.query,
            secrets=self.all_secrets,
            tls=self.tls,
            sources=self.sources,
            limits=limits,
        )

    @property
    def all_secrets(self) -> tuple[str, ...]:
        """What no message may show, with what is in its headers."""
        return (*self.secrets, *secrets_of(self.headers))

    def endpoint(self, model: str, scenario: Scenario) -> Endpoint:
        """The parts that all requests to one model share."""
        return Endpoint(
            model_note=self.note_on(model),
            base_url=self.base_url,
            route=self.route,
            query=self.query,
            secrets=self.secrets,
            model=model,
            api=Api(scenario.target.api),
            headers=self.headers,
            temperature=scenario.work.temperature,
            seed=scenario.work.seed,
            system=scenario.work.system,
            changes=self.changes,
        )


def not_listed(model: str, names: Sequence[str]) -> str:
    """That a model is not listed, and the name that was probably meant."""
    near = difflib.get_close_matches(model, names[:_MOST_COMPARED], n=1)
    return f"has no model {model!r}" + (f", did you mean {near[0]!r}?" if near else "")
