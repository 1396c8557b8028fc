"""rise_map: the masks are the paper's, and the map is the slow loop over them."""

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from course_utils.occlusion import _random_masks, rise_map

SIZE = (13, 17)


def network(activation="softmax", head=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((*SIZE, 2)),
            layers.Conv2D(4, 3, activation="relu", kernel_initializer="he_normal"),
            layers.Flatten(),
            layers.Dense(head, activation=activation),
        ]
    )


def images(count=2):
    return np.random.default_rng(0).uniform(size=(count, *SIZE, 2)).astype(np.float32)


def slow_masks(seed, samples, cells, shown):
    """As the paper says: a small binary grid, enlarged to a cell more, cut at a random offset."""
    rng, masks = np.random.default_rng(seed), []
    cell = [int(np.ceil(length / cells)) for length in SIZE]
    for _ in range(samples):
        draw = rng.random(cells * cells + 2, np.float32)
        grid = np.float32(draw[2:] < shown).reshape(cells, cells)
        large = cv2.resize(grid, ((cells + 1) * cell[1], (cells + 1) * cell[0]))
        top, left = int(draw[0] * cell[0]), int(draw[1] * cell[1])
        masks.append(large[top : top + SIZE[0], left : left + SIZE[1]])
    return np.array(masks)


@pytest.mark.parametrize(("score", "fill"), [("probability", 0.0), ("logit", (0.2, 0.7))])
def test_it_is_the_loop_over_masks(score, fill):
    model, x = network(), images()
    found = rise_map(
        model, x, [2, 0], samples=50, cells=4, shown=0.3, score=score, fill=fill, seed=5
    )
    masks = slow_masks(5, 50, 4, 0.3)
    head = model.layers[-1]
    before = keras.Model(model.inputs[0], model.layers[-2].output)
    for image, target, heatmap in zip(x, (2, 0), found, strict=True):
        expected = np.zeros(SIZE)
        for mask in masks:
            picture = mask[..., np.newaxis] * image + (1 - mask[..., np.newaxis]) * np.float32(fill)
            logits = before(picture[np.newaxis].astype(np.float32)) @ head.kernel + head.bias
            scores = keras.ops.softmax(logits) if score == "probability" else logits
            expected += float(scores[0, target]) * mask
        np.testing.assert_allclose(heatmap, expected / 50 / 0.3, atol=1e-5)


def test_the_mean_mask_is_the_probability_to_be_shown():
    masks = _random_masks(np.random.default_rng(0), 4000, SIZE, 4, 0.3)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert abs(masks.mean() - 0.3) < 0.01
    assert np.abs(masks.mean(axis=0) - 0.3).max() < 0.04  # no place is shown more often
    assert ((masks > 0.01) & (masks < 0.99)).mean() > 0.2  # soft borders


def test_a_score_that_does_not_depend_on_the_image_gives_the_mean_mask():
    model = network()
    model.layers[-1].set_weights([np.zeros((660, 3)), np.log(np.array([0.5, 0.3, 0.2]))])
    found = rise_map(model, images(1), 1, samples=40, cells=4)
    expected = 0.3 * slow_masks(0, 40, 4, 0.5).mean(axis=0) / 0.5
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_a_pixel_that_decides_stands_out():
    model = keras.Sequential([keras.Input((*SIZE, 2)), layers.Flatten(), layers.Dense(1)])
    weights = np.zeros((*SIZE, 2))
    weights[3, 12] = 1
    model.set_weights([weights.reshape(-1, 1), np.zeros(1)])
    found = rise_map(model, np.ones((1, *SIZE, 2)), 1, samples=2000, cells=6, score="logit")[0]
    row, column = np.unravel_index(found.argmax(), SIZE)
    assert max(abs(row - 3), abs(column - 12)) <= 1


def test_seeds_batches_and_the_company_of_other_images():
    model, x = network("sigmoid", 1), images(3)
    options = {"samples": 30, "cells": 3}
    found = rise_map(model, x, [1, 0, 1], **options)
    assert found.shape == (3, *SIZE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(rise_map(model, x[1:2], 0, **options)[0], found[1], atol=1e-5)
    np.testing.assert_allclose(
        rise_map(model, x, [1, 0, 1], batch_size=7, **options), found, atol=1e-5
    )
    assert np.abs(rise_map(model, x, [1, 0, 1], seed=1, **options) - found).max() > 1e-3


def test_no_more_than_a_batch_is_in_memory(monkeypatch):
    sizes = []

    def watched(model):
        def run(batch):
            sizes.append(batch.shape[0])
            return model(batch)

        return run

    monkeypatch.setattr("course_utils.occlusion.forward", watched)
    rise_map(network(), images(2), 0, samples=23, batch_size=10)
    assert sizes == [10, 10, 10, 10, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"cells": 14}, "cells must be a whole number from 1 to 13"),
        ({"shown": 0}, "shown must be a probability"),
        ({"shown": "half"}, "shown must be a probability"),
        ({"seed": 0.5}, "seed"),
        ({"batch_size": -1}, "batch_size"),
        ({"fill": (1, 2, 3)}, "fill must be"),
        ({"score": "loss"}, "score must be"),
    ],
)
def test_it_says_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        rise_map(network(), images(), 0, **options)
