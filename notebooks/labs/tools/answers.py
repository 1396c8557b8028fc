"""Put a lab's notebook together anew, with what a student wrote in it.

The tests are ours. Of the student's cells those count that stand for an answer, and those that the
student added. Answers bear nbgrader's marks; where these are lost (pasted into a new notebook,
typed anew, merged with a neighbour), code is told by the names that it defines, and text by the
place where it stands.
"""

import ast
import re
from collections import defaultdict
from typing import NamedTuple

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

ELSEWHERE = "# The answer stands in another cell."  # merged with this one
PICTURE = ("image/png", "image/jpeg", "image/gif", "image/webp")  # what may be pasted into text
CODE = 100_000  # characters of a cell's code; to parse 400,000 can take 350 MB
ALL_CODE = 1_000_000  # of all cells' code
# What Python's parser, and what walks through its trees, raise on code of any kind.
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


class Cell(NamedTuple):
    """What counts of a student's cell, whatever else it holds."""

    kind: str  # "code", "markdown" or "raw"
    text: str
    grade_id: str | None = None  # nbgrader's mark
    pictures: dict = {}  # noqa: RUF012  pasted in: {name: {type: base64}}


def as_cell(cell):
    """The `Cell` of a notebook's cell, which may be any JSON object."""
    source = cell.get("source", "")
    source = source if isinstance(source, str) else "".join(map(str, source))
    source = source.encode("utf-8", "replace").decode()  # halves of surrogate pairs
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = marks.get("grade_id") if isinstance(marks, dict) else None
    pictures = {}
    attached = cell.get("attachments")
    for name, kinds in attached.items() if isinstance(attached, dict) else ():
        kept = {k: v for k, v in kinds.items() if k in PICTURE} if isinstance(kinds, dict) else {}
        kept = {k: v if isinstance(v, str) else "".join(map(str, v)) for k, v in kept.items() if v}
        if kept:
            pictures[name] = kept
    grade_id = grade_id if isinstance(grade_id, str) else None
    return Cell(str(cell.get("cell_type")), source, grade_id, pictures)


def bounded(cells):
    """Cells whose code is cut where it is too long to be parsed, and how many were cut."""
    kept, cut, left = [], 0, ALL_CODE
    for cell in cells:
        if cell.kind == "code":
            text = cell.text[: min(CODE, left)]
            cut += len(text) < len(cell.text)
            left -= len(text)
            cell = cell._replace(text=text)
        kept.append(cell)
    return kept, cut


def defined(text):
    """The names that code defines at its top level, of functions, classes and variables."""
    text = text[:CODE]  # it may be that of a cell which is no code
    try:
        body = ast.parse(text).body
    except UNREADABLE:  # also of %magics
        lines = re.findall(r"^(?:def|class)\s+(\w+)|^(\w+)\s*=(?!=)", text, re.MULTILINE)
        return {name for pair in lines for name in pair if name}
    names = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = getattr(statement, "targets", None) or [statement.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


def asked_for(released):
    """The names that a lab's answers have to define: {grade_id: names}, in the lab's order."""
    found = {}
    for cell in released.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("solution") and cell.cell_type == "code":
            found[mark["grade_id"]] = defined(cell.source)
    return found


def rebuild(source, released, cells):
    """Return the notebook to execute, and notes on where its answers come from.

    `source` is the lab's notebook with all its tests, `released` what students got, whose cells
    stand in for answers that are gone, `cells` the student's. A student's copy of an answer cell
    is a cell of their own, behind the answer.
    """
    answers, added, order = sort(released, cells)
    names = asked_for(released)
    blank = {key: cell.source.strip() for key, cell in order.items()}
    open_ = [k for k, c in order.items() if is_solution(c) and c.cell_type == "markdown"]
    seen = set(answers)
    gone = {k for k in [*names, *open_] if k not in answers or answers[k].text.strip() == blank[k]}
    serving = []
    taken = [k for k in names if k in gone and find_code(k, names, answers, added, order, serving)]
    taken += [key for key in open_ if key in gone and find_text(key, answers, added, order)]
    lost = [key for key in [*names, *open_] if key in gone - seen and key not in taken]
    notes = []
    if taken:
        notes.append(f"found without nbgrader's marks: {', '.join(taken)}")
    if gone - set(taken) == {*names, *open_}:
        notes.append("nothing was answered")
    elif lost:
        notes.append(f"there is no answer to {', '.join(lost)}")

    rebuilt = as_new(added[None])
    for cell in source.cells:
        mark = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and not mark:
            continue  # free code: the student's version of it counts
        key = mark.get("grade_id", cell.source)
        cell = nbformat.from_dict(cell)
        if mark.get("solution"):
            answer = answers.get(key, Cell("", order[key].source))
            cell.source = answer.text
            if answer.pictures and cell.cell_type == "markdown":
                cell.attachments = answer.pictures
        rebuilt += [cell, *as_new(added.pop(key, []))]
    return nbformat.v4.new_notebook(cells=rebuilt, metadata=source.metadata), notes


def is_solution(cell):
    """Whether a lab's cell is for students to fill in."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def as_new(cells):
    """A student's own cells, for the notebook to execute."""
    made = []
    for cell in cells:
        if cell.kind == "code":
            made.append(new_code_cell(cell.text))
        else:
            made.append(new_markdown_cell(cell.text))
            if cell.pictures:
                made[-1].attachments = cell.pictures
    return made


def sort(released, cells):
    """Tell a student's cells apart: (answers, added, order).

    `answers` are those with a mark, {grade_id: Cell}; `added` the student's own, {place: [Cell]},
    where a place is the grade_id or the text of the lab's cell that they stand behind; `order` the
    lab's cells by their place.
    """
    order = {c.metadata.get("nbgrader", {}).get("grade_id", c.source): c for c in released.cells}
    free = {k for k, c in order.items() if c.cell_type == "code" and "nbgrader" not in c.metadata}
    places = {cell.source.strip(): key for key, cell in order.items() if key not in free}
    answers, added, place = {}, defaultdict(list), None
    for cell in cells:
        text, key = cell.text.strip(), cell.grade_id
        if key in order and is_solution(order[key]):
            blank, place = order[key].source.strip(), key
            if key not in answers or answers[key].text.strip() == blank:
                answers[key] = cell
            elif text != blank:
                added[key].append(cell)
        elif text in places:  # the lab's own cell, with its mark or without
            place = places[text]
        elif key in order:  # a cell that was locked, and changed: ours stands in its place
            place = key
            if cell.kind == "code" and defined(text):
                added["changed"].append(cell)
        elif text:
            added[place].append(cell)
    return answers, added, order


def find_code(key, names, answers, added, order, serving):
    """Find the code of an answer in cells without its mark; returns whether there is any.

    It goes where the answer belongs, unless it stands between there and the answer's test, or
    serves another answer already: `serving` are the cells that do.
    """
    sequence = list(order)
    slot = sequence.index(key)
    test = next((i for i in range(slot + 1, len(order)) if "points" in marks(order, i)), len(order))
    kept = {n for k, a in answers.items() if k != key and k in names for n in defined(a.text)}
    moved, found = [], kept & names[key]
    for place in [None, *sequence, "changed"]:
        for cell in list(added.get(place, [])):
            here = defined(cell.text) & names[key] if cell.kind == "code" else set()
            found |= here
            if not here or cell in serving:
                continue
            serving.append(cell)
            if place not in order or not slot <= sequence.index(place) < test:
                added[place].remove(cell)
                moved.append(cell)
    if found:
        stub = ast.parse(order[key].source)
        stub.body = [s for s in stub.body if not defined(ast.unparse(s)) & found]
        texts = [ast.unparse(stub), *(cell.text for cell in moved)]
        answers[key] = Cell("code", "\n\n\n".join(filter(None, texts)) or ELSEWHERE)
    return bool(found)


def find_text(key, answers, added, order):
    """Find a written answer in cells without its mark; returns whether there is any."""
    sequence = list(order)
    slot = sequence.index(key)
    start = slot
    while start and "points" not in marks(order, start - 1):
        start -= 1
    near = [place for place in sequence[start : slot + 1] if added.get(place)]
    found = [(p, c) for p in near for c in added[p] if c.kind != "code" or is_prose(c.text)]
    if not found and key not in answers:  # the question itself is gone: the longest text there is
        texts = [(p, c) for p in added for c in added[p] if c.kind != "code"]
        found = sorted(texts, key=lambda pair: -len(pair[1].text))[:1]
    if not found:
        return False
    text, pictures = [], {}
    for number, (place, cell) in enumerate(found):
        added[place].remove(cell)
        words = cell.text
        for name, picture in cell.pictures.items():
            new = name if name not in pictures else f"{number}-{name}"
            words = words.replace(f"attachment:{name}", f"attachment:{new}")
            pictures[new] = picture
        text.append(words)
    answers[key] = Cell("markdown", "\n\n".join(text), key, pictures)
    return True


def is_prose(text):
    """Whether a code cell holds no code, but an answer in words."""
    try:
        ast.parse(text)
    except UNREADABLE:
        return len(re.findall(r"[^\W\d]{2,}", text)) >= 8 and not text.lstrip().startswith("%")
    return False


def marks(order, place):
    """The marks of nbgrader on a lab's cell, by the cell's number in their order."""
    return list(order.values())[place].metadata.get("nbgrader", {})
