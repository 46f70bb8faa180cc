"""What is built from the sources: the wheel, the sdist, and the long description that a package index shows."""

from __future__ import annotations

import email
import importlib.util
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def build(source: Path, folder: Path, *options: str) -> None:
    """Build with the backend that is installed here: no index is needed."""
    pytest.importorskip("hatchling")
    pytest.importorskip("hatch_fancy_pypi_readme")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """(wheel, sdist) of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def description(built) -> str:
    """The long description in the wheel's metadata."""
    with zipfile.ZipFile(built[0]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    return str(metadata.get_payload(decode=True), "utf-8")  # type: ignore[arg-type]


def test_wheel_has_the_scenarios_and_examples(built):
    """All of them, where the command looks, and no test or document besides."""
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
    for file in (ROOT / "scenarios").iterdir():
        assert f"loadbench/scenarios/{file.name}" in names
    for file in (ROOT / "docs" / "examples").iterdir():
        assert f"loadbench/examples/{file.name}" in names
    assert {name.split("/")[0] for name in names} == {"loadbench", built[0].name.split("-py3")[0] + ".dist-info"}


def test_installed_wheel_lists_and_copies_scenarios(built, tmp_path):
    """In a new environment, far from the checkout, the command does what it does in the checkout."""
    pytest.importorskip("pip")
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--quiet", "--no-index", "--no-deps", str(built[0])]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True)
    # Its libraries are those of this environment; loadbench itself is the wheel's.
    paths = [path for path in sys.path if path.endswith("-packages")]
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    purelib = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    (purelib / "libraries.pth").write_text("\n".join(paths), encoding="utf-8")

    def loadbench(*arguments: str) -> str:
        command = [python, "-I", "-m", "loadbench", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, encoding="utf-8").stdout

    origin = subprocess.run(
        [python, "-I", "-c", "import loadbench; print(loadbench.__file__)"], check=True, capture_output=True, text=True
    )
    assert Path(origin.stdout.strip()).is_relative_to(tmp_path)
    here = subprocess.run(
        [sys.executable, "-m", "loadbench", "scenarios"], check=True, capture_output=True, encoding="utf-8"
    )
    assert loadbench("scenarios") == here.stdout
    assert len(loadbench("scenarios", "copy", "--all").splitlines()) == len(list((tmp_path / "scenarios").iterdir()))
    assert "229 tokens in" in loadbench("sweep", "scenarios/replay.toml", "--dry-run")


def test_sdist_builds_the_same_wheel(built, tmp_path):
    """What the wheel is made of is in the sdist, and so are the tests with all that they read."""
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    build(source, tmp_path / "dist", "-t", "wheel")
    (again,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        contents = [{name: archive.read(name) for name in archive.namelist()} for archive in (one, other)]
    assert contents[0] == contents[1]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    missing = [name for name in tracked.stdout.splitlines() if (ROOT / name).exists() and not (source / name).exists()]
    assert missing == []


def test_description_has_no_relative_links(description):
    """An index shows the text far from the files: a link that leads nowhere there has become its text."""
    links = re.findall(r"\[[^\]]*\]\(([^)]*)\)", description)
    assert [link for link in links if not link.startswith(("http:", "https:", "mailto:", "#"))] == []


def test_description_keeps_the_words_of_the_readme(description):
    """But for the targets of relative links, it is the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = re.compile(r"!?\[([^\]]+)\]\((?!https?:|mailto:|#)[^)]+\)")
    assert relative.search(readme)
    assert description.strip() == relative.sub(r"\1", readme).strip()


def _supply_chain():
    """The gate's module."""
    spec = importlib.util.spec_from_file_location("supply_chain", ROOT / ".ci" / "supply_chain.py")
    assert spec is not None
    assert spec.loader is not None
    gate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gate)
    return gate


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ("License-Expression: MIT OR GPL-3.0-only", 0),
        ("License: Apache 2.0", 0),
        ("License: any\nClassifier: License :: DFSG approved\nClassifier: License :: OSI Approved :: BSD License", 0),
        ("License: GPL", 1),
        ("Summary: says nothing", 1),
    ],
)
def test_licenses_of_an_environment_are_those_that_its_packages_say(about, code, tmp_path, capsys, monkeypatch):
    """An expression, else classifiers, else words; one that may not be passed on fails the gate, and is named."""
    gate = _supply_chain()
    (package := tmp_path / "lib" / "python3.11" / "site-packages" / "one-1.dist-info").mkdir(parents=True)
    (package / "METADATA").write_text(f"Name: one\nVersion: 1\n{about}\n\nText.\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["supply_chain.py", "licenses", str(tmp_path)])
    assert gate.main() == code
    assert capsys.readouterr().err.startswith("not allowed, or unknown: one" if code else "")


@pytest.mark.parametrize(("most_mb", "code"), [(4, 0), (2, 1)])
def test_size_of_the_base_environment_is_bounded(tmp_path, capsys, monkeypatch, most_mb, code):
    """More than is allowed fails the gate, which prints the largest packages; so does a folder without any."""
    gate = _supply_chain()
    assert gate._MOST_MB == 120
    monkeypatch.setattr(gate, "_MOST_MB", most_mb)
    monkeypatch.setattr(sys, "argv", ["supply_chain.py", "size", str(tmp_path)])
    assert gate.main() == 1
    (packages := tmp_path / "lib" / "python3.11" / "site-packages" / "big").mkdir(parents=True)
    (packages / "code.pyc").write_bytes(bytes(3_000_000))
    capsys.readouterr()
    assert gate.main() == code
    assert capsys.readouterr().out == f"3.0 MB of at most {most_mb} MB: all packages without pip\n      3.0 MB  big\n"
