"""Whether book/how_fast.md says today what it said on another day.

    python tests/benchmarks/_again.py REVISION

compares the ratios in its tables with those of the page at that revision: both are of one run
each, so what differs is the day. A section without any difference was not measured again.
"""

import re
import subprocess
import sys

from _bench import PAGE, ROOT, sections_of, tables_of

RATIO = re.compile(r"(?:^|\()(\d+\.\d\d)\)?$")


def ratios(page):
    """Each ratio of the page's tables, by its section, its table, its row and its column."""
    found = {}
    for section, text in sections_of(page).items():
        for above, rows in tables_of(text):
            for name, cells in rows:
                for column, cell in cells.items():
                    if ratio := RATIO.search(cell):
                        found[section, above[:40], name, column] = float(ratio[1])
    return found


def main(revision):
    show = ["git", "show", f"{revision}:{PAGE.relative_to(ROOT)}"]
    page = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    before, now = ratios(page), ratios(PAGE.read_text())
    both = {key: now[key] / before[key] for key in now if before.get(key)}
    for section in dict.fromkeys(key[0] for key in both):
        some = {key: change for key, change in both.items() if key[0] == section}
        if set(some.values()) == {1}:
            continue
        near = sum(1 / 1.2 <= change <= 1.2 for change in some.values())
        print(f"{section}: {near} of {len(some)} ratios within 20 % of that day's")
        for key, change in some.items():
            if not 1 / 1.2 <= change <= 1.2:
                print(f"    {before[key]} -> {now[key]}: {', '.join(key[1:])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
