"""What loadbench depends on.

python .ci/supply_chain.py lowest              prints the lowest versions that pyproject.toml allows, for `pip -c`
python .ci/supply_chain.py licenses SBOM       exits with 1 if a component of a CycloneDX file has another license
                                               than those that may be passed on with loadbench
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

# Permissive ones, and MPL-2.0 (certifi, orjson), which asks for the sources of its own files only.
_ALLOWED = re.compile(
    r"0BSD|MIT(-0|-CMU)?|BSD-[23]-Clause|Apache-2\.0|ISC|Zlib|PSF-2\.0|Python-2\.0|CC0-1\.0|Unlicense|MPL-2\.0"
)
# What packages without an SPDX expression say.
_CLASSIFIER = re.compile(r"License :: OSI Approved :: (MIT|BSD|Apache Software|ISC|Python Software|Mozilla Public) .*")


def lowest() -> list[str]:
    """Each dependency at its lowest version."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.sub(r">=([^,;\s]+)[^;]*", r"==\1", dependency) for dependency in project["dependencies"]]


def licenses(sbom: Path) -> tuple[list[str], list[str]]:
    """(a line for each component, the names of those whose license is none of the allowed ones)."""
    lines, wrong = [], []
    for component in json.loads(sbom.read_text(encoding="utf-8"))["components"]:
        texts = []
        for entry in component.get("licenses", []):
            license_ = entry.get("license", {})
            texts.append(entry.get("expression") or license_.get("id") or license_.get("name") or "")
        lines.append(f"{component['name']:20} {component['version']:16} {', '.join(texts) or 'unknown'}")
        # A choice of licenses is as good as its best one; of those that hold together each must be allowed.
        if not texts or not all(_is_allowed(text) for text in texts):
            wrong.append(component["name"])
    return lines, wrong


def _is_allowed(text: str) -> bool:
    if _CLASSIFIER.fullmatch(f"{text} "):
        return True
    parts = re.split(r"\s+AND\s+", text.replace("(", " ").replace(")", " "))
    return all(any(_ALLOWED.fullmatch(one.strip()) for one in re.split(r"\s+OR\s+", part)) for part in parts)


def main() -> int:
    """Do what the arguments say; returns the exit code."""
    match sys.argv[1:]:
        case ["lowest"]:
            sys.stdout.write("\n".join(lowest()) + "\n")
            return 0
        case ["licenses", path]:
            lines, wrong = licenses(Path(path))
            sys.stdout.write("\n".join(lines) + "\n")
            if wrong:
                sys.stderr.write(
                    f"not allowed, or unknown: {', '.join(wrong)}; see _ALLOWED in {Path(__file__).name}\n"
                )
            return 1 if wrong else 0
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2


if __name__ == "__main__":
    sys.exit(main())
