"""The pictures of the site: figures sharp and light, and a card for each chapter."""

import base64
import io
import re
from functools import cache
from html import escape
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from PIL import Image, ImageChops, ImageOps
from sphinx.util.docutils import SphinxDirective

from execute import LOSSLESS

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "_build" / "static"
CARD = (304, 190)  # CSS pixels of a card's picture
MARGIN = 6  # of them, white around it
SHARP = 2  # picture pixels for a CSS pixel, as execute.py has Matplotlib draw them


@cache
def executed(path):
    """A notebook as it was executed; nobody changes it."""
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
    """The figures that a cell of an executed notebook has drawn, as bytes of PNG or WebP."""
    outputs = (output.get("data", {}) for output in cell.get("outputs", []))
    return [base64.b64decode(data["image/png"]) for data in outputs if "image/png" in data]


def alt_of(cell):
    """The words for the picture of a cell."""
    return cell.metadata["mystnb"]["image"]["alt"]


def gallery_picture(notebook):
    """The bytes and the alt text of the figure that stands for a chapter: its cell is so tagged."""
    (cell,) = filter(is_gallery, notebook.cells)
    return figures_of(cell)[0], alt_of(cell)


def opening_of(notebook):
    """What a chapter's first cell says of that figure: "caption", and which parts a card shows.

    These are "card": boxes of left, top, right and bottom, as shares of the figure.
    """
    return notebook.cells[0].metadata["opening"]


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


def in_pixels(box, picture):
    """A box of shares of a picture's width and height in its pixels."""
    return tuple(round(share * side) for share, side in zip(box, picture.size * 2, strict=True))


def parts_of(png, boxes):
    """The parts of a figure that boxes mark, each without the white around it."""
    with Image.open(io.BytesIO(png)) as figure:
        picture = figure.convert("RGB")
    for box in boxes:
        part = picture.crop(in_pixels(box, picture))
        yield part.crop(ImageChops.invert(part).getbbox())


def thumbnail(png, boxes=((0, 0, 1, 1),)):
    """A card's picture as WebP: the parts of a figure, below each other, as large as they fit."""
    parts = list(parts_of(png, boxes))
    gap = parts[0].height // 20
    size = max(part.width for part in parts), sum(part.height + gap for part in parts) - gap
    picture, top = Image.new("RGB", size, "white"), 0
    for part in parts:
        picture.paste(part, ((size[0] - part.width) // 2, top))
        top += part.height + gap
    room = tuple(SHARP * (side - 2 * MARGIN) for side in CARD)
    picture = ImageOps.pad(picture, room, Image.Resampling.LANCZOS, "white")
    return as_webp(ImageOps.expand(picture, SHARP * MARGIN, "white"), quality=82)


def lossless(data):
    """A figure as WebP that shows the same pixels: as it is where `execute` drew it so."""
    with Image.open(io.BytesIO(data)) as figure:
        return data if figure.format == "WEBP" else as_webp(figure.convert("RGB"), **LOSSLESS)


def as_webp(picture, **options):
    """The bytes of a picture as WebP."""
    data = io.BytesIO()
    picture.save(data, "WEBP", **options)
    return data.getvalue()


class Gallery(SphinxDirective):
    """A card for each chapter: its picture and what is seen there, its question, its minutes."""

    def run(self):
        """Write the pictures where the site's static files lie, and link the chapters."""
        folder = STATIC / "gallery"
        folder.mkdir(parents=True, exist_ok=True)
        cards = []
        for path, notebook in executed_notebooks():
            self.env.note_dependency(str(path))
            png, alt = gallery_picture(notebook)
            opening = opening_of(notebook)
            picture = thumbnail(png, opening["card"]) if "card" in opening else thumbnail(png)
            (folder / f"{path.stem}.webp").write_bytes(picture)
            cards.append(
                f'<a class="gallery-card" href="../notebooks/{path.stem}.html">'
                f'<img src="../_static/gallery/{path.stem}.webp" alt="{escape(alt)}" '
                f'width="{CARD[0]}" height="{CARD[1]}" loading="lazy">'
                f'<span class="gallery-seen">{escape(opening["caption"])}</span>'
                f'<span class="gallery-title">{escape(title_of(notebook))}</span>'
                f'<span class="gallery-asks">{escape(question_of(notebook))}</span>'
                f'<span class="gallery-time">{minutes_of(notebook)} minutes</span></a>'
            )
        html = f'<div class="gallery">{"".join(cards)}</div>'
        return [nodes.raw("", html, format="html")]


WIDE = 420  # pixels: a figure that scrolls on a phone of 390, where it has 0.85 of its width


def sharpen(app, doctree):
    """Give each figure that a cell drew its size in CSS pixels, and the page a WebP of it.

    A figure drawn at twice the usual resolution is shown at half its pixels; Sphinx links it to
    its full size.
    """
    found = [(n, Path(app.srcdir) / n["uri"].lstrip("/")) for n in doctree.findall(nodes.image)]
    drawn = [(n, p) for n, p in found if p.suffix == ".png" and "jupyter_execute" in p.parts]
    for node, path in drawn:
        path.with_suffix(".webp").write_bytes(lossless(path.read_bytes()))
        with Image.open(path) as figure:
            sharp = figure.format == "WEBP" or figure.info.get("dpi", (0,))[0] > 140
            width, height = (round(side / (SHARP if sharp else 1)) for side in figure.size)
        node["uri"] = node["uri"].removesuffix(".png") + ".webp"
        node["width"], node["height"] = f"{width}px", f"{height}px"
        frame = nodes.container(classes=["figure-scroll"])
        node.replace_self(frame)
        frame += node
        if width > WIDE:
            more = nodes.container(classes=["figure-more"])
            frame.parent.insert(frame.parent.index(frame) + 1, more)


def open_with_picture(app, doctree):
    """Show the picture that stands for a chapter below its opening, with words of its own."""
    path = Path(app.srcdir) / f"{app.env.docname}.ipynb"
    if path.parent.name != "notebooks" or not path.is_file():
        return
    notebook = nbformat.read(path, 4)
    (cell,) = filter(is_gallery, notebook.cells)
    picture = next(i for i in doctree.findall(nodes.image) if i.get("alt") == alt_of(cell))
    made = picture.parent
    while "cell" not in made.get("classes", []):
        made = made.parent
    made["ids"].append("opening-picture")
    caption = nodes.paragraph("", opening_of(notebook)["caption"] + " ", classes=["figure-caption"])
    caption += nodes.reference("", "How it is made", refid="opening-picture", internal=True)
    opening = next(doctree.findall(nodes.block_quote))
    frame = nodes.container("", picture.deepcopy(), caption, classes=["opening-picture"])
    opening.parent.insert(opening.parent.index(opening) + 1, frame)


SIZE = re.compile(r'style="width: (\d+)px; height: (\d+)px;?"')


def size_by_style(app, pagename, templatename, context, doctree):
    """Keep the room of a figure free until it is near, and let the style sheet have its width."""
    style = r'style="--width: \1px; aspect-ratio: \1 / \2" loading="lazy"'
    context["body"] = SIZE.sub(style, context.get("body") or "")
