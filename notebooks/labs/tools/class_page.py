"""A page on the class: the share of each task's points, and the sentence that came most often.

It stands alone: no script, nothing that is loaded.
"""

import html
import re
from collections import Counter, defaultdict

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; margin: 0 0 2.5rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .6rem;
  border-bottom: 1px solid #ddd; }
th:nth-child(1) { width: 11rem; }
th:nth-child(2) { width: 10.5rem; }
th:nth-child(3), th:nth-child(4) { width: 4rem; text-align: right; }
.number { text-align: right; }
.share { white-space: nowrap; }
meter { width: 6.5rem; }
ul { margin: 0; padding: 0 0 0 1rem; }
caption { text-align: left; padding: 0 0 .6rem; color: #555; }
@media (max-width: 45rem) {
  table, tbody, tr, td { display: block; }
  tr { padding: .6rem 0; border-bottom: 1px solid #ddd; }
  tr.head { display: none; }
  td { padding: .1rem 0; border: 0; }
  td:first-child { font-weight: 600; }
  td.number { display: inline-block; margin-right: 1rem; color: #555; }
  td.number::before { content: attr(data-name) " "; }
  caption { display: block; }
}
"""
COUNTED = ("All points", "No points")  # how many students have them
FAILED = re.compile(r"^✗ (.+)$", re.MULTILINE)


def titles_of(sources):
    """What labs and tasks are called: {lab: title} and {(lab, task): title} of their notebooks."""
    found = {}
    for lab, notebook in sources.items():
        last = ""
        for cell in notebook.cells:
            mark = cell.metadata.get("nbgrader", {})
            if cell.cell_type == "markdown":
                for level, title in re.findall(r"^(#+) +(.+)$", cell.source, re.MULTILINE):
                    if level == "#":
                        found[lab] = title.removeprefix("Lab: ").strip()
                    elif level == "##":
                        last = re.sub(r"\s*\([\d.]+ points?\)$", "", title.strip())
            if mark.get("grade"):
                found[lab, mark["grade_id"]] = last or mark["grade_id"]
        found.setdefault(lab, lab)
    return found


def sentences_of(notebook):
    """What the checks said was wrong: {task: the sentences, each once}."""
    found = {}
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade") and cell.cell_type == "code":
            said = []
            for output in cell.outputs:
                if output.output_type == "stream":
                    said += FAILED.findall(output.text)
                elif output.output_type == "error" and output.ename == "NotYet":
                    said.append(output.evalue)
            found[mark["grade_id"]] = [line.strip()[:300] for line in dict.fromkeys(said)]
    return found


def page(rows, notebooks, titles):
    """The page, as HTML.

    `rows` are those of the table of grades, `notebooks` {(student, lab): executed notebook}.
    """
    labs = sorted({row["lab"] for row in rows if row["lab"]})
    parts = [lab_table([r for r in rows if r["lab"] == lab], notebooks, titles) for lab in labs]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    policy += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{policy}<title>The class</title><style>{STYLE}</style>'
    body = "<h1>The class</h1>" + "".join(parts)
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def lab_table(rows, notebooks, titles):
    """A lab's heading and table."""
    lab = rows[0]["lab"]
    points, most = defaultdict(list), {}
    for task in (task for row in rows for task in row["tasks"]):
        points[task["task"]].append(None if task["to_mark"] else float(task["points"]))
        most[task["task"]] = float(task["of"])
    said, tried = defaultdict(Counter), [n for (_, of), n in notebooks.items() if of == lab]
    for notebook in tried:
        for task, lines in sentences_of(notebook).items():
            said[task].update(lines)
    lines = [line(points[t], most[t], titles[lab, t], said[t]) for t in in_order(points, titles)]
    total = [float(row["points"]) for row in rows]
    of = max(float(row["of"]) for row in rows)
    count = f"{len(rows)} notebook{'s' if rows[1:] else ''}"
    mean = f"{sum(total) / len(total):.1f} of {of:g} points on average"
    wait = sum(1 for row in rows if float(row["to_mark"]))
    waiting = f", {wait} not fully marked yet" if wait else ""
    columns = ("Task", "Share of the points", *COUNTED, "Said most often, and to how many")
    head = '<tr class="head">' + "".join(f'<th scope="col">{column}' for column in columns)
    return (
        f"<h2>{html.escape(titles[lab])}</h2><table><caption>{count}, {mean}{waiting}."
        f"</caption>{head}{''.join(lines)}</table>"
    )


def in_order(tasks, titles):
    """Tasks in the order of their titles in the lab."""
    order = [key[1] for key in titles if isinstance(key, tuple)]
    return sorted(tasks, key=order.index)


def line(points, most, title, said):
    """A task's line of the table."""
    known = [value for value in points if value is not None]
    title = f"<tr><td>{html.escape(title)}"
    if not known:
        return f'{title}<td colspan="4">not marked yet'
    share = sum(known) / (len(known) * most)
    full, none = sum(value >= most for value in known), sum(value == 0 for value in known)
    meter = f'<meter value="{share:.3f}">{share:.0%}</meter> {share:.0%}'
    often = [f"<li>{html.escape(text)} ({count})" for text, count in said.most_common(2)]
    counts = zip(COUNTED, (full, none), strict=True)
    cells = [f'<td class="number" data-name="{name}:">{number}' for name, number in counts]
    told = f"<ul>{''.join(often)}</ul>" if often else ""
    return f'{title}<td class="share">{meter}{"".join(cells)}<td>{told}'
