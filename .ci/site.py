"""Hooks for mkdocs: what the pages of the site link to outside of docs/ becomes a part of the site.

A Markdown file in the root becomes a page in project/, a saved run the page of charts that `loadbench report` makes of
it, in runs/, and any other file a copy in files/. The README is the start page. A folder has no page: a link to it
becomes its text. The search works on the disk too, with a script of ours.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# What marks a run, a search or a comparison.
RUN_FILES = ("run.json", "compare.json", "capacities.json", "grid.json")
# A block of code, which stays as it is; or a link to a relative path: its text, the path, and an anchor.
LINK = re.compile(
    r"^```.*?^```|\[([^\]\n]*(?:\n[^\]\n]+)?)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)", re.MULTILINE | re.DOTALL
)
# What the theme adds for a search on the disk.
FOREIGN = re.compile(r'<script src="https://unpkg\.com/[^"]*"></script>')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The root's documents are pages, apart from the README."""
    for path in sorted(set(ROOT.glob("*.md")) - {ROOT / "README.md"}):
        files.append(File.generated(config, f"project/{path.name}", abs_src_path=str(path)))
    return files


def on_post_page(output: str, page: Page, **_: object) -> str:
    """The script that a search on the disk needs is ours: nothing comes from other hosts."""
    place = posixpath.relpath("search-from-disk.js", posixpath.dirname(page.file.dest_uri) or ".")
    return FOREIGN.sub(f'<script src="{place}"></script>', output)


def on_post_template(output: str, **_: object) -> str:
    """The page of what is not there, which only a server shows, has none."""
    return FOREIGN.sub("", output)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page lead to where their targets are in the site."""
    src = page.file.src_uri
    here = posixpath.dirname("" if src.startswith("project/") else f"docs/{src}")

    def rewritten(link: re.Match[str]) -> str:
        text, path, anchor = link.groups()
        if path is None:
            return link[0]
        target = posixpath.normpath(posixpath.join(here, path))
        if target.startswith("docs/"):
            place = target.removeprefix("docs/")
        elif target == "README.md":
            place = "index.md"
        elif "/" not in target and target.endswith(".md"):
            place = f"project/{target}"
        elif any((ROOT / target / name).is_file() for name in RUN_FILES):
            place = f"runs/{posixpath.basename(target)}.html"
            if files.get_file_from_path(place) is None:
                command = [sys.executable, "-m", "loadbench", "report", target, "--format", "html"]
                made = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own
                files.append(File.generated(config, place, content=made.stdout))
        elif (ROOT / target).is_dir():
            return text
        else:
            # Markdown would be a page.
            place = f"files/{target}.txt" if target.endswith(".md") else f"files/{target}"
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / target)))
        return f"[{text}]({posixpath.relpath(place, posixpath.dirname(src) or '.')}{anchor or ''})"

    return LINK.sub(rewritten, markdown)
