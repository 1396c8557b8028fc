"""The scoreboard at full strength as a table of its page: data/scoreboard.json, mark by mark."""

import json
from html import escape

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from pictures import ROOT

ARROWS = {"high": "↑", "low": "↓", "zero": "→0←"}
NO = '<td class="none">–</td>'


class Scoreboard(SphinxDirective):
    """The table, and how it was made; scoreboard.js lets a reader sort it and hide parts of it."""

    def run(self):
        """Draw the tables from what data/build/scoreboard.py wrote."""
        path = ROOT / "data/scoreboard.json"
        self.env.note_dependency(str(path))
        board = json.loads(path.read_text(encoding="utf8"))
        script = '<script src="../_static/scoreboard.js" defer></script>'
        html = marks(board) + script
        return [nodes.paragraph("", how(board["made"])), nodes.raw("", html, format="html")]


class ScoreboardNetworks(SphinxDirective):
    """What each of the networks goes by, as was measured."""

    def run(self):
        """Draw the table of the networks."""
        board = json.loads((ROOT / "data/scoreboard.json").read_text(encoding="utf8"))
        return [nodes.raw("", networks(board["networks"]), format="html")]


def how(made):
    """What was run, in a sentence or two."""
    counts, fixed, each = made["counts"], made["metrics"], made["networks"] // 4
    few = "So few say little of how they differ: take one recipe's intervals lightly."
    few = f" {few}" if each < 5 else ""
    return (
        f"Run on {made['date']} on {made['machine']}: {made['minutes']:,.0f} minutes of its time. "
        f"{made['networks']} networks, {each} of each recipe, {counts['images']} pictures each, "
        f"{made['images']:,} in all, each used once. Deletion, insertion and infidelity are of "
        f"{counts['curves']} of a network's pictures ({fixed['steps']} steps; patches of "
        f"{fixed['patch']} pixels), ROAD of {counts['road']}, all that asks again of "
        f"{counts['again']} ({fixed['samples']} samples of noise for the sensitivity); the linear "
        f"models of {counts['linear']} digits each, the rectangles of {counts['rectangles']}.{few}"
    )


def text(value):
    """A number with two digits behind the point, or with three that count."""
    short = f"{value:.2f}" if abs(value) < 9.995 else f"{value:,.0f}"
    return short.replace("-0.00", "0.00").replace("-", "−")


def level(board, key):
    """The methods whose interval reaches that of the best, among those that look.

    What is defined on less than half of the networks is left out.
    """
    rows = {r["name"]: r[key] for r in board["rows"] if r["kind"] == "looks" and key in r}
    most = max(count for *_, count in rows.values())
    spans = {
        name: (mean, mean if low is None else low, mean if high is None else high)
        for name, (mean, low, high, count) in rows.items()
        if 2 * count >= most
    }
    better = board["columns"][key]["better"]
    merit = {"high": lambda v: v, "low": lambda v: -v, "zero": lambda v: -abs(v)}[better]
    _, lowest, highest = max(spans.values(), key=lambda span: merit(span[0]))
    return {name for name, (_, low, high) in spans.items() if low <= highest and high >= lowest}


def mark(cell, most, best):
    """A cell: the mean, and in small its interval."""
    mean, low, high, count = cell
    span = f"{text(low)} to {text(high)}" if low is not None else "one network"
    few = f", {count} networks" if count < most and low is not None else ""
    shown = f"<strong>{text(mean)}</strong>" if best else text(mean)
    return f'<td data-value="{mean}">{shown} <small>{span}{few}</small></td>'


def marks(board):
    """The table of all marks."""
    heads, groups, cells = [], {}, {row["name"]: [] for row in board["rows"]}
    for key, words in board["columns"].items():
        groups.setdefault(words["group"], []).append(key)
        most = max(row[key][3] for row in board["rows"] if key in row)
        best = level(board, key)
        heads.append(
            f'<th scope="col" data-better="{words["better"]}" title="{escape(words["says"])}">'
            f"{escape(words['name'])} {ARROWS[words['better']]}</th>"
        )
        for row in board["rows"]:
            cell = mark(row[key], most, row["name"] in best) if key in row else NO
            cells[row["name"]].append(cell)
    over = "".join(
        f'<th scope="colgroup" colspan="{len(keys)}">{escape(group)}</th>'
        for group, keys in groups.items()
    )
    body = "".join(
        f'<tr data-kind="{row["kind"]}"><th scope="row">{escape(row["name"])}</th>'
        f"{''.join(cells[row['name']])}</tr>"
        for row in board["rows"]
    )
    return frame(
        "The scoreboard",
        f'<table class="table figures scoreboard"><thead>'
        f'<tr><td></td>{over}</tr><tr><th scope="col">method</th>{"".join(heads)}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
    )


def networks(facts):
    """The table of the networks."""
    heads = ["cause replaced", "other replaced", "cause alone"]
    body = "".join(
        f'<tr><th scope="row">{escape(fact["name"])}</th><td>{fact["area"]:.1%}</td>'
        + "".join(f"<td>{fact[head]:.0%}</td>" for head in heads)
        + "</tr>"
        for fact in facts
    )
    head = "".join(f'<th scope="col">{word}</th>' for word in ["network", "cause covers", *heads])
    return frame(
        "The networks",
        f'<table class="table figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>',
    )


def frame(label, table):
    """A table that scrolls by itself."""
    kind = 'class="pst-scrollable-table-container" tabindex="0" role="region"'
    return f'<div {kind} aria-label="{label}">{table}</div>'
