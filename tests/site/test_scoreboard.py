"""The scoreboard can be sorted, its columns chosen and its rows hidden, in a real browser."""

import sys

import pytest
import site_checks as checks
from bs4 import BeautifulSoup

sys.path.insert(0, str(checks.ROOT / "book/_ext"))

import pdf
import scoreboard_page

pytestmark = pytest.mark.site

LOOKS = {"kind": "looks"}
BOARD = {
    "columns": {
        "mass": {"group": "The cause", "name": "mass", "better": "high", "says": "on the cause"},
        "road": {"group": "Asking", "name": "ROAD", "better": "low", "says": "what is left"},
        "top": {"group": "Asking", "name": "top-down", "better": "zero", "says": "a correlation"},
    },
    "rows": [
        {"name": "one", **LOOKS, "mass": [0.2, 0.1, 0.3, 20], "road": [0.5, 0.4, 0.6, 20]},
        {"name": "two", **LOOKS, "mass": [0.4, 0.3, 0.5, 20], "top": [-0.3, -0.4, -0.2, 20]},
        {"name": "three", **LOOKS, "mass": [0.9, 0.8, 1, 20], "top": [0.1, 0, 0.2, 12]},
        {"name": "edges", "kind": "never looks", "road": [0.1, 0, 0.2, 20], "top": [1, 1, 1, 20]},
    ],
}


@pytest.fixture
def page_file(tmp_path):
    """A page with the table."""
    static = checks.ROOT / "book/_static"
    (tmp_path / "page.html").write_text(
        '<!doctype html><html lang="en"><head><title>A page</title><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{(static / 'course.css').read_text(encoding='utf8')}</style><style>"
        ".pst-scrollable-table-container { overflow-x: auto } table { white-space: nowrap }"
        "html { --pst-color-background: #fff; --pst-color-link: #00c;"
        "--pst-color-text-muted: #444 }"
        "@media (prefers-color-scheme: dark) { html { --pst-color-background: #111;"
        "--pst-color-link: #9cf; --pst-color-text-muted: #bbb; background: #111; color: #eee } }"
        f'</style></head><body><main><article class="bd-article">{scoreboard_page.marks(BOARD)}'
        f"</article></main><script>{(static / 'scoreboard.js').read_text(encoding='utf8')}</script>"
        "</body></html>",
        encoding="utf8",
    )
    return tmp_path / "page.html"


@pytest.fixture
def opened(page_file, open_tab):
    """opened(theme, width): the page from a disk, and what went wrong meanwhile."""

    def visit(theme="light", width=1280):
        page = open_tab(theme, width)
        wrong = checks.watch(page, page_file.as_uri())
        checks.visit(page, page_file.as_uri())
        return page, wrong

    return visit


def order(page):
    return page.locator("tbody th:visible").all_inner_texts()


@pytest.mark.parametrize("width", [1280, 320])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_fits(opened, theme, width):
    page, wrong = opened(theme, width)
    page.get_by_label("Columns").select_option("everything")
    page.get_by_text("Rows", exact=True).click()
    assert checks.overflow_problems(page) + checks.axe_problems(page) + wrong == []


def test_a_head_sorts_best_first_and_again_worst_first_and_what_is_undefined_comes_last(opened):
    page, _ = opened()
    head = page.get_by_role("button", name="mass")
    head.click()
    assert order(page) == ["three", "two", "one", "edges"]
    assert page.get_by_role("status").inner_text() == "Sorted by mass, The cause: best first."
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("mass")
    head.click()
    assert order(page) == ["one", "two", "three", "edges"]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="method").click()
    assert order(page) == ["one", "two", "three", "edges"]


def test_low_or_near_to_zero_can_be_best_and_keys_are_enough(opened):
    page, _ = opened()
    page.get_by_label("Columns").focus()
    page.keyboard.press("End")  # everything
    for name, expected, heard in (
        ("ROAD", ["edges", "one", "two", "three"], "ascending"),  # the lowest is the best
        ("top-down", ["three", "two", "edges", "one"], "other"),
    ):
        page.get_by_role("button", name=name).focus()
        page.keyboard.press("Enter")
        assert order(page) == expected
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == heard


def test_a_list_chooses_the_columns_and_a_box_hides_a_row(opened):
    page, _ = opened()
    assert page.locator("thead button:visible").all_inner_texts() == ["method", "mass ↑"]
    page.get_by_label("Columns").select_option("Asking")
    shown = ["method", "ROAD ↓", "top-down →0←"]
    assert page.locator("thead button:visible").all_inner_texts() == shown
    assert page.locator("tbody tr").first.locator("td:visible").count() == 2
    page.get_by_text("Rows", exact=True).click()
    page.get_by_label("edges").uncheck()
    assert order(page) == ["one", "two", "three"]
    assert page.get_by_role("status").inner_text() == "3 of 4 rows."
    page.get_by_label("edges").check()
    assert order(page) == ["one", "two", "three", "edges"]


def test_without_javascript_the_whole_table_is_there(page_file, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("tbody td:visible").count() == 12
    assert page.get_by_text("0.90").is_visible()
    context.close()


def test_bold_is_what_reaches_the_best_of_those_that_look():
    assert scoreboard_page.level(BOARD, "mass") == {"three"}
    assert scoreboard_page.level(BOARD, "road") == {"one"}
    assert scoreboard_page.level(BOARD, "top") == {"three"}


@pytest.mark.parametrize(("most", "shares"), [(1, [1, 2]), (2, [1, 2]), (3, [3])])
def test_on_paper_every_column_stands_in_a_table_that_fits(most, shares):
    soup = BeautifulSoup(scoreboard_page.marks(BOARD), "html.parser")
    table = soup.table
    heads, *rows = [[cell.get_text() for cell in row.find_all(["th", "td"])]
                    for row in table.find_all("tr")[1:]]  # fmt: skip
    pdf.part(table, most)
    parts = soup.find_all("table")
    assert [len(part.find_all("tr")[1].find_all("th")) - 1 for part in parts] == shares
    begin = 1
    for part, share in zip(parts, shares, strict=True):
        over, *lines = part.find_all("tr")
        assert sum(int(head["colspan"]) for head in over.find_all("th")) == share
        for line, row in zip(lines, [heads, *rows], strict=True):
            cells = [cell.get_text() for cell in line.find_all(["th", "td"])]
            assert cells == [row[0], *row[begin : begin + share]]
        begin += share
