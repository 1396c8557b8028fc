"""The chapters as slides to stand in front of: `make slides`, after `make book`.

A deck has a chapter's question, its figures with their captions, what it saw, when it misleads and
its quiz; the text around a figure is in the speaker's notes (key S). nbconvert makes it from the
executed notebook; a copy of the folder needs no network.
"""

import re
import shutil
import sys
from html import escape
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import execute

NPM = execute.ROOT / ".venv/npm/node_modules"
AT_ONCE, LINES = 3, 16  # points of a list, and printed lines, that are on one slide
SAW = "What you saw"
LISTS = (SAW, "When it misleads")
ENDS = ("Exercises", "Further reading")


def slides_of(chapter):
    """The notebook of a chapter's slides, from its executed notebook."""
    first, *cells = chapter.cells
    title = re.match(r"# (.+)", first.source)[1]
    question = re.search(r"\*\*The question\.\*\* (.+)", first.source)
    deck = [_text(f"# {title}\n\n{question[1] if question else ''}", "slide")]
    heading = title
    for cell in cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                deck += _shown(heading, cell.metadata, output)
            continue
        before, *sections = re.split(r"^## (.+)$", cell.source, flags=re.M)
        for name, text in [(heading, before), *zip(sections[::2], sections[1::2], strict=True)]:
            if name in ENDS:
                return new_notebook(cells=deck, metadata={"title": title})
            heading = name
            deck += _points(name, text) if name in LISTS else _notes(text)
    return new_notebook(cells=deck, metadata={"title": title})


def _text(source, kind):
    """A cell of text, its links gone: on a slide nobody follows them."""
    source = re.sub(r"\[([^\]]+)\]\((?!data:)[^)]*\)", r"\1", source)
    return new_markdown_cell(source, metadata={"slideshow": {"slide_type": kind}})


def _notes(text):
    return [_text(text.strip(), "notes")] if text.strip() else []


def _points(heading, text):
    """Slides of a list, or of the boxes that make one, a few points at once."""
    points = [
        re.sub(r"^> ?", "", point.strip().removeprefix("- "), flags=re.M)
        for point in re.split(r"\n\s*\n|\n(?=- )", text)
        if point.strip().startswith(("- ", "> "))
    ]
    return [
        _text(f"## {heading}\n\n" + "\n".join(f"- {p}" for p in points[i : i + AT_ONCE]), "slide")
        for i in range(0, len(points), AT_ONCE)
    ]


def _shown(heading, metadata, output):
    """The slides of a figure, of a question of the quiz, or of the numbers that sum all up."""
    data = output.get("data", {})
    if "image/png" in data:
        about = metadata.get("mystnb", {})
        caption = about.get("figure", {}).get("caption", "")
        alt = escape(about.get("image", {}).get("alt", caption))
        content = data["image/png"].strip()
        kind = "webp" if content.startswith("UklGR") else "png"  # see execute.as_webp
        image = f'<img alt="{alt}" src="data:image/{kind};base64,{content}">'
        yield _text(f"## {heading}\n\n{image}\n\n", "slide")
        yield _text(caption, "-")
    elif 'class="quiz"' in data.get("text/html", ""):
        yield _text("## Quiz", "slide")
        yield new_code_cell(outputs=[output], metadata={"slideshow": {"slide_type": "-"}})
    elif heading == SAW and output.get("name") == "stdout":
        lines = output.text.rstrip().split("\n")
        for i in range(0, len(lines), LINES):
            some = "\n".join(lines[i : i + LINES])
            yield _text(f"## {heading}\n\n```text\n{some}\n```", "slide")


def page_of(chapter):
    """The HTML of a chapter's slides, from its executed notebook."""
    exporter = SlidesExporter(
        template_name="slides_template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        reveal_url_prefix="reveal.js",
        reveal_theme="white",
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    return exporter.from_notebook_node(slides_of(chapter))[0]


def main(wanted=""):
    """Write the decks of all chapters, or of those whose file's name begins as wanted."""
    cache, out = execute.open_cache(), execute.BUILD / "slides"
    chapters = sorted((execute.ROOT / "notebooks").glob(f"{wanted}*.ipynb"))
    chapters = [path for path in chapters if path.stem[:2].isdigit()]
    if not chapters:
        sys.exit(f"There is no chapter that begins with {wanted}.")
    for path in chapters:
        if not execute.is_cached(cache, path):
            sys.exit(f"{path.name} has not been executed as it is now. Run make book first.")
    for folder in ("dist", "plugin/notes"):
        shutil.copytree(NPM / "reveal.js" / folder, out / "reveal.js" / folder, dirs_exist_ok=True)
    (out / "mathjax").mkdir(exist_ok=True)
    shutil.copyfile(NPM / "mathjax/es5/tex-svg.js", out / "mathjax/tex-svg.js")
    for path in chapters:
        _, executed = cache.merge_match_into_notebook(nbformat.read(path, 4))
        (out / f"{path.stem}.html").write_text(page_of(executed), encoding="utf8")
    print(f"{len(chapters)} decks are in {out.relative_to(execute.ROOT)}: open one in a browser.")


if __name__ == "__main__":
    main(*sys.argv[1:])
