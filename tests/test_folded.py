"""A network runs the same with its batch normalisations taken into its convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from course_utils._folded import infer
from course_utils._inside import outputs_of, slopes_of
from course_utils._partial import partial_pass
from course_utils._scores import forward, gradient, predict
from course_utils.occlusion import occlusion_map

IMAGES = np.random.default_rng(0).random((3, 9, 8, 4), np.float32)


def randomised(model):
    """The model with weights that are no zeros or ones."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.uniform(0.3, 1.7, weight.shape) * rng.choice([-1, 1], weight.shape))
        if "variance" in weight.path:
            weight.assign(np.abs(weight))
    return model


def chain(*stack):
    """A model of these layers, which ends in two numbers."""
    stack = [keras.Input(IMAGES.shape[1:]), *stack, layers.GlobalAveragePooling2D()]
    return randomised(keras.Sequential([*stack, layers.Dense(2)]))


def calls(monkeypatch):
    """The list of the normalisations that are called from now on."""
    called, call = [], layers.BatchNormalization.call

    def listen(self, *arguments, **keywords):
        called.append(self.name)
        return call(self, *arguments, **keywords)

    monkeypatch.setattr(layers.BatchNormalization, "call", listen)
    return called


def check(model, monkeypatch, left=()):
    """The model runs as ever, and of the normalisations those that are `left` are called."""
    expected = model(IMAGES, training=False)
    called = calls(monkeypatch)
    found = forward(model)(IMAGES)
    assert called == [*left]
    for ours, own in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(ours, own, rtol=1e-4, atol=1e-4 * np.abs(own).max())


@pytest.mark.parametrize(
    "convolution",
    [
        layers.Conv2D(6, 3),
        layers.Conv2D(6, (3, 2), use_bias=False, padding="same", dilation_rate=2),
        layers.Conv2D(6, 2, strides=2, groups=2),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
        layers.DepthwiseConv2D(3, use_bias=False, padding="same", strides=2),
    ],
)
@pytest.mark.parametrize("without", [{}, {"scale": False}, {"center": False}])
def test_a_normalisation_goes_into_the_convolution_before_it(convolution, without, monkeypatch):
    convolution = type(convolution).from_config(convolution.get_config())
    stack = [convolution, layers.BatchNormalization(**without), layers.ReLU()]
    check(chain(*stack, layers.Conv2D(3, 2), layers.BatchNormalization(3)), monkeypatch)


def test_in_nested_models_too(monkeypatch):
    inner = keras.Sequential(
        [keras.Input((9, 8, 4)), layers.Conv2D(5, 3), layers.BatchNormalization()]
    )
    middle = keras.Sequential([keras.Input((9, 8, 4)), inner, layers.ReLU()])
    check(chain(middle, layers.Conv2D(3, 2), layers.BatchNormalization()), monkeypatch)


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Conv2D(6, 3, activation="relu")],
        [layers.Conv2D(6, 3), layers.ReLU()],
        [layers.Conv2D(6, 3, dtype="float64")],
        [layers.SeparableConv2D(6, 3)],
        [type("Own", (layers.Conv2D,), {})(6, 3)],
        [],
    ],
)
def test_not_where_something_is_in_between(stack, monkeypatch):
    stack = [type(layer).from_config(layer.get_config()) for layer in stack]
    check(chain(*stack, layers.BatchNormalization(name="n")), monkeypatch, left=["n"])


def test_not_along_another_axis(monkeypatch):
    norm = layers.BatchNormalization(axis=1, name="n")
    check(chain(layers.Conv2D(6, 3), norm), monkeypatch, left=["n"])


def test_not_where_somebody_else_reads_the_convolution(monkeypatch):
    x = keras.Input(IMAGES.shape[1:])
    convolved = layers.Conv2D(4, 3)(x)
    normal = layers.BatchNormalization(name="n")(convolved)
    added = randomised(keras.Model(x, layers.Add()([convolved, normal])))
    check(added, monkeypatch, left=["n"])
    put_out = keras.Model(x, [convolved, normal])
    expected = put_out(IMAGES)
    for ours, own in zip(infer(put_out, IMAGES), expected, strict=True):
        np.testing.assert_array_equal(ours, own)


def test_shared_layers_are_taken_in_at_each_call(monkeypatch):
    x = keras.Input(IMAGES.shape[1:])
    convolution, norm = layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()
    y = norm(convolution(layers.ReLU()(norm(convolution(x)))))
    check(randomised(keras.Model(x, y)), monkeypatch)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_maps_of_another_precision_are_cast_as_a_layer_casts_them(dtype, monkeypatch):
    x = keras.Input(IMAGES.shape[1:])
    y = layers.Conv2D(4, 3, dtype=dtype)(x)
    y = layers.BatchNormalization()(layers.Conv2D(3, 2)(y))
    model = randomised(keras.Model(x, y))
    np.testing.assert_allclose(forward(model)(IMAGES), model(IMAGES), rtol=1e-2, atol=1e-2)
    x = keras.Input(IMAGES.shape[1:], dtype=dtype)
    y = layers.BatchNormalization()(layers.Conv2D(4, 3)(x))
    model = randomised(keras.Model(x, y))
    expected = model(IMAGES)
    assert calls(monkeypatch) == []
    np.testing.assert_allclose(forward(model)(IMAGES), expected, rtol=1e-2, atol=1e-2)


def test_nothing_trains_not_even_within_a_layer(monkeypatch):
    class Noisy(layers.Layer):
        def __init__(self):
            super().__init__()
            self.flip = layers.RandomFlip()  # which would flip if nobody said that it must not
            self.noise = layers.GaussianNoise(1.0)

        def call(self, x):
            return self.noise(self.flip(x))

    check(chain(Noisy(), layers.Conv2D(6, 3), layers.BatchNormalization()), monkeypatch)


def test_a_call_of_the_models_own_is_called():
    x = keras.Input(IMAGES.shape[1:])
    y = layers.BatchNormalization()(layers.Conv2D(4, 3)(x))
    model = randomised(keras.Model(x, y))
    once, call = forward(model)(IMAGES).numpy(), model.call
    model.call = lambda *given, **options: 2 * call(*given, **options)
    np.testing.assert_allclose(forward(model)(IMAGES), 2 * once, rtol=1e-4, atol=1e-4)


def test_what_a_layer_is_told_later_counts():
    x = keras.Input(IMAGES.shape[1:])
    convolution, norm = layers.Conv2D(4, 3), layers.BatchNormalization()
    model = randomised(keras.Model(x, norm(convolution(x))))
    for layer, name, value in (
        (norm, "center", False),
        (norm, "scale", False),
        (convolution, "use_bias", False),
        (convolution, "activation", keras.activations.relu),
    ):
        before = forward(model)(IMAGES).numpy()
        setattr(layer, name, value)
        after = forward(model)(IMAGES).numpy()
        assert np.abs(after - before).max() > 1e-2, name
        np.testing.assert_allclose(after, model(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("convolution", [layers.Conv2D, layers.DepthwiseConv2D])
def test_gradients_and_theirs_are_those_of_the_layers(convolution):
    first = convolution(*(5, 3) if convolution is layers.Conv2D else (3,))
    curved = [layers.BatchNormalization(), layers.Activation("tanh")]
    model = chain(first, *curved)
    model.layers[1].moving_variance.assign(100 + model.layers[1].moving_variance)  # or tanh is flat
    targets = tf.constant([0, 1, 1], tf.int64)

    def twice(run):
        """The gradient of the scores, and of its size."""
        points = tf.constant(IMAGES)
        with tf.GradientTape() as outer:
            outer.watch(points)
            with tf.GradientTape() as tape:
                tape.watch(points)
                scores = tf.gather(run(points), targets, batch_dims=1)
            slopes = tape.gradient(scores, points)
            size = tf.reduce_sum(slopes**2)
        return slopes, outer.gradient(size, points)

    expected = twice(lambda points: model(points, training=False))
    assert all(np.abs(slopes).max() > 0 for slopes in expected)
    folded = tf.function(twice)(lambda points: infer(model, points))
    for ours, own in zip(
        [gradient(model)(IMAGES, targets), *folded], [expected[0], *expected], strict=True
    ):
        np.testing.assert_allclose(ours, own, rtol=1e-3, atol=1e-4 * np.abs(own).max())


def test_dropout_rests_and_new_weights_count_at_once():
    model = chain(layers.Conv2D(6, 3), layers.BatchNormalization(), layers.Dropout(0.5))
    before = predict(model, IMAGES, 2)
    np.testing.assert_allclose(before, model(IMAGES, training=False), rtol=1e-4, atol=1e-5)
    norm = model.layers[1]
    for weight in (norm.gamma, norm.moving_mean, norm.moving_variance, model.layers[0].kernel):
        weight.assign(1.5 * weight)
        after, own = predict(model, IMAGES, 2), np.asarray(model(IMAGES, training=False))
        assert np.abs(after - before).max() > 1e-2
        np.testing.assert_allclose(after, own, rtol=1e-4, atol=1e-4)
        before = after


def test_what_is_looked_at_inside_is_there():
    model = chain(layers.Conv2D(6, 3), layers.BatchNormalization(), layers.ReLU())
    for k, layer in enumerate(model.layers[:3], start=1):
        part = keras.Model(model.inputs[0], model.layers[k - 1].output)
        found = outputs_of(model, IMAGES, layer.name, 2)
        np.testing.assert_allclose(found, part(IMAGES), rtol=1e-4, atol=1e-5)
        slopes = slopes_of(model, IMAGES, np.ones(3, int), layer.name, "logit", 2)
        # All maps reach the score through a mean of those above.
        expected = slopes_by_hand(model, k, found)
        np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-6)


def slopes_by_hand(model, k, maps):
    """The gradient of the second score with respect to what layer k, counted from 1, puts out."""
    _, norm, _, _, last = model.layers
    slope = np.broadcast_to(last.kernel.numpy()[:, 1] / np.prod(maps.shape[1:3]), maps.shape)
    stretch = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    shift = norm.beta.numpy() - norm.moving_mean.numpy() * stretch
    if k == 3:
        return slope
    through = maps * stretch + shift if k == 1 else maps
    return slope * (through > 0) * (stretch if k == 1 else 1)


def test_occlusion_folds_within_its_windows(monkeypatch):
    x = keras.Input((24, 24, 4))
    y = layers.Conv2D(6, 3, strides=2, padding="same")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.DepthwiseConv2D(3, padding="same")(y)
    y = layers.Add()([y, layers.BatchNormalization(scale=False)(z)])
    model = randomised(keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y))))
    images = np.random.default_rng(2).random((2, 24, 24, 4), np.float32)
    places = [(r, c) for r in range(0, 24, 4) for c in range(0, 24, 4)]
    covered = np.repeat(images, len(places), axis=0)
    for copy, (r, c) in zip(covered, places * 2, strict=True):
        copy[r : r + 4, c : c + 4] = 0.5
    scores = np.asarray(model(images))[:, 1], np.asarray(model(covered))[:, 1]
    drops = scores[0][:, np.newaxis] - scores[1].reshape(2, -1)
    called = calls(monkeypatch)
    found = occlusion_map(model, images, 1, patch=4, stride=4, fill=0.5)
    assert called == []
    assert partial_pass(model, (24, 24, 4), 4, 4), "it is computed in windows"
    expected = drops.reshape(2, 6, 6)
    np.testing.assert_allclose(found[:, ::4, ::4], expected, atol=1e-4 * np.abs(expected).max())
