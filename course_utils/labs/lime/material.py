"""What the lab on LIME gives to students. What is odd about it, find out."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from course_utils._shared import channels_last
from course_utils.datasets import load_arrays
from course_utils.labs._variant import file_of, member
from course_utils.labs.lime import _meadow
from course_utils.models import set_weights

FAMILY = (0, 1, 2, 3, 4, 3, 2, 1)
"""The networks of the variants: in this order, neighbours share neither a kind nor a thing."""


class Meadows(NamedTuple):
    """Drawings of mushrooms; see `draw_meadows`."""

    images: np.ndarray
    labels: np.ndarray
    parts: np.ndarray


MUSHROOMS = _meadow.KINDS
"""The kinds of mushroom, in the order of `meadow_network`'s classes."""

MEADOW_PARTS = _meadow.PARTS
"""What a pixel of a meadow can show, in the order of the numbers in `Meadows.parts`."""


def load_meadows():
    """Load the drawings that one collector of mushrooms made and no network was trained on.

    Returns
    -------
    Meadows
        images: float32 (90, 48, 48, 3) in 0..1, 30 of each kind, shuffled; labels: int64 (90,),
        indices into MUSHROOMS; parts: int64 (90, 48, 48), indices into MEADOW_PARTS.

    Raises
    ------
    ValueError
        If the shipped file is not intact.
    """
    arrays = load_arrays("lab_lime.npz")
    number = FAMILY[member(len(FAMILY))]
    return draw_meadows(arrays["labels"][number].astype(np.int64), arrays["things"][number], seed=1)


def draw_meadows(labels, things, *, seed):
    """Draw mushrooms in meadows, with what you choose about them.

    Parameters
    ----------
    labels : int array (N,)
        The kind of the mushroom, an index into MUSHROOMS.
    things : bool array (N, 4)
        Whether there is a leaf, a stone, a snail, a flower. One more or less changes no other
        thing in the drawing.
    seed : int
        The same seed makes the same meadows.

    Returns
    -------
    Meadows
    """
    rngs = np.random.default_rng(seed).spawn(len(labels))
    drawn = [
        _meadow.shrink(_meadow.draw_meadow(kind, there, rng))
        for kind, there, rng in zip(labels, things, rngs, strict=True)
    ]
    images, parts = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    return Meadows(images, np.asarray(labels, np.int64), parts)


@channels_last()
def meadow_cnn():
    """Return an untrained network that tells mushrooms apart, compiled.

    Images (N, 48, 48, 3) in 0..1 to probabilities (N, 3) of the MUSHROOMS; 39,891 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Conv2D(48, 3, padding="same", activation="relu", name="conv_3"),
            layers.Conv2D(48, 3, padding="same", activation="relu", name="conv_4"),
            layers.GlobalMaxPooling2D(name="max_over_places"),
            layers.Dense(3, activation="softmax", name="preds"),
        ],
        name="meadow_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def meadow_network(*, many_collectors=False):
    """Return the trained network that tells mushrooms apart, compiled.

    Parameters
    ----------
    many_collectors : bool
        False: trained on drawings of the collector of `load_meadows`. True: the same network,
        trained on as many drawings of many collectors.
    """
    model = meadow_cnn()
    own = file_of("lab_lime", FAMILY[member(len(FAMILY))])
    set_weights(model, load_arrays("lab_lime_many_weights.npz" if many_collectors else own))
    return model
