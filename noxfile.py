"""The checks of `.ci/run` by name: `nox -s lint types contracts tests`. `nox --list` shows all sessions."""

import os
import shutil
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "contracts", "tests"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# The whole suite runs once, on the Python that runs nox.
DEFAULT = f"{sys.version_info.major}.{sys.version_info.minor}"


@nox.session
def lint(session: nox.Session) -> None:
    """Style and order; the workflow by its schema."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    workflows = map(str, Path(".github/workflows").iterdir())
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly, on each system."""
    session.install("-e", ".[lint]")
    for platform in ("linux", "win32", "darwin"):
        session.run("mypy", "--platform", platform)


@nox.session
def contracts(session: nox.Session) -> None:
    """Which package may import which."""
    session.install("-e", ".[lint]")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """The documents as a site, in build/site; links that lead nowhere are errors. `-- serve` shows it as you write."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", *(session.posargs or ("build", "--strict")), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(name="supply-chain")
def supply_chain(session: nox.Session) -> None:
    """A bill of materials (CycloneDX) of what comes with loadbench, and the check of its licenses and its size."""
    session.install("cyclonedx-bom>=7", "pip")
    plain = session.create_tmp()
    session.run("python", "-m", "venv", "--without-pip", plain)
    session.run("pip", "--python", plain, "install", "-q", ".")
    sbom = ("--pyproject", "pyproject.toml", "--mc-type", "application", "--of", "JSON", "-o", f"{plain}/sbom.cdx.json")
    session.run("cyclonedx-py", "environment", f"{plain}/bin/python", *sbom)
    session.run("python", ".ci/supply_chain.py", "licenses", f"{plain}/sbom.cdx.json")
    session.run("python", ".ci/supply_chain.py", "size", plain)


@nox.session
def lowest(session: nox.Session) -> None:
    """The suite, without the slow and engine tests, on the lowest versions that pyproject.toml allows."""
    versions = Path(session.create_tmp()) / "lowest.txt"
    versions.write_text(session.run("python", ".ci/supply_chain.py", "lowest", silent=True) or "", encoding="utf-8")
    session.install("-c", str(versions), "-e", ".[test]")
    session.run("pytest", "-m", "not slow and not engine", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite on the default Python, all but the slow and engine tests on the others; or what you name."""
    session.install("-e", ".[test]")
    some = [] if session.python == DEFAULT else ["-m", "not slow and not engine"]
    session.run("pytest", *(session.posargs or some))


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, apart from the suite; name some of them to run only those."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session(name="coverage-study")
def coverage_study(session: nox.Session) -> None:
    """How often the intervals hold the truth, over hundreds of seeds: hours. A number of seeds makes it shorter."""
    session.install("-e", ".[test]")
    for study in ("capacity", "compare", "models"):
        session.run("python", "-m", f"tests.coverage.{study}", *session.posargs)


@nox.session
def kills(session: nox.Session) -> None:
    """Kill loadbench 300 times at random moments, and look at what is left; a number makes it fewer. Linux only."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.kills", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change one thing at a time in a module, and see whether a test fails: `-- wire/usage.py 50` for 50 changes."""
    session.install("-e", ".[test]", "coverage>=7.6")
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """An hour at 2,000 tokens/s and ten minutes at the ceiling: memory, descriptors and threads stay as they are.

    `-- --short` takes two minutes, as in `.ci/run`.
    """
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.soak", *(session.posargs or ("60", "--ceiling", "10")))


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Random input for every reader of what servers and files send: ten minutes, or as many as you name.

    Where some Python of this machine has atheris, it guides the input by what that reaches.
    """
    named = (shutil.which(f"python{version}") for version in PYTHONS)
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.1[1-4].*/bin/python")
    venv = Path(session.create_tmp()) / "venv"
    python = venv / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = (str(python), "-m", "pip", "install", "-q")
    for candidate in (sys.executable, *filter(None, named), *map(str, sorted(kept, reverse=True))):
        try:
            session.run(candidate, "-m", "venv", "--clear", str(venv), external=True)
            # It has no wheels for every interpreter and system.
            session.run(*install, "--only-binary=:all:", "atheris", external=True)
            break
        except CommandFailed:
            continue
    else:
        session.log("no Python here has atheris: hypothesis alone")
        session.run(sys.executable, "-m", "venv", "--clear", str(venv), external=True)
    session.run(*install, "-e", ".", "hypothesis", external=True)
    session.run(install[0], "-m", "tests.fuzz", *session.posargs, external=True)
