"""What a sweep would do, before it starts: levels, requests, time, and where each setting comes from.

No request was sent to make a plan: what only the server knows is not in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.secrets import MASK
from loadbench.core.text import beginning, some
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.load import FEWEST_ANSWERS, ROUNDS, Closed, answers_wanted, users_of
from loadbench.plan.pattern import Patterned
from loadbench.plan.request_lengths import request_lengths
from loadbench.plan.server_command import MOST_SHOWN, shown_command
from loadbench.plan.server_url import shown_url
from loadbench.plan.settings import DEFAULT_INPUT_TOKENS
from loadbench.plan.traces import Replayed
from loadbench.report.cluster_plan import cluster_facts, cluster_warnings
from loadbench.report.data_set import data_set_lines
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.run import level_place
from loadbench.report.values import byte_size, clipped, counted, percent
from loadbench.results.folder import RESULTS, free_bytes
from loadbench.results.space import expected_bytes, largest_file, speed_text, usual_cycle_s

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.results.run import Run

_MOST_SHOWN = 80
# Longer times are shown in whole seconds, shorter ones in ms.
_LONG_SPAN_NS = 600 * NS_PER_S


def plan_document(
    scenario: Scenario,
    request: Sequence[str] = (),
    *,
    verbose: bool = False,
    resume: Path | None = None,
    before: Run | None = None,
) -> Document:
    """The plan of `--dry-run`; when verbose with every setting and the lines of its first request. A run that goes on
    in the folder `resume` has the levels of `before` already."""
    target = scenario.target
    models = target.model or ("the simulated model" if scenario.simulated else "the model that the server lists",)
    if target.mix_models is not None:
        models = (f"a mix of {', '.join(map(str, target.mix_models))}",)
    facts = [("target", target_text(scenario)), ("models", ", ".join(models)), ("work", work_text(scenario))]
    if scenario.load.users is not None and scenario.think and not scenario.work.mix:
        facts.append(("think time", f"{scenario.think} between a response and a user's next request"))
    # What is left of each model; a sweep that finds its levels itself may have had further ones.
    there = [] if before is None else before.levels
    named = target.model or tuple(dict.fromkeys(level.model for level in there)) or ("",)
    has = {model: sum(level.model == model for level in there) for model in named}
    left = [load for model in named for load in scenario.loads[0 if scenario.finds_levels else has[model] :]]
    facts += [*traffic_facts(scenario, left=left), *cluster_facts(scenario)]
    if resume is None:
        facts.append(("saved in", saved_text(scenario)))
    else:
        shown = "" if before is None or not there else level_place(before, *range(len(there)))
        shown = f"{counted(len(there), 'level')} ({shown})" if shown else ""
        facts += resume_facts(resume, shown, counted(len(left), "level") if left else "")
    rows = [
        [str(number), *level_cells(scenario, load)]
        for number, load in enumerate(scenario.loads, start=1)
        if load in left
    ]
    shown, levels = counted(len(left), "level"), len(left)
    if resume is not None and not scenario.finds_levels:
        shown += " left"
    if scenario.finds_levels:
        # Which of them are measured, the server decides.
        rows, shown = [["1 …", *rows[0][1:]], ["2 …", *rows[1][1:]]], f"at most {shown}"

    extent = scenario.extent
    longer = length_text(scenario)
    drain = f"at most {format_duration(extent.drain_ns * levels)} of draining"
    if extent.duration_ns is None:
        total = f"{(extent.requests or 0) * levels} measured requests"
    else:
        load_ns = (extent.warm_up_ns + extent.duration_ns + extent.cool_down_ns) * levels
        total = f"{format_duration(load_ns)} of load"
        if longer:
            total = f"{total} or more (at most {format_duration(most_load_ns(scenario, levels))})"
    warnings = [*_short_total(scenario, levels), *cluster_warnings(scenario)]
    return Document(
        f"{scenario.report.name}, planned: nothing was sent",
        [
            Text([scenario.question] if scenario.question else []),
            Table((), facts, "ll"),
            Table((), trace_facts(scenario), "ll"),
            Table(("level", "load", "measured", "requests", "time"), rows, "rllll"),
            Text([f"{shown}, {total}, {drain}", *longer] if left else []),
            Text(data_set_lines(scenario)),
            *closing_blocks(scenario, request, verbose=verbose, warnings=warnings),
        ],
    )


def resume_facts(resume: Path, there: str, left: str) -> list[tuple[str, str]]:
    """What a measurement goes on with, what it has, and what is left of it; `left` is empty where all is there."""
    return [
        ("resumes", str(resume)),
        ("already there", f"{there}, not measured again" if there else "nothing whole"),
        ("left", left or "nothing: all is there"),
        ("saved in", f"{resume}: with what is there already"),
    ]


def closing_blocks(
    scenario: Scenario, request: Sequence[str], *, verbose: bool, warnings: Sequence[str] = ()
) -> list[Block]:
    """What every plan ends with: the settings, those that are not used, warnings, and where more is."""
    more = "`--dry-run --verbose` shows every setting and the first request"
    return [
        settings_table(scenario, verbose=verbose),
        not_used(scenario),
        Notes([f"warning: {warning}" for warning in warnings]),
        Text(request if verbose else [more]),
    ]


def _short_total(scenario: Scenario, levels: int) -> list[str]:
    """Whether --max-total is too short for so many levels, even with a server that answers quickly."""
    if not scenario.waits_for_answers or scenario.finds_levels:
        return []
    extent, given = scenario.extent, scenario.load.max_total
    least_ns = (extent.warm_up_ns + (extent.duration_ns or 0)) * levels
    cycle_s = usual_cycle_s(scenario)
    rounds = [answers_wanted(load) / users for load in scenario.loads if (users := users_of(load)) is not None]
    enough_ns = round(sum(cycle_s * each for each in rounds) * NS_PER_S) * levels // len(scenario.loads)
    short = f"{scenario.place('load.max_total')} {format_duration(given)} is too short"
    remedy = "measure fewer levels, or give more time"
    if least_ns > given:
        whole = f"{counted(levels, 'level')} and their warm-ups take {format_duration(least_ns)}"
        return [f"{short}: {whole}, so that none waits for enough responses; {remedy}"]
    if enough_ns > given:
        whole = format_duration(-(-enough_ns // NS_PER_S) * NS_PER_S)
        enough = f"enough responses take about {whole}, so that some levels have too few"
        return [f"{short}: {speed_text(scenario)}, {enough}; {remedy}"]
    return []


def traffic_facts(scenario: Scenario, *, times: int = 1, left: Sequence[Load] | None = None) -> list[tuple[str, str]]:
    """About how many requests and tokens will be sent and received, the plan carried out so many times; or those of
    the levels that are `left`, of all models.

    What a closed loop sends depends on the server, whose speed is assumed.
    """
    extent, models = scenario.extent, len(scenario.target.model or ("",))
    loads = [*scenario.loads] * models if left is None else left
    if not loads:
        return []
    seconds = (extent.warm_up_ns + (extent.duration_ns or 0) + extent.cool_down_ns) / NS_PER_S
    count, how = 0.0, ""
    for load in loads[:1] if scenario.finds_levels else loads:
        if extent.requests is not None:
            count, how = count + extent.requests, " that are measured, and those of the warm-up"
        elif scenario.waits_for_answers:
            count, how = count + answers_wanted(load), " that are measured, and those of the warm-up"
        elif isinstance(load, Closed):
            count += load.users * seconds / usual_cycle_s(scenario, load.users)
            how = f", {speed_text(scenario)}" + "; a slower server gets fewer" * (not scenario.simulated)
        elif isinstance(load.arrivals, Replayed):
            count += len(load.arrivals.trace)
        else:
            factor = load.arrivals.pattern.mean if isinstance(load.arrivals, Patterned) else 1.0
            count += load.rate_per_s * factor * seconds
    count = max(1.0, count * times)
    is_exact = extent.requests is not None or scenario.load.trace is not None
    least = scenario.waits_for_answers or scenario.finds_levels
    about = "at least " if least else "" if is_exact else "about "
    facts = [("requests", f"{about}{count:,.0f}{how}")]
    lengths = request_lengths(scenario)
    received = f"at most {count * scenario.work.max_tokens:,.0f} to receive"
    if lengths:
        sent, most = (sum(side) / len(lengths) * count for side in zip(*lengths, strict=True))
        received = f"about {sent:,.0f} to send, at most {most:,.0f} to receive"
    return [*facts, ("tokens", f"{received}{' for these requests' if least else ''}")]


def saved_text(scenario: Scenario) -> str:
    """Where the run's folder will be, what is in it, and whether there is room."""
    folder = (scenario.report.out or RESULTS) / f"<time>-{scenario.report.name}"
    requests = "" if scenario.leaves_requests else "requests.jsonl, "
    return f"{folder}: run.json, {requests}histograms.hlog, report.md; {space_text(scenario)[0]}"


def length_text(scenario: Scenario) -> list[str]:
    """What is not known beforehand: which levels there are, and how long each lasts, where nobody said."""
    lines = []
    if scenario.finds_levels:
        most = scenario.most_in_flight
        lines.append(
            f"the users double until throughput has stopped growing, up to {most}; "
            "a last level then lies between the loads around the knee, if it shows and there is room between them"
        )
    if not scenario.waits_for_answers:
        return lines
    rounds = f"every user has had {ROUNDS} responses and " if scenario.load.users is not None else ""
    lasts = format_duration(scenario.extent.duration_ns or 0)
    total = format_duration(scenario.load.max_total)
    enough = f"{rounds}there are {FEWEST_ANSWERS} responses"
    return [*lines, f"each level lasts {lasts}, or longer until {enough}; at most {total} in all (--max-total)"]


def space_text(scenario: Scenario) -> tuple[str, bool]:
    """(what the run is expected to write and how much may be written, whether that is too little)."""
    out, (_, whole) = scenario.report.out or RESULTS, expected_bytes(scenario)
    free, largest = free_bytes(out), largest_file()
    by_users = scenario.load.users is not None and not scenario.leaves_requests
    speed = f", {speed_text(scenario)}" if by_users else ""
    text = f"about {byte_size(whole)} to write{speed}"
    text += "" if free is None else f"; {byte_size(free)} free at {out}"
    text += (
        "" if largest is None or largest >= whole else f"; no file may have more than {byte_size(largest)} (ulimit -f)"
    )
    return text, min(free or whole, largest or whole) < whole


def most_load_ns(scenario: Scenario, levels: int) -> int:
    """How long the load of so many levels lasts at most, where the responses decide."""
    extent = scenario.extent
    least_ns = (extent.warm_up_ns + (extent.duration_ns or 0)) * levels
    return max(least_ns, scenario.load.max_total) + extent.cool_down_ns * levels


def target_text(scenario: Scenario) -> str:
    """What is measured."""
    target = scenario.target
    if scenario.simulated:
        return "the simulated server"
    if target.server_cmd is not None:
        listens = f" ({shown_url(scenario.url)})" if scenario.url is not None else ""
        variables = [f"{name}={MASK}" for name, _ in target.server_env]
        shown = " ".join([*variables, shown_command(target.server_cmd)])
        return f"the server that this command starts{listens}: {beginning(shown, MOST_SHOWN)}"
    if target.url is not None:
        return some([*map(shown_url, target.url)])
    return target.adapter or "Foundry Local, which is looked for on this machine"


def work_text(scenario: Scenario) -> str:
    """What is requested, in a line."""
    work = scenario.work
    arrivals = getattr(scenario.loads[0], "arrivals", None)
    if isinstance(arrivals, Replayed):
        trace = arrivals.trace
        shared = " (with shared prefixes)" if trace.block_ends else ""
        inputs, outputs = (sum(tokens) / len(trace) for tokens in (trace.input_tokens, trace.output_tokens))
        given = (
            f"{inputs:.0f} tokens in{shared} and {outputs:.0f} out"
            if inputs
            else f"its texts in, {outputs:.0f} tokens out"
        )
        return f"{arrivals}: {counted(len(trace), 'request')}, {given} on average"
    if work.mix is not None:
        return f"a mix of {', '.join(map(str, work.mix))}, each with its lengths and think times (personas below)"
    prompts = f"generated prompts of {work.input_tokens or DEFAULT_INPUT_TOKENS} tokens"
    if work.prompt is not None:
        prompts = "one given prompt"
    elif work.prompts is not None:
        prompts = f"the prompts of {work.prompts}"
    turns = f", conversations of {work.turns} turns" if work.turns is not None else ""
    return f"{prompts}, responses of at most {work.output_tokens or work.max_tokens} tokens{turns}"


def trace_facts(scenario: Scenario) -> list[tuple[str, str]]:
    """What is in the trace that a scenario replays, so that a wrong unit is seen before anything starts."""
    arrivals = getattr(scenario.loads[0], "arrivals", None)
    if not isinstance(arrivals, Replayed):
        return []
    trace, recorded = arrivals.trace, Replayed(arrivals.trace)

    def span(replayed: Replayed) -> str:
        span_ns = trace.span_ns / replayed.time_scale
        step_ns = NS_PER_S if span_ns > _LONG_SPAN_NS else NS_PER_S // 1000
        lasts = format_duration(round(span_ns / step_ns) * step_ns)
        shown = f"{counted(len(trace.offsets_ns), 'request')} in {lasts}, {replayed.rate_per_s:g} requests/s on average"
        later = len(trace) - len(trace.offsets_ns)
        return shown + (f"; {counted(later, 'later turn')} after responses" if later else "")

    facts = [("trace", f"{trace.name}: {trace.title}"), ("recorded", span(recorded))]
    if arrivals.time_scale != 1:
        facts.append((f"at --time-scale {arrivals.time_scale:g}", span(arrivals)))
    for side, lengths in (("input tokens", trace.input_tokens), ("output tokens", trace.output_tokens)):
        known = sorted(length for length in lengths if length)  # a text has a length that is not known here
        if known:
            p50, p95 = (known[min(len(known) - 1, len(known) * share // 100)] for share in (50, 95))
            spread = f"{known[0]} to {known[-1]}, p50 {p50}, p95 {p95}"
            facts.append((side, spread if known[0] < known[-1] else f"{known[0]} each"))
    if trace.block_ends:
        shared = f"{sum(trace.warm)} requests begin like an earlier one ({percent(sum(trace.warm) / len(trace))}): "
        facts.append(("shared prefixes", f"{shared}an id stands for {trace.block_tokens} tokens"))
    facts += [("left out", f"{counted(count, 'request')} {reason}") for reason, count in trace.skipped]
    facts += [("note", note) for note in trace.notes]
    return facts


def level_cells(scenario: Scenario, load: Load) -> tuple[str, str, str, str]:
    """Load, what is measured, requests and time of a level."""
    extent = scenario.extent
    if extent.duration_ns is None:
        number = f"{extent.requests} requests"
        return load.label, number, f"{extent.requests} and the warm-up's", "as long as they take"
    whole_ns = extent.warm_up_ns + extent.duration_ns + extent.cool_down_ns
    measured, time = format_duration(extent.duration_ns), f"{format_duration(whole_ns)} and the drain"
    if scenario.waits_for_answers:
        wanted = answers_wanted(load)
        return load.label, f"{measured} or longer", f"at least {wanted}", f"{format_duration(whole_ns)} or longer"
    if isinstance(load, Closed):
        requests = "as many as complete"
    elif isinstance(load.arrivals, Replayed):
        requests = f"up to {len(load.arrivals.trace)}"
    else:
        factor = load.arrivals.pattern.mean if isinstance(load.arrivals, Patterned) else 1.0
        requests = f"about {load.rate_per_s * factor * whole_ns / NS_PER_S:.0f}"
    return load.label, measured, requests, time


def settings_table(scenario: Scenario, *, verbose: bool = True) -> Table:
    """Every setting in force and where it comes from; if not verbose, those that somebody gave."""
    rows, origins = [], scenario.recorded_origins()
    own_personas = {persona.name for persona in scenario.work.personas}
    for section, values in scenario.effective().items():
        for name, value in values.items():
            if f"{section}.{name}" in scenario.not_used:
                continue
            given = name in own_personas if section == "personas" else scenario.is_set(f"{section}.{name}")
            if not given and not verbose:
                continue
            origin = origins.get(f"{section}.{name}", "default").replace("run the run", "the saved run")
            if section == "personas":
                origin = "scenario" if name in own_personas else "loadbench"
            rows.append((f"{section}.{name}", clipped(setting_text(value), _MOST_SHOWN), origin))
    return Table(("setting", "value", "from"), rows, "lll")


def not_used(scenario: Scenario) -> Text:
    """The values that were given and are not used, and why."""
    return Text([f"not used: {value}" for value in scenario.unused])


def setting_text(value: object) -> str:
    """A setting's value; `-` where it has none."""
    if isinstance(value, dict):
        return (
            "; ".join(f"{name} {'null' if part is None else setting_text(part)}" for name, part in value.items()) or "-"
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting_text, value)) or "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None or value == "" else str(value)
