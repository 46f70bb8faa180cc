"""The sample traces: invented requests in the forms of the public ones. To write them again:

python -m tests.plan.make_traces
"""

from __future__ import annotations

import json
import random
from pathlib import Path

# The one is used by a scenario that is shipped, the other by tests only.
AZURE_TRACE = Path(__file__).parents[2] / "scenarios" / "azure.csv"
MOONCAKE_TRACE = Path(__file__).parents[1] / "data" / "traces" / "mooncake.jsonl"
REQUESTS = 120
_TEN_MINUTES_S = 600
BLOCK = 512


def azure() -> str:
    """Two clock minutes before midnight it begins, so that its dates change; lengths like those of a chat, shorter."""
    rng = random.Random("azure")
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    at_s = 0.0
    for _ in range(REQUESTS):
        at_s += rng.expovariate(REQUESTS / _TEN_MINUTES_S)
        day, since = divmod(23 * 3600 + 58 * 60 + at_s, 24 * 3600)
        clock = f"{int(since // 3600):02d}:{int(since % 3600 // 60):02d}:{since % 60:010.7f}"
        asked, answered = round(rng.lognormvariate(5.2, 0.8)), round(rng.lognormvariate(3.2, 0.7))
        rows.append(f"2025-03-{4 + int(day):02d} {clock},{max(1, asked)},{max(1, answered)}")
    return "\n".join(rows) + "\n"


def mooncake() -> str:
    """Conversations of some turns, each turn's blocks beginning with those of the one before."""
    rng = random.Random("mooncake")
    rows, fresh = [], 0
    for _ in range(REQUESTS // 6):
        at_ms, blocks = rng.randrange(_TEN_MINUTES_S * 800), [0]
        for _ in range(rng.randint(1, 4)):
            blocks = blocks + [fresh := fresh + 1 for _ in range(rng.randint(0, 2))]
            length = BLOCK * (len(blocks) - 1) + rng.randint(1, BLOCK)
            rows.append((at_ms, length, rng.randint(4, 60), tuple(blocks)))
            at_ms += rng.randrange(5_000, 40_000)
    return "".join(
        json.dumps({"timestamp": at, "input_length": asked, "output_length": answered, "hash_ids": ids}) + "\n"
        for at, asked, answered, ids in sorted(rows)
    )


TRACES = {AZURE_TRACE: azure, MOONCAKE_TRACE: mooncake}

if __name__ == "__main__":
    for file, make in TRACES.items():
        file.write_text(make(), encoding="utf-8", newline="\n")
