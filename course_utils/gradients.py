"""Explanations by gradients: how the score answers to a small change of each pixel.

Saliency, gradient times input, SmoothGrad and integrated gradients, all of the same gradient.
"""

import functools

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from course_utils._arrays import check_whole
from course_utils._scores import gradient, score_model
from course_utils._shared import check_fill, check_images, check_targets


def saliency_map(model, images, targets, *, score="logit", batch_size=64):
    """Return how strongly the score of the target answers to a small change of each pixel.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    score : "logit" or "probability"
        Which score to differentiate. A saturated probability has next to no gradient.
    batch_size : int
        Images that are in memory at a time.

    Returns
    -------
    float32 (N, H, W)
        The largest absolute partial derivative among the channels of a pixel: score per unit of
        the image's scale. It has no sign.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Simonyan, Vedaldi and Zisserman, Deep Inside Convolutional Networks (2014), section 3.
    """
    _, gradients = _gradients(model, images, targets, score, batch_size)
    return _strongest(gradients)


def gradient_times_input(model, images, targets, *, score="logit", batch_size=64):
    """Return the gradient times the image, summed over channels, float32 (N, H, W).

    Signed: for a network that is linear in its pixels, what each of them adds to the score.
    Where a pixel is 0, so is the map, whatever the network makes of it. Parameters and errors
    are those of `saliency_map`.

    References
    ----------
    Shrikumar, Greenside, Shcherbina and Kundaje, Not Just a Black Box (2016).
    """
    images, gradients = _gradients(model, images, targets, score, batch_size)
    return np.einsum("nhwc,nhwc->nhw", gradients, images)


def smoothgrad(
    model,
    images,
    targets,
    *,
    samples=50,
    noise=0.15,
    score="logit",
    seed=0,
    batch_size=64,
    progress=False,
):
    """Return the saliency of the mean gradient over noisy copies of each image.

    Parameters
    ----------
    model, images, targets, score
        As in `saliency_map`.
    samples : int
        Noisy copies of each image.
    noise : float
        Standard deviation of the normal noise, as a share of the image's largest value minus its
        smallest.
    seed : int
        Of the noise. Every image gets the same noise but for its scale, so that its map does not
        depend on the images beside it.
    batch_size : int
        Noisy copies that are in memory at a time; it does not change the noise.
    progress : bool
        Show a progress bar.

    Returns
    -------
    float32 (N, H, W)
        The largest absolute value of the mean gradient among the channels of a pixel.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Smilkov et al., SmoothGrad: removing noise by adding noise (2017).
    """
    images, targets = _check(model, images, targets, batch_size)
    check_whole("samples", samples, 1)
    check_whole("seed", seed, 0)
    if not np.isscalar(noise) or isinstance(noise, str) or not 0 <= noise < np.inf:
        raise ValueError(f"noise must be zero or a positive number, got {noise!r}.")
    spreads = np.float32(noise) * np.ptp(images, axis=(1, 2, 3)).reshape(-1, 1, 1, 1, 1)
    mean = np.zeros(images.shape)
    rng = np.random.default_rng(seed)
    run = gradient(score_model(model, score))
    bar = tqdm(total=len(images) * samples, disable=not progress, unit="gradient")
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        draws = rng.standard_normal((count, *images.shape[1:]), np.float32)
        for some in _together(len(images), samples, batch_size):
            copies = images[some, np.newaxis] + spreads[some] * draws
            mean[some] += _total(run, copies, targets[some]) / samples
            bar.update(len(copies) * count)
    bar.close()
    return _strongest(mean).astype(np.float32)


def integrated_gradients(
    model,
    images,
    targets,
    *,
    baseline=0.0,
    steps=64,
    score="logit",
    batch_size=64,
    progress=False,
):
    """Return what each pixel adds to the score on the way from a baseline to the image.

    Parameters
    ----------
    model, images, targets, score
        As in `saliency_map`.
    baseline : float, array (C,) or array (H, W, C)
        Where the way begins, the image without its content: one value, a colour, or an image.
    steps : int
        Points on the straight way at which the gradient is taken: the middles of as many equal
        parts.
    batch_size : int
        Points that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    float32 (N, H, W)
        Signed, and summed over channels: a map adds up to the score of the image minus that of
        the baseline, the closer the more steps (`metrics.completeness_gap`).

    Raises
    ------
    ValueError
        If an argument does not fit.

    Notes
    -----
    ReLUs and max-pooling let the gradient jump on the way, and where between two points it jumps
    no rule can know: the error need not fall like one over the steps squared. At 64 steps the maps
    of the course's digits add up to a thousandth, those of the squares to some hundredths.

    References
    ----------
    Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks (2017).
    """
    images, targets = _check(model, images, targets, batch_size)
    check_whole("steps", steps, 1)
    baseline = check_fill(baseline, images.shape[1:], "baseline", model)
    ways = images - baseline
    mean = np.zeros(images.shape)
    middles = ((np.arange(steps) + 0.5) / steps).astype(np.float32).reshape(-1, 1, 1, 1)
    run = gradient(score_model(model, score))
    bar = tqdm(total=len(images) * steps, disable=not progress, unit="gradient")
    for some in _together(len(images), steps, batch_size):
        for start in range(0, steps, batch_size):
            points = baseline + middles[start : start + batch_size] * ways[some, np.newaxis]
            mean[some] += _total(run, points, targets[some]) / steps
            bar.update(points.shape[0] * points.shape[1])
    bar.close()
    return np.einsum("nhwc,nhwc->nhw", mean, ways).astype(np.float32)


def _check(model, images, targets, batch_size):
    images = check_images(model, images)
    check_whole("batch_size", batch_size, 1)
    return images, check_targets(model, targets, len(images))


def _gradients(model, images, targets, score, batch_size):
    """The checked images and the gradient of each one's score, both float32 (N, H, W, C)."""
    images, targets = _check(model, images, targets, batch_size)
    run = gradient(score_model(model, score))
    gradients = np.empty_like(images)
    for start in range(0, len(images), batch_size):
        some = slice(start, start + batch_size)
        gradients[some] = run(tf.constant(images[some]), tf.constant(targets[some])).numpy()
    return images, gradients


def _strongest(gradients):
    """The largest absolute value among the channels, (N, H, W).

    Channel by channel, because numpy takes the maximum over a short last axis very slowly.
    """
    return functools.reduce(np.maximum, np.moveaxis(np.abs(gradients), -1, 0))


def _together(count, points, batch_size):
    """Slices of `count` images, as many as have all their points in one batch; at least one."""
    most = max(1, batch_size // points)
    return [slice(first, first + most) for first in range(0, count, most)]


def _total(run, points, targets):
    """The sums of the gradients at the points (N, B, H, W, C) of N images, float64 (N, H, W, C)."""
    rows = points.reshape(-1, *points.shape[2:])
    gradients = run(tf.constant(rows), tf.constant(np.repeat(targets, points.shape[1])))
    return gradients.numpy().reshape(points.shape).sum(axis=1, dtype=np.float64)
