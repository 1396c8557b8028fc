"""A class of thirty hands in, as good, weak, careless and hostile students do, and all is graded.

The short test takes those who mean well through all but the cage; the long one grades all
thirty with the real tools, twice, beside a file and a server that nobody may touch, and looks at
the pages in a real browser.
"""

import http.server
import io
import json
import os
import shutil
import sys
import threading
import unicodedata
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbgrader.utils import compute_checksum

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks/labs/tools"), str(Path(__file__).parent)]

import answers  # noqa: E402
import collect  # noqa: E402
import grade  # noqa: E402
import payloads  # noqa: E402
import points  # noqa: E402
import release  # noqa: E402
import test_hostile as browsing  # noqa: E402
import unpack  # noqa: E402

DOUBLE, TRIPLE = "def double(x):\n    return x + x", "def triple(x):\n    return x * 3"
WHY = "Because twice is what was asked."
ENGINE = "from course_utils.labs import _engine\n"
CHECK = "_engine.compare(_engine.call({0}, {1}), {2}, what='{0}({1})')"


def marked(cell, grade_id, points=None, solution=False):
    """A cell with nbgrader's metadata."""
    mark = {"grade": points is not None, "grade_id": grade_id, "locked": not solution}
    mark |= {"schema_version": 3, "solution": solution, "task": False}
    cell.metadata["nbgrader"] = mark | ({"points": points} if points is not None else {})
    return cell


def lab():
    """A lab of 2 and 3 points, and an open question of 4."""
    cells = [
        new_markdown_cell("# Lab: Small"),
        marked(new_code_cell("from course_utils import checks"), "setup"),
    ]
    for name, factor, most in (("double", 2, 2), ("triple", 3, 3)):
        stub = (
            f"def {name}(x):\n    ### BEGIN SOLUTION\n    return {factor} * x\n    ### END SOLUTION"
        )
        test = ENGINE + CHECK.format(name, 3, 3 * factor)
        hidden = CHECK.format(name, 5, 5 * factor)
        test += f"\n### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS"
        cells += [
            new_markdown_cell(f"## Task {name}"),
            marked(new_code_cell(stub), name, solution=True),
            marked(new_code_cell(test), f"{name}_test", most),
        ]
    cells += [new_markdown_cell("## Why?"), marked(new_markdown_cell("..."), "why", 4, True)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return new_notebook(cells=cells, metadata=kernel)


def answered(blank, **given):
    """A student's notebook, as text."""
    notebook = nbformat.from_dict(json.loads(json.dumps(blank)))
    for cell in notebook.cells:
        cell.source = given.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
    return notebook


def without_marks(notebook):
    """The same, as if all its cells had been pasted into a new notebook."""
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def merged(notebook):
    """The same, with the second answer merged into the first, whose mark stays."""
    first, second = (c for c in notebook.cells if c.source in (DOUBLE, TRIPLE))
    first.source += "\n\n" + second.source
    notebook.cells.remove(second)
    return notebook


def with_own(notebook, code, at=2):
    """The same, with a cell of the student's own."""
    notebook.cells.insert(at, new_code_cell(code))
    return notebook


FRAME = """def double(x):
    import sys
    frame = sys._getframe()
    while frame:
        if "right" in frame.f_locals:
            return frame.f_locals["right"]
        frame = frame.f_back
"""


def with_payloads(notebook, url):
    """The same, with all that `payloads` has: texts in the open answer, code that puts out."""
    texts = payloads.texts(url)
    few = ["onerror", "link-entity", "tex-href", "refresh"]
    notebook.cells[-1].source = "\n\n".join([WHY, *(texts[name] for name in few)])
    notebook.cells += [new_markdown_cell(text) for text in texts.values()]
    notebook.cells += [new_code_cell(code) for code in payloads.code(url).values()]
    return notebook


def zipped(files):
    """The bytes of an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def the_class(blank, victim, url):
    """What thirty students hand in: {student: (files, points, points to mark)}."""
    full = {"double": DOUBLE, "triple": TRIPLE, "why": WHY}
    text = nbformat.writes
    perfect, empty = text(answered(blank, **full)), text(blank)
    half = text(answered(blank, double=DOUBLE, why=WHY))
    pasted = text(without_marks(answered(blank, **full)))
    only = [new_code_cell(f"{DOUBLE}\n\n{TRIPLE}"), new_markdown_cell(WHY)]
    pictured = answered(blank, **full | {"why": "![so](attachment:so.png)"})
    pictured.cells[-1].attachments = {"so.png": {"image/png": "iVBORw0KGgo="}}
    end = answered(blank, double=DOUBLE, why=WHY)
    end.cells.append(new_code_cell(TRIPLE))
    utf16 = perfect.encode("utf-16")
    well = {
        "Ann Lee": ({"small.ipynb": perfect}, 5, 4),
        "रीता": ({"small.ipynb": perfect}, 5, 4),
        "रीतू": ({"small.ipynb": half}, 2, 4),
        "김민준": ({"small.ipynb": empty}, 0, 0),
        unicodedata.normalize("NFD", "José Núñez"): ({"small.ipynb": perfect}, 5, 4),
        "O'Brien, Pat": ({"my lab (3).ipynb": perfect}, 5, 4),
        "pasted": ({"Untitled.ipynb": pasted}, 5, 4),
        "pasted answers": ({"Untitled1.ipynb": text(new_notebook(cells=only))}, 5, 4),
        "merged": ({"small.ipynb": text(merged(answered(blank, **full)))}, 5, 4),
        "at the end": ({"small.ipynb": text(end)}, 5, 4),
        "pictured": ({"small.ipynb": text(pictured)}, 5, 4),
        "zipped": ({"all.zip": zipped({"small.ipynb": perfect, "__MACOSX/._s": "x"})}, 5, 4),
        "zip in zip": ({"a.zip": zipped({"b.zip": zipped({"x/small.ipynb": half})})}, 2, 4),
        "safari": ({"small.ipynb.json": perfect, "note.pdf": "%PDF"}, 5, 4),
        "windows": ({"small.ipynb.txt": utf16}, 5, 4),
        "late": ({"small.ipynb": empty, "small (1).ipynb": half, "small (2).ipynb": perfect}, 5, 4),
        "Lee_LATE_101_9001_small.ipynb": ({"": half}, 2, 4),
        "broken": ({"small.ipynb": perfect[:-200]}, 0, 0),
        "report": ({"report.pdf": "%PDF"}, 0, 0),
    }
    harm = f"""
import os, socket, subprocess, urllib.request
for harm in (
    lambda: open({str(victim)!r}, "w").write("spoilt"),
    lambda: os.remove({str(victim)!r}),
    lambda: subprocess.run(["touch", {str(victim.with_name("new"))!r}], check=True),
    lambda: urllib.request.urlopen({url!r} + "/harm", timeout=3),
    lambda: socket.create_connection(("127.0.0.1", int({url!r}.rpartition(":")[2])), timeout=3),
):
    try:
        harm()
        print("done")
    except BaseException as error:
        print(type(error).__name__)
"""
    fool = f"{ENGINE}_engine.compare = _engine.call = lambda *args, **named: None"
    shown = f"<img src='{url}/shown'><script>fetch('{url}/shown')</script>"
    cheats = {
        "exit": with_own(answered(blank, **full), "exit()"),
        "quits": with_own(answered(blank, **full), "get_ipython().kernel.do_shutdown(False)", 4),
        "harm": with_own(answered(blank, double=harm), harm),
        "fools the checks": with_own(answered(blank), fool),
        "easier tests": answered(blank, double_test="pass", triple_test="3"),
        "endless": answered(blank, double="def double(x):\n    while True: pass", triple=TRIPLE),
        "huge": answered(blank, double="def double(x):\n    return 'x' * 10**11", triple=TRIPLE),
        "floods": answered(blank, double="while True: print('x' * 10**6)", triple=TRIPLE),
        "payloads": with_payloads(answered(blank, **full), url),
        "frame": answered(blank, double=FRAME, triple=FRAME.replace("double", "triple")),
        "shows": with_own(answered(blank, **full | {"why": shown}), f"print({shown!r})"),
    }
    worth = dict.fromkeys(("exit", "quits", "shows", "payloads"), (5, 4))
    worth |= dict.fromkeys(("endless", "huge", "floods"), (3, 0))
    cheats = {
        student: ({"small.ipynb": text(notebook)}, *worth.get(student, (0, 0)))
        for student, notebook in cheats.items()
    }
    return well, cheats


def hand_in(folder, students):
    """Write what students hand in; returns what each of them should get, by the table's name."""
    expected = {}
    for student, (files, worth, to_mark) in students.items():
        for number, (name, content) in enumerate(files.items()):
            path = folder / student / name if name else folder / student
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            os.utime(path, (1_000_000 + 100 * number,) * 2)
        name = unicodedata.normalize("NFC", student.partition("_LATE")[0])
        expected[name] = (worth, to_mark)
    return expected


def look_at(out, url, asked):
    """Open the pages of hostile students in a real browser, and formgrader's: nothing happens."""
    if not browsing.CHROMIUM:
        return
    with browsing.playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browsing.CHROMIUM, args=browsing.FLAGS)
        for student in ("payloads", "shows"):
            page = (out / f"feedback/{student}/small/small.html").as_uri()
            assert browsing.look(browser, page, (url, asked))[0] == browsing.NOTHING
        with browsing.Served(out, "import formgrade; formgrade.main()") as server:
            for student in ("payloads", "shows"):
                where = browsing.address(out, server, student)
                happened, _ = browsing.look(browser, where, (url, asked), server=server)
                assert happened == browsing.NOTHING
        browser.close()
    assert not browsing.written(out)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder with a lab, and the lab as students get it."""
    (tmp_path / "labs/small").mkdir(parents=True)
    nbformat.write(lab(), tmp_path / "labs/small/small.ipynb")
    monkeypatch.setattr(release, "LABS", tmp_path / "labs")
    monkeypatch.setattr(grade, "CELLS", 4)
    path = release.release(tmp_path / "released") / "small/small.ipynb"
    return tmp_path, nbformat.read(path, 4)


class Engine:
    """The two functions of the checks that this lab calls, without TensorFlow."""

    @staticmethod
    def call(function, *args):
        return function(*args)

    @staticmethod
    def compare(got, right, what):
        assert got == right, what


def run_here(notebook):
    """Execute a well-meant notebook in this process."""
    names = {"_engine": Engine}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "import checks" not in cell.source:
            try:
                exec(cell.source.removeprefix(ENGINE), names)
            except Exception as error:
                name = type(error).__name__
                cell.outputs = [new_output("error", ename=name, evalue="", traceback=[name])]


def test_those_who_mean_well_get_their_points_wherever_they_put_them(course):
    folder, blank = course
    well, _ = the_class(blank, folder / "victim", "http://127.0.0.1:1")
    expected = hand_in(folder / "in", well)
    found = list(unpack.files(folder / "in"))
    submissions, files = collect.collect(found, {"small": blank}, 4)
    assert {s.student for s in submissions} == set(expected)
    assert len(submissions) == len(expected) == 19
    assert len(files) >= sum(len(handed) for handed, _, _ in well.values())
    for submission in submissions:
        row = {"student": submission.student, "lab": "small", "points": 0, "to_mark": 0}
        if submission.cells:
            notebook, _ = answers.rebuild(lab(), blank, submission.cells)
            for cell in notebook.cells:  # as nbgrader knows which answers are blank
                if cell.source == "YOUR ANSWER HERE":
                    cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
            run_here(notebook)
            points.count(row, notebook)
        assert (row["points"], row["to_mark"]) == expected[submission.student], submission


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("bwrap") and shutil.which("prlimit")),
    reason="students' notebooks run in a sandbox or not at all: apt-get install bubblewrap",
)
def test_thirty_students_are_graded_twice_alike_and_nothing_outside_is_touched(course):
    folder, blank = course
    outside = folder / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_text("whole")
    asked = []

    class Canary(http.server.BaseHTTPRequestHandler):
        def handle(self):
            asked.append(self.client_address)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    well, cheats = the_class(blank, victim, f"http://127.0.0.1:{server.server_port}")
    expected = hand_in(folder / "in", well | cheats)
    around = sorted(path for path in folder.rglob("*") if not path.is_relative_to(folder / "out"))
    said, tables = [], []
    for again in (False, True):
        rows = grade.grade(
            *(folder / "in", folder / "out"), seconds=30, memory=3, again=again, say=said.append
        )
        got = {row["student"]: (row["points"], row["to_mark"]) for row in rows}
        assert got == expected
        names = ("grades.csv", "tasks.csv", "files.csv")
        tables.append([(folder / "out" / name).read_text() for name in names])
    look_at(folder / "out", f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    assert said[0] == "30 students, 28 notebooks, 2 without"
    assert tables[0] == tables[1]
    assert asked == []
    assert victim.read_text() == "whole"
    out = folder / "out"
    assert around == sorted(p for p in folder.rglob("*") if not p.is_relative_to(out))
    handed = [p for p in (folder / "in").rglob("*") if p.is_file() and p.suffix != ".zip"]
    assert all(str(path.relative_to(folder / "in")) in tables[0][2] for path in handed)
    assert all(row["note"] for row in rows if row["points"] + row["to_mark"] == 0)
    for row in rows:
        if row["lab"]:
            page = folder / "out/feedback" / row["student"] / "small/small.html"
            assert page.is_file()
            assert page.stat().st_size < 2_000_000
