"""A document as a page: one file that works offline, from anywhere, with nothing but itself.

Every text is escaped by jinja2. Its data lie in the page as JSON that can end no element. A Content-Security-Policy
allows the one style and the one script of ours, by their hashes, and no other source of anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from loadbench import __version__
from loadbench.report.chart import DOTTED, doubtful_marks, drawing, page_colors, page_style, sample, table_rows
from loadbench.report.document import COMMAND, Chart, Choice, Heading, HeatMap, Notes, Table, Tiles, tone
from loadbench.report.render_text import GLUED, OPTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template

    from loadbench.report.document import Block, Document

# A table of a chart with more rows helps nobody.
_MOST_ROWS = 200
# Text of more letters has a column that is wide enough to be read, and one of fewer stays in its line.
_LONG, _SHORT = 40, 26
# Parts of text that stay in one line have at most so many letters: longer ones would not fit a narrow screen.
_WHOLE, _JOINT = 30, "\n"
# A table with a column of text and at most so many others shows its cells below each other there.
_FEW = 5
# What follows the names of the rows of a wide table, which scrolls: its result, and whether that can be believed.
_FRONT = ("tok/s", "mark", "verdict")
# A sheet of paper has this many letters side by side, at the size of a table in print; a text takes so many lines.
# A table of more columns is set in a smaller type, so that a desktop shows all of them.
_MANY = 12
_PAPER, _WRAPPED = 118, 34


def render_html(document: Document) -> str:
    """The page. A `Heading` begins a section, which the table of contents names."""
    builder = _Page()
    sections: list[dict[str, Any]] = [{"title": "", "id": "top", "blocks": []}]
    for block in document.blocks:
        if isinstance(block, Heading) and block.level == 2:
            sections.append({"title": block.text, "id": f"section-{len(sections)}", "blocks": []})
        else:
            sections[-1]["blocks"] += builder.view(block)
    shown = [section for section in sections if section["blocks"]]
    style, script = _style(), _read("page.js")
    return _template().render(
        title=" ".join(document.title.split()),
        sections=shown,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        data=_island(builder.data),
        version=__version__,
    )


class _Page:
    """Blocks as the template wants them, and the data of the charts."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self._charts = 0
        self._choices = 0

    def view(self, block: Block) -> list[dict[str, Any]]:
        """A block, or nothing where it has no content."""
        if isinstance(block, Chart | HeatMap):
            return [self._chart(block)]
        if isinstance(block, Choice):
            self._choices += 1
            name = f"choice-{self._choices}"
            options = [
                {
                    "name": option,
                    "id": f"{name}-{place}",
                    "blocks": [view for part in blocks for view in self.view(part)],
                }
                for place, (option, blocks) in enumerate(block.options)
            ]
            return [{"kind": "choice", "label": block.label, "id": name, "options": options}] if options else []
        if isinstance(block, Table):
            return [_table(block, printed=True)] if block.rows else []
        if isinstance(block, Tiles):
            return [{"kind": "tiles", "items": block.items}] if block.items else []
        if isinstance(block, Heading):
            return [{"kind": "heading", "text": block.text}]
        lines = [line for line in block.lines if line]
        return [{"kind": "notes" if isinstance(block, Notes) else "text", "lines": lines}] if lines else []

    def _chart(self, chart: Chart | HeatMap) -> dict[str, Any]:
        self._charts += 1
        name = f"chart-{self._charts}"
        view: dict[str, Any] = {"kind": "chart", "id": name, "title": chart.title, "note": chart.note, "y": chart.y}
        if isinstance(chart, HeatMap):
            shown = [("", drawing(chart).svg)]
            return view | {"heat": True, "drawings": shown, "legend": [], "table": None, "switches": []}
        # Each combination of axes is a drawing of its own; the first is the one that is shown.
        drawings, points = [], {}
        choices_x = (chart.log_x, not chart.log_x) if "x" in chart.switches else (chart.log_x,)
        choices_y = (chart.log_y, not chart.log_y) if "y" in chart.switches else (chart.log_y,)
        for log_x in choices_x:
            for log_y in choices_y:
                made = drawing(chart, log_x=log_x, log_y=log_y)
                key = f"{'x' * log_x}{'y' * log_y}"
                drawings.append((key, made.svg))
                points[key] = made.points
        self.data[name] = {
            "scatter": chart.scatter,
            "x": chart.x,
            "names": [line.name for line in chart.series],
            "points": points,
        }
        headers, rows = table_rows(chart) if chart.table is None else (chart.table.headers, chart.table.rows)
        align = "r" * len(headers) if chart.table is None else chart.table.align
        table = _table(Table(headers, rows[:_MOST_ROWS], align))
        legend = [
            {"name": line.name, "key": sample(line, place, dense=chart.dense), "on": not line.hidden}
            for place, line in enumerate(chart.series)
        ]
        marks = doubtful_marks(chart)
        switches = [(axis, (chart.log_x, chart.log_y)[axis == "y"]) for axis in chart.switches]
        return view | {
            "heat": False,
            "drawings": drawings,
            "legend": legend if len(legend) > 1 or chart.scatter or chart.legend or marks else [],
            "marks": [(sample(None, dotted=mark == DOTTED), mark) for mark in marks],
            "table": table,
            "switches": switches,
            "start": drawings[0][0],
        }


def _table(table: Table, *, printed: bool = False) -> dict[str, Any]:
    """A table; without headers the first column has the names of the rows. A `printed` one that is wider than paper
    has parts for it, each with the first column."""
    headers = [*table.headers] or [""] * len(table.align)
    order = [*range(len(table.align))]
    if "verdict" in headers[1:]:
        names = max(1, len(table.rank) - len(table.rank.lstrip("0")))
        front = [headers.index(name) for name in _FRONT if name in headers[names:]]
        order = [*order[:names], *front, *(at for at in order[names:] if at not in front)]
    if {"B is", "interval"} <= set(headers):
        # What is decided comes before how sure its ratio is.
        order.append(order.pop(order.index(headers.index("interval"))))
    if not table.headers and table.align == "ll":
        return {"kind": "facts", "rows": table.rows}
    letters = [max(len(row[at]) for row in table.rows) for at in range(len(headers))]
    aligned = [
        side + (" long" * (wide > _LONG) + " short" * (wide <= _SHORT)) * (side == "l")
        for side, wide in zip(table.align, letters, strict=True)
    ]

    has_text = any(wide > _LONG for wide in letters[1:])
    look = "stack" * (has_text and len(headers) <= _FEW) + "many" * (len(headers) > _MANY)
    # Of these a narrow screen shows what is decided; its ratio and interval are beyond.
    look = look or "pair" * bool({"B is", "B/A at"} & set(headers))

    def part(places: Sequence[int]) -> dict[str, Any]:
        rows = [
            [(row[at], aligned[at], tone(headers[at], row[at]), headers[at]) for at in places] for row in table.rows
        ]
        named = [(table.headers[at], aligned[at]) for at in places] if table.headers else []
        return {"headers": named, "rows": rows, "summary": table.summary, "look": look}

    widths = [
        2 + max(len(headers[at]), min(wide, _WRAPPED) if table.align[at] == "l" else wide)
        for at, wide in enumerate(letters)
    ]
    parts, used = [order[:1]], widths[order[0]]
    for at in order[1:]:
        if used + widths[at] > _PAPER and len(parts[-1]) > 1:
            parts.append(order[:1])
            used = widths[order[0]]
        parts[-1].append(at)
        used += widths[at]
    return {"kind": "table", **part(order), "parts": list(map(part, parts)) if printed and len(parts) > 1 else []}


def _island(data: object) -> str:
    """JSON that ends no element and that JavaScript reads: inside a script element nothing else is escaped."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Half of a pair of UTF-16 is no text, and cannot be written.
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only pages need it
    from markupsafe import Markup, escape  # noqa: PLC0415

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # For what this package made, and which is escaped already: drawings, the style, the script and the island.
    environment.filters["ours"] = Markup
    environment.filters["plain"] = _plain

    def prose(text: object) -> str:
        """Commands of ours as code; no line is broken inside an option, between it and its value, or between a number
        and its unit, as on a terminal."""
        shown = []
        for number, part in enumerate(COMMAND.split(_plain(text))):
            is_command = number % 2 == 1
            joined = part if is_command else OPTION.sub(rf"\1{_JOINT}", GLUED.sub(_JOINT, part))
            words = []
            for word in joined.split(" "):
                kept = escape(word.replace(_JOINT, " "))
                is_whole = len(word) <= _WHOLE and (_JOINT in word or "-" in word)
                words.append(Markup('<span class="whole">{}</span>').format(kept) if is_whole else kept)
            line = Markup(" ").join(words)
            shown.append(Markup("<code>{}</code>").format(line) if is_command else line)
        return Markup("").join(shown)

    environment.filters["prose"] = prose
    return environment.from_string(_read("page.html.j2"))


def _plain(text: object) -> str:
    """Foreign text without what cannot be seen: controls, marks that turn the direction, and halves of pairs."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


@cache
def _style() -> str:
    light, dark = page_colors(dark=False), page_colors(dark=True)
    text = _read("page.css").replace("/*light*/", light).replace("/*dark*/", dark)
    return text + page_style()


def _read(name: str) -> str:
    return files("loadbench.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def charts_of(blocks: Sequence[Block]) -> dict[str, Chart | HeatMap]:
    """The charts of a document by name, also those inside of choices."""
    found: dict[str, Chart | HeatMap] = {}
    for block in blocks:
        if isinstance(block, Chart | HeatMap):
            found[block.name] = block
        elif isinstance(block, Choice):
            for _, inner in block.options:
                found |= charts_of(inner)
    return found
