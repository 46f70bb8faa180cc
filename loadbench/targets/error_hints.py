"""Known errors of servers by their words, and what to do about them: these errors have no codes."""

from __future__ import annotations

import re

_MEMORY = (
    r"out of (?:device |gpu |video |host )?memory|OutOfMemory|bad_alloc|\boom\b|failed to allocate|not enough memory"
    r"|insufficient memory|CUDA_ERROR_OUT|can't allocate|alloc\w* fail"
)
_LENGTH = (
    r"context (?:length|window|size)|maximum context|too many tokens|exceeds? the (?:available )?context"
    r"|prompt is too long"
)
# (pattern, name, advice); the first match counts, so the more specific ones come first.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        _MEMORY,
        "out of memory",
        "unload other models (loadbench models --unload MODEL), or use a smaller model or another variant",
    ),
    (r"not loaded|must be loaded|load the model", "not loaded", "load it: loadbench models --load MODEL"),
    (_LENGTH, "too long", "use shorter prompts or request shorter responses: both share the model's context"),
    (
        r"model not found|no such model|does not exist|no model matching|unknown model",
        "unknown model",
        "list the models: loadbench models",
    ),
    (
        r"download\w* (?:failed|stalled|timed out|aborted)|resolve host|name resolution",
        "no download",
        "check the network, or use a cached model: loadbench models --cached",
    ),
    (
        r"execution provider .*(?:not|fail)|provider .*(?:not available|not found)|no kernel image|CUDA driver|cudnn",
        "no accelerator",
        "check the device's driver, or use the model's CPU variant",
    ),
)


def known_error(words: str) -> str | None:
    """The name of the error, if it is a known one."""
    return next((name for pattern, name, _ in _KNOWN if re.search(pattern, words, re.IGNORECASE)), None)


def advice_for(words: str) -> str:
    """What to do about it; empty if the error is unknown."""
    return next((advice for pattern, _, advice in _KNOWN if re.search(pattern, words, re.IGNORECASE)), "")
