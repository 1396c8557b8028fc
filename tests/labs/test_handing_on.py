"""What goes on from the grades: import files, read back as Moodle and Canvas read them, and a page.

The two readers are written from what the platforms document of their importers: Moodle's *offline
grading worksheet* and Canvas's *gradebook import*.
"""

import csv
import datetime
import html
import re
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks/labs/tools"))

import class_page  # noqa: E402
import collect  # noqa: E402
import exports  # noqa: E402
import formgrade  # noqa: E402
import grade  # noqa: E402
import release  # noqa: E402
import unpack  # noqa: E402

TITLES = {
    "small": "Small",
    ("small", "a"): "Task 1 · <One> & two",
    ("small", "why"): "Task 2 · Why?",
}


def row(student, upload_id, points, to_mark=0, lab="small"):
    """A row of the table, with two tasks of 6 and 4 points."""
    tasks = [{"task": "a", "points": min(points, 6), "of": 6.0, "to_mark": 0}]
    tasks.append({"task": "why", "points": max(points - 6, 0), "of": 4.0, "to_mark": to_mark})
    about = {"student": student, "lab": lab, "upload_id": upload_id, "tasks": tasks}
    return about | {"points": points, "of": 10.0, "to_mark": to_mark}


ROWS = [
    row('Ann "A" Lee', "moodle 12345", 9.5),
    row("Núñez, José", "moodle 12346", 0.0),
    row("रीता", "moodle 12347", 1 / 3),
    row("waits", "moodle 12348", 6.0, to_mark=4),
    row("leeann", "canvas 901", 10.0),
    row("=cmd", "canvas 902", 2.25),
    row("Bob", "", 7.0),
    row("nothing", "moodle 12349", 0.0, lab=""),
]


def as_moodle(path):
    """What Moodle's importer takes from a worksheet: {number: (grade, comments)}.

    Comma-separated UTF-8; three columns must be there under these names; a student is known by
    what follows "Participant " in the first of them.
    """
    with path.open(newline="", encoding="utf-8") as file:
        columns, *records = csv.reader(file)
    places = {name: columns.index(name) for name in columns}
    assert {"Identifier", "Grade", "Last modified (grade)"} <= places.keys()
    got = {}
    for record in records:
        assert len(record) == len(columns)
        number = record[places["Identifier"]][len("Participant ") :]
        assert number.isdigit()
        assert number not in got
        grade = float(record[places["Grade"]])
        got[int(number)] = grade, record[places["Feedback comments"]]
    return got


def as_canvas(path):
    """What Canvas takes from a gradebook: {assignment: (points possible, {ID: score})}.

    A student is known by the ID; columns that are not the student's are assignments, with a number
    in brackets or known by their titles; a line whose first cell is "Points Possible" gives those.
    """
    with path.open(newline="", encoding="utf-8") as file:
        columns, *records = csv.reader(file)
    assert "Student" in columns
    assert "Section" in columns
    known = {"Student", "ID", "SIS User ID", "SIS Login ID", "Section"}
    found = {}
    for place, name in enumerate(columns):
        if name not in known:
            possible = [r[place] for r in records if r[0].strip() == "Points Possible"]
            students = [r for r in records if r[0].strip() != "Points Possible"]
            scores = {int(r[columns.index("ID")]): float(r[place]) for r in students}
            assert len(scores) == len(students)
            found[re.sub(r" \(\d+\)$", "", name)] = float(possible[0]), scores
    return found


def test_moodle_reads_back_every_marked_students_points(tmp_path):
    (tmp_path / "moodle-gone.csv").write_text("of before")
    assert exports.write(tmp_path, ROWS, TITLES) == ["canvas-small.csv", "moodle-small.csv"]
    assert not (tmp_path / "moodle-gone.csv").exists()
    got = as_moodle(tmp_path / "moodle-small.csv")
    assert {number: grade for number, (grade, _) in got.items()} == {
        12345: 9.5,
        12346: 0,
        12347: pytest.approx(1 / 3, abs=1e-5),
    }
    comment = got[12345][1]
    assert html.unescape(comment).split("<br>") == [
        "Task 1 · <One> & two: 6 of 6",
        "Task 2 · Why?: 3.5 of 4",
    ]
    assert "<One>" not in comment


def test_canvas_reads_back_every_students_points(tmp_path):
    exports.write(tmp_path, ROWS, TITLES)
    assert as_canvas(tmp_path / "canvas-small.csv") == {"Small": (10, {901: 10, 902: 2.25})}


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (
            [
                "Ann Lee_12345_assignsubmission_file_/lab.ipynb",
                "José_99_assignsubmission_file_/lab.ipynb",
            ],
            {"Ann Lee": "moodle 12345", "José": "moodle 99"},
        ),
        (
            ["leeann_LATE_901_77_lab-1.ipynb", "doebob_902_78_lab.ipynb"],
            {"leeann": "canvas 901", "doebob": "canvas 902"},
        ),
        (["Ann/lab.ipynb", "Bob/lab.ipynb"], {"Ann": "", "Bob": ""}),
    ],
)
def test_the_platforms_numbers_come_from_the_uploads_names(tmp_path, names, ids):
    blank = new_notebook(cells=[new_code_cell(f"x = {i}") for i in range(6)])
    for name in names:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(blank, path)
    submissions, _ = collect.collect(list(unpack.files(tmp_path / "in")), {"lab": blank}, 4)
    assert {s.student: s.upload_id for s in submissions} == ids
    assert all(s.time > 0 for s in submissions)


def executed(said, error=""):
    """A notebook with the outputs of a test."""
    test = new_code_cell("x", outputs=[new_output("stream", text=said)] if said else [])
    if error:
        test.outputs.append(new_output("error", ename="NotYet", evalue=error, traceback=[]))
    test.metadata["nbgrader"] = {"grade": True, "grade_id": "a", "points": 6}
    return new_notebook(cells=[new_markdown_cell("x"), test])


def test_the_page_on_the_class_counts_and_quotes(tmp_path):
    rows = [row("a", "", 9.0), row("b", "", 3.0), row("c", "", 0.0, to_mark=4)]
    swapped = "Rows and <b>columns</b> are swapped."
    notebooks = {
        ("a", "small"): executed("✓ right"),
        ("b", "small"): executed(f"✗ {swapped}\n✗ {swapped}\n✓ right", ""),
        ("c", "small"): executed(f"✗ {swapped}\n✗ NaN.", "NaN."),
    }
    page = class_page.page(rows, notebooks, TITLES)
    text = re.sub(r"<[^>]+>", "|", page.split("<body>")[1])
    assert "3 notebooks, 4.0 of 10 points on average, 1 not fully marked yet." in text
    first = text[text.index("Task 1") : text.index("Task 2")]
    assert "50%" in first  # (6 + 3 + 0) of 18
    first = re.sub(r"\|+", "|", first)
    assert "|1|1|" in first
    assert "Rows and &lt;b&gt;columns&lt;/b&gt; are swapped. (2)|NaN. (1)" in first
    assert "38%" in text[text.index("Task 2") :]  # (3 + 0) of 8, the third is not marked
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_every_task_of_every_lab_has_a_title_of_its_own():
    sources = {
        lab: nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4) for lab in release.names()
    }
    titles = class_page.titles_of(sources)
    for lab in sources:
        tasks = [title for key, title in titles.items() if key[0] == lab and key != lab]
        assert len(tasks) == len(set(tasks)) == 8
        assert all(re.fullmatch(r"Task \d · [^()]+", title) for title in tasks), tasks


def test_minutes_after_the_deadline_are_whole_and_never_negative():
    deadline = datetime.datetime.fromisoformat("2026-11-28T18:00")
    at = deadline.timestamp()
    assert [grade.late(at + s, deadline) for s in (-90, 0, 1, 60, 61, 86400)] == [
        *(0, 0, 1, 1, 2, 1440),
    ]
    assert grade.late(at, None) == grade.late(0.0, deadline) == ""


@pytest.mark.parametrize("lab", release.names())
def test_the_model_answer_stands_below_the_open_one(lab):
    cells = nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4).cells
    (model,) = [c for c in cells if c.cell_type == "markdown" and "nbgrader" in c.metadata
                and c.metadata.nbgrader.get("solution")]  # fmt: skip
    task = model.metadata.nbgrader.grade_id
    page = f'<div class="nbgrader_cell"><p><input id="{task}"></p></div><p id="after"></p>'
    soup = BeautifulSoup(page, "html.parser")
    formgrade.add_models(soup, lab)
    beside = soup.find(class_="nbgrader_cell").find_next_sibling()
    assert beside.name == "details"
    assert "Model answer" in beside.summary.text
    words = re.findall(r"[a-z]{5,}", model.source)
    assert len(words) > 60
    assert set(words) <= set(re.findall(r"[a-z]{5,}", beside.text))
    assert re.search(r"[Gg]rading|oint", beside.text)  # what each point is given for
    formgrade.add_models(soup, "no such lab")
