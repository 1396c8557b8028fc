"""Each check finds what it is there for, on a page that is broken on purpose."""

import itertools
import shutil

import pytest
import site_checks as checks
from bs4 import BeautifulSoup

pytestmark = pytest.mark.site

GOOD = "<p>Nothing is wrong with this page.</p>"
QUIZ = """<style>.quiz p { display: none } .quiz input:checked ~ p { display: block }</style>
<fieldset class="quiz"><legend>One or two?</legend>
<div><input type="radio" name="q" id="a"><label for="a">One</label>
<p class="wrong">Not quite. It is two.</p></div>
<div><input type="radio" name="q" id="b"><label for="b">Two</label>
<p class="right">Right. It is two.</p></div></fieldset>"""


def html(body):
    return (
        '<!doctype html><html lang="en"><head><title>A page</title><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"></head>'
        f'<body style="margin: 0"><main><article>{body}</article></main></body></html>'
    )


@pytest.fixture
def opened(tmp_path, open_tab):
    """opened(body): a page with that body, in the browser, and what went wrong meanwhile.

    Each has an address of its own: one written anew within a second is the old one to a browser.
    """
    numbers = itertools.count()
    with checks.serve(tmp_path) as base:

        def visit(body, width=1280):
            name = f"page{next(numbers)}.html"
            (tmp_path / name).write_text(html(body), encoding="utf8")
            page = open_tab("light", width)
            wrong = checks.watch(page, base)
            checks.visit(page, f"{base}/{name}")
            return page, wrong

        yield visit


def test_a_good_page_passes_every_check(opened):
    page, wrong = opened(GOOD + QUIZ)
    assert checks.quiz_problems(page) == []
    checks.unfold(page)
    assert checks.overflow_problems(page) + checks.maths_problems(page) == []
    assert checks.axe_problems(page) + wrong == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('<img alt="" src="https://192.0.2.1/x.png">', "asks another host: https://192.0.2.1"),
        ('<img alt="" src="missing.png">', "answer 404"),
        ("<script>console.error('oh no')</script>", "console error: oh no"),
        ("<script>undefined_name</script>", "uncaught error: undefined_name is not defined"),
    ],
)
def test_errors_and_outside_requests_are_noted(body, expected, opened):
    _, wrong = opened(body)
    assert any(problem.startswith(expected) for problem in wrong), wrong


FAINT = '<p style="color: #aaa; background: #fff">Faint.</p>'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (FAINT, "color-contrast"),
        ('<p style="color: #fefefe; background: #fff">Invisible.</p>', "color-contrast"),
        (f"<details><summary>Solution</summary>{FAINT}</details>", "color-contrast"),
        (
            "<pre><span style='color: #aaa'>x</span> <span style='color: #aaa'>word</span></pre>",
            "color-contrast",
        ),
        ('<img src="data:,">', "image-alt"),
        ("<button></button>", "button-name"),
    ],
)
def test_axe_finds_violations(body, expected, opened):
    page, _ = opened(body)
    checks.unfold(page)
    problems = checks.axe_problems(page)
    assert any(problem.startswith(expected) for problem in problems), problems


def test_colours_that_only_a_narrow_screen_shows_are_judged_too(opened):
    narrow = "<style>@media (max-width: 400px) { p { color: #aaa } }</style>"
    page, _ = opened(narrow + GOOD)
    (problem,) = checks.problems_on_screens(page, (1280, 390))
    assert problem.startswith("390 px: color-contrast")
    page, _ = opened(narrow.replace("#aaa", "#222") + GOOD)
    assert checks.problems_on_screens(page, (1280, 390)) == []


def test_a_theme_that_is_not_the_reader_s_is_found(opened):
    page, _ = opened(GOOD)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert checks.theme_problems(page, "light") == []
    assert len(checks.theme_problems(page, "dark")) == 1


def test_axe_waits_for_what_is_fading_in(opened):
    fading = "<style>@keyframes in { from { opacity: 0 } } p { animation: in 1s }</style>"
    page, _ = opened(fading + GOOD)
    assert checks.axe_problems(page) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('<div style="width: 500px">wide</div>', "the page is 500 px wide in 390 px"),
        ('<div style="margin-left: -9px">left</div>', "outside the page"),
        ('<div style="overflow: hidden"><p style="width: 500px">x</p></div>', "cut off"),
    ],
)
def test_overflow_is_found(body, expected, opened):
    page, _ = opened(body, width=390)
    problems = checks.overflow_problems(page)
    assert any(problem.startswith(expected) for problem in problems), problems


def test_wide_content_in_a_frame_that_scrolls_is_no_overflow(opened):
    page, _ = opened('<div style="overflow-x: auto"><pre style="width: 500px">x</pre></div>', 390)
    assert checks.overflow_problems(page) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (r'<span class="math">\(x^2\)</span>', "not rendered"),
        ("<p>The sum $$x$$</p>", "raw maths"),
    ],
)
def test_maths_that_is_not_rendered_is_found(body, expected, opened):
    page, _ = opened(body)
    assert checks.maths_problems(page)[0].startswith(expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (".quiz p { display: none }", "", "shows an explanation before a click"),
        ("input:checked ~ p", "input:focus ~ em", "'One' shows 0 explanations"),
        ("Right. It", "Perhaps. It", "'Two' shows 'Perhaps. It is two.'"),
        ('class="right"', 'class="wrong"', "0 right answers"),
        ('name="q" id="b"', 'name="r" id="b"', "shows 2 explanations"),
    ],
)
def test_broken_quizzes_are_found(old, new, expected, opened):
    assert old in QUIZ
    page, _ = opened(QUIZ.replace(old, new))
    assert expected in "\n".join(checks.quiz_problems(page))


def test_an_answer_below_its_button_is_found(opened):
    page, _ = opened(QUIZ.replace("Two</label>", "Two " * 30 + "</label>"), width=390)
    assert checks.below_their_buttons(page) == []  # its lines flow around the button
    page.add_style_tag(content="label { display: inline-block }")
    (problem,) = checks.below_their_buttons(page)
    assert "Two" in problem


FOLDED = """<details class="hide"><summary>Show</summary><pre># @title Solution
x = 1</pre></details>"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("Solution", "Solution", None),
        ("Solution", "Something", "there are no solutions"),
        ("<details", "<details open", "something is unfolded as it opens"),
        ("<pre>", "<pre hidden>", "solution 1 does not unfold"),
    ],
)
def test_solutions_that_are_not_folded_or_not_there_are_found(old, new, expected, opened):
    page, _ = opened(FOLDED.replace(old, new))
    assert checks.solution_problems(page)[:1] == ([expected] if expected else [])


@pytest.mark.parametrize("given", ["x = 1", "y = 2"])
def test_a_copy_button_that_copies_something_else_is_found(given, opened):
    page, _ = opened(
        '<div class="cell_input"><div class="highlight"><pre>x = 1\n</pre><button class="copybtn" '
        f"onclick=\"navigator.clipboard.writeText('{given}')\">Copy</button></div></div>"
    )
    wrong = [] if given == "x = 1" else ["the copy button copies 'y = 2'"]
    assert checks.copy_problems(page) == wrong


def test_axe_leaves_the_page_as_it_was_and_can_look_at_colours_alone(opened):
    code = "<pre><span style='color: #aaa'>x</span> <span style='color: #aaa'>word</span></pre>"
    page, _ = opened(code + "<button></button>")
    before = page.content()
    both, colours, others = (
        checks.axe_problems(page),
        checks.axe_problems(page, others=False),
        checks.axe_problems(page, colours=False),
    )
    assert [problem.split()[0] for problem in colours] == ["color-contrast"]
    assert [problem.split()[0] for problem in others] == ["button-name"]
    assert sorted(both) == sorted(colours + others)
    seen = set()
    assert checks.axe_problems(page, others=False, seen=seen) == colours
    assert checks.axe_problems(page, others=False, seen=seen) == []
    assert page.content() == before


def test_axe_gets_three_texts_of_each_look_and_the_page_stays_as_it_was(opened):
    other = FAINT.replace("#fff", "#eee").replace("Faint", "On grey")
    page, _ = opened(5 * FAINT + other)
    page.evaluate("window.before = [...document.querySelectorAll('article *')]")
    assert len(checks.axe_problems(page, others=False)) == 4
    assert page.evaluate("before.every(e => e.isConnected && e.textContent)")
    assert page.evaluate("document.querySelectorAll('article *').length === before.length")


def test_an_explorable_that_wakes_while_axe_looks_finds_its_parts(opened):
    page, _ = opened(
        9 * FAINT + f"<p>before <span>{5 * '<i data-explorable=x><b>x</b></i>'}</span>"
    )
    page.evaluate(checks.LEAVE_THREE_OF_EACH, [])
    assert page.locator("[data-explorable] b").count() == 5
    assert page.evaluate("document.body.textContent").count("Faint") < 9


def test_broken_links_and_anchors_are_found(site, tmp_path):
    copy = tmp_path / "site"
    for name in checks.pages(site):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(site / name, copy / name)
    for folder in ("_static", "_images", "_sources"):
        (copy / folder).symlink_to(site / folder)
    for file in ("searchindex.js", "objects.inv"):
        shutil.copy(site / file, copy / file)
    home = copy / "book/index.html"
    planted = '<a href="nowhere.html">x</a><a href="glossary.html#nothing">y</a></article>'
    home.write_text(home.read_text(encoding="utf8").replace("</article>", planted))
    problems = "\n".join(checks.link_problems(copy))
    assert "book/nowhere.html" in problems
    assert "glossary.html#nothing" in problems
    assert len(problems.splitlines()) == 2


def soup(body):
    return BeautifulSoup(html(body), "html.parser")


DESCRIBED = '<img src="{}" alt="A heat map, brightest on the dog\'s head.">'


@pytest.mark.parametrize(
    "body",
    [
        '<img src="a.png">',
        '<img src="a.png" alt=" ">',
        '<img src="a.png" alt="A figure">',
        '<img src="a.png" alt="../_images/0123456789abcdef.png">',
        DESCRIBED.format("a.png") + DESCRIBED.format("b.png"),
    ],
)
def test_alternative_text_that_says_nothing_is_found(body):
    assert len(checks.alt_problems(soup(body))) == 1


def test_alternative_text_that_describes_passes():
    assert checks.alt_problems(soup(DESCRIBED.format("a.png") * 2)) == []


def output(text):
    return f'<div class="cell_output"><pre>{text}</pre></div>'


@pytest.mark.parametrize(
    "body",
    [
        output("saved to /tmp/abc/x.png"),
        '<p title="/root/course">x</p>',
        output("Traceback (most recent call last):"),
        output("WARNING: the layer was never built"),
        output("UserWarning: divide by zero"),
        output("mean: nan"),
        output("Text(0.02, 0.5, &#x27;a label&#x27;)"),
        output("[&lt;matplotlib.lines.Line2D at 0x7f&gt;]"),
    ],
)
def test_traces_of_machine_and_errors_are_found(body):
    assert len(checks.text_problems(soup(body))) == 1


@pytest.mark.parametrize(
    "body",
    [
        "<p>A warning: <code>np.nan</code> is not a number.</p>",
        '<a href="https://example.org/home/work/tmp">x</a>',
        '<a href="../work/x.html">x</a>',
        output("banana, 3 / work"),
    ],
)
def test_ordinary_text_is_no_trace(body):
    assert checks.text_problems(soup(body)) == []


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/ada/box/blob/main/notebooks/99_nothing.ipynb",
        "https://colab.research.google.com/github/ada/box/blob/main/99.ipynb",
        "https://mybinder.org/v2/gh/ada/box/main?urlpath=lab/tree/notebooks/99.ipynb",
    ],
)
def test_links_to_files_the_repository_lacks_are_found(address):
    assert len(checks.repository_problems(soup(f'<a href="{address}">x</a>'), "ada/box")) == 1
    there = address.replace("notebooks/99_nothing.ipynb", "LICENSE")
    there = there.replace("notebooks/99.ipynb", "LICENSE").replace("99.ipynb", "LICENSE")
    assert checks.repository_problems(soup(f'<a href="{there}">x</a>'), "ada/box") == []
