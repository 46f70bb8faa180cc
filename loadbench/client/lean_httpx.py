"""httpx without its command line, which imports rich and pygments where they are installed: as much again as httpx."""

import sys

_COMMAND_LINE = "httpx._main"
if _COMMAND_LINE in sys.modules:
    import httpx
else:
    # Importing it fails then, as it does where rich is not installed.
    sys.modules[_COMMAND_LINE] = None  # type: ignore[assignment]
    import httpx

    del sys.modules[_COMMAND_LINE]

__all__ = ["httpx"]
