"""What loadbench depends on.

python .ci/supply_chain.py lowest              prints the lowest versions that pyproject.toml allows, for `pip -c`
python .ci/supply_chain.py licenses SBOM       exits with 1 if a component of a CycloneDX file, or a package of a
                           or ENVIRONMENT      virtual environment, has another license than those that may be passed
                                               on with loadbench
python .ci/supply_chain.py size ENVIRONMENT    prints what the packages of a virtual environment take on disk; exits
                                               with 1 if that is more than 120 MB
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Permissive ones, and MPL-2.0 (certifi, orjson), which asks for the sources of its own files only.
_ALLOWED = re.compile(
    r"0BSD|MIT(-0|-CMU)?|BSD-[23]-Clause|Apache-2\.0|ISC|Zlib|PSF-2\.0|Python-2\.0|CC0-1\.0|Unlicense|MPL-2\.0"
)
# What packages without an SPDX expression say.
_CLASSIFIER = re.compile(r"License :: OSI Approved :: (MIT|BSD|Apache Software|ISC|Python Software|Mozilla Public) .*")
# What packages say that have neither: ray, protobuf, and their like.
_SPELLINGS = {"Apache 2.0": "Apache-2.0", "3-Clause BSD License": "BSD-3-Clause"}

# What `pip install loadbench` may take, in MB of 1,000,000 bytes: a laptop, and an image that is pulled often.
_MOST_MB, _MB = 120, 1_000_000


def lowest() -> list[str]:
    """Each dependency at its lowest version."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.sub(r">=([^,;\s]+)[^;]*", r"==\1", dependency) for dependency in project["dependencies"]]


def licenses(path: Path) -> tuple[list[str], list[str]]:
    """(a line for each component, the names of those whose license is none of the allowed ones)."""
    lines, wrong = [], []
    for name, version, texts in _of_environment(path) if path.is_dir() else _of_sbom(path):
        lines.append(f"{name:20} {version:16} {', '.join(texts) or 'unknown'}")
        # A choice of licenses is as good as its best one; of those that hold together each must be allowed.
        if not texts or not all(_is_allowed(text) for text in texts):
            wrong.append(name)
    return lines, wrong


def _of_sbom(sbom: Path) -> Iterator[tuple[str, str, list[str]]]:
    for component in json.loads(sbom.read_text(encoding="utf-8"))["components"]:
        texts = []
        for entry in component.get("licenses", []):
            license_ = entry.get("license", {})
            texts.append(entry.get("expression") or license_.get("id") or license_.get("name") or "")
        yield component["name"], component["version"], texts


def _of_environment(environment: Path) -> Iterator[tuple[str, str, list[str]]]:
    for file in sorted(environment.glob("lib/python3*/site-packages/*.dist-info/METADATA")):
        about = message_from_bytes(file.read_bytes())
        classifiers = [text for text in about.get_all("Classifier", []) if "OSI Approved" in text]
        texts = [about["License-Expression"]] if about["License-Expression"] else classifiers
        texts = texts or [_SPELLINGS.get(text, text) for text in about.get_all("License", [])]
        yield about["Name"], about["Version"], texts


def _is_allowed(text: str) -> bool:
    if _CLASSIFIER.fullmatch(f"{text} "):
        return True
    parts = re.split(r"\s+AND\s+", text.replace("(", " ").replace(")", " "))
    return all(any(_ALLOWED.fullmatch(one.strip()) for one in re.split(r"\s+OR\s+", part)) for part in parts)


def size(environment: Path) -> tuple[int, dict[str, int]]:
    """(bytes on disk of all packages of an environment, bytes of each of them), with their bytecode."""
    found: dict[str, int] = {}
    for packages in [*environment.glob("lib/python3*/site-packages"), *environment.glob("Lib/site-packages")]:
        for file in packages.rglob("*"):
            if file.is_file() and not file.is_symlink():
                state, name = file.stat(), file.relative_to(packages).parts[0]
                # Windows does not say how many blocks a file has.
                taken = getattr(state, "st_blocks", -(-state.st_size // 512)) * 512
                found[name] = found.get(name, 0) + taken
    return sum(found.values()), found


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
        case ["size", path]:
            total, found = size(Path(path))
            largest = sorted(found.items(), key=lambda one: one[1], reverse=True)[:6]
            sys.stdout.write(f"{total / _MB:.1f} MB of at most {_MOST_MB} MB: all packages without pip\n")
            sys.stdout.write("".join(f"{taken / _MB:9.1f} MB  {name}\n" for name, taken in largest))
            if not found:
                sys.stderr.write(f"{path}: no environment with packages\n")
            return 0 if found and total <= _MOST_MB * _MB else 1
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2


if __name__ == "__main__":
    sys.exit(main())
