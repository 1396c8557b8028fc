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

pytestmark = pytest.mark.site
every_page = pytest.mark.parametrize("name", PAGES)
every_chapter = pytest.mark.parametrize("name", CHAPTERS)


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


@every_lab
def test_no_file_of_the_site_holds_a_line_of_a_labs_solution(lab, site):
    source = nbformat.read(checks.ROOT / f"notebooks/labs/{lab}/{lab}.ipynb", 4)
    given = (site / f"_static/labs/{lab}.ipynb").read_text(encoding="utf8")
    public = given + everything_but_the_labs()
    secret = [line for line in checks.secrets(source.cells) if json.dumps(line)[1:-1] not in public]
    assert len(secret) > 15
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
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_in_a_browser(name, theme, width, base, open_tab):
    page = open_tab(theme, width)
    problems = checks.watch(page, base)
    checks.visit(page, f"{base}/{name}")
    assert page.locator("html").get_attribute("data-theme") == theme
    checks.unfold(page)
    problems += checks.maths_problems(page) + checks.overflow_problems(page)
    problems += checks.axe_problems(page)
    none([f"{name}, {theme}, {width} px: {problem}" for problem in problems])


@every_page
def test_page_as_it_opens_is_accessible(name, base, open_tab):
    page = open_tab()
    checks.visit(page, f"{base}/{name}")
    # Everything that is seen now is seen in the test above, too, where its contrast is judged.
    none([f"{name}: {problem}" for problem in checks.axe_problems(page, contrast=False)])


@every_page
def test_page_reflows_at_320_px(name, base, open_tab):
    page = open_tab("light", 320)
    checks.visit(page, f"{base}/{name}")
    checks.unfold(page)
    none([f"{name}, 320 px: {problem}" for problem in checks.overflow_problems(page)])


@every_page
def test_pictures_have_real_alternative_text(name, site):
    none(checks.alt_problems(checks.parse(site, name)))


@every_chapter
def test_chapters_show_pictures(name, site):
    assert article(site, name).find("img")


@every_page
def test_page_has_no_trace_of_the_machine_or_of_errors(name, site):
    none(checks.text_problems(checks.parse(site, name)))


def test_search_index_has_no_trace_of_the_machine(site):
    index = (site / "searchindex.js").read_text(encoding="utf8")
    assert not checks.MACHINE_PATH.findall(index)


@every_page
def test_links_into_the_repository_lead_to_files_it_has(name, site):
    none(checks.repository_problems(checks.parse(site, name), REPOSITORY))


@every_page
def test_footer_names_the_licences(name, site):
    footer = checks.parse(site, name).select_one("footer.bd-footer-content").get_text()
    assert "MIT licence" in footer
    assert "CC BY 4.0" in footer


@every_chapter
def test_launch_button_opens_the_notebook_on_colab(name, site):
    button = checks.parse(site, name).select_one(".dropdown-launch-buttons a[href*=colab]")
    notebook = name.replace(".html", ".ipynb")
    expected = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/{notebook}"
    assert (button and button["href"]) == (expected if PUBLISHED else None)


def test_every_link_and_anchor_inside_the_site_leads_somewhere(site):
    none(checks.link_problems(site))


def test_first_page_leads_to_the_home(base, open_tab):
    page = open_tab()
    page.goto(f"{base}/index.html")
    page.wait_for_url("**/book/index.html")


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


@every_chapter
def test_quizzes_answer_a_click(name, base, open_tab):
    page = open_tab()
    problems = checks.watch(page, base)
    checks.visit(page, f"{base}/{name}")
    quizzes = page.locator("fieldset.quiz").count()
    assert quizzes >= 3, f"{name} has {quizzes} quizzes"
    none(problems + checks.quiz_problems(page))


@every_chapter
def test_solutions_are_folded_and_unfold(name, base, open_tab):
    page = open_tab()
    checks.visit(page, f"{base}/{name}")
    solutions = page.locator("details.hide", has_text="@title Solution")
    assert solutions.count() >= 1
    for solution in solutions.all():
        code = solution.locator("pre").first
        assert not code.is_visible()
        solution.locator("summary").click()
        assert code.is_visible()
    assert page.locator("details[open]").count() == solutions.count()


@every_chapter
def test_copy_button_copies_the_code(name, base, open_tab):
    page = open_tab()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    problems = checks.watch(page, base)
    checks.visit(page, f"{base}/{name}")
    block = page.locator(".cell_input:visible div.highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == block.locator("pre").inner_text().strip()
    none(problems)


def found(page):
    """Wait for the search to end; the pages it found, without the place on the page."""
    page.wait_for_selector("#search-results li a")
    page.wait_for_selector("text=Search finished")
    return {a.get_attribute("href").split("#")[0] for a in page.locator("#search-results a").all()}


def chapters_on_receptive_fields():
    return {name for name in CHAPTERS if "/01_" in name} | {"book/glossary.html"}


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
