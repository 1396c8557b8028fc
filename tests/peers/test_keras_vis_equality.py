"""What keras_vis brings back is what keras-vis computes, and that is what its papers say."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from course_utils import keras_vis
from course_utils.datasets import load_digits
from course_utils.gradients import saliency_map
from course_utils.models import load_trained, logit_model

pytest.importorskip("vis", reason="keras-vis is not installed")
pytest.importorskip("tf_keras", reason="tf_keras is not installed")


@functools.cache
def digits():
    """The network, eight test digits and a class to explain for each: right ones and others."""
    _, (images, labels) = load_digits()
    targets = labels[:8].copy()
    targets[4:] = (targets[4:] + 3) % 10
    return load_trained("digits"), images[:8], targets


def every_layer(outputs):
    """A network of all the kinds of layers that can be rebuilt, with weights that matter."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((18, 20, 3)),
            layers.Conv2D(8, (3, 5), strides=(2, 1), padding="same", activation="tanh"),
            layers.BatchNormalization(epsilon=0.01),
            layers.ReLU(max_value=6, negative_slope=0.1, threshold=0.2),
            layers.Conv2D(8, 3, dilation_rate=2, use_bias=False, activation="elu"),
            layers.AveragePooling2D((2, 3), strides=1, padding="same"),
            layers.Activation("softplus"),
            layers.Dropout(0.5),
            layers.MaxPooling2D(2),
            layers.Conv2D(12, 2, activation="relu"),
            layers.GlobalMaxPooling2D() if outputs == 1 else layers.GlobalAveragePooling2D(),
            layers.Dense(9, activation="sigmoid"),
            layers.Dense(outputs, activation="sigmoid" if outputs == 1 else None),
            *([] if outputs == 1 else [layers.Activation("softmax")]),
        ]
    )
    rng = np.random.default_rng(0)
    for weight in model.weights:  # biases and the four of BatchNormalization are 0 or 1 as yet
        drawn = rng.uniform(0.1, 0.9, weight.shape)
        weight.assign(drawn if len(weight.shape) == 1 else 3 * weight)
    return model


def drawn_out(maps):
    """Each map's smallest value at 0 and its largest at 1, as keras-vis does it."""
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (maps - low) / (high - low + 1e-7)


@pytest.mark.slow
def test_saliency_is_ours_drawn_out_to_0_to_1():
    model, images, targets = digits()
    theirs = keras_vis.saliency_map(model, images, targets)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, drawn_out(saliency_map(model, images, targets)), atol=1e-5)


@pytest.mark.parametrize("outputs", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_every_kind_of_layer_is_rebuilt_as_it_was(outputs):
    model = every_layer(outputs)
    images = np.random.default_rng(1).uniform(0, 1, (3, 18, 20, 3)).astype(np.float32)
    targets = [1, 1, 1] if outputs == 1 else [0, 2, 3]
    theirs = keras_vis.saliency_map(model, images, targets)
    ours = saliency_map(model, images, targets)
    assert (ours.max(axis=(1, 2)) > 1e-3).all()
    np.testing.assert_allclose(theirs, drawn_out(ours), atol=1e-4)


@tf.custom_gradient
def guided_relu(x):
    y = tf.nn.relu(x)
    return y, lambda upstream: upstream * tf.cast((upstream > 0) & (y > 0), tf.float32)


def test_the_guided_gradient_passes_what_is_positive_where_the_output_is():
    model, images, _ = digits()
    targets = model.predict(images, verbose=0).argmax(axis=1)
    theirs = keras_vis.saliency_map(model, images, targets, backprop_modifier="guided")
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = x
        for layer in model.layers:
            if "activation" in layer.get_config():
                activation, layer.activation = layer.activation, keras.activations.linear
                value = layer(value)
                layer.activation = activation
                value = guided_relu(value) if activation is keras.activations.relu else value
            else:
                value = layer(value, training=False) if "dropout" in layer.name else layer(value)
        scores = tf.gather(value, targets, axis=1, batch_dims=1)
    ours = np.abs(tape.gradient(scores, x)).max(axis=-1)
    assert np.abs(drawn_out(ours) - drawn_out(saliency_map(model, images, targets))).max() > 0.1
    np.testing.assert_allclose(theirs, drawn_out(ours), atol=1e-4)


def weighted_maps(model, images, targets, layer):
    """Grad-CAM from its definition, on the layer's own grid."""
    logits = logit_model(model)
    both = keras.Model(logits.inputs, [model.get_layer(layer).output, logits.outputs[0]])
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        maps, outputs = both(x, training=False)
        scores = tf.gather(outputs, targets, axis=1, batch_dims=1)
    gradients = tape.gradient(scores, maps).numpy()
    gradients /= gradients.max(axis=(1, 2, 3), keepdims=True)  # keras-vis's step against underflow
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    return np.maximum((weights * maps.numpy()).sum(axis=-1), 0)


@pytest.mark.parametrize("layer", [None, pytest.param("conv2d_1", marks=pytest.mark.slow)])
def test_cam_is_grad_cam_enlarged_with_a_bicubic_filter(layer):
    model, images, targets = digits()
    theirs = keras_vis.grad_cam(model, images, targets, layer=layer)
    ours = weighted_maps(model, images, targets, layer or "max_pooling2d_1")
    large = [Image.fromarray(m).resize((28, 28), Image.Resampling.BICUBIC) for m in ours]
    np.testing.assert_allclose(theirs, drawn_out(np.stack(large)), atol=1e-4)


@pytest.mark.slow
def test_what_it_finds_for_a_digit_is_that_digit_to_the_network_and_the_same_every_time():
    model, _, _ = digits()
    found = keras_vis.maximize_activation(model, [1, 7, 7], steps=100)
    assert found.shape == (3, 28, 28, 1)
    assert found.min() >= 0
    assert found.max() <= 1
    assert model.predict(found, verbose=0).argmax(axis=1).tolist() == [1, 7, 7]
    np.testing.assert_allclose(found[1], found[2], atol=1e-3)


def test_for_a_linear_filter_it_is_bright_where_the_weights_are_positive():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(3, 6, name="whole"), layers.Flatten()]
    )
    weights = model.get_layer("whole").kernel.numpy()[:, :, 0]
    found = keras_vis.maximize_activation(
        model, [0, 2], layer="whole", lp_norm_weight=0, tv_weight=0, input_range=(-3, 5)
    )
    for image, filter_ in zip(found[..., 0], [0, 2], strict=True):
        np.testing.assert_array_equal(image > 1, weights[:, :, filter_] > 0)
        assert image.std() == pytest.approx(0.8, rel=0.01)  # a tenth of the range
