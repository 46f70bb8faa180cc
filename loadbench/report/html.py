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
from loadbench.report.chart import drawing, page_colors, page_style, sample, table_rows
from loadbench.report.document import COMMAND, Chart, Choice, Heading, HeatMap, Notes, Table, Tiles, tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template

    from loadbench.report.document import Block, Document

# A table of a chart with more rows helps nobody.
_MOST_ROWS = 200


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
            return [_table(block)] if block.rows else []
        if isinstance(block, Tiles):
            return [{"kind": "tiles", "items": block.items}] if block.items else []
        if isinstance(block, Heading):
            return [{"kind": "heading", "text": block.text}]
        lines = [line for line in block.lines if line]
        return [{"kind": "notes" if isinstance(block, Notes) else "text", "lines": lines}] if lines else []

    def _chart(self, chart: Chart | HeatMap) -> dict[str, Any]:
        self._charts += 1
        name = f"chart-{self._charts}"
        view: dict[str, Any] = {"kind": "chart", "id": name, "title": chart.title, "note": chart.note, "heat": False}
        if isinstance(chart, HeatMap):
            made = drawing(chart)
            return view | {"heat": True, "drawings": [("", made.svg)], "legend": [], "table": None, "switches": []}
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
        table = _table(Table(headers, rows[:_MOST_ROWS], "r" * len(headers)))
        legend = [
            {"name": line.name, "key": sample(line, place, dense=chart.dense), "on": not line.hidden}
            for place, line in enumerate(chart.series)
        ]
        switches = [(axis, (chart.log_x, chart.log_y)[axis == "y"]) for axis in chart.switches]
        return view | {
            "drawings": drawings,
            "legend": legend if len(legend) > 1 or chart.scatter else [],
            "table": table,
            "switches": switches,
            "start": drawings[0][0],
            "y": chart.y,
        }


def _table(table: Table) -> dict[str, Any]:
    """A table; without headers the first column has the names of the rows."""
    headers = table.headers or [""] * len(table.align)
    order = [*range(len(table.align))]
    if "verdict" in headers[1:]:
        # A wide table scrolls: what says whether its figures can be believed is seen first.
        order.insert(1, order.pop([*headers].index("verdict")))
    rows = [[(row[at], table.align[at], tone(headers[at], row[at])) for at in order] for row in table.rows]
    if not table.headers and table.align == "ll":
        return {"kind": "facts", "rows": table.rows}
    named = [(table.headers[at], table.align[at]) for at in order] if table.headers else []
    return {"kind": "table", "headers": named, "rows": rows, "summary": table.summary}


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
    # Escaped first: a command of ours has nothing that this changes.
    environment.filters["prose"] = lambda text: Markup(  # noqa: S704
        COMMAND.sub(r"<code>\1</code>", str(escape(_plain(text))))
    )
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
