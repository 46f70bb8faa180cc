"""A chart as PNG, by resvg (the extra `png`)."""

from __future__ import annotations

from loadbench.core.errors import BadInput

# As large as most screens and slides need: two pixels for each of the drawing.
_ZOOM = 2.0


def png(svg: str) -> bytes:
    """The picture of an SVG of ours. Raises `BadInput` without the extra."""
    try:
        import resvg_py  # noqa: PLC0415 - an extra
    except ImportError:
        hint = "install it with pip install 'loadbench[png]', or take --format svg"
        raise BadInput("PNG needs the extra png, which is not installed", hint=hint) from None
    # Its fonts are those of the system; a drawing names several, the first of which it has is taken.
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=_ZOOM, sans_serif_family="DejaVu Sans"))
