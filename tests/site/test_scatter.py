"""Maps to explore answer to the mouse, the keyboard and a finger, in a real browser."""

import numpy as np
import pytest
import site_checks as checks

from course_utils import scatter

pytestmark = pytest.mark.site

MAPS = {
    "first": np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 6.0], [8.0, 6.0]]),
    "second": np.array([[8.0, 6.0], [0.0, 6.0], [8.0, 0.0], [0.0, 0.0]]),
}
GROUPINGS = {
    "speaker": (np.array([0, 0, 1, 1]), ["Ann", "Bob"]),
    "sentence": (np.array([0, 1, 0, 1]), ["The cat ran after the dog.", "The dog ran."]),
}


PICTURES = {
    "photo": np.zeros((4, 8, 8, 3)) + 0.5,
    "heat map": np.eye(8)[None] + np.zeros((4, 1, 1)),
}


@pytest.fixture(params=[None])
def opened(tmp_path, open_tab, monkeypatch, request):
    """opened(theme, width): a page with the maps, and what went wrong meanwhile."""
    outputs = []
    monkeypatch.setattr(scatter, "display", lambda data, raw: outputs.append(data))
    scatter.explore(MAPS, GROUPINGS, title="Four clips in two layers.", pictures=request.param)
    (tmp_path / "page.html").write_text(
        '<!doctype html><html lang="en"><head><title>A page</title><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        "<style>@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }"
        "</style></head><body><main><article>"
        f"{outputs[0]['text/html']}</article></main></body></html>",
        encoding="utf8",
    )
    with checks.serve(tmp_path) as base:

        def visit(theme="light", width=1280):
            page = open_tab(theme, width)
            wrong = checks.watch(page, base)
            checks.visit(page, f"{base}/page.html")
            return page, wrong

        yield visit


def centre(page, number):
    """Where the mark of a point is, of those that are seen, in pixels of the page."""
    box = page.locator(f".plot label >> nth={number} >> svg:visible").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def said(page):
    """What stands under the map: the texts that are seen."""
    spans = page.locator(".plot span").all()
    return [s.inner_text() for s in spans if s.evaluate("e => getComputedStyle(e).opacity") == "1"]


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_fits(opened, theme, width):
    page, wrong = opened(theme, width)
    assert checks.overflow_problems(page) == []
    page.get_by_label("sentence", exact=True).check()
    page.locator(".plot input").first.check(force=True)
    assert checks.axe_problems(page) + wrong == []


def test_another_map_moves_the_points(opened):
    page, _ = opened()
    before = [centre(page, n) for n in range(4)]
    assert before[0][0] < before[1][0]
    assert before[0][1] > before[2][1], "up is up"
    page.get_by_label("second").check()
    checks.still(page)
    after = [centre(page, n) for n in range(4)]
    np.testing.assert_allclose(after, before[::-1], atol=1)


def test_another_colouring_changes_the_marks_and_the_key(opened):
    page, _ = opened()
    for grouping, names, marks in (
        ("speaker", ["Ann", "Bob"], [0, 0, 1, 1]),
        ("sentence", ["The cat ran after the dog.", "The dog ran."], [0, 1, 0, 1]),
    ):
        page.get_by_label(grouping, exact=True).check()
        keys = page.locator("fieldset[class^=by]:visible label").all()
        assert [key.inner_text().strip() for key in keys] == ["all", *names]
        used = page.locator(".plot use:visible").evaluate_all(
            "all => all.map(use => use.getAttribute('href').slice(-1))"
        )
        assert [int(n) for n in used] == marks


def test_one_group_can_be_singled_out(opened):
    page, _ = opened()
    page.get_by_label("Bob", exact=True).check()
    faint = page.locator(".plot svg:visible").evaluate_all(
        "all => all.map(mark => Number(getComputedStyle(mark).opacity))"
    )
    assert faint == [0.1, 0.1, 1, 1]
    page.get_by_label("sentence", exact=True).check()
    assert page.locator(".plot svg:visible").evaluate_all(
        "all => all.every(mark => getComputedStyle(mark).opacity === '1')"
    ), "a speaker is singled out where speakers are coloured"


def test_pointing_at_a_mark_tells_what_it_is(opened):
    page, _ = opened()
    assert said(page) == []
    assert page.locator(".scatter > p").is_visible()
    page.mouse.move(*centre(page, 2))
    assert said(page) == ["speaker: Bob; sentence: The cat ran after the dog."]
    assert not page.locator(".scatter > p").is_visible()
    page.mouse.move(0, 0)
    assert said(page) == []


def test_a_click_or_a_finger_keeps_it_and_pointing_elsewhere_comes_first(opened):
    page, _ = opened()
    page.mouse.click(*centre(page, 1))
    page.mouse.move(0, 0)
    assert said(page) == ["speaker: Ann; sentence: The dog ran."]
    page.mouse.move(*centre(page, 3))
    assert said(page) == ["speaker: Bob; sentence: The dog ran."]


def test_the_arrow_keys_walk_through_the_marks(opened):
    page, _ = opened()
    page.get_by_label("speaker", exact=True).focus()
    page.keyboard.press("Tab")
    assert said(page) == ["speaker: Ann; sentence: The cat ran after the dog."]
    for expected in ("Ann; sentence: The dog ran.", "Bob; sentence: The cat"):
        page.keyboard.press("ArrowRight")
        (text,) = said(page)
        assert expected in text
    page.keyboard.press("Tab")  # to the key, in one step
    assert page.evaluate("document.activeElement.closest('fieldset').className") == "by0"
    radio = page.get_by_role("radio", name="speaker: Ann; sentence: The dog ran.")
    assert radio.count() == 1, "what a screen reader reads"


@pytest.mark.parametrize("opened", [PICTURES], indirect=True, ids=["pictures"])
@pytest.mark.parametrize("width", [1280, 320])
def test_pictures_of_the_point_stand_under_the_map(opened, width):
    page, wrong = opened("light", width)
    page.mouse.move(*centre(page, 2))
    (text,) = said(page)
    assert "speaker: Bob" in text
    assert "heat map" in text
    boxes = [page.locator(f".plot label >> nth=2 >> i >> nth={k}").bounding_box() for k in (0, 1)]
    plot, whole = page.locator(".plot").bounding_box(), page.locator(".scatter").bounding_box()
    for box in boxes:
        assert box["width"] == box["height"] == 96
        assert box["y"] > plot["y"] + plot["height"]
        assert box["y"] + box["height"] <= whole["y"] + whole["height"]
    assert boxes[0]["x"] + 96 <= boxes[1]["x"]
    page.locator(".plot input").first.check(force=True)
    assert checks.overflow_problems(page) + checks.axe_problems(page) + wrong == []
