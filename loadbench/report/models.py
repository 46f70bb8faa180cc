"""A catalogue of models: a column for each fact that any of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.report.document import Document, Table, Text
from loadbench.report.values import byte_size

if TYPE_CHECKING:
    from loadbench.results.models import Catalogue

_YES = {True: "yes", False: "no", None: ""}


def catalogue_document(catalogue: Catalogue) -> Document:
    """Where the catalogue is from, and the table; `-` is for what nobody reports."""
    where = "simulated server, not a real one" if catalogue.simulated else catalogue.endpoint
    title = f"{where}, {catalogue.dialect}" + (f", by {', '.join(catalogue.sources)}" if catalogue.sources else "")
    if not catalogue.models:
        return Document(title, [Text(["no models"])])
    rows = [
        {
            "id": model.id,
            "alias": model.alias or "",
            "version": "" if model.version is None else str(model.version),
            "device": model.device or "",
            "provider": (model.execution_provider or "").removesuffix("ExecutionProvider"),
            "size": "" if model.size_bytes is None else byte_size(model.size_bytes),
            "context": "" if model.context_length is None else f"{model.context_length:,}",
            "license": model.license or "",
            "cached": _YES[model.cached],
            "loaded": _YES[model.loaded],
        }
        for model in catalogue.models
    ]
    names = [name for name in rows[0] if name == "id" or any(row[name] for row in rows)]
    rank = "".join(
        {"id": "0", "size": "1", "device": "2", "cached": "1", "loaded": "1"}.get(name, "3") for name in names
    )
    align = "".join("r" if name in {"size", "context", "version"} else "l" for name in names)
    return Document(title, [Table(names, [[row[name] or "-" for name in names] for row in rows], align, rank=rank)])
