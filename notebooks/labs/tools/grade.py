"""Grade a folder of students' notebooks: a table, and a page of feedback for each of them.

    python notebooks/labs/tools/grade.py SUBMITTED [--out FOLDER] [--seconds 90] [--memory 6]

(make grade SUBMITTED=folder). SUBMITTED holds a folder for each student, with notebooks at any
depth, or the notebooks themselves, each with the student's name in its own. Which lab a notebook
belongs to is told by its cells, so that a file may bear any name.

Each notebook is put together anew from the lab's own: the tests are ours, of the student's cells
those count that stand for an answer or that the student added. It is executed by sandbox.py in a
process of its own; nbgrader then gives the points and writes the feedback.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.api import Gradebook
from nbgrader.preprocessors import (
    CheckCellMetadata,
    DeduplicateIds,
    LimitOutput,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))
import release
import sandbox

COURSE = release.COURSE
LARGEST = 50_000_000  # bytes of a notebook; pictures that students paste in are part of it
SANITIZE = [DeduplicateIds, OverwriteKernelspec, OverwriteCells, CheckCellMetadata]
CELLS = 6  # a notebook belongs to the lab that it shares at least so many cells with
# For formgrader, where open questions are marked: make formgrade GRADED=folder.
CONFIG = f"""c = get_config()
c.CourseDirectory.root = "."
c.CourseDirectory.course_id = {COURSE!r}
"""


class Submission(NamedTuple):
    """One student's notebook for one lab, as it was found."""

    student: str
    lab: str
    cells: list  # of the student's notebook; empty if it cannot be read
    note: str  # what the teacher should know of it


def collect(folder, labs):
    """Return the submissions in a folder, at most one for each student and lab.

    `labs` is a dict from the labs' names to their released notebooks.
    """
    found = defaultdict(list)
    for path in sorted(Path(folder).rglob("*")):
        place = path.relative_to(folder)
        if not path.is_file() or path.is_symlink() or path.suffix.lower() != ".ipynb":
            continue
        if any(part.startswith(".") for part in place.parts):
            continue  # .ipynb_checkpoints and the like
        cells, trouble = read(path)
        lab = lab_of(cells, place, labs)
        student = student_of(place, lab)
        found[student, lab].append((path, cells, trouble))
    for path in sorted(Path(folder).iterdir()):
        if path.is_dir() and not any(student == clean(path.name) for student, _ in found):
            found[clean(path.name), ""].append((path, [], "there is no notebook in this folder"))
    return [choose(student, lab, files, folder) for (student, lab), files in found.items()]


def choose(student, lab, files, folder):
    """The one of a student's notebooks for a lab that counts: readable, by its name, the newest."""
    path, cells, note = max(
        files,
        key=lambda f: (
            not f[2],
            f[0].stem == lab,
            f[0].stat().st_mtime,
            str(f[0]),
        ),
    )
    notes = [note] if note else []
    if files[1:]:
        notes.append(f"of {len(files)} notebooks for this lab, {path.relative_to(folder)} counts")
    elif lab and path.stem != lab:
        notes.append(f"its file is called {path.name}")
    if not lab and not note:
        notes.append(f"{path.relative_to(folder)} belongs to no lab")
    return Submission(student, lab, cells, "; ".join(notes))


def read(path):
    """Return the cells of a notebook as (type, source, grade_id), and what is wrong with it."""
    if path.stat().st_size > LARGEST:
        return [], f"the file has over {LARGEST:,} bytes"
    data = path.read_bytes()
    kind = json.detect_encoding(data)
    text = data.decode("utf-8-sig" if kind == "utf-8" else kind, errors="replace")
    try:
        notebook = json.loads(text)
        if notebook.get("nbformat", 4) < 4:
            notebook = nbformat.convert(nbformat.from_dict(notebook), 4)
        cells = [as_cell(cell) for cell in notebook["cells"]]
    except Exception as error:  # whatever a file may hold
        return [], f"the file is no notebook ({type(error).__name__})"
    damaged = text.count("\ufffd")
    return cells, f"{damaged} of its bytes are not UTF-8" if damaged else ""


def as_cell(cell):
    """A cell's type, source and nbgrader id, whatever else it holds."""
    source = cell.get("source", "")
    source = source if isinstance(source, str) else "".join(map(str, source))
    source = source.encode("utf-8", "replace").decode()  # halves of surrogate pairs
    metadata = cell.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = marks.get("grade_id") if isinstance(marks, dict) else None
    return cell.get("cell_type"), source, grade_id if isinstance(grade_id, str) else None


def lab_of(cells, place, labs):
    """The lab whose cells a notebook has, or else the one that its path names, or ""."""
    have = {source for _, source, _ in cells}
    shared = Counter({lab: len(have & {c.source for c in nb.cells}) for lab, nb in labs.items()})
    lab, count = shared.most_common(1)[0]
    if count >= CELLS:
        return lab
    words = [part.lower().removesuffix(".ipynb") for part in reversed(place.parts)]
    exact = [lab for word in words for lab in labs if word == lab]
    within = [lab for word in words for lab in sorted(labs, key=len)[::-1] if lab in word]
    return (exact + within + [""])[0]


def student_of(place, lab):
    """Who handed a notebook in: the name of the folder, or the file's own without the lab's."""
    if place.parts[1:]:
        return clean(place.parts[0])
    name = re.sub(rf"[\s_.-]*{lab}[\s_.-]*", " ", place.stem) if lab else place.stem
    return clean(name.strip() or place.stem)


def clean(name):
    """A name that can be that of a folder, and that nbgrader takes."""
    return re.sub(r"[^\w .@-]", "_", name).strip(" .") or "unnamed"


def rebuild(source, released, cells):
    """Return the notebook to execute: the lab's own, with a student's answers and own cells.

    `source` is the lab's notebook with all its tests, `released` what students got, whose cells
    stand in for answers that are gone, `cells` the student's. A student's copy of an answer cell
    is a cell of their own, behind the answer.
    """
    blank = {c.metadata.get("nbgrader", {}).get("grade_id"): c.source for c in released.cells}
    marks = [cell.metadata.get("nbgrader", {}) for cell in source.cells]
    texts = {c.source for c in source.cells if c.cell_type == "markdown"}
    keys = {mark.get("grade_id") for mark in marks} - {None}
    answers, added, place = {}, defaultdict(list), None
    for kind, text, grade_id in cells:
        if grade_id in keys and grade_id not in answers:
            answers[grade_id] = text
            place = grade_id
        elif kind == "markdown" and text in texts:
            place = text
        elif kind == "code":
            added[place].append(new_code_cell(text))
        elif kind == "markdown":
            added[place].append(new_markdown_cell(text))
    rebuilt = [*added[None]]
    for cell, mark in zip(source.cells, marks, strict=True):
        if cell.cell_type == "code" and not mark:
            continue  # free code: the student's version of it counts
        key = mark.get("grade_id", cell.source)
        cell = nbformat.from_dict(cell)
        if mark.get("solution"):
            cell.source = answers.get(key, blank[key])
        rebuilt += [cell, *added.pop(key, [])]
    return nbformat.v4.new_notebook(cells=rebuilt, metadata=source.metadata)


def execute(notebook, folder, limits):
    """Return `notebook` as it is after a process of its own has executed it.

    `limits` are the seconds of a cell, the seconds of all, and the gigabytes.
    """
    with tempfile.NamedTemporaryFile("w+", suffix=".ipynb", dir=folder, encoding="utf-8") as file:
        nbformat.write(notebook, file.name)
        command = [sys.executable, sandbox.__file__, file.name, *map(str, limits)]
        try:
            subprocess.run(command, timeout=limits[1] + 300, capture_output=True, check=True)
            return nbformat.read(file.name, 4)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            return refused(notebook, f"The notebook could not be executed: {error}")


def refused(notebook, sentence):
    """A notebook whose tests all have an error for their output."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            cell.outputs = [sandbox.error(sentence)]
    return notebook


def grade(submitted, out, *, seconds=90, memory=6.0, jobs=2, say=print):
    """Grade the notebooks in `submitted`; returns the rows of the table it writes to `out`."""
    sandbox.needed()
    submitted, out = Path(submitted), Path(out)
    if not submitted.is_dir():
        raise ValueError(f"there is no folder {submitted}. Name the folder of what was handed in.")
    if out.resolve().is_relative_to(submitted.resolve()):
        raise ValueError("the grades must not go into the folder of what was handed in.")
    if not any(path.suffix.lower() == ".ipynb" for path in submitted.rglob("*")):
        raise ValueError(f"there are no notebooks in {submitted}.")
    out.mkdir(parents=True, exist_ok=True)
    labs = release.names()
    api = release.generate(out, labs)
    config = api.config.copy()  # sandbox.py has executed the notebooks, and keeps their outputs
    config.Autograde.sanitize_preprocessors = SANITIZE
    config.Autograde.autograde_preprocessors = [LimitOutput, SaveAutoGrades, CheckCellMetadata]
    api.config = config
    released = {lab: nbformat.read(out / "release" / lab / f"{lab}.ipynb", 4) for lab in labs}
    sources = {lab: nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4) for lab in labs}
    (out / "nbgrader_config.py").write_text(CONFIG)
    submissions = sorted(collect(submitted, released), key=lambda s: (s.lab, s.student))

    def run(submission):
        if not submission.lab:
            return None
        notebook = rebuild(sources[submission.lab], released[submission.lab], submission.cells)
        if not submission.cells:
            return refused(notebook, "Nothing could be graded.")
        return execute(notebook, out, (seconds, 10 * seconds, memory))

    warnings.filterwarnings("ignore", module="nbgrader")  # of its own use of its database
    rows = []
    with ThreadPoolExecutor(jobs) as pool:
        executed = pool.map(run, submissions)
        for number, (submission, notebook) in enumerate(zip(submissions, executed, strict=True), 1):
            row = record(api, out, submission, notebook)
            rows.append(row)
            say(f"{number} of {len(submissions)}: {row['student']}, {row['lab']}: {row['points']}")
    write_tables(out, rows)
    return rows


def record(api, out, submission, notebook):
    """Have nbgrader give the points and write the feedback; return the row of the table."""
    lab, student = submission.lab, submission.student
    row = {"student": student, "lab": lab, "points": 0, "of": 0, "to_mark": 0, "tasks": []}
    row["note"] = submission.note
    if notebook is None:
        return row
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    stopped = [o.evalue for o in outputs if o.get("ename") == "Stopped"]
    row["note"] = "; ".join(filter(None, [submission.note, *dict.fromkeys(stopped)]))
    path = out / "submitted" / student / lab / f"{lab}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    for result in (api.autograde(lab, student), api.generate_feedback(lab, student)):
        if not result["success"]:
            trouble = result.get("error") or result.get("log") or "unknown"
            row["note"] = f"{row['note']}; nbgrader failed: {trouble.strip()[-300:]}".strip("; ")
            return row
    return add_points(row, out)


def add_points(row, out):
    """Add to a row of the table what the gradebook in `out` knows of its points."""
    student, lab = row["student"], row["lab"]
    row |= {"points": 0, "of": 0, "to_mark": 0, "tasks": []}
    with Gradebook(f"sqlite:///{out.resolve() / 'gradebook.db'}", COURSE) as gradebook:
        graded = gradebook.find_submission_notebook(lab, lab, student)
        for mark in sorted(graded.grades, key=lambda grade: grade.cell.name):
            waits = mark.needs_manual_grade and mark.manual_score is None
            task = {"student": student, "lab": lab, "task": mark.cell.name}
            task |= {"points": mark.score, "of": mark.max_score, "to_mark": waits * mark.max_score}
            row["tasks"].append(task)
            for column in ("points", "of", "to_mark"):
                row[column] += task[column]
    return row


def tabulate(out):
    """Write the tables and the feedback anew, after open questions were marked in formgrader."""
    path = Path(out) / "grades.csv"
    if not path.is_file():
        raise ValueError(f"there is no {path}: grade first, with make grade SUBMITTED=folder.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [{**row, "tasks": []} for row in csv.DictReader(file)]
    api = release.course(out)
    for row in rows:
        if row["lab"]:
            add_points(row, Path(out))
            api.generate_feedback(row["lab"], row["student"])
    write_tables(Path(out), rows)


def write_tables(out, rows):
    """Write grades.csv, a line for each notebook, and tasks.csv, a line for each task."""
    tables = {
        "grades.csv": (["student", "lab", "points", "of", "to_mark", "note"], rows),
        "tasks.csv": (
            ["student", "lab", "task", "points", "of", "to_mark"],
            [task for row in rows for task in row["tasks"]],
        ),
    }
    for name, (columns, lines) in tables.items():
        with (out / name).open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, columns, extrasaction="ignore")
            table.writeheader()
            table.writerows({k: short(v) for k, v in line.items()} for line in lines)


def short(value):
    """Points without needless decimals; text that no spreadsheet takes for a formula."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") else value


def main():
    """Read the command line, grade, and say where the results are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submitted", type=Path, nargs="?", help="the folder of what was handed in")
    parser.add_argument("--marked", type=Path, help="graded before, and marked by hand since")
    parser.add_argument("--out", type=Path, help="where the results go (beside it: NAME-graded)")
    parser.add_argument("--seconds", type=int, default=90, help="that a cell may run")
    parser.add_argument("--memory", type=float, default=6, help="gigabytes of a notebook")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks executed at a time")
    options = parser.parse_args()
    if (options.submitted is None) == (options.marked is None):
        parser.error("name the folder of what was handed in, or --marked and that of the grades.")
    try:
        if options.marked:
            out = options.marked
            tabulate(out)
        else:
            submitted = options.submitted.resolve()
            out = options.out or submitted.with_name(f"{submitted.name}-graded")
            limits = {"seconds": options.seconds, "memory": options.memory, "jobs": options.jobs}
            grade(submitted, out, **limits)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"Nothing was graded: {error}")
    print(f"The table is {out / 'grades.csv'}, the tasks are in tasks.csv, the pages in feedback/.")


if __name__ == "__main__":
    main()
