"""The labs' own data and networks, which no chapter shows. What is odd about them, find out.

Every network here was trained by a script in ``data/build``.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils.datasets import load_arrays
from course_utils.models import logit_model, set_weights


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
    return model


class Pills(NamedTuple):
    """What load_pills returns; its docstring says what each array holds."""

    images: np.ndarray
    kinds: np.ndarray


PILL_KINDS = ("tablet", "capsule", "white oval", "yellow oval")
"""The names of the four kinds of pill; a kind is its place in the tuple."""

PILL_NETWORKS = ("ash", "birch", "cedar", "elm")
"""The names of the four networks that `load_pills_network` knows."""


def load_pills():
    """Load 120 pictures of pills on a belt, as the camera above it takes them.

    Returns
    -------
    Pills
        images float32 (120, 20, 28, 3) in 0..1, red, green, blue; kinds int64 (120,), places in
        `PILL_KINDS`, 30 of each.
    """
    arrays = load_arrays("lab_gradients.npz")
    return Pills(arrays["images"] / np.float32(255), arrays["kinds"].astype(np.int64))


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
    arrays = load_arrays("lab_gradients_weights.npz")
    own = {path.split("/", 1)[1]: w for path, w in arrays.items() if path.startswith(f"{name}/")}
    set_weights(model, own)
    return model


class Scans(NamedTuple):
    """Scanned digits; see `load_scans`."""

    images: np.ndarray
    labels: np.ndarray


def load_scans(office):
    """Load handwritten digits as an office's scanner saw them, which no network was trained on.

    Paper is grey, ink is bright, and the scanners of both offices lose blocks of 4 × 4 pixels here
    and there, which come out black.

    Parameters
    ----------
    office : "first" or "second"
        The first office's scans are of the kind that `scan_network` was trained on, the second
        office has a scanner of another make.

    Returns
    -------
    Scans
        images: float32 (400, 28, 28, 1) in 0..1, 40 of each class; labels: int64 (400,).

    Raises
    ------
    ValueError
        If there is no such office, or the shipped file is not intact.
    """
    if office not in ("first", "second"):
        raise ValueError(f'office must be "first" or "second", got {office!r}.')
    arrays = load_arrays("lab_occlusion.npz")
    some = arrays["office"] == (office == "second")
    rng = np.random.default_rng(1 if office == "first" else 2)
    images = draw_scans(arrays["digits"][some], arrays["lost"][some], rng)
    return Scans(images, arrays["labels"][some].astype(np.int64))


def draw_scans(digits, lost, rng):
    """Put digits on grey paper, and black blocks of 4 × 4 pixels over them.

    Parameters
    ----------
    digits : uint8 array (N, H, W)
        Ink is bright.
    lost : int array (N, blocks, 2)
        Row and column of the upper left corner of each block.
    rng : numpy.random.Generator
        Of the paper's grain.

    Returns
    -------
    float32 (N, H, W, 1) in 0..1
    """
    grain = rng.normal(0, 0.03, digits.shape) + rng.uniform(0.28, 0.4, (len(digits), 1, 1))
    images = np.maximum(digits / 255, grain.clip(0.2, 0.5)).astype(np.float32)
    for image, corners in zip(images, lost, strict=True):
        for row, column in corners:
            image[row : row + 4, column : column + 4] = 0
    return images[..., np.newaxis]


def scan_cnn():
    """Return an untrained network for scanned digits, compiled.

    Images (N, 28, 28, 1) in 0..1 to probabilities (N, 10); 32,074 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(12, 3, activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(24, 3, activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(48, activation="relu", name="dense"),
            layers.Dense(10, activation="softmax", name="preds"),
        ],
        name="scan_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def scan_network(*, both_offices=False):
    """Return the trained network that reads scanned digits, compiled.

    Parameters
    ----------
    both_offices : bool
        False: trained on scans of the first office. True: the same network, trained on as many
        scans, half of them from each office.
    """
    model = scan_cnn()
    name = "lab_occlusion_both_weights" if both_offices else "lab_occlusion_weights"
    set_weights(model, load_arrays(f"{name}.npz"))
    return model


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
