"""The course's networks: how they are built, and their trained weights."""

import keras
import numpy as np
from keras import layers

from course_utils.datasets import load_arrays


def digits_cnn():
    """Return the untrained digit network of document 003, compiled.

    Images (N, 28, 28, 1) in 0..1 to probabilities (N, 10); 1,199,882 parameters. The layers
    bear the names they have in the document's table.
    """
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", name="conv2d_1"),
            layers.Conv2D(64, 3, activation="relu", name="conv2d_2"),
            layers.MaxPooling2D(2, name="max_pooling2d_1"),
            layers.Dropout(0.25, name="dropout_1"),
            layers.Flatten(name="flatten_1"),
            layers.Dense(128, activation="relu", name="dense_1"),
            layers.Dropout(0.5, name="dropout_2"),
            layers.Dense(10, activation="softmax", name="preds"),
        ],
        name="digits_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def squares_cnn():
    """Return an untrained network that can learn the squares, compiled.

    Images (N, 64, 64, 3) in 0..1 to the probability of a rectangle (N, 1); 30,753 parameters.
    The maximum over all places lets it learn what a rectangle looks like wherever it lies.
    """
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_3"),
            layers.GlobalMaxPooling2D(name="max_over_places"),
            layers.Dense(32, activation="relu", name="dense"),
            layers.Dense(1, activation="sigmoid", name="rectangle"),
        ],
        name="squares_cnn",
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def squares_document_cnn():
    """Return document 000's own network for the squares, untrained and compiled.

    Images (N, 64, 64, 3) to the probability of a rectangle (N, 1); 1,049,537 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(32, activation="relu", name="dense"),
            layers.Dense(1, activation="sigmoid", name="rectangle"),
        ],
        name="squares_document_cnn",
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def scenes_cnn():
    """Return the untrained tank detector, compiled.

    Images (N, 64, 64, 3) in 0..1 to the probability of a tank (N, 1); 285,857 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_3"),
            layers.MaxPooling2D(2, name="pool_3"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(1, activation="sigmoid", name="tank"),
        ],
        name="scenes_cnn",
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


_TRAINED = {
    "digits": digits_cnn,
    "squares": squares_cnn,
    "scenes_confounded": scenes_cnn,
    "scenes_fair": scenes_cnn,
}


def load_trained(name):
    """Return one of the course's networks with its trained weights, compiled.

    Parameters
    ----------
    name : str
        "digits", "squares", "scenes_confounded" or "scenes_fair".

    Raises
    ------
    ValueError
        If there is no such network, or its file of weights is not intact.
    """
    if name not in _TRAINED:
        known = ", ".join(repr(n) for n in _TRAINED)
        raise ValueError(f"the course has no trained network {name!r}. It has {known}.")
    model = _TRAINED[name]()
    set_weights(model, load_arrays(f"{name}_weights.npz"))
    return model


def set_weights(model, arrays):
    """Give `model` the weights in `arrays`, a dict from each weight's path to its value.

    Raises ValueError, and changes nothing, if the names or shapes are not those of the model.
    """
    expected = {weight.path: tuple(weight.shape) for weight in model.weights}
    given = {path: value.shape for path, value in arrays.items()}
    if given != expected:
        differ = sorted(set(expected.items()) ^ set(given.items()))
        raise ValueError(
            f"these are not the weights of {model.name}: {len(differ)} names or shapes differ, "
            f"the first is {differ[0][0]} {differ[0][1]}."
        )
    model.set_weights([arrays[weight.path].astype(np.float32) for weight in model.weights])
