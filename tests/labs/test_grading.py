"""Grading: one student's trouble costs that student the affected points, and nobody else any.

A lab of two small tasks shows each kind of trouble; then a real lab goes all the way, by the
commands that a teacher gives.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import Gradebook

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "notebooks/labs/tools"
sys.path.insert(0, str(TOOLS))

import grade  # noqa: E402
import release  # noqa: E402

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("bwrap") and shutil.which("prlimit")),
        reason="students' notebooks run in a sandbox or not at all: apt-get install bubblewrap",
    ),
    # A student has copied a cell.
    pytest.mark.filterwarnings("ignore::nbformat.warnings.DuplicateCellId"),
]
DOUBLE = '''def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION'''
TRIPLE = DOUBLE.replace("double", "triple").replace("Twice", "Thrice").replace("2 *", "3 *")
ENGINE = "from course_utils.labs import _engine\n"
COMPARE = "_engine.compare(_engine.call({0}, {1}), {2}, what='{0}({1})')"


def marked(cell, grade_id, points=None, solution=False):
    """A cell with nbgrader's metadata."""
    cell.metadata["nbgrader"] = {
        "grade": points is not None,
        "grade_id": grade_id,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    } | ({"points": points} if points is not None else {})
    return cell


def small_lab():
    """A lab of two tasks, 2 and 3 points, and an open question of 4."""
    hidden = "### BEGIN HIDDEN TESTS\n{}\n### END HIDDEN TESTS"
    first = [COMPARE.format("double", 3, 6), hidden.format(COMPARE.format("double", 5, 10))]
    second = [f"    lambda: {COMPARE.format('triple', x, 3 * x)}," for x in (3, -3, 0)]
    second[2] = hidden.format(second[2])
    return new_notebook(
        cells=[
            new_markdown_cell("# Lab: Small"),
            marked(new_code_cell("import numpy as np\nfrom course_utils import checks"), "setup"),
            new_markdown_cell("## Task 1"),
            marked(new_code_cell(DOUBLE), "double", solution=True),
            marked(new_code_cell(ENGINE + "\n".join(first)), "double_test", 2),
            new_markdown_cell("## Task 2"),
            marked(new_code_cell(TRIPLE), "triple", solution=True),
            marked(
                new_code_cell(ENGINE + "\n".join(["checks.credit(\n    3,", *second, ")"])),
                "triple_test",
                3,
            ),
            new_code_cell("print(triple(4))"),
            new_markdown_cell("## Task 3"),
            marked(new_markdown_cell("Because."), "open", 4, solution=True),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )


def answered(notebook, **answers):
    """A student's notebook: what was handed out, with answers in some of its cells."""
    notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    return notebook


RIGHT = {
    "double": "def double(x):\n    return x + x",
    "triple": "def triple(x):\n    return x * 3",
    "open": "Because it is.",
}
ENDLESS = "def double(x):\n    while True: time.sleep(1)"  # test_class.py has one that is busy
HARM = """
import os, signal, socket, subprocess
from course_utils.labs import _engine
for harm in (
    lambda: open({victim!r}, "w").write("spoilt"),
    lambda: os.kill(os.getppid(), signal.SIGKILL),
    lambda: print(open({secret!r}).read()),
    lambda: socket.create_connection(("1.1.1.1", 53), timeout=3),
    lambda: subprocess.run(["touch", {victim!r}], check=True),
    lambda: setattr(checks, "credit", lambda points, *tries: 100),
    lambda: setattr(_engine, "compare", lambda *args, **named: None),
):
    try:
        harm()
        print("done")
    except BaseException as error:
        print(type(error).__name__)
"""


def class_of(blank, victim, secret):
    """What students of every kind hand in: {student: (file, its bytes)}."""
    right = answered(blank, **RIGHT)
    text = nbformat.writes(right).encode()
    gone = answered(right)
    gone.cells = [c for c in gone.cells if c.metadata.get("nbgrader", {}) or "#" in c.source]
    gone.cells = [
        c
        for c in gone.cells
        if c.metadata.get("nbgrader", {}).get("grade_id") not in ("double_test", "triple")
    ]
    extra = answered(right, double="def double(x):\n    return helper(x)")
    extra.cells.insert(3, new_code_cell("def helper(x):\n    return 2 * x"))
    copied = answered(blank, triple=RIGHT["triple"])
    place = next(i for i, c in enumerate(copied.cells) if "double(" in c.source)
    copied.cells.insert(place + 1, answered(right).cells[place])
    harm = HARM.format(victim=str(victim), secret=str(secret))
    loud = RIGHT["double"].replace("return", "import warnings; warnings.warn('old'); return")
    handed_in = {
        "Ada Lovelace": right,
        "blank": blank,
        "half": answered(blank, double=RIGHT["double"], triple="def triple(x): return 9"),
        "renamed": ("my lab, final (2).ipynb", text),
        ".": ("emmy_small.ipynb", text),
        "crash": answered(right, double="def double(x):\n    import os; os._exit(1)"),
        "endless": answered(right, double=f"import time\n{ENDLESS}"),
        "huge": answered(right, double="def double(x): return np.ones(10 * 2**27)"),
        "chatty": answered(right, double="def double(x):\n    while True: print('y' * 999)"),
        "bytes": text.replace(b"x + x", b"x + x # \xff\xe4"),
        "bytes in code": text.replace(b"x + x", b"x \xff x"),
        "utf-16": text.decode().encode("utf-16"),
        "broken": b'{"cells": [\xff',
        "list": b"[1, 2]",
        "letter": ("letter.txt", b"Dear teacher"),
        "deleted": gone,
        "own cell": extra,
        "copied cell": copied,
        "easier tests": answered(
            blank, double_test="pass", triple_test="checks.credit(3, lambda: None)"
        ),
        "malicious": answered(blank, double=harm, triple="triple = 3"),
        "warning": answered(right, double=loud),
    }
    for student, work in handed_in.items():
        if not isinstance(work, tuple | bytes):
            work = nbformat.writes(work).encode()
        yield student, work if isinstance(work, tuple) else ("small.ipynb", work)


# Each takes several seconds: these are graded with the slow tests.
LATER = ("renamed", "huge", "chatty", "bytes", "utf-16", "warning")
LATER += ("deleted", "own cell", "copied cell")  # found by test_answers.py, too


def graded(folder, wanted):
    """What grading makes of what some students hand in: rows by student, their folder, a victim."""
    labs, submitted, out = folder / "source", folder / "handed in", folder / "grades"
    (labs / "small").mkdir(parents=True)
    nbformat.write(small_lab(), labs / "small/small.ipynb")
    victim, secret = folder / "victim", folder / "secret"
    victim.write_text("whole")
    secret.write_text("the solution")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "LABS", labs)
        patch.setattr(grade, "CELLS", 4)
        path = release.release(folder / "released") / "small/small.ipynb"
        for student, (file, data) in class_of(nbformat.read(path, 4), victim, secret):
            if wanted(student):
                (submitted / student).mkdir(parents=True, exist_ok=True)
                (submitted / student / file).write_bytes(data)
        rows = grade.grade(submitted, out, seconds=10, memory=3, say=lambda line: None)
    return {row["student"]: row for row in rows}, out, victim


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A class in every kind of trouble, graded."""
    return graded(tmp_path_factory.mktemp("course"), lambda student: student not in LATER)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The rest of the class."""
    return graded(tmp_path_factory.mktemp("others"), LATER.__contains__)


WORTH = {
    "Ada Lovelace": [2, 3],
    "blank": [0, 0],
    "half": [2, 1],
    "renamed": [2, 3],
    "emmy": [2, 3],
    "crash": [0, 3],
    "endless": [0, 3],
    "huge": [0, 3],
    "chatty": [0, 3],
    "bytes": [2, 3],
    "bytes in code": [0, 3],
    "utf-16": [2, 3],
    "broken": [0, 0],
    "list": [0, 0],
    "deleted": [2, 0],
    "own cell": [2, 3],
    "copied cell": [2, 3],
    "easier tests": [0, 0],
    "malicious": [0, 0],
    "warning": [2, 3],
}


@pytest.mark.parametrize(
    "student",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LATER)) for name in WORTH],
)
def test_each_student_gets_what_their_work_is_worth(request, student):
    rows, _, _ = request.getfixturevalue("others" if student in LATER else "course")
    tasks = {task["task"]: task["points"] for task in rows[student]["tasks"]}
    assert [tasks["double_test"], tasks["triple_test"]] == WORTH[student]
    assert tasks["open"] == 0
    assert rows[student]["points"] == sum(WORTH[student])


def test_open_questions_wait_for_a_reader_where_there_is_something_to_read(course):
    rows, _, _ = course
    assert rows["Ada Lovelace"]["to_mark"] == 4
    assert rows["blank"]["to_mark"] == rows["broken"]["to_mark"] == 0


def note_of(out, student):
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}[student]["note"]


@pytest.mark.parametrize(
    ("student", "word"),
    [
        ("crash", "ended the kernel"),
        ("endless", "had run for 10 seconds"),
        ("bytes in code", "not UTF-8"),
        ("broken", "no notebook"),
        ("letter", "no notebook in this folder"),
        ("emmy", ""),
        ("Ada Lovelace", ""),
    ],
)
def test_the_table_says_what_was_the_matter(course, student, word):
    note = note_of(course[1], student)
    assert word in note if word else note == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "word"),
    [
        ("chatty", "had run for 10 seconds"),
        ("bytes", "not UTF-8"),
        ("renamed", "my lab, final (2).ipynb"),
    ],
)
def test_the_table_says_what_was_the_matter_with_the_others(others, student, word):
    assert word in note_of(others[1], student)


def test_the_tables_hold_every_student_once_and_every_task(course):
    rows, out, _ = course
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["student"] for row in table] == list(rows)
    assert table[1]["of"] == "9"
    with (out / "tasks.csv").open(encoding="utf-8-sig", newline="") as file:
        tasks = list(csv.DictReader(file))
    assert len(tasks) == 3 * (len(table) - 1)  # "letter" handed in no lab


def test_a_malicious_notebook_reached_nothing(course):
    _, out, victim = course
    assert victim.read_text() == "whole"
    page = (out / "feedback/malicious/small/small.html").read_text()
    assert "the solution" not in page
    notebook = nbformat.read(out / "submitted/malicious/small/small.ipynb", 4)
    said = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "OSError" in said  # the network is unreachable
    assert "FileNotFoundError" in said  # there is no such file


def test_the_feedback_shows_the_points_and_the_sentence(course):
    page = (course[1] / "feedback/half/small/small.html").read_text()
    assert "(Score: 1.0 / 3.0)" in page.replace("\n", "")
    assert "triple(-3) has the opposite sign" in page


def test_the_feedback_shows_no_hidden_test_but_what_it_said(course):
    page = (course[1] / "feedback/half/small/small.html").read_text()
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "triple(0) is 9, which is not right." in text
    assert "_engine.call(double, 3)" in text
    assert "_engine.call(double, 5)" not in text
    assert "HIDDEN" not in text
    kept = nbformat.read(course[1] / "autograded/half/small/small.ipynb", 4)
    assert "_engine.call(double, 5)" in json.dumps(kept)  # for the teacher


def test_the_feedback_names_the_student_and_the_tasks_and_no_zero_that_nobody_gave(course):
    page = (course[1] / "feedback/Ada Lovelace/small/small.html").read_text()
    head = page[: page.index('id="notebook"')]
    words = " ".join(re.sub(r"<[^>]+>", " ", head[head.index("<h4>") :]).split())
    assert words.startswith("Small · Ada Lovelace (Score: 5.0 / 9.0)")
    assert "Task 1 (Score: 2.0 / 2.0) Task 2 (Score: 3.0 / 3.0) Task 3 (not marked yet)" in words
    assert "<title>Small · Ada Lovelace</title>" in head
    assert "Test cell" not in head
    assert page.count("not marked yet") == 2
    page = (course[1] / "feedback/blank/small/small.html").read_text()
    assert "not marked yet" not in page  # there was nothing to mark


def test_marks_given_by_hand_reach_the_table(course, tmp_path):
    out = tmp_path / "grades"
    shutil.copytree(course[1], out)
    with Gradebook(f"sqlite:///{out / 'gradebook.db'}", release.COURSE) as gradebook:
        mark = gradebook.find_grade("open", "small", "small", "Ada Lovelace")
        mark.manual_score, mark.needs_manual_grade = 3, False
        gradebook.db.commit()
    grade.tabulate(out)
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert (rows["Ada Lovelace"]["points"], rows["Ada Lovelace"]["to_mark"]) == ("8", "0")
    assert rows["half"]["points"] == "3"
    assert rows["crash"]["note"] == course[0]["crash"]["note"]
    page = (out / "feedback/Ada Lovelace/small/small.html").read_text()
    assert "(Score: 3.0 / 4.0)" in page.replace("\n", "")


def test_the_kernel_sees_no_more_than_it_needs(tmp_path):
    import cage
    import sandbox

    notebook = new_notebook(
        cells=[
            new_code_cell("import glob, os, course_utils; print(sorted(os.listdir('/')))"),
            new_code_cell("print(os.path.exists(course_utils.__file__), dict(os.environ))"),
            new_code_cell(f"print(os.path.exists({str(ROOT / 'notebooks')!r}))"),
            new_code_cell(
                "import subprocess\nprint(subprocess.call(['unshare', '-U', 'true'], stderr=-3))"
            ),
            new_code_cell(
                "from course_utils.datasets import data_file\nprint(data_file('SHA256'))"
            ),
            new_code_cell(f"print(os.listdir({str(ROOT / 'data/build')!r}))"),
            new_code_cell(
                f"for f in glob.glob({str(ROOT / 'course_utils/labs/*/checks*.py')!r}):\n"
                "    print(open(f).readline())"
            ),
        ]
    )
    path = tmp_path / "look.ipynb"
    nbformat.write(notebook, path)
    secret = {**os.environ, "TOKEN": "very secret"}
    command = [sys.executable, sandbox.__file__, str(path), "30", "90", "4"]
    subprocess.run(command, env=secret, check=True, capture_output=True)
    cells = nbformat.read(path, 4).cells
    said = ["".join(o.get("text", "") for o in cell.outputs) for cell in cells]
    assert "home" not in said[0]
    assert said[1].startswith("True")
    assert "very secret" not in said[1]
    assert said[2] == "False\n"
    if cage.locks():  # no namespace in which it would be root
        assert said[3] == "1\n"
    assert any("ships no file" in o.get("evalue", "") for o in cells[4].outputs)  # data is there
    assert said[5] == "[]\n"  # and not the scripts that know the labs' defects
    checks = len(list((ROOT / "course_utils/labs").glob("*/checks*.py")))
    assert said[6].count('"""What stands in for a lab\'s checks') == checks >= 7


def test_a_busy_machine_does_not_end_a_notebook_that_the_sandbox_would_let_run(
    tmp_path, monkeypatch
):
    import sandbox

    def run(command, timeout, **options):
        assert timeout > sandbox.BUSY * 900  # seconds that 900 of its own may take

    monkeypatch.setattr(grade.subprocess, "run", run)
    grade.execute(new_notebook(), tmp_path, (90, 900, 6))


@pytest.mark.parametrize("which", ["labs", "handed in", "graded"])
@pytest.mark.parametrize("by", ["path", "link"])
def test_nothing_is_run_where_students_code_would_see_the_solutions_or_others_work(
    tmp_path, monkeypatch, which, by
):
    seen = tmp_path / "prefix"  # of Python, as /usr is where the course is in /usr/src/app
    folders = {name: tmp_path / name for name in ("labs", "handed in", "graded")}
    folders[which] = seen / "src" / which
    for folder in folders.values():
        folder.mkdir(parents=True)
    if by == "link":
        (tmp_path / "link").symlink_to(folders[which])
        folders[which] = tmp_path / "link"
    monkeypatch.setattr(sys, "base_prefix", str(seen))
    monkeypatch.setattr(release, "LABS", folders["labs"])
    with pytest.raises(ValueError, match="which students' code can read"):
        grade.grade(folders["handed in"], folders["graded"])


def test_without_a_sandbox_nothing_is_run(monkeypatch, tmp_path):
    import cage

    monkeypatch.setattr(cage.shutil, "which", lambda program: None)
    (tmp_path / "handed in").mkdir()
    with pytest.raises(RuntimeError, match="install bubblewrap"):
        grade.grade(tmp_path / "handed in", tmp_path / "grades")
    assert not (tmp_path / "grades").exists()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "no notebooks"),
    ],
)
def test_a_folder_without_notebooks_is_refused_with_a_sentence(tmp_path, make, word, monkeypatch):
    make(tmp_path / "handed in")
    monkeypatch.setattr(sys, "argv", ["grade.py", str(tmp_path / "handed in")])
    with pytest.raises(SystemExit, match=f"Nothing was graded: .*{word}"):
        grade.main()
    assert not (tmp_path / "handed in-graded").exists()


# ------------------------------------------------------------------ a real lab, by real commands


def solved(notebook):
    """The answers of the reference solution without its markers, as a student might write them."""
    answers = {}
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution"):
            lines = [line for line in cell.source.splitlines() if "### " not in line]
            answers[marks["grade_id"]] = "\n".join(lines)
    return answers


@pytest.mark.slow
def test_a_lab_from_release_to_grades(tmp_path):
    lab = "occlusion"
    source = nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4)
    run = [sys.executable, TOOLS / "release.py", tmp_path / "released"]
    subprocess.run(run, check=True, capture_output=True)
    blank = nbformat.read(tmp_path / "released" / lab / f"{lab}.ipynb", 4)
    solutions = solved(source)
    cells = [cell.metadata.get("nbgrader", {}) for cell in source.cells]
    order = [marks["grade_id"] for marks in cells if marks.get("solution") or marks.get("grade")]
    points = {marks["grade_id"]: marks["points"] for marks in cells if marks.get("grade")}
    tests = [i for i in order if i in points and i not in solutions]
    first_half = order[: order.index(tests[len(tests) // 2 - 1])]
    first_answer = next(i for i in order if i in solutions)
    head = solutions[first_answer].split("\n")[0]
    patch = "for _n in dir(checks): setattr(checks, _n, lambda *a, **k: None)"
    students = {
        "perfect": solutions,
        "half": {i: solutions[i] for i in first_half if i in solutions},
        "empty": {},
        "malicious": {first_answer: f"import os\n{patch}\nos.remove('/work')\nos._exit(1)"},
        "slow": solutions | {first_answer: f"{head}\n    while True:\n        pass"},
    }
    for student, answers in students.items():
        path = tmp_path / "week 3" / student / f"{lab}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(answered(blank, **answers), path)
    run = [sys.executable, TOOLS / "grade.py", tmp_path / "week 3", "--seconds", "40"]
    subprocess.run(run, check=True, capture_output=True)
    out = tmp_path / "week 3-graded"
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        table = {row["student"]: row for row in csv.DictReader(file)}
    got = {student: float(row["points"]) for student, row in table.items()}
    graded = sum(points[i] for i in tests)
    half = sum(points[i] for i in tests if i in order[: len(first_half) + 1])
    lost = points[next(i for i in tests)]
    assert got == {
        "perfect": graded,
        "half": half,
        "empty": 0,
        "malicious": 0,
        "slow": graded - lost,
    }
    assert {row["of"] for row in table.values()} == {"20"}
    assert table["perfect"]["to_mark"] == "4"
    assert "had run for 40 seconds" in table["slow"]["note"]
    for student in students:
        page = (out / "feedback" / student / lab / f"{lab}.html").read_text()
        assert not re.search("HIDDEN|KEYS", page)
