"""Files with which a learning platform takes over the points of a class.

Each platform knows its students by numbers, which it wrote into the names of what it let the
teacher download; so only work that came from a platform is in its file. Work that waits to be
marked is left out until it is.
"""

import csv
import html
from collections import defaultdict

# As Moodle's importer for an assignment's grading worksheet looks for them, in English.
MOODLE = ["Identifier", "Full name", "Grade", "Last modified (grade)", "Feedback comments"]
# The first five columns of a gradebook that Canvas exports, before the assignments.
CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
POSSIBLE = "    Points Possible"  # the name in Canvas's second line


def write(out, rows, titles):
    """Write a file for each lab and platform that the rows come from; returns their names.

    `titles` are the labs' and their tasks', {lab: title} and {(lab, task): title}.
    """
    found = defaultdict(list)
    for row in rows:
        platform, _, number = row.get("upload_id", "").partition(" ")
        if platform in ("moodle", "canvas") and row["lab"] and not float(row["to_mark"]):
            found[platform, row["lab"]].append((number, row))
    for old in [*out.glob("moodle-*.csv"), *out.glob("canvas-*.csv")]:
        old.unlink()  # whose students may wait again
    names = []
    for (platform, lab), those in sorted(found.items()):
        made = moodle(those, titles) if platform == "moodle" else canvas(those, titles[lab])
        names.append(f"{platform}-{lab}.csv")
        with (out / names[-1]).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(made)
    return names


def moodle(those, titles):
    """The lines of a grading worksheet."""
    lines = [MOODLE]
    for number, row in those:
        told = [
            f"{titles[row['lab'], task['task']]}: {short(task['points'])} of {short(task['of'])}"
            for task in row["tasks"]
        ]
        comment = "<br>".join(map(html.escape, told))
        lines.append([f"Participant {number}", row["student"], short(row["points"]), "-", comment])
    return lines


def canvas(those, title):
    """The lines of a gradebook with one assignment."""
    lines = [[*CANVAS, title], [POSSIBLE, *[""] * 4, short(those[0][1]["of"])]]
    for number, row in those:
        lines.append([row["student"], number, "", "", "", short(row["points"])])
    return lines


def short(points):
    """Points as both platforms read them: with a point, and without needless decimals."""
    return f"{float(points):.5g}"
