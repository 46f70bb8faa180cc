"""A request as a level sees it: its place there, and what is known of its prompt.

The prompt's text and the request's body travel apart (`loadbench.engine.level.PreparedRequest`): a sample holds its
request until it has been recorded, and a worker process sends both, so neither may grow with the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from loadbench.plan.abandonment import Patience
    from loadbench.plan.load import Phase


class Destination(NamedTuple):
    """Where a request goes: to which of the client's endpoints; of several models or servers in a level, to which."""

    endpoint: int = 0
    model: str | None = None  # as requests name it
    server: str | None = None  # by its base URL


ONLY_DESTINATION = Destination()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that is due; `target_input_tokens` is the length that its prompt was made for, if that is known."""

    number: int  # position among the requests of its level, from 0
    phase: Phase
    due_ns: int
    max_tokens: int
    destination: Destination = ONLY_DESTINATION
    target_input_tokens: int | None = None
    user: int | None = None  # the virtual user, closed loop only
    persona: str | None = None  # by name
    turn: int | None = None  # of its conversation, from 1
    warm: bool = False  # its beginning was sent before, so a server may have it in its prefix cache
    prompt_index: int | None = None  # position among the given prompts, from 0
    patience: Patience | None = None  # of its user; `None`: waits as long as it takes
    keep_text: bool = False  # whether the sample keeps the response text

    def earlier_by(self, ns: int) -> Request:
        """The same in the time of a clock that is behind by so much."""
        return replace(self, due_ns=self.due_ns - ns)

    @property
    def groups(self) -> list[tuple[str, str]]:
        """(kind, name) of each group that it is counted in besides the whole level."""
        names = (("persona", self.persona), ("model", self.destination.model), ("server", self.destination.server))
        return [(kind, name) for kind, name in names if name is not None]
