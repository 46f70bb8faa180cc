"""What servers say when something is wrong, and what to do about it: by their words, for codes they have none."""

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
# The first that is found in the server's words; what is more particular stands first.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        _MEMORY,
        "out of memory",
        "unload other models (loadbench models --unload MODEL), or take a smaller one or another variant",
    ),
    (
        r"not loaded|must be loaded|load the model",
        "not loaded",
        "load it: loadbench models --load MODEL",
    ),
    (
        _LENGTH,
        "too long",
        "ask shorter prompts or for shorter answers: both share the model's context",
    ),
    (
        r"model not found|no such model|does not exist|no model matching|unknown model",
        "unknown model",
        "see which there are: loadbench models",
    ),
    (
        r"download\w* (?:failed|stalled|timed out|aborted)|resolve host|name resolution",
        "no download",
        "see that there is a network, or use a model that is cached: loadbench models --cached",
    ),
    (
        r"execution provider .*(?:not|fail)|provider .*(?:not available|not found)|no kernel image|CUDA driver|cudnn",
        "no accelerator",
        "see that the device's driver is there, or take the model's CPU variant",
    ),
)


def known_error(words: str) -> str | None:
    """The name of what is wrong, where it is one of those that are known."""
    return next((name for pattern, name, _ in _KNOWN if re.search(pattern, words, re.IGNORECASE)), None)


def advice_for(words: str) -> str:
    """What to do about it; empty where nothing is known."""
    return next((advice for pattern, _, advice in _KNOWN if re.search(pattern, words, re.IGNORECASE)), "")
