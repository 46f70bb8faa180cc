"""A `foundry` for the path: a script that says what the real one says, banners, emoji and all."""

from __future__ import annotations

import json
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

UNKNOWN = "Unrecognized command or argument 'server'.\n"

_SCRIPT = """#!{python}
import json, sys, time
said = json.loads({said!r})
words = " ".join(sys.argv[1:])
text, status = said.get(words, ["Unrecognized command or argument.\\n", 1])
if text == "HANG":
    time.sleep(600)
sys.stdout.buffer.write(text.encode("latin-1"))
sys.exit(status)
"""


def install(folder: Path, **said: tuple[str | bytes, int]) -> Path:
    """Write it into a folder for the path; what it says by its words, spaces written as underscores, `_o_json` last."""
    known = {
        words.replace("_o_json", " -o json").replace("__", " --").replace("_", " "): [
            text if isinstance(text, str) and text == "HANG" else _bytes(text).decode("latin-1"),
            status,
        ]
        for words, (text, status) in said.items()
    }
    script = folder / "foundry"
    script.write_text(_SCRIPT.format(python=sys.executable, said=json.dumps(known)), encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def newer(url: str) -> tuple[str, int]:
    """`foundry server status -o json`, with a banner before it and a word after."""
    told = {"running": True, "state": "ready", "pid": 4711, "webUrls": [url]}
    return f"\x1b[36mFoundry Local 0.10.1 (preview)\x1b[0m\n{json.dumps(told, indent=2)}\nDone.\n", 0


def older(url: str) -> tuple[str, int]:
    """`foundry service status` of 0.8."""
    return f"🟢 Model management service is running on {url}/openai/status\n", 0
