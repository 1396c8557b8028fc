"""The answer at the top of book/how_fast.md, computed from the tables that stand on the page."""

import math
import re
from statistics import median

UNITS = {"ms": 0.001, "s": 1}


def number(text):
    """The number, or the seconds, that a cell begins with; none where it is a dash."""
    found = re.match(r"([\d.,]+)(?: (m?s)\b)?", text)
    return float(found[1].replace(",", "")) * UNITS.get(found[2], 1) if found else None


def column(table, *names):
    """The numbers in the columns of these names, row by row."""
    cells = [row[name] for _, row in table for name in names if name in row]
    return [value for value in map(number, cells) if value is not None]


def span(values, show="{:.3g}".format):
    """From the least to the most of some numbers."""
    return f"{show(min(values))} to {show(max(values))}"


def seconds(value):
    """Three digits of a time, or whole thousandths."""
    return f"{value:.3g} s" if value >= 0.9995 else f"{1000 * value:.0f} ms"


def methods(tables):
    ours, others, loop = [], [], []
    for table in tables:
        names = {name for _, row in table for name in row}
        loops = {"documents' loop"}
        ours += column(table, "this course")
        others += column(table, *(names - loops - {"bare passes", "this course"}))
        loop += column(table, *loops)
    return (
        f"a method of this course takes {span(ours)} times the processor time of bare "
        f"passes (median {median(ours):.2f}), the same method of another library "
        f"{span(others)} times (median {median(others):.2f}), and the documents' loop over "
        f"patches {span(loop)} times."
    )


def peers(tables):
    ratios = []
    for table in tables:
        for _, row in table:
            ours = number(row["this course"])
            others = [row[name] for name in row if name not in ("this course", "agreement")]
            ratios += [number(cell) / ours for cell in others if number(cell) is not None]
    return (
        f"with one thread each, the same method takes {span(ratios)} times the processor time "
        f"that it takes in this course (median {median(ratios):.2f})."
    )


def first_calls(tables):
    photo, small = (
        [(name, row) for name, row in table if not name.startswith("a bare ")] for table in tables
    )
    first, again = column(photo, "first call"), column(photo, "again")
    rest = column(small, *small[0][1])
    return (
        f"with a network for photos, the first call of a method takes {span(first, seconds)} of "
        f"the processor (median {seconds(median(first))}) and the next one, in the median, "
        f"{seconds(median(again))}; with a small network the first takes {span(rest, seconds)}."
    )


def explorables(tables):
    (table,) = tables
    quick, slowed = column(table, "95 %"), column(table, "95 %, slowed")
    return (
        f"each of the {len(table)} in the table answers 95 % of the inputs within "
        f"{math.ceil(max(quick))} milliseconds, and on a processor four times as slow within "
        f"{math.ceil(max(slowed))}."
    )


def labs(tables):
    (table,) = tables
    return f"the cells of a lab take {span(column(table, 'time'))} s."


def data_sets(tables):
    (table,) = tables
    alone = [(name, row) for name, row in table if name.endswith(", this process")]
    most = max((row["images"] for _, row in alone), key=number)
    times = " and ".join(
        f"{row['time']} for {name.split(',')[0]}" for name, row in alone if row["images"] == most
    )
    return f"{most} images of 64 pixels, explained in one process, take {times}."


PARTS = {
    "All methods": methods,
    "Libraries in environments of their own": peers,
    "First calls": first_calls,
    "Explorables": explorables,
    "The labs, every task solved": labs,
    "Whole data sets": data_sets,
}


def answer(tables):
    """A line for each section that has one; `tables` maps headings to what `tables_of` reads."""
    lines = []
    for heading, say in PARTS.items():
        if heading in tables:
            anchor = re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
            said = say([rows for _, rows in tables[heading]])
            lines.append(f"- [{heading}](#{anchor}): {said}")
    return "\n".join(lines)
