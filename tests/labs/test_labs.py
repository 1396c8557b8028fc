"""What every lab keeps to, and what its students get."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbgrader.dbutil import _temp_alembic_ini
from nbgrader.nbgraderformat import MetadataValidator

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks/labs/tools"), str(ROOT / "tests/site")]

import look  # noqa: E402
import pages  # noqa: E402
import release  # noqa: E402
from site_checks import secrets  # noqa: E402

NAMES = release.names()
SOURCES = {name: ROOT / "notebooks/labs" / name / f"{name}.ipynb" for name in NAMES}
each_lab = pytest.mark.parametrize("name", NAMES)
# Running a lab takes a quarter of a minute: one is run each time, as it is handed out, and its
# solution by test_judge.py; all of them with the slow tests.
RUN = [pytest.param(name, marks=[pytest.mark.slow] * (name != "filters")) for name in NAMES]
OPENING = ["**The question.**", "**You will be able to**", "**Time.**", "**It follows**"]
ALLOWED = {"course_utils", "numpy", "matplotlib", "keras", "tensorflow", "sklearn", "skimage"}
ALLOWED |= {"cv2", "scipy", "IPython", "google"} | set(sys.stdlib_module_names)


def cells_of(name):
    return nbformat.read(SOURCES[name], 4).cells


def marks(cell):
    return cell.metadata.get("nbgrader", {})


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = release.release(tmp_path_factory.mktemp("labs"))
    paths = {name: folder / name / f"{name}.ipynb" for name in release.names()}
    return {name: nbformat.read(path, 4) for name, path in paths.items()}, folder


def test_each_lab_is_everywhere_where_a_lab_has_to_be():
    from course_utils import checks

    assert len(NAMES) >= 6
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    prefix = "course_utils.labs."
    rooms = [name.removeprefix(prefix) for name in packages["packages"] if prefix in name]
    table = (ROOT / "book/labs.md").read_text(encoding="utf8")
    assert sorted(checks._LABS) == sorted(rooms) == NAMES
    assert sorted(re.findall(r"\(lab_(\w+)\.md\)", table)) == NAMES
    for name in NAMES:
        assert (ROOT / f"book/lab_{name}.md").read_text() == f"```{{lab}} {name}\n```\n"
        assert (ROOT / f"data/build/lab_{name}.py").is_file()
        assert (ROOT / f"tests/labs/test_{name}.py").is_file()


@each_lab
def test_its_source_is_stripped_and_has_the_common_metadata(name):
    notebook = nbformat.read(SOURCES[name], 4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(c.get("outputs") or c.get("execution_count") for c in notebook.cells)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if marks(cell):
            MetadataValidator().validate_cell(cell)
    ids = [marks(cell)["grade_id"] for cell in notebook.cells if marks(cell)]
    assert len(ids) == len(set(ids))


@each_lab
def test_it_has_five_to_eight_graded_tasks_worth_twenty_points(name):
    graded = [cell for cell in cells_of(name) if marks(cell).get("grade")]
    headings = re.findall(
        r"^## Task (\d) · .+ \((\d+) points?\)$",
        "\n".join(c.source for c in cells_of(name) if c.cell_type == "markdown"),
        re.MULTILINE,
    )
    assert [int(number) for number, _ in headings] == list(range(1, len(headings) + 1))
    assert 5 <= len(headings) <= 8
    assert sum(int(points) for _, points in headings) == 20
    assert sum(marks(cell)["points"] for cell in graded) == 20
    by_hand = [cell for cell in graded if cell.cell_type == "markdown"]
    assert [marks(cell)["points"] for cell in by_hand] == [4]
    assert sum("checks.credit(" in cell.source for cell in graded) >= 2


@each_lab
def test_it_opens_as_a_chapter_does_and_begins_with_the_same_cell(name):
    cells = cells_of(name)
    assert cells[0].source.startswith("# Lab: ")
    places = [cells[0].source.index(part) for part in OPENING]
    assert places == sorted(places)
    first = next(cell for cell in cells if cell.cell_type == "code")
    chapter = nbformat.read(ROOT / "notebooks/00_why_explain.ipynb", 4).cells[1]
    assert first.source == chapter.source
    assert marks(first)["locked"]


@each_lab
def test_its_cells_are_short_and_import_only_what_chapters_do(name):
    for cell in cells_of(name):
        if cell.cell_type != "code":
            continue
        assert len(cell.source.splitlines()) <= 20, cell.source
        source = re.sub(r"^([ \t]*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in ALLOWED
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if re.search(r"plt\.show\(\)|plots\.\w+\(", cell.source) and not marks(cell).get(
            "solution"
        ):
            assert len(alt) >= 40, cell.source


@each_lab
def test_its_links_lead_somewhere(name):
    for cell in cells_of(name):
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", cell.source):
                assert (SOURCES[name].parent / target).is_file(), target


@each_lab
def test_students_get_no_solution_and_no_hidden_test(name, released):
    notebooks, _ = released
    text = json.dumps(notebooks[name], ensure_ascii=False)
    assert "BEGIN" not in text
    sources = "\n".join(cell.source for cell in notebooks[name].cells)
    hidden = secrets(cells_of(name))
    given = {line.strip() for line in sources.splitlines()}
    assert len(hidden) > 20
    shown = [line for line in hidden if line in given]
    # A line such as `return maps` may stand in what is given as well, but not one in ten.
    assert len(shown) <= len(hidden) / 10, shown
    assert not any(cell.get("outputs") for cell in notebooks[name].cells)


@each_lab
def test_last_years_feedback_is_no_key(name, released):
    shown, _ = pages.as_given(nbformat.read(SOURCES[name], 4), {})
    feedback, given = (
        {marks(c)["grade_id"]: c.source for c in cells if marks(c).get("grade")}
        for cells in (shown.cells, released[0][name].cells)
    )
    by_hand = [task for task in given if feedback[task] != given[task]]
    assert len(by_hand) == 1  # the open question: the model answer here, the student's in feedback


@each_lab
def test_students_can_change_only_what_is_theirs(name, released):
    for cell in released[0][name].cells:
        if marks(cell).get("solution") is False:
            assert cell.metadata.editable is False
            assert cell.metadata.deletable is False
        if marks(cell).get("solution"):
            blank = "YOUR CODE HERE" if cell.cell_type == "code" else "YOUR ANSWER HERE"
            assert blank in cell.source


@pytest.mark.slow
def test_the_version_of_the_gradebooks_tables_is_what_nbgraders_program_says():
    with _temp_alembic_ini("sqlite://") as settings:
        said = subprocess.check_output([sys.executable, "-m", "alembic", "-c", settings, "heads"])
    assert said.decode().split()[0] == release.version_of_tables()


def test_the_archive_holds_them_all_and_every_link_in_it_leads_somewhere(released, tmp_path):
    with zipfile.ZipFile(released[1] / "labs.zip") as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    assert {f"labs/{name}/{name}.ipynb" for name in NAMES} <= set(names)
    assert len(names) == len(set(names))
    followed = 0
    for name in names:
        assert (released[1] / name.removeprefix("labs/")).is_file()
        for cell in nbformat.read(tmp_path / name, 4).cells:
            if cell.cell_type == "markdown":
                for target in re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", cell.source):
                    assert ((tmp_path / name).parent / target).is_file(), (name, target)
                    followed += 1
    assert followed > 2 * len(NAMES)


@pytest.mark.parametrize("name", RUN)
def test_nothing_passes_in_the_notebook_as_it_is_handed_out(name, released, tmp_path):
    notebook = nbformat.from_dict(released[0][name])
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}})
    client.allow_errors = True
    client.execute()
    for cell in notebook.cells:
        errors = [output.ename for output in cell.get("outputs", []) if "ename" in output]
        if marks(cell).get("grade") and cell.cell_type == "code":
            assert errors == ["NotYet"], cell.source
        elif marks(cell) and not marks(cell)["solution"]:
            assert not errors, f"what is given does not run by itself:\n{cell.source}"
        else:
            assert set(errors) <= {"Still open"}, cell.source
        for output in cell.get("outputs", []):
            assert len(output.get("traceback", "1")) == 1, "a sentence, and no traceback"
            assert output.get("name") != "stderr", output.text


@pytest.mark.slow
@each_lab
def test_the_solution_gets_every_point(name, tmp_path):
    notebook = nbformat.read(SOURCES[name], 4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    for cell in notebook.cells:
        if marks(cell).get("grade") and cell.cell_type == "code":
            assert not any(o.get("name") == "stderr" for o in cell.outputs), cell.source
            results = [o for o in cell.outputs if o.output_type == "execute_result"]
            if "checks.credit(" in cell.source:
                assert float(results[0].data["text/plain"]) == marks(cell)["points"]
            else:
                assert not results, cell.source
    assert look.unheard(notebook) == []
