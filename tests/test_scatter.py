"""Maps inside a page show their points where they are, and say what each is."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from course_utils import scatter

plt.switch_backend("Agg")

MAPS = {
    "first": np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 3.0]]),
    "second": np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 7.0]]),
}
GROUPINGS = {
    "speaker": (np.array([5, 2, 5]), None),
    "sentence": (np.array([0, 1, 1]), ["A & B <b>.", 'Say "<own>".']),
}


@pytest.fixture
def shown(monkeypatch):
    """What `explore` hands to the notebook."""
    outputs = []
    monkeypatch.setattr(scatter, "display", lambda data, raw: outputs.append(data))
    return outputs


@pytest.fixture
def page(shown):
    scatter.explore(MAPS, GROUPINGS, title="Three clips & two maps.")
    return BeautifulSoup(shown[0]["text/html"], "html.parser")


def place(label, number):
    """Where a point lies in a map, in percent of the frame's width and height."""
    found = re.findall(rf"--([xy]){number}:(-?[\d.]+)%", label["style"])
    return [float(dict(found)[axis]) for axis in "xy"]


def test_points_lie_where_they_are_to_scale_in_a_frame_of_4_to_3(page):
    labels = page.select(".plot label")
    # The wider side fills 92 % of the frame; up is up.
    assert [place(label, 0) for label in labels] == [[4, 73], [96, 73], [4, 27]]
    (across, down), (_, up) = place(labels[1], 0), place(labels[2], 0)
    assert (across - 4) / 100 * 4 / 8 == pytest.approx((down - up) / 100 * 3 / 3)
    assert [place(label, 1) for label in labels] == [[50, 96], [50, 96], [50, 4]]


def test_every_point_says_its_group_in_each_grouping(page):
    texts = [label.get_text() for label in page.select(".plot label")]
    assert texts == [
        "speaker: 5; sentence: A & B <b>.",
        'speaker: 2; sentence: Say "<own>".',
        'speaker: 5; sentence: Say "<own>".',
    ]
    assert page.find("b") is None


def test_a_point_has_the_mark_that_the_key_gives_its_group(page):
    keys = {}
    for fieldset in page.select("fieldset[class^=by]"):
        for label in fieldset.find_all("label")[1:]:
            keys[label.get_text().strip()] = label.use["href"]
    assert set(keys) == {"2", "5", "A & B <b>.", 'Say "<own>".'}
    assert len(set(keys.values())) == 4
    drawn = [[use["href"] for use in label.find_all("use")] for label in page.select(".plot label")]
    assert drawn == [
        [keys["5"], keys["A & B <b>."]],
        [keys["2"], keys['Say "<own>".']],
        [keys["5"], keys['Say "<own>".']],
    ]
    symbols = {"#" + symbol["id"]: symbol.polygon for symbol in page.find_all("symbol")}
    assert set(symbols) == set(keys.values())
    assert symbols[keys["2"]]["fill"] != symbols[keys["5"]]["fill"]
    assert symbols[keys["2"]]["points"] != symbols[keys["5"]]["points"]


def test_radio_buttons_come_in_groups_of_which_the_first_is_chosen(page):
    groups = {}
    for radio in page.find_all("input"):
        assert radio["type"] == "radio"
        groups.setdefault(radio["name"], []).append(radio.has_attr("checked"))
    assert sorted(groups.values()) == sorted(
        [[True, False], [True, False], [True, False, False], [True, False, False], [False] * 3]
    )
    assert page.select_one(".plot")["aria-label"] == "Three clips & two maps."


def test_two_pages_of_maps_share_no_names(shown):
    for title in ("One.", "Two."):
        scatter.explore(MAPS, GROUPINGS, title=title)
    pages = [BeautifulSoup(output["text/html"], "html.parser") for output in shown]
    names = [
        {radio["name"] for radio in page.find_all("input")}
        | {part["id"] for part in page.find_all(id=True)}
        for page in pages
    ]
    assert not names[0] & names[1]


def test_nothing_is_asked_of_any_host_and_nothing_runs(page):
    html = str(page)
    assert "://" not in html
    assert not page.find(["script", "img", "link", "iframe"])
    assert all(use["href"].startswith("#scatter-") for use in page.find_all("use"))


def test_without_html_a_picture_and_a_sentence_stand_for_the_maps(shown):
    scatter.explore(MAPS, GROUPINGS, title="Three clips.")
    assert shown[0]["text/plain"] == "Three clips."
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0]["image/png"])))
    assert picture.format == "PNG"
    assert picture.width > picture.height > 200
    assert not plt.get_fignums(), "or the notebook would show it a second time"


def test_a_choice_of_one_is_not_offered(shown):
    scatter.explore({"only": MAPS["first"]}, {"speaker": GROUPINGS["speaker"]}, title="One.")
    page = BeautifulSoup(shown[0]["text/html"], "html.parser")
    hidden = [fieldset.legend.get_text() for fieldset in page.select("fieldset[hidden]")]
    assert hidden == ["Map", "Colour by"]


def test_every_point_has_its_own_pictures(shown):
    grey = np.linspace(0, 1, 3)[:, None, None, None] * np.ones((8, 8, 3))
    heat = np.zeros((3, 4, 4))
    heat[[0, 1], 0, 0] = 0.1, -7  # each on its own scale; nothing at all of the third
    pictures = {"a <photo>": grey, "heat": heat}
    scatter.explore(MAPS, GROUPINGS, title="Three clips.", pictures=pictures)
    html = shown[0]["text/html"]
    assert "://" not in html
    page = BeautifulSoup(html, "html.parser")
    sheets = [
        Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB")
        for code in re.findall(r"webp;base64,([^)]+)\)", html)
    ]
    middle = [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    corner = [(103, 0, 31), (5, 48, 97), (247, 247, 247)]  # the ends and the middle of RdBu
    for i, label in enumerate(page.select(".plot label")):
        assert [name.get_text() for name in label.select("small")] == ["a <photo>", "heat"]
        for s, (mark, expected) in enumerate(zip(label.select("i"), (middle, corner), strict=True)):
            assert mark["class"] == [f"s{s}"]
            x, y = map(int, re.findall(r"-(\d+)px", mark["style"]))
            side = sheets[s].width // 20
            assert (x % 96, y % 96) == (0, 0)
            found = sheets[s].getpixel((x // 96 * side, y // 96 * side))
            np.testing.assert_allclose(found, expected[i], atol=2)


def test_pictures_are_one_for_each_point(shown):
    for shape in ((2, 8, 8), (3, 8), (3, 8, 8, 4)):
        with pytest.raises(ValueError, match=r"pictures must be \(3, h, w\).* for photo"):
            scatter.explore(MAPS, GROUPINGS, title="x", pictures={"photo": np.zeros(shape)})


@pytest.mark.parametrize(
    ("maps", "groupings", "message"),
    [
        ({}, GROUPINGS, "at least one map and one grouping"),
        (MAPS, {}, "at least one map and one grouping"),
        (MAPS | {"third": np.zeros((4, 2))}, GROUPINGS, r"got \(4, 2\) and \(3,\)"),
        (MAPS, {"speaker": ([1, 2], None)}, r"got \(3, 2\) and \(2,\)"),
        (MAPS, {"speaker": ([0, 1, 2], ["a", "b"])}, "none for label 2"),
    ],
)
def test_what_cannot_be_shown_is_refused(maps, groupings, message):
    with pytest.raises(ValueError, match=message):
        scatter.explore(maps, groupings, title="A map.")


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        (np.full((3, 2, 2, 3), 255.0), "0..1, but those of photo reach from 255 to 255: divide"),
        (np.full((3, 2, 2, 3), -0.1), "0..1, but those of photo reach from -0.1 to -0.1"),
        (np.full((3, 2, 2), np.nan), "must be finite, but those of photo hold NaN"),
        (np.zeros((3, 1, 820)), "the 3 pictures of photo, 1 × 820 pixels each, do not fit"),
        (np.zeros((3, 16384, 1)), "do not fit into one of 16383: give fewer or smaller ones"),
    ],
)
def test_pictures_that_no_sheet_can_hold_are_refused(shown, pictures, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        scatter.explore(MAPS, GROUPINGS, title="x", pictures={"photo": pictures})
    assert shown == []


def test_the_widest_sheet_is_made(shown):
    pictures = {"wide": np.eye(3, 819)[:, None]}
    scatter.explore(MAPS, GROUPINGS, title="x", pictures=pictures)
    assert "data:image/webp" in shown[0]["text/html"]
