"""The metrics score what is right as 1, what is wrong as 0, and knowing nothing as chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from course_utils.metrics import mass_inside, pointing_game

METRICS = (pointing_game, mass_inside)
MASK = np.zeros((1, 4, 5), bool)
MASK[0, 1:3, 2:5] = True  # 6 of 20 pixels


@pytest.mark.parametrize("metric", METRICS)
def test_the_mask_itself_scores_one_its_opposite_and_its_negative_nothing(metric):
    right = MASK.astype(np.float32)
    assert metric(right, MASK).tolist() == [1.0]
    assert metric(1 - right, MASK).tolist() == [0.0]
    assert metric(-right, MASK).tolist() == [0.0]
    assert metric(right, MASK).dtype == np.float64


@pytest.mark.parametrize("value", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("metric", METRICS)
def test_a_constant_map_scores_the_object_s_share_of_the_area(metric, value):
    assert metric(np.full((1, 4, 5), value), MASK) == pytest.approx(6 / 20)


def test_of_several_largest_pixels_their_share_on_the_object_counts():
    heatmap = np.zeros((1, 4, 5))
    heatmap[0, 0, 0] = heatmap[0, 1, 2] = heatmap[0, 1, 3] = heatmap[0, 3, 0] = 7.0
    assert pointing_game(heatmap, MASK) == 0.5


def test_the_mass_counts_positive_values_only():
    heatmap = np.zeros((1, 4, 5))
    heatmap[0, 1, 2], heatmap[0, 0, 0], heatmap[0, 2, 2], heatmap[0, 3, 3] = 3.0, 1.0, -9.0, -2.0
    assert mass_inside(heatmap, MASK) == pytest.approx(0.75)
    assert mass_inside(np.minimum(heatmap, 0), MASK) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_each_image_is_scored_by_itself(metric):
    heatmaps = np.concatenate([MASK, ~MASK, MASK]).astype(float) * [[[1]], [[5]], [[0.1]]]
    masks = np.concatenate([MASK, MASK, ~MASK])
    assert metric(heatmaps, masks).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("metric", METRICS)
@given(arrays(float, (1, 4, 5), elements=st.integers(-9, 9)), st.integers(0, 6))
def test_a_score_is_a_share_and_does_not_depend_on_the_scale(metric, heatmap, power):
    score = metric(heatmap, MASK)
    assert 0 <= score <= 1
    assert metric(heatmap * 2.0**power, MASK) == score
    assert metric(heatmap[:, ::-1], MASK[:, ::-1]) == pytest.approx(score)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("heatmaps", "masks", "message"),
    [
        (np.zeros((4, 5)), MASK[0], r"\(N, height, width\), got \(4, 5\) and \(4, 5\)"),
        (np.zeros((1, 5, 4)), MASK, r"got \(1, 5, 4\) and \(1, 4, 5\)"),
        (np.zeros((2, 4, 5)), MASK, r"got \(2, 4, 5\) and \(1, 4, 5\)"),
        (np.zeros((1, 4, 5)), MASK.astype(int), "masks must be bool, True on the object, got int"),
        (np.full((1, 4, 5), np.nan), MASK, "must be finite"),
        (np.zeros((2, 4, 5)), np.concatenate([MASK, MASK & False]), r"mask 1 is empty \(1 of 2"),
    ],
)
def test_what_does_not_fit_is_refused(metric, heatmaps, masks, message):
    with pytest.raises(ValueError, match=message):
        metric(heatmaps, masks)
