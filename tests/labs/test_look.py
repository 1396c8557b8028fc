"""What a teacher is told to look at: code that reaches too far, and answers that are alike."""

import csv
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "notebooks/labs/tools"))

import grade  # noqa: E402
import look  # noqa: E402
import release  # noqa: E402

from course_utils.labs import _open  # noqa: E402


def student(**answers):
    """A notebook with these answers: code, or words for a task whose name begins with why."""
    cells = []
    for name, text in answers.items():
        new = new_markdown_cell if name.startswith("why") else new_code_cell
        cells.append(new(text))
        cells[-1].metadata["nbgrader"] = {"grade_id": name, "solution": True}
    return new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys\nsys._getframe(1).f_locals['right']", "looks into the frames"),
        ("import inspect\ninspect.stack()[1]", "looks into the frames"),
        ("frame = inspect.currentframe().f_back", "looks into the frames"),
        ("import gc\ngc.get_objects()", "objects in memory"),
        ("get_ipython().events.register('pre_run_cell', print)", "how cells are run"),
        ("checks.occlusion._map_at(1)", "private parts of the checks"),
        ("import course_utils.labs.lime.checks as c", "private parts of the checks"),
        ("from course_utils.labs.lime.checks_of_fit import _solve", "private parts of the checks"),
        ("from course_utils.labs.occlusion import checks_of_maps", "private parts of the checks"),
        ("from course_utils.labs.embeddings.material import load_arrays", "private parts"),
        ("from course_utils.labs import _variant", "private parts of the checks"),
        ("from course_utils.labs import _engine", "what the checks are made of"),
        ("labels = datasets.load_digits()[0][1]", "opens the course's data"),
        ("labels = np.load('digits.npz')", "opens the course's data"),
        ("np.all = lambda *a: True", "gives np.all another meaning"),
        ("setattr(np, 'all', print)", "gives parts of np another meaning"),
        ("checks.credit = print", "gives checks.credit another meaning"),
        ("import subprocess\nsubprocess.run('ls')", "starts programs"),
        ("import os\nos.environ['x']\nprint(JUDGE)", "reaches for the judge"),
    ],
)
def test_what_code_reaches_for_is_told_with_the_place(code, told):
    notebook = student(task=code)
    assert any(told in said and "(task)" in said for said in look.strange(notebook))
    notebook.cells[0].metadata = {}
    assert any(told in said and "(cell 1)" in said for said in look.strange(notebook))


@pytest.mark.parametrize("lab", release.names())
def test_nothing_is_told_of_the_labs_own_answers(lab):
    assert look.strange(nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4)) == []


def test_a_word_in_a_text_or_a_broken_cell_is_nothing():
    assert look.strange(student(a="s = '_getframe'  # get_ipython", b="def (", c="%timeit x")) == []
    assert look.strange(student(a="stack = np.stack([1, 2])\nnp.random.seed(0)")) == []


@pytest.mark.parametrize(
    "code",
    ["x = " + "1 + " * 900 + "1", "np" + ".a" * 900 + " = 1", "x = " + "-" * 900 + "1"],
)
def test_code_that_no_tree_can_be_walked_for_stops_nothing(code):
    both = {"Ann": student(a=code), "Bo": student(a=code)}
    for notebook in both.values():
        assert all(len(said) < 200 for said in look.strange(notebook))
    assert look.alike(both, student(), student()) == [("Ann", "Bo", ["a"], 1)]


def test_what_is_told_of_one_notebook_is_as_much_as_a_teacher_reads():
    told = look.strange(student(a="\n".join(f"np.f{i} = print" for i in range(5000))))
    assert len(told) == look.TOLD_OF + 1
    assert told[-1] == f"and {5000 - look.TOLD_OF} things more"


def test_long_answers_and_many_empty_lines_take_no_time():
    begun = time.process_time()
    assert look.strange(student(a="\n" * 50_000 + "%time x\nnp.all = print")) == [
        "gives np.all another meaning (a)"
    ]
    assert _open.made("\n" * 50_000 + "%time x\ny = 1") == {"y"}
    long = student(a="x = [" + "a, " * 20_000 + "a]", why="so " * 20_000)
    assert look.alike({"Ann": long, "Bo": long}, student(), student())
    assert time.process_time() - begun < 20


def test_a_grading_that_is_killed_while_it_writes_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    rows = [{"student": name, "lab": "a", "note": "é", "tasks": []} for name in ("Ann", "Bo")]
    grade.write_tables(tmp_path, rows)
    before = (tmp_path / "grades.csv").read_bytes()
    assert before.startswith("\ufeffstudent,lab,".encode())
    assert before.count(b"\r\n") == 3

    def kill(value):
        raise KeyboardInterrupt

    monkeypatch.setattr(grade, "short", kill)
    with pytest.raises(KeyboardInterrupt):
        grade.write_tables(tmp_path, rows)
    assert (tmp_path / "grades.csv").read_bytes() == before


def test_a_text_in_the_table_is_no_longer_than_csv_reads(tmp_path):
    row = {"student": "Ann", "lab": "a", "note": "x" * 200_000, "tasks": []}
    grade.write_tables(tmp_path, [row], files=[{"student": "Ann", "file": "y" * 200_000}])
    assert [len(r["note"]) < 20_000 for r in grade.read_table(tmp_path / "grades.csv")] == [True]
    assert len(grade.read_table(tmp_path / "files.csv")) == 1


@pytest.mark.parametrize(
    ("test", "said", "error", "told"),
    [
        ("checks.lime.fit(fit)", "", False, True),
        ("checks.credit(2, lambda: checks.lime.fit(fit))", "all is well", False, True),
        ("checks.lime.fit(fit)", "✓ Your weights are right.", False, False),
        ("checks.lime.fit(fit)", "", True, False),
        ("assert fit(2) == 4", "", False, False),  # a test of the teacher's own says nothing
    ],
)
def test_full_points_that_no_check_spoke_for_are_told(test, said, error, told):
    outputs = [new_output("stream", text=said)] if said else []
    outputs += [new_output("error", ename="NotYet", evalue="", traceback=[])] if error else []
    cell = new_code_cell(test, outputs=outputs)
    cell.metadata["nbgrader"] = {"grade": True, "grade_id": "task", "points": 2}
    assert look.unheard(new_notebook(cells=[cell])) == (
        ["full points, and no check said ✓ (task)"] if told else []
    )


def test_of_a_note_only_what_needs_a_look_is_told():
    note = "handed in late; why was changed after you had marked it; there is no answer to task_2"
    assert look.noted(note) == ["why was changed after you had marked it"]
    assert look.noted("") == []


ONE = '''def outside(image, segments):
    """What lies outside."""
    total, count = image.sum(axis=(0, 1)), segments.size
    colours = np.zeros((segments.max() + 1, image.shape[-1]))
    for k in range(len(colours)):
        inside = segments == k  # the superpixel
        colours[k] = (total - image[inside].sum(axis=0)) / (count - inside.sum())
    return colours
'''
COPY = """def outside(image, segments):

    s, n = image.sum(axis=(0, 1)), segments.size
    result = np.zeros((segments.max() + 1, image.shape[-1]))
    for i in range(len(result)):
        mask = segments == i
        result[i] = (s - image[mask].sum(axis=0)) / (n - mask.sum())
    return result
"""
OTHER = """def outside(image, segments):
    means = []
    for label in np.unique(segments):
        means.append(image[segments != label].reshape(-1, image.shape[-1]).mean(axis=0))
    return np.array(means, dtype=np.float64).reshape(-1, image.shape[-1])
"""
WHY = "The network looks at the leaf and not at the cone, since without the leaf it says pine."
ELSE = "Redrawing shows what changes the answer; a map shows only what a linear model makes of it."
BLANK = {"a": "def outside(image, segments):\n    raise NotImplementedError()", "why": "..."}


def renamed(code, name):
    """The same answer to another task."""
    return code.replace("outside", name)


def test_answers_with_other_names_comments_and_layout_are_alike():
    class_ = {
        "Ann": student(a=ONE, b=renamed(ONE, "b"), why=WHY),
        "Bob": student(a=COPY, b=renamed(COPY, "b"), why=WHY.upper() + "!"),
        "Eve": student(a=OTHER, b=renamed(OTHER, "b"), why=ELSE),
    }
    model = student(a="x = 1", why="...")
    assert look.alike(class_, student(**BLANK), model) == [("Ann", "Bob", ["a", "b", "why"], 3)]


def test_the_model_answers_are_known_and_what_was_handed_out_is_not_told():
    class_ = {"Ann": student(a=ONE, b=OTHER), "Eve": student(a=OTHER, b=ONE)}
    model = student(a=COPY, b=OTHER)
    assert look.alike(class_, student(**BLANK), model) == [
        ("Ann", "the model answers", ["a", "b"], 2)
    ]
    assert look.alike(class_, student(a=ONE, b=OTHER), model) == []


def test_one_answer_that_many_have_is_no_sign_and_eight_whole_copies_are():
    each = [
        f"def b(x):\n    y = {'+ '.join(f'{k * i} * x[{i}] ' for i in range(8 + k))}\n    return y"
        for k in range(1, 21)
    ]
    class_ = {f"student {k}": student(a=ONE, b=code) for k, code in enumerate(each)}
    blank, model = student(**BLANK), student(a="x = 1")
    assert look.alike(class_, blank, model) == []
    whole = student(a=ONE, b=each[0], c=OTHER, why=WHY)
    class_ |= {f"copy {k}": whole for k in range(8)}
    pairs = [{one, other} for one, other, *_ in look.alike(class_, blank, model)]
    assert len([p for p in pairs if all("copy" in name for name in p)]) == 8 * 7 / 2
    assert not [p for p in pairs if not any("copy" in name for name in p)]


def test_the_tables_name_the_pairs_and_what_to_look_at(tmp_path):
    class_ = {"Ann": student(a=ONE, b=renamed(ONE, "b")), "Bob": student(a=COPY, b=OTHER)}
    class_["Bob"].cells[1].source = renamed(COPY, "b") + "\nnp.all = print"
    rows = []
    for name, notebook in class_.items():
        path = grade.points.place_of(tmp_path, name, "small")
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        rows.append({"student": name, "lab": "small", "note": "", "tasks": []})
    rows.append({"student": "Eve", "lab": "small", "note": "late; nothing was answered"})
    rows[-1]["tasks"] = []
    pairs = grade.look_at(tmp_path, rows, student(**BLANK), student(a="x = 1"), "small")
    grade.write_tables(tmp_path, rows, pairs=pairs)
    with (tmp_path / "alike.csv").open(encoding="utf-8-sig", newline="") as file:
        (pair,) = csv.DictReader(file)
    assert list(pair.values()) == ["small", "Ann", "Bob", "2", "2", "a, b"]
    told = {row["student"]: row["look_at"] for row in grade.read_table(tmp_path / "grades.csv")}
    assert told == {
        "Ann": "2 of 2 answers as Bob",
        "Bob": "gives np.all another meaning (b); 2 of 2 answers as Ann",
        "Eve": "nothing was answered",
    }
