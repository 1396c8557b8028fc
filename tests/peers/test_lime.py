"""explain_image against the lime library: the same segments and masks, the same weights."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from course_utils.datasets import load_photo, make_scenes
from course_utils.lime_image import explain_image, superpixels
from course_utils.models import load_trained

lime_image = pytest.importorskip("lime.lime_image", reason="the lime library is not installed")


@functools.cache
def tank_detector():
    return load_trained("scenes_fair")


def coloured_net():
    keras.utils.set_random_seed(0)
    spread = keras.initializers.RandomNormal(stddev=1.0)  # so that the answers vary
    return keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(8, 5, 2, activation="relu"),
            layers.AveragePooling2D(10),
            layers.Flatten(),
            layers.Dense(4, activation="softmax", kernel_initializer=spread),
        ]
    )


def textured():
    """An image that a superpixel's mean colour really hides."""
    return load_photo("coffee", 64).astype(np.float32) / 255


def by_the_library(model, image, segments, samples, seed, **options):
    """The library's rows of zeros and ones, and its weights, intercept and score by class."""
    explainer = lime_image.LimeImageExplainer(random_state=seed, feature_selection="none")
    rows = []

    def predict(images):
        outputs = model(images.astype(np.float32), training=False).numpy()
        return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs

    original = explainer.data_labels

    def keep_rows(*arguments, **keywords):
        data, labels = original(*arguments, **keywords)
        rows.append(data)
        return data, labels

    explainer.data_labels = keep_rows
    found = explainer.explain_instance(
        image,
        predict,
        top_labels=4,
        num_samples=samples,
        batch_size=50,
        segmentation_fn=lambda _: segments,
        **options,
    )
    weights = {k: np.array([w for _, w in sorted(v)]) for k, v in found.local_exp.items()}
    return rows[0], weights, found.intercept, found.score


@pytest.mark.parametrize("method", ["slic", "quickshift"])
@pytest.mark.parametrize("hide_color", [None, 0.0])
def test_the_same_segments_and_masks_give_the_same_weights(method, hide_color):
    model, image = coloured_net(), textured()
    segments = superpixels(image, method, 30)
    rows, weights, intercepts, _ = by_the_library(
        model, image.astype(np.float64), segments, 300, seed=1, hide_color=hide_color
    )
    fill = "mean" if hide_color is None else hide_color
    for target in range(4):
        ours = explain_image(
            model, image, target, segments=segments, perturbations=rows, fill=fill, ridge=1.0
        )
        assert np.abs(weights[target]).max() > 1e-3
        assert ours.weights == pytest.approx(weights[target], abs=1e-6)
        assert ours.intercept == pytest.approx(intercepts[target], abs=1e-6)


def test_the_tank_detectors_explanation_is_the_librarys():
    scenes = make_scenes(8, confounded=True, seed=0)
    image = scenes.images[np.argmax(scenes.labels)]
    segments = superpixels(image, "slic", 40)
    rows, weights, _, _ = by_the_library(
        tank_detector(), image.astype(np.float64), segments, 400, seed=0, hide_color=0.0
    )
    for target in (0, 1):
        ours = explain_image(
            tank_detector(),
            image,
            target,
            segments=segments,
            perturbations=rows,
            fill=0.0,
            ridge=1.0,
        )
        assert ours.weights == pytest.approx(weights[target], abs=1e-6)
    assert np.abs(weights[1]).max() > 0.01


def test_another_kernel_width_is_the_librarys_too():
    model, image = coloured_net(), textured()
    segments = superpixels(image, "slic", 30)
    rows, weights, _, _ = by_the_library(model, image.astype(np.float64), segments, 200, seed=0)
    ours = explain_image(model, image, 0, segments=segments, perturbations=rows, ridge=1.0)
    other = explain_image(
        model, image, 0, segments=segments, perturbations=rows, ridge=1.0, kernel_width=0.6
    )
    assert ours.weights == pytest.approx(weights[0], abs=1e-6)
    assert np.abs(other.weights - weights[0]).max() > 1e-4


def test_r2_is_the_librarys_score():
    model, image = coloured_net(), textured()
    segments = superpixels(image, "slic", 30)
    explained = []
    rows, _, _, score = by_the_library(model, image.astype(np.float64), segments, 200, seed=0)
    for target in range(4):  # the library keeps the score of the class it explained last
        ours = explain_image(model, image, target, segments=segments, perturbations=rows, ridge=1.0)
        explained.append(ours.r2)
    assert min(abs(r2 - score) for r2 in explained) < 1e-4
