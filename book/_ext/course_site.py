"""What the site needs beyond Jupyter Book: MathJax, gallery, times, labs, explorables."""

import base64
import json
import posixpath
import re
import shutil
import sys
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/explorables"))
import bundle as explorables  # noqa: E402

STATIC = ROOT / "_build" / "static"
LABS = ROOT / "_build" / "labs"  # as notebooks/labs/tools/release.py wrote them: no solutions
MATHJAX = ROOT / ".venv/npm/node_modules/mathjax/es5/tex-svg.js"


def executed_notebooks():
    """Each chapter's path with the notebook as it was executed, in the order of the chapters."""
    cache = get_cache(ROOT / "_build/.jupyter_cache")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, 4)
        yield path, cache.merge_match_into_notebook(notebook)[1]


def gallery_pictures():
    """The figures of cells tagged "gallery": (chapter, its title, alt text, PNG bytes)."""
    for path, notebook in executed_notebooks():
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        for cell in notebook.cells:
            if "gallery" not in cell.metadata.get("tags", []):
                continue
            for png in figures_of(cell):
                yield path.stem, title, cell.metadata["mystnb"]["image"]["alt"], png


def figures_of(cell):
    """The figures that a cell of an executed notebook has drawn, as PNG bytes."""
    outputs = (output.get("data", {}) for output in cell.get("outputs", []))
    return [base64.b64decode(data["image/png"]) for data in outputs if "image/png" in data]


class Gallery(SphinxDirective):
    """A picture from each chapter, each a link to where it comes from."""

    def run(self):
        """Write the pictures where the site's static files lie, and link them."""
        folder = STATIC / "gallery"
        folder.mkdir(parents=True, exist_ok=True)
        cards = []
        for number, (chapter, title, alt, png) in enumerate(gallery_pictures()):
            file = f"{chapter}-{number}.png"
            (folder / file).write_bytes(png)
            cards.append(
                f'<a class="gallery-card" href="../notebooks/{chapter}.html">'
                f'<img src="../_static/gallery/{file}" alt="{escape(alt)}" loading="lazy">'
                f"<span>{escape(title)}</span></a>"
            )
        html = f'<div class="gallery">{"".join(cards)}</div>'
        return [nodes.raw("", html, format="html")]


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
                (folder / f"{name}.png").write_bytes(png)
                alt = escape(cell.metadata["mystnb"]["image"]["alt"])
                figure = f'<img src="../_static/gallery/{name}.png" alt="{alt}">'
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
            cell.insert(place + 1, nodes.raw("", closing, format="html"))
            cell.insert(place, nodes.raw("", opening, format="html"))


class ExecutionTable(SphinxDirective):
    """What each notebook took when it was last executed: its time and the most memory it held."""

    def run(self):
        """Draw the table from what execute.py wrote down."""
        figures = json.loads((ROOT / "_build/execution.json").read_text())
        rows = []
        for name, figure in sorted(figures.items()):
            path = ROOT / name
            if not path.is_file():  # of a notebook that has since been renamed
                continue
            title = nbformat.read(path, 4).cells[0].source.splitlines()[0].lstrip("# ")
            page = f"../{path.relative_to(ROOT).with_suffix('.html').as_posix()}"
            rows.append(
                f'<tr><td><a href="{page}">{escape(title)}</a></td>'
                f"<td>{figure['seconds']:.0f} s</td><td>{figure['megabytes']:,} MB</td></tr>"
            )
        head = "<tr><th>notebook</th><th>time</th><th>memory</th></tr>"
        html = f'<table class="table figures"><thead>{head}</thead>{"".join(rows)}</table>'
        return [nodes.raw("", html, format="html")]


def fill_in_lab(app, docname, source):
    """Put the tasks of a lab, as its students get them, in the place of ```{lab} name```."""
    asked = re.search(r"^```\{lab\} (\w+)\n```$", source[0], re.MULTILINE)
    if asked:
        path = LABS / asked[1] / f"{asked[1]}.ipynb"
        app.env.note_dependency(str(path))
        shutil.copytree(path.parent, STATIC / "labs", dirs_exist_ok=True)
        page = lab_page(asked[1], nbformat.read(path, 4), app.config.html_theme_options)
        source[0] = source[0].replace(asked[0], page)


def lab_page(name, notebook, theme):
    """A lab as Markdown: its title, where to get it, its text, and its code as students see it."""
    repository = theme["repository_url"].rstrip("/").removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{repository}/blob/labs/{name}/{name}.ipynb"
    title, _, opening = notebook.cells[0].source.partition("\n")
    parts = [
        title,
        f'<p class="lab-links"><a href="../_static/labs/{name}.ipynb" download>Download the '
        f'notebook</a> <a href="{colab}">Open it on Colab</a></p>',
        at_home(opening, name),
    ]
    for cell in notebook.cells[1:]:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and marks.get("grade_id") != "setup":
            parts.append(f"```python\n{cell.source}\n```")
        elif cell.cell_type == "markdown":
            parts.append(f"*{cell.source}*" if marks else at_home(cell.source, name))
    return "\n\n".join(parts)


def at_home(markdown, name):
    """Markdown whose relative links, written for a lab's folder, are those of a page in book/."""

    def link(match):
        target = posixpath.normpath(posixpath.join("notebooks/labs", name, match[1]))
        return f"]({posixpath.relpath(target, 'book')}"

    return re.sub(r"\]\((?!https?:|#)([^)\s#]+)", link, markdown)


def copy_mathjax(app):
    """Put MathJax, as npm installed it, among the site's own files."""
    target = STATIC / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MATHJAX, target / "tex-svg.js")


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
    app.add_js_file(None, body=SEARCH_FROM_DISK)
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", lambda app: explorables.build(STATIC / "explorables"))
    app.connect("doctree-read", wrap_explorables)
    app.connect("source-read", fill_in_lab)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
