"""What the labs' checks share: it accepts what is right and names what is wrong."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import checks
from course_utils.labs import _engine

RIGHT = np.random.default_rng(3).normal(size=(6, 8))


def says(yours, right=RIGHT, **options):
    with pytest.raises(checks.NotYet) as error:
        _engine.compare(yours, right, what="the map", **options)
    return str(error.value)


@pytest.mark.parametrize(
    "right", [RIGHT, RIGHT.astype(np.float32), RIGHT.tolist(), keras.ops.convert_to_tensor(RIGHT)]
)
def test_it_takes_arrays_lists_and_tensors_of_the_right_values(right):
    _engine.compare(right, RIGHT, what="the map")


@pytest.mark.parametrize(
    ("mistake", "word"),
    [
        (np.transpose, "swapped"),
        (np.flipud, "upside down"),
        (np.fliplr, "mirrored"),
        (np.negative, "opposite sign"),
        (np.abs, "signs"),
        (lambda m: np.maximum(m, 0), "negative values"),
        (lambda m: m / 48, "factor"),
        (lambda m: (m - m.min()) / np.ptp(m), "scale"),
        (lambda m: np.roll(m, 1, 0), "1 place too far down"),
        (lambda m: np.roll(m, -1, 1), "1 place too far to the left"),
        (lambda m: np.roll(m, 2, 1), "2 places too far to the right"),
        (lambda m: m[np.newaxis], "batch axis too many"),
        (lambda m: m[:5], r"shape (5, 8)"),
        (lambda m: m * np.nan, "NaN"),
        (np.zeros_like, "the same everywhere"),
        (lambda m: np.where(np.arange(8) > 6, 0, m), "columns 7 to 7"),
        (np.tanh, "pattern"),
        (lambda m: np.random.default_rng(0).normal(size=m.shape), "most places"),
        (lambda m: "a map", "numbers"),
        (lambda m: [[1], [1, 2]], "numbers"),
    ],
)
def test_it_says_what_is_wrong(mistake, word):
    assert word in says(mistake(RIGHT))


@pytest.mark.parametrize(
    ("mistake", "word"),
    [
        (lambda m: np.swapaxes(m, 1, 2), "rows and columns are swapped"),
        (lambda m: m[:, ::-1], "upside down"),
        (lambda m: m[:, :, ::-1], "mirrored"),
        (lambda m: m[..., ::-1], "channels"),
        (lambda m: np.roll(m, 1, 1), "1 place too far down"),
        (lambda m: np.roll(m, -1, 2), "1 place too far to the left"),
        (lambda m: np.swapaxes(m, 2, 3), "shape (4, 6, 3, 8)"),
        (lambda m: m + (np.arange(8) > 6)[:, None], "columns 7 to 7"),
    ],
)
def test_of_images_it_names_height_and_width_and_not_the_channels(mistake, word):
    images = np.random.default_rng(3).normal(size=(4, 6, 8, 3))
    assert word in says(mistake(images), images, axes=_engine.IMAGE)


def test_what_is_wrong_in_one_place_is_never_said_to_be_right_in_all():
    large = np.random.default_rng(4).normal(size=(27, 10))
    wrong = large.copy()
    wrong[3, 4] += 1
    assert "is right in 99% of its places" in says(wrong, large)
    assert "is right in 99% of its places" in says(wrong, large, axes=_engine.TABLE)


def test_of_a_table_it_names_rows_and_columns_and_no_directions():
    for mistake, word in (
        (RIGHT.T, "rows and columns are swapped."),
        (RIGHT[::-1], "rows in the opposite order"),
        (RIGHT[:, ::-1], "columns in the opposite order"),
        (np.where(np.arange(8) > 6, 0, RIGHT), "first wrong one is [0, 7]"),
    ):
        said = says(mistake, axes=_engine.TABLE)
        assert word in said
        assert "Height" not in said


@pytest.mark.parametrize("value", [np.int64(12), np.float32(0.5), (np.int64(3), 4), np.str_("a")])
def test_numbers_are_told_as_one_writes_them(value):
    with pytest.raises(checks.NotYet) as error:
        _engine.one_of(value, range(10), "the class")
    assert "np." not in str(error.value)
    assert "int64" not in _engine._kind(np.int64(3))


def test_a_known_mistake_has_its_own_sentence():
    assert says(np.exp(RIGHT), mistakes={"Take the logit.": np.exp(RIGHT)}) == "Take the logit."


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9))
@settings(max_examples=50)
def test_no_sentence_gives_the_answer_away(seed, height, width):
    rng = np.random.default_rng(seed)
    right, wrong = rng.normal(size=(2, height, width)) * 1000
    said = says(wrong, right)
    for value in right.ravel():
        assert f"{value:.3f}" not in said
        assert f"{value:.4g}" not in said


def test_a_number_that_is_wrong_is_repeated_and_the_right_one_is_not():
    said = says(3.25, 7.5)
    assert "3.25" in said
    assert "7.5" not in said


def test_a_function_is_called_with_copies_watched():
    def spoils(image):
        image[0] = 0
        return image

    assert _engine.call(lambda image: image + 1, np.ones(3)).tolist() == [2, 2, 2]
    with pytest.raises(checks.NotYet, match="changes the array"):
        _engine.call(spoils, np.ones(3))


def test_a_function_that_stops_is_named_with_its_own_line():
    def divides(a):
        return a / len([])  # here

    with pytest.raises(checks.NotYet, match=r"divides stops with ZeroDivisionError.*# here"):
        _engine.call(divides, 1)
    with pytest.raises(checks.NotYet, match="returns nothing"):
        _engine.call(lambda: None)
    with pytest.raises(checks.NotYet, match="should be a function"):
        _engine.call(3)

    def stub():
        raise NotImplementedError

    with pytest.raises(checks.NotYet, match="Put your code"):
        _engine.call(stub)


def fails(sentence="No."):
    raise checks.NotYet(sentence)


def test_credit_is_the_share_of_what_passes(capsys):
    assert checks.credit(3, lambda: None, lambda: fails("Look here."), lambda: None) == 2
    assert capsys.readouterr().out == "✗ Look here.\n"
    with pytest.raises(checks.NotYet, match=r"First\."):
        checks.credit(3, lambda: fails("First."), lambda: fails("Second."))


def test_an_error_that_is_not_about_the_answer_is_not_swallowed():
    with pytest.raises(KeyError):
        checks.credit(1, lambda: {}["x"])


def test_jupyter_shows_the_sentence_and_no_traceback():
    assert checks.NotYet("Look here.")._render_traceback_() == ["Not yet: Look here."]


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, "no value yet"), (..., "no value yet"), (12, "0 to 9"), (np.ones(3), "0 to 9")],
)
def test_an_answer_of_the_wrong_kind_is_refused_without_telling_the_right_one(value, word):
    _engine.one_of(3, range(10), "the class")
    with pytest.raises(checks.NotYet, match=word):
        _engine.one_of(value, range(10), "the class")
