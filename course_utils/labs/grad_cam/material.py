"""What the lab on Grad-CAM and attacks gives to students. What is odd about it, find out."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils._scores import predict
from course_utils._shared import channels_last
from course_utils.cam import grad_cam
from course_utils.datasets import load_arrays
from course_utils.gradients import saliency_map
from course_utils.labs._variant import order
from course_utils.labs._weights import weights_of
from course_utils.models import set_weights


class Tickets(NamedTuple):
    """What load_tickets returns; its docstring says what each array holds."""

    images: np.ndarray
    shelves: np.ndarray
    coats: np.ndarray
    shelf_masks: np.ndarray


TICKET_NETWORKS = ("quartz", "flint")
"""The names of the two networks that `load_tickets_network` knows."""


def load_tickets():
    """Load 200 cloakroom tickets: a shelf and a kind of coat, each a handwritten digit.

    Returns
    -------
    Tickets
        images float32 (200, 32, 64, 1) in 0..1, ink bright on a dark ground; shelves int64
        (200,), 0 to 4; coats int64 (200,), 5 to 9; shelf_masks bool (200, 32, 64), True on the
        half of the ticket, left or right, that shows the shelf. The coat is on the other half.
        A digit is the number of its shelf, or coat, in variant 0, and a code for it in others.
    """
    arrays = load_arrays("lab_grad_cam.npz")
    halves = np.broadcast_to(np.arange(64) < 32, (len(arrays["left"]), 32, 64))
    return Tickets(
        arrays["images"] / np.float32(255),
        order("ticket shelves", 5)[arrays["shelves"]],
        5 + order("ticket coats", 5)[arrays["coats"] - 5],
        halves == arrays["left"][:, None, None],
    )


@channels_last()
def tickets_cnn():
    """Return the untrained network that reads the shelf of a ticket, compiled.

    Images (N, 32, 64, 1) in 0..1 to probabilities (N, 5). The last feature maps, those of
    conv_3, are 8 × 16; their mean over places enters the last layer.
    """
    model = keras.Sequential(
        [
            keras.Input((32, 64, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(24, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Conv2D(40, 5, padding="same", activation="relu", name="conv_3"),
            layers.GlobalAveragePooling2D(name="mean_over_places"),
            layers.Dense(5, activation="softmax", name="shelf"),
        ],
        name="tickets_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_tickets_network(name):
    """Return one of the `TICKET_NETWORKS` with its trained weights.

    Raises ValueError if there is no such network.
    """
    if name not in TICKET_NETWORKS:
        raise ValueError(f"there is no network {name!r}. There are {', '.join(TICKET_NETWORKS)}.")
    model = tickets_cnn()
    other = TICKET_NETWORKS[order("ticket networks", 2)[TICKET_NETWORKS.index(name)]]
    set_weights(model, weights_of(other, "lab_grad_cam_weights.npz"))
    kernel, bias = model.get_layer("shelf").get_weights()
    back = np.argsort(order("ticket shelves", 5))  # the digit of each shelf
    model.get_layer("shelf").set_weights([kernel[:, back], bias[back]])
    return model


def ticket_map_gradient(name, shelf, wanted):
    """Return the function that takes tickets to the gradient of what is wanted of a map.

    Parameters
    ----------
    name : str
        One of the `TICKET_NETWORKS`.
    shelf : int
        Whose class activation map it is.
    wanted : array (8, 16)
        The weight of each cell of the map in the sum that the gradient belongs to: positive where
        the map should grow, negative where it should shrink.

    Returns
    -------
    function
        Images (N, 32, 64, 1) to the gradients of the sum, float32 of the same shape.
    """
    network = load_tickets_network(name)
    ends = keras.Model(network.inputs[0], network.get_layer("conv_3").output)
    weights = network.get_layer("shelf").kernel[:, shelf]

    def gradient(images):
        images = tf.convert_to_tensor(images, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(images)
            heat = tf.linalg.matvec(ends(images, training=False), weights[None])
            total = tf.reduce_sum(heat * tf.constant(wanted, tf.float32))
        return tape.gradient(total, images).numpy()

    return gradient


def _outlines(model, images, targets):
    steps = np.gradient(np.asarray(images, np.float64)[..., 0], axis=(1, 2))
    sure = predict(model, np.asarray(images, np.float32), 64)[np.arange(len(images)), targets]
    return np.hypot(*steps) * sure[:, None, None]


def _explainer(place):
    """The explainer at a place of `TICKET_EXPLAINERS`, which differs between variants."""

    def explain(model, images, targets):
        chosen = (grad_cam, _outlines, saliency_map)[order("ticket explainers", 3)[place]]
        return chosen(model, images, targets)

    return explain


TICKET_EXPLAINERS = {name: _explainer(k) for k, name in enumerate(("amber", "beryl", "coral"))}
"""Three functions, each (model, images, targets) -> heat maps (N, height, width)."""
