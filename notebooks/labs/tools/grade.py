"""Grade a folder of students' notebooks: a table, and a page of feedback for each of them.

    python notebooks/labs/tools/grade.py SUBMITTED [--out FOLDER] [--seconds 90] [--memory 6]

(make grade SUBMITTED=folder). SUBMITTED is what a learning platform let you download, or a folder
for each student, or the notebooks themselves with the students' names (collect.py).

Each notebook is put together anew from the lab's own, with the student's answers (answers.py). It
is executed by sandbox.py in a process of its own, where another (judge.py) runs the tests, and
cleaned by clean.py; nbgrader then gives the points and pages.py the feedback. look.py says what a
teacher should look at, exports.py and class_page.py hand on what came out. What was graded before,
and has not changed since, is not run again.
"""

import argparse
import contextlib
import csv
import datetime
import hashlib
import io
import json
import math
import re
import subprocess
import sys
import tempfile
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbgrader.preprocessors import (
    CheckCellMetadata,
    DeduplicateIds,
    LimitOutput,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)

sys.path.insert(0, str(Path(__file__).resolve().parent))
import answers
import cage
import class_page
import clean
import collect
import exports
import look
import pages
import points
import release
import sandbox
import unpack

COURSE = release.COURSE
# Where a spreadsheet would begin to calculate; some end a cell at a semicolon.
FORMULA = re.compile(r"(?:^|;)[\s\u200b-\u200f\u202a-\u202e\u2060\ufeff]*(?=[-=+@－＝＋＠])")
LINE_ENDS = ("Cc", "Zl", "Zp")
CELL = 10_000  # characters of a text in a table: csv reads no cell of over 131,072
SANITIZE = [DeduplicateIds, OverwriteKernelspec, OverwriteCells, CheckCellMetadata]
POINTS = [LimitOutput, SaveAutoGrades, CheckCellMetadata]  # and not Execute, which has no cage
CELLS = 6  # a notebook belongs to the lab that it shares at least so many cells with
# For formgrader, where open questions are marked: make formgrade GRADED=folder.
CONFIG = f"""c = get_config()
c.CourseDirectory.root = "."
c.CourseDirectory.course_id = {COURSE!r}
c.Autograde.sanitize_preprocessors = {[f"nbgrader.preprocessors.{p.__name__}" for p in SANITIZE]}
c.Autograde.autograde_preprocessors = {[f"nbgrader.preprocessors.{p.__name__}" for p in POINTS]}
"""
ROW = ["student", "lab", "points", "of", "to_mark", "late", "note", "look_at", "upload_id"]
TASK = ["student", "lab", "task", "points", "of", "to_mark"]
FILE = ["student", "lab", "file", "what"]
PAIR = ["lab", "student", "and", "alike", "of", "tasks"]


def execute(notebook, folder, limits):
    """Return `notebook` as it is after a process of its own has executed it.

    `limits` are the seconds of a cell, the seconds of all, and the gigabytes. Raises
    SubprocessError, OSError or ValueError where that fails.
    """
    with tempfile.NamedTemporaryFile("w+", suffix=".ipynb", dir=folder, encoding="utf-8") as file:
        nbformat.write(notebook, file.name)
        command = [sys.executable, sandbox.__file__, file.name, *map(str, limits)]
        # The sandbox keeps to the limits; waiting for a busy processor does not count there.
        longest = sandbox.BUSY * limits[1] + 300
        subprocess.run(command, timeout=longest, capture_output=True, check=True)
        return clean.notebook(nbformat.read(file.name, 4))


def refused(notebook, sentence):
    """A notebook whose tests all have an error for their output."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            cell.outputs = []
            sandbox.stop(cell, sentence)
    return clean.notebook(notebook)


def gather(submitted, out):
    """Everything that was handed in, as `unpack.File`s; raises ValueError if there is nothing."""
    if not submitted.is_dir() and submitted.suffix.lower() != ".zip":
        raise ValueError(f"there is no folder {submitted}. Name the folder of what was handed in.")
    if out.resolve().is_relative_to(submitted.resolve()):
        raise ValueError("the grades must not go into the folder of what was handed in.")
    found = list(unpack.files(submitted))
    if not any(f.cells is not None or ".ipynb" in f.place[-1].lower() for f in found):
        raise ValueError(f"there are no notebooks in {submitted}.")
    return found


def grade(
    submitted,
    out,
    *,
    seconds=90,
    memory=6.0,
    jobs=2,
    again=False,
    deadline=None,
    variants=0,
    say=print,
):
    """Grade the notebooks in `submitted`; returns the rows of the table it writes to `out`.

    `variants` is the number of the variant that was handed out, or {student: number}.
    `deadline` is a datetime, from which the minutes are counted that work came late.
    What `out` knows already is not run again, unless `again`. Raises ValueError, before anything
    is run, if there is nothing to grade or if two students could be taken for one.
    """
    sandbox.needed()
    submitted, out = Path(submitted), Path(out)
    cage.hidden(the_labs=release.LABS, what_was_handed_in=submitted, the_grades=out)
    found = gather(submitted, out)
    out.mkdir(parents=True, exist_ok=True)
    labs = release.names()
    api = release.generate(out, labs)
    config = api.config.copy()  # sandbox.py has executed the notebooks, and keeps their outputs
    config.Autograde.sanitize_preprocessors = SANITIZE
    config.Autograde.autograde_preprocessors = POINTS
    api.config = config
    released = {lab: nbformat.read(out / "release" / lab / f"{lab}.ipynb", 4) for lab in labs}
    sources = all_sources()
    (out / "nbgrader_config.py").write_text(CONFIG)
    submissions, files = collect.collect(found, released, CELLS)
    submissions.sort(key=lambda submission: (submission.lab, submission.student))
    announce(submissions, files, say)
    known = {} if again else recorded(out)
    limits = (seconds, 10 * seconds, memory)
    tools = fingerprint(limits)

    def run(submission):
        """The submission with all notes, its executed notebook, and the digest of what was run."""
        if not submission.lab:
            return submission, None, ""
        number = release.variant_of(submission.student, variants)
        lab = sources[submission.lab], released[submission.lab]
        lab = [release.with_variant(notebook, number or 0) for notebook in lab]
        notebook, notes = answers.rebuild(*lab, submission.cells)
        if not submission.cells:
            return submission, refused(notebook, "Nothing could be graded."), ""
        if number is None:
            notes.append("not in the table of variants, and graded as variant 0")
        handed_out = release.number_in(submission.cells)
        if handed_out not in (None, number or 0):
            notes.append(f"handed out as number {handed_out}, and graded as number {number or 0}")
        submission = submission._replace(note="; ".join(filter(None, [submission.note, *notes])))
        cells = [(c.cell_type, c.source, c.get("attachments")) for c in notebook.cells]
        digest = hashlib.sha256(json.dumps([cells, tools]).encode()).hexdigest()
        before = None if again else executed(out, submission, digest)
        try:
            return submission, before or execute(notebook, out, limits), digest
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            sentence = f"The notebook could not be executed ({type(error).__name__})."
            return submission, refused(notebook, sentence), ""

    warnings.filterwarnings("ignore", module="nbgrader")  # of its own use of its database
    rows = []
    pool = ThreadPoolExecutor(jobs)
    try:
        running = {pool.submit(safely, run, submission): submission for submission in submissions}
        for number, future in enumerate(as_completed(running), 1):
            submission, notebook, digest = future.result()
            row = record(api, out, submission, notebook, digest, known)
            row["late"] = late(submission.time, deadline)
            rows.append(row)
            say(f"{number} of {len(submissions)}: {row['student']}, {row['lab']}: {row['points']}")
    finally:
        pool.shutdown(cancel_futures=True)
    rows += earlier(out, rows, submitted.name)
    rows.sort(key=lambda row: (row["lab"], row["student"]))
    pairs = [pair for lab in labs for pair in look_at(out, rows, released[lab], sources[lab], lab)]
    write_tables(out, rows, files, pairs)
    hand_on(out, rows, sources, say)
    return rows


def hand_on(out, rows, sources, say):
    """Write what goes to the platform and to the teacher: import files, a page on the class."""
    titles = class_page.titles_of(sources)
    notebooks = {}
    for row in rows:
        titles.setdefault(row["lab"], row["lab"])  # of a lab that there was once
        for task in row["tasks"]:
            titles.setdefault((row["lab"], task["task"]), task["task"])
        with contextlib.suppress(OSError, ValueError):
            path = points.place_of(out, row["student"], row["lab"])
            notebooks[row["student"], row["lab"]] = nbformat.read(path, 4)
    page = class_page.page(rows, notebooks, titles)
    (out / "class.html").write_text(page, encoding="utf-8")
    safe = [{**row, "student": short(row["student"])} for row in rows]  # from a spreadsheet
    for name in exports.write(out, safe, titles):
        say(f"to import: {out / name}")


def late(time, deadline):
    """The minutes after the deadline, or nothing where there is none or no time is known."""
    if deadline is None or not time:
        return ""
    return max(0, math.ceil((time - deadline.timestamp()) / 60))


def look_at(out, rows, released, source, lab):
    """Say in the rows of a lab what to look at; returns the pairs whose answers are alike."""
    mine = {row["student"]: row for row in rows if row["lab"] == lab}
    notebooks = {}
    for student, row in mine.items():
        told = look.noted(row["note"])
        with contextlib.suppress(OSError, ValueError):
            notebooks[student] = nbformat.read(points.place_of(out, student, lab), 4)
            told += look.strange(notebooks[student]) + look.unheard(notebooks[student])
        row["look_at"] = "; ".join(told)
    told = []
    for one, other, tasks, both in look.alike(notebooks, released, source):
        for student, partner in ((one, other), (other, one)):
            if student in mine:
                sentence = f"{len(tasks)} of {both} answers as {partner}"
                before = mine[student]["look_at"]
                mine[student]["look_at"] = "; ".join(filter(None, [before, sentence]))
        line = lab, one, other, len(tasks), both, ", ".join(tasks)
        told.append(dict(zip(PAIR, line, strict=True)))
    return told


def announce(submissions, files, say):
    """Say who handed in what, before anything is run."""
    students = {submission.student for submission in submissions}
    having = {submission.student for submission in submissions if submission.cells}
    notebooks = sum(bool(submission.cells) for submission in submissions)
    say(f"{len(students)} students, {notebooks} notebooks, {len(students - having)} without")
    if students - having:
        say(f"without: {', '.join(sorted(students - having))}")
    nobodys = [file["file"] for file in files if not file["student"]]
    if nobodys:
        more = f" and {len(nobodys) - 5} more" if nobodys[5:] else ""
        say(f"nobody's, as far as their names tell: {', '.join(nobodys[:5])}{more}")


def safely(run, submission):
    """What `run` gives, or what it gives without the student's cells, and a note on the error."""
    try:
        return run(submission)
    except Exception as error:  # one student's trouble is no other's
        note = f"the notebook could not be run ({type(error).__name__}: {error})"[:300]
        note = "; ".join(filter(None, [submission.note, note]))
        return run(submission._replace(cells=[], note=note))


def fingerprint(limits):
    """What a result depends on besides the notebook: the limits, these tools and the checks."""
    package = Path(find_spec("course_utils").origin).parent
    digest = hashlib.sha256(repr(limits).encode())
    for path in sorted([*Path(__file__).parent.glob("*.py"), *package.rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def executed(out, submission, digest):
    """The notebook as it was executed before, or None if that was another."""
    try:
        notebook = nbformat.read(points.place_of(out, submission.student, submission.lab), 4)
    except (OSError, ValueError):
        return None
    return notebook if notebook.metadata.get("digest") == digest else None


def recorded(out):
    """What the gradebook knows already: {"student/lab": [digest, the notes on changed answers]}."""
    try:
        return json.loads((out / "recorded.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def record(api, out, submission, notebook, digest, known):
    """Have nbgrader give the points and write the feedback; return the row of the table.

    No step's failure costs a point: the row then says which it was, and the step is taken again
    when the folder is graded again. `known` is what `recorded` gives, and is kept up to date.
    """
    lab, student = submission.lab, submission.student
    row = {"student": student, "lab": lab, "points": 0, "of": 0, "to_mark": 0, "tasks": []}
    row |= {"note": submission.note, "look_at": "", "upload_id": submission.upload_id}
    if notebook is None:
        return row
    notes = [submission.note, *sandbox.stops(notebook), *clean.taken_out(notebook)]
    before, changed = known.get(f"{student}/{lab}", ["", []])
    if not digest or before != digest:
        notebook.metadata["digest"] = digest
        failures, changed = points.mark(api, out, submission, notebook)
        notes += failures
        if not failures:
            known[f"{student}/{lab}"] = [digest, changed]
            points.write(out / "recorded.json", json.dumps(known, indent=1))
    try:
        points.add(row, out)
    except Exception:  # the gradebook has none
        points.count(row, notebook)
    notes += changed if row["to_mark"] or before != digest else []
    if not row["points"] + row["to_mark"] and not any(notes):
        notes.append("no test was passed")
    row["note"] = "; ".join(filter(None, notes))
    return row


def earlier(out, rows, folder):
    """Rows of students graded into `out` before, whose work is not in the folder this time."""
    now = {(row["student"], row["lab"]) for row in rows}
    kept = []
    for row in read_table(out / "grades.csv"):
        if row["lab"] and (row["student"], row["lab"]) not in now:
            note = f"graded before, and not in {folder}"
            if note not in row["note"]:
                row["note"] = "; ".join(filter(None, [row["note"], note]))
            try:
                points.add(row, out)
            except Exception:  # it is not in the gradebook
                continue
            kept.append(row)
    return kept


def tabulate(out, say=print):
    """Write the tables and the feedback anew, after open questions were marked in formgrader."""
    out = Path(out)
    if not (out / "grades.csv").is_file():
        raise ValueError(
            f"there is no {out / 'grades.csv'}: grade first, with make grade SUBMITTED=folder."
        )
    rows = [{**row, "tasks": []} for row in read_table(out / "grades.csv")]
    api = release.course(out)
    for row in rows:
        if row["lab"]:
            points.add(row, out)
            pages.feedback(api, row["lab"], row["student"])
    write_tables(out, rows)
    hand_on(out, rows, all_sources(), say)


def all_sources():
    """The labs' own notebooks, by their names."""
    return {lab: nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4) for lab in release.names()}


def read_table(path):
    """The rows of a table that `write_tables` has written, or none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v[1:] if v[:1] == "'" and short(v[1:]) == v else v for k, v in row.items()}
        for row in rows
    ]


def write_tables(out, rows, files=None, pairs=None):
    """Write grades.csv, a line for each notebook, and tasks.csv, files.csv and alike.csv.

    Without `files`, or `pairs`, that table stays as it is.
    """
    tasks = [task for row in rows for task in row["tasks"]]
    tables = {"grades.csv": (ROW, rows), "tasks.csv": (TASK, tasks)}
    if files is not None:
        there = {row["student"] for row in files}
        gone = [row for row in read_table(out / "files.csv") if row["student"] not in there]
        tables["files.csv"] = (FILE, [*files, *gone])
    if pairs is not None:
        tables["alike.csv"] = (PAIR, pairs)
    for name, (columns, lines) in tables.items():
        file = io.StringIO("\ufeff", newline="")  # by which spreadsheets know UTF-8
        file.seek(1)
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows({k: short(v) for k, v in line.items()} for line in lines)
        points.write(out / name, file.getvalue())


def short(value):
    """Points without needless decimals; text as one line that no spreadsheet calculates."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, str):
        return value
    line = "".join(" " if unicodedata.category(c) in LINE_ENDS else c for c in value).strip()
    line = line if len(line) <= CELL else f"{line[:CELL]} …"
    return FORMULA.sub(r"\g<0>'", line)


def main():
    """Read the command line, grade, and say where the results are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = "what was handed in: a folder, or a platform's .zip"
    parser.add_argument("submitted", type=Path, nargs="?", help=what)
    parser.add_argument("--marked", type=Path, help="graded before, and marked by hand since")
    parser.add_argument("--out", type=Path, help="where the results go (beside it: NAME-graded)")
    parser.add_argument("--seconds", type=int, default=90, help="that a cell may run")
    parser.add_argument("--memory", type=float, default=6, help="gigabytes of a notebook")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks executed at a time")
    when = "until when to hand in, such as 2026-11-28T18:00"
    parser.add_argument("--deadline", type=datetime.datetime.fromisoformat, help=when)
    parser.add_argument("--variant", type=int, default=0, help="that was handed out to all")
    parser.add_argument("--variants", type=Path, help="the table of who was given which variant")
    parser.add_argument("--again", action="store_true", help="run all, also what has not changed")
    options = parser.parse_args()
    if (options.submitted is None) == (options.marked is None):
        parser.error("name the folder of what was handed in, or --marked and that of the grades.")
    try:
        if options.marked:
            out = options.marked
            tabulate(out)
        else:
            submitted = options.submitted.resolve()
            out = options.out or submitted.with_name(f"{submitted.stem}-graded")
            limits = {"seconds": options.seconds, "memory": options.memory, "jobs": options.jobs}
            which = options.variant
            if options.variants:
                which = release.read_variants(options.variants)
            marks = {"again": options.again, "deadline": options.deadline, "variants": which}
            grade(submitted, out, **limits, **marks)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"Nothing was graded: {error}")
    print(f"The table is {out / 'grades.csv'}, the tasks are in tasks.csv, the pages in feedback/.")


if __name__ == "__main__":
    main()
