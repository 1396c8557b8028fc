"""The built site in a real browser: what every page must fulfil. Run by `make check-site`."""

import json
import re
from functools import cache
from html import unescape

import nbformat
import pytest
import site_checks as checks
import yaml
from conftest import SITE

PAGES = checks.pages(SITE) if SITE.is_dir() else []
CHAPTERS = [name for name in PAGES if re.match(r"notebooks/\d", name)]
CONFIG = yaml.safe_load((checks.ROOT / "_config.yml").read_text(encoding="utf8"))
REPOSITORY = CONFIG["repository"]["url"].removeprefix("https://github.com/")

PUBLISHED = "--" not in REPOSITORY  # an address of GitHub's has no two hyphens in a row

CAPTION = ".figure-caption, figcaption"

pytestmark = pytest.mark.site
every_page = pytest.mark.parametrize("name", PAGES)


def article(site, name):
    return checks.parse(site, name).article


def none(problems):
    """Fail with the problems, one a line."""
    __tracebackhide__ = True
    if problems:
        pytest.fail("\n".join(dict.fromkeys(problems)), pytrace=False)


def test_the_site_is_all_there(site):
    assert {"book/index.html", "book/glossary.html", "search.html"} <= set(PAGES)
    notebooks = sorted((checks.ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert [f"notebooks/{path.stem}.html" for path in notebooks] == [
        name for name in CHAPTERS if name.count("/") == 1
    ]


LABS = sorted(path.stem for path in (checks.ROOT / "notebooks/labs").glob("*/*.ipynb"))
every_lab = pytest.mark.parametrize("lab", LABS)


@every_lab
def test_a_lab_has_a_page_with_its_tasks_and_its_links(lab, site):
    page = (site / f"book/lab_{lab}.html").read_text(encoding="utf8")
    tasks = re.findall(r"<h2>(Task \d · [^<]+)<", page)
    source = nbformat.read(checks.ROOT / f"notebooks/labs/{lab}/{lab}.ipynb", 4)
    text = "\n".join(c.source for c in source.cells if c.cell_type == "markdown")
    assert len(tasks) == len(re.findall(r"^## Task", text, re.MULTILINE)) >= 5
    assert (site / f"_static/labs/{lab}.ipynb").is_file()
    assert f'href="../_static/labs/{lab}.ipynb"' in page
    colab = f"colab.research.google.com/github/{REPOSITORY}/blob/labs/{lab}/{lab}.ipynb"
    assert (colab in page) == PUBLISHED
    assert f'href="lab_{lab}.html"' in (site / "book/labs.html").read_text(encoding="utf8")


def test_no_file_of_the_site_holds_a_line_of_a_labs_solution(site):
    secret = []
    for lab in LABS:
        source = nbformat.read(checks.ROOT / f"notebooks/labs/{lab}/{lab}.ipynb", 4)
        given = (site / f"_static/labs/{lab}.ipynb").read_text(encoding="utf8")
        public = given + everything_but_the_labs()
        lines = [x for x in checks.secrets(source.cells) if json.dumps(x)[1:-1] not in public]
        assert len(lines) > 15
        secret += lines
    for path in sorted(site.rglob("*")):
        if path.is_file() and path.suffix not in {".png", ".jpg", ".woff2", ".ttf", ".webp"}:
            text = unescape(path.read_text(encoding="utf8", errors="replace"))
            text += re.sub(r"<[^>]+>", "", text)  # highlighted code is full of tags
            found = [line for line in secret if line in text or json.dumps(line)[1:-1] in text]
            none([f"{path.relative_to(site)} holds {line!r}" for line in found])


@cache
def everything_but_the_labs():
    """What chapters and the package show anyway, such as `import numpy as np`."""
    folders = [checks.ROOT / folder for folder in ("notebooks", "course_utils")]
    files = [path for folder in folders for path in folder.glob("*.*") if path.is_file()]
    text = "".join(path.read_text(encoding="utf8") for path in files)
    return text + "".join(json.dumps(line) for line in text.splitlines())


@every_page
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_in_a_browser(name, theme, look):
    none([f"{name}, {theme}: {problem}" for problem in look(name)[theme]])


@every_page
def test_page_as_a_file(name, site):
    page = checks.parse(site, name)
    none(
        checks.alt_problems(page)
        + checks.text_problems(page)
        + checks.repository_problems(page, REPOSITORY)
    )
    footer = page.select_one("footer.bd-footer-content").get_text()
    assert "MIT licence" in footer
    assert "CC BY 4.0" in footer
    if name in CHAPTERS:
        assert page.article.find("img"), "a chapter shows pictures"
        button = page.select_one(".dropdown-launch-buttons a[href*=colab]")
        notebook = name.replace(".html", ".ipynb")
        expected = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/{notebook}"
        assert (button and button["href"]) == (expected if PUBLISHED else None)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_button_back_to_the_top_can_be_read(theme, base, open_tab):
    page = open_tab(theme, 390)
    checks.visit(page, f"{base}/book/glossary.html")
    none(checks.theme_problems(page, theme))
    page.mouse.wheel(0, 3000)
    page.wait_for_function("window.scrollY >= 3000")
    page.mouse.wheel(0, -200)  # it comes when the reader turns back
    page.wait_for_selector("#pst-back-to-top", state="visible")
    checks.still(page)
    none(checks.axe_problems(page, others=False))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_marked_word_can_be_read_in_a_link_too(theme, base, open_tab):
    page = open_tab(theme)
    checks.visit(page, f"{base}/book/glossary.html?highlight=shapley")
    assert page.locator("article a span.highlighted").count() > 0
    none(checks.axe_problems(page, others=False))


def test_search_index_has_no_trace_of_the_machine(site):
    index = (site / "searchindex.js").read_text(encoding="utf8")
    assert not checks.MACHINE_PATH.findall(index)


def test_every_link_and_anchor_inside_the_site_leads_somewhere(site):
    none(checks.link_problems(site))


def test_first_page_leads_to_the_home(base, open_tab):
    page = open_tab()
    page.goto(f"{base}/index.html")
    page.wait_for_url("**/book/index.html")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_on_the_first_screen_of_the_home_a_reader_acts_and_sees_what_comes_of_it(
    width, height, base, browser
):
    page = browser.new_page(viewport={"width": width, "height": height})
    checks.visit(page, f"{base}/book/index.html")
    page.wait_for_selector("[data-alive]")
    answers, sunny = page.locator(".verdict"), page.get_by_label("sunny", exact=True)
    assert answers.all_inner_texts() == ["tank", "tank"]
    shown = [page.locator(f"article {part}") for part in ("h1", ".start a", ".stage")]
    for part in [*shown, page.get_by_text("who know some Python"), sunny, *answers.all()]:
        box = part.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height, f"{part} ends below the first screen"
    sunny.check()
    assert answers.all_inner_texts() == ["no tank", "tank"]
    assert page.evaluate("scrollY") == 0
    page.close()


def test_what_a_notebook_says_of_the_site_is_for_print_alone(site, base, open_tab):
    page = open_tab()
    checks.visit(page, f"{base}/{next(name for name in CHAPTERS if '/08_' in name)}")
    elsewhere = re.compile(r"On the course.s site|In a notebook it stands still")
    assert not elsewhere.search(page.locator("article").inner_text())
    assert "The next figure answers" in page.locator("article").inner_text()
    page.emulate_media(media="print")
    assert len(elsewhere.findall(page.locator("article").inner_text())) == 3
    texts = [text for name in CHAPTERS for text in article(site, name).find_all(string=elsewhere)]
    assert len(texts) > 20
    assert all("in-print" in text.parent.get("class", []) for text in texts)


def test_each_chapter_opens_with_a_figure_that_says_what_it_is_and_where_it_is_made(site):
    said = set()
    for name in CHAPTERS:
        page = article(site, name)
        opening, caption = page.select_one(".opening-picture"), page.select_one(CAPTION)
        assert caption.parent == opening, "it is figure 1"
        said.add(caption.get_text())
        made = page.select_one(caption.a["href"])
        assert "cell" in made["class"]
        assert made.find("img", alt=opening.img["alt"])
    assert len(said) == len(CHAPTERS)


def test_glossary_says_which_language_each_word_is(site):
    sections = article(site, "book/glossary.html").select("section section")
    assert len(sections) > 30
    for section in sections:
        words = section.find("p").find_all("span", lang=True)
        assert [word["lang"] for word in words] == ["zh-Hans", "zh-Hant", "ja"], section.h2
        assert all(word.get_text(strip=True) for word in words)


def test_package_page_takes_no_sentence_for_a_parameter(site):
    page = article(site, "book/api.html")
    names = [name.get_text() for name in page.select(".field-list strong")]
    assert len(names) > 10
    # A line like "Raises ValueError if ..." after the parameters needs a section of its own.
    assert [name for name in names if not name.lstrip("*").isidentifier()] == []
    assert "Alias for field number" not in page.get_text()


def found(page):
    """Wait for the search to end; the pages it found, without the place on the page."""
    page.wait_for_selector("#search-results li a")
    page.wait_for_selector("text=Search finished")
    return {a.get_attribute("href").split("#")[0] for a in page.locator("#search-results a").all()}


def chapters_on_receptive_fields():
    return {name for name in CHAPTERS if "/01_" in name} | {"book/glossary.html"}


# What students look up: the glossary's entry, or the chapter that is about it.
LOOKED_UP = {
    "receptive field": "01",
    "feature map": "02",
    "occlusion": "03",
    "LIME": "04",
    "superpixel": "04",
    "Shapley value": "06",
    "saliency": "07",
    "logit": "03",
    "guided backpropagation": "07",
    "SmoothGrad": "08",
    "integrated gradients": "08",
    "confounding": "00",
    "baseline": "08",
    "Grad-CAM": "09",
    "layer-wise relevance propagation": "10",
    "surrogate": "12",
    "influence function": "12",
    "activation maximisation": "13",
    "t-SNE": "16",
    "UMAP": "16",
    "pointing game": "18",
}


@pytest.mark.parametrize("term", LOOKED_UP)
def test_search_puts_the_right_entry_first(term, base, open_tab):
    page = open_tab()
    page.goto(f"{base}/search.html?q={term.replace(' ', '+')}")
    page.wait_for_selector("text=Search finished")
    first = page.locator("#search-results li a").first.get_attribute("href").split("#")[0]
    assert first == "book/glossary.html" or first.startswith(f"notebooks/{LOOKED_UP[term]}_")


def test_search_page_finds_receptive_field(base, open_tab):
    page = open_tab()
    problems = checks.watch(page, base)
    page.goto(f"{base}/search.html?q=receptive+field")
    assert chapters_on_receptive_fields() <= found(page)
    none(problems)


def test_search_dialog_finds_receptive_field(base, open_tab):
    page = open_tab()
    problems = checks.watch(page, base)
    checks.visit(page, f"{base}/book/index.html")
    page.locator("button.search-button__button:visible").first.click()
    field = page.locator("dialog#pst-search-dialog input[name=q]")
    field.fill("receptive field")
    field.press("Enter")
    page.wait_for_url("**/search.html?q=receptive+field*")
    assert chapters_on_receptive_fields() <= found(page)
    none(problems)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_theme_button_switches_and_the_choice_stays(theme, browser, base):
    context = browser.new_context()  # of its own: the choice is kept in the browser
    page = context.new_page()
    checks.visit(page, f"{base}/book/index.html")
    html = page.locator("html")
    for _ in range(3):  # it goes round light, dark, and whatever the system has
        page.locator("button.theme-switch-button:visible").click()
        if html.get_attribute("data-mode") == theme:
            break
    assert html.get_attribute("data-theme") == theme
    page.locator("nav.bd-links a", has_text="Glossary").click()
    page.wait_for_url("**/glossary.html")
    assert html.get_attribute("data-theme") == theme
    context.close()


def test_site_works_from_a_disk(site, open_tab):
    page = open_tab()
    problems = checks.watch(page, "file:")
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/book/index.html")
    checks.visit(page, (site / CHAPTERS[0]).as_uri())
    assert page.locator("mjx-container").count() > 0
    problems += checks.maths_problems(page)
    page.goto((site / "search.html").as_uri() + "?q=receptive+field")
    assert chapters_on_receptive_fields() <= found(page)
    page.locator("#search-results a[href^='book/glossary.html']").first.click()
    page.wait_for_url("**/glossary.html*")
    none(problems)
