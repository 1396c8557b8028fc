"""Take out of a notebook everything that could act on whoever opens it.

    notebook = clean.notebook(notebook)

What a student wrote and what a student's code put out stays to be read: text, formulas, tables,
links, pictures. What is kept is said here, and everything else goes: there are only allow-lists.
HTML passes through nh3. Markdown is turned into HTML first, so that no program reads it otherwise.
Nothing here looks at a file or a network.
"""

import base64
import html
import io
import re
from urllib.parse import unquote

import nh3
from bs4 import BeautifulSoup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from pygments.token import STANDARD_TYPES

TEXT = 100_000  # characters of a cell or of an output
WRITTEN = 50_000  # of a text that is to be formatted
SHORT = 5_000  # of one that is left to others to format
WORDS = 200_000  # of all such texts of a notebook; the slowest take 20 s for 50,000
DEEPEST = 100  # elements within each other
PICTURE = 4_000_000  # bytes of a picture
PICTURES = 12_000_000  # bytes of all of a notebook's pictures
PIXELS = 100_000_000  # of all of them; an empty picture of so many has few bytes
OUTPUTS = 100  # of a cell
CELLS = 500  # that are not part of the lab
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "GIF": "image/gif"}
# Text in which Markdown finds no tag, link, code or heading.
PLAIN = re.compile(r"(?!.*://|.*^[ \t]*(=+|-+)[ \t]*$)[^<>&\[\]`~#\r]*", re.DOTALL | re.MULTILINE)
FORMATS = ["PNG", "JPEG", "GIF"]
STYLE = re.compile(r"[\w\s:;#.,%'\"-]*")
INLINE_PICTURE = re.compile(r"data:image/[\w.+-]{1,20};base64,[A-Za-z0-9+/=]+")
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
NBGRADER = ("grade", "grade_id", "locked", "points", "schema_version", "solution", "task")

TAGS = set(
    re.findall(
        r"\w+",
        """a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption
        figure h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong sub
        summary sup table tbody td tfoot th thead tr tt u ul var""",
    )
)
ATTRIBUTES = {
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "ol": {"start"},
    "td": {"colspan", "rowspan", "style"},
    "th": {"colspan", "rowspan", "style"},
    "pre": {"style"},
    "span": {"style"},
}
STYLES = {"background-color", "color", "font-style", "font-weight", "text-align", "white-space"}
CLASSES = {  # of highlighted code, and of pandas' tables
    "div": {"highlight"},
    "span": set(STANDARD_TYPES.values()) - {""},
    "table": {"dataframe"},
}
ACTIVE = {"script", "iframe", "object", "embed", "form", "meta", "link", "base", "style", "svg"}
DROPPED = {"script", "style", "template", "textarea", "title", "iframe", "noscript", "svg", "math"}


def notebook(dirty):
    """Return a new notebook with what can be read of the cells of `dirty`, and our metadata."""
    album = Album()
    cells, others = [], 0
    for old in dirty.cells:
        others += not marks(old)
        if marks(old) or others <= CELLS:
            cells.append(cell(old, album))
    return new_notebook(cells=list(filter(None, cells)), metadata={"kernelspec": KERNELSPEC})


def cell(old, album):
    """Return a new cell, or None for one of a kind that is not known."""
    source = as_text(old.get("source"))
    metadata = {"nbgrader": marks(old)} if marks(old) else {}
    if isinstance(stopped := old.get("metadata", {}).get("stopped"), str):
        metadata["stopped"] = stopped
    if old.get("cell_type") == "code":
        outputs = [output(one, album) for one in list(old.get("outputs") or [])[:OUTPUTS]]
        new = new_code_cell(cut(source), metadata=metadata, outputs=list(filter(None, outputs)))
        new.execution_count = whole(old.get("execution_count"))
    elif old.get("cell_type") == "markdown":
        album.gone = set()
        new = new_markdown_cell(written(source, old.get("attachments"), album), metadata=metadata)
        if album.gone and metadata:
            new.metadata["taken_out"] = sorted(album.gone)[:5]
    elif old.get("cell_type") == "raw":
        new = new_markdown_cell(one_line(preformatted(source)), metadata=metadata)
    else:
        return None
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(old.get("id"))):
        new.id = old.id
    return new


def marks(old):
    """What nbgrader has to know of a cell."""
    found = old.get("metadata", {}).get("nbgrader")
    if not isinstance(found, dict) or not re.fullmatch(r"[\w-]+", str(found.get("grade_id"))):
        return {}
    kept = {name: found[name] for name in NBGRADER if name in found}
    return kept if all(isinstance(v, str | bool | int | float) for v in kept.values()) else {}


def output(old, album):
    """Return a new output, or None for one of a kind that is not known."""
    kind = old.get("output_type")
    if kind == "stream":
        name = "stderr" if old.get("name") == "stderr" else "stdout"
        return new_output("stream", name=name, text=cut(as_text(old.get("text"))))
    if kind == "error":
        lines = old.get("traceback")
        lines = lines if isinstance(lines, list) else [lines]
        told = cut("\n".join(as_text(line) for line in lines)).split("\n")
        names = {key: cut(as_text(old.get(key)), 10_000) for key in ("ename", "evalue")}
        return new_output("error", **names, traceback=told)
    if kind in ("display_data", "execute_result"):
        data = old.get("data")
        new = new_output(kind, data=readable(data if isinstance(data, dict) else {}, album))
        if kind == "execute_result":
            new.execution_count = whole(old.get("execution_count"))
        return new
    return None


def readable(data, album):
    """Of an output's representations, those that can be read and nothing else."""
    kept = {}
    for kind, value in data.items():
        if kind == "text/plain":
            kept[kind] = cut(as_text(value))
        elif kind in KINDS.values() and (picture := album.add(as_text(value))):
            kept[picture[0]] = picture[1]
    if "text/html" in data:
        kept["text/html"] = safe(cut(as_text(data["text/html"])), {}, album)
    elif "text/markdown" in data:
        kept["text/html"] = rendered(as_text(data["text/markdown"]), None, album)
    elif "text/latex" in data:
        kept["text/html"] = f"<div>{html.escape(cut(as_text(data['text/latex'])))}</div>"
    if not kept:
        kinds = ", ".join(re.sub(r"[^\w./+-]", "?", str(kind))[:60] for kind in list(data)[:5])
        kept["text/plain"] = f"[an output that is not shown here: {kinds or 'empty'}]"
    return kept


def written(source, attachments, album):
    """Markdown without anything but words as it is, all else as one line of HTML."""
    if PLAIN.fullmatch(source) and len(source) <= SHORT:
        return source
    return one_line(rendered(source, attachments, album))


def rendered(source, attachments, album):
    """The HTML of Markdown, clean."""
    pictures = {}
    for name, kinds in attachments.items() if isinstance(attachments, dict) else ():
        for value in kinds.values() if isinstance(kinds, dict) else ():
            pictures[str(name)] = as_text(value)

    def put_aside(found):  # a picture's bytes are no text to be formatted
        name = f"inline-{len(pictures)}"
        pictures[name] = found[0].partition(",")[2]
        return f"attachment:{name}"

    source = cut(INLINE_PICTURE.sub(put_aside, source), WRITTEN)
    album.words -= len(source)
    if album.words < 0:
        return preformatted(source)
    try:
        made = MarkdownWithMath(renderer=Renderer(escape=False, exclude_anchor_links=True))
        text = made.render(source)
        album.gone |= unsafe(text)
        return safe(text, pictures, album)
    except Exception:  # whatever a text may do to its parser
        return preformatted(source)


class Renderer(IPythonRenderer):
    """Leaves the sources of pictures for `safe` to look up, and diagrams as they were written."""

    def _embed_image_or_attachment(self, src):
        return src

    def block_mermaidjs(self, code):
        """The diagram's text."""
        return preformatted(code)


def safe(text, pictures, album):
    """HTML with what is on the lists above; `pictures` are those that it may show, by name."""

    def attribute(tag, name, value):
        if name == "href":
            return value if re.match(r"(https?://|mailto:)", value, re.IGNORECASE) else None
        if name == "src":
            scheme, _, rest = value.strip().partition(":")
            rest = pictures.get(unquote(rest), pictures.get(rest, ""))
            if scheme == "data":
                rest = value.partition(",")[2]
            picture = album.add(rest)
            return f"data:{picture[0]};base64,{picture[1]}" if picture else None
        if name in ("width", "height", "colspan", "rowspan", "start"):
            return value if re.fullmatch(r"\d{1,3}", value) else None
        return value if name != "style" or STYLE.fullmatch(value) else None

    made = nh3.clean(
        text,
        tags=TAGS,
        attributes=ATTRIBUTES,
        allowed_classes=CLASSES,
        clean_content_tags=DROPPED,
        filter_style_properties=STYLES,
        url_schemes={"http", "https", "mailto", "data", "attachment"},
        attribute_filter=attribute,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        strip_comments=True,
    )
    return made if depth(made) <= DEEPEST else preformatted(cut(text))


def unsafe(text):
    """What of HTML could act or load something, and is no slip of the pen: names for a note."""
    found = set()
    for tag in BeautifulSoup(text, "html.parser").find_all(True):
        if tag.name in ACTIVE:
            found.add(f"<{tag.name}>")
        source = str(tag.get("src", "attachment:")).strip().lower()
        if tag.name == "img" and not source.startswith(("attachment:", "data:image/")):
            found.add("a picture from elsewhere")
        for name, value in tag.attrs.items():
            if re.fullmatch(r"on[a-z]{3,30}", name):
                found.add(name)
            elif re.match(r"\W*(javascript|vbscript|data:text)", str(value), re.IGNORECASE):
                found.add("a link to a script")
    return found


def taken_out(notebook):
    """Notes on answers of which something was taken out, as a cleaned notebook has it."""
    found = [
        (cell.metadata.get("nbgrader", {}).get("grade_id"), cell.metadata.get("taken_out"))
        for cell in notebook.cells
    ]
    return [f"taken out of {task}: {', '.join(what)}" for task, what in found if task and what]


def depth(text):
    """How deep elements stand within each other in HTML that nh3 wrote, where all are closed."""
    level = deepest = 0
    for end, name in re.findall(r"<(/?)(\w+)", text):
        if name not in ("br", "col", "hr", "img"):
            level += -1 if end else 1
            deepest = max(deepest, level)
    return deepest


class Album:
    """The pictures of one notebook, and its words, which together must not become too many."""

    def __init__(self):
        self.left, self.pixels, self.words = PICTURES, PIXELS, WORDS
        self.gone = set()  # what was taken out since this was last emptied

    def add(self, text):
        """Return a picture's kind and its bytes in base64, or None if it is not to be shown."""
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                (width, height), kind = picture.size, KINDS[picture.format]
        except Exception:  # whatever bytes may do to Pillow
            return None
        if len(data) > min(PICTURE, self.left) or width * height > self.pixels:
            return None
        self.left -= len(data)
        self.pixels -= width * height
        return kind, base64.b64encode(data).decode()


def one_line(text):
    """HTML as Markdown that every program leaves as it is: a block without an empty line in it."""
    return "<div>" + re.sub(r"\r\n?|\n", "&#10;", text) + "</div>"


def preformatted(text):
    """Text to be shown as it is."""
    return f"<pre>{html.escape(text)}</pre>"


def as_text(value):
    """A notebook's text, which may stand in a list of lines or be anything at all."""
    text = "".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def cut(text, most=TEXT):
    """Text up to so many characters."""
    return text if len(text) <= most else f"{text[:most]} ... (cut)"


def whole(number):
    """A cell's number, or None."""
    return number if isinstance(number, int) and 0 <= number < 10**6 else None
