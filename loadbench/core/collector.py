"""The garbage collector at the start: what is imported stays, so looking through it again and again is for nothing."""

import gc

_USUAL = gc.get_threshold()
# New objects from one collection to the next: some 60,000 are imported.
_AT_START = 50_000


def before_imports() -> None:
    """Collect seldom from now on."""
    gc.set_threshold(_AT_START)


def after_imports() -> None:
    """Collect as usual, and leave alone what is alive now."""
    gc.freeze()
    gc.set_threshold(*_USUAL)
