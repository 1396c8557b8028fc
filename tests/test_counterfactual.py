"""Counterfactuals: projections onto boundaries that are known, and searches a loop can check."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

from course_utils.counterfactual import _shortened, counterfactual

SHAPE = (4, 5, 2)
D = 40


def linear(outputs, seed=0, activation=None):
    model = keras.Sequential([keras.Input(SHAPE), layers.Flatten()])
    model.add(layers.Dense(outputs, activation=activation, name="scores"))
    rng = np.random.default_rng(seed)
    model.get_layer("scores").set_weights([rng.normal(size=(D, outputs)), rng.normal(size=outputs)])
    return model


def images(count, seed=0):
    return np.random.default_rng(seed).random((count, *SHAPE), np.float32)


def curved(seed=0, outputs=3):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input(SHAPE), layers.Flatten()])
    model.add(layers.Dense(16, activation="relu", bias_initializer=keras.initializers.Constant(1)))
    model.add(layers.Dense(outputs, activation="softmax"))
    return model


def answers(model, pictures):
    return model.predict(pictures, verbose=0).argmax(axis=1)


# Pixels


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("scale", [1, 255])
def test_of_a_linear_model_it_is_the_projection_onto_the_boundary(activation, scale):
    model = linear(1, activation=activation)
    weights, bias = (w.ravel() for w in model.get_layer("scores").get_weights())
    pictures = images(8) * scale
    flat = pictures.reshape(8, -1).astype(np.float64)
    scores = flat @ weights + bias
    expected = flat - (scores / (weights @ weights))[:, np.newaxis] * weights
    now = (scores > 0).astype(int)
    found = counterfactual(model, pictures, now, to=1 - now, batch_size=3)
    assert found.flipped.all()
    assert found.images.dtype == np.float32
    np.testing.assert_allclose(found.images.reshape(8, -1), expected, atol=1e-5 * scale)
    assert found.parts is found.sources is found.latents is None


def test_between_two_of_several_classes_it_is_the_projection_where_no_third_is_in_the_way():
    model = linear(2, seed=1, activation="softmax")
    weights, bias = model.get_layer("scores").get_weights()
    pictures = images(6)
    now = answers(model, pictures)
    found = counterfactual(model, pictures, now, to=1 - now)
    normal, offset = weights[:, 1] - weights[:, 0], bias[1] - bias[0]
    flat = pictures.reshape(6, -1)
    step = ((flat @ normal + offset) / (normal @ normal))[:, np.newaxis] * normal
    np.testing.assert_allclose(found.images.reshape(6, -1), flat - step, atol=1e-5)


def slow_projection(point, slope, need, low, high):
    """Of all changes along the slope that end at the range, the one that is just enough."""
    small, large = 0.0, 1e6
    for _ in range(200):
        middle = (small + large) / 2
        gain = slope @ (np.clip(point + middle * slope, low, high) - point)
        small, large = (middle, large) if gain < need else (small, middle)
    return np.clip(point + large * slope, low, high)


def test_within_a_range_it_is_the_nearest_point_of_the_boundary_in_the_range():
    model = linear(1, seed=2)
    weights, bias = (w.ravel().astype(float) for w in model.get_layer("scores").get_weights())
    pictures = images(8, seed=3)
    flat = pictures.reshape(8, -1).astype(float)
    scores = flat @ weights + bias
    now = (scores > 0).astype(int)
    found = counterfactual(model, pictures, now, to=1 - now, low=0, high=1)
    assert found.flipped.all()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    ended = 0
    for one, score, image in zip(flat, scores, found.images, strict=True):
        expected = slow_projection(one, -np.sign(score) * weights, abs(score), 0, 1)
        np.testing.assert_allclose(image.ravel(), expected, atol=2e-4)
        ended += np.sum((expected == 0) | (expected == 1))
    assert ended > 4, "the range changed nothing"


def test_the_smallest_sum_of_absolute_changes_takes_the_steepest_pixels_first():
    model = linear(1, seed=2)
    weights, bias = (w.ravel().astype(float) for w in model.get_layer("scores").get_weights())
    pictures = images(5, seed=4)
    flat = pictures.reshape(5, -1)
    scores = flat @ weights + bias
    now = (scores > 0).astype(int)
    found = counterfactual(model, pictures, now, to=1 - now, norm=1, low=0, high=1)
    assert found.flipped.all()
    for one, score, image in zip(flat, scores, found.images, strict=True):
        slope = -np.sign(score) * weights
        change, need = np.zeros(D), abs(score)
        for pixel in np.argsort(-np.abs(slope)):
            room = 1 - one[pixel] if slope[pixel] > 0 else one[pixel]
            step = min(room, need / abs(slope[pixel]))
            change[pixel] = np.sign(slope[pixel]) * step
            need -= step * abs(slope[pixel])
        assert np.sum(np.abs(image.ravel() - one)) == pytest.approx(np.abs(change).sum(), rel=1e-3)


def test_of_a_curved_model_it_is_turned_on_the_boundary_and_near():
    model = curved()
    pictures = images(12)
    now = answers(model, pictures)
    to = (now + 1) % 3
    found = counterfactual(model, pictures, now, to=to)
    assert found.flipped.all()
    given = model.predict(found.images, verbose=0)
    rival = np.where(np.eye(3, dtype=bool)[to], -np.inf, given).max(axis=1)
    np.testing.assert_allclose(given[np.arange(12), to], rival, atol=1e-4)
    # No random direction gets there on a shorter way.
    sizes = np.linalg.norm((found.images - pictures).reshape(12, -1), axis=1)
    rng = np.random.default_rng(0)
    for n in range(12):
        steps = rng.normal(size=(500, *SHAPE))
        steps *= (
            0.99 * sizes[n] / np.linalg.norm(steps.reshape(500, -1), axis=1)[:, None, None, None]
        )
        assert (answers(model, pictures[n] + steps) != to[n]).all()


def test_a_change_is_shortened_to_the_boundary_in_half_the_questions_of_halving():
    # Along the way the margin is made of pieces, as a network's is; the last cannot be turned.
    knots, heights = np.array([0, 0.3, 0.5, 0.7, 1]), np.array([0, 0.1, 0.8, 0.85, 2])
    places, asked = np.array([0.1, 0.4, 0.6, 0.999]), []

    def ask(points):
        asked.append(len(points))
        margins = np.interp(points[:, 0], knots, heights)
        margins -= np.append(np.interp(places, knots, heights), 3)
        piece = np.clip(np.searchsorted(knots, points[:, 0], "right") - 1, 0, 3)
        slopes = (np.diff(heights) / np.diff(knots))[piece]
        return margins, np.stack([slopes, np.zeros(5)], axis=1)

    start, best = np.zeros((5, 2)), np.ones((5, 2))
    found = _shortened(ask, start, best)
    np.testing.assert_allclose(found, np.stack([np.append(places, 1)] * 2, axis=1), atol=1e-6)
    assert len(asked) <= 12
    assert (ask(found)[0][:4] >= 0).all()


def test_what_has_the_answer_already_stays_and_what_cannot_be_turned_is_told():
    model = linear(1)
    pictures = images(4)
    scores = model.predict(pictures, verbose=0)[:, 0]
    to = (scores > 0).astype(int)
    found = counterfactual(model, pictures, 1 - to, to=to)
    assert found.flipped.all()
    np.testing.assert_array_equal(found.images, pictures)
    model.get_layer("scores").set_weights([np.zeros((D, 1)) + 1e-3, np.ones(1)])
    stuck = counterfactual(model, pictures, 1, to=0, low=0, high=1)
    assert not stuck.flipped.any()
    assert stuck.images.max() < 1e-6  # as far as it goes


def test_a_tie_is_not_the_wanted_answer():
    model = linear(3)
    model.get_layer("scores").set_weights([np.zeros((D, 3)), np.ones(3)])
    assert not counterfactual(model, images(2), 0, to=2).flipped.any()
    assert not counterfactual(model, images(2), 2, to=0).flipped.any()
    half = linear(1, activation="sigmoid")
    half.get_layer("scores").set_weights([np.zeros((D, 1)), np.zeros(1)])
    for to in (0, 1):
        assert not counterfactual(half, images(2), 1 - to, to=to).flipped.any()


def test_from_a_tie_it_is_the_shortest_way_out():
    model = linear(2, activation="softmax")
    weights, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([weights, 0 * bias])
    start = np.zeros((2, *SHAPE), np.float32)
    found = counterfactual(model, start, 0, to=1)
    assert found.flipped.all()
    assert answers(model, found.images).tolist() == [1, 1]
    assert np.abs(found.images).max() < 1e-5


@pytest.mark.parametrize(("outputs", "activation"), [(1, None), (1, "sigmoid"), (2, "softmax")])
def test_of_a_linear_model_one_step_is_enough(outputs, activation):
    for seed in range(5):
        model = linear(outputs, seed, activation)
        pictures = images(8, seed)
        half = 0.5 if activation else 0
        said = model.predict(pictures, verbose=0)
        now = answers(model, pictures) if outputs > 1 else (said[:, 0] > half).astype(int)
        one, many = (
            counterfactual(model, pictures, now, to=1 - now, steps=steps) for steps in (1, 50)
        )
        assert one.flipped.all()
        np.testing.assert_allclose(one.images, many.images, atol=1e-5)


# Parts


def test_parts_are_the_fewest_that_turn_the_answer():
    model = linear(1, seed=5)
    pictures, others = images(6, seed=6), images(20, seed=7)
    middle = np.median(model.predict(others, verbose=0))
    weights, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([weights, bias - middle])
    scores = model.predict(pictures, verbose=0)[:, 0]
    now = (scores > 0).astype(int)
    segments = np.arange(20).reshape(4, 5) // 2
    found = counterfactual(
        model, pictures, now, to=1 - now, by="parts", segments=segments, others=others
    )
    assert found.flipped.all()
    assert found.parts.shape == (6, 10)
    theirs = (model.predict(others, verbose=0)[:, 0] > 0).astype(int)
    for n in range(6):
        unlike = np.flatnonzero(theirs == 1 - now[n])
        distances = [np.sum((others[m] - pictures[n]) ** 2) for m in unlike]
        assert found.sources[n] == unlike[np.argmin(distances)]
        source = others[found.sources[n]]

        def turned(parts):
            shown = np.isin(segments, parts)[..., np.newaxis]
            mixed = np.where(shown, source, pictures[n])[np.newaxis]  # noqa: B023
            return (float(model(mixed)[0, 0]) > 0) != now[n]  # noqa: B023

        chosen = np.flatnonzero(found.parts[n])
        shown = np.isin(segments, chosen)[..., np.newaxis]
        np.testing.assert_array_equal(found.images[n], np.where(shown, source, pictures[n]))
        assert turned(chosen)
        if len(chosen) < 4:  # of a linear model, the greedy choice is the best
            for fewer in itertools.combinations(range(10), len(chosen) - 1):
                assert not turned(fewer)


# The generator


def test_by_a_linear_generator_it_is_the_projection_in_its_latent_space():
    model = linear(1, seed=8)
    weights, bias = (w.ravel().astype(float) for w in model.get_layer("scores").get_weights())
    generator = keras.Sequential([keras.Input((3,)), layers.Dense(D), layers.Reshape(SHAPE)])
    mix = generator.layers[0].get_weights()[0]
    latents = np.random.default_rng(9).normal(size=(5, 3))
    slope = mix @ weights
    scores = latents @ slope + bias
    now = (scores > 0).astype(int)
    found = counterfactual(
        model, images(5), now, to=1 - now, by="generator", generator=generator, latents=latents
    )
    expected = latents - (scores / (slope @ slope))[:, np.newaxis] * slope
    np.testing.assert_allclose(found.latents, expected, atol=1e-5)
    np.testing.assert_allclose(
        found.images, generator.predict(expected.astype(np.float32), verbose=0), atol=1e-4
    )
    assert found.flipped.all()


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": 0}, "another class than the target"),
        ({"to": 5}, "to does not fit: target 5 does not exist"),
        ({"by": "magic"}, "by must be"),
        ({"by": "parts"}, "needs segments"),
        ({"by": "generator"}, "needs generator"),
        ({"segments": np.zeros((4, 5), int)}, "does without segments"),
        ({"norm": 3}, "norm must be 1 or 2"),
        ({"norm": 1}, "needs the range"),
        ({"low": 0}, "both low and high"),
        ({"low": 0.5, "high": 2}, "must keep to the range"),
        ({"steps": 0}, "steps must be"),
        (
            {"by": "parts", "segments": np.zeros((4, 4), int), "others": images(2)},
            "segments must have",
        ),
        (
            {"by": "parts", "segments": np.zeros((4, 5), int), "others": images(2)[:, :3]},
            "others do not fit: the model takes",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        counterfactual(linear(2), images(2), 0, **{"to": 1, **arguments})


def test_others_without_the_answer_are_refused():
    model = linear(2)
    model.get_layer("scores").set_weights([np.zeros((D, 2)), np.array([1.0, 0.0])])
    with pytest.raises(ValueError, match="none of the 2 others has the answer 1"):
        counterfactual(
            model, images(1), 0, to=1, by="parts", segments=np.zeros((4, 5), int), others=images(2)
        )


# The answer that counts is the one that the model gives

ENDS = {
    "logits": (3, None),
    "softmax": (3, "softmax"),
    "logit": (1, None),
    "sigmoid": (1, "sigmoid"),
}
PARTS = np.arange(20).reshape(4, 5) // 2


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", ["pixels", "few", "parts", "generator"])
def test_the_model_gives_the_wanted_answer_to_all_that_is_called_flipped(end, way):
    outputs, activation = ENDS[end]

    def answer(model, pictures, batch_size=32):
        said = model.predict(pictures, verbose=0, batch_size=batch_size)
        if outputs > 1:
            return said.argmax(axis=1)
        return (said[:, 0] > (0.5 if activation else 0)).astype(int)

    for seed in range(3):
        keras.utils.set_random_seed(seed)
        hidden = layers.Dense(12, "relu" if seed % 2 else "tanh")
        model = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), hidden])
        model.add(layers.Dense(outputs, activation))
        generator = keras.Sequential([keras.Input((6,)), layers.Dense(D), layers.Reshape(SHAPE)])
        latents = np.random.default_rng(seed).normal(size=(30, 6)).astype(np.float32)
        others = images(60, seed + 100)
        options = {
            "pixels": {},
            "few": {"norm": 1, "low": 0, "high": 1},
            "parts": {"by": "parts", "segments": PARTS, "others": others},
            "generator": {"by": "generator", "generator": generator, "latents": latents},
        }[way]
        pictures = generator(latents).numpy() if way == "generator" else images(30, seed)
        now = answer(model, pictures)
        there = np.unique(answer(model, others)) if way == "parts" else np.arange(max(outputs, 2))
        assert len(there) > 1
        to = np.where(now == there[0], there[1], there[0])
        found = counterfactual(model, pictures, now, to=to, **options)
        assert found.flipped.mean() > 0.6
        for batch_size in (1, 7, 30):
            said = answer(model, found.images, batch_size)
            np.testing.assert_array_equal(said[found.flipped], to[found.flipped])
