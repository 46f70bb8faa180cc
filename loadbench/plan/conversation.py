"""Conversations: several turns of one user, each request with all that was said before.

What is in a later turn's request is the server's own answers, so that its prefix cache meets what it would meet in
life. How many turns a conversation has is drawn with its first prompt; after the last of them, or where an answer
failed and there is nothing to go on from, the user begins another.

A later turn is *warm*: most of its prompt was there before, and a server that keeps it is right to. How long it is in
tokens only the server knows.
"""

from __future__ import annotations

from typing import NamedTuple

# (role, text), as a chat has it.
Message = tuple[str, str]


class Turn(NamedTuple):
    """Where in its conversation a request stands: which turn it is, of how many, and what has been said before."""

    number: int = 1
    of: int = 1
    said: tuple[Message, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether another is to follow, for which the answer is needed."""
        return self.number < self.of

    def after(self, asked: str, answer: str | None) -> Turn | None:
        """The turn that follows; `None` where a new conversation begins."""
        if not self.goes_on or answer is None:
            return None
        return Turn(self.number + 1, self.of, (*self.said, ("user", asked), ("assistant", answer)))
