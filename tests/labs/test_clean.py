"""What is left of a hostile notebook, what stays of an honest one, and how much is put out."""

import base64
import io
import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks/labs/tools"), str(Path(__file__).parent)]

import clean  # noqa: E402
import grade  # noqa: E402
import kernel  # noqa: E402
import pages  # noqa: E402
import payloads  # noqa: E402
import sandbox  # noqa: E402

URL = "http://127.0.0.1:9"
caged = pytest.mark.skipif(
    not (shutil.which("bwrap") and shutil.which("prlimit")),
    reason="students' notebooks run in a sandbox or not at all: apt-get install bubblewrap",
)


class Forbidden(HTMLParser):
    """Collects what must not be in a page, as a parser that is not nh3's reads it."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        """Note elements and attributes that are on no list."""
        if tag not in clean.TAGS:
            self.found.append(tag)
        for name, value in attributes:
            links = name == "href" and value.startswith(("http://", "https://", "mailto:"))
            shows = name == "src" and value.startswith("data:image/")
            plain = name in (
                "alt",
                "class",
                "colspan",
                "height",
                "rel",
                "rowspan",
                "start",
                "width",
            )
            opens = (name, value) == ("target", "_blank")
            styles = name == "style" and "(" not in value
            if not (links or shows or plain or opens or styles):
                self.found.append((tag, name, value))

    def handle_decl(self, text):
        """Note declarations."""
        self.found.append(text)

    handle_comment = handle_pi = unknown_decl = handle_decl


def written(text, attachments=None):
    """Markdown as it is stored."""
    return clean.written(text, attachments, clean.Album())


def picture(size=(3, 2), kind="PNG"):
    """A picture in base64."""
    buffer = io.BytesIO()
    Image.new("1" if kind == "PNG" else "RGB", size).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("name", payloads.texts(URL))
def test_no_text_keeps_what_could_act(name):
    stored = written(payloads.texts(URL)[name])
    assert Forbidden(markdown2html_mistune(stored)).found == []
    if stored.startswith("<"):  # then nothing reads it as Markdown again
        assert markdown2html_mistune(stored).strip() == stored


def test_no_output_metadata_or_name_keeps_what_could_act():
    stored = clean.notebook(nbformat.from_dict(payloads.notebook(URL)))
    nbformat.validate(stored)
    assert stored.metadata == {"kernelspec": clean.KERNELSPEC}
    assert all(cell.metadata == {} and "attachments" not in cell for cell in stored.cells)
    outputs = [output for cell in stored.cells for output in cell.get("outputs", [])]
    assert {o.name for o in outputs if o.output_type == "stream"} == {"stdout"}
    for output in outputs:
        data = output.get("data", {})
        assert set(data) <= {"text/plain", "text/html", "image/png", "image/jpeg", "image/gif"}
        assert not output.get("metadata")
        assert Forbidden(data.get("text/html", "")).found == []


def test_what_students_write_stays_to_be_read():
    plain = "Because $x_1 < 2$, *this*:\n\n- a\n- b".replace("<", r"\lt")
    assert written(plain) == plain
    text = BeautifulSoup(
        written(
            "## Head\n\n| a | b |\n|---|---|\n| $x_i$ | `c<d>` |\n\n"
            "```python\nif a:\n\n    b\n```\n\n"
            "$a<b$ [link](https://example.org/?a=1) x<y & <b>bold</b> <sub>2</sub>"
        ),
        "html.parser",
    )
    assert [text.h2.text, text.td.text, text.code.text] == ["Head", "$x_i$", "c<d>"]
    assert text.find("div", class_="highlight").pre.text == "if a:\n\n    b\n"
    assert text.a["href"] == "https://example.org/?a=1"
    assert "$a<b$ link x<y & bold 2" in text.text
    assert [text.b.text, text.sub.text] == ["bold", "2"]


def test_a_link_that_leads_nowhere_from_the_page_is_its_text():
    kept = ("https://doi.org/10.1/x", "#double", "mailto:a@b.c")
    gone = ("../chapters/03_occlusion.ipynb", "x.html#y", "?q", "/etc")
    body = "".join(f'<p><a href="{link}">to <b>{link}</b></a></p>' for link in kept + gone)
    page = BeautifulSoup(
        pages.alone(f"<html><head></head><body>{body}</body></html>"), "html.parser"
    )
    assert [a["href"] for a in page.find_all("a")] == list(kept)
    assert [p.text for p in page.find_all("p")] == [f"to {link}" for link in kept + gone]


def test_pasted_pictures_stay():
    png, jpeg = picture(), picture(kind="JPEG")
    attached = {"my pic.png": {"image/png": png}}
    stored = written(f"![a](attachment:my%20pic.png) ![b](data:image/jpeg;base64,{jpeg})", attached)
    sources = [image["src"] for image in BeautifulSoup(stored, "html.parser").find_all("img")]
    assert sources == [f"data:image/png;base64,{png}", f"data:image/jpeg;base64,{jpeg}"]


def test_a_picture_that_takes_gigabytes_to_show_goes():
    album = clean.Album()
    assert album.add(picture((20_000, 20_000))) is None
    assert album.add(picture((9_000, 9_000)))
    assert album.add(picture((9_000, 9_000))) is None  # the two together


def test_tables_of_pandas_and_summaries_of_keras_stay():
    table = '<style scoped>x</style><table border="1" class="dataframe"><tr><th>a</th></tr></table>'
    summary = '<span style="color: #00af00">1</span>'
    summary = f'<pre style="white-space:pre;position:fixed">{summary}</pre>'
    made = clean.safe(table + summary, {}, clean.Album())
    assert made == (
        '<table class="dataframe"><tbody><tr><th>a</th></tr></tbody></table>'
        '<pre style="white-space:pre"><span style="color:#00af00">1</span></pre>'
    )


def test_formulas_become_pictures_and_their_commands_nothing_else():
    tex = [text for name, text in payloads.texts(URL).items() if name.startswith("tex-")]
    body = " ".join([r"$\frac{1}{2}$ $$\sum_i x_i$$ <pre>$no$</pre>", *map(written, tex)])
    page = pages.alone(
        f"<html><head><script src='{URL}'></script></head><body>{body}</body></html>"
    )
    soup = BeautifulSoup(page, "html.parser")
    assert len(soup.find_all("mjx-container")) > 10
    assert len(soup.find_all("mjx-container")[0].find_all("path")) == 2
    assert soup.pre.text == "$no$"
    assert soup.find_all(["script", "a", "image", "use", "foreignobject", "style"])[1:] == []
    drawn = soup.find_all(["svg", "g", "path", "rect", "text"])
    found = [(a, v) for element in drawn for a, v in element.attrs.items()]
    assert not [(a, v) for a, v in found if "url" in v or a in ("href", "class", "id", "onclick")]
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("\t=1", "'=1"),
        ("\n \r\n-1", "'-1"),
        ("\u200b@SUM", "\u200b'@SUM"),
        ("＝1", "'＝1"),
        ("a; =1; b", "a; '=1; b"),
        ("two\nlines", "two lines"),
        ("Anne-Marie", "Anne-Marie"),
        ("रीता", "रीता"),
        (1.0, "1"),
    ],
)
def test_no_cell_of_a_table_is_calculated(text, cell):
    assert grade.short(text) == cell


def test_texts_are_cut_and_pictures_are_whole_or_gone():
    whole = {"image/png": "x" * 3_000_000, "text/plain": "y" * 300_000, "n": 1}
    made = kernel.cut(whole, kernel.TEXT)
    assert made["image/png"] == whole["image/png"]
    assert made["text/plain"] == "y" * 100_000 + " ... (cut)"
    assert len(kernel.cut(["z" * 10_000] * 1000, kernel.LINE)) == kernel.PARTS
    assert len(kernel.cut({"image/png": "x" * 5_000_000}, kernel.TEXT)["image/png"]) < 200_000


LIMITS = {
    "disk": "import os\n"
    "for d in (os.environ['MPLCONFIGDIR'], '/tmp', '/dev/shm', '/run', '/usr'):\n"
    "    try:\n"
    "        f = open(d + '/x', 'wb')\n"
    "        for i in range(2000): f.write(bytes(2**20))\n"
    "    except OSError as error: print(error.errno)",
    "free": "import shutil\nos.unlink(os.environ['MPLCONFIGDIR'] + '/x')\nos.unlink('/dev/shm/x')",
    "print": "print('y' * 10**9)",
    "error": "raise ValueError('x' * 40_000_000)",
    "stopped": "class Stopped(Exception): pass\nraise Stopped('=HYPERLINK(1)')",
    "widget": "import ipywidgets\nipywidgets.Output().__enter__()\nraise ValueError('hidden')",
    "points": "print('y' * 10**6)\n1",
    "message": "k = get_ipython().kernel.iopub_thread\n"
    "k.schedule(lambda: k.socket.send_multipart([bytes(10**9)]))",
}


@caged
@pytest.mark.slow
def test_what_is_written_and_put_out_has_bounds(tmp_path):
    path = tmp_path / "limits.ipynb"
    nbformat.write(new_notebook(cells=list(map(new_code_cell, LIMITS.values()))), path)
    code = (
        # Not getrusage's, which begins with what this process held when it started that one.
        "import sandbox, sys; sandbox.main(*sys.argv[1:]); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", code, str(path), "60", "600", "6"]
    done = subprocess.run(
        command, cwd=Path(sandbox.__file__).parent, capture_output=True, check=True
    )
    assert json.loads(done.stdout) < 700_000  # kilobytes, outside the cage
    notebook = nbformat.read(path, 4)
    cells = dict(zip(LIMITS, notebook.cells, strict=True))
    text = {name: "".join(o.get("text", "") for o in cell.outputs) for name, cell in cells.items()}
    assert text["disk"].split() == ["28", "28", "28", "28", "30"]  # full, and read-only
    assert len(text["print"]) < 101_000
    assert len(str(cells["error"].outputs)) < 60_000
    assert cells["error"].outputs[-1].output_type == "error"
    assert "stopped" not in cells["stopped"].metadata
    assert cells["widget"].outputs[-1].evalue == "hidden"
    assert cells["points"].outputs[-1].data["text/plain"] == "1"
    assert all("=HYPERLINK" not in note for note in sandbox.stops(notebook))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<script>x</script> so", "<script>"),
        ("<img src=x onerror='x()'>", "a picture from elsewhere, onerror"),
        ("![so](https://example.org/so.png)", "a picture from elsewhere"),
        ("[here](javascript:alert(1))", "a link to a script"),
        ("<iframe srcdoc='x'></iframe>", "<iframe>"),
        ("<p>It is <b>dark</b>, x < 3 and $a<b$.</p>", ""),
        ("`<script>` is how one begins, and [this](https://example.org) is a link", ""),
        ("![so](attachment:so.png)", ""),
    ],
)
def test_a_note_says_what_was_taken_out_of_an_answer(text, told):
    answer = nbformat.v4.new_markdown_cell(text)
    answer.metadata["nbgrader"] = {"grade_id": "task_8", "solution": True, "grade": True}
    own = nbformat.v4.new_markdown_cell("<script>x</script>")
    cleaned = clean.notebook(new_notebook(cells=[own, answer]))
    assert clean.taken_out(cleaned) == ([f"taken out of task_8: {told}"] if told else [])
