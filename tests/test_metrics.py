"""The metrics score what is right as 1, what is wrong as 0, and knowing nothing as chance."""

import functools
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers
from scipy.stats import binom, binomtest, spearmanr

from course_utils import metrics
from course_utils.datasets import load_digits
from course_utils.metrics import (
    completeness_gap,
    deletion_curve,
    hit_interval,
    insertion_curve,
    mass_inside,
    pointing_game,
    rank_correlation,
    rank_inside,
)
from course_utils.models import load_trained

METRICS = (pointing_game, mass_inside, rank_inside)
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


def test_as_many_of_the_largest_count_as_the_object_has_pixels_and_equal_ones_in_proportion():
    heatmap = np.zeros((1, 4, 5))
    heatmap[0, 0, 0], heatmap[0, 1, 2], heatmap[0, 1, 3], heatmap[0, 2, 2] = 9.0, 8.0, 7.0, 1.0
    heatmap[0, 3] = 2.0  # five pixels off the object, of which three are among the six largest
    assert rank_inside(heatmap, MASK) == pytest.approx(2 / 6)
    heatmap[0, 2, 3:] = 2.0  # seven, two of them on the object, share three places
    assert rank_inside(heatmap, MASK) == pytest.approx((2 + 3 * 2 / 7) / 6)


@pytest.mark.parametrize("metric", METRICS)
def test_each_image_is_scored_by_itself(metric):
    heatmaps = np.concatenate([MASK, ~MASK, MASK]).astype(float) * [[[1]], [[5]], [[0.1]]]
    masks = np.concatenate([MASK, MASK, ~MASK])
    # Of the last map's fourteen places, those of value 0 take the eight that are left.
    last = 8 / 14 if metric is rank_inside else 0.0
    assert metric(heatmaps, masks).tolist() == [1.0, 0.0, last]


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


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("count", "hits"), [(200, 200), (30, 0), (10, 3), (1, 1)])
def test_the_interval_of_hits_is_scipy_s(count, hits, confidence):
    found = hit_interval(np.arange(count) < hits, confidence)
    theirs = binomtest(hits, count).proportion_ci(confidence, method="wilson")
    assert found == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_of_hits_holds_the_rate_about_as_often_as_it_says_at_the_edges_too():
    count = 200
    found = np.array([hit_interval(np.arange(count) < hits) for hits in range(count + 1)])
    rates = np.linspace(0.001, 0.999, 999)
    chances = binom.pmf(np.arange(count + 1)[:, np.newaxis], count, rates)
    holds = (found[:, :1] <= rates) & (rates <= found[:, 1:])
    often = (chances * holds).sum(axis=0)
    assert often.mean() == pytest.approx(0.95, abs=0.005)
    assert often.min() > 0.9  # plus or minus two standard errors: 0.18, at the edges


@pytest.mark.parametrize(
    ("hits", "confidence", "message"),
    [
        ([], 0.95, "hits must be from 0 to 1"),
        ([0.0, 2.0], 0.95, "hits must be from 0 to 1"),
        ([0.0, np.nan], 0.95, "hits must be from 0 to 1"),
        ([[1.0]], 0.95, r"got shape \(1, 1\)"),
        ([1.0], 95, "confidence must be between 0 and 1, got 95"),
    ],
)
def test_an_interval_is_not_made_of_anything_else(hits, confidence, message):
    with pytest.raises(ValueError, match=message):
        hit_interval(hits, confidence)


def spearman(one, other):
    """What scipy makes of one pair of maps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a constant map has no correlation: NaN
        return spearmanr(one.ravel(), other.ravel()).statistic


MAPS = arrays(float, (3, 4, 5), elements=st.integers(-3, 3))  # most have ties


@given(MAPS, MAPS)
def test_the_rank_correlation_is_scipy_s_for_each_image(heatmaps, others):
    expected = [spearman(*pair) for pair in zip(heatmaps, others, strict=True)]
    np.testing.assert_allclose(rank_correlation(heatmaps, others), expected, atol=1e-12)


@given(MAPS, MAPS)
def test_only_the_order_counts_for_the_rank_correlation(heatmaps, others):
    found = rank_correlation(heatmaps, others)
    assert not (np.abs(found) > 1).any()  # nor is NaN
    assert rank_correlation(others, heatmaps) == pytest.approx(found, nan_ok=True)
    np.testing.assert_array_equal(rank_correlation(np.exp(heatmaps), others * 5 - 7), found)
    assert rank_correlation(-heatmaps, others) == pytest.approx(-found, nan_ok=True)


def test_the_same_order_correlates_as_one_the_opposite_as_minus_one():
    heatmaps = np.random.default_rng(0).random((2, 64, 64), np.float32)
    assert rank_correlation(heatmaps, heatmaps**3) == pytest.approx(1, abs=1e-12)
    assert rank_correlation(heatmaps, -heatmaps) == pytest.approx(-1, abs=1e-12)


def test_a_constant_map_ranks_nothing_and_its_correlation_is_undefined(recwarn):
    constant, other = np.full((1, 4, 5), 0.1), np.arange(20.0).reshape(1, 4, 5)
    for pair in [(constant, other), (other, constant), (constant, constant)]:
        assert np.isnan(rank_correlation(*pair)).tolist() == [True]
    both = rank_correlation(np.concatenate([constant, other]), np.concatenate([other, other]))
    assert np.isnan(both).tolist() == [True, False]  # the next image is not touched
    assert len(recwarn) == 0


@functools.cache
def linear_net(activation=None):
    """A network that adds up weighted pixels, and its weights, (4, 5, 2, 3)."""
    model = keras.Sequential(
        [
            keras.Input((4, 5, 2)),
            layers.Flatten(),
            layers.Dense(3, activation, bias_initializer="ones"),
        ]
    )
    rng = np.random.default_rng(0)
    model.layers[-1].kernel.assign(rng.normal(size=(40, 3)))
    return model, np.asarray(model.layers[-1].kernel).reshape(4, 5, 2, 3)


IMAGES = np.random.default_rng(1).random((3, 4, 5, 2), np.float32)
TARGETS = [2, 0, 1]


def contributions(images=IMAGES, targets=TARGETS, baseline=0.0):
    """What each pixel of an image adds to the score of its target."""
    weights = linear_net()[1][..., targets].transpose(3, 0, 1, 2)
    return (weights * (images - baseline)).sum(axis=3)


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("baseline", [0.0, 0.5, [0.2, 0.7], IMAGES[0] / 2])
def test_what_a_linear_model_s_pixels_add_up_to_is_complete(activation, baseline):
    model, _ = linear_net(activation)
    heatmaps = contributions(baseline=np.asarray(baseline))
    gap = completeness_gap(model, IMAGES, TARGETS, heatmaps, baseline=baseline, batch_size=2)
    np.testing.assert_allclose(gap, 0, atol=1e-5)
    assert gap.dtype == np.float64


def test_the_gap_is_relative_to_the_change_of_the_score():
    model, _ = linear_net()
    heatmaps = contributions() * np.reshape([0, 1.25, -1], (3, 1, 1))
    assert completeness_gap(model, IMAGES, TARGETS, heatmaps) == pytest.approx([1, 0.25, 2], 1e-4)


def test_the_gap_is_that_of_the_score_and_of_the_target():
    model, _ = linear_net("softmax")
    p = model(IMAGES).numpy() - model(0 * IMAGES).numpy()
    heatmaps = np.zeros((3, 4, 5))
    heatmaps[:, 1, 1] = p[[0, 1, 2], TARGETS]
    gap = completeness_gap(model, IMAGES, TARGETS, heatmaps, score="probability")
    np.testing.assert_allclose(gap, 0, atol=1e-5)
    assert completeness_gap(model, IMAGES, TARGETS, heatmaps).min() > 0.1
    others = completeness_gap(model, IMAGES, [0, 1, 2], heatmaps, score="probability")
    assert others.max() > 0.1


def test_with_one_output_class_zero_is_opposite_to_class_one():
    model = keras.Sequential([keras.Input((4, 5, 2)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    weights = np.asarray(model.layers[-1].kernel).reshape(4, 5, 2)
    heatmaps = (weights * IMAGES).sum(axis=3) * np.reshape([1, -1, 1], (3, 1, 1))
    np.testing.assert_allclose(completeness_gap(model, IMAGES, [1, 0, 1], heatmaps), 0, atol=1e-5)


def test_where_the_score_does_not_change_only_a_sum_of_zero_is_complete(recwarn):
    model = keras.Sequential(
        [keras.Input((4, 5, 2)), layers.Flatten(), layers.Dense(3, kernel_initializer="zeros")]
    )
    heatmaps = np.zeros((2, 4, 5))
    heatmaps[1, 0, 0] = 0.1
    gap = completeness_gap(model, IMAGES[:2], 1, heatmaps)
    assert gap.tolist() == [0, np.inf]
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("heatmaps", "others", "message"),
    [
        (np.zeros((4, 5)), np.zeros((4, 5)), r"same shape \(N, height, width\), got \(4, 5\)"),
        (np.zeros((1, 4, 5)), np.zeros((1, 5, 4)), r"heatmaps and others .* and \(1, 5, 4\)"),
        (np.full((1, 4, 5), np.nan), np.zeros((1, 4, 5)), "heatmaps must be finite"),
        (np.zeros((1, 4, 5)), np.full((1, 4, 5), np.inf), "others must be finite"),
    ],
)
def test_maps_that_do_not_fit_each_other_are_refused(heatmaps, others, message):
    with pytest.raises(ValueError, match=message):
        rank_correlation(heatmaps, others)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heatmaps": np.zeros((3, 5, 4))}, r"heatmaps must have shape \(3, 4, 5\), one for each"),
        ({"heatmaps": np.zeros((4, 5))}, r"got \(4, 5\)"),
        ({"heatmaps": np.full((3, 4, 5), np.nan)}, "heatmaps must be finite"),
        ({"images": IMAGES[0]}, "Add the batch axis"),
        ({"targets": [0, 1, 3]}, "target 3 does not exist"),
        ({"score": "logits"}, 'score must be "logit" or "probability"'),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"baseline": [0, 0, 0]}, "baseline must be a number, a colour of 2 channels"),
    ],
)
def test_a_gap_of_what_does_not_fit_is_refused(changed, message):
    arguments = {"images": IMAGES, "targets": TARGETS, "heatmaps": np.zeros((3, 4, 5))}
    with pytest.raises(ValueError, match=message):
        completeness_gap(linear_net()[0], **arguments | changed)


CURVES = (deletion_curve, insertion_curve)
STEPS = {"steps": 20, "score": "logit"}  # one pixel at a time


def convnet(outputs=4, activation="softmax"):
    """A network with random weights that is far from linear, for images (8, 8, 3)."""
    keras.utils.set_random_seed(0)
    spread = keras.initializers.RandomNormal(stddev=0.5)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", kernel_initializer=spread),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(outputs, activation, kernel_initializer=spread),
        ]
    )


@functools.cache
def trained_net():
    """A convnet, eight images, their targets and tie-free heat maps."""
    rng = np.random.default_rng(3)
    images = rng.random((8, 8, 8, 3), np.float32)
    return convnet(), images, np.arange(8) % 4, rng.normal(size=(8, 8, 8))


def by_hand(model, image, target, heatmap, fill, insert=False):
    """The curve of one image, one pixel at a time, in the order of the map."""
    now, other = image.copy(), np.broadcast_to(np.float32(fill), image.shape)
    if insert:
        now, other = other.copy(), image
    scores = [model(now[np.newaxis]).numpy()[0, target]]
    for i in np.argsort(-heatmap, axis=None):
        row, column = np.unravel_index(i, heatmap.shape)
        now[row, column] = other[row, column]
        scores.append(model(now[np.newaxis]).numpy()[0, target])
    return np.array(scores)


@pytest.mark.parametrize("baseline", [0.0, 0.5, [0.2, 0.7], IMAGES[0] / 2])
def test_the_curves_of_a_linear_model_are_sums_of_what_its_pixels_contribute(baseline):
    model, _ = linear_net("softmax")
    heatmaps = contributions(baseline=np.asarray(baseline))
    largest_first = -np.sort(-heatmaps.reshape(3, 20), axis=1)
    gone = np.concatenate([np.zeros((3, 1)), np.cumsum(largest_first, axis=1)], axis=1)
    logits = linear_net()[0](IMAGES).numpy()[[0, 1, 2], TARGETS][:, np.newaxis]
    arguments = model, IMAGES, TARGETS, heatmaps
    deleted = deletion_curve(*arguments, fill=baseline, **STEPS)
    np.testing.assert_allclose(deleted.scores, logits - gone, atol=1e-5)
    inserted = insertion_curve(*arguments, fill=baseline, **STEPS)
    np.testing.assert_allclose(inserted.scores, logits - gone[:, -1:] + gone, atol=1e-5)
    assert deleted.fractions == pytest.approx(np.arange(21) / 20)
    # The area, by the trapezoid rule in closed form: the pixel that goes k-th is gone for the
    # rest of the way, 20 - k + 1/2 pixels.
    weight = (20 - np.arange(1, 21) + 0.5) / 20
    np.testing.assert_allclose(
        deleted.areas, logits[:, 0] - (largest_first * weight).sum(axis=1), atol=1e-5
    )


@given(MAPS)
def test_of_all_maps_what_a_linear_model_s_pixels_contribute_has_the_best_areas(heatmaps):
    arguments = linear_net()[0], IMAGES, TARGETS
    best, other = (
        [curve(*arguments, h, **STEPS).areas for curve in CURVES]
        for h in (contributions(), heatmaps)
    )
    assert (best[0] <= other[0] + 1e-5).all()
    assert (best[1] >= other[1] - 1e-5).all()


@pytest.mark.parametrize("curve", CURVES)
def test_the_curves_of_any_network_are_those_of_one_pixel_at_a_time(curve):
    model, images, targets, heatmaps = trained_net()
    found = curve(model, images[:2], targets[:2], heatmaps[:2], fill=0.3, steps=64)
    for i in range(2):
        arguments = images[i], targets[i], heatmaps[i], 0.3
        expected = by_hand(model, *arguments, insert=curve is insertion_curve)
        np.testing.assert_allclose(found.scores[i], expected, atol=1e-6)


def test_the_mean_areas_are_those_that_xplique_computes():
    """Xplique 2.0.2 needs an older TensorFlow than ours, so its numbers stand here.

    Its Deletion and Insertion (16 steps, fill 0, all pixels) of the same images and maps.
    """
    (_, _), (images, labels) = load_digits()
    heatmaps = np.random.default_rng(0).normal(size=(40, 28, 28)).astype(np.float32)
    arguments = load_trained("digits"), images[:40], labels[:40], heatmaps
    areas = [curve(*arguments, steps=16).areas.mean() for curve in CURVES]
    assert areas == pytest.approx([0.72707415, 0.712988], abs=1e-5)


@pytest.mark.parametrize("curve", CURVES)
def test_few_steps_are_points_of_the_fine_curve(curve):
    model, images, targets, heatmaps = trained_net()
    heatmaps = heatmaps.round(1)  # some ties
    fine = curve(model, images, targets, heatmaps, steps=64)
    coarse = curve(model, images, targets, heatmaps, steps=7)
    points = np.round(np.arange(8) * 64 / 7).astype(int)
    np.testing.assert_allclose(coarse.scores, fine.scores[:, points], atol=1e-6)
    np.testing.assert_allclose(coarse.fractions, points / 64)
    area = np.trapezoid(coarse.scores, coarse.fractions, axis=1)
    np.testing.assert_allclose(coarse.areas, area)


@pytest.mark.parametrize("curve", CURVES)
def test_a_constant_map_s_curve_is_the_straight_line_from_end_to_end(curve):
    model, images, targets, heatmaps = trained_net()
    found = curve(model, images, targets, np.full_like(heatmaps, 7.0), fill=0.5)
    outputs = [model(x).numpy()[np.arange(8), targets] for x in (images, 0 * images + 0.5)]
    whole, filled = outputs if curve is deletion_curve else outputs[::-1]
    line = whole[:, np.newaxis] + found.fractions * (filled - whole)[:, np.newaxis]
    np.testing.assert_allclose(found.scores, line, atol=1e-6)
    np.testing.assert_allclose(found.areas, (whole + filled) / 2, atol=1e-6)


@pytest.mark.parametrize("curve", CURVES)
def test_equal_pixels_score_what_they_do_on_average_over_their_orders(curve):
    model, _ = linear_net()
    rng = np.random.default_rng(5)
    heatmaps = rng.integers(0, 3, (3, 4, 5)).astype(float)
    found = curve(model, IMAGES, TARGETS, heatmaps, **STEPS)
    orders = []
    for _ in range(400):
        broken = heatmaps + rng.permuted(np.arange(20) / 40).reshape(4, 5)
        orders.append(curve(model, IMAGES, TARGETS, broken, **STEPS).scores)
    error = np.std(orders, axis=0) / np.sqrt(400)
    assert (np.abs(np.mean(orders, axis=0) - found.scores) < 4.5 * error + 1e-5).all()


@pytest.mark.parametrize("curve", CURVES)
@given(arrays(float, (8, 8, 8), elements=st.integers(-3, 3)))
def test_only_the_order_counts_for_the_curves(curve, heatmaps):
    model, images, targets, _ = trained_net()
    areas, others = (
        curve(model, images, targets, h, steps=8).areas
        for h in (heatmaps, np.exp(heatmaps) * 0.01 + 5)
    )
    np.testing.assert_allclose(areas, others, atol=1e-6)


@given(arrays(float, (8, 8, 8), elements=st.integers(-3, 3)))
def test_to_insert_in_the_opposite_order_is_to_delete_backwards(heatmaps):
    model, images, targets, _ = trained_net()
    deleted = deletion_curve(model, images, targets, heatmaps, steps=16)
    inserted = insertion_curve(model, images, targets, -heatmaps, steps=16)
    np.testing.assert_allclose(deleted.scores, inserted.scores[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(deleted.areas, inserted.areas, atol=1e-6)


@pytest.mark.parametrize("curve", CURVES)
def test_class_zero_of_a_sigmoid_has_one_minus_its_probability(curve):
    _, images, _, heatmaps = trained_net()
    model = convnet(1, "sigmoid")
    one, zero = (curve(model, images, target, heatmaps) for target in (1, 0))
    np.testing.assert_allclose(one.scores, 1 - zero.scores, atol=1e-6)
    logits = [curve(model, images, target, heatmaps, score="logit").scores for target in (1, 0)]
    np.testing.assert_allclose(logits[0], -logits[1], atol=1e-6)
    np.testing.assert_allclose(one.scores, 1 / (1 + np.exp(-logits[0])), atol=1e-6)


@pytest.mark.parametrize("curve", CURVES)
def test_the_batch_bounds_what_is_computed_at_once_and_nothing_is_computed_twice(
    curve, monkeypatch
):
    model, images, targets, heatmaps = trained_net()
    batches = []

    def predict(model, images, batch_size):
        batches.append(len(images))
        return original(model, images, batch_size)

    original = metrics.predict
    monkeypatch.setattr(metrics, "predict", predict)
    found = [curve(model, images, targets, heatmaps, batch_size=n) for n in (5, 1000)]
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-6)
    assert max(batches[:-1]) == 5
    assert batches[-1] == 8 * 33  # images, times the ends of 32 steps


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heatmaps": np.zeros((3, 5, 4))}, r"heatmaps must have shape \(3, 4, 5\)"),
        ({"heatmaps": np.full((3, 4, 5), np.inf)}, "heatmaps must be finite"),
        ({"images": IMAGES[:0]}, "empty batch"),
        ({"targets": [0, 1]}, "one class for all 3 images"),
        ({"score": "p"}, 'score must be "logit" or "probability"'),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"steps": 0}, "steps must be a whole number from 1 to 20"),
        ({"steps": 21}, "steps must be a whole number from 1 to 20, got 21"),
        ({"steps": 2.0}, "steps must be a whole number"),
        ({"fill": [0, 0, 0]}, "fill must be a number, a colour of 2 channels"),
    ],
)
def test_a_curve_of_what_does_not_fit_is_refused(curve, changed, message):
    arguments = {"images": IMAGES, "targets": TARGETS, "heatmaps": np.zeros((3, 4, 5)), "steps": 4}
    with pytest.raises(ValueError, match=message):
        curve(linear_net()[0], **arguments | changed)
