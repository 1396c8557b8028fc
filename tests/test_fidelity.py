"""Infidelity, sensitivity and ROAD are what they come to by hand, where the truth is known."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from course_utils import metrics
from course_utils._fidelity import _painted_over

IMAGES = np.random.default_rng(1).random((3, 6, 8, 2), np.float32)
TARGETS = np.array([2, 0, 1])


def linear_net(activation="softmax"):
    """A network that adds up weighted pixels, and its weights, (6, 8, 2, 3)."""
    model = keras.Sequential(
        [keras.Input((6, 8, 2)), layers.Flatten(), layers.Dense(3, activation)]
    )
    model.layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(96, 3)))
    return model, np.asarray(model.layers[-1].kernel).reshape(6, 8, 2, 3)


MODEL, WEIGHTS = linear_net()


def contributions(images=IMAGES, baseline=0.0):
    """What each pixel adds to the logit of its image's target."""
    return (WEIGHTS[..., TARGETS].transpose(3, 0, 1, 2) * (images - baseline)).sum(axis=3)


def slope_map(model, images, targets, factor=1.0):
    """Gradient times input of the linear network."""
    return factor * contributions(images)


# -- Infidelity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0.0, 0.5, [0.2, 0.7], IMAGES[0] / 2])
@pytest.mark.parametrize(("patch", "stride"), [(2, None), (3, 1), (1, None)])
def test_what_the_pixels_of_a_linear_model_add_foretells_every_loss(fill, patch, stride):
    heatmaps = contributions(baseline=np.asarray(fill))
    arguments = MODEL, IMAGES, TARGETS, heatmaps
    options = {"patch": patch, "stride": stride, "fill": fill, "batch_size": 7}
    assert metrics.infidelity(*arguments, **options) == pytest.approx(np.zeros(3), abs=1e-8)
    scaled = metrics.infidelity(MODEL, IMAGES, TARGETS, heatmaps / 7, scaled=True, **options)
    assert scaled == pytest.approx(np.zeros(3), abs=1e-8)


def test_infidelity_is_the_mean_square_by_a_slow_loop():
    two = keras.Sequential(
        [keras.Input((6, 8, 2)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten()]
    )
    two.add(layers.Dense(1, "sigmoid"))
    heatmaps = np.random.default_rng(2).normal(size=(3, 6, 8))
    found = metrics.infidelity(two, IMAGES, 1, heatmaps, patch=4, fill=0.5)
    share = metrics.infidelity(two, IMAGES, 1, heatmaps, patch=4, fill=0.5, scaled=True)
    for image, heatmap, one, other in zip(IMAGES, heatmaps, found, share, strict=True):
        told, lost = [], []
        for row, column in [(0, 0), (0, 4), (4, 0), (4, 4)]:
            covered, inside = image.copy(), np.s_[row : row + 4, column : column + 4]
            covered[inside] = 0.5
            p = two(np.stack([image, covered])).numpy()[:, 0].astype(float)
            told.append(heatmap[inside].sum())
            lost.append(np.subtract(*np.log(p / (1 - p))))
        told, lost = np.array(told), np.array(lost)
        assert one == pytest.approx(np.mean((told - lost) ** 2), rel=1e-4)
        factors = np.linspace(0, 5, 50_001)[:, np.newaxis]
        best = np.mean((factors * told - lost) ** 2, axis=1).min() / np.mean(lost**2)
        assert other == pytest.approx(best, abs=1e-4)


def test_scaled_a_map_of_zeros_or_of_the_opposite_foretells_nothing():
    exact = contributions()
    for heatmaps in (0 * exact, -exact):
        found = metrics.infidelity(MODEL, IMAGES, TARGETS, heatmaps, patch=2, scaled=True)
        assert found.tolist() == [1, 1, 1]


def test_scaled_infidelity_is_undefined_where_nothing_is_lost(recwarn):
    model, _ = linear_net()
    model.layers[-1].kernel.assign(np.zeros((96, 3)))
    found = metrics.infidelity(model, IMAGES, 0, contributions(), patch=2, scaled=True)
    assert np.isnan(found).all()
    assert len(recwarn) == 0


# -- Sensitivity ---------------------------------------------------------------------------------


def test_the_sensitivity_of_a_linear_map_is_that_of_the_noise_itself():
    twice = functools.partial(slope_map, factor=2.0)
    options = {"radius": 0.1, "samples": 4, "seed": 3}
    found = metrics.max_sensitivity(twice, MODEL, IMAGES, TARGETS, **options)
    rng, changes = np.random.default_rng(3), []
    for _ in range(4):
        noise = rng.uniform(-0.1, 0.1, IMAGES.shape[1:])
        assert np.abs(noise).max() <= 0.1
        moved = (WEIGHTS[..., TARGETS].transpose(3, 0, 1, 2) * noise).sum(axis=3)
        changes.append(np.sqrt((moved**2).sum(axis=(1, 2))))
    sizes = np.sqrt((contributions() ** 2).sum(axis=(1, 2)))
    assert found == pytest.approx(np.max(changes, axis=0) / sizes, rel=1e-4)


def test_a_map_that_stays_is_not_sensitive_and_one_that_comes_from_nothing_infinitely(recwarn):
    def stays(model, images, targets):
        return np.ones((3, 6, 8))

    def comes(model, images, targets):
        return np.float32((images != IMAGES).any(axis=3))

    assert metrics.max_sensitivity(stays, MODEL, IMAGES, 0).tolist() == [0, 0, 0]
    assert metrics.max_sensitivity(comes, MODEL, IMAGES, 0).tolist() == [np.inf] * 3
    zero = functools.partial(slope_map, factor=0)
    silent = metrics.max_sensitivity(zero, MODEL, IMAGES, TARGETS, samples=1)
    assert silent.tolist() == [0, 0, 0]
    assert len(recwarn) == 0


# -- ROAD ----------------------------------------------------------------------------------------


def slow_mean(image, gone, rounds=4000):
    """Replace again and again each pixel that is gone by the weighted mean of its neighbours."""
    image = image.astype(float)
    places = [divmod(int(i), image.shape[1]) for i in gone]
    for row, column in places:
        image[row, column] = 0
    for _ in range(rounds):
        for row, column in places:
            total, weight = 0, 0
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    y, x = row + down, column + right
                    inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
                    if (down or right) and inside:
                        share = 1 / 6 if 0 in (down, right) else 1 / 12
                        total, weight = total + share * image[y, x], weight + share
            image[row, column] = total / weight
    return image


@pytest.mark.parametrize("gone", [[9], [0, 1, 8, 47], [*range(20)], [*range(8, 48)]])
def test_a_removed_pixel_is_the_mean_of_its_neighbours(gone):
    order = np.random.default_rng(0).permutation(gone)
    found = _painted_over(IMAGES[0], order, np.zeros((6, 8, 2)))
    np.testing.assert_allclose(found, slow_mean(IMAGES[0], gone, 800), atol=1e-5)


@given(st.floats(-3, 3), st.floats(-1, 1), st.sets(st.integers(0, 29), min_size=1, max_size=16))
def test_an_image_of_one_value_looks_whole_and_no_value_is_new(level, slope, gone):
    image = np.full((5, 6, 1), level, np.float32)
    found = _painted_over(image, np.array([*gone]), np.zeros(image.shape))
    np.testing.assert_allclose(found, image, atol=1e-5)
    image = image + np.float32(slope) * np.arange(30, dtype=np.float32).reshape(5, 6, 1)
    found = _painted_over(image, np.array([*gone]), np.zeros(image.shape))
    assert found.min() >= image.min() - 1e-4
    assert found.max() <= image.max() + 1e-4


def test_the_curve_watches_the_score_of_what_is_painted_over():
    heatmaps = np.random.default_rng(4).normal(size=(3, 6, 8))
    shares = (0.25, 0.5)
    options = {"shares": shares, "noise": 0.0, "score": "logit", "batch_size": 2}
    curve = metrics.road_curve(MODEL, IMAGES, TARGETS, heatmaps, **options)
    for n, target in enumerate(TARGETS):
        order = np.argsort(-heatmaps[n], axis=None)
        shown = [IMAGES[n], *(_painted_over(IMAGES[n], order[:k], 0 * IMAGES[n]) for k in (12, 24))]
        logits = [(WEIGHTS[..., target] * picture).sum() for picture in shown]
        np.testing.assert_allclose(curve.scores[n], logits, atol=1e-4)
        area = (logits[0] / 2 + logits[1] + logits[2] / 2) / 2
        assert curve.areas[n] == pytest.approx(area, abs=1e-4)
    assert curve.fractions.tolist() == [0, 0.25, 0.5]


def test_noise_is_of_the_size_that_is_asked_for_and_lies_only_on_what_is_removed():
    grain = np.random.default_rng(0).normal(0, 0.1, (20, 20, 1))
    image = np.full((20, 20, 1), 0.5, np.float32)
    found = _painted_over(image, np.arange(200), grain)
    np.testing.assert_allclose(found[:10] - 0.5, grain[:10], atol=1e-6)
    np.testing.assert_array_equal(found[10:], image[10:])
    heatmaps = np.random.default_rng(4).normal(size=(3, 6, 8))
    quiet, loud = (
        metrics.road_curve(MODEL, IMAGES, TARGETS, heatmaps, noise=noise, score="logit").scores
        for noise in (0.0, 0.5)
    )
    np.testing.assert_array_equal(quiet[:, 0], loud[:, 0])
    assert (np.abs(quiet - loud)[:, 1:] > 0.01).all()


def test_equal_values_go_in_an_order_that_a_seed_decides_and_neighbours_do_not():
    constant = np.ones((3, 6, 8))
    one, same, other = (
        metrics.road_curve(MODEL, IMAGES, TARGETS, constant, noise=0.0, seed=seed).scores
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other)[:, 1:].max() > 1e-4
    alone = metrics.road_curve(MODEL, IMAGES[1:2], TARGETS[1:2], constant[1:2], noise=0.0)
    np.testing.assert_allclose(alone.scores[0], one[1], atol=1e-6)


# -- What does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("infidelity", {"heatmaps": np.zeros((3, 8, 6))}, r"must have shape \(3, 6, 8\)"),
        ("infidelity", {"heatmaps": np.full((3, 6, 8), np.nan)}, "heatmaps must be finite"),
        ("infidelity", {"patch": 7}, "patch must be a whole number from 1 to 6, got 7"),
        ("infidelity", {"patch": 2, "stride": 0}, "stride must be a whole number from 1"),
        ("infidelity", {"patch": 2, "stride": 3}, "a stride of 3 leaves gaps between patches of 2"),
        ("infidelity", {"patch": 2, "fill": [0, 0, 0]}, "fill must be a number, a colour of 2"),
        ("road_curve", {"images": IMAGES[0]}, "Add the batch axis"),
        ("road_curve", {"shares": (0.5, 0.4)}, r"shares must ascend, .* got \(0.5, 0.4\)"),
        ("road_curve", {"shares": (0.001,)}, "shares must ascend, by a pixel at least"),
        ("road_curve", {"shares": ()}, "shares must ascend"),
        ("road_curve", {"shares": (0.5, 1.0)}, "shares must be below 1: some pixel has to stay"),
        ("road_curve", {"noise": -1}, "noise must be zero or a positive number, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(name, changed, message):
    arguments = {"images": IMAGES, "targets": TARGETS, "heatmaps": np.zeros((3, 6, 8))}
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(MODEL, **arguments | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"radius": 0}, "radius must be a positive number, got 0"),
        ({"samples": 0}, "samples must be a whole number from 1"),
        ({"targets": 3}, "target 3 does not exist"),
        ({"images": IMAGES[:, :5]}, "images"),
    ],
)
def test_the_sensitivity_of_what_does_not_fit_is_refused(changed, message):
    arguments = {"images": IMAGES, "targets": TARGETS}
    with pytest.raises(ValueError, match=message):
        metrics.max_sensitivity(slope_map, MODEL, **arguments | changed)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda maps: np.where(maps > 0, np.nan, maps), "heatmaps must be finite"),
        (lambda maps: maps / 0, "heatmaps must be finite"),
        (lambda maps: maps[:, np.newaxis], r"must have shape \(3, 6, 8\), .* got \(3, 1, 6, 8\)"),
        (lambda maps: maps[:2], r"must have shape \(3, 6, 8\), .* got \(2, 6, 8\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_the_sensitivity_of_maps_that_do_not_fit_is_refused_not_the_best(noisy, changed, message):
    def explain(model, images, targets):
        maps = slope_map(model, images, targets)
        return maps if noisy and (images == IMAGES).all() else changed(maps)

    with pytest.raises(ValueError, match=message):
        metrics.max_sensitivity(explain, MODEL, IMAGES, TARGETS)
