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


_TRAINED = {"digits": digits_cnn}


def load_trained(name):
    """Return one of the course's networks with its trained weights, compiled.

    Parameters
    ----------
    name : str
        "digits".

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


def efficientnet_lite0():
    """Return the untrained EfficientNet-Lite0.

    Images (N, 224, 224, 3) to probabilities (N, 1000); 4,694,024 parameters. It is a stem, 16
    blocks ``block0`` to ``block15``, each of which widens its channels (``_expand``), looks at
    each channel by itself (``_depthwise``) and narrows them again (``_project``), and a head.
    The last feature maps, 7 × 7, are those of ``head_relu``.

    References
    ----------
    Tan and Le, EfficientNet (ICML 2019), arXiv:1905.11946; the "lite" variants, without
    squeeze-and-excitation and with ReLU6, were published by TensorFlow in 2020.
    """
    # Repeats, kernel, stride of the first repeat, widening, channels that come out.
    stages = [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ]
    images = keras.Input((224, 224, 3), name="images")
    x = _conv_norm(images, "stem", 32, kernel=3, strides=2)
    index = 0
    for repeats, kernel, strides, widening, channels in stages:
        for repeat in range(repeats):
            first = strides if repeat == 0 else 1
            x = _inverted_bottleneck(x, f"block{index}", kernel, first, widening, channels)
            index += 1
    x = _conv_norm(x, "head", 1280)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    probabilities = layers.Dense(1000, activation="softmax", name="predictions")(x)
    return keras.Model(images, probabilities, name="efficientnet_lite0")


def _inverted_bottleneck(x, name, kernel, strides, widening, channels):
    """Widen, filter each channel, narrow; add the input where the shapes allow it."""
    shortcut = x
    if widening > 1:
        x = _conv_norm(x, f"{name}_expand", widening * x.shape[-1])
    x = _conv_norm(x, f"{name}_depthwise", None, kernel, strides)
    x = _conv_norm(x, f"{name}_project", channels, relu=False)
    if strides == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _conv_norm(x, name, filters, kernel=1, strides=1, relu=True):
    """A convolution (depthwise if `filters` is None), batch normalisation and ReLU6."""
    options = {"strides": strides, "padding": "same", "use_bias": False, "name": name}
    if filters is None:
        x = layers.DepthwiseConv2D(kernel, **options)(x)
    else:
        x = layers.Conv2D(filters, kernel, **options)(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x
