"""cam: the relatives of Grad-CAM are the formulas of their papers, by slow loops."""

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from course_utils import cam
from course_utils.cam import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, score_cam

SHAPE = (12, 10, 3)
IMAGES = np.random.default_rng(0).uniform(size=(3, *SHAPE)).astype(np.float32)
FAMILY = (grad_cam, hires_cam, grad_cam_plus_plus, layer_cam, score_cam)


def network(activation="softmax", head=4):
    """A network whose score is not linear in its feature maps."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="early"),
            layers.MaxPooling2D(2, padding="same"),
            layers.Conv2D(5, 3, padding="same", activation="relu", name="late"),
            layers.Flatten(),
            layers.Dense(8, activation="tanh"),
            layers.Dense(head, activation=activation, name="head"),
        ]
    )


def parts(model, layer, target, images=IMAGES, activation=tf.identity):
    """A layer's maps and the gradient of the target's score by them, float64 (N, h, w, K)."""
    head = model.layers[-1]
    front = keras.Model(model.inputs[0], model.get_layer(layer).output)
    maps = tf.constant(front(images))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        x = maps
        for later in model.layers[model.layers.index(model.get_layer(layer)) + 1 : -1]:
            x = later(x)
        score = activation(x @ head.kernel + head.bias)[:, target]
    return maps.numpy().astype(float), tape.gradient(score, maps).numpy().astype(float)


def finished(coarse):
    """ReLU, stretched to the image and divided by the maximum."""
    stretched = cv2.resize(np.maximum(coarse, 0), SHAPE[1::-1])
    return stretched / stretched.max() if stretched.max() > 0 else stretched


def plus_plus(maps, gradients):
    """Grad-CAM++ with the derivatives of the score's exponential, equations 10 and 19."""
    height, width, channels = maps.shape
    summed = np.zeros((height, width))
    for k in range(channels):
        weight, whole = 0, maps[..., k].sum()
        for i in range(height):
            for j in range(width):
                g = gradients[i, j, k]
                below = 2 * g**2 + whole * g**3
                weight += (g**2 / below if below else 0) * max(g, 0)
        summed += weight * maps[..., k]
    return summed


def in_place(maps, gradients):
    places = np.ndindex(maps.shape[:2])
    return np.array([maps[place] @ gradients[place] for place in places]).reshape(maps.shape[:2])


def positive(maps, gradients):
    return in_place(maps, np.maximum(gradients, 0))


@pytest.mark.parametrize("layer", ["early", "late"])
@pytest.mark.parametrize(
    ("explain", "formula"),
    [(hires_cam, in_place), (grad_cam_plus_plus, plus_plus), (layer_cam, positive)],
)
def test_it_is_the_formula_of_its_paper(explain, formula, layer):
    model = network()
    found = explain(model, IMAGES, 2, layer=layer)
    pairs = zip(*parts(model, layer, 2), strict=True)
    expected = np.array([finished(formula(*pair).astype(np.float32)) for pair in pairs])
    assert expected.max() == 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_plus_plus_of_a_class_that_is_next_to_impossible():
    model = network()
    model.layers[-1].bias.assign([60.0, 0.0, 0.0, 0.0])
    assert 0 < model.predict(IMAGES, verbose=0)[:, 2].max() < 1e-22
    found = grad_cam_plus_plus(model, IMAGES, 2, layer="late", score="probability")
    pairs = zip(*parts(model, "late", 2, activation=tf.nn.softmax), strict=True)
    expected = np.array([finished(1e25 * plus_plus(*pair)) for pair in pairs])
    assert expected.max() == 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("fill", "score"), [(0.0, "logit"), (0.4, "logit"), (0.0, "probability")])
def test_score_cam_is_a_loop_over_masks(fill, score):
    model = network()
    outputs = keras.Model(model.inputs[0], model.layers[-2].output)
    head = model.layers[-1]

    def score_of(picture):
        if score == "probability":
            return float(model(picture[np.newaxis])[0, 1])
        return float((outputs(picture[np.newaxis]) @ head.kernel + head.bias)[0, 1])

    found = score_cam(model, IMAGES, 1, fill=fill, score=score, batch_size=3)
    maps, _ = parts(model, "late", 1)
    for image, features, heatmap in zip(IMAGES, maps.astype(np.float32), found, strict=True):
        scores = []
        for k in range(features.shape[-1]):
            mask = cv2.resize(features[..., k], SHAPE[1::-1])
            if np.ptp(mask) == 0:
                scores.append(-np.inf)
                continue
            mask = ((mask - mask.min()) / (mask.max() - mask.min()))[..., np.newaxis]
            scores.append(score_of(mask * image + (1 - mask) * fill))
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(heatmap, finished(features @ weights), atol=1e-5)


def test_score_cam_leaves_out_maps_that_are_no_masks():
    model = network()
    kernel, bias = model.get_layer("late").get_weights()
    kernel[..., 2], bias[2] = 0, 50  # the same everywhere, and large
    model.get_layer("late").set_weights([kernel, bias])
    found = score_cam(model, IMAGES[:1], 0)
    assert found.max() == 1
    assert np.ptp(found) > 0.5
    model.get_layer("late").set_weights([0 * kernel, bias])
    assert not score_cam(model, IMAGES[:1], 0).any()


def test_where_the_rest_is_linear_hires_cam_adds_up_and_where_it_averages_it_is_grad_cam():
    keras.utils.set_random_seed(0)
    conv, dense = layers.Conv2D(4, 3, activation="relu"), layers.Dense(3)
    flat = keras.Sequential([keras.Input(SHAPE), conv, layers.Flatten(), dense])
    maps, gradients = parts(flat, conv.name, 1)
    terms = (maps * gradients).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(terms, flat.predict(IMAGES, verbose=0)[:, 1], rtol=1e-4)
    mean = keras.Sequential(
        [keras.Input(SHAPE), conv, layers.GlobalAveragePooling2D(), layers.Dense(3)]
    )
    np.testing.assert_allclose(hires_cam(mean, IMAGES, 1), grad_cam(mean, IMAGES, 1), atol=1e-5)


@pytest.mark.parametrize("explain", FAMILY)
def test_what_all_of_them_have(explain):
    model = network("sigmoid", 1)
    found = explain(model, IMAGES, [0, 1, 1])
    assert found.shape == (3, *SHAPE[:2])
    assert found.dtype == np.float32
    assert (found >= 0).all()
    alone = explain(model, IMAGES[1:2], 1)
    np.testing.assert_allclose(found[1], alone[0], atol=1e-5)
    batches = explain(model, IMAGES, [0, 1, 1], batch_size=2)
    np.testing.assert_allclose(batches, found, atol=1e-5)
    other = explain(model, IMAGES, [0, 1, 1], layer="early")
    assert np.abs(other - found).max() > 0.01
    with pytest.raises(ValueError, match="no layer 'none'"):
        explain(model, IMAGES, 1, layer="none")
    with pytest.raises(ValueError, match="puts out no feature maps"):
        explain(model, IMAGES, 1, layer="head")
    with pytest.raises(ValueError, match="batch_size"):
        explain(model, IMAGES, 1, batch_size=0)


def test_what_they_share_is_compiled_for_each_and_stands_once(monkeypatch):
    """Without the shared frame none of them runs; the sums over maps are all that differs."""

    def fail(*arguments):
        raise RuntimeError("the frame")

    monkeypatch.setattr(cam, "_stretched", fail)
    for explain in FAMILY:
        with pytest.raises(RuntimeError, match="the frame"):
            explain(network(), IMAGES[:1], 0)
