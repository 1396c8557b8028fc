"""Attacks on explanations, and the check that every explanation should pass.

An image changed too little to see whose saliency map lies elsewhere, and networks whose layers
are made random again.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy.special import expit, softmax
from tqdm.auto import tqdm

from course_utils._arrays import check_whole
from course_utils._bent import bent
from course_utils._folded import infer
from course_utils._plain import in_one_line, kept, plain
from course_utils._scores import of_target, pick, reached, score_model
from course_utils._shared import (
    channels_first,
    check_built,
    check_images,
    check_targets,
    find_layer,
    flat_layers,
)


class Attack(NamedTuple):
    """What `attack_explanation` found, an entry for each image."""

    images: np.ndarray
    """float32 (N, H, W, C): the attacked images; the original where `moved` is False."""
    changes: np.ndarray
    """float32 (N,): the largest change of a value of the image."""
    before: np.ndarray
    """float32 (N,): the probability of the target, of the original."""
    after: np.ndarray
    """float32 (N,): the same of the attacked image."""
    moved: np.ndarray
    """bool (N,): whether an image was found that keeps to all bounds and comes nearer the goal.
    A map of zeros lies nowhere, and is neither moved nor counted as an image's map elsewhere."""


def attack_explanation(
    model,
    images,
    targets,
    *,
    epsilon,
    goal="top",
    region=None,
    top=0.05,
    tolerance=0.05,
    low=None,
    high=None,
    samples=0,
    noise=0.15,
    steps=60,
    step_size=0.2,
    score="logit",
    seed=0,
    batch_size=32,
    progress=False,
):
    """Search, next to each image, for one with the same answer and another saliency map.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class whose map is attacked, for all images or for each.
    epsilon : float
        The most by which a value of an image may change, on the scale of the images.
    goal : "top", "region" or "centre"
        What becomes of the map: its largest values leave their pixels, its values gather in
        `region`, or its centre of mass moves as far as it can.
    region : bool array (H, W) or (N, H, W)
        True where the map shall lie, for the goal "region".
    top : float
        The share of the pixels that count as the largest, for the goal "top".
    tolerance : float
        The most by which any of the model's probabilities may change, and the log-odds of the
        target, which tell changes where the probability is saturated. The class stays the same.
    low, high : float, optional
        The range of the images, which no attacked one leaves.
    samples : int
        Attack SmoothGrad with so many noisy copies, drawn anew in each step, instead of the plain
        saliency map (0).
    noise : float
        Standard deviation of that noise, as a share of the image's largest value minus its
        smallest.
    steps : int
    step_size : float
        How far the first step moves a value, as a share of `epsilon`; the steps shrink to zero.
    score : "logit" or "probability"
        Which score the map differentiates. For "probability" that one takes the place of the
        log-odds.
    seed : int
        Of where the search begins within the bound, and of the noise; the same for every image.
    batch_size : int
        Images, or noisy copies of them, that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Attack
        ``images``, ``changes``, ``before``, ``after`` and ``moved``. Of all images on the way
        that keep to the bounds, the one that comes nearest the goal.

    Raises
    ------
    ValueError
        If an argument does not fit, or, by the logit, the outputs are labels of which several may
        hold.

    Notes
    -----
    The map attacked is that of `gradients.saliency_map` (or `gradients.smoothgrad`). To move it
    takes the gradient of a gradient, and that of a ReLU is a step, whose own gradient is zero.
    Dombrowski et al. replace the ReLU by a softplus during the attack. Here scores and maps
    remain the network's own, to the last bit, and only the step's gradient is replaced, by that
    of a sigmoid. So what the search sees holds for the network itself. A step follows the signs
    of the gradient (the bound is one for each value) less their part along the gradient of the
    log-odds, and takes back what the step before it changed of these.

    References
    ----------
    Ghorbani, Abid and Zou, Interpretation of Neural Networks Is Fragile (AAAI 2019). Dombrowski
    et al., Explanations Can Be Manipulated and Geometry Is to Blame (NeurIPS 2019).
    """
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    if "float" not in (dtype := model.inputs[0].dtype):
        raise ValueError(
            f"the model takes whole numbers ({dtype}), and to round an attacked image undoes the "
            "attack. Attack the part of the network that takes floats."
        )
    check_whole("samples", samples, 0)
    check_whole("steps", steps, 1)
    check_whole("batch_size", batch_size, max(samples, 1))
    check_whole("seed", seed, 0, 2**31 - 1)
    if score == "logit":
        _check_classes(model, images[:batch_size])
    lowest, highest = _bounds(images, epsilon, low, high)
    region = _check_goal(goal, region, images.shape[:3])
    numbers = {"tolerance": tolerance, "top": top, "step_size": step_size, "noise": noise}
    for name, value in numbers.items():
        if not 0 < value < np.inf or (name == "top" and value >= 1):
            below = " below 1" if name == "top" else ""
            raise ValueError(f"{name} must be a positive number{below}, got {value!r}.")
    # Within the search a little less, so that rounding does not lead beyond.
    numbers |= {"epsilon": epsilon, "steps": steps, "tolerance": 0.999 * tolerance}
    numbers = {name: tf.constant(value, tf.float32) for name, value in numbers.items()}

    look = _compiled(model, (goal, samples, score), images.shape[1:])
    found = np.empty_like(images)
    at_once = batch_size // max(samples, 1)
    with tqdm(total=len(images), disable=not progress, unit="image") as bar:
        for start in range(0, len(images), at_once):
            some = slice(start, start + at_once)
            parts = (images, targets, lowest, highest, region)
            parts_of_some = [tf.constant(part[some]) for part in parts]
            found[some] = _search(look, goal, *parts_of_some, numbers, tf.constant(seed)).numpy()
            bar.update(len(found[some]))
    return _judge(model, images, found, targets, score, tolerance, batch_size)


def _check_classes(model, images):
    """Raise ValueError where the outputs are labels of their own, of which several may hold."""
    answers = plain(model)
    if answers.outputs[0].shape[-1] == 1 or score_model(model, "logit") is answers:
        return
    sums = np.sum(np.float32(answers(images, training=False)), axis=1)
    if np.abs(sums - 1).max() > 0.01:
        raise ValueError(
            f"the outputs of {model.name} do not add up to 1: they are labels, not classes. Attack "
            "one label k, the class 1 of z = logit_model(model); keras.Model(z.inputs, "
            "keras.ops.sigmoid(z.outputs[0][:, k : k + 1]))."
        )


def _judge(model, images, found, targets, score, tolerance, batch_size):
    """The Attack, in which every image has been held against the bounds once more."""
    answers = plain(model)
    both, starts = np.concatenate([images, found]), range(0, 2 * len(images), batch_size)
    # Layer by layer: to compile this pass takes longer than it saves, next to the search.
    outputs = [answers(both[start : start + batch_size], training=False) for start in starts]
    old, new = np.split(np.concatenate([np.float32(x) for x in outputs]), 2)
    if score == "logit" and score_model(model, score) is answers:
        old, new = (expit(x) if x.shape[1] == 1 else softmax(x, axis=1) for x in (old, new))
    kept = np.abs(new - old).max(axis=1) <= tolerance
    kept &= (_classes(new) == _classes(old)).all(axis=1)
    found[~kept], new[~kept] = images[~kept], old[~kept]
    changes = np.abs(found - images).max(axis=(1, 2, 3))
    before, after = (of_target(x, targets, "probability").astype(np.float32) for x in (old, new))
    if channels_first(model):
        found = np.moveaxis(found, -1, 1)
    return Attack(found, changes, before, after, changes > 0)


def _classes(outputs):
    """Which of the outputs say the class, bool (N, K); for a single one whether it says class 1."""
    if outputs.shape[-1] == 1:
        return outputs > 0.5
    if tf.is_tensor(outputs):
        return outputs == tf.reduce_max(outputs, axis=-1, keepdims=True)
    return outputs == outputs.max(axis=-1, keepdims=True)


def _bounds(images, epsilon, low, high):
    """The least and the largest that each value may become, float32 (N, H, W, C)."""
    if not 0 < epsilon < np.inf:
        raise ValueError(f"epsilon must be a positive number, got {epsilon!r}.")
    low, high = (
        np.float32(x if x is not None else end) for x, end in ((low, -np.inf), (high, np.inf))
    )
    if images.min() < low or images.max() > high:
        raise ValueError(
            f"the images must lie within low and high, {low:g} to {high:g}, "
            f"got {images.min():g} to {images.max():g}."
        )
    # float32 rounds, and must not round to beyond the bound.
    epsilon = np.float64(_at_most(np.float64(epsilon)))
    lowest, highest = -_at_most(epsilon - images), _at_most(images + epsilon)
    return np.maximum(lowest, low), np.minimum(highest, high)


def _at_most(value):
    """The largest float32 that is not above a float64."""
    rounded = value.astype(np.float32)
    return np.where(rounded > value, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _check_goal(goal, region, shape):
    """Return the region as bool (N, H, W), all True where the goal is another."""
    if goal not in ("top", "region", "centre"):
        raise ValueError(f'goal must be "top", "region" or "centre", got {goal!r}.')
    if (goal == "region") != (region is not None):
        raise ValueError('region goes with goal="region", and that goal needs it.')
    if region is None:
        return np.ones(shape, bool)
    region = np.asarray(region)
    if region.dtype != bool or region.shape not in (shape, shape[1:]):
        raise ValueError(
            f"region must be a bool array of shape {shape[1:]} or {shape}, "
            f"got {region.dtype} {region.shape}."
        )
    region = np.broadcast_to(region, shape)
    if not region.any(axis=(1, 2)).all() or region.all(axis=(1, 2)).any():
        raise ValueError("region must hold some of the pixels of each image, and not all of them.")
    return region


def _compiled(model, kind, shape):
    """Return the compiled `_look_on`, (points, i, first, given) -> what it sees; for any number."""

    def make():
        goal, samples, score = kind
        answers, scores = plain(model), score_model(model, score)
        outputs = answers.outputs[0]
        if score == "logit" and scores is answers:
            squash = keras.ops.sigmoid if outputs.shape[-1] == 1 else keras.ops.softmax
            outputs = squash(outputs)
        # Both in one pass. This model does not refer to `model` itself, which may be forgotten.
        both = keras.Model(answers.inputs[0], [scores.outputs[0], outputs])
        maps = [None, *shape[:2]]
        given = {
            "targets": tf.TensorSpec([None], tf.int64),
            "region": tf.TensorSpec(maps, tf.bool),
            "noise": tf.TensorSpec([None]),
            "top": tf.TensorSpec([]),
            "seed": tf.TensorSpec([], tf.int32),
        }
        signature = [tf.TensorSpec([None, *shape]), tf.TensorSpec([], tf.int32)]
        signature += [tf.TensorSpec(maps), given]
        look = functools.partial(_look_on, both, goal, samples, score)
        return tf.function(look, signature, autograph=False)

    return kept(model, ("attack", kind, shape), make)


def _search(look, goal, images, targets, lowest, highest, region, numbers, seed):
    """Step from near the images towards the goal; return the nearest that keep to the bounds."""
    spread = tf.reduce_max(images, [1, 2, 3]) - tf.reduce_min(images, [1, 2, 3])
    given = {"targets": targets, "region": region, "noise": numbers["noise"] * spread}
    given |= {"top": numbers["top"], "seed": seed}
    first, odds, outputs, *_ = look(images, -1, tf.zeros_like(images[..., 0]), given)
    least = _miss(goal, first, region, numbers["top"], first)
    least = tf.where(tf.math.is_inf(least), -np.inf, least)  # there is no map to move
    points = tf.random.stateless_uniform(tf.shape(images)[1:], [seed, -1], -1.0, 1.0)
    points = tf.clip_by_value(images + numbers["epsilon"] * points, lowest, highest)
    best = images
    for i in range(int(numbers["steps"]) + 1):
        _, new_odds, new_outputs, missed, slope, pull = look(points, i, first, given)
        error = new_odds - odds
        worst = tf.maximum(tf.abs(error), tf.reduce_max(tf.abs(new_outputs - outputs), axis=-1))
        better = (worst <= numbers["tolerance"]) & (missed < least)
        better &= tf.reduce_all(_classes(new_outputs) == _classes(outputs), axis=-1)
        best = tf.where(better[:, None, None, None], points, best)
        least = tf.where(better, missed, least)
        length = numbers["epsilon"] * numbers["step_size"] * (1 - i / numbers["steps"]) ** 2
        points = _move(points, slope, pull, error, length, lowest, highest)
    return best


def _move(points, slope, pull, error, length, lowest, highest):
    """Move every value against the slope by `length`, but so that the odds are as they were."""

    def dot(one, other):
        return tf.reduce_sum(one * other, [1, 2, 3], keepdims=True)

    free = ((points > lowest) | (slope < 0)) & ((points < highest) | (slope > 0))
    way = tf.where(free, -tf.sign(slope), 0.0)
    pull = tf.where(free, pull, 0.0)
    pull = tf.math.divide_no_nan(pull, dot(pull, pull))  # the way that raises the odds by one
    way -= dot(way, pull) / tf.maximum(dot(pull, pull), 1e-30) * pull
    points += length * way - error[:, None, None, None] * pull
    return tf.clip_by_value(points, lowest, highest)


def _look_on(both, goal, samples, score, points, i, first, given):
    """What `_look` sees, how far from the goal that is, and the slopes of this and of the odds."""
    with bent(both), tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(points)
        targets, noise, seed = given["targets"], given["noise"], given["seed"]
        seen = _look(both, targets, samples, score, noise, seed, points, i)
        missed = _miss(goal, first, given["region"], given["top"], seen[0])
    slopes = (tape.gradient(y, points, unconnected_gradients="zero") for y in (missed, seen[1]))
    return *seen, missed, *slopes


def _look(both, targets, samples, score, noise, seed, images, step):
    """The saliency map (N, H, W), or SmoothGrad's, as `gradients` has them; odds and outputs."""
    shape, repeats, points = images.shape[1:], max(samples, 1), images
    if samples:
        draws = tf.random.stateless_normal([samples, *shape], [seed, step])
        points = images[:, None] + noise[:, None, None, None, None] * draws
        points = tf.reshape(points, [-1, *shape])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        scores, outputs = (tf.cast(t, tf.float32) for t in infer(both, points))
        picked = pick(scores, tf.repeat(targets, repeats))
    gradients = reached(tape.gradient(picked, points))
    gradients = tf.reduce_mean(tf.reshape(gradients, [-1, repeats, *shape]), axis=1)
    if samples:
        scores, outputs = (tf.cast(t, tf.float32) for t in infer(both, images))
        picked = pick(scores, targets)
    if score == "logit" and scores.shape[-1] > 1:
        others = tf.one_hot(targets, scores.shape[-1], on_value=-np.inf, off_value=0.0)
        picked -= tf.reduce_logsumexp(scores + others, axis=-1)
    return tf.reduce_max(tf.abs(gradients), axis=-1), picked, outputs


def _miss(goal, first, region, top, heat):
    """How far maps (N, H, W) are from the goal, (N,); the smaller the better. `first`: theirs.

    A map of zeros has no place, so that its distance is undefined: infinite, never the least.
    """
    height, width = first.shape[1:]
    somewhere = tf.reduce_any(heat > 0, [1, 2])

    def shares(maps):
        return tf.math.divide_no_nan(maps, tf.reduce_sum(maps, [1, 2], keepdims=True))

    if goal == "centre":
        places = tf.stack(tf.meshgrid(tf.range(height), tf.range(width), indexing="ij"), -1)
        way = tf.einsum("nhw,hwd->nd", shares(heat) - shares(first), tf.cast(places, tf.float32))
        missed = -tf.norm(way + 1e-12, axis=-1) / float(np.hypot(height, width))
        return tf.where(somewhere, missed, np.inf)
    away = ~region
    if goal == "top":
        count = tf.maximum(1, tf.cast(tf.round(top * height * width), tf.int32))
        largest = tf.math.top_k(tf.reshape(first, [-1, height * width]), count).values
        away = first >= largest[:, -1, None, None]
    return tf.where(somewhere, tf.reduce_sum(tf.where(away, shares(heat), 0.0), [1, 2]), np.inf)


def randomize_layers(model, *, top=None, down_to=None, only=None, seed=0):
    """Return a copy of a network some of whose layers have forgotten what they learned.

    Their weights are drawn anew, as they were before training. An explanation that stays as it
    was does not explain what the network has learned. Give one of `top`, `down_to` and `only`.

    Parameters
    ----------
    model : keras.Model
        Sequential or Functional, nested or not. It stays as it is.
    top : int
        How many layers to randomise, from the output down, of those that have weights.
    down_to : str, int or keras layer
        The lowest layer to randomise, a name, an index or the layer itself; all above it are
        randomised as well.
    only : str, int or keras layer
        The one layer to randomise.
    seed : int
        Of the weights. A layer gets the same ones whichever others are randomised, so that each
        step of a cascade changes one layer.

    Returns
    -------
    keras.Model
        Not compiled.

    Raises
    ------
    ValueError
        If not one of the three is given, the layer does not exist or has no weights, or the
        network cannot be copied.

    References
    ----------
    Adebayo et al., Sanity Checks for Saliency Maps (NeurIPS 2018): from the top down is their
    cascading randomisation, one layer alone their independent one.
    """
    check_built(model)
    check_whole("seed", seed, 0)
    chosen = _choose(model, top, down_to, only)
    try:
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
    except Exception as error:  # Keras raises whatever the layer's own code raises
        raise ValueError(
            f"{model.name} cannot be copied: {in_one_line(error)} Build it as a Sequential or "
            "Functional model of layers that have a get_config, without LoRA or quantisation."
        ) from error
    for index, layer in enumerate(flat_layers(copy)):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with constants made of its weights
        elif index in chosen and layer.weights:
            config = _reseed(layer.get_config(), np.random.default_rng([seed, index]))
            fresh = type(layer).from_config(config)
            fresh.build_from_config(layer.get_build_config())
            layer.set_weights(fresh.get_weights())
    return copy


def _choose(model, top, down_to, only):
    """Which of the flat layers to randomise, by their places."""
    if [top, down_to, only].count(None) != 2:
        raise ValueError("give one of top, down_to and only.")
    flat = flat_layers(model)
    measured = keras.layers.Normalization  # its weights were not learned
    weighty = [i for i, x in enumerate(flat) if x.weights and not isinstance(x, measured)]
    if top is not None:
        check_whole("top", top, 1, len(weighty))
        return weighty[-top:]
    layer = find_layer(model, down_to if only is None else only)
    parts = flat_layers(layer) if isinstance(layer, keras.Model) else [layer]
    places = [flat.index(part) for part in parts]
    if only is None:
        places = range(min(places), len(flat))
    chosen = [i for i in places if i in weighty]
    if not chosen:
        named = ", ".join(flat[i].name for i in weighty)
        raise ValueError(f"layer {layer.name!r} has no weights to randomise. These do: {named}.")
    return chosen


def _reseed(config, rng):
    """A layer's configuration in which every initializer draws by a seed of its own."""
    if isinstance(config, dict):
        return {
            name: int(rng.integers(2**31)) if name == "seed" else _reseed(value, rng)
            for name, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_reseed(value, rng) for value in config)
    return config
