"""Conversations: several turns of one user, each request with the whole history.

The history of a later turn contains the server's own responses, so that its prefix cache works as in real use. The
number of turns is drawn with the first prompt. After the last turn, or after a failed request, the user begins a new
conversation.

A later turn is *warm*: most of its prompt was sent before, and a server may well have it cached. Its length in tokens
is known only to the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# A chat message as it is sent: its role, its content, and what else a data set gives it.
Message = Mapping[str, Any]


def user_message(text: str) -> tuple[Message, ...]:
    """The messages of a request that is one text."""
    return ({"role": "user", "content": text},)


class Turn(NamedTuple):
    """A request's place in its conversation: the number of its turn, of how many, and the messages before it."""

    number: int = 1
    of: int = 1
    history: tuple[Message, ...] = ()

    @property
    def has_next(self) -> bool:
        """Whether another turn follows, which needs the text of this response."""
        return self.number < self.of

    def after(self, messages: Sequence[Message], response: str | None) -> Turn | None:
        """The turn after this one's messages and response; `None` where a new conversation begins."""
        if not self.has_next or response is None:
            return None
        return Turn(self.number + 1, self.of, (*self.history, *messages, {"role": "assistant", "content": response}))
