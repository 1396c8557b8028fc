"""A network runs the same with its batch normalisations taken into its convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from course_utils._folded import infer
from course_utils._inside import outputs_of
from course_utils._partial import partial_pass
from course_utils._scores import forward, predict
from course_utils.cam import grad_cam
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
        assert np.isfinite(grad_cam(model, IMAGES, 1, layer=layer.name)).all()


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
