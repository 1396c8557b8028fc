"""What the lab on occlusion gives to students. What is odd about it, find out."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from course_utils._shared import channels_last
from course_utils.datasets import load_arrays
from course_utils.labs._variant import file_of, member
from course_utils.models import set_weights

FAMILY = 6
"""How many networks there are, each with a defect of its own."""


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
        The first office's scans are a later year's of the scanner that `scan_network` was trained
        on, which loses more blocks by now; the second office has a scanner of another make.

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
    lost = arrays["lost"][member(FAMILY)][some]
    images = draw_scans(arrays["digits"][some], lost, rng)
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


@channels_last()
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
    name = "lab_occlusion_both" if both_offices else "lab_occlusion"
    set_weights(model, load_arrays(file_of(name, member(FAMILY))))
    return model
