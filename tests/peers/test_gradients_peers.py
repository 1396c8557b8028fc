"""The gradient methods and Grad-CAM against tf-keras-vis and PAIR's saliency.

Both libraries differentiate the output they are given, so that they are given the logits; the
networks are of the makes that users have: Sequential, Functional, nested, with BatchNormalization,
with one sigmoid output.

Grad-CAM is compared at the resolution of the feature maps, where its definition ends. How the
maps are then stretched to the image is not part of it, and differs: tf-keras-vis uses scipy's
zoom, which puts the centres of the corner cells on the centres of the corner pixels, so that the
map is drawn out beyond the places that its cells saw; ours takes a cell for the square of pixels
that it covers (halves of pixels, bilinear), which is where they lie under "same" padding. Equality
of the stretched maps would be a fault, and is not wanted; a test holds how far they part.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from course_utils import cam, datasets, models
from course_utils._scores import score_model
from course_utils.gradients import integrated_gradients, saliency_map, smoothgrad

SHAPE = (14, 11, 3)


def varied(model):
    """Biases and the four of BatchNormalization that are not 0 or 1."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.2, 1.0, weight.shape))
    return model


def sequential():
    parts = [
        layers.Conv2D(6, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(4, activation="softmax"),
    ]
    return keras.Sequential([keras.Input(SHAPE), *parts])


def functional():
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.Add()([x, layers.Conv2D(6, 3, padding="same", activation="relu")(x)])
    x = layers.Conv2D(5, 3, strides=2, activation="relu")(x)
    x = layers.Dense(7, activation="tanh")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Softmax()(layers.Dense(4)(x)))


def batch_normalised():
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.Dense(9, activation="tanh")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(x))


def nested():
    """Transfer learning: a base, whose layers lie deeper, and a head."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    base = keras.Model(inputs, layers.Conv2D(7, 3, activation="relu")(x), name="base")
    inputs = keras.Input(SHAPE)
    x = layers.GlobalMaxPooling2D()(base(inputs, training=False))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(x))


def sigmoid():
    parts = [
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(6, activation="tanh"),
        layers.Dense(1, activation="sigmoid"),
    ]
    return keras.Sequential([keras.Input(SHAPE), *parts])


MAKES = {f.__name__: f for f in (sequential, functional, batch_normalised, nested, sigmoid)}


@functools.cache
def network(name):
    """A network, three images, and a class to explain for each."""
    if name == "digits":
        images = datasets.load_digits()[1][0][:3]
        return models.load_trained(name), images, np.array([7, 2, 5])
    keras.utils.set_random_seed(4)
    model = varied(MAKES[name]())
    images = np.random.default_rng(1).uniform(size=(3, *SHAPE)).astype(np.float32)
    targets = [1, 1, 1] if model.output_shape[-1] == 1 else [2, 0, 3]
    return model, images, np.array(targets)


NETWORKS = pytest.mark.parametrize("name", [*MAKES, "digits"])


def columns(model, targets):
    """The column of the output in which each target's score stands."""
    return list(targets) if model.output_shape[-1] > 1 else [0] * len(targets)


def of_keras_vis(model, targets):
    scores = pytest.importorskip("tf_keras_vis.utils.scores")
    return scores.CategoricalScore(columns(model, targets))


# tf-keras-vis


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # it hands over a list
@NETWORKS
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_saliency_is_that_of_tf_keras_vis(name, score):
    library = pytest.importorskip("tf_keras_vis.saliency")
    model, images, targets = network(name)
    peer = library.Saliency(score_model(model, score))
    theirs = peer(of_keras_vis(model, targets), images, normalize_map=False)
    assert theirs.any(axis=(1, 2)).all()
    ours = saliency_map(model, images, targets, score=score)
    largest = theirs.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(ours / largest, theirs / largest, rtol=0, atol=1e-5)


def coarse(monkeypatch, *arguments, **options):
    """Our Grad-CAM before it is stretched, each map's largest value at 1."""
    kept, resize = [], cam.cv2.resize
    with monkeypatch.context() as patch:
        patch.setattr(cam.cv2, "resize", lambda m, size: kept.append(m) or resize(m, size))
        cam.grad_cam(*arguments, **options)
    maps = np.array(kept)
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


def theirs_of_grad_cam(model, images, targets, layer, **options):
    library = pytest.importorskip("tf_keras_vis.gradcam")
    peer = library.Gradcam(score_model(model, "logit"))
    score = of_keras_vis(model, targets)
    options |= {"normalize_cam": False, "seek_penultimate_conv_layer": False}
    maps = np.asarray(peer(score, images, penultimate_layer=layer, **options))
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


@pytest.mark.parametrize("name", [*(n for n in MAKES if n != "nested"), "digits"])
def test_grad_cam_is_that_of_tf_keras_vis_at_the_size_of_the_maps(name, monkeypatch):
    model, images, targets = network(name)
    layer = cam._find_maps(model, None)
    theirs = theirs_of_grad_cam(model, images, targets, layer, expand_cam=False)
    assert theirs.any()
    ours = coarse(monkeypatch, model, images, targets)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_grad_cam_of_a_nested_layer_is_that_of_the_network_laid_flat(monkeypatch):
    """tf-keras-vis finds the layer and cannot use it, so it gets the same layers without nesting.

    keras-io #1903, tensorflow #44462: the layer's own output belongs to another graph.
    """
    model, images, targets = network("nested")
    base = model.get_layer("base")
    with pytest.raises((ValueError, KeyError)):
        theirs_of_grad_cam(model, images, targets, base.layers[-1], expand_cam=False)
    x = base.output
    for layer in model.layers[2:]:
        x = layer(x)
    flat = keras.Model(base.input, x)
    theirs = theirs_of_grad_cam(flat, images, targets, base.layers[-1], expand_cam=False)
    assert theirs.any()
    ours = coarse(monkeypatch, model, images, targets)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_the_stretched_maps_of_tf_keras_vis_reach_from_corner_to_corner():
    """A map of 2 cells on 8 pixels: the corner pixels are theirs, ours fill their squares."""
    parts = [layers.AveragePooling2D(4), layers.Conv2D(1, 1, kernel_initializer="ones")]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2, kernel_initializer="ones")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts, *head])
    image = np.kron([[0, 1], [0, 1]], np.ones((4, 4)))[np.newaxis, ..., np.newaxis]
    image = image.astype(np.float32)
    theirs = theirs_of_grad_cam(model, image, [0], model.layers[1])[0, 0]
    ours = cam.grad_cam(model, image, 0)[0, 0]
    np.testing.assert_allclose(theirs, np.arange(8) / 7, atol=1e-5)
    squares = [0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1]
    np.testing.assert_allclose(ours, squares, atol=1e-5)


# PAIR saliency


def called_by_pair(model, target):
    """What PAIR's library asks for: a function from images to the gradients of one score."""
    core = pytest.importorskip("saliency.core")
    logits, column = score_model(model, "logit"), columns(model, [target])[0]

    def call(images, call_model_args=None, expected_keys=None):
        images = tf.constant(images, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(images)
            score = logits(images, training=False)[:, column]
        return {core.INPUT_OUTPUT_GRADIENTS: tape.gradient(score, images).numpy()}

    return call


class OurNodes:
    """numpy, but for the nodes that PAIR spaces from end to end, with equal weight for both.

    They are float32, as ours, or the points would differ in their last digit. That decides which
    of several equal pixels a max-pooling passes the gradient to, where an image is constant.
    """

    @staticmethod
    def linspace(start, stop, count):
        return ((np.arange(count) + 0.5) / count).astype(np.float32)

    def __getattr__(self, name):
        return getattr(np, name)


@NETWORKS
@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_integrated_gradients_are_pair_s_at_the_same_nodes(name, baseline, monkeypatch):
    library = pytest.importorskip("saliency.core.integrated_gradients")
    monkeypatch.setattr(library, "np", OurNodes())
    model, images, targets = network(name)
    # In batches of the same size: what oneDNN adds up may hang on that, in the last digit.
    ours = integrated_gradients(model, images, targets, baseline=baseline, steps=20, batch_size=20)
    for image, target, heatmap in zip(images, targets, ours, strict=True):
        theirs = library.IntegratedGradients().GetMask(
            image,
            called_by_pair(model, target),
            x_baseline=np.full_like(image, baseline),
            x_steps=20,
            batch_size=20,
        )
        theirs = theirs.sum(axis=-1)
        scale = np.abs(theirs).max()
        assert scale > 1e-6
        np.testing.assert_allclose(heatmap / scale, theirs / scale, rtol=0, atol=1e-4)


@NETWORKS
def test_smoothgrad_is_pair_s_under_the_same_noise(name, monkeypatch):
    base = pytest.importorskip("saliency.core.base")
    gradients = pytest.importorskip("saliency.core.gradients")
    model, images, targets = network(name)
    ours = smoothgrad(model, images, targets, samples=8, noise=0.3, seed=5)
    for image, target, heatmap in zip(images, targets, ours, strict=True):
        rng = np.random.default_rng(5)

        def normal(mean, spread, shape, rng=rng):
            return mean + spread * rng.standard_normal(shape, np.float32)

        monkeypatch.setattr(base.np.random, "normal", normal)
        theirs = gradients.GradientSaliency().GetSmoothedMask(
            image,
            called_by_pair(model, target),
            stdev_spread=0.3,
            nsamples=8,
            magnitude=False,
        )
        theirs = np.abs(theirs).max(axis=-1)
        scale = theirs.max()
        assert scale > 1e-6
        np.testing.assert_allclose(heatmap / scale, theirs / scale, rtol=0, atol=1e-4)
