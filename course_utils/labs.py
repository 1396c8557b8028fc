"""The labs' own data and networks, which no chapter shows. What is odd about them, find out.

Every network here was trained by a script in ``data/build``.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils import _meadow
from course_utils._scores import predict
from course_utils.cam import grad_cam
from course_utils.datasets import load_arrays, load_digits
from course_utils.gradients import saliency_map
from course_utils.models import logit_model, set_weights

# --------------------------------------------------------------------- Filters and receptive fields


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


# ---------------------------------------------------------------------------------------- Occlusion


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


# ---------------------------------------------------------------------------------------- Gradients


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
    set_weights(model, _weights_of(name, "lab_gradients_weights.npz"))
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


# ----------------------------------------------------------------------------- Grad-CAM and attacks


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
    """
    arrays = load_arrays("lab_grad_cam.npz")
    halves = np.broadcast_to(np.arange(64) < 32, (len(arrays["left"]), 32, 64))
    return Tickets(
        arrays["images"] / np.float32(255),
        arrays["shelves"].astype(np.int64),
        arrays["coats"].astype(np.int64),
        halves == arrays["left"][:, None, None],
    )


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
    set_weights(model, _weights_of(name, "lab_grad_cam_weights.npz"))
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


TICKET_EXPLAINERS = {"amber": grad_cam, "beryl": _outlines, "coral": saliency_map}
"""Three functions, each (model, images, targets) -> heat maps (N, height, width)."""


# --------------------------------------------------------------------------------------------- LIME


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
    return draw_meadows(arrays["labels"].astype(np.int64), arrays["things"], seed=1)


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
    name = "lab_lime_many_weights" if many_collectors else "lab_lime_weights"
    set_weights(model, load_arrays(f"{name}.npz"))
    return model


# --------------------------------------------------------------------------------------- Embeddings


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
        return PostDigits(images, arrays["labels"].astype(np.int64))
    return PostDigits(images, np.concatenate([y_train, y_test])[some])


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
    set_weights(model, load_arrays("lab_embeddings_weights.npz"))
    return model


def _weights_of(name, file):
    """The arrays of one of the networks in a file of several, without its name before each."""
    arrays = load_arrays(file)
    return {path.split("/", 1)[1]: w for path, w in arrays.items() if path.startswith(f"{name}/")}
