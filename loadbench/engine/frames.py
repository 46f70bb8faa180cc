"""What the processes of one run say to each other: frames of pickled records, each behind its length.

Both ends are this program, started by itself, and the pipe between them is theirs alone; nothing from a file, a
server or a user is ever unpickled.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadbench.plan.load import LevelDuration, Load, Phase, Shard
    from loadbench.plan.prompts import Calibration
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import Health
    from loadbench.record.sample import Sample

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """To a worker: this part of this level, from this moment on."""

    scenario: Scenario
    base_url: str
    headers: tuple[tuple[str, str], ...]
    model: str
    load: Load
    key: str
    extent: LevelDuration
    calibration: Calibration | None
    begin_ns: int
    shard: Shard


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: end the level; told twice, cut what is in flight."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it has started, and waits for its first order."""


@dataclass(frozen=True, slots=True)
class Started:
    """From a worker: a request that it sent, so that it is known of if the worker dies."""

    at_ns: int
    number: int
    due_ns: int
    phase: Phase
    user: int | None
    persona: str | None
    turn: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """From a worker: what happened since the last one; `told_ns` is when it was sent."""

    started: list[Started]
    ended: list[Sample]
    closes_ns: int | None
    told_ns: int
    tokens_under_way: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """From a worker: its part of the level is over."""

    due: int
    missed: int
    health: Health


def pack(record: object) -> bytes:
    """A record as a frame."""
    body = pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


HEAD_BYTES = _LENGTH.size


def body_bytes(head: bytes) -> int:
    """How many bytes follow this head."""
    return int(_LENGTH.unpack(head)[0])


def unpack(body: bytes) -> object:
    """The record in a frame's body."""
    record: object = pickle.loads(body)  # noqa: S301 - our own process at the other end
    return record
