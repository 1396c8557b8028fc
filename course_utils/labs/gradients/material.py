"""What the lab on gradients gives to students. What is odd about it, find out."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils._shared import channels_last
from course_utils.datasets import load_arrays
from course_utils.labs._variant import order, variant
from course_utils.labs._weights import weights_of
from course_utils.models import logit_model, set_weights


class Pills(NamedTuple):
    """What load_pills returns; its docstring says what each array holds."""

    images: np.ndarray
    kinds: np.ndarray


PILL_KINDS = ("tablet", "capsule", "white oval", "coloured oval")
"""The names of the four kinds of pill; a kind is its place in the tuple."""

PILL_NETWORKS = ("ash", "birch", "cedar", "elm")
"""The names of the four networks that `load_pills_network` knows."""


def load_pills():
    """Load 120 pictures of pills on a belt, as the camera above it takes them.

    Returns
    -------
    Pills
        images float32 (120, 20, 28, 3) in 0..1, red, green, blue (which of the
        camera's, and how it hangs, differs between variants); kinds int64 (120,), places in
        `PILL_KINDS`, 30 of each.
    """
    arrays = load_arrays("lab_gradients.npz")
    images = _turned(arrays["images"] / np.float32(255))
    return Pills(images[..., order("pill colours", 3)], arrays["kinds"].astype(np.int64))


def _turned(images):
    """Pictures, or kernels, (..., H, W, C), mirrored as the variant has them."""
    down, across = divmod(variant() % 4, 2)
    images = images[..., ::-1, :, :] if down else images
    return images[..., ::-1, :] if across else images


@channels_last()
def pills_cnn(gauge=False):
    """Return an untrained network that tells pills apart, compiled.

    Images (N, 20, 28, 3) in 0..1 to probabilities (N, 4); 19,476 parameters. With `gauge`, the
    scores before the softmax are cut off at 0 and at 6.
    """
    model = keras.Sequential(
        [
            keras.Input((20, 28, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(32, activation="relu", name="dense"),
            layers.Dense(4, name="scores"),
            *([layers.ReLU(max_value=6, name="gauge")] if gauge else []),
            layers.Softmax(name="kind"),
        ],
        name="pills_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_pills_network(name):
    """Return one of the `PILL_NETWORKS` with its trained weights.

    Raises ValueError if there is no such network.
    """
    if name not in PILL_NETWORKS:
        raise ValueError(f"there is no network {name!r}. There are {', '.join(PILL_NETWORKS)}.")
    model = pills_cnn(gauge=name == "elm")
    set_weights(model, weights_of(_other(name), "lab_gradients_weights.npz"))
    # The same network for turned pictures with their colours exchanged: all windows turn, and the
    # first layer's channels and the places of the first dense layer change as the pictures do.
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, bias = layer.get_weights()
        if kernel.ndim == 4:
            kernel = np.moveaxis(_turned(np.moveaxis(kernel, 3, 0)), 0, 3)
        if layer.name == "conv_1":
            kernel = kernel[:, :, order("pill colours", 3)]
        if layer.name == "dense":
            places = (5, 7, 16)
            kernel = _turned(kernel.T.reshape(-1, *places)).reshape(len(bias), -1).T
        layer.set_weights([kernel, bias])
    return model


def _other(name):
    """The network that goes by this name: of the two that read pills, each may be either."""
    pair = PILL_NETWORKS[:2]
    return pair[order("pill networks", 2)[pair.index(name)]] if name in pair else name


def pills_gradient(name, a, b):
    """Return the function that takes pictures to the gradient of a network's log-odds.

    Parameters
    ----------
    name : str
        One of the `PILL_NETWORKS`.
    a, b : int
        The log-odds are those of kind `a` against kind `b`.

    Returns
    -------
    function
        Images (N, 20, 28, 3) to gradients, float32 of the same shape.
    """
    logits = logit_model(load_pills_network(name))

    def gradient(images):
        images = tf.convert_to_tensor(images, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = logits(images, training=False)
            odds = scores[:, a] - scores[:, b]
        return tape.gradient(odds, images).numpy()

    return gradient
