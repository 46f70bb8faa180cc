"""Adapts requests to what a server accepts, with the first requests of a run, so that every measured one is alike.

A field that the server refuses by name (`loadbench.targets.refusals`) is sent under another name, or left out. What a
request is about is never left out: its messages and model, its limit and stop words, tools and formats, and what the
user gave. Such a field is renamed at most, and where that does not help, the first request fails with the server's
words. `Prepared.target` has the changes, so they hold for every client that is made after them.

`exact_lengths` finds out, with a trial, how the server is told to generate exactly as many tokens as requested.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
from msgspec import structs

from loadbench.plan.load import Phase
from loadbench.record.outcome import Outcome
from loadbench.results.run import Adapted, ExactOutput
from loadbench.targets.openai import first_failure
from loadbench.targets.refusals import TOKEN_LIMITS, refusals
from loadbench.wire.body import EXACT_FIELDS, EXACT_NAMES
from loadbench.wire.openai import Api

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from loadbench.client.client import Client
    from loadbench.plan.prompts import Prompt
    from loadbench.record.sample import Sample
    from loadbench.targets.prepare import Prepared
    from loadbench.wire.body import BodyChanges

    Connect = Callable[[str], Client]  # of a model

# A server that refuses more than this is another kind of server.
MOST_TRIES = 5
# Without one of these a request asks for something else.
_NEEDED = frozenset(
    {
        *("model", "messages", "prompt", "input", "stream", "options", "stop", "tools", "tool_choice", "functions"),
        *("function_call", "response_format", "text", "format", *TOKEN_LIMITS),
    }
)
_BAD_REQUEST = frozenset({400, 422})
# The two names that most servers know, the newer one first.
_USUAL_LIMITS = ("max_completion_tokens", "max_tokens")
_CONSEQUENCES = {
    "temperature": "the server's default applies, so responses may differ from run to run",
    "seed": "responses may differ from run to run",
    "stream_options": "where the server reports no usage, tokens are counted by events",
    "store": "the server may store the responses",
}
# What no flag changes, and what to do if a server refuses it.
_MEASURED = dict.fromkeys(("messages", "prompt", "input"), "the route may be one of another API: see --api") | {
    "stream": "tokens are measured as they are streamed: use a model and a route that stream"
}
# A response to this prompt is one word long, unless the server is told otherwise; the trial wants this many tokens.
_TRIAL_PROMPT = "Reply with the single word yes, and nothing else."
_TRIAL_TOKENS = 24


def decide(
    words: str,
    sent: Mapping[str, object],
    changes: BodyChanges,
    *,
    given: Collection[str] = (),
    before: Sequence[Adapted] = (),
) -> list[Adapted]:
    """What to change after this refusal of the body `sent`; empty if these words refuse nothing that may be changed.

    `changes` made that body, with fields that the user has `given`. `before` are earlier decisions: no name is tried
    twice.
    """
    original = {new: name for name, new in changes.renamed}
    tried = {name for decision in before for name in (decision.field, decision.to)} | {*original.values()}
    decisions = []
    for refusal in refusals(words, sent):
        field = original.get(refusal.field, refusal.field)
        candidates = [refusal.instead]
        if refusal.field in TOKEN_LIMITS and not refusal.by_value:
            candidates += [name for name in _USUAL_LIMITS if name not in sent]
        new = next((name for name in candidates if name is not None and name not in tried), None)
        if new is not None:
            decisions.append(Adapted(field=field, action="renamed", to=new, words=words))
        elif not (field.rpartition(".")[2] in _NEEDED or field.partition(".")[0] in given or field in changes.left_out):
            decisions.append(Adapted(field=field, action="left_out", words=words))
    return decisions


def with_adapted(changes: BodyChanges, decisions: Iterable[Adapted]) -> BodyChanges:
    """The changes with these decisions."""
    renamed, left_out = dict(changes.renamed), set(changes.left_out)
    for decision in decisions:
        if decision.to is None:
            left_out.add(decision.field)
        else:
            renamed[decision.field] = decision.to
    return changes._replace(renamed=tuple(renamed.items()), left_out=frozenset(left_out))


def describe(decision: Adapted) -> str:
    """A decision in words, with what follows from it."""
    flag = _flag(decision.field, decision.to)
    if decision.to is not None:
        same = f", as with {flag}" if decision.field in TOKEN_LIMITS else ""
        return f"the server refuses {decision.field!r}; {decision.to!r} is sent instead{same}"
    follows = _CONSEQUENCES.get(decision.field.rpartition(".")[2], "")
    return f"the server refuses {decision.field!r}; it is not sent" + (
        f", as with {flag}: {follows}" if follows else ""
    )


def adapt(prepared: Prepared, decisions: Sequence[Adapted]) -> None:
    """Change the requests of all clients that are made from now on; what was decided before of a field is replaced."""
    new = {(decision.field, decision.model) for decision in decisions}
    before = (decision for decision in prepared.adapted if (decision.field, decision.model) not in new)
    prepared.adapted = [*before, *decisions]
    prepared.target = replace(prepared.target, changes=with_adapted(prepared.target.changes, decisions))


def leave_out_too(prepared: Prepared, other: Prepared) -> list[str]:
    """Leave out what the server of the other side refuses, so that both sides send the same; returns these fields.

    Each server has its own fields for exact lengths. Ollama's API has the sampling parameters one level deeper.
    """
    here = {decision.field for decision in prepared.adapted if decision.to is None}
    decisions = []
    for decision in other.adapted:
        name = decision.field.rpartition(".")[2]
        field = f"options.{name}" if prepared.scenario.target.api == Api.OLLAMA else name
        if decision.to is None and name not in EXACT_NAMES and field not in here:
            words = f"the other side refuses it: {decision.words}"
            decisions.append(structs.replace(decision, field=field, words=words, model=""))
    adapt(prepared, decisions)
    return [decision.field for decision in decisions]


async def respond(
    prepared: Prepared,
    model: str,
    connect: Connect,
    prompt: str | Prompt,
    *,
    max_tokens: int,
    phase: Phase = Phase.WARM_UP,
    keep_text: bool = False,
) -> Sample:
    """Send a request before anything is measured, and adapt it while the server refuses fields by name.

    Returns the last sample, however it ended. `connect` makes the client of a model, with the changes so far.
    """
    tries = 0
    while True:
        client, changes = connect(model), prepared.target.changes
        sample = await client.send_prompt(prompt, max_tokens=max_tokens, phase=phase, keep_text=keep_text)
        if prepared.still_loads and sample.outcome is not Outcome.OK and await prepared.still_loads(sample):
            continue
        if sample.outcome is Outcome.OK or prepared.scenario.target.strict_request or tries == MOST_TRIES:
            return sample
        patches = [*changes.extra, {} if isinstance(prompt, str) else prompt.extra or {}]
        given = {name for patch in patches for name, value in patch.items() if value is not None}
        body = _sent(client, prompt)
        decisions = decide(sample.detail, body, changes, given=given, before=prepared.adapted)
        if decisions:
            adapt(prepared, [structs.replace(decision, model=model) for decision in decisions])
            for decision in decisions:
                prepared.say(describe(decision))
            # Those that request exact lengths come on top: most servers have none of them.
            tries += any(decision.field.rpartition(".")[2] not in EXACT_NAMES for decision in decisions)
        elif changes.exact and sample.status in _BAD_REQUEST:
            # It may be one of these that the server does not like, and does not name.
            _set_exact(prepared, EXACT_FIELDS[EXACT_FIELDS.index(changes.exact) + 1])
        else:
            return sample


async def first_response(
    prepared: Prepared, model: str, connect: Connect, prompt: str | Prompt, *, max_tokens: int
) -> Sample:
    """As `respond`; raises `TargetUnavailable` unless the request succeeds."""
    sample = await respond(prepared, model, connect, prompt, max_tokens=max_tokens)
    if sample.outcome is Outcome.OK:
        return sample
    client = connect(model)
    refused = refusals(sample.detail, _sent(client, prompt))
    if not refused:
        raise first_failure(sample, note=client.endpoint.model_note, api=client.endpoint.api)
    field = refused[0].field
    if not isinstance(prompt, str) and field in {*(prompt.fields or ()), *(prompt.extra or ())}:
        hint = f"remove {field!r} from the rows of the data set"
    elif field in _MEASURED:
        hint = _MEASURED[field]
    else:
        hint = f"say what to send instead: {_flag(field, refused[0].instead)}"
    if prepared.scenario.target.strict_request:
        hint += "; or leave out --strict-request"
    raise first_failure(sample, hint=hint)


def _flag(field: str, to: str | None) -> str:
    """The flag that changes what is sent for a field: under another name, or not at all."""
    if field in TOKEN_LIMITS:
        return f"--max-tokens-field {to or 'NAME'}"
    outer, _, inner = field.rpartition(".")
    patch = {outer: {inner: None}} if outer else {field: None}
    return f"--extra-body '{orjson.dumps(patch).decode()}'"


def _sent(client: Client, prompt: str | Prompt) -> dict[str, object]:
    """The body of a first request."""
    body: dict[str, object] = orjson.loads(client.body_of(prompt, 1))
    return body


# Responses of exactly the requested length.


async def exact_lengths(prepared: Prepared, model: str, connect: Connect) -> Sample | None:
    """Find out, with a trial, by which fields the model is told to generate as many tokens as requested, if by any.

    A run decides it with its first model; later ones only show whether they keep to it. Returns the first response.
    """
    decided = prepared.exact
    if not prepared.scenario.work.exact_output or (decided is not None and not decided.fields):
        return None
    if decided is None:
        _set_exact(prepared, EXACT_FIELDS[0])
    first: Sample | None = None
    while True:
        sample = await respond(prepared, model, connect, _TRIAL_PROMPT, max_tokens=_TRIAL_TOKENS)
        if sample.outcome is not Outcome.OK:
            return first  # the first request proper fails as well, and says why
        first = first or sample
        changes = prepared.target.changes
        refused = {name.rpartition(".")[2] for name in changes.left_out}
        fields = [name for name in changes.exact if name not in refused]
        kept = bool(fields) and sample.output_tokens == _TRIAL_TOKENS
        if kept or decided is not None or not changes.exact:
            break
        # A server that accepts names that it does not know may know others; one that refuses names knows no others.
        ignored = len(fields) == len(changes.exact) and changes.exact != EXACT_FIELDS[-2]
        _set_exact(prepared, EXACT_FIELDS[-2] if ignored else ())
        if not ignored:
            fields = []
            break
    prepared.exact = ExactOutput(fields=fields, kept=kept and (decided is None or decided.kept))
    if kept:
        prepared.say(f"{model}: responses have exactly the requested length, by {' and '.join(fields)}")
    else:
        is_other = sample.output_tokens != _TRIAL_TOKENS
        length = f": a response had {sample.output_tokens} of {_TRIAL_TOKENS} tokens" if is_other else ""
        prepared.say(f"{model}: the server cannot be told to keep to the requested length{length}")
    return first


def _set_exact(prepared: Prepared, fields: tuple[str, ...]) -> None:
    prepared.target = replace(prepared.target, changes=prepared.target.changes._replace(exact=fields))
