"""How many repeats it takes for gates to decide, before anything is measured: by how much runs may differ, and N."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.compare.effect import plan_repeats
from loadbench.plan.objective import FAILURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.gate import GateRule

# From a quiet machine to one that others use too.
_CVS = (0.01, 0.02, 0.05)
# A change is asked after that is twice the bound, or this.
_LEAST_EFFECT = 0.1


def repeats_text(gates: Sequence[GateRule], levels: Sequence[str], *, confidence: float = 0.95) -> str:
    """A line for each gate on a ratio; of failures it cannot be known before there are any."""
    checks = sum(gate.applies(level) for gate in gates for level in levels)
    return "".join(_line(gate, max(1, checks), 1 - confidence) for gate in gates if gate.metric != FAILURES)


def _line(gate: GateRule, checks: int, alpha: float) -> str:
    effect = max(_LEAST_EFFECT, 2 * abs(gate.bound)) * (-1 if gate.more_is_better else 1)
    if effect <= -1:
        return f"gate {gate.rule}: its bound leaves no change that is twice as large\n"
    repeats = [plan_repeats(cv, effect, alpha, bound=gate.bound, checks=checks) for cv in _CVS]
    told = ", ".join(f"{n} if they differ by {cv:.0%}" for n, cv in zip(repeats, _CVS, strict=True))
    return f"gate {gate.rule}: to fail for {effect:+.0%} in nine of ten comparisons it takes {told} from run to run\n"
