"""The build's own machinery: what is executed when, what a failure says, who publishes where."""

import base64
import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from IPython.core.pylabtools import retina_figure
from matplotlib.figure import Figure
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parents[1]
SETUP = 'REPOSITORY = "owner--not-set/opening-the-black-box"'


def notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@pytest.fixture
def project(tmp_path):
    """A small copy of the repository's shape, with two notebooks that need no TensorFlow."""
    for folder in ("book/_ext", "course_utils", "data", "notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    for script in ("build.py", "execute.py", "publish_as.py"):
        shutil.copy(ROOT / "book/_ext" / script, tmp_path / "book/_ext")
    (tmp_path / "course_utils/idea.py").write_text("x = 1\n")
    (tmp_path / "data/numbers.npz").write_bytes(b"123")
    (tmp_path / "requirements.lock").write_text("")
    notebook(tmp_path / "notebooks/01_good.ipynb", "print(1)", "print(2)")
    notebook(tmp_path / "notebooks/02_fine.ipynb", "print(3)")
    return tmp_path


def execute(project, script="execute.py"):
    command = [sys.executable, project / "book/_ext" / script]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    return run.returncode, run.stdout, run.stderr


@pytest.fixture
def script(project, monkeypatch):
    """The script for that project, in this process."""
    monkeypatch.syspath_prepend(project / "book/_ext")
    script, build = importlib.import_module("execute"), project / "_build"
    paths = {"ROOT": project, "BUILD": build, "CACHE": build / ".jupyter_cache"}
    for name, path in (paths | {"GIVEN": build / "given"}).items():
        monkeypatch.setattr(script, name, path)
    return script


@pytest.fixture
def executed(script, monkeypatch):
    """The names of the notebooks that the script executes, which it does without a kernel."""
    names = []

    def without_a_kernel(paths, workers):
        for path in paths:
            names.append(path.name)
            figures = {"seconds": 1.0, "processor": 1.0, "megabytes": 1}
            yield path, figures | {"notebook": nbformat.read(path, 4), "failure": None}

    monkeypatch.setattr(script, "execute_all", without_a_kernel)
    monkeypatch.setattr(script, "explorables_beside", nullcontext)
    return names


def test_only_what_changed_is_executed(project, script, executed, capsys):
    def run():
        executed.clear()
        script.main()
        return sorted(executed)

    assert run() == ["01_good.ipynb", "02_fine.ipynb"]
    assert "Executing 2 of 2 notebooks" in capsys.readouterr().out
    assert run() == []
    assert capsys.readouterr().out == "All 2 notebooks are up to date.\n"
    notebook(project / "notebooks/02_fine.ipynb", "print(4)")
    assert run() == ["02_fine.ipynb"]
    (project / "course_utils/idea.py").write_text("x = 2\n")
    assert run() == ["01_good.ipynb", "02_fine.ipynb"]
    (project / "_build/.doctrees").mkdir()
    notebook(project / "notebooks/02_fine.ipynb", "print(5)")
    assert run() == ["02_fine.ipynb"]
    assert not (project / "_build/.doctrees").exists(), "Sphinx would show the old outputs"


@pytest.mark.slow
def test_the_pages_of_the_book_are_executed_too(project):
    notebook(project / "book/page.ipynb", "raise KeyError('on the page')")
    code, said, errors = execute(project)
    assert "Executing 3 of 3" in said
    assert code == 1
    assert "book/page.ipynb: cell 1 of 1 failed with KeyError: 'on the page'" in errors
    notebook(project / "book/page.ipynb", "print(6)")
    assert "Executing 1 of 3" in execute(project)[1]
    assert execute(project)[1].strip() == "All 3 notebooks are up to date."


def test_no_page_is_made_where_a_lab_or_a_notebook_fails(project):
    labs = project / "notebooks/labs/tools/release.py"
    labs.parent.mkdir(parents=True)
    labs.write_text("import sys\nsys.exit('no lab today')")
    code, said, errors = execute(project, "build.py")
    assert (code, said, errors) == (1, "", "no lab today\n")
    labs.write_text("")
    notebook(project / "notebooks/02_fine.ipynb", "raise KeyError('no such thing')")
    code, said, errors = execute(project, "build.py")
    assert code == 1
    assert "failed with KeyError: 'no such thing'" in errors
    assert "Jupyter-Book" not in said


def test_the_cache_is_keyed_on_package_data_and_versions(project, script):
    seen = {script.fingerprint()}
    (project / "course_utils/idea.py").write_text("x = 2\n")
    seen.add(script.fingerprint())
    os.utime(project / "course_utils/idea.py", (1, 1))  # as `touch` does
    seen.add(script.fingerprint())
    (project / "data/numbers.npz").write_bytes(b"124")
    seen.add(script.fingerprint())
    (project / "requirements.lock").write_text("numpy==3")
    seen.add(script.fingerprint())
    assert len(seen) == 5
    (project / "notebooks/03.ipynb").write_text("{}")
    assert script.fingerprint() in seen


def test_a_failing_cell_is_named_and_the_others_are_kept(project, script, executed):
    notebook(project / "notebooks/02_fine.ipynb", "ready = True", "raise KeyError('no such thing')")
    code, _, errors = execute(project)
    assert code == 1
    assert "notebooks/02_fine.ipynb: cell 2 of 2 failed with KeyError: 'no such thing'" in errors
    assert "raise KeyError" in errors
    assert "1 of 2 notebooks failed: notebooks/02_fine.ipynb" in errors
    notebook(project / "notebooks/02_fine.ipynb", "print(3)")
    script.main()
    assert executed == ["02_fine.ipynb"]


def test_the_explorables_files_are_made_beside_the_notebooks(project):
    (project / "book/explorables").mkdir()
    bundle = "def exported(): print('made')"
    (project / "book/explorables/bundle.py").write_text(bundle)
    code, said, errors = execute(project)
    assert (code, errors) == (0, "")
    assert (project / "_build/logs/explorables.txt").read_text() == "made\n"
    assert "made" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are made like anything else")
def test_the_explorables_files_wait_for_the_notebooks(project):
    (project / "book/explorables").mkdir()
    bundle = """import os
def exported():
    print(os.nice(0), os.getsid(0) == os.getpid())
    if os.path.exists("/proc/self/autogroup"):
        print(open("/proc/self/autogroup").read().split()[1:])
"""
    (project / "book/explorables/bundle.py").write_text(bundle)
    execute(project)
    niceness, *session = (project / "_build/logs/explorables.txt").read_text().splitlines()
    assert niceness == "19 True"
    assert session in ([], ["['nice', '19']"])


@pytest.mark.slow
def test_arithmetic_has_one_thread(project):
    source = "import os\nassert os.environ['{0}'] == '1', '{0}'"
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    sources = [source.format(name) for name in names]
    notebook(project / "notebooks/02_fine.ipynb", *sources, "import time; time.sleep(4)")
    code, _, errors = execute(project)
    assert code == 0, errors
    took = json.loads((project / "_build/execution.json").read_text())["notebooks/02_fine.ipynb"]
    assert took["seconds"] - took["processor"] > 2, "who sleeps, takes no processor's time"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not forked")
def test_a_kernel_begins_with_the_package_imported(project):
    """And in its own folder and session, as a process that a command starts, and draws inline."""
    sources = [
        "import os, sys\nfrom pathlib import Path",
        "assert {'tensorflow', 'course_utils.plots'} <= set(sys.modules)",
        f"assert Path.cwd() == Path({str(project / 'notebooks')!r})",
        "assert os.getsid(0) == os.getpid() and sys.path[0] == ''",
    ]
    drawing = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    notebook(project / "notebooks/02_fine.ipynb", *sources, drawing)
    code, _, errors = execute(project)
    assert code == 0, errors
    ran = (project / "_build/.jupyter_cache").rglob("*.ipynb")
    assert sum("image/png" in path.read_text() for path in ran) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not forked")
def test_importing_the_package_starts_no_thread():
    """None would run in the kernels that are forked afterwards."""
    source = """
import os, course_utils
for name in course_utils.__all__:
    getattr(course_utils, name)
print(len(os.listdir("/proc/self/task")))
"""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = [sys.executable, "-c", source]
    found = subprocess.run(run, env=os.environ | one, capture_output=True, text=True)
    assert found.stdout == "1\n", found.stderr


def test_a_figure_is_drawn_once_and_as_ever(script, monkeypatch):
    """With the pixels of the PNG that IPython would show."""

    def figure(layout):
        figure, axes = plt.subplots(2, 2, figsize=(8, 5), layout=layout)
        drawn = axes[0, 0].imshow([[0, 1], [2, 3]])
        figure.colorbar(drawn, ax=axes[:, 0], label="a bar")
        axes[1, 1].plot([1e-3, 3e4], label="a legend beside its axes")
        axes[1, 1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.suptitle("a title that is wider than all of the axes below it " * 2)
        return figure

    draws, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda *given: draws.append(draw(*given)))
    for layout in (None, "constrained"):
        as_ever, size = retina_figure(figure(layout), bbox_inches="tight")
        draws.clear()
        once = figure(layout)
        engine, dpi = once.get_layout_engine(), once.dpi
        drawn = base64.b64decode(script.as_webp(once))
        webp, png = (Image.open(io.BytesIO(data)) for data in (drawn, as_ever))
        assert webp.format == "WEBP"
        assert [side // 2 for side in webp.size] == [size["width"], size["height"]]
        np.testing.assert_array_equal(webp.convert("RGB"), png.convert("RGB"))
        assert len(draws) == 1
        assert (once.get_layout_engine(), once.dpi) == (engine, dpi)
        plt.close("all")
    assert script.as_webp(plt.figure()) is None, "an empty figure is not shown"
    plt.close("all")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each kernel starts as ever")
def test_a_kernel_draws_a_figure_once(project):
    drawn = "Figure.draw = lambda *given: drawn.append(draw(*given))"
    notebook(
        project / "notebooks/02_fine.ipynb",
        f"from matplotlib.figure import Figure\ndrawn, draw = [], Figure.draw\n{drawn}",
        "import matplotlib.pyplot as plt\nplt.subplots()\nplt.show()",
        "plt.subplots();",  # shown as the cell ends
        "assert len(drawn) == 2, drawn",
    )
    code, _, errors = execute(project)
    assert code == 0, errors


@pytest.mark.slow
def test_a_kernel_that_dies_is_named(project):
    notebook(project / "notebooks/02_fine.ipynb", "x = 1", "import os; os._exit(3)")
    code, _, errors = execute(project)
    assert code == 1
    assert "notebooks/02_fine.ipynb: cell 2 of 2 failed with DeadKernelError" in errors


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_was_done(project):
    notebook(project / "notebooks/01_good.ipynb", "import time; time.sleep(300)")
    command = [sys.executable, project / "book/_ext/execute.py"]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background hands down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in run.stdout:
        if "02_fine" in line:
            break
    os.killpg(run.pid, signal.SIGINT)  # what Ctrl-C sends to everything in the terminal
    assert "What had been executed is kept" in run.communicate(timeout=200)[1]  # and not 300
    assert run.returncode == 1
    notebook(project / "notebooks/01_good.ipynb", "print(5)")
    assert "Executing 1 of 2" in execute(project)[1]


def test_publishing_elsewhere_changes_every_place(project):
    old = "owner--not-set/opening-the-black-box"
    shutil.copy(ROOT / "_config.yml", project)
    (project / "README.md").write_text(f"[here](https://github.com/{old})")
    notebook(project / "notebooks/01_good.ipynb", SETUP)
    notebook(project / "book/page.ipynb", SETUP)
    publish = [sys.executable, project / "book/_ext/publish_as.py"]
    subprocess.run([*publish, "ada-l/black.box"], check=True, capture_output=True)
    for file in ("_config.yml", "README.md", "notebooks/01_good.ipynb", "book/page.ipynb"):
        text = (project / file).read_text()
        assert "ada-l/black.box" in text, file
        assert old not in text, file
    subprocess.run([*publish, "grace/other"], check=True, capture_output=True)
    assert "https://github.com/grace/other" in (project / "README.md").read_text()


@pytest.mark.parametrize(
    "name",
    ["", "ada", "ada/", "a--b/c", "-a/c", "a-/c", "https://github.com/a/b", "a/b/c", "a b/c"],
)
def test_what_cannot_be_a_repository_is_refused(project, name):
    shutil.copy(ROOT / "_config.yml", project)
    before = (project / "_config.yml").read_text()
    publish = [sys.executable, project / "book/_ext/publish_as.py", name]
    run = subprocess.run(publish, capture_output=True, text=True)
    assert run.returncode == 1
    assert "expected owner/name" in run.stderr
    assert (project / "_config.yml").read_text() == before


def test_no_file_names_a_registry_or_a_path_of_a_machine():
    pattern = (
        r"(^|[^.[:alnum:]_])/(work|tmp|root|home)/|pypi\.org|registry\.npmjs|files\.pythonhosted"
    )
    grep = [
        "git",
        "grep",
        "-nIE",
        pattern,
        "--",
        ".",
        ":!tests/test_build.py",
        ":!tests/site",
        ":!.ci",
    ]
    found = subprocess.run(grep, cwd=ROOT, capture_output=True, text=True).stdout
    assert not found, found


@pytest.mark.parametrize(("owner", "published"), [("owner--not-set", False), ("ada", True)])
def test_buttons_lead_to_the_repository_once_its_owner_is_set(owner, published, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    course_site = importlib.import_module("course_site")
    address = {"repository_url": f"https://github.com/{owner}/course"}
    theme = address | {"launch_buttons": {"colab_url": "x"}, "use_repository_button": True}
    app, config = SimpleNamespace(tags=set()), SimpleNamespace(html_theme_options=theme)
    course_site.hide_unset_address(app, config)
    assert ("repository_url" in theme) == ("launch_buttons" in theme) == published
    assert theme["use_repository_button"] == published
    assert app.tags == ({"published"} if published else set())
    cells = [nbformat.v4.new_markdown_cell("# A lab\n\nIts text.")]
    lab = nbformat.v4.new_notebook(cells=cells)
    page = course_site.lab_page("lime", lab, lab, theme)
    assert ("colab.research.google.com/github/ada/course/blob/labs/lime" in page) == published


def test_each_line_of_code_knows_its_indent_and_the_page_stays_as_it_was(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    course_site = importlib.import_module("course_site")
    code = 'def f(x):\n    """A string\n\n      of three lines."""\n    return x\n'
    block = highlight(code, PythonLexer(), HtmlFormatter())
    body = f"{block}<p>What it prints:</p><pre>\n    1\n</pre>{block}"
    context = {"body": body}
    course_site.mark_lines(None, None, None, context, None)
    lines = BeautifulSoup(context["body"], "html.parser").select(".code-line")
    assert [line["style"] for line in lines] == [f"--indent: {n}" for n in (0, 4, 0, 6, 4)] * 2
    assert "".join(line.get_text() for line in lines) == code * 2
    assert re.sub(r'<span class="code-line"[^>]+>(.*\n)</span>', r"\1", context["body"]) == body
    course_site.mark_lines(None, None, None, bare := {}, None)  # as the page of the search
    assert not bare["body"]


def test_sphinx_is_told_to_mark_the_lines_of_each_page(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    course_site = importlib.import_module("course_site")
    monkeypatch.setattr(course_site, "STATIC", tmp_path)
    told = []

    def tell(*what, **options):
        told.append(what)

    names = ("add_directive", "add_css_file", "add_js_file", "connect")
    course_site.setup(SimpleNamespace(**dict.fromkeys(names, tell)))
    assert ("html-page-context", course_site.mark_lines) in told


def test_a_labs_page_shows_what_its_given_cells_put_out(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    course_site, script = map(importlib.import_module, ("course_site", "execute"))
    for module, name, value in (
        (course_site, "ROOT", tmp_path),
        (script, "BUILD", tmp_path / "_build"),
        (script, "GIVEN", tmp_path / "_build/given"),
    ):
        monkeypatch.setattr(module, name, value)
    given, task, check, free = (
        nbformat.v4.new_code_cell(f"source of {name}")
        for name in ("given", "task", "check", "free")
    )
    for cell, grade, solution in ((given, False, False), (task, False, True), (check, True, False)):
        cell.metadata["nbgrader"] = {"grade": grade, "solution": solution, "grade_id": "x"}
    given.metadata["mystnb"] = {"image": {"alt": "A dot."}}
    opening = nbformat.v4.new_markdown_cell("# Dots\n\nLook.")
    lab = nbformat.v4.new_notebook(cells=[opening, given, task, check, free])
    (tmp_path / "_build/labs/dots").mkdir(parents=True)
    nbformat.write(lab, tmp_path / "_build/labs/dots/dots.ipynb")

    (path,) = script.write_given()
    ran = nbformat.read(path, 4)
    assert [cell.source for cell in ran.cells] == ["# Dots\n\nLook.", "source of given"]
    ran.cells[1].outputs = [
        nbformat.v4.new_output("stream", text="right on 7"),
        nbformat.v4.new_output("execute_result", {"text/plain": "returned"}),
        nbformat.v4.new_output("display_data", {"image/png": "aGVsbG8=", "text/plain": "Figure"}),
    ]
    page = course_site.lab_page("dots", lab, ran, {})
    before, shown = page.split("source of given")
    assert "right on 7" not in before
    assert "returned" not in page
    shown, _ = shown.split("source of task")
    assert "```text\nright on 7\n```" in shown
    picture = f"_build/jupyter_execute/lab_dots_{given.id}.png"  # ids are unique in one notebook
    assert f"```{{image}} /{picture}\n:alt: A dot.\n```" in shown
    assert (tmp_path / picture).read_bytes() == b"hello"


def test_a_figure_keeps_its_pixels_and_gets_its_size_on_the_page(tmp_path, monkeypatch):
    """A WebP by a PNG's name, as a kernel draws it; a sharp PNG; a plain one."""
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    pictures = importlib.import_module("pictures")
    folder = tmp_path / "_build/jupyter_execute"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    for name, options in {
        "webp": {"format": "WEBP", "lossless": True},
        "sharp": {"format": "PNG", "dpi": (144, 144)},
        "plain": {"format": "PNG"},
    }.items():
        Image.fromarray(pixels).save(folder / f"{name}.png", **options)
    drawn = [nodes.image(uri=f"/_build/jupyter_execute/{path.name}") for path in folder.iterdir()]
    drawn.sort(key=lambda node: node["uri"])  # plain, sharp, webp
    pictures.sharpen(SimpleNamespace(srcdir=tmp_path), nodes.paragraph("", "", *drawn))
    assert [node["width"] for node in drawn] == ["80px", "40px", "40px"]
    for node in drawn:
        with Image.open(tmp_path / node["uri"].lstrip("/")) as figure:
            assert figure.format == "WEBP"
            np.testing.assert_array_equal(figure.convert("RGB"), pixels)
    assert (folder / "webp.webp").read_bytes() == (folder / "webp.png").read_bytes()
