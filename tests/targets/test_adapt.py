"""What is decided after a refusal, for any field, under any API, whatever was decided before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.conversation import user_message
from loadbench.targets.adapt import decide, describe, with_adapted
from loadbench.wire.body import EXACT_FIELDS, BodyChanges, request_body
from loadbench.wire.openai import Api

if TYPE_CHECKING:
    from loadbench.results.run import Adapted

KEPT = {"model", "messages", "prompt", "input", "stream", "options"}
LIMITS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}


def sent(api: Api, changes: BodyChanges) -> dict[str, Any]:
    """A body that these changes made."""
    body: dict[str, Any] = orjson.loads(
        request_body(
            api, model="m", messages=user_message("Hi"), max_tokens=7, temperature=0.0, seed=1, changes=changes
        )
    )
    return body


@given(st.sampled_from(list(Api)), st.sampled_from(EXACT_FIELDS), st.data())
def test_a_refused_field_is_not_sent_again(api: Api, exact: tuple[str, ...], data: st.DataObject) -> None:
    """However many are refused, one after another: each is gone, or it is one without which nothing can be asked."""
    changes = BodyChanges(exact=exact)
    decided: list[Adapted] = []
    for _ in range(12):
        body = sent(api, changes)
        names = [name for name in body if name != "options"]
        names += [f"options.{name}" for name in body.get("options", {})]
        field = data.draw(st.sampled_from(names))
        decisions = decide(f"Unsupported parameter: '{field}'", body, changes, before=decided)
        if not decisions:
            assert field in KEPT | LIMITS | {"options.num_predict"}
            continue
        (decision,) = decisions
        changes = with_adapted(changes, decisions)
        decided.append(decision)
        after = sent(api, changes)
        outer, _, inner = field.rpartition(".")
        assert inner not in (after[outer] if outer else after)
        assert (decision.to in after) if decision.to is not None else len(after) <= len(body)
        assert decision.field in describe(decision)
    final = sent(api, changes)
    assert (LIMITS & set(final)) or "num_predict" in final["options"]


def test_a_value_that_is_refused_gives_its_field_no_other_name() -> None:
    """The limit is too high, whatever it is called."""
    changes = BodyChanges()
    words = "Unsupported value: 'max_tokens' does not support 100000 with this model."
    assert decide(words, sent(Api.CHAT, changes), changes) == []


def test_fields_of_one_prompt_are_given_as_well() -> None:
    """A row of a data set may have brought the temperature."""
    changes = BodyChanges()
    body = sent(Api.CHAT, changes)
    words = "temperature is not supported"
    assert decide(words, body, changes, given={"temperature"}) == []
    assert [one.action for one in decide(words, body, changes)] == ["left_out"]
