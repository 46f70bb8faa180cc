"""The text of a new scenario file, with what each line means and what else could stand there."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.core.text import printable, some
from loadbench.plan.personas import PERSONAS
from loadbench.plan.server_url import shown_url

if TYPE_CHECKING:
    from pathlib import Path

# What a server is used for, and the objectives that its users would have.
USES = {
    "chat": ("people chat: short prompts, responses that are read as they come", ("ttft_p95<2s", "tpot_p95<100ms")),
    "rag": ("answers from long retrieved texts", ("ttft_p95<5s",)),
    "summariser": ("long texts in, a few sentences out, one after another", ("e2e_p95<30s",)),
    "code": ("completions while somebody types", ("e2e_p95<3s",)),
    "prompts": ("your own prompts, from a file", ("ttft_p95<2s",)),
}
DEFAULT_USERS = "1,2,4,8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the file is made of. Values are as people write them; `None` and empty leave a setting to its default."""

    url: str | None
    model: str | None
    listed: tuple[str, ...]  # the models that the server lists
    use: str
    prompts: Path | None
    users: str
    duration: str | None
    objectives: tuple[str, ...]


def scenario_text(answers: Answers, *, path: Path) -> str:
    """TOML; `path` is where it will be, for the commands in its comments."""
    model = answers.model or "the model"
    server = "the simulated server" if answers.url is None else shown_url(answers.url)
    shown = printable(shlex.quote(path.as_posix()))
    about, _ = USES[answers.use]
    persona = PERSONAS.get(answers.use)
    lines = [
        f"# How well does {printable(model)} at {printable(server)} serve more and more users?",
        "#",
        f"#   loadbench sweep {shown} --dry-run",
        f"#   loadbench sweep {shown}",
        "#",
        "# Every key can also be a flag (--users) or a variable (LOADBENCH_USERS); these come first.",
        "",
        "[target]",
    ]
    if answers.url is None:
        lines += ["# Without a URL, the simulated server is measured.", '# url = "http://127.0.0.1:8080/v1"']
    else:
        lines += ["# With or without /v1. A key is taken from LOADBENCH_API_KEY, or from the variable named here.",
                  f"url = {_quoted(answers.url)}", '# api_key_env = "MY_KEY"']  # fmt: skip
    if len(answers.listed) > 1:
        lines.append(f"# The server lists {printable(some(answers.listed))}. Several are tested one after another.")
    model_line = '# model = ["NAME"]  # needed if it lists several'
    lines.append(f"model = [{_quoted(answers.model)}]" if answers.model else model_line)
    users = '"auto"' if "auto" in answers.users.lower() else f"[{', '.join(answers.users.replace(',', ' ').split())}]"
    lines += [
        "",
        "[load]",
        '# Users at each level, who send a request when the last is answered; "auto" doubles them until throughput',
        "# stops growing. For requests per second instead: rate = [0.5, 1, 2]",
        f"users = {users}",
        "# How long each level is measured. Without it: 10s, or longer until there are enough responses.",
        f"duration = {_quoted(answers.duration)}" if answers.duration else '# duration = "30s"',
    ]
    if persona is not None and persona.think is not None:
        lines += ["# Users of this kind think between a response and their next request; this would be usual:"]
        lines += [f"# think = {_quoted(str(persona.think))}"]
    lines += ["", "[work]"]
    if persona is None:
        lines += ["# Text lines, JSON, JSON lines or CSV.", f"prompts = {_quoted(str(answers.prompts))}"]
        lines += ["# The most output tokens of a response.", "max_tokens = 256"]
    else:
        lines += [
            f"# {about[0].upper()}{about[1:]}.",
            '# For prompts of your own, in place of input_tokens: prompts = "FILE"',
        ]
        lines += [f"{name} = {_quoted(value)}" for name, value in persona.settings().items() if name != "think"]
    rules = ", ".join(map(_quoted, answers.objectives))
    lines += [
        "",
        "[slo]",
        "# What users should get. `loadbench capacity` searches for the highest load at which all of these hold.",
        f"objectives = [{rules}]" if rules else '# objectives = ["ttft_p95<2s"]',
        "# In CI: exit with 3 if one is missed.",
        '# fail_on = ["slo"]',
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of TOML: JSON's escapes are among its own, but DEL needs one too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
