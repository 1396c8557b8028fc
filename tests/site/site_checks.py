"""What a page of the built site must fulfil. Each check returns the sentences that say what fails.

The tests apply them to the site, and to small pages broken on purpose, which they must not pass.
"""

import contextlib
import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

from axe_playwright_python.base import AXE_SCRIPT
from bs4 import BeautifulSoup
from playwright.sync_api import TimeoutError as StillWaiting

ROOT = Path(__file__).parents[2]
AXE = {
    "resultTypes": ["violations", "incomplete"],
    "preload": False,  # it fetches what style sheets import from the wrong folder
}
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
COLOURS = ["color-contrast", "link-in-text-block"]  # the rules of WCAG that look at colours
SIZES = {1280: 900, 390: 844, 320: 640}
PICTURE_FILE = re.compile(r"[\w./-]+\.(png|jpe?g|svg|gif|webp)", re.IGNORECASE)
MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:work|tmp|root|home|Users)/[\w.-]+")


# -- Opening a page ----------------------------------------------------------------------------


@contextlib.contextmanager
def serve(folder):
    """Serve a folder from a free port of this machine while the block runs; gives its address."""
    handler = functools.partial(QuietHandler, directory=folder)
    with QuietServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietServer(http.server.ThreadingHTTPServer):
    request_queue_size = 128  # of five, a busy machine loses the sixth


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def watch(page, base):
    """Note in the list that is returned whatever goes wrong on the page from now on."""
    wrong = []

    def on_request(request):
        if not request.url.startswith((base, "data:", "blob:")):
            wrong.append(f"asks another host: {request.url}")

    def on_console(message):
        if message.type == "error":
            wrong.append(f"console error: {message.text} ({message.location['url']})")

    def on_response(response):
        if response.status >= 400:
            wrong.append(f"answer {response.status}: {response.url}")

    def on_failure(request):
        if request.failure != "net::ERR_ABORTED":  # which is what leaving a page does
            wrong.append(f"failed ({request.failure}): {request.url}")

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("response", on_response)
    page.on("pageerror", lambda error: wrong.append(f"uncaught error: {error}"))
    page.on("requestfailed", on_failure)
    return wrong


def visit(page, url):
    """Open a page and wait until maths and fonts are there and nothing moves."""
    page.goto(url)
    settle(page)


def settle(page):
    """Wait until maths and fonts are there and nothing moves."""
    page.evaluate("window.MathJax?.startup?.promise")
    still(page)


def resize(page, width):
    """Make the window as wide as a screen of that width, and show the beginning of the page."""
    page.set_viewport_size({"width": width, "height": SIZES[width]})
    page.evaluate("window.scrollTo(0, 0)")
    still(page)
    # The theme gives what scrolls a tab stop a moment after the size has changed. What has none
    # after ten seconds, axe reports.
    with contextlib.suppress(StillWaiting):
        page.wait_for_function(
            """() => [...document.querySelectorAll('pre, .pst-scrollable-table-container')].every(
              e => e.scrollWidth <= e.clientWidth || e.tabIndex === 0)""",
            timeout=10_000,
        )


def still(page):
    """Wait until no animation runs: half-faded text would pass for faint."""
    page.evaluate(
        """async () => {
          await document.fonts.ready;
          await new Promise(requestAnimationFrame);
          const running = document.getAnimations().filter(
            a => Number.isFinite(a.effect.getComputedTiming().endTime));
          await Promise.allSettled(running.map(a => a.finished));
        }"""
    )


def unfold(page):
    """Open every folded part, and show every explanation of every quiz."""
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    page.add_style_tag(content=".quiz p { display: block !important }")
    still(page)


# -- In the browser ----------------------------------------------------------------------------


# Takes out text that looks like longer text of the page, or like what was seen, until putBack();
# returns the looks. Of each look three stay: axe is not sure of a single letter, or of text under
# something. What is emptied keeps its height, or explorables further down would come near.
LEAVE_THREE_OF_EACH = """seen => {
  const grounds = new Map([[null, '']]);
  const ground = e => {
    if (!grounds.has(e)) {
      const { backgroundColor, backgroundImage, opacity, position } = getComputedStyle(e);
      const over = ['absolute', 'fixed', 'sticky'].includes(position) ? position : '';
      const layer = [backgroundColor, backgroundImage, opacity, over].join();
      grounds.set(e, layer === 'rgba(0, 0, 0, 0),none,1,' ? ground(e.parentElement)
        : ground(e.parentElement) + '/' + layer);
    }
    return grounds.get(e);
  };
  const look = e => {
    const { color, fontSize, fontWeight, textDecorationLine } = getComputedStyle(e);
    const size = parseFloat(fontSize), link = e.closest('a');
    return [color, size >= 24 || size >= 18.66 && fontWeight >= 700, ground(e),
      ...(link ? [textDecorationLine, getComputedStyle(link.parentElement).color] : [])].join();
  };
  const text = e => e.matches('input, select, textarea') ? e.type : [...e.childNodes].filter(
    n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
  const all = [...document.querySelectorAll('body *')];
  const written = all.filter(e => text(e) && e.checkVisibility() && e.offsetWidth > 1
    && !e.closest('[aria-hidden=true], .visually-hidden, .sr-only'));
  written.sort((a, b) => text(b).length - text(a).length);
  const count = new Map(seen.map(look => [look, 3])), keep = new Set([document.body]);
  const looks = written.map(look);  // all styles before the first change
  written.forEach((e, i) => {
    const before = count.get(looks[i]) ?? 0;
    count.set(looks[i], before + 1);
    for (; before < 3 && e; e = e.parentElement) keep.add(e);
  });
  for (const e of document.querySelectorAll('[data-explorable], [data-explorable] *'))
    for (let up = e; up && !keep.has(up); up = up.parentElement) keep.add(up);
  const emptied = all.filter(e => !keep.has(e) && keep.has(e.parentElement)
    && !e.matches('style, script')).map(
      e => [e, [...e.childNodes], e.getAttribute('style'), e.offsetHeight]);
  for (const [e, , , height] of emptied) {
    e.replaceChildren();
    e.style.minHeight = `${height}px`;
  }
  window.putBack = () => {
    for (const [e, nodes, style] of emptied) {
      e.replaceChildren(...nodes);
      style === null ? e.removeAttribute('style') : e.setAttribute('style', style);
    }
  };
  return [...new Set(looks)];
}"""


def axe_problems(page, colours=True, others=True, seen=None):
    """Violations of the rules of WCAG 2.1 A and AA about colours, and of all others.

    A page has thousands of words in some dozens of looks, which would take axe ten seconds: it gets
    three of each. `seen` is a set of looks that were judged before; it grows.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = []
    if others:
        rules = {rule: {"enabled": False} for rule in COLOURS}
        found += run_axe(page, {"runOnly": WCAG, "rules": rules})
    if colours:
        seen = set() if seen is None else seen
        seen |= set(page.evaluate(LEAVE_THREE_OF_EACH, [*seen]))
        found += run_axe(page, {"runOnly": COLOURS})
        page.evaluate("putBack()")
    return found


def run_axe(page, options):
    """What axe finds wrong, as sentences."""
    # Axe is not sure about text of its background's colour, which may be hidden on purpose: no.
    found = page.evaluate(
        f"""axe.run({json.dumps(AXE | options)}).then(({{violations, incomplete}}) => {{
          for (const rule of incomplete)
            rule.nodes = rule.nodes.filter(node => node.any.some(
              check => check.data?.messageKey === 'equalRatio'));
          return [...violations, ...incomplete];
        }})"""
    )
    return [
        f"{rule['id']} ({rule['help']}): {shorten(node['html'], 200)} "
        f"{shorten(node['failureSummary'], 300)}"
        for rule in found
        for node in rule["nodes"]
    ]


def problems_on_screens(page, widths, others=True):
    """What is wrong on screens of these widths, from wide to narrow; `others` as for axe_problems.

    Axe looks at colours again only where a screen shows others than those before. The narrowest
    that is used, of 320 px, has those of a phone: there only the sides are looked at.
    """
    wrong, seen = [], set()
    for width in widths:
        resize(page, width)
        found = overflow_problems(page)
        if width > 320:
            found += axe_problems(page, others=others, seen=seen)
        wrong += [f"{width} px: {problem}" for problem in found]
    return wrong


def overflow_problems(page):
    """What makes the page scroll sideways, or is cut off inside the article."""
    return page.evaluate(
        """() => {
          const name = e => e.outerHTML.replace(/\\s+/g, ' ').slice(0, 140);
          const wrong = [];
          const root = document.documentElement;
          if (root.scrollWidth > root.clientWidth)
            wrong.push(`the page is ${root.scrollWidth} px wide in ${root.clientWidth} px`);
          const article = document.querySelector('article, main .bd-article-container')
            ?? document.body;
          const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
          const framed = new Set(), outside = new Set();
          for (const e of article.querySelectorAll('*')) {
            if (e.parentElement.closest('svg, mjx-container')) continue;
            if (framed.has(e.parentElement)) { framed.add(e); continue; }
            if (scrolls(e)) framed.add(e);
            if (!e.checkVisibility() || e.matches('.visually-hidden, .sr-only')) continue;
            const box = e.getBoundingClientRect();
            if (box.width <= 1) continue;
            if ((box.right > root.clientWidth + 1 || box.left < -1)
                && !outside.has(e.parentElement))
              wrong.push(`outside the page (${Math.round(box.left)} to `
                + `${Math.round(box.right)} px of ${root.clientWidth}): ${name(e)}`);
            if (box.right > root.clientWidth + 1 || box.left < -1) outside.add(e);
            if (['hidden', 'clip'].includes(getComputedStyle(e).overflowX)
                && e.scrollWidth > e.clientWidth + 1)
              wrong.push(`cut off, ${e.scrollWidth} px in ${e.clientWidth}: ${name(e)}`);
          }
          return wrong;
        }"""
    )


def maths_problems(page):
    """Formulas that MathJax did not render, or not without an error."""
    return page.evaluate(
        r"""() => {
          const wrong = [];
          const article = document.querySelector('article, main .bd-article-container')
            ?? document.body;
          for (const e of article.querySelectorAll('.math, .output .text_latex'))
            if (!e.querySelector('mjx-container')) wrong.push(`not rendered: ${e.textContent}`);
          for (const e of article.querySelectorAll('[data-mjx-error]'))
            wrong.push(`MathJax: ${e.getAttribute('data-mjx-error')}`);
          const copy = article.cloneNode(true);
          copy.querySelectorAll('pre, code, script, style').forEach(e => e.remove());
          const raw = copy.textContent.match(/.{0,30}(\$\$|\\\(|\\\[).{0,30}/);
          if (raw) wrong.push(`raw maths: ${raw[0]}`);
          return wrong;
        }"""
    )


def solution_problems(page):
    """Solutions that are not folded, or do not unfold; they are open afterwards."""
    solutions = page.locator("details.hide", has_text="@title Solution")
    wrong = [] if solutions.count() else ["there are no solutions"]
    if page.locator("details[open]").count():
        wrong.append("something is unfolded as it opens")
    for number, solution in enumerate(solutions.all(), 1):
        code = solution.locator("pre").first
        if code.is_visible():
            wrong.append(f"solution {number} is not folded")
        solution.locator("summary").click()
        if not code.is_visible():
            wrong.append(f"solution {number} does not unfold")
    return wrong


def copy_problems(page):
    """The first cell's copy button, if it does not copy what the cell says."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    block = page.locator(".cell_input:visible div.highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()").strip()
    code = block.locator("pre").inner_text().strip()
    return [] if copied == code else [f"the copy button copies {shorten(copied, 60)!r}"]


def quiz_problems(page):
    """Quizzes whose answers do not explain themselves to a click, and to the keyboard."""
    wrong = []
    for number, quiz in enumerate(page.locator("fieldset.quiz").all(), 1):
        label = f"quiz {number}, {shorten(quiz.locator('legend').inner_text(), 60)!r}"
        rows = quiz.locator("div").all()
        shown = quiz.locator("p:visible")
        if shown.count():
            wrong.append(f"{label}: shows an explanation before a click")
        quiz.locator("input").first.focus()
        page.keyboard.press("Space")
        wrong += _answer_problems(label, rows[0], shown)
        right = 0
        for row in rows[1:] + rows[:1]:
            row.locator("label").click()
            wrong += _answer_problems(label, row, shown)
            right += row.locator("p.right").count()
        if right != 1:
            wrong.append(f"{label}: {right} right answers")
        # The arrow leads to the next answer and chooses it; after the last comes the first.
        for row in rows[1:] + rows[:1]:
            page.keyboard.press("ArrowDown")
            if not row.locator("input").is_checked():
                wrong.append(f"{label}: the arrow key does not choose the next answer")
            wrong += _answer_problems(label, row, shown)
    return wrong


def below_their_buttons(page):
    """Answers of quizzes that do not stand beside their buttons: they begin below them."""
    rows = page.locator("fieldset.quiz div").all()
    words = [(row.locator("label"), row.locator("input").bounding_box()) for row in rows]
    return [
        f"{shorten(label.inner_text(), 40)!r} stands below its button"
        for label, button in words
        if label.bounding_box()["y"] > button["y"] + button["height"] / 2
    ]


def _answer_problems(label, row, shown):
    answer = shorten(row.locator("label").inner_text(), 40)
    if shown.count() != 1:
        return [f"{label}: {answer!r} shows {shown.count()} explanations"]
    right = row.locator("p.right").count() == 1
    text = shown.inner_text()
    if text.startswith("Right.") != right or row.locator("p:visible").count() != 1:
        return [f"{label}: {answer!r} shows {shorten(text, 60)!r}"]
    return []


# -- All of a page, opened once in each theme ----------------------------------------------------

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
  // A figure that scrolls fades at its side and says so, or a chart's half looks like a whole.
  const unmarked = [...article.querySelectorAll('.figure-scroll')].filter(open).filter(
    e => e.scrollWidth > e.clientWidth + 1
      && !(parseFloat(getComputedStyle(e).getPropertyValue('--more'))
        && e.nextElementSibling?.matches('.figure-more')));
  return {
    height: Math.round(whole),
    code: height('.cell_input pre') / whole,
    figures: height('[data-explorable], .opening-picture, .figure-caption:not(.opening-picture *), '
      + ':is(.cell_output figure, .cell_output img:not(figure img)):not([data-explorable] *)')
      / whole,
    smallest: Math.min(...[...article.querySelectorAll('*')].filter(open).filter(
      e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
        && !e.closest('svg, mjx-container, .visually-hidden')).map(
      e => parseFloat(getComputedStyle(e).fontSize))),
    cut: [...cut, ...unmarked].map(e => (e.textContent.trim() || e.innerHTML).slice(0, 60)),
  };
}"""

PICTURE_FIRST = """() => {
  const article = document.querySelector('article');
  const open = [...article.querySelectorAll('.cell_input pre')].find(e => e.checkVisibility());
  const picture = article.querySelector('img, [data-explorable]');
  return picture.getBoundingClientRect().top < open.getBoundingClientRect().top;
}"""


def look(browser, base, name):
    """All that the tests want to know about a page of the site, in a dictionary.

    `light` and `dark`: what is wrong in each theme; `fetched`: address, kind and bytes of whatever
    the page has fetched when it has loaded, of a reader who was never here; of a chapter also
    `wide` and `narrow`: SHARES on two screens, and `picture_first`.
    """
    context = browser.new_context(
        viewport={"width": 1280, "height": SIZES[1280]},
        color_scheme="light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)  # other work may be in the way
    with contextlib.closing(context):
        page, answered = context.new_page(), []
        page.on("requestfinished", lambda request: answered.append(request))
        wrong = watch(page, base)
        page.goto(f"{base}/{name}")
        seen = {
            "fetched": [(r.url, r.resource_type, r.sizes()["responseBodySize"]) for r in answered]
        }
        settle(page)
        wrong += theme_problems(page, "light")
        if name.startswith("notebooks/"):
            seen |= {"wide": page.evaluate(SHARES), "picture_first": page.evaluate(PICTURE_FIRST)}
            resize(page, 390)
            seen["narrow"] = page.evaluate(SHARES)
            wrong += below_their_buttons(page)
            resize(page, 1280)
            if (quizzes := page.locator("fieldset.quiz").count()) < 3:
                wrong.append(f"has {quizzes} quizzes")
            wrong += quiz_problems(page) + solution_problems(page) + copy_problems(page)
        unfold(page)
        wrong += maths_problems(page) + problems_on_screens(page, (1280, 390, 320))
        seen["light"] = [*wrong]
        wrong.clear()
        # The evening comes: a page follows the reader's system.
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        still(page)
        wrong += theme_problems(page, "dark") + problems_on_screens(page, (1280, 390), others=False)
    return seen | {"dark": wrong}


def theme_problems(page, theme):
    """The theme of a page, if not that of the reader's system."""
    found = page.locator("html").get_attribute("data-theme")
    return [] if found == theme else [f"has the theme {found!r}, not {theme!r}"]


# -- In the files ------------------------------------------------------------------------------


def pages(site):
    """Every page of a built site, as its path; the first, index.html, only leads to the home."""
    found = (path.relative_to(site).as_posix() for path in Path(site).rglob("*.html"))
    return sorted(name for name in found if name != "index.html" and "_static" not in name)


@functools.cache
def parse(site, name):
    return BeautifulSoup((Path(site) / name).read_text(encoding="utf8"), "html.parser")


def link_problems(site):
    """Links inside the site, or to files of it, that lead nowhere."""
    lychee = Path(sys.executable).with_name("lychee")
    command = [
        *(lychee, "--offline", "--include-fragments", "--no-progress", "--format", "json"),
        *("--root-dir", site, "--exclude-path", r"/_static/", f"{site}/**/*.html"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=site)
    assert result.returncode in (0, 2), result.stderr
    report = json.loads(result.stdout)
    assert report["total"] > 0, "lychee found no links at all"
    return [
        f"{Path(page).relative_to(site)}: {error['url']} ({error['status']['text']})"
        for page, errors in report["error_map"].items()
        for error in errors
    ]


def alt_problems(page):
    """Pictures of the article whose alternative text says nothing."""
    wrong, sources = [], {}
    for image in page.article.find_all("img") if page.article else []:
        source, alt = image.get("src", ""), (image.get("alt") or "").strip()
        if len(alt) < 20 or PICTURE_FILE.fullmatch(alt):
            wrong.append(f"{source} has the alt text {alt!r}: describe what is to be seen")
        elif sources.setdefault(alt, source) != source:
            wrong.append(f"{source} and {sources[alt]} have the same alt text {alt!r}")
    return wrong


def text_problems(page):
    """Traces of the machine, or of something that went wrong when the page was made."""
    wrong = [f"names the path {path}" for path in MACHINE_PATH.findall(str(page))]
    if not wrong and str(ROOT) in str(page):
        wrong.append(f"names the folder {ROOT}")
    for output in page.select(".cell_output"):
        # Pictures' alternative texts are prose, where these words may stand.
        text = output.get_text()
        signs = (r"Traceback \(most recent", r"\bWARNING\b", r"Warning: ", r"\bnan\b")
        for sign in (*signs, r"\bText\([\d.]", r"<matplotlib\.", r"<Axes"):
            if found := re.search(rf".{{0,60}}{sign}.{{0,60}}", text):
                wrong.append(f"an output says {found[0].strip()!r}")
    return wrong


def repository_problems(page, repository):
    """Links to files of the course's own repository that the repository does not hold."""
    wrong = []
    for link in page.find_all("a", href=re.compile(re.escape(repository))):
        address = unquote(link["href"])
        path = re.search(rf"{re.escape(repository)}/(?:blob|tree|raw|edit)/main/([^?#]+)", address)
        path = path or re.search(r"urlpath=(?:lab/tree|tree)/([^?#&]+)", address)
        if path and not (ROOT / path[1]).exists():
            wrong.append(f"{address}: there is no {path[1]}")
    return wrong


def shorten(text, length):
    """The text in one line, and no longer than that."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def secrets(cells):
    """The lines of a lab's notebook that no student may see, but for the shortest ones.

    Those of solutions, hidden tests and marking schemes, and the answer to the open question.
    """
    found, inside = [], False
    for cell in cells:
        by_hand = cell.cell_type == "markdown" and cell.metadata.get("nbgrader", {}).get("solution")
        for line in map(str.strip, cell.source.splitlines()):
            if re.match(r"### (BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)", line):
                inside = "BEGIN" in line
            elif (inside or by_hand) and len(line) > 15:
                found.append(line)
    return found
