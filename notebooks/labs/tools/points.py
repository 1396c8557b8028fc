"""What nbgrader is asked for, and what its gradebook knows: points, marks by hand, pages.

No step's failure costs a point, and a mark that a teacher gave stays with the answer it was for.
"""

import os

import nbformat
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.utils import determine_grade

import pages
from release import COURSE


def open_gradebook(out):
    """The gradebook in the folder of the results, for a with statement."""
    return Gradebook(f"sqlite:///{out.resolve() / 'gradebook.db'}", COURSE)


def place_of(out, student, lab):
    """Where a student's executed notebook is kept, for nbgrader to grade."""
    return out / "submitted" / student / lab / f"{lab}.ipynb"


def write(path, text):
    """Write a file in one step, so that a killed grading leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}")
    made.write_text(text, encoding="utf-8")
    os.replace(made, path)


def mark(api, out, submission, notebook):
    """Give a notebook to nbgrader; returns notes on what failed, and on marks that are void."""
    lab, student = submission.lab, submission.student
    failures, changed, kept = [], [], {}

    def step(what, function, *args):
        try:
            result = function(*args) or {"success": True}
            trouble = "" if result["success"] else result.get("error") or result.get("log") or "?"
        except Exception as error:  # whatever nbgrader may do
            trouble = f"{type(error).__name__}: {error}"
        if trouble:
            failures.append(f"{what} ({trouble.strip()[-200:]})")
        return not trouble

    step("marks by hand could not be compared", compare, out, submission, notebook, kept, changed)
    step("it could not be stored", write, place_of(out, student, lab), nbformat.writes(notebook))
    if step("nbgrader could not grade it", api.autograde, lab, student):
        step("marks by hand could not be kept", keep, out, submission, kept)
    else:
        step("its points could not be kept", save, out, submission, notebook)
    step("its page could not be made", pages.feedback, api, lab, student)
    return failures, changed


def compare(out, submission, notebook, kept, changed):
    """Put into `kept` the marks that a teacher gave to answers that are still the same.

    The others, for answers that have changed since, are taken back, and `changed` says which.
    """
    student, lab = submission.student, submission.lab
    if not place_of(out, student, lab).is_file():
        return
    old, new = parts(nbformat.read(place_of(out, student, lab), 4)), parts(notebook)
    with open_gradebook(out) as gradebook:
        try:
            grades = gradebook.find_submission_notebook(lab, lab, student).grades
        except MissingEntry:  # it never came so far
            return
        for given in grades:
            task = given.cell.name
            if given.manual_score is None:
                continue
            if old.get(task) == new.get(task):
                kept[task] = given.needs_manual_grade
            else:
                given.manual_score, given.needs_manual_grade = None, True
                changed.append(f"{task} was changed after you had marked it")
        gradebook.db.commit()


def parts(notebook):
    """What the points of each task depend on: an open answer, or the cells up to a test."""
    found, since = {}, []
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        since.append((cell.source, cell.get("attachments", {})))
        if mark.get("grade"):
            found[mark["grade_id"]] = since[-1:] if mark.get("solution") else since
            since = []
    return found


def keep(out, submission, kept):
    """Let marks by hand stand as they were; nbgrader wants all of them looked at again."""
    lab = submission.lab
    with open_gradebook(out) as gradebook:
        for task, waits in kept.items():
            given = gradebook.find_grade(task, lab, lab, submission.student)
            given.needs_manual_grade = waits
        gradebook.db.commit()


def save(out, submission, notebook):
    """Write the points of an executed notebook to the gradebook, as nbgrader would."""
    lab, student = submission.lab, submission.student
    with open_gradebook(out) as gradebook:
        gradebook.update_or_create_student(student)
        gradebook.update_or_create_submission(lab, student)
        for cell in notebook.cells:
            task = cell.metadata.get("nbgrader", {})
            if task.get("grade"):
                task["checksum"] = gradebook.find_source_cell(task["grade_id"], lab, lab).checksum
                given = gradebook.find_grade(task["grade_id"], lab, lab, student)
                given.auto_score, _ = determine_grade(cell)
                given.needs_manual_grade = given.auto_score is None and given.manual_score is None
        gradebook.db.commit()


def count(row, notebook):
    """Add to a row of the table the points of an executed notebook, without the gradebook."""
    row |= {"points": 0, "of": 0, "to_mark": 0, "tasks": []}
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade"):
            points, most = determine_grade(cell)
            add_task(row, mark["grade_id"], points or 0, most, points is None)


def add(row, out):
    """Add to a row of the table what the gradebook in `out` knows of its points."""
    student, lab = row["student"], row["lab"]
    with open_gradebook(out) as gradebook:
        graded = gradebook.find_submission_notebook(lab, lab, student)
        row |= {"points": 0, "of": 0, "to_mark": 0, "tasks": []}
        for mark in sorted(graded.grades, key=lambda grade: grade.cell.name):
            waits = mark.needs_manual_grade and mark.manual_score is None
            add_task(row, mark.cell.name, mark.score, mark.max_score, waits)


def add_task(row, task, points, most, waits):
    """Add a task and its points to a row of the table."""
    line = {"student": row["student"], "lab": row["lab"], "task": task}
    line |= {"points": points, "of": most, "to_mark": waits * most}
    row["tasks"].append(line)
    for column in ("points", "of", "to_mark"):
        row[column] += line[column]
