"""Grading goes on where it was left off, keeps what a teacher marked, and loses no point.

The notebooks are executed here in this process, for they are ours; test_grading.py has the cage.
"""

import csv
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks/labs/tools"))

import grade  # noqa: E402
import points  # noqa: E402
import release  # noqa: E402


def marked(cell, grade_id, points=None, solution=False):
    """A cell with nbgrader's metadata."""
    mark = {"grade": points is not None, "grade_id": grade_id, "locked": not solution}
    mark |= {"schema_version": 3, "solution": solution, "task": False}
    cell.metadata["nbgrader"] = mark | ({"points": points} if points is not None else {})
    return cell


def lab():
    """Two tasks of 2 points, and an open question of 4."""
    imports = "from types import SimpleNamespace as Names\nlabs = Names(variant=print)"
    imports += "\nlabs.variant(0)"
    cells = [new_markdown_cell("# Lab: Small"), marked(new_code_cell(imports), "imports")]
    for name, factor in (("double", 2), ("triple", 3)):
        stub = (
            f"def {name}(x):\n    ### BEGIN SOLUTION\n    return {factor} * x\n    ### END SOLUTION"
        )
        cells += [
            new_markdown_cell(f"## Task {name}"),
            marked(new_code_cell(stub), name, solution=True),
            marked(new_code_cell(f"assert {name}(5) == {5 * factor}"), f"{name}_test", 2),
        ]
    cells += [new_markdown_cell("## Why?"), marked(new_markdown_cell("..."), "why", 4, True)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return new_notebook(cells=cells, metadata=kernel)


def run_here(notebook, folder, limits):
    """Execute a notebook in this process."""
    names = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            try:
                exec(cell.source, names)
            except Exception as error:
                name = type(error).__name__
                cell.outputs = [new_output("error", ename=name, evalue="", traceback=[name])]
    return notebook


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A folder with three students' work, graded once, and what students got."""
    top = tmp_path_factory.mktemp("course")
    (top / "labs/small").mkdir(parents=True)
    nbformat.write(lab(), top / "labs/small/small.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "LABS", top / "labs")
        patch.setattr(grade, "CELLS", 4)
        patch.setattr(grade.sandbox, "needed", lambda: None)
        patch.setattr(grade, "execute", run_here)
        blank = release.release(top / "released") / "small/small.ipynb"
        for student in ("Ann", "Bo", "Cy"):
            hand_in(top, student, nbformat.read(blank, 4))
        said = []
        grade.grade(top / "in", top / "out", jobs=1, say=said.append)
        yield top, blank, said


@pytest.fixture
def course(graded, tmp_path, monkeypatch):
    """A copy of that, whose executions are counted."""
    top = tmp_path / "course"
    shutil.copytree(graded[0], top)
    runs = []

    def counted(notebook, folder, limits):
        runs.append(notebook)
        return run_here(notebook, folder, limits)

    monkeypatch.setattr(grade, "execute", counted)
    return top, nbformat.read(graded[1], 4), runs


def hand_in(top, student, blank, double="return 2 * x", why="Because it is."):
    notebook = nbformat.from_dict(blank)
    for cell in notebook.cells:
        task = cell.metadata.get("nbgrader", {}).get("grade_id")
        if task in ("double", "triple"):
            answer = double if task == "double" else "return 3 * x"
            cell.source = f"def {task}(x):\n    {answer}"
        elif task == "why":
            cell.source = why
    (top / "in" / student).mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, top / "in" / student / "small.ipynb")


def again(top, folder="in", **options):
    options = {"jobs": 1, "say": lambda line: None, **options}
    rows = grade.grade(top / folder, top / "out", **options)
    return {row["student"]: row for row in rows}


def table(top, name="grades.csv"):
    return (top / "out" / name).read_text(encoding="utf-8-sig")


def give(top, student, score, task="why"):
    """Mark a task by hand, as formgrader does."""
    with points.open_gradebook(top / "out") as gradebook:
        mark = gradebook.find_grade(task, "small", "small", student)
        mark.manual_score, mark.needs_manual_grade = score, False
        gradebook.find_comment("why", "small", "small", student).manual_comment = "Well said."
        gradebook.db.commit()


def test_it_says_who_is_there_before_anything_runs(graded):
    assert graded[2][0] == "3 students, 3 notebooks, 0 without"
    assert len(graded[2]) == 4


def test_the_same_folder_gives_the_same_tables_and_runs_nothing(course):
    top, _, runs = course
    before = [table(top, name) for name in ("grades.csv", "tasks.csv", "files.csv")]
    again(top)
    assert runs == []
    assert before == [table(top, name) for name in ("grades.csv", "tasks.csv", "files.csv")]
    again(top, again=True)
    assert len(runs) == 3
    assert before == [table(top, name) for name in ("grades.csv", "tasks.csv", "files.csv")]
    assert again(top, seconds=91)  # other limits: what was stopped may not be now
    assert len(runs) == 6


def test_one_late_notebook_is_run_alone(course):
    top, blank, runs = course
    give(top, "Ann", 3)
    hand_in(top, "Di", blank)
    rows = again(top)
    assert len(runs) == 1
    assert {student: row["points"] for student, row in rows.items()} == {
        "Ann": 7,
        "Bo": 4,
        "Cy": 4,
        "Di": 4,
    }
    assert (rows["Ann"]["to_mark"], rows["Di"]["to_mark"]) == (0, 4)
    assert "in,Di" not in table(top)


def test_a_late_notebook_in_a_folder_of_its_own_leaves_the_others_in_the_table(course):
    top, blank, runs = course
    hand_in(top / "late", "Di", blank)
    rows = again(top, "late/in")
    assert len(runs) == 1
    assert sorted(rows) == ["Ann", "Bo", "Cy", "Di"]
    assert all(row["points"] == 4 for row in rows.values())
    assert "graded before" in rows["Ann"]["note"]
    assert "Ann/small.ipynb" in table(top, "files.csv")


def test_a_changed_answer_is_to_mark_again_and_the_others_keep_their_marks(course):
    top, blank, _ = course
    give(top, "Ann", 3)
    give(top, "Bo", 2)
    hand_in(top, "Ann", blank, why="On reflection, because it must be.")
    hand_in(top, "Bo", blank, double="return x + x")
    rows = again(top)
    assert (rows["Ann"]["points"], rows["Ann"]["to_mark"]) == (4, 4)
    assert "why was changed after you had marked it" in rows["Ann"]["note"]
    assert again(top)["Ann"]["note"] == rows["Ann"]["note"]  # until it is marked again
    assert (rows["Bo"]["points"], rows["Bo"]["to_mark"]) == (6, 0)
    with points.open_gradebook(top / "out") as gradebook:
        for student, waits in (("Ann", True), ("Bo", False)):
            mark = gradebook.find_grade("why", "small", "small", student)
            assert mark.needs_manual_grade == waits
            assert gradebook.find_comment("why", "small", "small", student).comment == "Well said."
    give(top, "Ann", 4)
    assert (again(top)["Ann"]["points"], again(top)["Ann"]["note"]) == (8, "")
    assert "Bo,small,6" in table(top)


def test_points_given_for_code_stay_as_long_as_the_code(course):
    top, blank, _ = course
    hand_in(top, "Ann", blank, double="return 3")
    assert again(top)["Ann"]["points"] == 2
    give(top, "Ann", 1, "double_test")
    hand_in(top, "Ann", blank, double="return 3", why="Because.")
    assert again(top)["Ann"]["points"] == 3
    hand_in(top, "Ann", blank, double="return 4", why="Because.")
    row = again(top)["Ann"]
    assert row["points"] == 2
    assert "double_test was changed" in row["note"]


class Broken:
    """nbgrader's API with a step that fails."""

    def __init__(self, api, step, how):
        self.api, self.step, self.how = api, step, how

    def __getattr__(self, name):
        return self.how if name == self.step else getattr(self.api, name)


def fail(*args):
    raise OSError("the disk is full")


def says_so(*args):
    return {"success": False, "log": "it broke"}


@pytest.mark.parametrize(
    ("step", "how"),
    [
        ("autograde", fail),
        ("generate_feedback", says_so),
        pytest.param("autograde", says_so, marks=pytest.mark.slow),
        pytest.param("generate_feedback", fail, marks=pytest.mark.slow),
    ],
)
def test_a_step_that_fails_costs_no_point_and_is_taken_again(course, monkeypatch, step, how):
    top, blank, runs = course
    hand_in(top, "Ann", blank, double="return 3")
    generate = release.generate
    with monkeypatch.context() as patch:
        patch.setattr(release, "generate", lambda *args: Broken(generate(*args), step, how))
        rows = again(top)
    assert [rows[student]["points"] for student in ("Ann", "Bo", "Cy")] == [2, 4, 4]
    assert rows["Ann"]["to_mark"] == 4
    assert "could not" in rows["Ann"]["note"]
    assert rows["Bo"]["note"] == ""
    grade.tabulate(top / "out")
    line = next(line for line in table(top).splitlines() if line.startswith("Ann"))
    assert line.startswith("Ann,small,2,8,4")
    assert len(runs) == 1
    rows = again(top)
    assert (rows["Ann"]["points"], rows["Ann"]["note"]) == (2, "")
    assert len(runs) == 1  # the step was taken again, and nothing run
    assert (top / "out/feedback/Ann/small/small.html").is_file()


def test_a_notebook_that_breaks_the_tools_costs_nobody_else_a_point(course, monkeypatch):
    top, blank, _ = course
    hand_in(top, "Ann", blank, double="return 3")
    rebuild = grade.answers.rebuild

    def breaks(source, released, cells):
        if any("return 3\n" in f"{cell.text}\n" for cell in cells):
            raise RecursionError("too deep")
        return rebuild(source, released, cells)

    monkeypatch.setattr(grade.answers, "rebuild", breaks)
    rows = again(top)
    assert [rows[student]["points"] for student in ("Ann", "Bo", "Cy")] == [0, 4, 4]
    assert "RecursionError" in rows["Ann"]["note"]


def test_a_killed_grading_resumes(graded, tmp_path, monkeypatch):
    top = tmp_path / "course"
    shutil.copytree(graded[0] / "in", top / "in")
    runs = []

    def killed_at_the_third(notebook, folder, limits):
        runs.append(notebook)
        if len(runs) == 3:
            raise KeyboardInterrupt
        return run_here(notebook, folder, limits)

    monkeypatch.setattr(grade, "execute", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        again(top)
    assert not (top / "out/grades.csv").exists()
    rows = again(top)
    assert len(runs) == 4  # the first two were not run again
    assert [rows[student]["points"] for student in ("Ann", "Bo", "Cy")] == [4, 4, 4]


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Er"
    "kJggg=="
)


def test_pictures_are_on_the_students_page(course):
    top, blank, _ = course
    hand_in(top, "Ann", blank, why="See ![it](attachment:image.png).")
    path = top / "in/Ann/small.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[-1].attachments = {"image.png": {"image/png": PIXEL}}
    nbformat.write(notebook, path)
    again(top)
    page = (top / "out/feedback/Ann/small/small.html").read_text()
    assert f"data:image/png;base64,{PIXEL}" in page.replace("\n", "")
    assert PIXEL in (top / "out/autograded/Ann/small/small.ipynb").read_text()


def test_every_file_is_named_and_none_is_a_formula(course):
    top, blank, _ = course
    hand_in(top, "+Di", blank)
    (top / "in/+Di/=1+1.txt").write_text("?")
    (top / "in/roster.csv").write_text("?")
    said = []
    rows = again(top, say=said.append)
    assert rows["+Di"]["points"] == 4
    assert "roster.csv" in said[1]
    with (top / "out/files.csv").open(encoding="utf-8-sig", newline="") as file:
        files = {row["file"]: row for row in csv.DictReader(file)}
    assert {"Ann/small.ipynb", "roster.csv"} < set(files)
    assert not any(line.startswith(("+", "=")) for line in table(top).splitlines())
    grade.tabulate(top / "out")
    assert "'+Di,small,4" in table(top)


def test_what_was_handed_out_with_another_number_than_is_graded_is_noted(course):
    top, blank, _ = course
    hand_in(top, "Dee", release.with_variant(blank, 2))
    unmarked = nbformat.from_dict(blank)
    for cell in unmarked.cells:
        cell.metadata.pop("nbgrader", None)
    nbformat.write(unmarked, top / "in" / "Bo" / "small.ipynb")
    notes = {student: row["note"] for student, row in again(top, variants=2).items()}
    assert "handed out as number 0, and graded as number 2" in notes["Ann"]
    assert "handed out as number 0, and graded as number 2" in notes["Bo"]
    assert "number" not in notes["Dee"]
    rows = again(top, variants={"Ann": 0})
    notes = {student: row["note"] for student, row in rows.items()}
    assert "number" not in notes["Ann"]
    assert "handed out as number 2, and graded as number 0" in notes["Dee"]
