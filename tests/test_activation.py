"""The search finds the maximum where it is known, and says so where there is none to find."""

import functools
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.ndimage import gaussian_filter

from course_utils import _ascent, _plain, inspection, models
from course_utils._scores import logit_model
from course_utils.activation import maximize_activation

SHAPE = (8, 6, 2)


def cosine(one, other):
    one, other = np.ravel(one), np.ravel(other)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@functools.cache
def linear(shape=SHAPE, units=3, activation=None):
    """A network that adds up weighted pixels, and its weights (units, H, W, C)."""
    flat = [keras.Input(shape), layers.Flatten(), layers.Dense(units, activation)]
    model = keras.Sequential(flat)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(units, *shape)).astype(np.float32)
    bias = rng.normal(size=units).astype(np.float32)
    model.set_weights([weights.reshape(units, -1).T, bias])
    return model, weights


def one_conv(kernels, biases, size=9):
    """Convolutions with kernels (filters, 3, 3) of an image with one channel, and a ReLU."""
    conv = layers.Conv2D(len(kernels), 3, activation="relu", name="conv")
    model = keras.Sequential([keras.Input((size, size, 1)), conv])
    conv.set_weights([np.moveaxis(kernels, 0, -1)[:, :, np.newaxis], np.float32(biases)])
    return model


@functools.cache
def digits():
    return models.load_trained("digits")


# Where the maximum is known.


@pytest.mark.parametrize("softmax", [None, "softmax"])
def test_a_linear_unit_in_a_ball_is_maximised_by_its_weights(softmax):
    model, weights = linear(activation=softmax)
    found = maximize_activation(model, target=range(3), norm=2.0)
    for image, score, own, bias in zip(
        found.images, found.scores, weights, model.get_weights()[1], strict=True
    ):
        assert cosine(image, own) >= 0.9999
        assert np.linalg.norm(image) == pytest.approx(2, rel=1e-5)
        assert score == pytest.approx(2 * np.linalg.norm(own) + bias, rel=1e-4)
    assert found.images.dtype == found.scores.dtype == np.float32
    assert not found.dead.any()
    assert found.latents is None


@pytest.mark.parametrize("options", [{}, {"fourier": 1.0, "steps": 512}])
def test_an_l2_penalty_leads_to_the_weights_divided_by_twice_its_weight(options):
    model, weights = linear()
    found = maximize_activation(model, target=[2, 0], l2=0.8, **options)
    np.testing.assert_allclose(found.images, weights[[2, 0]] / 1.6, atol=0.01)


def test_in_a_range_each_pixel_goes_to_the_end_its_weight_points_to():
    model, weights = linear()
    found = maximize_activation(model, target=1, low=-3, high=7, steps=4000)
    np.testing.assert_array_equal(found.images[0], np.where(weights[1] > 0, 7, -3))


def test_it_stops_at_the_top_of_a_hill():
    inputs = keras.Input(SHAPE)
    top = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    distance = layers.Flatten()(inputs) - top.reshape(1, -1)
    hill = keras.Model(inputs, -keras.ops.sum(distance**2, axis=1, keepdims=True))
    found = maximize_activation(hill, target=1)
    np.testing.assert_allclose(found.images[0], top, atol=1e-2)
    assert found.scores[0] == pytest.approx(0, abs=1e-2)


def test_the_gradient_of_total_variation_is_the_one_tensorflow_finds():
    images = tf.random.stateless_normal((3, 7, 5, 2), (0, 1))
    images = tf.concat([images[:, :4], images[:, 3:4], images[:, 4:]], axis=1)  # equal neighbours
    with tf.GradientTape() as tape:
        tape.watch(images)
        variation = tf.image.total_variation(images)
    ours = _ascent.variation_slope(images)
    np.testing.assert_allclose(ours, tape.gradient(variation, images), atol=1e-6)
    assert np.abs(ours).max() == 4


@pytest.mark.parametrize("tv", [0.2, 0.6, 5.0])
def test_total_variation_shrinks_the_difference_of_neighbours_by_its_weight(tv):
    model, weights = linear((1, 2, 1), units=4)
    found = maximize_activation(model, target=range(4), l2=0.5, tv=tv, steps=2000)
    one, other = weights[:, 0, 0, 0], weights[:, 0, 1, 0]
    step = np.sign(one - other) * np.maximum(np.abs(one - other) - 2 * tv, 0)
    expected = (one + other)[:, np.newaxis] / 2 + step[:, np.newaxis] * [0.5, -0.5]
    np.testing.assert_allclose(found.images[:, 0, :, 0], expected, atol=0.01)


def test_jitter_leads_to_the_mean_over_all_shifts():
    model, weights = linear((9, 9, 1), units=1)
    shifts = [np.roll(weights[0], (r, c), (0, 1)) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    found = maximize_activation(model, target=1, jitter=1, norm=1.0, steps=2000, step_size=0.01)
    assert cosine(found.images, np.mean(shifts, axis=0)) > 0.99
    assert cosine(found.images, weights) < 0.6


def test_blur_is_that_of_scipy_but_at_the_edges():
    image = np.random.default_rng(0).normal(size=(1, 20, 17, 2)).astype(np.float32)
    blurred = _ascent.confine(tf.constant(image), {"blur"}, {"blur": tf.constant(1.3)})
    expected = gaussian_filter(image, (0, 1.3, 1.3, 0), truncate=6)
    np.testing.assert_allclose(blurred[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=1e-4)
    flat = _ascent.confine(tf.ones((1, 20, 17, 2)), {"blur"}, {"blur": tf.constant(1.3)})
    np.testing.assert_allclose(flat, 1, atol=1e-6)  # the edges do not darken


@pytest.mark.parametrize("shape", [(8, 6, 2), (7, 9, 1)])
@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_a_step_among_fourier_coefficients_weighs_each_frequency(shape, power):
    model, weights = linear(shape)
    found = maximize_activation(model, target=0, fourier=power, steps=1, noise=0)
    rows, columns = np.fft.fftfreq(shape[0])[:, np.newaxis], np.fft.fftfreq(shape[1])
    scale = np.maximum(np.hypot(rows, columns), 1 / max(shape[:2])) ** -power
    spectrum = np.fft.fft2(weights[0], axes=(0, 1)) * scale[..., np.newaxis] ** 2
    expected = np.fft.ifft2(spectrum, axes=(0, 1)).real
    assert cosine(found.images, expected) > 0.9999


def test_the_colours_of_noise_vary_as_those_of_the_data():
    model, _ = linear((40, 40, 3))
    colours = np.array([[2.0, 1.2, 0.3], [1.2, 1.5, 0.1], [0.3, 0.1, 0.4]])
    found = maximize_activation(
        model, target=0, fourier=0.0, colours=colours, noise=1, steps=1, step_size=1e-6
    )
    covariance = np.cov(found.images.reshape(-1, 3).T)
    np.testing.assert_allclose(covariance, 3 * colours / np.trace(colours), atol=0.15)


def test_a_range_holds_with_fourier_coefficients_too():
    model, _ = linear()
    found = maximize_activation(model, target=0, fourier=1.0, low=10, high=12, step_size=0.5)
    assert found.images.min() >= 10
    assert found.images.max() <= 12
    assert found.images.max() - found.images.min() > 1.5


# What is maximised.


def test_scores_are_those_of_the_model():
    found = maximize_activation(digits(), target=[3, 8], low=0, high=1, steps=8, jitter=2, tv=0.1)
    logits = logit_model(digits()).predict(found.images, verbose=0)
    np.testing.assert_allclose(found.scores, [logits[0, 3], logits[1, 8]], rtol=1e-4)
    sure = maximize_activation(digits(), target=3, low=0, high=1, steps=8, score="probability")
    p = digits().predict(sure.images, verbose=0)
    np.testing.assert_allclose(sure.scores, p[:, 3], rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "centre"])
def test_a_channel_is_that_of_its_layer(pool):
    options = {"low": 0, "high": 1, "steps": 8, "layer": "conv2d_2", "pool": pool}
    found = maximize_activation(digits(), channel=[5, 40], **options)
    maps = inspection.feature_maps(digits(), found.images, "conv2d_2")
    maps = maps.mean(axis=(1, 2)) if pool == "mean" else maps[:, 12, 12]
    np.testing.assert_allclose(found.scores, [maps[0, 5], maps[1, 40]], rtol=1e-4)
    assert (found.scores > 0.05).all()


def test_the_unit_in_the_middle_sees_its_receptive_field_and_no_more():
    kernels = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    model = one_conv(kernels, np.zeros(4))
    found = maximize_activation(model, layer="conv", pool="centre", norm=1.0)
    patches = found.images[:, 3:6, 3:6, 0]
    assert np.linalg.norm(patches, axis=(1, 2)) == pytest.approx(np.ones(4), abs=1e-3)
    for patch, kernel in zip(patches, kernels, strict=True):
        assert cosine(patch, kernel) > 0.999


def test_all_channels_in_one_call_are_each_channel_alone():
    options = {"layer": "conv2d_1", "low": 0, "high": 1, "steps": 12}
    together = maximize_activation(digits(), **options)
    assert together.images.shape == (32, 28, 28, 1)
    split = maximize_activation(digits(), batch_size=5, **options)
    np.testing.assert_allclose(split.images, together.images, atol=1e-3)
    alone = maximize_activation(digits(), channel=7, **options)
    np.testing.assert_allclose(alone.images[0], together.images[7], atol=1e-3)


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_class_0_of_a_single_sigmoid_is_the_opposite_of_class_1(score):
    model, weights = linear(units=1, activation="sigmoid")
    found = maximize_activation(model, target=[0, 1], norm=0.1, score=score)
    assert cosine(found.images[0], -weights) > 0.999
    assert cosine(found.images[1], weights) > 0.999
    p = model.predict(found.images, verbose=0)[:, 0]
    logits = np.log(p / (1 - p))
    expected = [1 - p[0], p[1]] if score == "probability" else [-logits[0], logits[1]]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)


def test_it_is_the_loop_by_hand():
    logits = logit_model(digits())
    rng = tf.random.stateless_normal((28, 28, 1), [0, 0])
    image = tf.clip_by_value(0.5 + 0.1 * rng, 0, 1)[tf.newaxis]
    for step in range(10):
        with tf.GradientTape() as tape:
            tape.watch(image)
            score = logits(image)[0, 4]
        gradient = tape.gradient(score, image)
        gradient /= tf.sqrt(tf.reduce_mean(gradient**2))
        image = tf.clip_by_value(image + 0.05 * (1 - step / 10) * gradient, 0, 1)
    found = maximize_activation(digits(), target=4, low=0, high=1, steps=10)
    np.testing.assert_allclose(found.images, image, atol=1e-4)


def test_through_a_generator_the_search_is_for_z():
    model, weights = linear()
    matrix = np.random.default_rng(5).normal(size=(4, *SHAPE)).astype(np.float32)
    dense = layers.Dense(matrix[0].size, use_bias=False)
    generator = keras.Sequential([keras.Input((4,)), dense, layers.Reshape(SHAPE)])
    dense.set_weights([matrix.reshape(4, -1)])
    best = (weights.reshape(3, 1, -1) * matrix.reshape(1, 4, -1)).sum(axis=-1)
    found = maximize_activation(model, target=range(3), generator=generator, norm=1.5)
    for z, image, expected in zip(found.latents, found.images, best, strict=True):
        assert cosine(z, expected) > 0.999
        assert np.linalg.norm(z) == pytest.approx(1.5, rel=1e-4)
        np.testing.assert_allclose(image, np.tensordot(z, matrix, 1), atol=1e-4)
    found = maximize_activation(
        model, target=1, generator=generator, l2=2.0, steps=512, step_size=0.2
    )
    np.testing.assert_allclose(found.latents[0], best[1] / 4, atol=0.02)


def test_layers_of_nested_models_and_models_in_training_mode_are_seen_through():
    inner = keras.Sequential(
        [
            keras.Input((9, 9, 1)),
            layers.Conv2D(4, 3, name="deep"),
            layers.BatchNormalization(),
            layers.Dropout(0.9),
        ],
        name="inner",
    )
    inputs = keras.Input((9, 9, 1))
    outer = keras.Model(inputs, layers.Dense(2, "softmax")(layers.Flatten()(inner(inputs))))
    before = [w.copy() for w in outer.get_weights()]
    options = {"layer": "deep", "norm": 1.0, "steps": 8}
    nested = maximize_activation(outer, **options)
    np.testing.assert_allclose(
        nested.images, maximize_activation(inner, **options).images, atol=1e-5
    )
    found = maximize_activation(outer, target=1, norm=1.0, steps=8)
    logits = logit_model(outer).predict(found.images, verbose=0)
    assert found.scores[0] == pytest.approx(logits[0, 1], rel=1e-4)
    for old, new in zip(before, outer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# What is dead.

KERNELS = np.random.default_rng(3).normal(size=(4, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"l2": 0.1, "tv": 0.1}, {"low": -1, "high": 1}])
@pytest.mark.parametrize("pool", ["mean", "centre"])
def test_a_dead_filter_is_reported_and_its_picture_is_blank(pool, options):
    model = one_conv(KERNELS, [0, -1e6, 0, 0])
    found = maximize_activation(model, layer="conv", pool=pool, steps=40, **options)
    assert found.dead.tolist() == [False, True, False, False]
    assert not found.images[1].any()
    assert found.scores[1] == 0
    assert (found.scores[[0, 2, 3]] > 0).all()
    healthy = maximize_activation(
        one_conv(KERNELS, [0] * 4), layer="conv", pool=pool, steps=40, **options
    )
    np.testing.assert_allclose(found.images[2], healthy.images[2], atol=1e-4)


def test_what_is_blank_lies_in_the_range():
    model = one_conv(KERNELS, [-1e6] * 4)
    found = maximize_activation(model, layer="conv", low=2, high=5, steps=4)
    assert found.dead.all()
    assert (found.images == 2).all()


def test_a_filter_that_is_only_asleep_at_the_start_wakes():
    size = np.linalg.norm(KERNELS[0])
    model = one_conv(KERNELS, [-2 * size, 0, 0, 0])  # twenty standard deviations of the noise
    start = maximize_activation(model, layer="conv", channel=0, steps=1, noise=0.1)
    assert start.dead.all()
    found = maximize_activation(model, layer="conv", channel=0, steps=60)
    assert not found.dead.any()
    assert found.scores[0] > 1


def test_a_constant_has_no_ideal_input():
    model = one_conv(np.zeros((2, 3, 3), np.float32), [5, -5])
    found = maximize_activation(model, layer="conv", steps=8)
    assert found.dead.tolist() == [True, True]
    assert found.scores == pytest.approx([5, 0], abs=1e-5)
    assert not found.images.any()


def test_what_falls_asleep_at_the_end_is_not_exchanged_for_noise():
    """A pixel of 1 is pulled down, by 0.8 and then by half of that, to where the ReLU is silent."""
    pixel = layers.Conv2D(1, 1, activation="relu", name="conv")
    model = keras.Sequential([keras.Input((1, 1, 1)), pixel])
    model.set_weights([np.ones((1, 1, 1, 1)), np.array([-0.5])])
    options = {"start": 1.0, "noise": 1e-6, "l2": 10.0, "steps": 2, "step_size": 0.8}
    found = maximize_activation(model, layer="conv", channel=0, **options)
    assert found.images.item() == pytest.approx(-0.2, abs=1e-3)
    assert found.scores.item() == 0


def test_the_top_of_a_relu6_is_not_thrown_away():
    conv = layers.Conv2D(1, 3, name="conv", activation="relu6")
    model = keras.Sequential([keras.Input((9, 9, 1)), conv])
    found = maximize_activation(model, layer="conv", pool="centre", steps=64, step_size=1.0)
    assert not found.dead[0]
    assert found.scores[0] == 6


# Randomness, compilation, memory.


def test_a_seed_and_steps_may_be_numpy_s():
    call = functools.partial(maximize_activation, digits(), target=1, low=0, high=1)
    one, other = call(seed=3, steps=4), call(seed=np.int64(3), steps=np.int64(4))
    np.testing.assert_array_equal(one.images, other.images)


def test_the_same_call_gives_the_same_bits_and_another_seed_another_image():
    options = {"target": [1, 7], "low": 0, "high": 1, "jitter": 2, "steps": 20}
    one, again = (maximize_activation(digits(), seed=3, **options) for _ in range(2))
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.scores, again.scores)
    other = maximize_activation(digits(), seed=4, **options)
    assert np.abs(one.images - other.images).max() > 0.5


def searches(model):
    """What is compiled for a model so far."""
    _, values = _plain._KEPT[model]
    return [value for key, value in values.items() if key[0] == "search"]


def test_one_search_is_compiled_for_all_targets_seeds_and_weights_of_penalties():
    model, _ = linear((5, 5, 1), units=4, activation="softmax")
    maximize_activation(model, target=0, l2=0.1, low=0, high=1)
    maximize_activation(model, target=[3, 1], l2=0.2, low=-1, high=2, seed=9, steps=7, batch_size=1)
    ((_, search),) = searches(model)[-1:]
    assert search.experimental_get_tracing_count() == 1
    before = len(searches(model))
    maximize_activation(model, target=0, l2=0.1, low=0, high=1, tv=1)
    assert len(searches(model)) == before + 1


def test_a_start_and_colours_compile_nothing_anew():
    model = keras.models.clone_model(linear((5, 5, 1), units=4)[0])  # no other test's searches
    for start in (None, 0.5, np.full((5, 5, 1), 0.2)):
        maximize_activation(model, target=0, start=start, steps=2)
    assert len(searches(model)) == 1
    for colours in (None, [[4.0]]):
        maximize_activation(model, target=0, fourier=1, colours=colours, steps=2)
    assert len(searches(model)) == 2


def test_it_follows_the_weights_when_they_change():
    model, weights = linear((4, 4, 1), units=2)
    maximize_activation(model, target=0, norm=1.0)
    old = model.get_weights()
    model.set_weights([-old[0], old[1]])
    found = maximize_activation(model, target=0, norm=1.0)
    model.set_weights(old)
    assert cosine(found.images, -weights[0]) > 0.999


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_it_keeps_no_model_alive(score):
    model = keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(2, "softmax", name="last")]
    )
    generator = keras.Sequential([keras.Input((3,)), layers.Dense(96), layers.Reshape(SHAPE)])
    maximize_activation(model, target=0, score=score, steps=2)
    maximize_activation(model, layer="last", steps=2, generator=generator)
    alive = weakref.ref(model), weakref.ref(generator)
    del model, generator
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


# What does not fit.


def small_generator(shape):
    size = int(np.prod(shape))
    return keras.Sequential([keras.Input((3,)), layers.Dense(size), layers.Reshape(shape)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a target, or a layer"),
        ({"target": 1, "layer": "conv2d_1"}, "either a target, or a layer"),
        ({"target": 1, "channel": 1}, "either a target, or a layer"),
        ({"channel": 1}, "either a target, or a layer"),
        ({"target": 10}, "target 10 does not exist: the model has classes 0 to 9"),
        ({"target": -1}, "target -1 does not exist"),
        ({"target": 1.0}, "targets must be whole numbers"),
        ({"layer": "conv9"}, "no layer 'conv9'. It has 0: conv2d_1, 1: conv2d_2"),
        ({"layer": "conv2d_1", "channel": 32}, "'conv2d_1' has channels 0 to 31"),
        ({"layer": "conv2d_1", "channel": -1}, "channel -1 does not exist"),
        ({"layer": "conv2d_1", "channel": 1.5}, "channel must be a whole number or a list"),
        ({"layer": "conv2d_1", "channel": []}, "channel must be a whole number or a list"),
        ({"layer": "conv2d_1", "pool": "max"}, 'pool must be "mean" or "centre", got \'max\''),
        ({"target": 1, "score": "loss"}, 'score must be "logit" or "probability"'),
        ({"target": 1, "steps": 0}, "steps must be a whole number from 1"),
        ({"target": 1, "jitter": 1.5}, "jitter must be a whole number from 0"),
        ({"target": 1, "batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"target": 1, "seed": -1}, "seed must be a whole number from 0"),
        ({"target": 1, "norm": 0}, "norm must be a positive number, got 0"),
        ({"target": 1, "step_size": 0.0}, "step_size must be a positive number"),
        ({"target": 1, "l2": -1}, "l2 must be a non-negative number, got -1"),
        ({"target": 1, "tv": np.nan}, "tv must be a non-negative number, got nan"),
        ({"target": 1, "blur": "much"}, "blur must be a non-negative number, got 'much'"),
        ({"target": 1, "low": 0}, "give both low and high"),
        ({"target": 1, "low": 1, "high": 0}, "low < high, or neither: got 1, 0"),
        ({"target": 1, "low": 1, "high": 2, "norm": 1}, "lies outside 1 to 2"),
        ({"target": 1, "fourier": 1, "blur": 1, "norm": 1}, "leave out blur, norm"),
        ({"target": 1, "fourier": 1, "start": 0.5}, "leave out start"),
        ({"target": 1, "colours": [[1.0]]}, "colours go with fourier"),
        ({"target": 1, "fourier": 1, "colours": np.eye(3)}, r"matrix \(1, 1\), got \(3, 3\)"),
        ({"target": 1, "fourier": 1, "colours": [[-1.0]]}, "positive definite"),
        ({"target": 1, "start": np.zeros((28, 28))}, "start must be a number, a colour of 1"),
        ({"target": 1, "start": np.inf}, "start must be finite"),
        (
            {"target": 1, "generator": small_generator((28, 27, 1))},
            r"makes images of shape \(28, 27, 1\), and the model takes \(28, 28, 1\)",
        ),
        (
            {"target": 1, "generator": small_generator((28, 28, 1)), "low": 0, "high": 1},
            "with generator the search is not for pixels: leave out high, low",
        ),
        (
            {"target": 1, "generator": small_generator((28, 28, 1)), "start": np.zeros(4)},
            r"a z of shape \(3,\), got \(4,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        maximize_activation(digits(), **options)


def test_a_model_without_a_fixed_size_is_refused():
    free = keras.Sequential([keras.Input((None, None, 1)), layers.GlobalMaxPooling2D()])
    with pytest.raises(ValueError, match="images of one fixed size, it takes"):
        maximize_activation(free, target=0)
