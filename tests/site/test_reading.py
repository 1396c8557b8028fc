"""What a reader meets on a page: how much open code, how many pictures, how heavy, what is cut."""

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

CODE, FIGURES = 0.5, 0.03  # of a chapter's height: at most open code, at least figures
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
    figures: height('.cell_output img, .opening-picture img, [data-explorable]') / whole,
    cut: cut.map(e => e.textContent.trim().slice(0, 60)),
  };
}"""


@pytest.fixture(scope="module")
def table():
    """Gathers the figures of all chapters, and writes them beside the site in the end."""
    rows = {}
    yield rows
    lines = ["chapter  height 1280  390  open code  figures  kB"]
    for name, row in sorted(rows.items()):
        lines.append(
            f"{Path(name).stem:32} {row['height']:6} {row['narrow']:6} "
            f"{row['code']:4.0%} {row['figures']:4.0%} {row['kB']:5.0f}"
        )
    text = "\n".join(lines)
    print(f"\n{text}")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_shows_pictures_and_little_code(name, base, open_tab, table):
    page, sizes = open_tab("light", 1280), []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    checks.visit(page, f"{base}/{name}")
    wide = page.evaluate(SHARES)
    page = open_tab("light", 390)
    checks.visit(page, f"{base}/{name}")
    narrow = page.evaluate(SHARES)
    table[name] = wide | {"narrow": narrow["height"], "kB": sum(sizes) / 1000}
    assert wide["code"] < CODE
    assert wide["figures"] >= FIGURES
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
    sizes = []

    def note(request):
        if request.resource_type in kinds:
            sizes.append(request.sizes()["responseBodySize"])

    page.on("requestfinished", note)
    page.goto(f"{base}/{name}", wait_until="load")
    return sum(sizes)


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
