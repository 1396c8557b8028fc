"""Write the notebooks that students get: no solutions, no hidden tests, no outputs.

    python notebooks/labs/tools/release.py [folder]      (make labs; the folder is _build/labs)

With --variant NUMBER (make labs SEED=number) the defects to find are others, which the number
draws; with --roster FILE (PER_STUDENT=roster.csv) they are others for each student, who has a
folder, and variants.csv says whose are which: grading needs it.

The work is nbgrader's; here is only what it has to know of this repository.
"""

import argparse
import csv
import re
import shutil
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import nbformat
import nbgrader.api
from alembic.script import ScriptDirectory
from nbgrader import dbutil
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

LABS = Path(__file__).resolve().parents[1]
COURSE = "opening-the-black-box"
STUDENT = LABS.parents[1] / "_build" / "labs"
CHAPTERS = LABS.parent
# A link that does not name a host or a place on its own page: its text, and where it leads.
RELATIVE = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!\w+:|#)([^)\s#]+)[^)\s]*\)")


def version_of_tables():
    """The version of nbgrader's tables, for which it would start a program of three seconds."""
    return ScriptDirectory(dbutil.ALEMBIC_DIR).get_current_head()


nbgrader.api.get_alembic_version = version_of_tables


def names():
    """The names of the labs, each that of a folder and of the notebook in it."""
    return sorted(path.stem for path in LABS.glob("*/*.ipynb") if path.stem == path.parent.name)


def course(folder):
    """Return nbgrader's API on a course, whose folder holds source, release, submitted, ..."""
    config = Config()
    config.CourseDirectory.root = str(Path(folder).resolve())
    config.CourseDirectory.course_id = COURSE
    config.NbGraderAPI.log_level = "ERROR"
    return NbGraderAPI(CourseDirectory(config=config), config=config)


def generate(folder, labs):
    """Let nbgrader release labs inside a course's folder; returns its API, with a gradebook."""
    api = course(folder)
    for lab in labs:
        source = Path(folder) / "source" / lab
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        text = (LABS / lab / f"{lab}.ipynb").read_text(encoding="utf-8")
        text = text.replace("](../../", "](../chapters/")  # where `write` puts them
        (source / f"{lab}.ipynb").write_text(text, encoding="utf-8")
        result = api.generate_assignment(lab)
        if not result["success"]:
            raise RuntimeError(f"nbgrader could not release the lab {lab!r}:\n{result['log']}")
    return api


def with_variant(notebook, number):
    """A copy of a lab's notebook whose defects are those of a variant."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "imports":
            cell.source = re.sub(
                r"(?m)^labs\.variant\(\d+\)", f"labs.variant({number})", cell.source
            )
    return notebook


def number_in(cells):
    """The number of the variant that a student's cells bear, or None where they bear none.

    It stands in the cell with the mark "imports"; in any, where the marks are lost.
    """
    marked = [cell for cell in cells if cell.grade_id == "imports"]
    for cell in marked or [cell for cell in cells if cell.kind == "code"]:
        found = re.search(r"(?m)^labs\.variant\(([0-9]{1,9})\)", cell.text)
        if found:
            return int(found[1])
    return None


def release(folder=STUDENT, labs=None, variants=None):
    """Write `folder`/NAME/NAME.ipynb for each lab, and `folder`/labs.zip with all of them.

    Beside them is `folder`/chapters, with the chapters that they follow.

    `variants` is {a folder within: the number of its variant}; without it, there is one, 0.
    """
    folder = Path(folder)
    labs = labs or names()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        generate(scratch, labs)
        made = {lab: Path(scratch) / "release" / lab / f"{lab}.ipynb" for lab in labs}
        made = {lab: nbformat.read(path, 4) for lab, path in made.items()}
        for place, number in (variants or {"": 0}).items():
            write(folder / place, {lab: with_variant(made[lab], number) for lab in labs})
    return folder


def write(folder, notebooks):
    """Write notebooks, each in a folder of its name, and all of them in one archive.

    The chapters that they lead to come with them, in a folder of their own.
    """
    files = {f"{lab}/{lab}.ipynb": notebook for lab, notebook in notebooks.items()}
    files |= {f"chapters/{name}": chapter for name, chapter in chapters(notebooks.values()).items()}
    with zipfile.ZipFile(folder / "labs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, notebook in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, folder / name)
            archive.write(folder / name, f"labs/{name}")


def chapters(notebooks):
    """The chapters that labs lead to, {file name: notebook}; their links lead to each other only.

    A link to a page that is not handed out becomes its text.
    """
    sources = "\n".join(cell.source for notebook in notebooks for cell in notebook.cells)
    names = {Path(link).name for _, link in RELATIVE.findall(sources) if "../chapters/" in link}
    found = {name: nbformat.read(CHAPTERS / name, 4) for name in sorted(names)}
    for chapter in found.values():
        for cell in chapter.cells:
            if cell.cell_type == "markdown":
                cell.source = RELATIVE.sub(lambda m: m[0] if m[2] in names else m[1], cell.source)
    return found


def for_each(roster, seed):
    """The variants of the students in a table: {name: number}, one after the other.

    A name is what stands in the column `student` or `name`, or in the only one. Raises ValueError
    where two are alike, one is missing, or several columns may hold them.
    """
    head, *rows = table(roster) or [[]]
    titles = [title.lower() for title in head]
    column = next((titles.index(t) for t in ("student", "name") if t in titles), None)
    if column is None:
        column, rows = 0, [head, *rows]
        if any(any(row[1:]) for row in rows):
            raise ValueError(f"{roster} has several columns: call the one of the names student.")
    students = ["".join(row[column : column + 1]) for row in rows]
    if not all(students) or not students:
        raise ValueError(f"{roster} should have a line, with a name, for each student.")
    if len({folder_of(student).casefold() for student in students}) < len(students):
        raise ValueError(f"two students in {roster} have the same name.")
    return {student: seed * 1000 + place for place, student in enumerate(students, 1)}


def table(path):
    """The rows of a table that are not empty; its first line tells what parts the columns."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8: save it anew as a CSV file in UTF-8.") from None
    lines = text.splitlines(keepends=True)
    first = next(filter(str.strip, lines), "")
    # Where there is one column, a name may have a comma in it.
    parts = max("\t;,", key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=parts)]
    return [row for row in rows if any(row)]


def variant_of(student, variants):
    """The number of a student's variant, or None where the table has no such student."""
    if not isinstance(variants, dict):
        return variants
    alike = {folder_of(name).casefold(): number for name, number in variants.items()}
    return alike.get(folder_of(student).casefold())


def read_variants(path):
    """The table of variants that `main` writes: {student: number}. Raises ValueError."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            found = {row["student"]: int(row["variant"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, TypeError, ValueError):
        found = {}
    if not found:
        raise ValueError(f"{path} is no table of variants, as make labs writes it.")
    return found


def folder_of(student):
    """A student's name as that of a folder."""
    student = unicodedata.normalize("NFC", student)
    return re.sub(r"[^\w.-]+", "_", student).strip("._") or "student"


def main():
    """Read the command line, write the notebooks, and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=STUDENT, help="where they go")
    parser.add_argument("--variant", type=int, default=0, help="the number that draws the defects")
    parser.add_argument("--roster", type=Path, help="a table with a line for each student")
    options = parser.parse_args()
    if not options.roster:
        folder = release(options.folder, variants={"": options.variant})
        print(f"The students' notebooks are in {folder}, and labs.zip holds them all.")
        return
    try:
        numbers = for_each(options.roster, options.variant)
    except (OSError, ValueError) as error:
        sys.exit(f"Nothing was written: {error}")
    folders = {folder_of(student): number for student, number in numbers.items()}
    folder = release(options.folder / "each", variants=folders)
    with (folder / "variants.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("student", "variant"), *numbers.items()])
    print(f"Each student's notebooks are in a folder of their name in {folder}.")
    print(
        f"Keep {folder / 'variants.csv'}: make grade VARIANTS={folder / 'variants.csv'} needs it."
    )


if __name__ == "__main__":
    main()
