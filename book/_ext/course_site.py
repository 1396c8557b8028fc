"""What the site needs beyond Jupyter Book: its own MathJax, the gallery, the table of times."""

import base64
import json
import shutil
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "_build" / "static"
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
            for output in cell.get("outputs", []):
                if png := output.get("data", {}).get("image/png"):
                    alt = cell.metadata["mystnb"]["image"]["alt"]
                    yield path.stem, title, alt, base64.b64decode(png)


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
    app.add_directive("execution-table", ExecutionTable)
    app.add_js_file(None, body=SEARCH_FROM_DISK)
    app.connect("builder-inited", copy_mathjax)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
