"""What the benchmarks share: fair timing, tables, and their sections of book/how_fast.md."""

import ctypes
import datetime
import gc
import json
import os
import platform
import re
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from _answer import answer

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "how_fast.md"

OPENING = """# How fast is it?

In short, from the tables below:

{answer}

`make bench` writes this page, `make scale` its section on whole data sets, `make bench-peers` \
that on libraries in environments of their own: they measure, on your computer, and put their \
numbers here. The contenders of a table take turns within every round, so that what else the \
computer does meets them all alike; a time is the median of the rounds, a ratio is the median of \
the rounds' ratios. Processor time adds up all cores. Peak memory is that of the whole process, \
TensorFlow, the network, and what earlier contenders left behind included.
"""


class Timing(NamedTuple):
    """What the rounds of one contender took."""

    seconds: list  # each round's time on the clock, for one piece of its work
    cpu: list  # each round's processor time for that, all cores together
    memory: float  # the process's peak resident memory in MB, or NaN where Linux does not tell


def compare(contenders, rounds=5, pieces=None):
    """Run functions in turn, `rounds` times, after one run that does not count.

    `contenders` is a dict from names to functions without arguments, `pieces` (1 if not given) a
    dict from the names to how much of the same work each does; returns a dict from the names to
    their `Timing`.
    """
    pieces = pieces or dict.fromkeys(contenders, 1)
    timings = {name: Timing([], [], _peak_memory(run)) for name, run in contenders.items()}
    for _ in range(rounds):
        for name, run in contenders.items():
            cpu, start = time.process_time(), time.perf_counter()
            run()
            timings[name].seconds.append((time.perf_counter() - start) / pieces[name])
            timings[name].cpu.append((time.process_time() - cpu) / pieces[name])
    return timings


def ratio(one, other, clock="seconds"):
    """How many times longer `one` took than `other`: the median of the rounds' ratios."""
    pairs = zip(getattr(one, clock), getattr(other, clock), strict=True)
    return median(a / b for a, b in pairs)


def faster(one, other):
    """Which takes less, round by round: 1 for `one`, -1 for `other`, 0 where rounds disagree.

    They disagree where more than one in ten says otherwise.
    """
    share = sum(a < b for a, b in zip(one, other, strict=True)) / len(one)
    return int(share >= 0.9) - int(share <= 0.1)


def verdict(rows, what):
    """In which rows a library is ahead of the course, or within noise: computed, in sentences.

    A row is its name, the library, and how much of `what` the course and the library took in each
    round.
    """
    said = {0: [], -1: []}
    for row, library, ours, theirs in rows:
        if (way := faster(ours, theirs)) < 1:
            times = median(b / a for a, b in zip(ours, theirs, strict=True))
            said[way].append(f"{row} ({library}, {times:.2f} times as much)")
    claim = f"In at least nine rounds of ten this course takes less {what} than every other library"
    if not said[0] + said[-1]:
        return f"{claim}, in every row."
    ahead = f" A library takes less: {'; '.join(said[-1])}." if said[-1] else ""
    noise = f" Within noise, for the rounds disagree: {'; '.join(said[0])}." if said[0] else ""
    return f"{claim}, in every row but these.{ahead}{noise}"


def compare_table(timings, reference):
    """The table of `compare`'s timings, each with its ratio to the one named `reference`."""
    rows = [
        (
            name,
            duration(median(timing.seconds)),
            f"{ratio(timing, timings[reference]):.2f}",
            duration(median(timing.cpu)),
            f"{ratio(timing, timings[reference], 'cpu'):.2f}",
            f"{timing.memory:,.0f} MB",
        )
        for name, timing in timings.items()
    ]
    return table(("", "time", "ratio", "processor time", "ratio", "peak memory"), rows)


def duration(seconds):
    """Three digits of a time, in seconds or thousandths."""
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1000 * seconds:.3g} ms"


def table(header, rows):
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine():
    """A sentence on the day, the processor and the versions, without names of hosts or paths."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy"))
    return (
        f"Measured on {datetime.date.today()} on {os.cpu_count()} cores of {_processor()}, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}."
    )


def publish(name, heading, text, numbers):
    """Print a benchmark's text, make it a section of the page, and keep its numbers as JSON."""
    print(f"\n## {heading}\n\n{text}")
    results = ROOT / "_build" / "benchmarks"
    results.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), **numbers}
    (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    write_page(read_page() | {heading: f"{text.strip()}\n\n{machine()}"})


def read_page():
    """The sections of the page, a dict from their headings to their text."""
    return sections_of(PAGE.read_text() if PAGE.exists() else "")


def sections_of(page):
    """The sections of a page as it was at any time, a dict from their headings to their text."""
    return dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", page, re.MULTILINE))


def tables_of(section):
    """The tables of a section: of each the line above it, and its rows.

    A row is its name, which another row may bear as well, and a dict from the columns to its
    cells. A column "ratio" is called after the one before it, for a table has several.
    """
    found = []
    for above, block in re.findall(r"^(?:([^|\n].*)\n+)?((?:\|.*\n?)+)", section, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        )
        columns = [f"{one}, ratio" if two == "ratio" else two for one, two in pairwise(head)]
        cells = [(name, dict(zip(columns, row, strict=True))) for name, *row in rows]
        found.append((above, cells))
    return found


def write_page(sections):
    """Write the page anew, with the answer at its top that its tables give."""
    said = answer({title: tables_of(body) for title, body in sections.items()})
    parts = [f"## {title}\n\n{body.strip()}\n" for title, body in sorted(sections.items())]
    PAGE.write_text("\n".join([OPENING.format(answer=said), *parts]))


def _peak_memory(run):
    """The peak of the process's memory in MB while `run()` runs, as Linux counts it, or NaN."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what earlier contenders freed
        Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    except (OSError, AttributeError):
        run()
        return float("nan")
    run()
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def _processor():
    try:
        return re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()
