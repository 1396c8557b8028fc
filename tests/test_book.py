"""The book's lists: each entry once, in an order in which it is found."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"


def entries(page, section, level):
    """The headings of a level below a section of a page, or of the whole page."""
    text = (BOOK / page).read_text(encoding="utf8")
    if section:
        text = text.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^{'#' * level} (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "section", "level"), [("glossary.md", None, 2), ("references.md", "Papers", 3)]
)
def test_each_entry_stands_once_and_in_order(page, section, level):
    names = [name.lower() for name in entries(page, section, level)]
    assert len(names) > 20
    assert [(a, b) for a, b in pairwise(names) if a >= b] == []


def test_a_section_stands_once():
    assert entries("references.md", None, 2) == [
        "The five documents",
        "Papers",
        "Data and software",
    ]


def test_every_paper_is_cited_and_every_citation_is_listed():
    sources = [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb"), *(ROOT / "notebooks").rglob("*.ipynb")]
    text = "".join(path.read_text(encoding="utf8") for path in sources)
    cited = set(re.findall(r"references\.md#([\w-]+)", text))
    papers, entered, sections = (
        {name.lower().replace(" ", "-") for name in entries("references.md", *of)}
        for of in (("Papers", 3), (None, 3), (None, 2))
    )
    assert papers - cited == set()
    assert cited - entered - sections == set()


def test_every_page_stands_in_the_contents_once_and_chapters_in_the_order_of_their_numbers():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    listed = [page["file"] for part in contents["parts"] for page in part["chapters"]]
    listed.append(contents["root"])
    files = [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(listed) == sorted(
        path.relative_to(ROOT).with_suffix("").as_posix() for path in files
    )
    chapters = [page for page in listed if page.startswith("notebooks/")]
    assert chapters == sorted(chapters)
