"""What the lab on filters gives to students. What is odd about it, find out."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from course_utils._shared import channels_last
from course_utils.datasets import load_arrays
from course_utils.labs._variant import order
from course_utils.models import set_weights


class Stripes(NamedTuple):
    """What make_stripes returns; its docstring says what each array holds."""

    images: np.ndarray
    labels: np.ndarray


STRIPE_ANGLES = (0, 30, 60, 90, 120, 150)
"""In degrees, the direction that the stripes of each class run in, anticlockwise from the right."""


def make_stripes(n, *, seed):
    """Draw striped cloth under a lens: a disc of parallel stripes on a noisy ground.

    Width, place, contrast and size of the stripes are random, and so is their angle, within 8
    degrees of that of their class.

    Parameters
    ----------
    n : int
        How many images.
    seed : int
        The same seed draws the same images.

    Returns
    -------
    Stripes
        images float32 (n, 44, 44, 1) in 0..1; labels int64 (n,), places in `STRIPE_ANGLES`.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(STRIPE_ANGLES), n)
    y, x = np.mgrid[21.5:-22.5:-1, -21.5:22.5]  # from the middle, y pointing up
    images = np.empty((n, 44, 44, 1), np.float32)
    for image, label in zip(images[..., 0], labels, strict=True):
        angle = np.radians(STRIPE_ANGLES[label] + rng.uniform(-8, 8))
        across = np.cos(angle) * y - np.sin(angle) * x
        period, phase = rng.uniform(5, 9), rng.uniform(0, 2 * np.pi)
        waves = rng.uniform(0.15, 0.4) * np.cos(2 * np.pi * across / period + phase)
        centre, radius = rng.uniform(-8, 8, 2), rng.uniform(11, 18)
        inside = np.hypot(y - centre[0], x - centre[1]) < radius
        image[:] = 0.5 + inside * waves + rng.normal(0, 0.08, (44, 44))
    return Stripes(images.clip(0, 1), labels)


@channels_last()
def stripes_cnn():
    """Return the untrained network that tells how stripes run, compiled.

    Images (N, 44, 44, 1) in 0..1 to probabilities (N, 6); 5,594 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((44, 44, 1)),
            layers.Conv2D(12, 3, activation="relu", name="conv_1"),
            layers.Conv2D(20, 2, strides=5, activation="relu", name="conv_2"),
            layers.Conv2D(24, 3, dilation_rate=2, activation="relu", name="conv_3"),
            layers.GlobalAveragePooling2D(name="mean_over_places"),
            layers.Dense(6, activation="softmax", name="angle"),
        ],
        name="stripes_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_stripes_network():
    """Return the `stripes_cnn` of the lab on filters with its trained weights."""
    model = stripes_cnn()
    set_weights(model, load_arrays("lab_filters_weights.npz"))
    # The same network with the filters of conv_1 in another order.
    first, second = model.get_layer("conv_1"), model.get_layer("conv_2")
    places = order("stripe filters", first.filters)
    kernel, bias = first.get_weights()
    first.set_weights([kernel[..., places], bias[places]])
    kernel, bias = second.get_weights()
    second.set_weights([kernel[:, :, places], bias])
    return model
