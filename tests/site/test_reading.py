"""What a reader meets on a page: how much open code, how many pictures, how heavy, what is cut."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import site_checks as checks
import yaml
from conftest import SITE
from PIL import Image

sys.path.insert(0, str(checks.ROOT / "book/_ext"))
from pictures import executed, gallery_picture, in_pixels, opening_of

PAGES = checks.pages(SITE) if SITE.is_dir() else []
CHAPTERS = [name for name in PAGES if re.match(r"notebooks/\d", name)]
CONFIG = yaml.safe_load((checks.ROOT / "_config.yml").read_text(encoding="utf8"))
PUBLISHED = "--" not in CONFIG["repository"]["url"]

pytestmark = pytest.mark.site

CODE, FIGURES = 0.25, 0.25  # of a chapter's height: at most open code, at least figures

ROWS = SITE.parent / "reading"  # a file for each chapter, because two processes test


@pytest.fixture(scope="session", autouse=True)
def table():
    """Puts the figures of all chapters into one page, beside the site, and prints it."""
    ROWS.mkdir(exist_ok=True)
    yield
    head = "height 1280  height 390  open code  figures  smallest text  cut     kB"
    lines = [f"{'chapter':32}{head}"]
    for path in sorted(ROWS.glob("*.json")):
        row = json.loads(path.read_text())
        lines.append(
            f"{path.stem:32}{row['height']:8} px{row['narrow']:9} px{row['code']:11.0%}"
            f"{row['figures']:9.0%}{row['smallest']:12.1f} px{len(row['cut']):5}{row['kB']:7.0f}"
        )
    text = "\n".join(lines)
    (SITE.parent / "reading.txt").write_text(text + "\n", encoding="utf8")
    print(f"\n{text}")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_shows_pictures_and_little_code(name, look):
    wide, narrow = look(name)["wide"], look(name)["narrow"]
    row = wide | {"narrow": narrow["height"], "kB": weight(look(name)) / 1000}
    row |= {"smallest": narrow["smallest"], "cut": wide["cut"] + narrow["cut"]}
    path = ROWS / f"{Path(name).stem}.json"
    path.with_suffix(".new").write_text(json.dumps(row))
    path.with_suffix(".new").replace(path)  # whole, for the other process may be reading
    assert wide["code"] < CODE
    assert round(wide["figures"], 2) >= FIGURES
    assert narrow["smallest"] >= 9
    assert wide["cut"] == narrow["cut"] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_picture_comes_before_the_first_code(name, look):
    assert look(name)["picture_first"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_part_of_a_figure_on_a_card_ends_where_the_figure_is_blank(name):
    notebook = executed(checks.ROOT / Path(name).with_suffix(".ipynb"))
    with Image.open(io.BytesIO(gallery_picture(notebook)[0])) as figure:
        picture = figure.convert("L")
    for box in opening_of(notebook).get("card", []):
        part = np.asarray(picture.crop(in_pixels(box, picture)))
        sides = zip(box, (0, 0, 1, 1), (part[:, 0], part[0], part[:, -1], part[-1]), strict=True)
        assert all(line.min() > 250 for at, end, line in sides if at != end), box


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_fold_without_numbers_does_not_speak_of_these_numbers(name, site):
    folds = [cell for cell in checks.parse(site, name).select("div.cell") if cell.select("summary")]
    assert folds
    for cell in folds:
        if not cell.select(".cell_output"):
            label = cell.select_one("summary").get_text()
            assert not re.search("these numbers|this figure", label)


def weight(seen, without=()):
    """The bytes a page has fetched as it opened, without some kinds (image, ...)."""
    return sum(size for _, kind, size in seen["fetched"] if kind not in without)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light_besides_its_figures(name, look):
    formulas = 'class="math' in (SITE / name).read_text(encoding="utf8")
    most = 1_000_000 if name == "search.html" else 800_000  # the index of all words is fetched
    allowed = most + (SITE / "_static/mathjax/tex-svg.js").stat().st_size * formulas
    assert weight(look(name), without=("document", "image")) < allowed


def test_the_home_page_is_light(look):
    seen = look("book/index.html")
    pictures = sum(file.stat().st_size for file in (SITE / "_static/gallery").iterdir())
    assert weight(seen) + pictures < 1_500_000
    assert not any("mathjax" in url for url, _, _ in seen["fetched"])


@pytest.mark.parametrize("name", PAGES)
def test_no_link_leads_to_an_address_that_is_not_set(name, site):
    links = [link["href"] for link in checks.parse(site, name).find_all("a", href=True)]
    assert PUBLISHED or not [link for link in links if "owner--not-set" in link]


@pytest.mark.parametrize("name", ["book/index.html", "notebooks/00_why_explain.html"])
def test_every_icon_is_drawn(name, base, open_tab):
    page = open_tab()
    checks.visit(page, f"{base}/{name}")
    assert page.locator("svg.svg-inline--fa").count() >= 5
    assert page.locator("i[class*='fa-'], svg.svg-inline--fa [opacity='0']").count() == 0
    missing = page.locator("svg[data-icon='circle-question'], .fa-layers-missing")
    assert missing.count() == 0
