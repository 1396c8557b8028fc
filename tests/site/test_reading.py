"""What a reader meets on a page: how much open code, how many pictures, how heavy, what is cut."""

import json
import re
from pathlib import Path

import pytest
import site_checks as checks
import yaml
from conftest import SITE

PAGES = checks.pages(SITE) if SITE.is_dir() else []
CHAPTERS = [name for name in PAGES if re.match(r"notebooks/\d", name)]
CONFIG = yaml.safe_load((checks.ROOT / "_config.yml").read_text(encoding="utf8"))
PUBLISHED = "--" not in CONFIG["repository"]["url"]

pytestmark = pytest.mark.site

CODE, FIGURES = 0.25, 0.25  # of a chapter's height: at most open code, at least figures
# Chapters that have less of figures, and why.
LESS = {
    # A picture for each step; the words between them say how far it can be believed.
    **dict.fromkeys(("00", "01", "04", "05", "06", "09", "12", "14", "20", "21"), 0.15),
    "08": 0.22,
    # Their evidence is numbers: means and intervals over seeds, scenes, digits and networks.
    **dict.fromkeys(("18",), 0.09),
    **dict.fromkeys(("15", "17", "19"), 0.19),
    # Arithmetic on three units, which a reader can follow with a pencil.
    "10": 0.14,
}
# The share of the page's height that open code and figures take, and blocks that are cut off at
# the side though nothing shows that they scroll.
SHARES = """() => {
  const article = document.querySelector('article');
  const open = e => e.checkVisibility() && !e.closest('details:not([open])');
  const height = selector => [...article.querySelectorAll(selector)].filter(open)
    .reduce((sum, e) => sum + e.getBoundingClientRect().height, 0);
  const whole = article.getBoundingClientRect().height;
  const cut = [...article.querySelectorAll('pre, table')].filter(open).filter(e => {
    for (let box = e; box !== article; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (style.overflowX === 'visible' || box.scrollWidth <= box.clientWidth + 1) continue;
      return !style.backgroundImage.includes('gradient');
    }
    return false;
  });
  return {
    height: Math.round(whole),
    code: height('.cell_input pre') / whole,
    figures: height('[data-explorable], .opening-picture, .figure-caption, '
      + ':is(.cell_output figure, .cell_output img:not(figure img)):not([data-explorable] *)')
      / whole,
    smallest: Math.min(...[...article.querySelectorAll('*')].filter(open).filter(
      e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
        && !e.closest('svg, mjx-container, .visually-hidden')).map(
      e => parseFloat(getComputedStyle(e).fontSize))),
    cut: cut.map(e => e.textContent.trim().slice(0, 60)),
  };
}"""


ROWS = SITE.parent / "reading"  # a file for each chapter, because two processes test


@pytest.fixture(scope="module", autouse=True)
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
def test_a_chapter_shows_pictures_and_little_code(name, base, open_tab):
    page, answered = open_tab("light", 1280), []
    page.on("requestfinished", lambda request: answered.append(request))
    checks.visit(page, f"{base}/{name}")
    fetched = sum(request.sizes()["responseBodySize"] for request in answered)
    wide = page.evaluate(SHARES)
    page = open_tab("light", 390)
    checks.visit(page, f"{base}/{name}")
    narrow = page.evaluate(SHARES)
    row = wide | {"narrow": narrow["height"], "kB": fetched / 1000}
    row |= {"smallest": narrow["smallest"], "cut": wide["cut"] + narrow["cut"]}
    path = ROWS / f"{Path(name).stem}.json"
    path.with_suffix(".new").write_text(json.dumps(row))
    path.with_suffix(".new").replace(path)  # whole, for the other process may be reading
    assert wide["code"] < CODE
    assert round(wide["figures"], 2) >= LESS.get(Path(name).name[:2], FIGURES)
    assert narrow["smallest"] >= 9
    assert wide["cut"] == narrow["cut"] == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_picture_comes_before_the_first_code(name, base, open_tab):
    page = open_tab()
    checks.visit(page, f"{base}/{name}")
    assert page.evaluate(
        """() => {
          const article = document.querySelector('article');
          const open = [...article.querySelectorAll('.cell_input pre')].find(
            e => e.checkVisibility());
          const picture = article.querySelector('img, [data-explorable]');
          return picture.getBoundingClientRect().top < open.getBoundingClientRect().top;
        }"""
    )


def weight(page, base, name, kinds):
    """The bytes a page fetches of some kinds (document, script, image, ...), as it opens."""
    answered = []
    page.on("requestfinished", lambda request: answered.append(request))
    page.goto(f"{base}/{name}", wait_until="load")
    of_kinds = [request for request in answered if request.resource_type in kinds]
    return sum(request.sizes()["responseBodySize"] for request in of_kinds)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light_besides_its_figures(name, base, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})  # with an empty cache
    kinds = ("script", "stylesheet", "font", "fetch", "xhr", "other")
    formulas = 'class="math' in (SITE / name).read_text(encoding="utf8")
    most = 1_000_000 if name == "search.html" else 800_000  # the index of all words is fetched
    allowed = most + (SITE / "_static/mathjax/tex-svg.js").stat().st_size * formulas
    assert weight(context.new_page(), base, name, kinds) < allowed
    context.close()


def test_the_home_page_is_light(base, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    kinds = ("document", "script", "stylesheet", "font", "image", "fetch", "xhr", "other")
    total = weight(page, base, "book/index.html", kinds)
    pictures = sum(file.stat().st_size for file in (SITE / "_static/gallery").iterdir())
    assert total + pictures < 1_500_000
    assert not any("mathjax" in url for url in requests)
    context.close()


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
