"""The page of whatever a path names: a run, a capacity search, a comparison, or several of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.bottleneck import whole_ends
from loadbench.analyze.compare.compare import ALL
from loadbench.analyze.compare.in_folder import comparison_in
from loadbench.analyze.compare.summary import PRICES
from loadbench.analyze.compare.told_apart import without_turn
from loadbench.analyze.compare.undecided import word_of
from loadbench.analyze.grid.in_folder import grid_in
from loadbench.analyze.level.knee import shows_throughput
from loadbench.analyze.level.rebuild import run_in
from loadbench.core.errors import BadInput
from loadbench.core.text import some
from loadbench.plan.cells import cell_text
from loadbench.report.capacities import capacities_document
from loadbench.report.capacity import SPEED, capacity_document, claim_texts, kind_of, limit_name, range_text
from loadbench.report.capacity_charts import capacity_charts
from loadbench.report.compare import apart_text, compare_document, conclusions, range_of, ratio_text
from loadbench.report.compare_capacity import capacity_comparison_document, resume_command
from loadbench.report.compare_chart import comparison_charts, load_of
from loadbench.report.document import Block, Chart, Choice, Document, Heading, Notes, Table, Text, Tiles
from loadbench.report.grid import depth_charts, front_chart, grid_document, with_conclusion
from loadbench.report.junit import undecided_of
from loadbench.report.page import (
    conclusion,
    distributions,
    further_notes,
    levels_of_runs,
    load_charts,
    requested,
    run_blocks,
    run_page,
    summary,
    verdicts,
    when,
    words,
)
from loadbench.report.run import level_table
from loadbench.report.shown import runs_of_searches
from loadbench.report.values import counted, duration, significant
from loadbench.results.capacity import FILE, SEVERAL_FILE, read_capacities, read_capacity
from loadbench.results.compare_capacity import FILE as COMPARED_FILE
from loadbench.results.compare_capacity import read_capacity_comparison, searches_in
from loadbench.results.folder import read_run
from loadbench.results.grid import is_grid
from loadbench.results.saved import FILES, has_pairs, read_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.results.capacity import Capacity
    from loadbench.results.compare import Comparison
    from loadbench.results.prediction import BottleneckKind
    from loadbench.results.run import Run

# A page of more runs would show none of them.
MOST_RUNS = 20
# The terms of a search that its page explains.
_WORDS = ("probe", "likely", "proven", "verification")
# The first tile of a search without an answer.
_NO_ANSWER = {
    "none": ("nobody", "even the lowest load misses an objective"),
    "inconclusive": ("not known yet", "the search could not decide, see below"),
    "client": ("not known yet", "the load generator was the bottleneck"),
    "interrupted": ("not known yet", "the search was stopped before it could decide"),
}
_NOT_REACHED = ("not reached", "it shows at a higher load, if at all")
# The bottleneck in a word, and what it does.
_BOTTLENECKS: dict[BottleneckKind, tuple[str, str]] = {
    "prefill": ("prefill", "reading prompts takes most of the server's time"),
    "decode": ("decode", "generating tokens takes most of the server's time"),
    # From outside, both look the same.
    "slots": ("slots or memory", "only so many requests run at once, and others wait"),
    "memory": ("memory", "the server runs out of memory"),
    "queue": ("queue", "the server runs one request at a time"),
    "client": ("loadbench", "the load generator could not make more load"),
    "unknown": ("not known", "the measurement does not show it"),
}


def page_of(paths: Sequence[Path]) -> Document:
    """The page of these run folders, or files of them; raises `BadInput` for one that cannot be read."""
    if len(paths) > 1:
        return runs_page(paths)
    (path,) = paths
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.name not in FILES:
        return run_page(read_run(path), folder)
    if (folder / COMPARED_FILE).is_file():
        return _searched_sides_page(folder)
    if has_pairs(folder):
        a, b = read_pairs(folder)
        return comparison_page(comparison_in(folder), a, b, undecided=undecided_of(a[0]))
    if is_grid(folder):
        return _grid_page(folder)
    if (folder / SEVERAL_FILE).is_file():
        return _searches_page(folder)
    if (folder / FILE).is_file():
        return capacity_page(read_capacity(folder), run_in(folder), folder)
    return run_page(run_in(folder), folder)


def runs_page(paths: Sequence[Path]) -> Document:
    """Several runs next to each other: their throughput and latency in common charts, then each of them.

    Raises `BadInput` for what is no single run, and for too many.
    """
    if len(paths) > MOST_RUNS:
        raise BadInput(f"{len(paths)} runs: a page shows {MOST_RUNS} at most", hint="name fewer of them")
    runs: list[tuple[str, Run, Path]] = []
    for path in paths:
        folder = path if path.is_dir() else path.parent
        several = any((folder / name).is_file() for name in (SEVERAL_FILE, COMPARED_FILE))
        if several or has_pairs(folder) or is_grid(folder):
            raise BadInput(f"{path}: has several runs itself", hint="make a page of it alone")
        run = run_in(folder) if path.is_dir() or path.name in FILES else read_run(path)
        runs.append((run.name or folder.name, run, folder))
    names = [name for name, _, _ in runs]
    named = [
        (f"{name}, {run.started_at}" if names.count(name) > 1 else name, run, folder) for name, run, folder in runs
    ]
    lines = [f"{name}: {conclusion(run)[0]}" for name, run, _ in named]
    rows = []
    for name, run, _ in named:
        sound = [level for level in run.levels if shows_throughput(level)]
        best = max(sound, key=lambda level: level.throughput.output_tokens_per_s, default=None)
        valid = sum(level.verdict.status == "VALID" for level in run.levels)
        most = "-" if best is None else f"{significant(best.throughput.output_tokens_per_s)} at {best.load.label}"
        rows.append([name, when(run.started_at), most, f"{valid} of {len(run.levels)}"])
    blocks: list[Block] = [
        Text([f"loadbench report of {counted(len(runs), 'run')}"]),
        Text(["These runs are next to each other. Whether they differ is what `loadbench compare A B` decides."]),
        Heading("Overview"),
        Table(("run", "started", "highest output tokens/s", "VALID levels"), rows, "llrr"),
        Notes(lines),
        *levels_of_runs([(name, run) for name, run, _ in named]),
    ]
    for name, run, folder in named:
        blocks += [Heading(name), *summary(run), *_below(run_blocks(run, folder))]
    return Document(" · ".join(name for name, _, _ in named), [*blocks, *words()])


def _below(blocks: Sequence[Block]) -> list[Block]:
    """The blocks of one of several runs: its sections are parts of its own section."""
    return [Heading(block.text, level=3) if isinstance(block, Heading) else block for block in blocks]


def _simulated(said: Block, who_is: str) -> Text:
    """The conclusion, with a line on what was measured if that is the simulated server."""
    lines = said.lines if isinstance(said, Text) else ()
    return Text([*lines, f"{who_is} the simulated server of loadbench, not a real one." if who_is else ""])


def _which(a: bool, b: bool) -> str:  # noqa: FBT001 - the two sides
    return "Both sides are" if a and b else "A is" if a else "B is" if b else ""


# Searches.


def capacity_page(capacity: Capacity, run: Run, folder: Path | None) -> Document:
    """The answer, what it rests on, and the levels that were measured for it."""
    text, *rest = capacity_document(capacity, run.levels).blocks
    title = f"Capacity of {capacity.model or run.name}"
    head = f"loadbench capacity · {when(capacity.started_at)} · {', '.join(capacity.objectives)}"
    said = _simulated(text, "This is" if capacity.simulated else "")
    blocks: list[Block] = [Text([head]), said, Tiles(_answer_tiles(capacity))]
    charts = capacity_charts(capacity, run)
    blocks += [Heading("What the answer rests on"), *charts, *rest]
    blocks += run_blocks(run, folder, charts=_charts_of_loads(capacity, run))
    return Document(title, [*blocks, *words(*_WORDS)])


def _charts_of_loads(capacity: Capacity, run: Run) -> list[Block]:
    """Throughput and latency of the loads without think time, which show what limits the server; the distributions of
    the probes, which the answer is about. Each chart says which of them it shows."""
    probes, curve = (
        [run.levels[one.level] for one in ones if one.level < len(run.levels)]
        for ones in (capacity.probes, capacity.curve)
    )
    of_probes = {probes[0].model: probes} if probes else {}
    think_s = None if capacity.answer is None else capacity.answer.think_s
    if not think_s:
        over_load = load_charts(of_probes, judged=False) if len({one.load.amount for one in probes}) > 1 else []
        return [*over_load, *distributions(of_probes, judged=False)]
    thinks = f"users who think {duration(think_s)} on average"
    blocks: list[Block] = []
    # Of a single load, the table says all that a chart over the load would.
    if len(curve) > 1:
        up_to = f"without think time, up to {max(level.load.amount for level in curve):g} users"
        _, *charts = load_charts({curve[0].model: curve}, judged=False)
        more = "More are measured until throughput has stopped growing, a quarter of the budget is spent, or loadbench "
        more += f"is late. They show what limits the server; the answer, about {thinks}, rests on the probes."
        blocks += [Heading("Throughput and latency without think time"), Text([f"These are loads {up_to}. {more}"])]
        blocks += _captioned(charts, f"Loads {up_to}, not those of the answer.")
    charts = distributions(of_probes, judged=False)[1:]
    blocks += [Heading("Distributions of the probes")] if charts else []
    return [*blocks, *_captioned(charts, f"Probes, with {thinks}.")]


def _captioned(blocks: Sequence[Block], what: str) -> list[Block]:
    """These blocks; each chart says first what it shows."""
    return [
        replace(block, note=f"{what} {block.note}".strip()) if isinstance(block, Chart) else block for block in blocks
    ]


def _answer_tiles(capacity: Capacity) -> list[tuple[str, str, str]]:
    tiles = []
    answer = capacity.answer
    unit = "users" if capacity.probes and kind_of(capacity) == "users" else "requests/s"
    if answer is None or capacity.status not in {"found", "at_least"}:
        head, note = _NO_ANSWER.get(capacity.status, _NO_ANSWER["inconclusive"])
        note = f"no limit was found up to {capacity.looked_up_to}" if capacity.sees_no_limit else note
        tiles.append(("plan with", head, note))
    elif capacity.status == "at_least":
        tiles.append(("plan with", f"{answer.amount:g} {unit}", "the highest load allowed; the limit is at least this"))
    else:
        low, high = answer.range
        note = f"the limit is {'proven' if answer.strength == 'proven' else 'likely'} to be {range_text(low, high)}"
        tiles.append(("plan with", f"at most {answer.amount if low is None else low:g} {unit}", note))
    if answer is not None:
        sure = f"{100 * answer.confidence:g} % confidence"
        if capacity.status != "at_least" and not capacity.sees_no_limit:
            of = "of the limit, as likely too high as too low"
            tiles.append(("best estimate", f"{answer.amount:g} {unit}", of))
        proven, likely = claim_texts(capacity)
        if likely != "-" and capacity.status != "at_least":
            tiles.append(("likely range", likely, f"of the limit in {unit}, {sure}"))
        is_proven = proven != "-"
        note = f"{unit} that meet the objectives, {sure}" if is_proven else "--require proven measures for a proof"
        tiles.append(("proven range", proven if is_proven else "none yet", note))
        if answer.think_s:
            tiles.append(("think time", duration(answer.think_s), "from a response to the next request, on average"))
        is_higher = capacity.sees_no_limit or (capacity.status == "at_least" and answer.limit == "unknown")
        name, note = _NOT_REACHED if is_higher else _BOTTLENECKS[answer.limit]
        is_speed = limit_name(capacity) == SPEED and not is_higher
        if is_speed:
            name, note = SPEED, "more requests at once do not raise throughput"
        slots = None if capacity.explanation is None else capacity.explanation.slots
        if (is_speed or (answer.limit == "slots" and not is_higher)) and slots is not None:
            least, most = whole_ends(slots)
            at_once = f"{least} to {most}" if least < most else f"{slots.value:.0f}"
            note = f"about {at_once} requests run at once, and others wait"
            note += "; more at once would hardly raise throughput" * is_speed
        tiles.append(("bottleneck", name, note))
    fleet = capacity.devices
    if fleet is not None and fleet.devices is not None:
        at_most = "at most " if answer is not None and answer.range[1] is None else ""
        kept = f", {100 * fleet.headroom:g} % kept free" if fleet.headroom else ""
        each = f"{fleet.per_device} users each{kept}"
        tiles.append((f"servers for {fleet.people} users", f"{at_most}{fleet.devices}", each))
    spent = f"of a budget of {duration(capacity.budget_s)}"
    tiles.append(("probes", str(len(capacity.probes)), f"in {duration(capacity.spent_s)} {spent}"))
    return tiles


def _searches_page(folder: Path) -> Document:
    """The searches of several models: the table of all, then each of them."""
    capacities = read_capacities(folder)
    document = capacities_document(capacities, runs_of_searches(folder))
    options: list[tuple[str, Sequence[Block]]] = []
    for search in capacities.searches:
        inner = folder / capacities.folders.get(search.model, "")
        run = run_in(inner) if (inner / "run.json").is_file() and inner != folder else None
        first, *rest = capacity_document(search, () if run is None else run.levels).blocks
        facts = [] if run is None else [requested(run)]
        options.append(
            (search.model, [first, Tiles(_answer_tiles(search)), *capacity_charts(search, run), *rest, *facts])
        )
    blocks: list[Block] = [Text(["loadbench capacity"]), Heading("All models"), *document.blocks]
    blocks += [Heading("Each model"), Choice("Model", options)] if options else []
    return Document(document.title, [*blocks, *words(*_WORDS)])


# Grids.


def _grid_page(folder: Path) -> Document:
    """Every cell next to each other: the table, the Pareto front, throughput and latency; then each cell's levels."""
    found, runs = grid_in(folder)
    grid = with_conclusion(found)
    document = grid_document(grid, folder, runs)
    head = f"loadbench sweep of {counted(len(grid.cells), 'cell')} · {when(grid.started_at)}"
    named = [(f"{place + 1}: {cell_text(grid.cells[place].values)}", run) for place, run in runs.items()]
    question, said, *rest = document.blocks
    said = _simulated(said, "This is" if grid.simulated else "")
    blocks: list[Block] = [Text([head]), question, said, *rest]
    chart = front_chart(grid)
    blocks += [Heading("Throughput and latency")] + ([chart] if chart is not None else [])
    # Of cells with one load each, the table says all that a chart over the load would.
    over_load = len(named) <= MOST_RUNS and any(
        len({level.load.amount for level in run.levels}) > 1 for _, run in named
    )
    by_depth = depth_charts(grid)
    blocks += [*by_depth, *(levels_of_runs(named) if over_load else [])]
    options = [
        (name, [*summary(run), level_table(run.levels), *verdicts(run, level=3), Notes(further_notes(run)[1])])
        for name, run in named
    ]
    blocks += [Heading("Each cell"), Choice("Cell", options)] if options else []
    return Document(grid.name, [*blocks, *words("cell", *["prefill", "decode", "depth"] * bool(by_depth))])


def _searched_sides_page(folder: Path) -> Document:
    """The searches of two sides: what is known of their ratio, then each of them."""
    comparison = read_capacity_comparison(folder)
    said, table, lines, notes = capacity_comparison_document(comparison).blocks
    resume = resume_command(comparison)
    tiles = [
        (f"plan on {side.name.upper()} with", f"{side.plan:g} {comparison.unit}", side.model)
        for side in (comparison.a, comparison.b)
        if side.plan is not None
    ]
    if comparison.ratio is not None and comparison.confidence is not None:
        ends = range_text(*(None if end is None else float(f"{end:.3g}") for end in comparison.interval))
        tiles.append(("B/A", f"{comparison.ratio:.3g}x", ends))
    options: list[tuple[str, Sequence[Block]]] = []
    for side in (comparison.a, comparison.b):
        search, inner = side.capacity, folder / side.name
        if search is None:
            continue
        run = run_in(inner) if inner in searches_in(folder) else None
        first, *rest = capacity_document(search, () if run is None else run.levels, resume=resume).blocks
        facts = [] if run is None else [requested(run)]
        shown = [first, Tiles(_answer_tiles(search)), *capacity_charts(search, run), *rest, *facts]
        options.append((f"{side.name.upper()}: {search.model}", shown))
    head = f"loadbench compare --capacity · {', '.join(comparison.objectives)}"
    who_is = _which(comparison.a.simulated, comparison.b.simulated)
    blocks: list[Block] = [Text([head]), _simulated(said, who_is), Tiles(tiles), Heading("Both sides")]
    blocks += [table, lines, notes]
    blocks += [Heading("Each side"), Choice("Side", options)] if options else []
    return Document("Capacity of two sides", [*blocks, *words()])


# Comparisons.


def comparison_page(
    comparison: Comparison, a: Sequence[Run], b: Sequence[Run], *, undecided: str | None = None
) -> Document:
    """The conclusion and the gates, both sides in charts, every figure, and what was requested of each side;
    `undecided` is what a gate counts as that could not be decided."""
    document = compare_document(comparison, undecided=undecided)
    sides = f"{comparison.a.model} and {comparison.b.model}"
    if comparison.a.model == comparison.b.model:
        names = (comparison.a.name, comparison.b.name)
        # A comparison names its own runs by their sides.
        sides = f"A and B, both {comparison.a.model}" if names == ("a", "b") else " and ".join(names)
        apart = (comparison.a.apart, comparison.b.apart)
        if all(apart):
            sides = f"A ({apart_text(comparison.a)}) and B ({apart_text(comparison.b)}), both {comparison.a.model}"
    named = dict.fromkeys(without_turn(run.name) for run in (*a, *b))
    name = "".join(f" · {one}" for one in named if len(named) == 1 and one != "compare")
    head = f"loadbench compare{name} · {counted(len(a), 'run')} of A, {len(b)} of B"
    head += f" · {when(a[0].started_at)}" if a and a[0].started_at else ""
    outcome = document.title.partition(": ")[2]
    _, gates, who, at_a_glance, needs, *rest = document.blocks
    tiles = []
    if outcome:
        state, _, why = outcome.partition(", ")
        tiles.append(("gates", state, ", ".join(filter(None, (counted(len(comparison.gates), "rule"), why)))))
    crossings = {"crossover": comparison.crossover} | {
        f"crossover, {PRICES[metric]}": crossing for metric, crossing in comparison.price_crossovers.items()
    }
    for name, crossing in crossings.items():
        if crossing is not None:
            tiles.append((name, f"{crossing.users:.3g} users", f"{crossing.low:.3g} to {crossing.high:.3g}"))
    tiles += _throughput_tile(comparison)
    decisions = [row[-1].rstrip("*") for table in rest if isinstance(table, Table) for row in table.rows]
    decided = sum(decision not in {"undecided", "no difference"} for decision in decisions)
    shown = f"of {len(decisions)} figures, at {100 * comparison.confidence:g} % confidence"
    tiles += [("differences shown", str(decided), shown)] if decisions else []
    if comparison.paired:
        by_level: dict[str, int] = {}
        for row in comparison.comparisons:
            by_level[row.level] = max(by_level.get(row.level, 0), row.n[0])
        if by_level:
            least, most = min(by_level.values()), max(by_level.values())
            count = str(least) if least == most else f"{least} to {most}"
            tiles.append(("pairs that count", count, f"of {len(a)} at each load that is compared"))
    said = [line if line.endswith(".") else f"{line[:1].upper()}{line[1:]}." for line in conclusions(comparison)]
    who_is = _which(comparison.a.simulated, comparison.b.simulated)
    blocks: list[Block] = [Text([head]), _simulated(Text(said), who_is), who, Tiles(tiles)]
    if isinstance(gates, Table) and gates.rows:
        blocks += [Heading("Gates"), gates]
    # Of a single load the tables say all that charts over the load would.
    several = len({row.level for row in comparison.comparisons}) > 1
    blocks += [
        Heading("Both sides"),
        at_a_glance,
        needs,
        *(comparison_charts(comparison) if several else []),
        Heading("Every figure"),
        *rest,
    ]
    if a and b:
        blocks += [Heading("What was requested"), _both(requested(a[0]), requested(b[0]))]
        runs = [
            [
                letter,
                when(run.started_at),
                str(len(run.levels)),
                ", ".join(dict.fromkeys(one.verdict.status for one in run.levels)),
            ]
            for letter, side in (("A", a), ("B", b))
            for run in side
        ]
        blocks += [Heading("Runs"), Table(("side", "started", "levels", "verdicts"), runs, "llrl")]
    return Document(f"Comparison of {sides}", [*blocks, *words("B/A", "pair", "prefill", "decode")])


def _throughput_tile(comparison: Comparison) -> list[tuple[str, str, str]]:
    """B's tokens per second over A's: over all loads, or where that is undecided, at the highest load where it is not;
    what is undecided everywhere is no number in large type."""
    metric = "output_tokens_per_s"
    loads = sorted((row for row in comparison.comparisons if row.metric == metric), key=load_of)
    rows = [*(row for row in comparison.overall if row.metric == metric), *reversed(loads)]
    if not rows:
        return []
    name = "output tokens/s, B/A"
    row = next((one for one in rows if word_of(one) != "undecided"), None)
    if row is None or row.ratio is None:
        return [(name, "undecided", "the tables have what was measured")]
    where = "over all loads" if row.level == ALL else f"at {row.level}"
    others = [one.level for one in loads if word_of(one) == "undecided"]
    said = "no difference is shown, " * (word_of(row) == "no difference")
    said += f"{range_of(metric, row.ends)}, {where}" + (f"; undecided at {some(others)}" if others else "")
    return [(name, f"{ratio_text(row.ratio)}x", said)]


def _both(a: Table, b: Table) -> Table:
    """The facts of both sides in columns; what is the same for both stands once."""
    facts_a, facts_b = ({row[0]: row[1] for row in side.rows} for side in (a, b))
    names = dict.fromkeys([*facts_a, *facts_b])
    rows = [
        [name, facts_a.get(name, "-"), "the same" if facts_a.get(name) == facts_b.get(name) else facts_b.get(name, "-")]
        for name in names
    ]
    return Table(("", "A", "B"), rows, "lll")
