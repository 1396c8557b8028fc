"""shapley: the values are those of the definition, keep the axioms, and add up."""

from itertools import combinations, permutations
from math import factorial

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from course_utils.shapley import explain_parts, shapley_map, shapley_values


def by_definition(worths):
    """Shapley's formula, a subset at a time."""
    players = len(worths).bit_length() - 1
    values = np.zeros(players)
    for player in range(players):
        others = [p for p in range(players) if p != player]
        for size in range(players):
            weight = factorial(size) * factorial(players - 1 - size) / factorial(players)
            for subset in combinations(others, size):
                c = sum(1 << p for p in subset)
                values[player] += weight * (worths[c | 1 << player] - worths[c])
    return values


def over_orders(worths):
    """The mean over all orders of what a player adds to those before it."""
    players = len(worths).bit_length() - 1
    values = np.zeros(players)
    for order in permutations(range(players)):
        before = 0
        for player in order:
            values[player] += worths[before | 1 << player] - worths[before]
            before |= 1 << player
    return values / factorial(players)


class Lookup(layers.Layer):
    """The worth of a coalition, from an image of one row, a pixel of 0 or 1 for each player."""

    def __init__(self, worths):
        super().__init__()
        self.worths = tf.constant(worths, tf.float32)

    def call(self, images):
        row = tf.cast(tf.reshape(images, (-1, images.shape[2])), tf.int64)
        index = tf.reduce_sum(row * 2 ** tf.range(row.shape[1], dtype=tf.int64), axis=1)
        worth = tf.gather(self.worths, index)
        return tf.stack([-worth, worth], axis=1)


def game(worths):
    """A model, an image and segments whose coalitions have these worths, for class 1."""
    players = len(worths).bit_length() - 1
    inputs = keras.Input((1, players, 1))
    model = keras.Model(inputs, Lookup(worths)(inputs))
    return model, np.ones((1, players, 1), np.float32), np.arange(players)[np.newaxis]


def explain(worths, **options):
    model, image, segments = game(worths)
    options = {"segments": segments, "score": "probability", **options}
    return explain_parts(model, image, 1, **options)


def linear(weights):
    """A model whose logit of class 0 is the sum of weights times pixels, and a bias."""
    model = keras.Sequential([keras.Input(weights.shape), layers.Flatten(), layers.Dense(3)])
    kernel = np.zeros((weights.size, 3), np.float32)
    kernel[:, 0] = weights.ravel()
    model.set_weights([kernel, np.array([0.7, 0, 0], np.float32)])
    return model


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 10, 3)),
            layers.Conv2D(6, 3, activation="relu", kernel_initializer="he_normal"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax", kernel_initializer="he_normal"),
        ]
    )


def photo(seed=0, shape=(8, 10, 3)):
    return np.random.default_rng(seed).uniform(0.2, 1, shape).astype(np.float32)


def strips(parts, shape=(8, 10)):
    """Segments that lie in the image side by side, row after row."""
    return np.arange(shape[0] * shape[1]).reshape(shape) * parts // (shape[0] * shape[1])


# Games.


def test_it_equals_the_definition_on_200_random_games():
    rng = np.random.default_rng(0)
    for number in range(200):
        worths = rng.normal(0, 10 ** rng.uniform(-2, 2), 2 ** (1 + number % 10))
        scale = np.abs(worths).max()
        values = shapley_values(worths)
        np.testing.assert_allclose(values, by_definition(worths), atol=1e-9 * scale)
        np.testing.assert_allclose(values.sum(), worths[-1] - worths[0], atol=1e-9 * scale)


@given(st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=20)
def test_it_is_the_mean_over_all_orders(players, seed):
    worths = np.random.default_rng(seed).normal(size=2**players)
    np.testing.assert_allclose(shapley_values(worths), over_orders(worths), atol=1e-9)


@given(st.integers(2, 8), st.integers(0, 10**6))
@settings(max_examples=30)
def test_it_keeps_the_axioms(players, seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(2, 2**players))
    both = shapley_values(2 * one - 3 * other)
    np.testing.assert_allclose(both, 2 * shapley_values(one) - 3 * shapley_values(other), atol=1e-9)
    coalitions = np.arange(2**players)
    without_last = one[coalitions & ~(1 << (players - 1))]  # the last player changes nothing
    assert shapley_values(without_last)[-1] == 0
    first, second = coalitions & 1, coalitions >> 1 & 1
    swapped = coalitions & ~3 | first << 1 | second
    alike = shapley_values(one + one[swapped])  # the first two can stand in for each other
    np.testing.assert_allclose(alike[0], alike[1], atol=1e-9)


def test_three_that_are_known_by_heart():
    np.testing.assert_allclose(shapley_values([0, 0, 0, 1]), [1 / 2, 1 / 2])  # both are needed
    # Two left gloves and a right one: a pair is worth 1.
    gloves = [0, 0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(shapley_values(gloves), [1 / 6, 1 / 6, 2 / 3])
    # Votes of 4, 3, 2 and 1 of which 6 are needed.
    votes = [sum(v for k, v in enumerate((4, 3, 2, 1)) if c >> k & 1) >= 6 for c in range(16)]
    np.testing.assert_allclose(shapley_values(votes), [5 / 12, 1 / 4, 1 / 4, 1 / 12])


@pytest.mark.parametrize("worths", [[1.0], [1, 2, 3], np.ones((2, 2)), [0, np.nan], ["a", "b"]])
def test_it_says_what_is_wrong_with_a_game(worths):
    with pytest.raises(ValueError, match="worths must"):
        shapley_values(worths)


# Images.


@pytest.mark.parametrize("players", [1, 4, 9])
def test_a_model_that_plays_a_game_gets_its_values(players):
    worths = np.random.default_rng(players).normal(size=2**players)
    found = explain(worths)
    assert found.exact
    assert (found.errors == 0).all()
    np.testing.assert_allclose(found.values, by_definition(worths), atol=1e-6)


@pytest.mark.parametrize("samples", [None, 600])
@pytest.mark.parametrize("fill", [0.0, (0.1, 0.5, 0.3), "image"])
def test_a_linear_model_gets_its_weights_times_the_difference(samples, fill):
    weights, image = photo(1) - 0.5, photo(2)
    fill = photo(3) if isinstance(fill, str) else fill
    parts = 12 if samples is None else 20
    segments = strips(parts)
    found = explain_parts(linear(weights), image, 0, segments=segments, fill=fill, samples=samples)
    adds = (weights * (image - np.asarray(fill, np.float32))).sum(axis=2)
    truth = np.bincount(segments.ravel(), adds.ravel())
    np.testing.assert_allclose(found.values, truth, atol=1e-5)
    assert found.exact == (samples is None)
    assert found.errors.max() < 1e-5  # every order says the same


def test_the_values_add_up_also_when_sampled():
    model, image = network(), photo()
    scores = [explain_parts(model, image, 2, segments=strips(n), samples=300) for n in (5, 30)]
    whole = scores[0].values.sum()
    assert (scores[0].exact, scores[1].exact) == (True, False)
    np.testing.assert_allclose(scores[1].values.sum(), whole, atol=1e-5)


def test_the_standard_errors_are_honest():
    worths = np.random.default_rng(0).normal(size=2**6)
    truth = shapley_values(worths)
    model, image, segments = game(worths)
    options = {"segments": segments, "score": "probability", "samples": 52}
    runs = [explain_parts(model, image, 1, seed=seed, **options) for seed in range(60)]
    assert not runs[0].exact
    off = np.array([run.values - truth for run in runs])
    told = np.sqrt(np.mean([run.errors**2 for run in runs], axis=0))
    spread = np.sqrt((off**2).mean(axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.35)  # 60 runs know a spread to a tenth or so
    assert (np.abs(off.mean(axis=0)) < 4 * spread / np.sqrt(60)).all()  # no bias


def test_pairs_of_orders_are_exact_where_no_three_parts_interact():
    """An order and its reverse: whoever comes second gets the interaction, so each gets half."""
    coalitions = np.arange(2**7)
    shown = coalitions[:, np.newaxis] >> np.arange(7) & 1
    joint = np.random.default_rng(0).normal(size=(7, 7))
    worths = np.einsum("ci,ij,cj->c", shown, joint, shown)
    found = explain(worths, samples=26)  # two pairs
    assert not found.exact
    np.testing.assert_allclose(found.values, shapley_values(worths), atol=1e-5)


def test_samples_that_suffice_for_all_combinations_are_used_for_them():
    worths = np.random.default_rng(0).normal(size=2**5)
    assert explain(worths, samples=32).exact
    assert not explain(worths, samples=31).exact
    assert not explain(np.resize(worths, 2**13)).exact  # 13 parts, and 2,000 images


def test_no_more_images_run_than_samples_and_batch_size_allow(monkeypatch):
    sizes = []

    def counted(self, images):
        sizes.append(images.shape[0])
        return original(self, images)

    original = Lookup.call
    worths = np.random.default_rng(0).normal(size=2**8)
    model, image, segments = game(worths)
    monkeypatch.setattr(
        "course_utils._parts.forward", lambda model: lambda x: counted(model.layers[1], x)
    )
    options = {"segments": segments, "score": "probability", "batch_size": 10}
    explain_parts(model, image, 1, samples=100, **options)
    assert max(sizes) == 10
    assert 100 - 14 < sum(sizes) <= 100


def test_seed_batch_size_and_target():
    model, image = network(), photo()
    options = {"segments": strips(20), "samples": 200}
    one = explain_parts(model, image, 1, **options)
    again = explain_parts(model, image, 1, batch_size=7, **options)
    np.testing.assert_allclose(one.values, again.values, atol=1e-5)
    assert (
        np.abs(one.values - explain_parts(model, image, 1, seed=1, **options).values).max() > 1e-3
    )
    assert np.abs(one.values - explain_parts(model, image, 2, **options).values).max() > 1e-3


def test_the_fill_can_be_the_mean_colour():
    model, image, segments = network(), photo(), strips(5)
    means = np.stack([image[segments == k].mean(axis=0) for k in range(5)])[segments]
    pair = [explain_parts(model, image, 0, segments=segments, fill=f) for f in ("mean", means)]
    np.testing.assert_allclose(pair[0].values, pair[1].values, atol=1e-5)


def test_a_map_paints_each_image_with_the_values_of_its_own_superpixels():
    from course_utils.lime_image import superpixels

    model, images = network(), np.stack([photo(1), photo(2)])
    heatmaps = shapley_map(model, images, [0, 3], n_segments=9, method="kmeans")
    assert heatmaps.shape == (2, 8, 10)
    assert heatmaps.dtype == np.float32
    for heatmap, image, target in zip(heatmaps, images, (0, 3), strict=True):
        segments = superpixels(image, "kmeans", 9)
        found = explain_parts(model, image, target, segments=segments)
        np.testing.assert_allclose(heatmap, found.values[segments], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 77}, "samples must be a whole number from 78 upwards"),
        ({"samples": 2.5}, "samples"),
        ({"seed": -1}, "seed"),
        ({"batch_size": 0}, "batch_size"),
        ({"score": "loss"}, "score must be"),
        ({"fill": "blur"}, "fill must be"),
        ({"segments": strips(20)[:4]}, "segments must have"),
        ({"segments": strips(20) * 2}, "without gaps"),
        ({"target": 4}, "target 4 does not exist"),
        ({"image": photo()[np.newaxis]}, "use shapley_map"),
    ],
)
def test_it_says_what_does_not_fit(change, message):
    arguments = {"image": photo(), "target": 0, "segments": strips(20), **change}
    with pytest.raises(ValueError, match=message):
        explain_parts(network(), **arguments)
