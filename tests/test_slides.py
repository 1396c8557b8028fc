"""Slides show what a teacher shows, keep the rest in notes, and ask no other host for anything."""

import copy
import json
import re
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book/_ext"))

import slides  # noqa: E402

PNG = "iVBORw0KGgo="


def shown(data):
    return [new_output("display_data", data=data)]


@pytest.fixture(scope="module")
def chapter():
    """An executed chapter with a figure, numbers, boxes, a quiz and an exercise."""
    figure = {"figure": {"caption": "Look *here*."}, "image": {"alt": 'A cup & a "spoon"'}}
    printed = [new_output("stream", name="stdout", text="\n".join(map(str, range(20))) + "\n")]
    quiz = '<fieldset class="quiz"><legend>Why?</legend></fieldset>'
    cells = [
        new_markdown_cell(
            "# 99 · Cups\n\n> **The question.** Is it a [cup](a.md#cup)?\n>\n> More."
        ),
        new_code_cell("1", outputs=printed),
        new_markdown_cell("Before.\n\n## Look\n\nIt is $x^2$."),
        new_code_cell("draw_cup()", outputs=shown({"image/png": PNG}), metadata={"mystnb": figure}),
        new_markdown_cell("After.\n\n## What you saw"),
        new_code_cell("3", outputs=printed),
        new_markdown_cell("- one\n- two,\n  in two lines\n- three\n- four\n\n## When it misleads"),
        new_markdown_cell("> **Never.** Or\n> ever.\n\n> **Now.**"),
        new_code_cell("4", outputs=shown({"text/html": quiz})),
        new_markdown_cell("## Exercises\n\nSolve it."),
        new_code_cell("5", outputs=shown({"image/png": PNG})),
    ]
    return new_notebook(cells=cells)


def test_a_figure_that_is_a_webp_is_embedded_as_one(chapter):
    chapter = copy.deepcopy(chapter)
    chapter.cells[3].outputs[0].data["image/png"] = "UklGRgo="  # begins as every WebP does
    (figure,) = [c.source for c in slides.slides_of(chapter).cells if "<img" in c.source][:1]
    assert 'src="data:image/webp;base64,UklGRgo="' in figure


def test_a_deck_has_question_figure_numbers_boxes_and_quiz(chapter):
    kinds = [
        (cell.metadata.slideshow.slide_type, cell.source)
        for cell in slides.slides_of(chapter).cells
    ]
    texts = [text for kind, text in kinds if kind == "slide"]
    assert texts[0] == "# 99 · Cups\n\nIs it a cup?"
    assert texts[1].startswith("## Look\n\n<img ")
    assert f"data:image/png;base64,{PNG}" in texts[1]
    assert 'alt="A cup &amp; a &quot;spoon&quot;"' in texts[1]
    first, second = "\n".join(map(str, range(16))), "\n".join(map(str, range(16, 20)))
    assert texts[2] == f"## What you saw\n\n```text\n{first}\n```"
    assert texts[3] == f"## What you saw\n\n```text\n{second}\n```"
    assert texts[4] == "## What you saw\n\n- one\n- two,\n  in two lines\n- three"
    assert texts[5] == "## What you saw\n\n- four"
    assert texts[6] == "## When it misleads\n\n- **Never.** Or\never.\n- **Now.**"
    assert texts[7:] == ["## Quiz"]
    assert [text for kind, text in kinds if kind == "notes"] == [
        "Before.",
        "It is $x^2$.",
        "After.",
    ]
    assert ("-", "Look *here*.") in kinds


def test_a_page_of_slides_asks_no_other_host_and_shows_no_code(chapter):
    page = slides.page_of(chapter)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//|import .* from ['"]http""", page)
    assert 'src="reveal.js/dist/reveal.js"' in page
    assert page.count("<img ") == 1
    assert page.count('class="quiz"') == 1
    assert '<aside class="notes">' in page
    assert "draw_cup" not in page
    assert "Solve it" not in page
    needed = json.loads((ROOT / "book/package.json").read_text())["dependencies"]
    assert {"reveal.js", "mathjax"} <= set(needed)


def test_slides_of_a_chapter_that_was_not_executed_are_refused(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    text = json.dumps(new_notebook(cells=[new_code_cell("1")]))
    (tmp_path / "notebooks/01_new.ipynb").write_text(text)
    for name, value in (("ROOT", tmp_path), ("BUILD", tmp_path), ("CACHE", tmp_path / "cache")):
        monkeypatch.setattr(slides.execute, name, value)
    with pytest.raises(SystemExit, match="make book first"):
        slides.main()
    with pytest.raises(SystemExit, match="no chapter that begins with 07"):
        slides.main("07")
