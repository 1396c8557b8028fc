"""Concepts: directions that are known, scores at chance, and counts of a slow loop."""

import keras
import numpy as np
import pytest
from keras import layers

from course_utils import concepts, models

RNG = np.random.default_rng(0)
SIZE = 6


def linear(head=None, outputs=2):
    """Images (N, 4, 4, 3) through a random linear layer of six numbers, and a head."""
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten()])
    model.add(layers.Dense(SIZE, name="numbers"))
    for layer in head or [layers.Dense(outputs, name="scores")]:
        model.add(layer)
    model.get_layer("numbers").set_weights([MIX, np.zeros(SIZE)])
    return model


MIX = np.linalg.qr(RNG.normal(size=(48, SIZE)))[0].astype(np.float32)


def images_of(numbers):
    """Images whose six numbers in the layer are these."""
    return (numbers @ MIX.T).reshape(-1, 4, 4, 3).astype(np.float32)


def planted(count, rng, *directions, noise=0.3):
    """Numbers in which independent concepts stand as steps along directions, and who has them."""
    has = rng.permuted(np.tile(np.arange(count) % 2 == 0, (len(directions), 1)), axis=1).T
    numbers = rng.normal(0, noise, (count, SIZE)) + (2.0 * has - 1) @ np.array(directions)
    return numbers, has


# Vectors


def test_the_vectors_of_a_linear_layer_are_the_directions_that_were_planted():
    directions = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0][:3]
    # Chance sums of the noise put each vector off by about one in the root of the images' number.
    numbers, has = planted(20_000, np.random.default_rng(1), *directions)
    found = concepts.concept_vectors(linear(), images_of(numbers), has, layer="numbers")
    assert found.shape == (3, SIZE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert np.sum(found * directions, axis=1).min() > 0.999
    one = concepts.concept_vectors(linear(), images_of(numbers), has[:, 1], layer="numbers")
    np.testing.assert_allclose(one, found[1], atol=1e-6)


@pytest.mark.parametrize("count", [5, 50])
def test_the_vector_is_ridge_regression_whichever_way_it_is_solved(count):
    numbers, has = planted(count, np.random.default_rng(2), np.eye(SIZE)[0])
    ridge = 0.3
    found = concepts.concept_vectors(
        linear(), images_of(numbers), has[:, 0], layer="numbers", ridge=ridge, batch_size=7
    )
    x = numbers - numbers.mean(axis=0)
    y = has[:, 0] - has[:, 0].mean()
    penalty = ridge * np.mean(np.sum(x**2, axis=1))
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(SIZE), x.T @ y)
    np.testing.assert_allclose(found, weights / np.linalg.norm(weights), atol=1e-4)


def test_the_vector_of_maps_has_their_shape_and_that_of_a_nested_layer_is_the_same():
    model = models.digits_small_cnn()
    images = RNG.random((8, 28, 28, 1), np.float32)
    has = np.arange(8) % 2 == 0
    found = concepts.concept_vectors(model, images, has, layer="conv_2")
    assert found.shape == (7, 7, 32)
    outer = keras.Sequential([keras.Input((28, 28, 1)), model])
    again = concepts.concept_vectors(outer, images, has, layer="digits_small_cnn/conv_2")
    np.testing.assert_allclose(again, found, atol=1e-6)


# Slopes


def test_sensitivities_are_the_gradient_along_the_vector():
    head = [layers.Dense(5, activation="tanh"), layers.Dense(3, activation="softmax")]
    keras.utils.set_random_seed(0)
    model = linear(head)
    numbers = RNG.normal(size=(9, SIZE)).astype(np.float32)
    vectors = RNG.normal(size=(2, SIZE))
    targets = np.arange(9) % 3
    found = concepts.sensitivities(
        model, images_of(numbers), targets, layer="numbers", vectors=vectors, batch_size=4
    )
    (w1, b1), (w2, b2) = (layer.get_weights() for layer in model.layers[-2:])
    for k, vector in enumerate(vectors):
        ends = [
            (np.tanh((numbers + sign * 1e-4 * vector) @ w1 + b1) @ w2 + b2)[np.arange(9), targets]
            for sign in (1, -1)
        ]
        np.testing.assert_allclose(found[:, k], (ends[0] - ends[1]) / 2e-4, rtol=1e-3, atol=1e-4)
    shares = concepts.tcav_scores(
        model, images_of(numbers), targets, layer="numbers", vectors=vectors
    )
    np.testing.assert_array_equal(shares, (found > 0).mean(axis=0))
    alone = concepts.tcav_scores(
        model, images_of(numbers), targets, layer="numbers", vectors=vectors[0]
    )
    assert alone == shares[0]


def test_of_a_linear_score_the_tcav_score_is_one_or_nothing():
    model = linear()
    weights = np.zeros((SIZE, 2))
    weights[0, 1], weights[1, 1] = 2, -3
    model.get_layer("scores").set_weights([weights, np.zeros(2)])
    images = images_of(RNG.normal(size=(20, SIZE)))
    scores = concepts.tcav_scores(model, images, 1, layer="numbers", vectors=np.eye(SIZE))
    assert scores.tolist() == [1, 0, 0, 0, 0, 0]


def bent():
    """A network whose score bends in the first four of the six numbers and is blind to the rest."""
    rng = np.random.default_rng(8)
    slopes, out = rng.normal(0, 2, (4, 16)), rng.normal(size=(16, 2))
    model = linear([layers.Dense(16, activation="tanh", name="bends"), layers.Dense(2)])
    blind = np.zeros((2, 16))
    model.get_layer("bends").set_weights([np.concatenate([slopes, blind]), rng.normal(0, 2, 16)])
    model.layers[-1].set_weights([out, np.zeros(2)])
    return model


BENT = bent()


def is_at_chance(draw):
    """Whether a concept in the sixth number scores like one of 39 that are told by lot."""
    rng = np.random.default_rng(draw)
    numbers, has = planted(60, rng, np.eye(SIZE)[5], noise=1.0)
    told_by_lot = rng.permuted(np.tile(has[:, 0], (39, 1)), axis=1).T
    images, labels = images_of(numbers), np.column_stack([has, told_by_lot])
    vectors = concepts.concept_vectors(BENT, images, labels, layer="numbers")
    score, *chance = concepts.tcav_scores(BENT, images, 1, layer="numbers", vectors=vectors)
    return min(chance) <= score <= max(chance)


def test_a_concept_that_the_score_ignores_is_at_chance_in_95_percent_of_200_draws():
    # Of 40 numbers from one distribution, a given one is neither first nor last 38 times in 40; in
    # 200 draws that is 190, give or take 3. The concept stands in the sixth number, as plain as can
    # be: only errors of its vector reach the score.
    at_chance = sum(is_at_chance(draw) for draw in range(200))
    assert at_chance >= 190 - 4 * np.sqrt(200 * 0.95 * 0.05)


# Probes


def test_a_probe_reads_what_is_there_and_nothing_else():
    rng = np.random.default_rng(3)
    numbers, has = planted(200, rng, np.eye(SIZE)[0])
    labels = np.column_stack([has[:, 0], rng.random(200) < 0.5])
    found = concepts.probe(linear(), images_of(numbers), labels, layers=["numbers", "scores"])
    assert [*found] == ["numbers", "scores"]
    assert found["numbers"][0] > 0.99
    assert 0.35 < found["numbers"][1] < 0.65
    single = concepts.probe(linear(), images_of(numbers), labels[:, 0], layers=["numbers"])
    assert single["numbers"] == found["numbers"][0]


def test_the_probe_is_the_slow_one_that_is_fitted_fold_by_fold():
    rng = np.random.default_rng(4)
    numbers, has = planted(40, rng, 0.8 * np.eye(SIZE)[0], noise=1.0)
    labels, ridge = has[:, 0], 0.2
    found = concepts.probe(
        linear(), images_of(numbers), labels, layers=["numbers", 0], folds=4, ridge=ridge, seed=9
    )
    fold = np.random.default_rng(9).permutation(np.arange(40) % 4)
    says = np.empty(40, bool)
    for k in range(4):
        x, y = numbers[fold != k], labels[fold != k]
        centred = x - x.mean(axis=0)
        penalty = ridge * np.mean(np.sum(centred**2, axis=1)) * np.eye(SIZE)
        weights = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (y - y.mean()))
        middle = ((x[y] @ weights).mean() + (x[~y] @ weights).mean()) / 2
        says[fold == k] = numbers[fold == k] @ weights > middle
    expected = np.mean([says[labels].mean(), 1 - says[~labels].mean()])
    assert 0.55 < expected < 0.95
    assert found["numbers"] == pytest.approx(expected)
    # The 48 pixels are the six numbers, turned: more than images, which is solved otherwise.
    assert found[0] == pytest.approx(expected)


# Dissection


def slow_dissection(maps, masks, quantile):
    """Intersection over union, pixel by pixel, stretched by hand."""
    count, high, wide, channels = maps.shape
    rows, columns = masks.shape[1:3]
    fits = np.zeros((channels, masks.shape[3]))
    for channel in range(channels):
        limit = np.quantile(maps[..., channel], quantile)
        for thing in range(masks.shape[3]):
            both = either = 0
            for n in range(count):
                for i in range(rows):
                    for j in range(columns):
                        y = np.clip((i + 0.5) * high / rows - 0.5, 0, high - 1)
                        x = np.clip((j + 0.5) * wide / columns - 0.5, 0, wide - 1)
                        top, left = int(y), int(x)
                        low, right = min(top + 1, high - 1), min(left + 1, wide - 1)
                        one = maps[n, :, :, channel]
                        above = one[top, left] * (1 - x + left) + one[top, right] * (x - left)
                        below = one[low, left] * (1 - x + left) + one[low, right] * (x - left)
                        active = above * (1 - y + top) + below * (y - top) > limit
                        both += active and masks[n, i, j, thing]
                        either += active or masks[n, i, j, thing]
            fits[channel, thing] = both / either if either else 0
    return fits


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_dissection_counts_what_a_slow_loop_counts(quantile):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8, 12, 2)), layers.Conv2D(3, 3, 2, name="maps")])
    model.add(layers.GlobalAveragePooling2D())
    images = RNG.random((3, 8, 12, 2), np.float32)
    masks = RNG.random((3, 8, 12, 2)) < 0.4
    found = concepts.dissect(model, images, masks, layer="maps", quantile=quantile, batch_size=2)
    maps = keras.Model(model.inputs[0], model.get_layer("maps").output)(images).numpy()
    np.testing.assert_allclose(found, slow_dissection(maps, masks, quantile), atol=0.02)
    alone = concepts.dissect(model, images, masks[..., 1], layer="maps", quantile=quantile)
    np.testing.assert_array_equal(alone, found[:, 1])


def test_a_unit_that_is_the_thing_fits_it_and_a_silent_one_nothing():
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 1, name="maps")])
    model.add(layers.GlobalAveragePooling2D())
    model.get_layer("maps").set_weights([np.reshape([1.0, 0.0], (1, 1, 1, 2)), np.zeros(2)])
    mask = np.zeros((2, 8, 8), bool)
    mask[:, 2:5, 3:7] = True
    images = mask[..., np.newaxis].astype(np.float32)
    assert concepts.dissect(model, images, mask, layer="maps", quantile=0.8).tolist() == [1, 0]


# Refusals

IMAGES = images_of(RNG.normal(size=(6, SIZE)))
HAS = np.arange(6) % 2 == 0


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("probe", {"concepts": HAS[:5], "layers": ["numbers"]}, "for each of 6 images"),
        ("probe", {"concepts": HAS | True, "layers": ["numbers"]}, "in all images or in none"),
        ("probe", {"concepts": HAS * 0.5, "layers": ["numbers"]}, "True or False"),
        ("probe", {"concepts": HAS, "layers": "numbers"}, "must be a list of layers"),
        ("probe", {"concepts": HAS, "layers": ["none"]}, "has no layer 'none'"),
        ("probe", {"concepts": HAS, "layers": ["numbers"], "folds": 7}, "from 2 to 6"),
        ("concept_vectors", {"concepts": HAS, "layer": "numbers", "ridge": 0}, "positive number"),
        ("tcav_scores", {"targets": 2, "layer": "numbers", "vectors": np.eye(6)}, "target 2 does"),
        ("tcav_scores", {"targets": 1, "layer": "numbers", "vectors": np.eye(5)}, "shape of what"),
        ("dissect", {"masks": np.ones((6, 4, 4), bool), "layer": "numbers"}, "puts out no maps"),
        ("dissect", {"masks": np.ones((6, 3, 4), bool), "layer": "numbers"}, "must have shape"),
        (
            "dissect",
            {"masks": np.ones((6, 4, 4), bool), "layer": "numbers", "quantile": 99},
            "between 0 and 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(concepts, function)(linear(), IMAGES, **arguments)


def test_a_layer_that_puts_out_the_same_for_all_has_no_direction():
    images = np.ones((6, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="the same with the concept and without"):
        concepts.concept_vectors(linear(), images, HAS, layer="numbers")


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7])
def test_nor_has_one_whose_equal_numbers_have_another_mean(value):
    # The mean of equal floats need not be that float.
    model = linear()
    shape = [w.shape for w in model.get_layer("numbers").get_weights()]
    model.get_layer("numbers").set_weights([np.full(s, value * (len(s) == 1)) for s in shape])
    images = images_of(RNG.normal(size=(13, SIZE)))
    with pytest.raises(ValueError, match="the same with the concept and without"):
        concepts.concept_vectors(model, images, np.arange(13) % 2 == 0, layer="numbers")


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, -0.1, -0.7])
def test_a_unit_that_is_the_same_everywhere_fits_nothing_whatever_its_number(value):
    model = keras.Sequential([keras.Input((5, 6, 1)), layers.Conv2D(1, 1, name="maps")])
    model.add(layers.GlobalAveragePooling2D())
    model.get_layer("maps").set_weights([np.zeros((1, 1, 1, 1)), np.array([value])])
    double = keras.Sequential([keras.Input((11, 13, 1)), layers.AveragePooling2D(2), model])
    images, mask = RNG.random((3, 11, 13, 1), np.float32), np.ones((3, 11, 13), bool)
    assert concepts.dissect(double, images, mask, layer="maps").tolist() == [0]
