"""Serve nbgrader's formgrader, and nothing else, for a folder that grade.py has made.

    python notebooks/labs/tools/formgrade.py FOLDER-graded [options of Jupyter Server]

(make formgrade GRADED=folder-graded). What students wrote is clean when it is stored (clean.py).
Should that fail, it meets three more walls here: another sanitiser, a content security
policy that lets only the pages' own scripts run and loads nothing from elsewhere, and a server that
starts no kernel, opens no file and reads no other folder's configuration.
"""

import os
import re
import secrets
import sys
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import bleach
import jinja2
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup
from jinja2.ext import Extension
from jupyter_server.serverapp import ServerApp
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbgrader.server_extensions.formgrader import apihandlers, handlers
from nbgrader.server_extensions.formgrader.formgrader import FormgradeExtension
from tornado.web import RedirectHandler, RequestHandler, StaticFileHandler
from traitlets.config import Config

import clean
import grade
import pages
import release

NONCE = secrets.token_urlsafe(16)  # known to no notebook: they were all written before
# What formgrader's templates have in onclick="".
ONCLICK = ("toggle_name(true);", "toggle_name(false);", "toggleAllNames()")
ONCLICK += ("createAssignmentModal();", "createStudentModal();")
HASHES = " ".join(f"'sha256-{b64encode(sha256(s.encode()).digest()).decode()}'" for s in ONCLICK)
POLICY = "; ".join(
    [
        "default-src 'none'",
        f"script-src 'nonce-{NONCE}' 'unsafe-hashes' {HASHES}",
        f"style-src-elem 'nonce-{NONCE}'",
        "style-src-attr 'unsafe-inline'",
        "img-src data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
# MathJax has set the formulas already; formgrader's script waits for the browser's to have done so.
MATHJAX = """{% macro mathjax() %}<script>
window.MathJax = {Hub: {Startup: {signal: {Interest: (tell) => $(() => tell("End"))}}}};
</script>{% endmacro %}"""
MODEL = """<details class="panel panel-info"><summary class="panel-heading">Model answer, and what
to look for</summary><div class="panel-body rendered_html">{}</div></details>"""
# Marking needs none of what runs nbgrader's other steps, some of them without a cage.
STEPS = ("assign", "release", "unrelease", "collect", "autograde")
STEPS += ("generate_feedback", "release_feedback")
# The first loads the configuration of a folder that the address names, the second any file.
CLOSED = (handlers.FormgraderHandler, handlers.SubmissionFilesHandler)


class Nonces(Extension):
    """Marks what a template itself holds as the page's own; what is put into it is not."""

    def preprocess(self, source, name, filename=None):
        """Give each script and style sheet of a template the nonce."""
        source = re.sub(r"<(script|style|link)\b", rf'<\1 nonce="{NONCE}"', source)
        return source.replace("| markdown2html", "| markdown2html | clean_html")


class Marking(HTMLExporter):
    """Formgrader's page of a notebook, with the formulas set and model answers beside open ones."""

    def from_notebook_node(self, notebook, resources=None, **kwargs):
        """The page and its resources, as every exporter returns them."""
        page, resources = super().from_notebook_node(notebook, resources, **kwargs)
        soup = BeautifulSoup(page, features="html.parser")
        add_models(soup, resources.get("assignment_id", ""))
        return pages.typeset(soup, NONCE), resources


def add_models(soup, lab):
    """Put the lab's own answer to each open question below the student's, with its criteria."""
    path = release.LABS / lab / f"{lab}.ipynb"
    source = nbformat.read(path, 4).cells if path.is_file() else []
    for cell in source:
        mark = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and mark.get("grade") and mark.get("solution"):
            field = soup.find("input", id=mark["grade_id"])
            panel = field and field.find_parent("div", class_="nbgrader_cell")
            if panel:
                text = markdown2html_mistune(cell.source)
                panel.insert_after(BeautifulSoup(MODEL.format(text), features="html.parser"))


class Nothing(RequestHandler):
    """Every address that is not formgrader's."""

    def get(self):
        """Say why there is nothing."""
        self.set_status(404)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(
            "There is only formgrader here. What students handed in is run in the cage of make "
            "grade and nowhere else, so that no notebook can be opened from this page."
        )

    post = put = patch = delete = get


def application(folder, arguments=()):
    """Jupyter's server with formgrader for the folder, which is not started yet."""
    os.environ["JUPYTER_NO_CONFIG"] = "1"
    os.chdir(folder)
    config = Config()
    config.ServerApp.jpserver_extensions = {}
    config.ServerApp.default_url = "/formgrader/gradebook"
    config.ServerApp.terminals_enabled = False
    config.ServerApp.answer_yes = True  # Ctrl-C is no question
    config.ServerApp.log_level = "ERROR"
    config.ServerApp.tornado_settings = {
        "headers": {
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
            "X-DNS-Prefetch-Control": "off",
        },
    }
    server = ServerApp(config=config)
    server.initialize(list(arguments), find_extensions=False)
    formgrader = FormgradeExtension(parent=server)
    formgrader.root_dir = server.root_dir
    formgrader.initialize([])
    formgrader.init_tornado_settings(server.web_app)
    settings = server.web_app.settings
    settings["nbgrader_jinja2_env"].add_extension(Nonces)
    settings["nbgrader_exporter"] = exporter(formgrader.config)
    server.web_app.add_handlers(".*$", routes(settings["base_url"].rstrip("/")))
    return server


def exporter(config):
    """The exporter that makes formgrader's page of a notebook."""
    made = Marking(
        config=config,
        sanitize_html=True,
        extra_loaders=[jinja2.DictLoader({"mathjax.html.j2": MATHJAX})],
    )
    made.environment.add_extension(Nonces)
    made.register_filter("clean_html", sanitised)
    return made


def sanitised(text):
    """HTML with what clean.py lets through, by another program."""

    def allowed(tag, name, value):
        if name == "href":
            return bool(re.match(r"https?://|mailto:", value))
        if name == "src":
            return bool(re.match(r"data:image/(png|jpeg|gif);base64,", value))
        return name in clean.ATTRIBUTES.get(tag, ()) or name == "class"

    return bleach.clean(
        text.decode() if isinstance(text, bytes) else str(text),
        tags=clean.TAGS,
        attributes=allowed,
        protocols=["http", "https", "mailto", "data"],
        css_sanitizer=CSSSanitizer(allowed_css_properties=clean.STYLES),
    )


def routes(base):
    """What the server answers to: formgrader's pages, its files, the login, and no more."""
    static = {"path": handlers.static_path}
    page = {"url": f"{base}/formgrader/gradebook", "permanent": False}
    kept = [
        route
        for route in handlers.default_handlers + apihandlers.default_handlers
        if route[1] not in CLOSED and route[0].split("/")[-1] not in STEPS
    ]
    answered = [
        (r"/(?:formgrader/?)?", RedirectHandler, page),
        *kept,
        (r"/formgrader/static/(.*)", StaticFileHandler, static),
        (r"/(?!(?:login|logout|static/[^.].*|favicon.ico)$).*", Nothing),
    ]
    return [(base + route[0], *route[1:]) for route in answered]


def main():
    """Serve the folder that the command line names; when that ends, write the tables anew."""
    folder = Path(sys.argv[1] if sys.argv[1:] else "").resolve()
    if not (folder / "gradebook.db").is_file():
        sys.exit(f"There is no gradebook in {folder}: grade first, with make grade.")
    server = application(folder, sys.argv[2:])
    print("Formgrader opens in your browser. Press Ctrl-C here when you have marked.", flush=True)
    server.start()
    grade.tabulate(folder)
    print(f"The table is {folder / 'grades.csv'}, with your marks, as are the pages in feedback/.")


if __name__ == "__main__":
    main()
