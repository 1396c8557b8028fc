"""The pictures of the site: figures sharp and light, and a card for each chapter."""

import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from PIL import Image
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "_build" / "static"
CARD = (304, 176)  # CSS pixels of a card's picture
SHARP = 2  # picture pixels for a CSS pixel, as execute.py has Matplotlib draw them


def executed(path):
    """A notebook as it was executed."""
    cache = get_cache(ROOT / "_build/.jupyter_cache")
    return cache.merge_match_into_notebook(nbformat.read(path, 4))[1]


def executed_notebooks():
    """Each chapter's path with the notebook as it was executed, in the order of the chapters."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        yield path, executed(path)


def is_gallery(cell):
    """Whether the figure of a cell stands for its chapter."""
    return "gallery" in cell.metadata.get("tags", [])


def figures_of(cell):
    """The figures that a cell of an executed notebook has drawn, as PNG bytes."""
    outputs = (output.get("data", {}) for output in cell.get("outputs", []))
    return [base64.b64decode(data["image/png"]) for data in outputs if "image/png" in data]


def alt_of(cell):
    """The words for the picture of a cell."""
    return cell.metadata["mystnb"]["image"]["alt"]


def gallery_picture(notebook):
    """The PNG and the alt text of the figure that stands for a chapter: its cell is so tagged."""
    (cell,) = filter(is_gallery, notebook.cells)
    return figures_of(cell)[0], alt_of(cell)


def title_of(notebook):
    """A notebook's title."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def question_of(notebook):
    """The first sentences of a chapter's opening question, up to the question mark."""
    asked = re.search(r"\*\*The question\.\*\* (.+)", notebook.cells[0].source)[1]
    return re.sub(r"[*`]", "", asked)


def minutes_of(notebook):
    """How long a chapter takes to read, to five minutes.

    150 words a minute, as one reads what is new, 6 seconds for a line of code that is not folded,
    half a minute for a figure or a quiz.
    """
    seconds = 0.0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            seconds += len(re.findall(r"\w+", re.sub(r"\]\([^)]*\)", "]", cell.source))) * 60 / 150
        elif not {"hide-cell", "hide-input", "remove-input"} & {*cell.metadata.get("tags", [])}:
            seconds += 6 * sum(bool(line.strip()) for line in cell.source.splitlines())
        seconds += 30 * ("image" in cell.metadata.get("mystnb", {}) or "quiz.ask(" in cell.source)
    return max(5, 5 * round(seconds / 300))


def thumbnail(png):
    """A card's picture as WebP: the upper left of the figure, cut to the card's shape."""
    with Image.open(io.BytesIO(png)) as figure:
        picture = figure.convert("RGB")
    width, height = CARD
    tall = min(picture.height, round(picture.width * height / width))
    wide = min(picture.width, round(tall * width / height))
    left = (picture.width - wide) // 2
    size = (width * SHARP, height * SHARP)
    picture = picture.crop((left, 0, left + wide, tall)).resize(size, Image.Resampling.LANCZOS)
    return as_webp(picture, quality=82)


def lossless(png):
    """A figure as WebP that shows the same pixels, in about half the bytes of its PNG."""
    with Image.open(io.BytesIO(png)) as figure:
        return as_webp(figure.convert("RGB"), lossless=True, quality=30)


def as_webp(picture, **options):
    """The bytes of a picture as WebP."""
    data = io.BytesIO()
    picture.save(data, "WEBP", **options)
    return data.getvalue()


class Gallery(SphinxDirective):
    """A card for each chapter: a part of one of its figures, its question, its minutes."""

    def run(self):
        """Write the pictures where the site's static files lie, and link the chapters."""
        folder = STATIC / "gallery"
        folder.mkdir(parents=True, exist_ok=True)
        cards = []
        for path, notebook in executed_notebooks():
            self.env.note_dependency(str(path))
            png, alt = gallery_picture(notebook)
            (folder / f"{path.stem}.webp").write_bytes(thumbnail(png))
            cards.append(
                f'<a class="gallery-card" href="../notebooks/{path.stem}.html">'
                f'<img src="../_static/gallery/{path.stem}.webp" alt="{escape(alt)}" '
                f'width="{CARD[0]}" height="{CARD[1]}" loading="lazy">'
                f'<span class="gallery-title">{escape(title_of(notebook))}</span>'
                f'<span class="gallery-asks">{escape(question_of(notebook))}</span>'
                f'<span class="gallery-time">{minutes_of(notebook)} minutes</span></a>'
            )
        html = f'<div class="gallery">{"".join(cards)}</div>'
        return [nodes.raw("", html, format="html")]


def sharpen(app, doctree):
    """Give each figure that a cell drew its size in CSS pixels, and the page a WebP of it.

    A figure drawn at twice the usual resolution is shown at half its pixels; Sphinx links it to
    its full size.
    """
    found = [(n, Path(app.srcdir) / n["uri"].lstrip("/")) for n in doctree.findall(nodes.image)]
    drawn = [(n, p) for n, p in found if p.suffix == ".png" and "jupyter_execute" in p.parts]
    with ThreadPoolExecutor() as pool:  # what takes half the time of Sphinx, on all cores
        pngs = [path.read_bytes() for _, path in drawn]
        for (_, path), webp in zip(drawn, pool.map(lossless, pngs), strict=True):
            path.with_suffix(".webp").write_bytes(webp)
    for node, path in drawn:
        with Image.open(path) as figure:
            scale = SHARP if figure.info.get("dpi", (0,))[0] > 140 else 1
            width, height = (round(side / scale) for side in figure.size)
        node["uri"] = node["uri"].removesuffix(".png") + ".webp"
        node["width"], node["height"] = f"{width}px", f"{height}px"
        frame = nodes.container(classes=["figure-scroll"])
        node.replace_self(frame)
        frame += node


OPENING = "What this chapter comes to. How the picture is made, and what it shows, is told below."
BEGINNING = "What this chapter begins with."


def open_with_picture(app, doctree):
    """Show a chapter's picture below its opening as well.

    It is that of its card, unless this would give away what the reader is to find out: then the
    cell of another is tagged "opening".
    """
    path = Path(app.srcdir) / f"{app.env.docname}.ipynb"
    if path.parent.name != "notebooks" or not path.is_file():
        return
    cells = nbformat.read(path, 4).cells
    tagged = [cell for cell in cells if "opening" in cell.metadata.get("tags", [])]
    (cell,) = tagged or filter(is_gallery, cells)
    alt = alt_of(cell)
    opening = next(doctree.findall(nodes.block_quote))
    picture = next(image for image in doctree.findall(nodes.image) if image.get("alt") == alt)
    frame = nodes.container(classes=["opening-picture"])
    frame += [picture.deepcopy(), nodes.paragraph("", BEGINNING if tagged else OPENING)]
    opening.parent.insert(opening.parent.index(opening) + 1, frame)


SIZE = re.compile(r'style="width: (\d+)px; height: (\d+)px;?"')


def size_by_style(app, pagename, templatename, context, doctree):
    """Keep the room of a figure free until it is near, and let the style sheet have its width."""
    style = r'style="--width: \1px; aspect-ratio: \1 / \2" loading="lazy"'
    context["body"] = SIZE.sub(style, context.get("body") or "")
