"""Activation maximisation: search for the input that a class or a channel answers to most."""

import functools
import weakref
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from course_utils._arrays import check_whole
from course_utils._ascent import centred, confine, shifted, unit, variation_slope
from course_utils._folded import infer
from course_utils._plain import kept, plain
from course_utils._scores import of_columns, reached, score_model
from course_utils._shared import (
    channels_first,
    check_fill,
    check_graph,
    check_targets,
    find_layer,
    layer_output,
    maps_first,
)


class Maximized(NamedTuple):
    """What `maximize_activation` found, an entry for each target or channel."""

    images: np.ndarray
    """float32 (N, H, W, C); blank where `dead`."""
    scores: np.ndarray
    """float32 (N,): the score of each image as it is, without jitter and penalties."""
    dead: np.ndarray
    """bool (N,): whether the score had no gradient at any start, so that nothing was found."""
    latents: np.ndarray | None
    """float32 (N, ...): the generator's input for each image; None without a generator."""


def maximize_activation(
    model,
    *,
    target=None,
    layer=None,
    channel=None,
    generator=None,
    score="logit",
    pool="mean",
    steps=128,
    step_size=0.05,
    start=None,
    noise=None,
    low=None,
    high=None,
    norm=None,
    l2=0.0,
    tv=0.0,
    blur=0.0,
    jitter=0,
    fourier=None,
    colours=None,
    batch_size=32,
    progress=False,
    seed=0,
):
    """Search by gradient ascent for the images that a class or a layer's channels answer to most.

    Nothing but the score steers the search unless you ask for it: `norm`, `l2`, `tv`, `blur`,
    `jitter`, `fourier` and the range can each be switched on by itself.

    Parameters
    ----------
    model : keras.Model
    target : int or int array (N,), optional
        The class, or classes, to maximise the score of.
    layer : str, int or keras layer, optional
        Instead of a target: the layer whose channels to maximise, activation function included.
        A name can be that of a nested model's layer.
    channel : int or int array (N,), optional
        Channels of `layer`; all of them if not given.
    generator : keras.Model, optional
        Makes an image for `model` of each z (N, ...). The search is for z instead of pixels:
        `step_size`, `start`, `noise`, `norm` and `l2` are those of z.
    score : "logit" or "probability"
        Which score of the target.
    pool : "mean" or "centre"
        The score of a channel with rows and columns: the mean of its map, which asks for a
        texture, or the unit in the middle of it, which asks for one patch.
    steps : int
    step_size : float
        How far the first step moves a value (root mean square); the steps shrink to zero. It
        and `noise` are shares of the range `high` - `low` where the search is for pixels that
        have one; with `fourier` they are those of the coefficients, before the sigmoid.
    start : float, array (C,) or array (H, W, C), optional
        Where the search begins: the middle of the range, or 0, if not given.
    noise : float, optional
        Standard deviation of what is added to the start; 0.1 if not given, for a generator 1.
    low, high : float, optional
        The range of the pixels. After each step they are clipped to it; with `fourier`, a
        sigmoid keeps them inside.
    norm : float, optional
        Radius of a ball around 0 (Euclidean norm) that no image leaves.
    l2 : float
        Weight of the penalty on the sum of the squared pixels.
    tv : float
        Weight of the penalty on the total variation, the sum of the absolute differences between
        neighbouring pixels.
    blur : float
        Standard deviation, in pixels, of the Gaussian that blurs the image after each step.
    jitter : int
        Pixels by which the image is shifted at random, at most, around its edges, in each step.
    fourier : float, optional
        Search among the image's Fourier coefficients instead, each scaled by 1 / frequency to
        this power; 1 is the spectrum of photos.
    colours : array (C, C), optional
        With `fourier`: the covariance of the data's channels, after which the image's vary too.
    batch_size : int
        Images that are in memory at a time.
    progress : bool
        Show a progress bar.
    seed : int
        Of noise and jitter. All images of a call begin at the same noise.

    Returns
    -------
    Maximized
        ``images``, ``scores``, ``dead`` and ``latents``.

    Raises
    ------
    ValueError
        If an argument does not fit, or contradicts another.

    Notes
    -----
    A step follows the gradient divided by its root mean square, so that its length does not
    depend on the scale of the score. Where an image has no gradient because its channel is
    silent, the search begins again from other, larger noise (with "centre", shifted so that its
    most active place lies in the middle); a channel that had no gradient at any start is dead as
    far as this search can tell. The search is one compiled loop for each
    model and set of options; their values, targets, channels and seeds do not compile it anew.

    References
    ----------
    Erhan et al., Visualizing Higher-Layer Features of a Deep Network (2009). For `l2`: Simonyan,
    Vedaldi and Zisserman, Deep Inside Convolutional Networks (2014). For `blur`: Yosinski et al.,
    Understanding Neural Networks Through Deep Visualization (2015). For `tv` and `jitter`:
    Mahendran and Vedaldi, Visualizing Deep Convolutional Neural Networks Using Natural Pre-Images
    (2016). For `generator`: Nguyen et al., Synthesizing the Preferred Inputs for Neurons in
    Neural Networks via Deep Generator Networks (2016). For `fourier` and `colours`: Olah,
    Mordvintsev and Schubert, Feature Visualization (2017).
    """
    if (target is None) == (layer is None) or (layer is None and channel is not None):
        raise ValueError(
            "say what to maximise: either a target, or a layer (and, if not all, which channel)."
        )
    if pool not in ("mean", "centre"):
        raise ValueError(f'pool must be "mean" or "centre", got {pool!r}.')
    shape = _check_models(model, generator)
    check_whole("steps", steps, 1)
    check_whole("jitter", jitter, 0)
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed, 0, 2**31 - 1)
    if noise is None:
        noise = 0.1 if generator is None else 1.0
    numbers = {"steps": steps, "step_size": step_size, "noise": noise, "low": low, "high": high}
    numbers |= {"norm": norm, "l2": l2, "tv": tv, "blur": blur, "jitter": jitter}
    numbers["fourier"] = fourier
    on = _check_options(numbers, start, colours, generator)
    if "low" in on and "fourier" not in on:
        numbers |= {"step_size": step_size * (high - low), "noise": noise * (high - low)}
        start = (low + high) / 2 if start is None else start
    start = 0.0 if start is None else start
    begin = tf.constant(_begin(model, generator, start, shape), tf.float32)
    root = tf.constant(_root(colours, shape[-1]), tf.float32)
    numbers = {name: tf.constant(value or 0, tf.float32) for name, value in numbers.items()}

    layer = None if layer is None else find_layer(model, layer)
    kind = (layer, score, pool, on)
    maximised, search = _compiled(model, generator, kind, begin, numbers)
    ids = _check_ids(model, maximised, target, layer, channel)
    parts = []
    with tqdm(total=len(ids), disable=not progress, unit="image") as bar:
        for first in range(0, len(ids), batch_size):
            some = tf.constant(ids[first : first + batch_size], tf.int32)
            found = search(some, tf.constant(seed, tf.int32), begin, root, numbers)
            parts.append([part.numpy() for part in found])
            bar.update(len(some))
    images, scores, dead, points = map(np.concatenate, zip(*parts, strict=True))
    images[dead] = 0 if low is None else np.clip(0, low, high)
    if channels_first(model):
        images = np.moveaxis(images, -1, 1)
    points[dead] = 0
    return Maximized(images, scores, dead, None if generator is None else points)


def _compiled(model, generator, kind, begin, numbers):
    """Return the model whose outputs are maximised, and the search: compiled once for each kind."""

    def make():
        # Neither refers to `model` itself, nor to the generator.
        maximised = _maximised(model, *kind[:2])
        signature = [
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec(begin.shape),
            tf.TensorSpec([maximised.inputs[0].shape[-1]] * 2),
            dict.fromkeys(numbers, tf.TensorSpec([])),
        ]
        makes = None if generator is None else weakref.ref(plain(generator))
        search = functools.partial(_search, maximised, makes, channels_first(model), kind)
        return maximised, tf.function(search, signature, autograph=False)

    # The token is another one when the generator computes something else.
    token = None if generator is None else kept(generator, "token", object)
    return kept(model, ("search", kind, token), make)


def _maximised(model, layer, score):
    """The model, of images (N, H, W, C), whose outputs are maximised."""
    if layer is None:
        scored = score_model(model, score)
        return keras.Model(scored.inputs[0], scored.outputs[0])
    part = plain(model)
    output = layer_output(model, layer, part)
    if len(output.shape) == 4 and maps_first(model, layer):
        output = keras.ops.transpose(output, (0, 2, 3, 1))
    return keras.Model(part.inputs[0], output)


def _search(maximised, generator, first, kind, ids, seed, begin, root, numbers):
    """Climb from `begin` to the images with the highest scores: one batch, all steps in one loop.

    Returns the images (N, H, W, C), their scores (N,), whether each is dead (N,), and the points:
    what the search is for, pixels, Fourier coefficients or z.
    """
    *_, pool, on = kind
    shape = maximised.inputs[0].shape[1:]
    images_of = functools.partial(_images, shape, generator, first, on)
    scores_of = functools.partial(_scores, maximised, kind, ids)

    def climb(step, points, lost, awake, *_):
        moves = step < steps
        lost &= moves  # what is lost at the end is not begun anew: nothing would follow
        points = tf.cond(tf.reduce_any(lost), lambda: start(step, lost, points), lambda: points)
        with tf.GradientTape() as below:
            below.watch(points)
            images = images_of(points, root, numbers)
        with tf.GradientTape() as tape:
            tape.watch(images)
            most = tf.where(moves, numbers["jitter"], 0.0)
            scores = scores_of(shifted(images, [seed, ~step], most) if "jitter" in on else images)
        slope = reached(tape.gradient(scores, images))
        silent = tf.reduce_all(slope == 0, axis=[1, 2, 3])
        if "tv" in on:
            slope -= numbers["tv"] * variation_slope(images)
        if "l2" in on and generator is None:
            slope -= 2 * numbers["l2"] * images
        slope = below.gradient(images, points, output_gradients=slope)
        if "l2" in on and generator is not None:
            slope -= 2 * numbers["l2"] * points
        length = numbers["step_size"] * (1 - tf.cast(step, tf.float32) / numbers["steps"])
        points = tf.where(moves, confine(points + length * unit(slope), on, numbers), points)
        # At the top of a ReLU6 or a sigmoid there is no slope either, but there is a score.
        lost = silent & ((scores <= 0) | ~awake)
        return step + 1, points, lost, awake | (~silent & moves), images, scores

    def start(attempt, where, points):
        """Put the points where `where` is true to `begin` and noise, larger with each attempt."""
        spread = numbers["noise"] * 2.0 ** tf.cast(attempt % 9, tf.float32)
        noise = spread * tf.random.stateless_normal([1, *begin.shape], [seed, attempt])
        if pool == "centre" and generator is None and len(maximised.outputs[0].shape) == 4:
            images = images_of(confine(begin + noise, on, numbers), root, numbers)
            maps = tf.cast(infer(maximised, images), tf.float32)
            noise = centred(noise, maps, ids)
        where = tf.reshape(where, [-1] + [1] * len(begin.shape))
        return tf.where(where, confine(begin + noise, on, numbers), points)

    # At first all are lost; a last round, which moves nothing, scores what is found. So the network
    # is compiled once, not for each of these again.
    steps, count = tf.cast(numbers["steps"], tf.int32), tf.size(ids)
    state = [0, tf.zeros([count, *begin.shape]), tf.ones_like(ids, tf.bool)]
    state += [tf.zeros_like(ids, tf.bool), tf.zeros([count, *shape]), tf.zeros([count])]
    found = tf.while_loop(lambda step, *_: step <= steps, climb, state, parallel_iterations=1)
    _, points, _, awake, images, scores = found
    return images, scores, ~awake, points


def _scores(maximised, kind, ids, images):
    """The score (N,) of each image for its class or channel."""
    layer, score, pool, _ = kind
    outputs = tf.cast(infer(maximised, images), tf.float32)
    while len(outputs.shape) > 2:
        middle = outputs[:, outputs.shape[1] // 2]
        outputs = middle if pool == "centre" else tf.reduce_mean(outputs, axis=1)
    if layer is None and outputs.shape[-1] == 1:
        opposite = -outputs if score == "logit" else 1 - outputs
        outputs = tf.concat([opposite, outputs], axis=1)  # classes 0 and 1
    return of_columns(outputs, ids)


def _images(shape, generator, first, on, points, root, numbers):
    """The images (N, H, W, C) that belong to the points of the search."""
    if generator is not None:
        images = tf.cast(generator()(points, training=False), tf.float32)
        return tf.transpose(images, (0, 2, 3, 1)) if first else images
    if "fourier" not in on:
        return tf.identity(points)
    height, width, _ = shape
    rows, columns = np.fft.fftfreq(height)[:, np.newaxis], np.fft.fftfreq(width)
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    scale = tf.constant(frequency, tf.float32) ** -numbers["fourier"]
    scale /= tf.sqrt(tf.reduce_mean(scale**2))  # so that the image varies as much as the points
    spectrum = tf.signal.rfft2d(tf.transpose(points, [0, 3, 1, 2]))
    spectrum *= tf.cast(scale[:, : width // 2 + 1], tf.complex64)
    planes = tf.signal.irfft2d(spectrum, [height, width])
    images = tf.einsum("ndhw,cd->nhwc", planes, root)
    if "low" not in on:
        return images
    return numbers["low"] + (numbers["high"] - numbers["low"]) * tf.sigmoid(images)


def _check_models(model, generator):
    """Return the shape (H, W, C) of the images, or say why there is none, or no such generator."""
    check_graph(model)
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or None in shape:
        raise ValueError(f"the model must take images of one fixed size, it takes {shape}.")
    if generator is not None:
        check_graph(generator)
        made = [tuple(output.shape[1:]) for output in generator.outputs]
        if made != [shape]:
            what = " and ".join(map(str, made))
            raise ValueError(
                f"the generator makes images of shape {what}, and the model takes {shape}."
            )
    return tuple(plain(model).inputs[0].shape[1:])


# What acts on pixels has nothing to act on where the search is for something else.
_EXCLUDES = {
    "generator": {"low", "high", "blur", "fourier", "colours"},
    "fourier": {"norm", "blur", "start"},
}


def _check_options(numbers, start, colours, generator):
    """Return what of the search is switched on; raise ValueError where numbers do not fit."""
    least = {"low": -np.inf, "high": -np.inf, "norm": 1e-12, "step_size": 1e-12}
    for name, value in numbers.items():
        if value is None and name in ("low", "high", "norm", "fourier"):
            continue
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not least.get(name, 0) <= value < np.inf:
            kind = {0: "non-negative", 1e-12: "positive"}.get(least.get(name, 0), "finite")
            raise ValueError(f"{name} must be a {kind} number, got {value!r}.")
    low, high = numbers["low"], numbers["high"]
    if (low is None) != (high is None) or (low is not None and low >= high):
        raise ValueError(f"give both low and high, low < high, or neither: got {low}, {high}.")
    if numbers["norm"] is not None and low is not None and not low <= 0 <= high:
        raise ValueError(f"norm is that of a ball around 0, which lies outside {low} to {high}.")
    options = numbers | {"start": start, "colours": colours, "generator": generator}
    on = {name for name, value in options.items() if value is not None}
    on -= {name for name in ("l2", "tv", "blur", "jitter") if numbers[name] == 0}
    for way, others in _EXCLUDES.items():
        if way in on and on & others:
            listed = ", ".join(sorted(on & others))
            raise ValueError(f"with {way} the search is not for pixels: leave out {listed}.")
    if colours is not None and numbers["fourier"] is None:
        raise ValueError("colours go with fourier: give both, or leave out colours.")
    return frozenset(on & {"low", "norm", "l2", "tv", "blur", "jitter", "fourier"})


def _begin(model, generator, start, shape):
    """Return the image or z at which the search begins, without noise, or raise ValueError."""
    if generator is None:
        return check_fill(start, shape, "start", model)
    shape = tuple(generator.inputs[0].shape[1:])
    if np.shape(start) not in ((), shape):
        raise ValueError(f"start must be a number or a z of shape {shape}, got {np.shape(start)}.")
    return np.full(shape, start)


def _root(colours, channels):
    """A matrix that gives independent planes the covariance `colours`, up to their scale."""
    if colours is None:
        return np.eye(channels)
    colours = np.asarray(colours, np.float64)
    if colours.shape != (channels, channels) or not np.allclose(colours, colours.T):
        raise ValueError(
            f"colours must be a symmetric matrix ({channels}, {channels}), got {colours.shape}."
        )
    try:
        return np.linalg.cholesky(colours) * np.sqrt(channels / np.trace(colours))
    except np.linalg.LinAlgError:
        raise ValueError("colours must be positive definite, as a covariance is.") from None


def _check_ids(model, maximised, target, layer, channel):
    """Return the classes or channels to maximise, (N,), or raise ValueError."""
    if layer is None:
        return check_targets(model, target, np.size(target))
    count = maximised.outputs[0].shape[-1]
    channels = np.arange(count) if channel is None else np.atleast_1d(channel)
    if channels.dtype.kind not in "iu" or channels.ndim != 1 or channels.size == 0:
        raise ValueError(f"channel must be a whole number or a list of them, got {channel!r}.")
    if channels.min() < 0 or channels.max() >= count:
        wrong = channels[(channels < 0) | (channels >= count)][0]
        raise ValueError(
            f"channel {wrong} does not exist: layer {layer.name!r} has channels 0 to {count - 1}."
        )
    return channels
