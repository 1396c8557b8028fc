"""What the lab on embeddings and ideal inputs gives to students. What is odd about it, find out."""

from itertools import combinations
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from course_utils._shared import channels_last
from course_utils.datasets import load_arrays, load_digits
from course_utils.labs._variant import file_of, member, order, variant
from course_utils.models import set_weights

FAMILY = 6
"""How many networks there are, each with a defect of its own."""


class PostDigits(NamedTuple):
    """What load_post_digits returns; its docstring says what each array holds."""

    images: np.ndarray
    labels: np.ndarray


def load_post_digits(part):
    """Return digits of the lab on embeddings: 800 that clerks labelled, or 800 new ones.

    Parameters
    ----------
    part : "reviewed" or "new"
        The labels of the reviewed ones are the clerks'.

    Returns
    -------
    PostDigits
        images float32 (800, 28, 28, 1) in 0..1, ink bright on a dark ground; labels int64 (800,).

    Raises
    ------
    ValueError
        If there is no such part.
    """
    if part not in ("reviewed", "new"):
        raise ValueError(f'part must be "reviewed" or "new", got {part!r}.')
    arrays = load_arrays("lab_embeddings.npz")
    (x_train, y_train), (x_test, y_test) = load_digits()
    some = arrays["order"][3400:4200] if part == "reviewed" else arrays["order"][4200:]
    images = np.concatenate([x_train, x_test])[some]
    if part == "reviewed":
        return PostDigits(images, _exchanged(arrays["labels"], np.r_[y_train, y_test][some]))
    return PostDigits(images, np.concatenate([y_train, y_test])[some])


def _exchanged(labels, truth):
    """The clerks' labels; in other variants than 0, digits of two other classes changed places."""
    if not variant():
        return labels.astype(np.int64)
    labels, pairs = truth.copy(), list(combinations(range(10), 2))
    pair = pairs[order("post pairs", len(pairs))[0]]
    rng = np.random.default_rng(variant())
    some = [rng.choice(np.flatnonzero(truth == digit), 14, replace=False) for digit in pair]
    for places, label in zip(some, pair[::-1], strict=True):
        labels[places] = label
    return labels


@channels_last()
def post_cnn():
    """Return the untrained network that sorts the post by digits, compiled.

    Images (N, 28, 28, 1) in 0..1 to probabilities (N, 10); 42,850 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, 2, padding="same", activation="relu", name="conv_1"),
            layers.Conv2D(16, 3, 2, padding="same", activation="relu", name="conv_2"),
            layers.Conv2D(24, 3, padding="same", activation="relu", name="conv_3"),
            layers.Flatten(name="flatten"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="post_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_post_network():
    """Return the `post_cnn` of the lab on embeddings with its trained weights."""
    model = post_cnn()
    set_weights(model, load_arrays(file_of("lab_embeddings", member(FAMILY))))
    return model
