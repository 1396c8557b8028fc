"""What the site needs beyond Jupyter Book: MathJax, icons, explorables, times, labs."""

import base64
import json
import os
import platform
import posixpath
import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from pictures import (
    ROOT,
    STATIC,
    Gallery,
    alt_of,
    executed,
    executed_notebooks,
    figures_of,
    lossless,
    open_with_picture,
    sharpen,
    size_by_style,
    title_of,
)
from scoreboard_page import Scoreboard, ScoreboardNetworks, frame

sys.path.insert(0, str(ROOT / "book/explorables"))
import bundle as explorables

LABS = ROOT / "_build" / "labs"  # as notebooks/labs/tools/release.py wrote them: no solutions
GIVEN = ROOT / "_build" / "given"  # those of their cells that execute.py ran
NPM = ROOT / ".venv/npm/node_modules"


class Explorable(SphinxDirective):
    """An explorable on a page of prose: its static figure is that of the chapter which has it."""

    required_arguments = 1

    def run(self):
        """Find the figure among the executed notebooks, and write it beside the gallery's."""
        name = self.arguments[0]
        folder = STATIC / "gallery"
        folder.mkdir(parents=True, exist_ok=True)
        for _, notebook in executed_notebooks():
            for cell in notebook.cells:
                if cell.metadata.get("explorable") != name:
                    continue
                (png,) = figures_of(cell)
                (folder / f"{name}.webp").write_bytes(lossless(png))
                alt = escape(alt_of(cell))
                figure = f'<img src="../_static/gallery/{name}.webp" alt="{alt}">'
                return [nodes.raw("", explorables.element(name, figure), format="html")]
        raise self.error(f"no notebook has a cell with the metadata explorable: {name}")


def wrap_explorables(app, doctree):
    """Make the figure of each cell that names an explorable the place where it comes to life."""
    for cell in doctree.findall(nodes.container):
        name = cell.get("cell_metadata", {}).get("explorable")
        if name is None:
            continue
        if name not in explorables.names():
            raise ExtensionError(f"there is no book/explorables/{name}.js")
        for output in [n for n in cell.children if n.get("nb_element") == "cell_code_output"]:
            opening, closing = explorables.element(name, "|").split("|")
            place = cell.index(output)
            for caption in list(output.findall(nodes.caption)):  # stays when the picture goes
                caption.parent.remove(caption)
                text = nodes.paragraph("", "", *caption.children, classes=["figure-caption"])
                cell.insert(place + 1, text)
            cell.insert(place + 1, nodes.raw("", closing, format="html"))
            cell.insert(place, nodes.raw("", opening, format="html"))


ELSEWHERE = re.compile(r"On the course.s site (\w+)| \(In a notebook it stands still[^)]*\)")


def speak_here(app, doctree):
    """Let what a notebook says of the site be read in print alone: its reader is not there."""
    for text in list(doctree.findall(nodes.Text)):
        parts, end = [], 0
        for found in ELSEWHERE.finditer(text):
            parts += [nodes.Text(text[end : found.start()])]
            parts += [nodes.inline("", found[0], classes=["in-print"])]
            if found[1]:
                parts += [nodes.inline("", found[1].capitalize(), classes=["on-screen"])]
            end = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def name_folds(app, doctree):
    """A folded cell that puts nothing out has no numbers and no figure whose code it could be."""
    for cell in doctree.findall(nodes.container):
        if "prompt_show" in cell and cell.children[-1].get("nb_element") != "cell_code_output":
            for what in (" of these numbers", " of this figure"):
                cell["prompt_show"] = cell["prompt_show"].removesuffix(what)


class ExecutionTable(SphinxDirective):
    """What each notebook took when it was last executed: its time and the most memory it held."""

    def run(self):
        """Draw the table from what execute.py wrote down."""
        figures = json.loads((ROOT / "_build/execution.json").read_text())
        rows, seconds = [], []
        for name, figure in sorted(figures.items()):
            path = ROOT / name
            if not path.is_file():  # of a notebook that has since been renamed
                continue
            title = title_of(nbformat.read(path, 4))
            page = f"../{path.relative_to(ROOT).with_suffix('.html').as_posix()}"
            if path.parent.name == "given":
                page = f"lab_{path.stem}.html"
            seconds.append(figure["processor"])
            rows.append(
                f'<tr><td><a href="{page}">{escape(title)}</a></td>'
                f"<td>{figure['processor']:.0f} s</td><td>{figure['seconds']:.0f} s</td>"
                f"<td>{figure['megabytes']:,} MB</td></tr>"
            )
        slow = sum(second > 90 for second in seconds)
        said = (
            f"{computer()}: {slow} of {len(rows)} notebooks took more than 90 seconds of the "
            "processor's time."
        )
        head = "<tr><th>notebook</th><th>processor</th><th>clock</th><th>memory</th></tr>"
        html = f'<table class="table figures"><thead>{head}</thead>{"".join(rows)}</table>'
        html = frame("Time and memory", html)
        return [nodes.paragraph("", said), nodes.raw("", html, format="html")]


def computer():
    """What this computer is: its processor, where that can be told, and its cores."""
    name = platform.processor() or platform.machine()
    if (told := Path("/proc/cpuinfo")).is_file():
        name = (re.findall(r"^model name\s*: (.+)$", told.read_text(), re.MULTILINE) or [name])[0]
    return f"{name}, {os.cpu_count()} cores"


def fill_in_lab(app, docname, source):
    """Put the tasks of a lab, as its students get them, in the place of ```{lab} name```."""
    asked = re.search(r"^```\{lab\} (\w+)\n```$", source[0], re.MULTILINE)
    if asked:
        path = LABS / asked[1] / f"{asked[1]}.ipynb"
        app.env.note_dependency(str(path))
        shutil.copytree(path.parent, STATIC / "labs", dirs_exist_ok=True)
        notebook, given = nbformat.read(path, 4), executed(GIVEN / path.name)
        page = lab_page(asked[1], notebook, given, app.config.html_theme_options)
        source[0] = source[0].replace(asked[0], page)


def lab_page(name, notebook, given, theme):
    """A lab as Markdown: its title, where to get it, its text, and its code as students see it.

    Cells of `given`, its notebook of those that run as they are, are followed by what they put out.
    """
    shown = ("stream", "display_data")  # and not the variant's number, which a cell returns
    outputs = {
        cell.id: [o for o in cell.get("outputs", []) if o.output_type in shown]
        for cell in given.cells
    }
    links = f'<a href="../_static/labs/{name}.ipynb" download>Download the notebook</a>'
    if repository := theme.get("repository_url"):
        place = repository.rstrip("/").removeprefix("https://github.com/") + "/blob/labs"
        colab = f"https://colab.research.google.com/github/{place}/{name}/{name}.ipynb"
        links += f' <a href="{colab}">Open it on Colab</a>'
    title, _, opening = notebook.cells[0].source.partition("\n")
    parts = [title, f'<p class="lab-links">{links}</p>', at_home(opening, name)]
    for cell in notebook.cells[1:]:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and marks.get("grade_id") != "setup":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [output_block(o, name, cell) for o in outputs.get(cell.id, [])]
        elif cell.cell_type == "markdown":
            parts.append(f"*{cell.source}*" if marks else at_home(cell.source, name))
    return "\n\n".join(parts)


def output_block(output, name, cell):
    """What a cell of a lab put out as Markdown: its text, its table, or its picture."""
    data = output.get("data", {})
    if png := data.get("image/png"):  # to be where `sharpen` looks
        picture = Path("_build/jupyter_execute") / f"lab_{name}_{cell.id}.png"
        (ROOT / picture).parent.mkdir(exist_ok=True)
        (ROOT / picture).write_bytes(base64.b64decode(png))
        inner = f"```{{image}} /{picture.as_posix()}\n:alt: {alt_of(cell)}\n```"
    elif "text/html" in data:
        plain = re.sub(r'<span style="[^"]*">', "<span>", data["text/html"])  # too pale colours
        inner = f"```{{raw}} html\n{plain}\n```"
    else:
        inner = f"```text\n{output.get('text') or data.get('text/plain', '')}\n```"
    return f"````{{container}} cell_output\n{inner}\n````"


def at_home(markdown, name):
    """Markdown whose relative links, written for a lab's folder, are those of a page in book/."""

    def link(match):
        target = match[1].replace("../chapters/", "../../")  # in what students are handed
        target = posixpath.normpath(posixpath.join("notebooks/labs", name, target))
        return f"]({posixpath.relpath(target, 'book')}"

    return re.sub(r"\]\((?!https?:|#)([^)\s#]+)", link, markdown)


def copy_mathjax(app):
    """Put MathJax, as npm installed it, among the site's own files."""
    target = STATIC / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(NPM / "mathjax/es5/tex-svg.js", target / "tex-svg.js")


def copy_icons(app):
    """Put the icons that the pages use in the place of the theme's 1.5 MB of all there are."""
    scripts = Path(app.outdir) / "_static" / "scripts"
    command = [NPM / ".bin/esbuild", ROOT / "book/_ext/icons.js", "--bundle", "--minify"]
    command += [f"--outfile={scripts / 'fontawesome.js'}", "--log-level=warning"]
    command += ["--allow-overwrite", "--legal-comments=eof"]
    subprocess.run(command, check=True, env=os.environ | {"NODE_PATH": str(NPM)})


# What each page of the theme fetches, and the sign of a page that has a use for it.
FETCHED = [
    (r"<script [^>]*(searchindex|searchtools|language_data)\.js[^>]*></script>", "search-results"),
    (r"<script [^>]*mathjax/[^>]*></script>", r'class="[^"]*\b(math|text_latex)\b'),
    (r"<script [^>]*design-tabs\.js[^>]*></script>", r'class="sd-tab'),
    (r"<link [^>]*sphinx-design\.min\.css[^>]*>", r'class="[^"]*\bsd-'),
]


ICON_FONT = re.compile(
    r"@font-face\s*\{[^}]*/fontawesome/[^}]*\}"
    r"|(?:\.fa-[\w-]+(?:::?before)?,?)+\{content:[^}]*\}"
)


def lighten(app, exception):
    """Let no page fetch what it has no use for, and leave out what nobody needs."""
    if exception or app.builder.name != "html":
        return
    copy_icons(app)
    for path in Path(app.outdir).rglob("*.html"):
        text = whole = path.read_text(encoding="utf8")
        for fetched, sign in FETCHED:
            if not re.search(sign, whole):
                text = re.sub(fetched, "", text)
        if text != whole:
            path.write_text(text, encoding="utf8")
    # The icons are drawn by a script: no page needs their font of 156 kB, and its style sheet's
    # two thousand names of them.
    style = Path(app.outdir) / "_static/styles/pydata-sphinx-theme.css"
    style.write_text(re.sub(ICON_FONT, "", style.read_text(encoding="utf8")), encoding="utf8")
    shutil.rmtree(Path(app.outdir) / "_static/vendor/fontawesome", ignore_errors=True)
    for source_map in Path(app.outdir).rglob("*.map"):
        source_map.unlink()


def settle(app, config):
    """Set what Jupyter Book's own settings would have otherwise."""
    config.numfig = False  # course.css numbers the figures of each page
    config.html_search_scorer = str(ROOT / "book/_ext/scorer.js")
    if sys.platform == "linux":  # Sphinx forks, like execute.py
        app.parallel = min(os.cpu_count() or 1, 4)
    # It numbers chapters when all are read, and does not say that this is safe.
    app.extensions["sphinx_multitoc_numbering"].parallel_read_safe = True


def hide_unset_address(app, config):
    """Leave out every button that would lead to the repository until its owner has named it."""
    options = config.html_theme_options
    if "--" in options.get("repository_url", "").partition("github.com/")[2].partition("/")[0]:
        for option in ("repository_url", "launch_buttons"):
            options.pop(option, None)
        options |= {"use_repository_button": False, "use_issues_button": False}
    else:
        app.tags.add("published")


# A page opened from a disk may not fetch another, which is where the search takes excerpts from.
SEARCH_FROM_DISK = "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:';"


def drop_thebe(app, pagename, templatename, context, doctree):
    """Leave out sphinx-thebe, which throws an error on every page and which no page uses."""
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context.get(kind, [])
            if "thebe" not in str(getattr(file, "filename", file) or "")
            and "THEBE" not in str(getattr(file, "attributes", {}).get("body", ""))
        ]


CODE = re.compile(r'(<div class="highlight"><pre>)(.+?)(</pre>)', re.DOTALL)


def mark_lines(app, pagename, templatename, context, doctree):
    """Give each line of code an element that knows its indent, for course.css to wrap it by."""

    def mark(found):
        lines = []
        for line in found[2].splitlines():
            text = re.sub("<[^>]+>", "", line)
            indent = len(text) - len(text.lstrip())
            lines.append(f'<span class="code-line" style="--indent: {indent}">{line}\n</span>')
        return "".join([found[1], *lines, found[3]])

    context["body"] = CODE.sub(mark, context.get("body") or "")


def skip_alias(app, what, name, obj, skip, options):
    """Leave out a record's fields where nothing is said of them but their number."""
    return skip or str(getattr(obj, "__doc__", "")).startswith("Alias for field number")


def setup(app):
    """Register all of it with Sphinx."""
    STATIC.mkdir(parents=True, exist_ok=True)  # before Sphinx looks whether it is there
    app.add_directive("gallery", Gallery)
    app.add_directive("explorable", Explorable)
    app.add_css_file("explorables/explorables.css")
    app.add_js_file("explorables/loader.js", loading_method="defer")
    app.add_directive("execution-table", ExecutionTable)
    app.add_directive("scoreboard", Scoreboard)
    app.add_directive("scoreboard-networks", ScoreboardNetworks)
    app.add_js_file(None, body=SEARCH_FROM_DISK)
    app.connect("config-inited", settle)
    app.connect("config-inited", hide_unset_address)
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", lambda app: explorables.build(STATIC / "explorables"))
    app.connect("doctree-read", open_with_picture, priority=399)
    app.connect("doctree-read", speak_here)
    app.connect("doctree-read", name_folds)
    app.connect("doctree-read", wrap_explorables)
    app.connect("doctree-read", sharpen, priority=400)  # before Sphinx collects the pictures
    app.connect("build-finished", lighten)
    app.connect("source-read", fill_in_lab)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", size_by_style)
    app.connect("html-page-context", mark_lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
