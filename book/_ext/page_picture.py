"""Make the README's picture, book/_static/page.png, from the built site: `make picture`.

It shows the part of the first chapter in which only the sky is exchanged.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "_build/html/notebooks/00_why_explain.html"
TARGET = ROOT / "book/_static/page.png"
SIZE = {"width": 1280, "height": 800}
PLACE = "#from-where-to-why-an-experiment"  # the section's figure is in the middle of the picture


def main():
    """Take the picture, with 256 colours, which is a third of its bytes."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None or not PAGE.is_file():
        sys.exit("The picture needs Chromium and the built site: run make book first.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
        page.goto(PAGE.as_uri())
        page.evaluate("window.MathJax?.startup?.promise")
        image = page.locator(f"section{PLACE} .cell_output img").first
        image.scroll_into_view_if_needed()
        image.evaluate("e => e.decode().then(() => e.scrollIntoView({block: 'center'}))")
        page.wait_for_timeout(500)  # the theme marks the section in its table of contents
        png = page.screenshot()
        browser.close()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(256).save(TARGET, optimize=True)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
