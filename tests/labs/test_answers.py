"""A student's answers are found wherever they stand, and reach the tests and the marker."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks/labs/tools"))

import answers  # noqa: E402

STUB = "def {0}(x):\n    raise NotImplementedError"
ANSWER = "def {0}(x):\n    return {1} * x"
TASKS = {"double": 2, "triple": 3, "quadruple": 4}


def marked(cell, grade_id, points=None, solution=False):
    """A cell with nbgrader's metadata."""
    mark = {"grade_id": grade_id, "grade": points is not None, "solution": solution}
    cell.metadata["nbgrader"] = mark | ({"points": points} if points is not None else {})
    return cell


def lab(hidden=""):
    """Three tasks of a point each, a value to find, and an open question."""
    cells = [new_markdown_cell("# Lab"), marked(new_code_cell("import math"), "setup")]
    for name, factor in TASKS.items():
        cells += [
            new_markdown_cell(f"## Task {name}"),
            marked(new_code_cell(STUB.format(name)), name, solution=True),
            marked(new_code_cell(f"assert {name}(5) == {5 * factor}{hidden}"), f"{name}_test", 1),
            new_code_cell(f"try:\n    print({name}(1))\nexcept Exception:\n    pass"),
        ]
    cells += [
        new_markdown_cell("## Find it"),
        marked(new_code_cell("found = ...\nwhere = ..."), "found", solution=True),
        marked(new_code_cell("assert (found, where) == (7, 1)"), "found_test", 1),
        new_markdown_cell("## Why?"),
        marked(new_markdown_cell("Your answer."), "why", 4, solution=True),
    ]
    return new_notebook(cells=cells)


def solved():
    """The cells of a student who did everything right in the places that are for it."""
    notebook = lab()
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in TASKS:
            cell.source = ANSWER.format(name, TASKS[name])
    by_id(notebook, "found").source = "found, where = 7, 1"
    by_id(notebook, "why").source = "Because I tried."
    return notebook


def by_id(notebook, grade_id):
    return next(
        c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id
    )


def place(notebook, grade_id):
    return notebook.cells.index(by_id(notebook, grade_id))


def rebuilt(notebook):
    """The notebook to execute, and the notes, as for a file that came through JSON."""
    cells = nbformat.reads(nbformat.writes(notebook), 4).cells
    source = lab(hidden="\nassert True  # hidden")
    return answers.rebuild(source, lab(), [answers.as_cell(cell) for cell in cells])


def run(notebook):
    """The tests that pass, when the cells are executed one after the other."""
    names, passed = {}, set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            try:
                exec(cell.source, names)
            except Exception:
                continue
            mark = cell.metadata.get("nbgrader", {})
            passed |= {mark["grade_id"]} if mark.get("grade") else set()
    return passed


EVERYTHING = {"double_test", "triple_test", "quadruple_test", "found_test"}


def without_marks(notebook):
    for cell in notebook.cells:
        cell.metadata = {}


def pasted(notebook):
    """Nothing but the answers, in a new notebook."""
    kept = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")]
    notebook.cells = kept
    without_marks(notebook)


def reversed_(notebook):
    pasted(notebook)
    notebook.cells.reverse()


def in_one_cell(notebook):
    pasted(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [new_code_cell("\n\n".join(code)), notebook.cells[-1]]


def merged(notebook):
    """Task triple's answer was merged with that of double; the mark of the upper cell stays."""
    lower = by_id(notebook, "triple")
    by_id(notebook, "double").source += "\n\n\n" + lower.source
    notebook.cells.remove(lower)


def merged_into_the_test(notebook):
    """The answer was merged with the test above it, whose mark stays."""
    lower = by_id(notebook, "triple")
    by_id(notebook, "double_test").source += "\n\n\n" + lower.source
    notebook.cells.remove(lower)


def merged_with_its_test(notebook):
    test = by_id(notebook, "double_test")
    by_id(notebook, "double").source += "\n\n\n" + test.source
    notebook.cells.remove(test)


def typed_above_the_blank(notebook):
    answer = by_id(notebook, "double")
    notebook.cells.insert(place(notebook, "double"), new_code_cell(answer.source))
    answer.source = STUB.format("double")


def typed_below_the_blank(notebook):
    """The cells below may rest on each other: they stay where they are."""
    found = by_id(notebook, "found")
    found.source = "found = ...\nwhere = ..."
    below = [new_code_cell("best = 7"), new_code_cell("found = best\nwhere = math.gcd(1, 2)")]
    at = place(notebook, "found") + 1
    notebook.cells[at:at] = below


def two_typed_below_the_first(notebook):
    texts = [by_id(notebook, name).source for name in ("double", "triple")]
    for name in ("double", "triple"):
        by_id(notebook, name).source = STUB.format(name)
    notebook.cells.insert(place(notebook, "double") + 1, new_code_cell("\n\n".join(texts)))


def typed_at_the_end(notebook):
    answer = by_id(notebook, "double")
    notebook.cells.append(new_code_cell(answer.source))
    answer.source = STUB.format("double")


def blank_copy_below(notebook):
    blank = marked(new_code_cell(STUB.format("double")), "double", solution=True)
    notebook.cells.insert(place(notebook, "double") + 1, blank)


def none(notebook):
    pass


@pytest.mark.parametrize(
    "change",
    [
        none,
        without_marks,
        pasted,
        reversed_,
        in_one_cell,
        merged,
        merged_into_the_test,
        merged_with_its_test,
        typed_above_the_blank,
        typed_below_the_blank,
        two_typed_below_the_first,
        typed_at_the_end,
        blank_copy_below,
    ],
)
def test_answers_count_wherever_they_stand(change):
    notebook = solved()
    change(notebook)
    made, notes = rebuilt(notebook)
    assert run(made) == EVERYTHING
    assert by_id(made, "why").source == "Because I tried."
    quiet = (none, merged_with_its_test, blank_copy_below)
    assert bool(notes) == (change not in quiet), notes
    assert all("found without nbgrader's marks" in note for note in notes)
    tests = [c.source for c in made.cells if "points" in c.metadata.get("nbgrader", {})]
    assert len(tests) == 5  # ours, hidden parts and all
    assert sum("# hidden" in test for test in tests) == 3


def test_one_missing_answer_is_named_and_costs_no_other():
    notebook = solved()
    notebook.cells.remove(by_id(notebook, "triple"))
    made, notes = rebuilt(notebook)
    assert run(made) == EVERYTHING - {"triple_test"}
    assert notes == ["there is no answer to triple"]


def test_a_blank_notebook_is_said_to_be_blank():
    made, notes = rebuilt(lab())
    assert run(made) == set()
    assert notes == ["nothing was answered"]
    assert by_id(made, "why").source == "Your answer."


def test_half_an_answer_keeps_the_other_half_of_the_lab():
    notebook = solved()
    by_id(notebook, "found").source = "found = ...\nwhere = ..."
    notebook.cells.insert(0, new_code_cell("found = 7"))
    made, _ = rebuilt(notebook)
    names = {}
    exec(by_id(made, "found").source, names)
    assert (names["found"], names["where"]) == (7, ...)


def test_easier_tests_count_for_nothing():
    notebook = lab()
    for name in TASKS:
        by_id(notebook, f"{name}_test").source = "pass"
    made, _ = rebuilt(notebook)
    assert run(made) == set()


PICTURE = {"image.png": {"image/png": "iVBORw0KGgo="}}


def pictured(text):
    cell = new_markdown_cell(text)
    cell.attachments = PICTURE
    return cell


def test_pasted_pictures_stay_in_answers_and_in_own_cells():
    notebook = solved()
    by_id(notebook, "why").attachments = PICTURE
    by_id(notebook, "why").source = "See ![it](attachment:image.png)."
    notebook.cells.insert(2, pictured("![mine](attachment:image.png)"))
    made, _ = rebuilt(notebook)
    assert by_id(made, "why").attachments == PICTURE
    assert [c.attachments for c in made.cells if "mine" in c.source] == [PICTURE]
    nbformat.validate(made)


def test_only_pictures_are_taken_from_what_is_attached():
    evil = {"x.svg": {"image/svg+xml": "<svg onload='alert(1)'>"}, "y": {"text/html": "<b>"}}
    cell = answers.as_cell({"cell_type": "markdown", "source": "a", "attachments": evil | PICTURE})
    assert cell.pictures == PICTURE


@pytest.mark.parametrize("marks", [True, False])
def test_a_written_answer_beside_its_cell_reaches_the_marker_with_its_pictures(marks):
    notebook = solved()
    at = place(notebook, "why")
    if marks:
        notebook.cells[at].source = "Your answer."
    else:
        notebook.cells.pop(at)
    notebook.cells[at:at] = [
        pictured("First ![a](attachment:image.png)"),
        pictured("then ![b](attachment:image.png)"),
    ]
    made, notes = rebuilt(notebook)
    answer = by_id(made, "why")
    assert answer.source.startswith("First ![a](attachment:image.png)\n\nthen ![b](attachment:")
    assert len(answer.attachments) == 2
    assert all(f"attachment:{name})" in answer.source for name in answer.attachments)
    assert notes == ["found without nbgrader's marks: why"]


@pytest.mark.parametrize("kind", ["raw", "code"])
def test_prose_in_a_cell_of_another_kind_reaches_the_marker(kind):
    text = "It is read by the block, as both of my experiments have shown beyond doubt."
    notebook = solved()
    at = place(notebook, "why")
    notebook.cells[at] = new_code_cell(text) if kind == "code" else nbformat.v4.new_raw_cell(text)
    made, notes = rebuilt(notebook)
    assert by_id(made, "why").source == text
    assert notes == ["found without nbgrader's marks: why"]


@pytest.mark.parametrize(
    "cell",
    [
        {},
        {"cell_type": 3, "source": [1, None], "metadata": [], "attachments": [1]},
        {"source": "\ud800", "metadata": {"nbgrader": {"grade_id": ["x"]}}},
        {"attachments": {"a": "b", "c": {"image/png": ["x", "y"]}}},
    ],
)
def test_any_json_is_a_cell(cell):
    answers.as_cell(cell).text.encode()
