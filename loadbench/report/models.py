"""A catalogue of models for a terminal: columns of which nobody told anything are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.report.values import disk_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.results.models import Catalogue, Model

_PROVIDER = "ExecutionProvider"


def catalogue_text(catalogue: Catalogue) -> str:
    """Where it is from, the table, and what its dashes mean."""
    where = "simulated server, not a real one" if catalogue.simulated else catalogue.endpoint
    head = f"{where}, {catalogue.dialect}" + (f", by {', '.join(catalogue.sources)}" if catalogue.sources else "")
    if not catalogue.models:
        return f"{printable(head)}\n\nno models\n"
    columns = [
        (name, cells)
        for name, show in _COLUMNS.items()
        if any(cells := [show(model) for model in catalogue.models]) or name == "id"
    ]
    rows = zip(*([cell or "-" for cell in cells] for _, cells in columns), strict=True)
    names = [name for name, _ in columns]
    align = ["right" if name in {"size", "context", "version"} else "left" for name in names]
    body = tabulate(list(rows), headers=names, tablefmt="simple", colalign=align, disable_numparse=True)
    return f"{printable(head)}\n\n{body}\n"


def _yes(told: bool | None) -> str:  # noqa: FBT001 - yes, no or not told
    return "" if told is None else "yes" if told else "no"


_COLUMNS: dict[str, Callable[[Model], str]] = {
    "id": lambda model: printable(model.id),
    "alias": lambda model: printable(model.alias or ""),
    "version": lambda model: "" if model.version is None else str(model.version),
    "device": lambda model: printable(model.device or ""),
    "provider": lambda model: printable((model.execution_provider or "").removesuffix(_PROVIDER)),
    "size": lambda model: "" if model.size_bytes is None else disk_size(model.size_bytes),
    "context": lambda model: "" if model.context_length is None else f"{model.context_length:,}",
    "licence": lambda model: printable(model.license or ""),
    "cached": lambda model: _yes(model.cached),
    "loaded": lambda model: _yes(model.loaded),
}
