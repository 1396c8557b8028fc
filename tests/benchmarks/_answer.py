"""The answer at the top of book/how_fast.md, computed from the tables that stand on the page."""

import math
import re
from statistics import median

UNITS = {"ms": 0.001, "s": 1}


def tables(section):
    """The tables of a section: for each a dict of its rows, which are dicts of their cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", section, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        ]
        found.append({row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows})
    return found


def number(text):
    """The number, or the seconds, that a cell begins with; none where it is a dash."""
    found = re.match(r"([\d.,]+)(?: (m?s)\b)?", text)
    return float(found[1].replace(",", "")) * UNITS.get(found[2], 1) if found else None


def column(table, *names):
    """The numbers in the columns of these names, row by row."""
    cells = [row[name] for row in table.values() for name in names if name in row]
    return [value for value in map(number, cells) if value is not None]


def span(values, show="{:.3g}".format):
    """From the least to the most of some numbers."""
    return f"{show(min(values))} to {show(max(values))}"


def seconds(value):
    """Three digits of a time, or whole thousandths."""
    return f"{value:.3g} s" if value >= 0.9995 else f"{1000 * value:.0f} ms"


def methods(section):
    ours, others, loop = [], [], []
    for table in tables(section):
        names = {name for row in table.values() for name in row}
        loops = {"documents' loop"}
        ours += column(table, "this course")
        others += column(table, *(names - loops - {"bare passes", "this course"}))
        loop += column(table, *loops)
    return (
        f"a method of this course takes {span(ours)} times the processor time of the passes that "
        f"it cannot do without (median {median(ours):.2f}), the same method of another library "
        f"{span(others)} times (median {median(others):.2f}), and the documents' loop over "
        f"patches {span(loop)} times."
    )


def peers(section):
    ratios = []
    for table in tables(section):
        for row in table.values():
            ours = number(row["this course"])
            others = [row[name] for name in row if name not in ("this course", "agreement")]
            ratios += [number(cell) / ours for cell in others if number(cell) is not None]
    return (
        f"with one thread each, the same method takes {span(ratios)} times the processor time "
        f"that it takes in this course (median {median(ratios):.2f})."
    )


def first_calls(section):
    photo, small = tables(section)
    photo = {name: row for name, row in photo.items() if not name.startswith("a bare ")}
    small = {name: row for name, row in small.items() if not name.startswith("a bare ")}
    first, again = column(photo, "first call"), column(photo, "again")
    rest = column(small, *next(iter(small.values())))
    return (
        f"with a network for photos, the first call of a method takes {span(first, seconds)} of "
        f"the processor (median {seconds(median(first))}) and the next one, in the median, "
        f"{seconds(median(again))}; with a small network the first takes {span(rest, seconds)}."
    )


def explorables(section):
    (table,) = tables(section)
    quick, slowed = column(table, "95 %"), column(table, "95 %, slowed")
    return (
        f"each of the {len(table)} in the table answers 95 % of the inputs within "
        f"{math.ceil(max(quick))} milliseconds, and on a processor four times as slow within "
        f"{math.ceil(max(slowed))}."
    )


def labs(section):
    (table,) = tables(section)
    return f"the cells of a lab take {span(column(table, 'time'))} s."


def data_sets(section):
    (table,) = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = re.findall(r"^\| (\w+), this process \| ([\d,]+) \| ([^|]+?) \|", table, re.MULTILINE)
    most = max(rows, key=lambda row: number(row[1]))[1]
    times = " and ".join(f"{time} for {name}" for name, images, time in rows if images == most)
    return f"{most} images of 64 pixels, explained in one process, take {times}."


PARTS = {
    "All methods": methods,
    "Libraries in environments of their own": peers,
    "First calls": first_calls,
    "Explorables": explorables,
    "The labs, every task solved": labs,
    "Whole data sets": data_sets,
}


def answer(sections):
    """A line for each of the page's sections that has one; `sections` maps headings to text."""
    lines = []
    for heading, say in PARTS.items():
        if heading in sections:
            anchor = re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
            lines.append(f"- [{heading}](#{anchor}): {say(sections[heading])}")
    return "\n".join(lines)
