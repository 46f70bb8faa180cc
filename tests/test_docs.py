"""The documents say what is true: packages, commands, files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from unittest import mock

import click
import pytest

from loadbench.cli import COMMANDS, root
from loadbench.cli.run_names import RunName
from loadbench.report.formats import render
from loadbench.report.render_text import PLAIN_WIDTH
from loadbench.results.folder import read_run

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """(document, command line) of every `loadbench …` line in a fenced block, and of every row of the servers."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(
            r"^```[a-z]*\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            lines = block.replace("\\\n", " ").splitlines()  # a line may go on below
            found += [(document.name, line) for line in lines if line.startswith("loadbench ")]
    servers = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
    found += [
        ("servers.md", line) for line in re.findall(r"^\| [^|]+ \| `(loadbench [^`]+)` \|", servers, re.MULTILINE)
    ]
    return found


@pytest.mark.parametrize(("document", "line"), commands())
def test_command_in_a_document_can_be_typed(document, line):
    """Each command and flag that a document shows exists, and its arguments are of the right number."""
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = root.get_command(click.Context(root), name)
    assert command is not None, f"{document}: {line}"
    # The runs that documents name are on no machine.
    with mock.patch.object(RunName, "convert", lambda _self, value, *_: Path(value)):
        command.make_context(name, arguments, resilient_parsing=False)


def test_every_family_of_servers_has_its_row():
    """Each with a command, what is special about it, and how far it was checked."""
    text = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `loadbench [^`]+` \| [^|]{20,} \| (?:run|captured|replayed)", text, re.MULTILINE)
    families = ("llama.cpp", "Ollama", "vLLM", "SGLang", "LM Studio", "TGI", "LiteLLM", "Azure OpenAI", "OpenRouter")
    families += ("Groq", "Mistral", "DeepSeek", "Gemini", "Foundry Local")
    assert [family for family in families if not any(family in row for row in rows)] == []


def test_documents_show_commands():
    """There is something to check, and every command is shown somewhere."""
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for name in COMMANDS:
        assert f"loadbench {name}" in text


def test_hosted_runners_run_the_test_commands_of_the_readme():
    """Each system its own, apart from how Windows finds the Python that is to be tested."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    runs = re.findall(r"^ +run: (.*pytest)$", workflow, re.MULTILINE)
    assert len(runs) == 2
    for run in runs:
        assert run in readme.replace("py -m venv", "python -m venv")


def test_readme_has_its_two_commands_word_for_word():
    """What a newcomer types is there, each on a line of its own."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/loadbench sweep" in lines
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest" in lines


def test_architecture_names_every_package():
    """The map is complete, and short enough to be read."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for package in (ROOT / "loadbench").iterdir():
        if (package / "__init__.py").is_file():
            assert f"`loadbench/{package.name}/`" in text
    assert len(text.splitlines()) <= 150


@pytest.mark.parametrize("document", [*DOCUMENTS, *ROOT.glob("*.md")], ids=lambda document: document.name)
def test_links_lead_somewhere(document):
    """Every relative link in a document is to a file or folder that is there, and to a heading that it has."""
    text = document.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", text):
        if not target.startswith(("http:", "https:")):
            path = document.parent / target if target else document
            assert path.exists(), target
            if anchor and path.suffix == ".md":
                assert anchor in anchors(path), f"{target}#{anchor}"


def anchors(document: Path) -> set[str]:
    """Of the headings of a document, as GitHub and MkDocs name them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_readme_shows_the_sample_run_as_it_is():
    """The table in the README is what `loadbench report` prints of the run that is committed."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (folder,) = set(re.findall(r"results/[0-9TZ]+-[a-z0-9-]+", readme))
    assert render(read_run(ROOT / folder), "text", width=PLAIN_WIDTH).strip() in readme


def test_every_fault_has_tests_that_exist():
    """A row of docs/faults.md names a file of tests, a test in it, or `…` and a part of the name of one in the file
    before."""
    rows, missing, table = 0, [], False
    for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines():
        table = (table or line.endswith("| test |")) and line.startswith("|")
        if not table or line.endswith(("| test |", "|---|")):
            continue
        rows += 1
        functions: list[str] = []
        named = re.findall(r"`([^`]+)`", line.rsplit(" | ", 1)[-1])
        for name in named:
            file, _, test = name.rpartition("::")
            if file or not name.startswith("…"):
                path = ROOT / (file or name)
                text = path.read_text(encoding="utf-8") if path.is_file() and path.name.startswith("test_") else ""
                functions = re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)
                wanted = re.escape(test) if file else ".*"
            else:
                wanted = ".*" + ".*".join(map(re.escape, name.strip("…").split("…"))) + (".*" * name.endswith("…"))
            if not any(re.fullmatch(wanted, function) for function in functions):
                missing.append(f"{name} in {line[:60]}")
        if not named:
            missing.append(f"no test in {line[:60]}")
    assert missing == []
    assert rows > 50
