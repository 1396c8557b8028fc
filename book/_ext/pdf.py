"""The course as one PDF: `make pdf`, after `make book`.

The built pages are joined into one, and Chromium prints it: with an outline, page numbers, links
from page to page, the pictures' descriptions. Code, solutions and what can be played with stay on
the site; with CODE=open, the code that is open there is printed.
"""

import argparse
import copy
import itertools
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import yaml
from bs4 import BeautifulSoup
from PIL import Image
from playwright.sync_api import sync_playwright
from pypdf import PdfWriter
from pypdf.generic import NameObject, TextStringObject

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build/html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LEFT_OUT = "script, .headerlink, .explorable-note, details.hide, #three-doors, #the-chapters"
WIDTH = 1050  # pixels: 178 mm of text at 150 dots per inch
ALWAYS = "http:", "https:", "mailto:"
FOOTER = (
    '<div style="width: 100%; font: 8px sans-serif; color: #555; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
STYLE = """
@page { size: A4; margin: 18mm 16mm 16mm }
html, body { background: #fff !important; font-size: 10.5pt }
.bd-article { max-width: none; padding: 0 }
.joined + .joined { break-before: page }
h1, h2, h3, h4, .caption-text { break-after: avoid }
img { max-width: 100% !important; height: auto !important; width: auto; max-height: 225mm }
.figure-scroll, pre, .output, .pst-scrollable-table-container { overflow: visible !important }
pre { white-space: pre-wrap !important; overflow-wrap: anywhere; font-size: 8pt !important }
table { font-size: 8pt }
.scoreboard { margin-bottom: 6mm }
.scoreboard :is(td, th) { line-height: 1.25; padding: 0.7mm 1.2mm; position: static !important;
  white-space: normal !important }
.scoreboard small { font-size: 7pt }
figure, .figure-scroll, .quiz, tr { break-inside: avoid }
.quiz p { display: block !important }
.quiz input { display: none }
mjx-container path { stroke-width: 0 !important }
.titlepage { height: 235mm; display: flex; flex-direction: column; justify-content: center }
.contents a { text-decoration: none }
"""


def names(toc):
    """The pages in reading order, as (caption of their part, name)."""
    yield None, toc["root"]
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            yield part["caption"], chapter["file"]


def page_id(name):
    """What the joined page calls a page."""
    return name.replace("/", "-")


def article(name, pages, code, pictures):
    """The article of a page, with every id and link as they have to be in the joined page.

    Its pictures are written to the folder `pictures`.
    """
    path = SITE / f"{name}.html"
    soup = BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")
    body = soup.select_one("article.bd-article")
    for element in body.select(LEFT_OUT if code else f"{LEFT_OUT}, .cell_input"):
        element.decompose()
    for element in body.select("[id]"):
        element["id"] = f"{page_id(name)}--{element['id']}"
    for element in body.select("label[for], input[name]"):
        for key in {"for", "name"} & set(element.attrs):
            element[key] = f"{page_id(name)}--{element[key]}"
    for image in body.select("img"):
        file = (path.parent / unquote(image["src"])).resolve()
        image["src"] = (file if file.suffix == ".svg" else printable(file, pictures)).as_uri()
        image.attrs.pop("loading", None)  # what is not yet in view would not be printed
    for link in body.select("a[href]"):
        target = joined(link["href"], path, pages)
        if target:
            link["href"] = target
        else:  # a file that the PDF does not carry, such as a picture's full size
            link.unwrap()
    for table in body.select("table.scoreboard"):
        part(table)
    return body


def part(table, most=7):
    """Let several tables stand for one that is wider than the paper, each with whole groups.

    They have at most so many columns beside the first.
    """
    spans = [int(head["colspan"]) for head in table.thead.tr.find_all("th")]
    begin = list(itertools.accumulate(spans, initial=1))
    first = 0
    while first < len(spans):
        last = first + 1
        while last < len(spans) and begin[last + 1] - begin[first] <= most:
            last += 1
        copied = copy.copy(table)
        over, *rows = copied.find_all("tr")
        for k, head in enumerate(over.find_all("th")):
            if not first <= k < last:
                head.decompose()
        for row in rows:
            for k, cell in enumerate(row.find_all(["th", "td"])):
                if k and not begin[first] <= k < begin[last]:
                    cell.decompose()
        table.insert_before(copied)
        first = last
    table.decompose()


def printable(file, folder):
    """A picture as a JPEG of at most 150 dots per inch: any other kind a PDF stores unpacked."""
    out = folder / f"{file.name}.jpg"
    if not out.exists():
        with Image.open(file) as picture:
            picture = picture.convert("RGBA")
            ground = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(ground, picture).convert("RGB")
        picture.thumbnail((WIDTH, 2 * WIDTH))
        picture.save(out, quality=80, subsampling=0, optimize=True)
    return out


def joined(href, path, pages):
    """Where a link of a page leads in the joined page; None if out of it, to a file of the site."""
    if href.startswith(ALWAYS):
        return href
    file, _, fragment = href.partition("#")
    target = (path.parent / unquote(file)).resolve() if file else path
    if not target.is_relative_to(SITE) or target.suffix != ".html":
        return None
    name = target.relative_to(SITE).with_suffix("").as_posix()
    if name not in pages:
        return None
    return f"#{page_id(name)}--{fragment}" if fragment else f"#{page_id(name)}"


def head():
    """The site's style sheets, and its MathJax where it stands, from a page that has both."""
    pages = (path for path in sorted(SITE.rglob("*.html")) if "tex-svg" in path.read_text("utf8"))
    path = next(pages)
    soup = BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")
    kept = []
    for element in soup.select("link[rel=stylesheet], script"):
        name = "href" if element.name == "link" else "src"
        if element.name == "script" and "mathjax" not in str(element).lower():
            continue
        if name in element.attrs:
            file = re.sub(r"\?.*", "", element[name])
            element[name] = (path.parent / file).resolve().as_uri()
        kept.append(str(element))
    return "".join(kept)


def contents(toc, titles):
    """A list of the pages under the captions of their parts."""
    text = []
    for caption, pages in itertools.groupby(names(toc), key=lambda page: page[0]):
        links = "".join(
            f'<li><a href="#{page_id(name)}">{titles[name]}</a></li>' for _, name in pages
        )
        text.append(f"<p><strong>{caption or 'The course'}</strong></p><ul>{links}</ul>")
    return "".join(text)


def join(code, pictures):
    """The whole course as one page of HTML, with its pictures in the folder `pictures`."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["title"]
    order = [name for _, name in names(toc)]
    articles = {name: article(name, order, code, pictures) for name in order}
    titles = {name: body.select_one("h1").get_text() for name, body in articles.items()}
    parts = "".join(
        f'<div class="joined" id="{page_id(name)}">{body}</div>' for name, body in articles.items()
    )
    left = "Solutions and experiments" if code else "Code, solutions and experiments"
    return f"""<!doctype html><html lang="en" data-theme="light" data-mode="light">
<head><meta charset="utf-8"><title>{title}</title>{head()}<style>{STYLE}</style></head>
<body><div class="joined bd-article titlepage"><p style="font-size: 30pt">{title}</p>
<p>{left} are on the site and in the notebooks.</p></div>
<div class="joined bd-article contents">{contents(toc, titles)}</div>{parts}</body></html>"""


def print_pdf(html, out):
    """Let Chromium print the file `html`."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit("make pdf prints with Chromium, which is not here: install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(0)
        page.goto(html.as_uri())
        page.evaluate("() => window.MathJax?.startup?.promise")
        page.evaluate("() => Promise.all([...document.images].map(i => i.decode()))")
        page.pdf(
            path=out,
            outline=True,
            tagged=True,
            prefer_css_page_size=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
        )
        browser.close()


def mend_outline(pdf):
    """Say each heading once: Chromium writes one twice that it moved to the next page."""
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it remarks on Chromium's count of objects
    writer = PdfWriter(clone_from=pdf)
    entries = [writer.get_outline_root().get("/First")]
    while entries:
        entry = entries.pop()
        if entry is None:
            continue
        entry = entry.get_object()
        title = entry["/Title"]
        half = title[: len(title) // 2]
        if title == half + half:
            entry[NameObject("/Title")] = TextStringObject(half)
        entries += [entry.get("/First"), entry.get("/Next")]
    writer.write(pdf)


def main():
    """Print what make book has built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", action="store_true", help="print the code that is open, too")
    if not (SITE / "index.html").is_file():
        sys.exit("Run make book first.")
    out = ROOT / "_build/opening-the-black-box.pdf"
    if shutil.which("fc-list") and not subprocess.check_output(["fc-list", ":lang=ja"]):
        print("No font here has Chinese and Japanese: install one (such as fonts-noto-cjk) for")
        print("the glossary's names in the documents' languages.")
    code = parser.parse_args().code
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "course.html"
        html.write_text(join(code, Path(folder)), encoding="utf8")
        part = Path(folder) / out.name
        print_pdf(html, part)
        mend_outline(part)
        shutil.move(part, out)
    print(f"The course is printed: {out.relative_to(ROOT)}, {out.stat().st_size / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()
