"""The built site, served from this machine, and a browser to look at it with."""

import functools
import shutil
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

import site_checks

SITE = site_checks.ROOT / "_build/html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items):
    """What is asked about one page is asked in a row, by the process that has opened it."""
    first = {}
    for number, item in enumerate(items):
        first.setdefault(asked_about(item), number)
    items.sort(key=lambda item: first[asked_about(item)])


def asked_about(item):
    """The name of a page or an explorable, or what no other test is about."""
    return getattr(getattr(item, "callspec", None), "params", {}).get("name", item.nodeid)


@pytest.fixture(scope="session")
def site():
    """The folder of the built site."""
    if not (SITE / "index.html").is_file():
        pytest.fail(f"There is no site in {SITE}: run make book first.", pytrace=False)
    return SITE


@pytest.fixture(scope="session")
def base(site):
    """The address the site is served from."""
    with site_checks.serve(site) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """Chromium, as the system has it."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.fail(
            "There is no Chromium to open the pages with. Install it (Debian: apt-get install "
            f"chromium) so that one of {', '.join(BROWSERS)} is on the PATH.",
            pytrace=False,
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def look(browser, base):
    """look(name): what site_checks.look sees on a page of the site; each is opened once."""
    return functools.cache(lambda name: site_checks.look(browser, base, name))


@pytest.fixture(scope="session")
def contexts(browser):
    """A browser window for each theme and width, made when it is first asked for."""
    made = {}

    def context(theme="light", width=1280):
        if (theme, width) not in made:
            made[theme, width] = browser.new_context(
                viewport={"width": width, "height": site_checks.SIZES[width]},
                color_scheme=theme,
                reduced_motion="reduce",
            )
            made[theme, width].set_default_timeout(120_000)  # other work may be in the way
        return made[theme, width]

    yield context
    for opened in made.values():
        opened.close()


@pytest.fixture
def open_tab(contexts):
    """open_tab(theme, width): an empty page, closed after the test."""
    tabs = []

    def tab(theme="light", width=1280):
        tabs.append(contexts(theme, width).new_page())
        return tabs[-1]

    yield tab
    for page in tabs:
        page.close()
