"""The same checks by name, here and in continuous integration: `nox -s lint types contracts tests`."""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "contracts", "tests"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style and order."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install("-e", ".[lint]")
    session.run("mypy")


@nox.session
def contracts(session: nox.Session) -> None:
    """Which package may import which."""
    session.install("-e", ".[lint]")
    session.run("lint-imports")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite; on Linux against a real engine too."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, apart from the suite."""
    session.install("-e", ".[bench]")
    session.run("pytest", "tests/bench", *session.posargs)
