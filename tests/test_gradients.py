"""The gradient methods are right where the gradient is known, and the same however they are run."""

import functools
import gc
import weakref

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from course_utils import _scores, datasets, gradients, metrics, models
from course_utils.gradients import (
    gradient_times_input,
    integrated_gradients,
    saliency_map,
    smoothgrad,
)

METHODS = (saliency_map, gradient_times_input, smoothgrad, integrated_gradients)
SHAPE = (5, 6, 3)
IMAGES = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)


def of_the_logits(activation, units, shape=SHAPE):
    """A model that is linear up to its activation, and its weights (H, W, C, units)."""
    model = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(units)])
    weights = np.random.default_rng(1).normal(size=(np.prod(shape), units)) / 5
    model.layers[-1].set_weights([weights.astype(np.float32), np.full(units, 0.1)])
    model.add(layers.Activation(activation))
    return model, weights.reshape(*shape, units)


@functools.cache
def the_linear_model():
    return of_the_logits("softmax", 3)


def a_deep_model(seed=0, shape=(9, 7, 2)):
    """A network with all that makes gradients differ from place to place."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    x = layers.Conv2D(6, 3, padding="same", activation="tanh")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Add()([x, layers.Conv2D(6, 3, padding="same", activation="softplus")(x)])
    x = layers.AveragePooling2D(2)(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1:  # biases, gammas, means and variances, still 0 or 1
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


# A linear model


def test_saliency_of_a_linear_model_is_its_largest_absolute_weight():
    model, weights = the_linear_model()
    targets = [2, 0, 1, 2]
    expected = np.abs(weights).max(axis=2).transpose(2, 0, 1)[targets]
    found = saliency_map(model, IMAGES, targets)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradient_times_input_of_a_linear_model_is_what_each_pixel_adds():
    model, weights = the_linear_model()
    expected = (weights[..., 1] * IMAGES).sum(axis=-1)
    assert expected.min() < -0.1 < 0.1 < expected.max()
    np.testing.assert_allclose(gradient_times_input(model, IMAGES, 1), expected, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("baseline", [0.0, [0.3, -0.2, 1.0], IMAGES[3] / 2], ids=["0", "C", "HWC"])
def test_integrated_gradients_of_a_linear_model_are_exact_for_any_baseline(baseline, steps):
    model, weights = the_linear_model()
    targets = [0, 1, 2, 1]
    expected = np.stack(
        [
            (weights[..., t] * (x - np.float32(baseline))).sum(axis=-1)
            for x, t in zip(IMAGES, targets, strict=True)
        ]
    )
    found = integrated_gradients(model, IMAGES, targets, baseline=baseline, steps=steps)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_smoothgrad_of_a_linear_model_does_not_see_the_noise():
    model, weights = the_linear_model()
    found = smoothgrad(model, IMAGES, 1, samples=5, noise=2.0)
    expected = np.abs(weights[..., 1]).max(axis=2)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-5)


# f(x, y, z) = 5x + y² + sin z


def the_analytic_model():
    """5x + y² + sin z of an image of one row and three columns, and half of it as class 1."""
    inputs = keras.Input((1, 3, 1))
    x, y, z = (inputs[:, 0, i] for i in range(3))
    score = 5 * x + ops.square(y) + ops.sin(z)
    return keras.Model(inputs, layers.Concatenate()([score, score / 2]))


POINTS = np.float32([[1, 2, 3], [-0.5, 0.3, -1.2], [0, -4, 0]]).reshape(3, 1, 3, 1)


def test_the_gradient_is_the_known_one():
    x, y, z = np.moveaxis(POINTS[..., 0].astype(float), -1, 0)
    slopes = np.stack([np.full_like(x, 5), 2 * y, np.cos(z)], axis=-1)
    model = the_analytic_model()
    np.testing.assert_allclose(saliency_map(model, POINTS, 0), abs(slopes), atol=1e-6)
    np.testing.assert_allclose(saliency_map(model, POINTS, [0, 1, 0])[1], abs(slopes[1]) / 2)
    product = slopes * POINTS[..., 0]
    np.testing.assert_allclose(gradient_times_input(model, POINTS, 0), product, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, np.float32([[[0.5], [1.0], [-2.0]]])])
def test_integrated_gradients_are_what_each_variable_adds(baseline):
    def parts(points):
        x, y, z = np.moveaxis(points[..., 0].astype(float), -1, 0)
        return np.stack([5 * x, y**2, np.sin(z)], axis=-1)

    start = np.broadcast_to(np.float32(baseline), (1, 1, 3, 1))
    expected = parts(POINTS) - parts(start)
    model = the_analytic_model()
    coarse, fine = (
        integrated_gradients(model, POINTS, 0, baseline=baseline, steps=n) - expected
        for n in (64, 128)
    )
    # x and y are exact: the midpoint rule is, for constant and linear gradients.
    np.testing.assert_allclose(coarse[..., :2], 0, atol=2e-6)
    assert 1e-6 < np.abs(coarse).max() < 1e-3
    # For sin z the error falls with the square of the steps.
    assert np.abs(fine).max() < np.abs(coarse).max() / 3
    np.testing.assert_allclose(
        integrated_gradients(model, POINTS, 0, baseline=baseline, steps=4096), expected, atol=1e-5
    )


def test_the_midpoints_lie_at_odd_multiples_of_half_a_step():
    """With 2 steps the gradient of sin is taken at 1/4 and 3/4 of the way."""
    z = POINTS[:, 0, 2, 0].astype(float)
    expected = z * (np.cos(z / 4) + np.cos(3 * z / 4)) / 2
    found = integrated_gradients(the_analytic_model(), POINTS, 0, steps=2)
    np.testing.assert_allclose(found[:, 0, 2], expected, atol=1e-6)


# Other networks


def in_float64(model):
    """The same network in float64, so that a difference quotient has digits left."""
    return of_dtype(model, "float64", keras.Input(model.input_shape[1:], dtype="float64"))


def of_dtype(model, dtype, inputs=None):
    precise = keras.models.clone_model(
        model,
        input_tensors=inputs,
        clone_function=lambda x: x.__class__.from_config(x.get_config() | {"dtype": dtype}),
    )
    precise.set_weights(model.get_weights())
    return precise


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_the_gradient_is_that_of_finite_differences(score):
    model = a_deep_model()
    precise = _scores.score_model(in_float64(model), score)
    image = np.random.default_rng(3).normal(size=(1, 9, 7, 2))
    step = 1e-5 * np.eye(image.size).reshape(-1, *image.shape[1:])
    rise = precise(image + step)[:, 2] - precise(image - step)[:, 2]
    slopes = (rise.numpy() / 2e-5).reshape(image.shape)
    assert np.abs(slopes).max() > 1e-3
    scale = np.abs(slopes).max()
    found = saliency_map(model, image, 2, score=score)
    np.testing.assert_allclose(found / scale, np.abs(slopes).max(axis=-1) / scale, atol=1e-5)
    found = gradient_times_input(model, image, 2, score=score)
    np.testing.assert_allclose(found / scale, (slopes * image).sum(-1) / scale, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_dropout_is_off_and_batch_statistics_are_not_used(method):
    model = a_deep_model()
    images = np.random.default_rng(4).normal(size=(3, 9, 7, 2))
    together = method(model, images, [0, 1, 2])
    alone = np.concatenate([method(model, images[i : i + 1], i) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("method", [saliency_map, gradient_times_input])
def test_the_slope_of_a_sigmoid_is_p_times_1_minus_p_of_the_logit_s(method):
    model, _ = of_the_logits("sigmoid", 1)
    p = model.predict(IMAGES, verbose=0).reshape(-1, 1, 1)
    logit = method(model, IMAGES, 1)
    np.testing.assert_allclose(
        method(model, IMAGES, 1, score="probability"), p * (1 - p) * logit, atol=1e-6
    )


def test_the_slope_of_a_softmax_mixes_the_classes():
    model, weights = the_linear_model()
    p = model.predict(IMAGES, verbose=0)
    mixed = weights[..., 1] - np.einsum("nk,hwck->nhwc", p, weights)
    expected = (p[:, 1, np.newaxis, np.newaxis, np.newaxis] * mixed * IMAGES).sum(axis=-1)
    found = gradient_times_input(model, IMAGES, 1, score="probability")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("method", METHODS)
def test_class_0_of_a_sigmoid_is_the_opposite_of_class_1(method, score):
    model, _ = of_the_logits("sigmoid", 1)
    none, one = (method(model, IMAGES, target, score=score) for target in (0, 1))
    assert np.abs(one).max() > 1e-2
    signed = method in (gradient_times_input, integrated_gradients)
    np.testing.assert_allclose(none, -one if signed else one, atol=1e-6 * np.abs(one).max())


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_integrated_gradients_of_class_0_add_up_to_the_change_of_its_score(score):
    model, _ = of_the_logits("sigmoid", 1)
    maps = integrated_gradients(model, IMAGES, 0, score=score)
    assert (metrics.completeness_gap(model, IMAGES, 0, maps, score=score) < 1e-3).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_dead_network_is_explained_by_zeros(method):
    model = a_deep_model()
    model.set_weights([0 * w for w in model.get_weights()])
    images = np.ones((2, 9, 7, 2))
    with np.errstate(all="raise"):
        assert not method(model, images, 1).any()


def test_a_score_that_no_gradient_reaches_is_explained_by_zeros():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(ops.sign(inputs))))
    assert not saliency_map(model, IMAGES, 1).any()


# Completeness on the trained networks


@functools.cache
def trained(name):
    """A trained network, images and, for each, the class the network gives it."""
    model = models.load_trained(name)
    if name == "digits":
        images = datasets.load_digits()[1][0][:6]
    elif name == "squares":
        images = datasets.make_squares(6, seed=0).images
    else:
        images = datasets.make_scenes(6, confounded=name == "scenes_confounded", seed=0).images
    outputs = model.predict(images, verbose=0)
    targets = outputs.argmax(axis=1) if outputs.shape[1] > 1 else outputs[:, 0] > 0.5
    return model, images, targets.astype(int)


def test_the_digits_maps_add_up_to_a_thousandth_at_64_steps():
    model, images, targets = trained("digits")
    maps = integrated_gradients(model, images, targets)
    assert (metrics.completeness_gap(model, images, targets, maps) < 1e-3).all()


BY_STEPS = ("squares", "scenes_confounded", "scenes_fair")  # of which the first is small


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "squares")) for n in BY_STEPS]
)
def test_where_the_gradient_jumps_the_error_falls_with_the_steps(name):
    """With ReLU and max-pooling the gradient is a staircase along the way.

    Where between two points it jumps no rule can know, so that the error is in proportion to
    their distance: 4 times the steps, a quarter of the error. (A smooth score's: a sixteenth.)
    """
    model, images, targets = (trained(name)[0], *(part[:2] for part in trained(name)[1:]))
    coarse, fine, finer = (
        integrated_gradients(model, images, targets, steps=n) for n in (16, 64, 512)
    )
    before, after = (np.abs(maps - finer).sum() for maps in (coarse, fine))
    assert 2.5 < before / after < 6
    gap = metrics.completeness_gap(model, images, targets, finer)
    assert gap.max() < 0.01


# SmoothGrad


def test_without_noise_smoothgrad_is_saliency():
    model = a_deep_model()
    images = np.random.default_rng(5).normal(size=(2, 9, 7, 2))
    expected = saliency_map(model, images, [1, 2])
    found = smoothgrad(model, images, [1, 2], samples=3, noise=0)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())


def test_smoothgrad_is_the_mean_gradient_under_noise_of_the_stated_spread():
    """For y² + sin z under normal noise of spread s: 2y and cos(z)·exp(-s²/2)."""
    noise = 0.4
    spreads = noise * np.ptp(POINTS, axis=(1, 2, 3))
    options = {"samples": 40_000, "batch_size": 10_000}
    found = smoothgrad(the_analytic_model(), POINTS, 0, noise=noise, **options)
    _, y, z = np.moveaxis(POINTS[:, 0, :, 0].astype(float), -1, 0)
    np.testing.assert_allclose(found[:, 0, 0], 5, rtol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1], np.abs(2 * y), atol=0.05)
    expected = np.abs(np.cos(z)) * np.exp(-(spreads**2) / 2)
    np.testing.assert_allclose(found[:, 0, 2], expected, atol=0.01)
    assert (np.abs(expected - np.abs(np.cos(z))) > 0.02).all()


def test_the_absolute_value_is_taken_of_the_mean_and_not_the_mean_of_absolute_values():
    """The slope of y² at 0 is as often positive as negative."""
    image = np.float32([1, 0, 0]).reshape(1, 1, 3, 1)
    found = smoothgrad(the_analytic_model(), image, 0, noise=1.0, samples=10_000, batch_size=10_000)
    assert found[0, 0, 1] < 0.1  # the mean absolute slope is 1.6


def test_the_same_call_gives_the_same_bits_and_another_seed_others():
    model, images, targets = trained("digits")
    first, again, other = (
        smoothgrad(model, images[:2], targets[:2], samples=7, seed=s) for s in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, rtol=0.1)


def test_a_smoothgrad_map_does_not_depend_on_the_images_beside_it():
    model, images, targets = trained("digits")
    together = smoothgrad(model, images[:3], targets[:3], samples=9, batch_size=4)
    alone = smoothgrad(model, images[2:3], targets[2:3], samples=9, batch_size=4)
    np.testing.assert_allclose(together[2:], alone, atol=1e-5 * alone.max())


def test_a_constant_image_gets_no_noise():
    model = a_deep_model()
    image = np.full((1, 9, 7, 2), 0.5, np.float32)
    expected = saliency_map(model, image, 1)
    found = smoothgrad(model, image, 1, samples=2, noise=9.0)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())


# However they are run


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_size_does_not_matter_and_images_are_left_alone(method):
    model = a_deep_model()
    images = np.random.default_rng(6).normal(size=(3, 9, 7, 2)).astype(np.float32)
    kept = images.copy()
    first, again = (method(model, images, [0, 1, 2]) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(images, kept)
    for batch_size in (1, 2, 1000):
        found = method(model, images, [0, 1, 2], batch_size=batch_size)
        np.testing.assert_allclose(found, first, atol=2e-6 * np.abs(first).max())


@settings(max_examples=20)
@given(st.integers(1, 20), st.integers(1, 25), st.integers(1, 3))
def test_every_point_is_taken_once_whatever_the_batch_size(count, batch_size, n):
    """The sum over the points would show one that is left out or counted twice."""
    model, weights = the_linear_model()
    expected = (weights[..., 0] * IMAGES[:n]).sum(axis=-1)
    found = integrated_gradients(model, IMAGES[:n], 0, steps=count, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = smoothgrad(model, IMAGES[:n], 0, samples=count, batch_size=batch_size)
    np.testing.assert_allclose(found[-1], np.abs(weights[..., 0]).max(axis=2), rtol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float16, np.float64, bool])
def test_images_of_any_kind_of_number_do(kind):
    model, _ = the_linear_model()
    images = (IMAGES > 0).astype(kind)
    for method in METHODS:
        expected = method(model, images.astype(np.float32), 1)
        np.testing.assert_allclose(method(model, images, np.uint8(1)), expected, rtol=1e-5)


def test_numpy_numbers_do_for_every_option():
    model, _ = the_linear_model()
    plain = smoothgrad(model, IMAGES, 1, samples=3, noise=0.5)
    found = smoothgrad(model, IMAGES, 1, samples=np.int64(3), noise=np.float64(0.5))
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    plain = integrated_gradients(model, IMAGES, 1, steps=3, baseline=0.25)
    found = integrated_gradients(model, IMAGES, 1, steps=np.int8(3), baseline=np.float64(0.25))
    np.testing.assert_allclose(found, plain, rtol=1e-5)


def nested_in_a_sequential():
    return keras.Sequential([keras.Input((9, 7, 2)), layers.Rescaling(2.0), a_deep_model()])


def transfer():
    base = keras.Model((deep := a_deep_model()).inputs, deep.layers[-3].output)
    inputs = keras.Input((9, 7, 2))
    x = layers.Dense(4, activation="relu")(base(inputs, training=False))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def of_any_size():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 2))
    x = layers.Conv2D(5, 3, activation="softplus")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


def mixed_precision():
    return of_dtype(a_deep_model(), "mixed_bfloat16")


@pytest.mark.parametrize("make", [nested_in_a_sequential, transfer, of_any_size])
def test_networks_of_every_make_give_the_gradient_of_finite_differences(make):
    model = make()
    scores = _scores.score_model(model, "logit")
    image = np.random.default_rng(7).normal(size=(9, 7, 2)).astype(np.float32)
    step = 0.01 * np.eye(image.size, dtype=np.float32).reshape(-1, *image.shape)
    rise = (scores(image + step) - scores(image - step)).numpy()[:, -1]
    slopes = np.abs(rise / 0.02).reshape(image.shape).max(axis=-1)
    target = 1 if scores.output_shape[-1] == 1 else 2
    found = saliency_map(model, image[np.newaxis], target)[0]
    assert slopes.max() > 1e-3
    np.testing.assert_allclose(found, slopes, atol=3e-3 * slopes.max())


def test_half_precision_layers_give_float32_maps():
    model, half = a_deep_model(), mixed_precision()
    images = np.random.default_rng(8).normal(size=(2, 9, 7, 2))
    for method in METHODS:
        expected, found = method(model, images, 1), method(half, images, 1)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_one_tracing_does_for_all_numbers_of_images_and_for_all_methods():
    model = a_deep_model(seed=1)
    images = np.random.default_rng(9).normal(size=(7, 9, 7, 2))
    saliency_map(model, images[:1], 0)
    run = _scores.gradient(_scores.score_model(model, "logit"))
    for n in (2, 7):
        saliency_map(model, images[:n], np.arange(n) % 3, batch_size=3)
        gradient_times_input(model, images[:n], 0)
        smoothgrad(model, images[:n], 1, samples=n, batch_size=4)
        integrated_gradients(model, images[:n], 2, steps=n + 1, batch_size=3)
    assert run is _scores.gradient(_scores.score_model(model, "logit"))
    assert run.experimental_get_tracing_count() == 1


@pytest.fixture
def passes(monkeypatch):
    """How many images are in each pass that is taken, in order."""
    taken = []

    def counting(model):
        run = _scores.gradient(model)
        return lambda points, targets: taken.append(len(points)) or run(points, targets)

    monkeypatch.setattr(gradients, "gradient", counting)
    return taken


@pytest.mark.parametrize("method", METHODS)
def test_no_more_than_batch_size_are_in_a_pass(method, passes):
    options = {smoothgrad: {"samples": 10}, integrated_gradients: {"steps": 10}}.get(method, {})
    method(the_linear_model()[0], np.repeat(IMAGES, 5, axis=0)[:10], 0, batch_size=4, **options)
    images = 10 if options else 1  # whose points are taken in one after another
    assert sorted(passes) == sorted([4, 4, 2] * images)


@pytest.mark.parametrize("method", [smoothgrad, integrated_gradients])
def test_images_of_few_points_share_a_pass(method, passes):
    points = {smoothgrad: "samples", integrated_gradients: "steps"}[method]
    model = a_deep_model(seed=1)
    images = np.random.default_rng(9).normal(size=(7, 9, 7, 2))
    targets = np.arange(7) % 3
    shared = method(model, images, targets, batch_size=10, **{points: 3})
    assert passes == [9, 9, 3]
    alone = [method(model, images[[n]], targets[n], **{points: 3})[0] for n in range(7)]
    np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was():
    model = a_deep_model()
    images = np.random.default_rng(10).normal(size=(2, 9, 7, 2)).astype(np.float32)
    weights, outputs = model.get_weights(), model(images).numpy()
    config = model.get_config()
    for method in METHODS:
        method(model, images, 0)
    assert all(map(np.array_equal, model.get_weights(), weights))
    np.testing.assert_allclose(model(images).numpy(), outputs, atol=1e-6)
    assert model.get_config() == config


def test_new_weights_are_used_and_dropped_models_are_forgotten():
    model = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3), layers.Flatten()])
    model.add(layers.Dense(2))
    before = [method(model, IMAGES, 0) for method in METHODS]
    model.layers[0].kernel.assign(2 * model.layers[0].kernel)
    for method, once in zip(METHODS, before, strict=True):
        np.testing.assert_allclose(method(model, IMAGES, 0), 2 * once, atol=1e-6)
    model.add(layers.Rescaling(3.0))
    for method, once in zip(METHODS, before, strict=True):
        np.testing.assert_allclose(method(model, IMAGES, 0), 6 * once, atol=1e-5)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_progress_counts_the_gradients(capsys):
    model, _ = the_linear_model()
    smoothgrad(model, IMAGES, 0, samples=5, batch_size=2, progress=True)
    assert "20/20" in capsys.readouterr().err
    integrated_gradients(model, IMAGES, 0, steps=6, batch_size=4, progress=True)
    assert "24/24" in capsys.readouterr().err
    smoothgrad(model, IMAGES, 0, samples=2)
    integrated_gradients(model, IMAGES, 0, steps=2)
    assert capsys.readouterr().err == ""


# What does not fit


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES[0]}, r"image\[np.newaxis\]"),
        ({"images": IMAGES[..., :1]}, r"takes images of shape \(5, 6, 3\)"),
        ({"images": IMAGES[:0]}, "empty batch"),
        ({"images": np.full_like(IMAGES, np.nan)}, "NaN or infinity"),
        ({"images": IMAGES.astype(str)}, "must be numbers"),
        ({"targets": 3}, "target 3 does not exist: the model has classes 0 to 2"),
        ({"targets": -1}, "target -1 does not exist"),
        ({"targets": [0, 1, 1]}, r"got shape \(3,\)"),
        ({"targets": 0.5}, "whole numbers"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"score": "loss"}, '"logit" or "probability", got \'loss\''),
    ],
)
def test_what_does_not_fit_is_refused(method, changes, message):
    arguments = {"images": IMAGES, "targets": 0, **changes}
    with pytest.raises(ValueError, match=message):
        method(the_linear_model()[0], **arguments)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (smoothgrad, {"samples": 0}, "samples must be a whole number from 1 upwards, got 0"),
        (smoothgrad, {"samples": 2.0}, "samples must be a whole number"),
        (smoothgrad, {"noise": -0.1}, "noise must be zero or a positive number, got -0.1"),
        (smoothgrad, {"noise": np.nan}, "noise must be zero or a positive number, got nan"),
        (smoothgrad, {"noise": np.inf}, "noise must be zero or a positive number"),
        (smoothgrad, {"noise": "some"}, "noise must be zero or a positive number, got 'some'"),
        (smoothgrad, {"noise": [0.1, 0.2]}, "noise must be zero or a positive number"),
        (smoothgrad, {"seed": -1}, "seed must be a whole number from 0 upwards, got -1"),
        (smoothgrad, {"seed": None}, "seed must be a whole number from 0 upwards, got None"),
        (integrated_gradients, {"steps": 0}, "steps must be a whole number from 1 upwards"),
        (integrated_gradients, {"baseline": [0, 1]}, "baseline must be a number, a colour of 3"),
        (integrated_gradients, {"baseline": np.zeros((6, 5, 3))}, r"got shape \(6, 5, 3\)"),
        (integrated_gradients, {"baseline": IMAGES}, r"image of shape \(5, 6, 3\)"),
        (integrated_gradients, {"baseline": np.nan}, "baseline must be finite"),
    ],
)
def test_options_that_do_not_fit_are_refused(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(the_linear_model()[0], IMAGES, 0, **options)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(2)

    def call(self, images):
        return self.dense(self.flatten(images))


def several_outputs():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, [layers.Dense(2)(layers.Flatten()(inputs)) for _ in range(2)])


def several_inputs():
    one, two = keras.Input(SHAPE), keras.Input(SHAPE)
    return keras.Model([one, two], layers.Dense(2)(layers.Flatten()(one + two)))


def scores_of_pixels():
    return keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3)])


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([layers.Flatten(), layers.Dense(2)]), "Input layer"),
        (Subclassed, "Functional API"),
        (lambda: None, "keras.Model"),
        (several_inputs, "one input"),
        (several_outputs, r"has 2 outputs|one output"),
        (scores_of_pixels, r"scores of shape \(N, K\)"),
    ],
)
def test_models_that_do_not_fit_are_refused(method, make, message, score):
    with pytest.raises(ValueError, match=message):
        method(make(), IMAGES, 0, score=score)
