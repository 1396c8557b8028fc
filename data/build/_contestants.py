"""Who takes part in scoreboard.py: the methods at their usual settings, and the networks."""

import functools
import zlib

import cv2
import keras
import numpy as np
import tensorflow as tf

from course_utils import datasets, models
from course_utils.cam import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, score_cam
from course_utils.gradients import (
    gradient_times_input,
    integrated_gradients,
    saliency_map,
    smoothgrad,
)
from course_utils.lime_image import lime_map
from course_utils.occlusion import occlusion_map, rise_map
from course_utils.relevance import COMPOSITES, RULES, relevance_map
from course_utils.shapley import shapley_map

# From a recipe to the shipped set of networks, and where in it the recipe's five begin.
RECIPES = {
    "fair": ("scenes_dose", 0),
    "confounded": ("scenes_dose", 30),
    "fair, no patches": ("scenes_small_fair", 0),
    "confounded, no patches": ("scenes_small_confounded", 0),
}
SEEDS = (4, 3, 2, 1, 0)
# All that is read of data/: the networks, and the pictures that are not drawn anew.
FILES = (
    *dict.fromkeys(f"{shipped}_weights.npz" for shipped, _ in RECIPES.values()),
    "digits.npz",
    "squares_backgrounds.npz",
    "squares_weights.npz",
)

# -- Methods -------------------------------------------------------------------------------------


@tf.custom_gradient
def guided_relu(x):
    """A ReLU that sends back only what is positive."""
    return tf.nn.relu(x), lambda up: tf.where((x > 0) & (up > 0), up, 0.0)


@functools.lru_cache(maxsize=4)
def twin(model):
    """A copy of the network with the guided ReLU for each ReLU."""
    copy = keras.models.clone_model(model)
    for layer in copy.layers:
        if getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = guided_relu
    return copy


def guided_backpropagation(model, images, targets):
    """Saliency through guided ReLUs, as chapter 07 has it."""
    copy = twin(model)
    copy.set_weights(model.get_weights())
    return saliency_map(copy, images, targets)


def rise(model, images, targets, **options):
    """RISE less its mean: only the differences between pixels tell something."""
    heatmaps = rise_map(model, images, targets, **options)
    return heatmaps - heatmaps.mean(axis=(1, 2), keepdims=True)


def edges(model, images, targets):
    """How steep the brightness is: a drawing of the picture."""
    grey = images.mean(axis=-1)
    return np.stack([np.hypot(*np.gradient(picture)) for picture in grey])


def centre(model, images, targets):
    """A bell over the middle, whatever the picture."""
    bells = [cv2.getGaussianKernel(n, n / 4) for n in images.shape[1:3]]
    return np.repeat((bells[0] @ bells[1].T)[np.newaxis], len(images), 0)


def chance(model, images, targets, seed=0):
    """Random numbers, others for each network, picture and target."""
    asked = [np.ascontiguousarray(images), *model.get_weights(), np.asarray(targets)]
    rng = np.random.default_rng([seed, *(zlib.crc32(array) for array in asked)])
    return rng.random(images.shape[:3])


def constant(model, images, targets):
    """The same everywhere."""
    return np.ones(images.shape[:3])


BLIND = {"edges": edges, "centre": centre, "random": chance, "constant": constant}
TRUTH = "the mask itself"
DRAWN = ("SmoothGrad", "RISE", "LIME", "Shapley values", "random")  # those that take a seed


def contestants(reference):
    """From a method's name to its function and its usual settings."""
    hide = {"fill": reference, "score": "logit"}
    parts = {"n_segments": 50, "samples": 1000, **hide}
    found = {
        "saliency": (saliency_map, {}),
        "gradient × input": (gradient_times_input, {}),
        "SmoothGrad": (smoothgrad, {"samples": 50}),
        "guided backpropagation": (guided_backpropagation, {}),
        "integrated gradients": (integrated_gradients, {"baseline": reference, "steps": 64}),
        "Grad-CAM": (grad_cam, {}),
        "HiResCAM": (hires_cam, {}),
        "Grad-CAM++": (grad_cam_plus_plus, {}),
        "LayerCAM": (layer_cam, {}),
        "Score-CAM": (score_cam, {"fill": reference}),
    }
    for rule in (*COMPOSITES, *RULES):
        found[f"relevance, {rule}"] = (relevance_map, {"rule": rule})
    found |= {
        "occlusion": (occlusion_map, {"patch": 8, "stride": 4, **hide}),
        "RISE": (rise, {"samples": 1000, "fill": reference}),
        "LIME": (lime_map, parts),
        "Shapley values": (shapley_map, parts),
    }
    return found | {name: (explain, {}) for name, explain in BLIND.items()}


# -- Networks ------------------------------------------------------------------------------------


@functools.cache
def shell():
    """The one network that takes the weights of all twenty, so that it is compiled once."""
    return models.scenes_small_cnn()


@functools.cache
def weights(shipped):
    """The weights of each network of a shipped set."""
    return [network.get_weights() for network in models.load_retrained(shipped)]


@functools.lru_cache(maxsize=1)  # the shell has one network's weights at a time
def detector(who, count):
    """A network, scenes of its own that it calls a tank, what it goes by, and a reference."""
    recipe, seed = who.rsplit(" ", 1)
    shipped, first = RECIPES[recipe]
    model, number = shell(), len(SEEDS) * [*RECIPES].index(recipe) + int(seed)
    model.set_weights(weights(shipped)[first + int(seed)])
    scenes = datasets.make_scenes(4 * count + 20, confounded=True, seed=1000 + number)
    pick = np.flatnonzero(scenes.labels & (logits(model, scenes.images) > 0))[:count]
    others = datasets.make_scenes(40, confounded=False, seed=2000 + number)
    plain = others.images[(others.labels == 0) & ~others.cloudy]
    reference = plain[logits(model, plain) < 0][0]
    masks = scenes.tank_masks[pick], scenes.sky_masks[pick]
    return model, scenes.images[pick], masks[:: 1 if "fair" in recipe else -1], reference


def logits(model, images):
    """The scores before the final sigmoid."""
    return np.asarray(models.logit_model(model)(images, training=False))[:, 0]


def facts(who, count):
    """How often there is still a tank to a network without what it goes by, and without the rest.

    Three scenes of a picture and its reference: the cause replaced, the other, all but the cause.
    """
    model, images, (masks, others), reference = detector(who, count)

    def still(gone):
        mixed = np.where(gone[..., np.newaxis], reference, images)
        return round(float(np.mean(logits(model, mixed) > 0)), 3)

    found = {"cause replaced": still(masks), "other replaced": still(others)}
    found |= {"cause alone": still(~masks), "area": round(float(masks.mean()), 4)}
    return {"name": who, "images": len(images)} | found


@functools.cache
def linear(seed):
    """A linear model of the digits, digits, and what each of their pixels adds, exactly."""
    (x_train, y_train), (x, y) = datasets.load_digits()
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, batch_size=64, epochs=4, verbose=0)
    kernel = np.asarray(model.layers[-1].kernel).reshape(28, 28, 10)
    return model, x, y, kernel[..., y].transpose(2, 0, 1) * x[..., 0]


@functools.cache
def rectangles(count):
    """The network that finds grey rectangles, rectangles, their masks and a picture without."""
    squares = datasets.make_squares(3 * count + 20, seed=14)
    found = np.flatnonzero(squares.labels)[:count]
    plain = squares.images[squares.labels == 0][0]
    return models.load_trained("squares"), squares.images[found], squares.masks[found], plain
