"""What a run sends of a data set, in lines for people: before it starts, and in its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.text import some
from loadbench.plan.data_sets import BEGINS_JSON
from loadbench.plan.prompt_source import SAMPLING, data_set
from loadbench.report.values import counted

if TYPE_CHECKING:
    from loadbench.plan.scenario import Scenario


def data_set_lines(scenario: Scenario) -> list[str]:
    """How many rows were read and skipped, and what is sent in another way than the file may lead one to expect."""
    given, work = data_set(scenario.work), scenario.work
    if given is None:
        return []
    skipped = sum(rows for _, rows in given.skipped)
    reasons = some([f"{reason}: {rows}" for reason, rows in given.skipped])
    read = f"{given.name}: {counted(given.rows, 'row')} read as {given.format}"
    lines = [f"{read}, {f'{skipped} of them skipped ({reasons})' if skipped else 'none skipped'}"]

    prompts = len(given.prompts)
    if given.conversations:
        how = "each turn is sent after the server's own responses to those before it"
        if scenario.command in {"workshop", "score"}:
            how = f"only the first turn of each is sent, since {scenario.command} takes one response to a prompt"
        elif not scenario.plays_turns:
            how = "only the first turn of each is sent, since at a rate no user waits for the response"
        lines.append(f"dialogues of several turns: {given.conversations} of {prompts}; {how}")
    if limits := given.limits:
        span = f"{min(limits)}" if min(limits) == max(limits) else f"{min(limits)} to {max(limits)}"
        flag = "--output-tokens" if work.output_tokens is not None else "--max-tokens"
        others = "" if len(limits) == len(given.prompts) else ", which is for the others"
        own = f"prompts with a limit of output tokens of their own ({span}): {len(limits)} of {prompts}"
        lines.append(f"{own}; it applies instead of {flag}{others}")
    if given.not_sent:
        lines.append(f"columns that are not sent: {some(given.not_sent)}; what is in an extra_body of a row is sent")
    named = [model for model in given.models if model not in (scenario.target.model or ())]
    if named:
        lines.append(f"the model that rows name ({some(named)}) is not used: requests name the model that is measured")
    leads = sum(bool(one.messages) and one.messages[0].get("role") in ("system", "developer") for one in given.prompts)
    if work.system is not None and leads:
        lines.append(f"prompts with a system message of their own, sent without that of --system: {leads} of {prompts}")
    sampled = {name for one in given.prompts for name in one.fields or () if name in SAMPLING}
    if sampled and (work.deterministic or scenario.command == "score"):
        lines.append(f"not sent: {some(sorted(sampled))} of the rows, since responses are to be the same each time")
    if given.format == "text" and BEGINS_JSON.match(given.prompts[0].text.encode()):
        lines.append("its lines look like JSON and are sent as they are; a file named .jsonl is read as rows")
    return lines
