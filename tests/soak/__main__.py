"""The soak: does a long level take more and more memory, descriptors or threads? `nox -s soak`.

`python -m tests.soak [MINUTES] [--ceiling MINUTES]` runs `loadbench sweep` against the truth server, each in processes
of their own: an hour at 2,000 tokens/s, and ten minutes as fast as both can. Each second it samples loadbench's process
and those that it started. The slope of the memory is that of a least-squares line through the samples after the first
five minutes; it fails at 1 MB an hour. `--out FOLDER` keeps the samples, and `python -m tests.soak --draw FOLDER` makes
`docs/soak.svg` and the table of docs/performance.md of them.

`python -m tests.soak --short` takes two minutes: a level of many short requests. It fails if memory rises with
their number, however fast the machine is. With `--leak BYTES` a leak of so much a request is planted, and it fails if
that is not found.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from loadbench.report.chart import svg
from loadbench.report.document import Chart, Mark, Series
from loadbench.sim.process import TruthProcess
from tests.cli.running import environment

ROOT = Path(__file__).parents[2]
# Imports, histograms, buffers and caches are made by then.
SETTLED_S = 300
BOUND_MB_AN_HOUR = 1.0
# A level holds the requests of its last five seconds, some 500 bytes each. At a rate that goes from nothing to its most
# in the middle of two minutes that looks like 40 bytes a request; a leak must exceed it.
SHORT_S = 120
SHORT_BOUND = 100
# (name, users, the prompt for the truth server, the limit of tokens); short requests come at 400/s at most.
LOADS = {
    "steady": ("2,000 tokens/s", 41, "ttft=50ms gap=20ms events=100", 100),
    "ceiling": ("ceiling", 16, "ttft=0s gap=0s events=1600 per_write=16", 1600),
    "short": ("short requests", 40, "ttft=100ms gap=0s events=2 per_write=2", 2),
}


class Taken(NamedTuple):
    """What loadbench had taken at a moment: its own process, those it started, and its files."""

    at_s: float
    rss_mb: float
    others_mb: float
    descriptors: int
    threads: int
    log_mb: float


def soak(name: str, length: str, out: Path, *, every_s: float, leak: int = 0) -> tuple[list[Taken], str]:
    """(samples, what loadbench printed) of a level of this length; the run folder is made below `out`."""
    _, users, prompt, tokens = LOADS[name]
    taken: list[Taken] = []
    module = ["-m", "tests.soak.leaking", str(leak)] if leak else ["-m", "loadbench"]
    with TruthProcess() as server, (out / "report.txt").open("w+", encoding="utf-8") as report:
        flags = [f"--url={server.url}/v1", "--model=truth", f"--prompt={prompt}", f"--output-tokens={tokens}"]
        command = [sys.executable, *module, "sweep", *flags, f"--users={users}", length, f"--out={out}"]
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=report, stderr=report) as process:
            began_s, watched = time.monotonic(), psutil.Process(process.pid)
            while process.poll() is None:
                with suppress(psutil.Error, OSError):
                    each = [watched, *watched.children(recursive=True)]
                    rss = [one.memory_info().rss / 1e6 for one in each]
                    size = sum(file.stat().st_size for file in out.rglob("*.jsonl"))
                    counts = [watched.num_fds() if hasattr(watched, "num_fds") else watched.num_handles()]
                    counts.append(watched.num_threads())
                    taken.append(Taken(time.monotonic() - began_s, rss[0], sum(rss[1:]), *counts, size / 1e6))
                    if len(taken) % 60 == 1:
                        sys.stdout.write(" · ".join(f"{key} {value:.6g}" for key, value in taken[-1]._asdict().items()))
                        sys.stdout.write("\n")
                        sys.stdout.flush()
                time.sleep(max(0.0, every_s * len(taken) - (time.monotonic() - began_s)) or every_s / 10)
        report.seek(0)
        return taken, report.read()


def measured(taken: list[Taken]) -> list[Taken]:
    """Those of the level, from its first request on; the last fiftieth is the drain and the summary."""
    ends_s = max(one.at_s for one in taken if one.log_mb < taken[-1].log_mb)
    return [one for one in taken if one.log_mb and one.at_s < 0.98 * ends_s]


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The slope of the least-squares line, and half the width of its 95 % interval.

    Memory moves in steps and stays there, so neighbours say nearly the same. The interval counts their covariances up
    to a fifth of the series (Newey and West, 1987).
    """
    gradient, start = np.polyfit(x, y, 1)
    centered = x - x.mean()
    terms = centered * (y - gradient * x - start)
    lags = len(x) // 5
    products = np.correlate(terms, terms, "full")[len(x) - 1 : len(x) + lags]
    variance = 2 * float(products @ np.linspace(1, 1 / (lags + 1), lags + 1)) - float(products[0])
    return float(gradient), 1.96 * math.sqrt(max(0.0, variance)) / float(centered @ centered)


def read(folder: Path) -> list[Taken]:
    """The samples of a soak that was kept."""
    with (folder / "soak.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [Taken(*map(float, row[:3]), int(row[3]), int(row[4]), float(row[5])) for row in rows]


def judged(name: str, taken: list[Taken], folder: Path) -> tuple[bool, str]:
    """(whether nothing grew, a row of the table in docs/performance.md)."""
    level = measured(taken)
    settled_s = min(SETTLED_S, level[-1].at_s / 2)
    settled = [one for one in level if one.at_s >= settled_s]
    hours = np.array([one.at_s for one in settled]) / 3600
    rise, reach = slope(hours, np.array([one.rss_mb for one in settled]))
    others, others_reach = slope(hours, np.array([one.others_mb for one in settled]))
    counts = {field: {getattr(one, field) for one in settled} for field in ("descriptors", "threads")}
    spans = ["–".join(map(str, sorted({min(values), max(values)}))) for values in counts.values()]
    result = json.loads(next(folder.rglob("run.json")).read_text(encoding="utf-8"))["levels"][0]
    cells = [
        LOADS[name][0],
        f"{level[-1].at_s / 60:.0f} min",
        f"{result['throughput']['output_tokens_per_s']:,.0f}",
        f"{sum(result['outcomes'].values()):,}",
        result["verdict"]["status"],
        f"{settled[0].rss_mb:.1f}, {settled[-1].rss_mb:.1f} MB",
        f"{rise:+.2f} ± {reach:.2f} MB/h",
        f"{others:+.2f} ± {others_reach:.2f} MB/h",
        *spans,
        f"{(settled[-1].log_mb - settled[0].log_mb) / (hours[-1] - hours[0]):.0f} MB/h",
    ]
    steady = all(max(values) - min(values) <= 2 for values in counts.values())  # one is open for a moment now and then
    return rise < BOUND_MB_AN_HOUR and steady, "| " + " | ".join(cells) + " |"


def draw(out: Path) -> None:
    """Write the charts of the soaks that were kept here, one below the other, and print the table."""
    soaks = {name: measured(read(out / name)) for name in ("steady", "ceiling") if (out / name / "soak.csv").exists()}
    panels = []
    for title, y in (
        ("Memory of loadbench's process (RSS)", "rss_mb"),
        ("Open descriptors", "descriptors"),
        ("Threads", "threads"),
        ("Size of the run's logs", "log_mb"),
    ):
        lines = []
        for name, taken in soaks.items():
            minutes: dict[int, list[float]] = {}
            for one in taken:
                minutes.setdefault(int(one.at_s // 60), []).append(float(getattr(one, y)))
            lines.append(
                Series(LOADS[name][0], [(at + 0.5, round(float(np.mean(each)), 3)) for at, each in minutes.items()])
            )
        down = [Mark(SETTLED_S / 60, "the slope begins")] if y == "rss_mb" else []
        unit = "MB" if y.endswith("_mb") else title.split()[-1].lower()
        shown = Chart(name=y, title=title, series=lines, x="minutes", y=unit, log_x=False, down=down)
        panels.append(svg(shown))
    width, height = (int(re.search(rf'{side}="(\d+)"', panels[0])[1]) for side in ("width", "height"))  # type: ignore[index]
    # A chart by itself fits the page; within another one it has its own size.
    own = f'style="width:{width}px;height:{height}px"'
    stacked = [panel.replace("<svg ", f'<svg y="{height * place}" {own} ', 1) for place, panel in enumerate(panels)]
    size = f'width="{width}" height="{height * len(panels)}" viewBox="0 0 {width} {height * len(panels)}"'
    text = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{"".join(stacked)}</svg>\n'
    (ROOT / "docs/soak.svg").write_text(text, encoding="utf-8")
    for name in soaks:
        sys.stdout.write(f"{judged(name, read(out / name), out / name)[1]}\n")


def short(out: Path, leak: int) -> bool:
    """Whether memory, descriptors and threads stay as they are in the second half of many requests; with a leak,
    whether it is found."""
    taken, report = soak("short", f"--duration={SHORT_S}s", out, every_s=0.1, leak=leak)
    results = list(out.rglob("run.json"))
    level = measured(taken)
    if not results or len(level) < 20:
        sys.stdout.write(report)
        return False
    outcomes = json.loads(results[0].read_text(encoding="utf-8"))["levels"][0]["outcomes"]
    late = [one for one in level if one.at_s >= level[-1].at_s / 2]
    requests = np.array([one.log_mb for one in late]) / level[-1].log_mb * sum(outcomes.values())
    rise, reach = slope(requests, np.array([one.rss_mb for one in late]) * 1e6)
    counts = [{getattr(one, field) for one in late} for field in ("descriptors", "threads")]
    sys.stdout.write(
        f"{outcomes} in {level[-1].at_s:.0f} s: memory rises by {rise:.1f} ± {reach:.1f} bytes a request in the second "
        f"half, at most {SHORT_BOUND}; descriptors {sorted(counts[0])}, threads {sorted(counts[1])}\n"
    )
    if leak:
        return rise >= SHORT_BOUND
    return rise < SHORT_BOUND and all(max(each) - min(each) <= 2 for each in counts)


def main() -> int:
    """Run the soak that was asked for; 1 if something grows, or a planted leak is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("minutes", type=float, nargs="?", default=60)
    parser.add_argument("--ceiling", type=float, default=0, metavar="MINUTES")
    parser.add_argument("--out", type=Path, help="keep the run folders and samples here")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="make docs/soak.svg of the soaks in this folder")
    parser.add_argument("--short", action="store_true", help="many short requests, and whether memory grows with them")
    parser.add_argument("--leak", type=int, default=0, metavar="BYTES", help="with --short: plant a leak a request")
    options = parser.parse_args()
    if options.draw:
        draw(options.draw)
        return 0
    with tempfile.TemporaryDirectory(prefix="loadbench-soak-") as scratch:
        out = options.out or Path(scratch)
        if options.short:
            return int(not short(out, options.leak))
        good = True
        for name, minutes in (("steady", options.minutes), ("ceiling", options.ceiling)):
            if not minutes:
                continue
            folder = out / name
            folder.mkdir(parents=True)
            taken, report = soak(name, f"--duration={60 * minutes:g}s", folder, every_s=1.0)
            with (folder / "soak.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([Taken._fields, *taken])
            is_flat, row = judged(name, taken, folder)
            sys.stdout.write(f"{report}\n{row}\n")
            sys.stdout.flush()
            good &= is_flat
        return int(not good)


if __name__ == "__main__":
    sys.exit(main())
