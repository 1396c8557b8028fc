"""What a student writes does nothing when a teacher looks at it: seen in a real browser.

Three things stand in the way: notebooks are cleaned when they are stored, formgrader is served with
a policy, and pages of feedback have one too. Each is tried alone, with all that `payloads` has, and
against a server without any of them, where the payloads work.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import Gradebook

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "notebooks/labs/tools"
sys.path[:0] = [str(TOOLS), str(Path(__file__).parent)]

import clean  # noqa: E402
import grade  # noqa: E402
import pages  # noqa: E402
import payloads  # noqa: E402
import release  # noqa: E402

playwright = pytest.importorskip("playwright.sync_api")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
in_a_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")
TOKEN = "t0ken"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WITHOUT_SANITISER = "import formgrade; formgrade.sanitised = lambda text: text; formgrade.main()"
UNPROTECTED = """
from jupyter_server.serverapp import ServerApp
ServerApp.launch_instance(jpserver_extensions={"nbgrader.server_extensions.formgrader": True})
"""


@pytest.fixture(scope="module")
def canary():
    """A server that must not be asked, and what it was asked for."""
    asked = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_HEAD = do_OPTIONS = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Chromium, as the system has it."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def marked(cell, grade_id, points=None, solution=False):
    """A cell with nbgrader's metadata."""
    about = {"grade": points is not None, "grade_id": grade_id, "locked": not solution}
    about |= {"schema_version": 3, "solution": solution, "task": False}
    cell.metadata["nbgrader"] = about | ({"points": points} if points is not None else {})
    return cell


def small_lab():
    """A lab of one task and an open question."""
    return new_notebook(
        cells=[
            new_markdown_cell("# Lab: Small\n\nIs $\\frac{1}{2}x^2$ right?"),
            marked(new_code_cell("x = 1"), "answer", solution=True),
            marked(new_code_cell("assert x"), "test", 2),
            marked(new_markdown_cell("Because."), "open", 4, solution=True),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )


def write_lab(folder):
    """Make the folder of a course's labs, with the small one in it."""
    (folder / "small").mkdir(parents=True)
    nbformat.write(small_lab(), folder / "small/small.ipynb")
    return folder


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The folder of a course with one small lab that two students have handed in."""
    folder = tmp_path_factory.mktemp("course")
    out = folder / "grades"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, "LABS", write_lab(folder / "labs"))
        api = release.generate(out, ["small"])
    (out / "nbgrader_config.py").write_text(grade.CONFIG)
    api.config.Autograde.autograde_preprocessors = grade.POINTS
    handed_in = small_lab()
    handed_in.cells[3].source = "I think so."
    for student in ("ann", "mallory"):
        (out / "submitted" / student / "small").mkdir(parents=True)
        nbformat.write(handed_in, out / "submitted" / student / "small/small.ipynb")
        assert api.autograde("small", student)["success"]
    return out


def hostile(graded, url, cleaned, without=()):
    """Put all payloads into the notebook of mallory, as it is or cleaned; returns its path."""
    path = graded / "autograded/mallory/small/small.ipynb"
    whole = json.loads((graded / "autograded/ann/small/small.ipynb").read_text())
    bad = payloads.notebook(url, valid=not cleaned)
    names = [f"t{list(payloads.texts(url)).index(name)}" for name in without]
    bad["cells"] = [cell for cell in bad["cells"] if cell["id"] not in names]
    whole["cells"] += bad["cells"]
    notebook = {**bad, "cells": whole["cells"]}
    if cleaned:
        notebook = clean.notebook(nbformat.from_dict(notebook))
    path.write_text(json.dumps(notebook))
    return path


class Served:
    """A server of a graded folder, in a process of its own."""

    def __init__(self, graded, code):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", code]
        command += [str(graded)] if code != UNPROTECTED else []
        command += ["--no-browser", "--allow-root", f"--ServerApp.port={port}"]
        command += [f"--IdentityProvider.token={TOKEN}", "--ServerApp.port_retries=0"]
        environment = {**os.environ, "PYTHONPATH": str(TOOLS), "JUPYTER_NO_CONFIG": "1"}
        self.process = subprocess.Popen(
            command,
            cwd=graded,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=(graded / "server.log").open("w"),
        )
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.base}/login", timeout=5)
                return
            except OSError:
                assert self.process.poll() is None, (graded / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def look(browser, address, canary, *, server=None, click=True, patience=700):
    """Open a page as a teacher would, click everything in it; returns what happened.

    `patience` are the milliseconds that what is begun has to show itself.
    """
    canary[1].clear()
    context = browser.new_context()
    own = [server.base] if server else []
    strange, struck, dialogs = set(), set(), []

    def watch(route):
        url = route.request.url
        if not url.startswith((*own, "data:", "file:", "about:", "blob:")):
            strange.add(url)
        local = url.startswith((*own, "file:", canary[0]))
        return route.continue_() if local else route.abort()

    context.route("**/*", watch)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    if server:
        page.goto(f"{server.base}/login?token={TOKEN}")
    page.goto(address, wait_until="load")

    def note():
        page.wait_for_timeout(patience)
        try:
            struck.update(filter(None, [page.evaluate("window.struck")]))
        except playwright.Error:  # it has gone elsewhere
            strange.add(page.url)

    note()
    if click:
        inside = ".rendered_html, .output_subarea, .text_cell, .code_cell"
        page.evaluate(
            """where => { for (const a of document.querySelectorAll(where))
              for (const e of a.querySelectorAll("a, button:not(.btn), summary, text, img"))
                if (!e.closest("a[href^=http]"))
                  e.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true})); }""",
            inside,
        )
        note()
    text = page.content()
    context.close()
    return {
        "struck": struck,
        "strange": strange,
        "asked": list(canary[1]),
        "dialogs": dialogs,
    }, text


def written(graded):
    """The files that payloads wrote with the teacher's session."""
    return {path.name for path in graded.parent.rglob("canary-*")}


def address(graded, server, student="mallory"):
    """Of formgrader's page of a student's notebook."""
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}", release.COURSE) as gradebook:
        found = gradebook.find_submission_notebook("small", "small", student).id
    return f"{server.base}/formgrader/submissions/{found}/?index=0"


NOTHING = {"struck": set(), "strange": set(), "asked": [], "dialogs": []}


@in_a_browser
@pytest.mark.slow
def test_without_any_protection_the_payloads_work(graded, canary, browser):
    hostile(graded, canary[0], cleaned=False, without=["refresh", "base", "style-cover"])
    with Served(graded, UNPROTECTED) as server:
        here = address(graded, server)
        happened, _ = look(browser, here, canary, server=server, patience=5000)
    assert len({path.split("/")[1] for path in happened["asked"]}) >= 12
    assert happened["struck"]
    assert len(written(graded)) >= 12
    for path in graded.parent.rglob("canary-*"):
        path.unlink()


@in_a_browser
@pytest.mark.slow
def test_a_cleaned_notebook_does_nothing_on_a_server_without_a_policy(graded, canary, browser):
    hostile(graded, canary[0], cleaned=True)
    with Served(graded, UNPROTECTED) as server:
        happened, text = look(browser, address(graded, server), canary, server=server)
    happened["strange"] = {u for u in happened["strange"] if "cdnjs.cloudflare.com" not in u}
    assert happened == NOTHING  # MathJax is what nbgrader's own page asks for
    assert not written(graded)
    assert 'id="open"' in text  # it was the page


@in_a_browser
@pytest.mark.slow
def test_the_policy_alone_stops_what_was_not_cleaned(graded, canary, browser):
    # A policy has no say in where a page goes by itself; the cleaning has.
    hostile(graded, canary[0], cleaned=False, without=["refresh"])
    with Served(graded, WITHOUT_SANITISER) as server:
        happened, text = look(browser, address(graded, server), canary, server=server)
    assert happened == NOTHING
    assert not written(graded)
    assert "onerror=" in text  # the payloads were there


@pytest.fixture(scope="module")
def server(graded):
    """Formgrader of the graded folder."""
    with Served(graded, "import formgrade; formgrade.main()") as server:
        yield server


@pytest.mark.filterwarnings("ignore:Object of type")  # nbgrader's, of its own data base
@in_a_browser
def test_formgrader_as_it_is_served(graded, canary, browser, server):
    for cleaned in (False, True):
        hostile(graded, canary[0], cleaned)
        happened, _ = look(browser, address(graded, server), canary, server=server)
        assert happened == NOTHING
    assert not written(graded)


@pytest.mark.filterwarnings("ignore:No lexer", "ignore:Your element")  # nbconvert's, of the traps
@in_a_browser
@pytest.mark.parametrize("cleaned", [True, False])
def test_a_page_of_feedback_runs_nothing_and_asks_nobody(graded, canary, browser, cleaned):
    hostile(graded, canary[0], cleaned=cleaned, without=["refresh"] * (not cleaned))
    api = release.course(graded)
    (graded / "feedback/mallory/small/small.html").unlink(missing_ok=True)
    assert pages.feedback(api, "small", "mallory", force=True)["success"]
    page = graded / "feedback/mallory/small/small.html"
    happened, text = look(browser, page.as_uri(), canary)
    assert happened == NOTHING
    assert "<script" not in page.read_text()
    assert "mjx-container" in text


def saves(kept):
    return lambda answer: f"/api/{kept}/" in answer.url and answer.request.method == "PUT"


@in_a_browser
def test_formgraders_own_pages_work(graded, browser, server):
    shutil.copyfile(
        graded / "autograded/ann/small/small.ipynb",
        graded / "autograded/mallory/small/small.ipynb",
    )
    page = browser.new_page()
    page.set_default_timeout(120_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.goto(f"{server.base}/?token={TOKEN}")
    assert "/formgrader/gradebook" in page.url
    page.get_by_role("link", name="small").click()
    page.wait_for_url(re.compile(r"/gradebook/small/?$"))  # till then the links are the others
    page.get_by_role("link", name="small").last.click()
    page.wait_for_url(re.compile(r"/gradebook/small/small/?$"))
    page.get_by_role("link", name="Submission #1").wait_for()
    page.get_by_role("button", name="Show All Names").click()
    page.get_by_role("link", name="mallory").wait_for()
    page.get_by_role("button", name="Hide All Names").click()
    page.get_by_role("link", name="Submission #1").click()
    page.wait_for_selector("#open")
    assert page.locator("mjx-container svg path").count() > 3
    # Formgrader empties both fields when the marks of before arrive; from then on it saves.
    page.wait_for_function("() => window.formgrader?.grades?.loaded && formgrader.comments?.loaded")
    for field, typed, kept in (("#open", "3", "grade"), ("#open-comment", "Why?", "comment")):
        with page.expect_response(saves(kept)) as answer:
            page.locator(field).fill(typed)
            page.locator(field).blur()
        assert answer.value.ok
    page.locator("span.name-hidden").first.click()
    assert page.locator(".breadcrumb .name-shown").first.is_visible()
    first = page.url.split("?")[0]
    page.get_by_role("link", name="Next").click()
    page.wait_for_url(lambda url: url.split("?")[0] != first)
    page.wait_for_selector("#open")
    assert "/submissions/" in page.url
    page.goto(f"{server.base}/formgrader/manage_assignments")
    page.wait_for_selector("text=small")
    page.goto(f"{server.base}/formgrader/manage_students")
    page.wait_for_selector("text=mallory")
    for gone in (
        "lab",
        "tree",
        "api/contents",
        "api/kernels",
        "files/gradebook.db",
        "terminals/1",
    ):
        assert page.request.get(f"{server.base}/{gone}").status == 404, gone
    before = page.request.get(f"{server.base}/formgrader/?path=/tmp", max_redirects=0)
    assert before.headers["location"].startswith("/formgrader/gradebook")
    page.close()
    assert not [said for said in wrong if "404" not in said], wrong
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}", release.COURSE) as gradebook:
        marks = [
            gradebook.find_grade("open", "small", "small", student).manual_score
            for student in ("ann", "mallory")
        ]
        comments = [
            gradebook.find_comment("open", "small", "small", student).manual_comment
            for student in ("ann", "mallory")
        ]
    assert sorted(marks, key=str) == [3, None]
    assert sorted(comments, key=str) == [None, "Why?"]


@in_a_browser
@pytest.mark.slow
def test_a_hostile_notebook_from_handing_in_to_marking(tmp_path, canary, browser, monkeypatch):
    monkeypatch.setattr(release, "LABS", write_lab(tmp_path / "labs"))
    monkeypatch.setattr(grade, "CELLS", 2)
    blank = nbformat.read(release.release(tmp_path / "released") / "small/small.ipynb", 4)
    blank.cells[1].source = "x = 1"
    texts = payloads.texts(canary[0])
    blank.cells[3].source = "\n\n".join(
        texts[name] for name in ("onerror", "link-entity", "refresh")
    )
    blank.cells += [new_markdown_cell(text) for text in texts.values()]
    blank.cells += [new_code_cell(code) for code in payloads.code(canary[0]).values()]
    bad = payloads.notebook(canary[0])
    bad["cells"] = [*blank.cells, *bad["cells"]]
    (tmp_path / "handed in/mallory").mkdir(parents=True)
    (tmp_path / "handed in/mallory/small.ipynb").write_text(json.dumps(bad))
    out = tmp_path / "grades"
    canary[1].clear()
    (row,) = grade.grade(tmp_path / "handed in", out, seconds=90, say=lambda line: None)
    assert (row["points"], row["to_mark"]) == (2, 4)
    page = out / "feedback/mallory/small/small.html"
    happened, text = look(browser, page.as_uri(), canary)
    assert happened == NOTHING
    assert "mjx-container" in text
    assert "not shown here: application/javascript" in text  # the outputs were there
    with Served(out, "import formgrade; formgrade.main()") as server:
        happened, _ = look(browser, address(out, server), canary, server=server)
    assert happened == NOTHING
    assert not written(out)
