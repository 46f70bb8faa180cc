"""Known errors of servers by their words and status, and what to do about them.

The words are those of a failed request, as in `HTTP 404: The model 'x' does not exist`.
"""

from __future__ import annotations

import re

# Details of failures are shorter. The patterns may look at a character as often as the text is long.
_MOST_WORDS = 2000
REDIRECT = "redirects are not followed: use that address with --url if it is the right one"
KEY = (
    "the key is that in LOADBENCH_API_KEY, or in the variable of --api-key-env; "
    "a key in another header: --header-env 'api-key: NAME'"
)
_MEMORY = (
    r"out of (?:device |gpu |video |host )?memory|OutOfMemory|bad_alloc|\boom\b|failed to allocate|not enough memory"
    r"|insufficient memory|CUDA_ERROR_OUT|can't allocate|alloc\w* fail"
)
_DEAD = (
    r"(?:worker|engine\w*|backend|runner|process) (?:is |was |has )?(?:dead|died|crashed|terminated|ended)\b"
    r"|EngineDead|EngineCore encountered"
)
_LENGTH = (
    r"context[ _](?:length|window|size|limit)|maximum context|context is full|too many (?:input |prompt )?tokens"
    r"|exceeds? the (?:available |model'?s )?(?:maximum )?(?:context|sequence|model len)"
    r"|(?:prompt|input) (?:is )?too long|input length|max_model_len|\bn_ctx\b|max_new_tokens`? must be"
    r"|maximum (?:input|prompt|sequence) length"
    r"|range of input length|token (?:count|limit) .*exceed|longer than the (?:maximum|model)"
)
_NO_MODEL = (
    r"model[^.;]{0,100}? (?:is |was |could |can ?not |does |do )*(?:not be |be )?"
    r"(?:not (?:found|exist|available|recogni[sz]ed|served|supported)|found|unknown)\b|model_not_found|no such model"
    r"|does not exist|no model matching|(?:unknown|invalid|unsupported) model|not a valid model|DeploymentNotFound"
)
_REFUSED_FIELD = (
    r"(?:unknown|unsupported|unrecogni[sz]ed|unexpected|invalid|extra|additional) (?:request )?"
    r"(?:parameter|param|field|argument|keyword|propert|input|name\b)|(?:not|n't) (?:permitted|allowed|supported)\b"
    r"|extra_forbidden|cannot find field|is unsupported|only the default"
)
# Of a field whose value the server does not take, after its name.
_VALUE = (
    r"\b[^.;]{0,80}?(?:\b(?:must|should|between|range|at (?:least|most)|(?:less|greater|larger|smaller|bigger) than"
    r"|minimum|maximum|exceeds?|above|below|too (?:large|small|high|low|big))\b|[<>≤≥])"
)
_FIELD = (
    "leave the field out (--extra-body '{\"NAME\": null}'), or give the limit another name (--max-tokens-field NAME)"
)
# (pattern, name, advice); the first match counts, so the more specific ones come first.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (r"HTTP 3\d\d", "redirect", REDIRECT),
    (
        r"^no (?:end after|token in the last) [\d,]+ (?:events|MiB)",
        "no end",
        "the server may not take the limit of tokens (--max-tokens-field NAME), or the model may repeat itself",
    ),
    (
        r"no token(?: with text of the 1 that usage counts)?, and finish_reason",  # which counts as a token
        "ended at once",
        "the model ended its response at once: use another prompt, or --exact-output",
    ),
    (
        r"no token with text",
        "no text",
        "the tokens are not shown (spaces, or hidden reasoning): use another prompt, or a larger --max-tokens",
    ),
    (
        _DEAD,
        "dead engine",
        "the engine behind the server has ended: see its log for what ended it, and restart the server",
    ),
    (
        r": line \d+: +\d+ Killed\b|^Killed$",  # as a shell reports it
        "killed",
        "a program of it was killed, of which too little memory is the usual cause: use a smaller model or context",
    ),
    (
        _MEMORY,
        "out of memory",
        "unload other models (loadbench models --unload MODEL), or use a smaller model or another variant",
    ),
    (
        r"(?:is|still|currently) (?:being )?load(?:ing|ed now)|loading model|model is not ready|warming up",
        "still loading",
        "wait until the server has loaded the model",
    ),
    (r"not loaded|must be loaded|load the model", "not loaded", "load it: loadbench models --load MODEL"),
    (
        _LENGTH,
        "too long",
        "use shorter prompts or request shorter responses (--max-tokens): both share the model's context",
    ),
    (
        r"HTTP 402|insufficient[ _](?:quota|credit|balance|funds)|billing|payment required|credit balance",
        "no credit",
        "the account has no credit left: see the provider's billing page",
    ),
    (
        r"HTTP 429|rate[ _-]?limit|too many requests|throttl|RESOURCE_EXHAUSTED|quota",
        "rate limit",
        "the server limits requests: send fewer (--users, --rate), or have its limit raised",
    ),
    (_NO_MODEL, "unknown model", "list the models: loadbench models"),
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
    (r"HTTP 40[13]|(?:invalid|incorrect|missing|wrong) (?:api|subscription)[ _-]?key|unauthori[sz]ed", "key", KEY),
    (
        r"HTTP 40[45]",
        "no such route",
        "check the model's name and the path of --url; or give the whole route: --url http://HOST/chat/completions",
    ),
    (
        r"HTTP 413|(?:entity|payload|body) (?:is )?too large",
        "too large",
        "the server, or a proxy before it, limits the size of requests: use shorter prompts, or raise its limit",
    ),
    (r"HTTP 415", "content type", "check the path of --url: a route of chats takes JSON"),
    (
        rf"\b(?:max_\w*tokens|num_predict|n_predict){_VALUE}",
        "limit out of range",
        "request another number of tokens: --max-tokens N",
    ),
    (
        rf"\btemperature{_VALUE}",
        "temperature out of range",
        "request another --temperature, or none: --extra-body '{\"temperature\": null}'",
    ),
    (rf"\bseed{_VALUE}", "seed out of range", "use another --seed, or send none: --extra-body '{\"seed\": null}'"),
    (_REFUSED_FIELD, "refused field", _FIELD),
    (r"HTTP 422", "invalid request", f"if the words name a field: {_FIELD}"),
    (
        r"HTTP 50[24]",
        "no upstream",
        "a proxy got no response from the server behind it: see that server's log, and the proxy's time limits",
    ),
    (
        r"HTTP 503|HTTP 529|overloaded|at capacity|server (?:is )?busy|queue is full",
        "overloaded",
        "the server takes no more requests, or is not ready: reduce the load, and see its log",
    ),
)


def known_error(words: str) -> str | None:
    """The name of the error, if it is a known one."""
    return next((name for pattern, name, _ in _KNOWN if re.search(pattern, words[:_MOST_WORDS], re.IGNORECASE)), None)


def advice_for(words: str) -> str:
    """What to do about it; empty if the error is unknown."""
    found = (advice for pattern, _, advice in _KNOWN if re.search(pattern, words[:_MOST_WORDS], re.IGNORECASE))
    return next(found, "")
