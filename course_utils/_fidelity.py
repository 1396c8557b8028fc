"""Scores that ask again: of covered patches, of pixels that are painted over, of noise."""

import functools
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from course_utils._arrays import check_whole
from course_utils._scores import of_target, predict, score_model
from course_utils._shared import check_fill, check_images, check_targets


class Curve(NamedTuple):
    """The score of each image's target while its pixels are deleted or inserted."""

    fractions: np.ndarray
    """float64 (steps + 1,): the share of the pixels that is changed, from 0 on."""
    scores: np.ndarray
    """float64 (N, steps + 1): the score with so many pixels changed."""
    areas: np.ndarray
    """float64 (N,): the area under each curve, divided by its width: its mean score."""


def infidelity(
    model,
    images,
    targets,
    heatmaps,
    *,
    patch=8,
    stride=None,
    fill=0.0,
    scaled=False,
    score="logit",
    batch_size=64,
):
    """Return how far each heat map is from foretelling what covered patches cost, float64 (N,).

    Each patch in turn is covered. What the map's values in it add up to should be what the score
    loses; infidelity is the mean square of the difference, over the patches. 0 is a map that
    foretells every loss.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class that was explained, for all images or for each.
    heatmaps : array (N, H, W)
    patch : int
        Height and width of a patch, in pixels.
    stride : int, optional
        How far apart the patches are, in pixels; `patch` if not given. The last of a row or
        column may be cut off at the image's edge.
    fill : float, array (C,) or array (H, W, C)
        What covers a patch.
    scaled : bool
        Not every map is in units of the score. True: each map is first multiplied by the number,
        not below zero, with which it foretells best, and the result is divided by that of a map of
        zeros, so that it lies between 0 and 1. NaN where no patch changes the score.
    score : "logit" or "probability"
        Which score was explained.
    batch_size : int
        Covered images that are in memory at a time.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Yeh et al., On the (In)fidelity and Sensitivity of Explanations (2019): with squares that are
    removed, and the optimal scaling of their section 3.
    """
    images, targets, heatmaps = check_explained(model, images, targets, heatmaps)
    fill = check_fill(fill, images.shape[1:], model=model)
    size = images.shape[1:3]
    check_whole("patch", patch, 1, min(size))
    stride = patch if stride is None else stride
    check_whole("stride", stride, 1)
    if stride > patch:
        raise ValueError(f"a stride of {stride} leaves gaps between patches of {patch} pixels.")
    check_whole("batch_size", batch_size, 1)
    scores = score_model(model, score)
    covers = _patches(size, patch, stride)
    whole = of_target(predict(scores, images, batch_size), targets, score).astype(np.float64)
    left = np.empty((len(images), len(covers)))
    for n, image in enumerate(images):
        for start in range(0, len(covers), batch_size):
            some = covers[start : start + batch_size, ..., np.newaxis]
            outputs = predict(scores, np.where(some, fill, image), batch_size)
            left[n, start : start + batch_size] = of_target(
                outputs, np.full(len(some), targets[n]), score
            )
    lost = whole[:, np.newaxis] - left
    told = heatmaps.reshape(len(images), -1) @ covers.reshape(len(covers), -1).T
    if not scaled:
        return np.square(told - lost).mean(axis=1)
    square = np.square(told).sum(axis=1)
    both = np.maximum((told * lost).sum(axis=1), 0)
    factor = np.divide(both, square, out=np.zeros_like(both), where=square > 0)
    wrong, most = np.square(factor[:, np.newaxis] * told - lost).sum(axis=1), np.square(lost).sum(1)
    return np.divide(wrong, most, out=np.full_like(wrong, np.nan), where=most > 0)


def _patches(size, patch, stride):
    """Which pixels each patch covers, bool (patches, H, W)."""
    covered = []
    for length in size:
        pixels, first = np.arange(length), np.arange(0, length - patch + stride, stride)[:, None]
        covered.append((first <= pixels) & (pixels < first + patch))
    rows, columns = covered
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, *size)


def max_sensitivity(explain, model, images, targets, *, radius=0.02, samples=10, seed=0):
    """Return how much weak noise on an image changes its explanation at most, float64 (N,).

    The largest of a few samples: the size of the difference of the two maps, as a share of the
    size of the image's own (sizes are roots of sums of squares). 0 is a map that stays. A map of
    zeros that does not stay has infinite sensitivity.

    Parameters
    ----------
    explain : function
        ``explain(model, images, targets)`` -> heatmaps (N, H, W), with `functools.partial` where
        it is to have options.
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    radius : float
        No value of an image is changed by more.
    samples : int
        How many times noise is drawn, evenly from -`radius` to `radius`; the same for all images.
    seed : int
        Of the noise.

    Raises
    ------
    ValueError
        If an argument does not fit, or a map is not of the size of its image or not finite.

    References
    ----------
    Yeh et al., On the (In)fidelity and Sensitivity of Explanations (2019), section 4.
    """
    shape = check_images(model, images).shape[:3]
    count = len(images)
    check_targets(model, targets, count)
    check_whole("samples", samples, 1)
    check_whole("seed", seed, 0)
    if not 0 < radius < np.inf:
        raise ValueError(f"radius must be a positive number, got {radius!r}.")
    images, rng = np.asarray(images, np.float32), np.random.default_rng(seed)
    heatmaps = check_heatmaps(explain(model, images, targets), shape)
    most = np.zeros(count)
    for _ in range(samples):
        noise = rng.uniform(-radius, radius, images.shape[1:]).astype(np.float32)
        change = check_heatmaps(explain(model, images + noise, targets), shape) - heatmaps
        most = np.maximum(most, np.linalg.norm(change.reshape(count, -1), axis=1))
    size = np.linalg.norm(heatmaps.reshape(count, -1), axis=1)
    return np.divide(most, size, out=np.where(most > 0, np.inf, 0.0), where=size > 0)


def road_curve(
    model,
    images,
    targets,
    heatmaps,
    *,
    shares=(0.1, 0.3, 0.5, 0.7, 0.9),
    noise=0.01,
    score="probability",
    seed=0,
    batch_size=64,
):
    """Remove the pixels of each image, those that its heat map holds largest first (ROAD).

    In the place of what is removed comes what the pixels around it suggest: the mean of its
    neighbours, theirs of theirs, and so on, with a little noise. So no edge of a hole tells the
    model where something was. A small area speaks for the heat map. Equal values go in an order
    that is drawn at random.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class whose score is watched, for all images or for each.
    heatmaps : array (N, H, W)
    shares : sequence of float
        How much is removed, ascending shares of the pixels, between 0 and 1.
    noise : float
        The standard deviation of the noise.
    score : "probability" or "logit"
        Which score to watch; "probability" is the output as it is, also of a network without a
        softmax or sigmoid at its end.
    seed : int
        Of the noise and of the order of equal values, the same for all images.
    batch_size : int
        Images that are in memory at a time.

    Returns
    -------
    Curve
        From the whole image to the last of the shares.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods (2022).
    """
    images, targets, heatmaps = check_explained(model, images, targets, heatmaps)
    count, height, width = heatmaps.shape
    removed = (np.asarray(shares, np.float64).reshape(-1) * height * width + 1e-9).astype(int)
    if not len(removed) or removed[0] < 1 or (np.diff(removed) < 1).any():
        raise ValueError(f"shares must ascend, by a pixel at least, got {shares!r}.")
    if removed[-1] >= height * width:
        raise ValueError(f"shares must be below 1: some pixel has to stay, got {shares!r}.")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be zero or a positive number, got {noise!r}.")
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    rng = np.random.default_rng(seed)
    draw = np.broadcast_to(rng.random(height * width), (count, height * width))
    order = np.lexsort((draw, -heatmaps.reshape(count, -1)), axis=1)
    grain = rng.normal(0, noise, images.shape[1:])
    scores = score_model(model, score)
    found = [of_target(predict(scores, images, batch_size), targets, score)]
    for many in removed:
        outputs = [
            predict(
                scores,
                np.stack(
                    [
                        _painted_over(images[n], order[n, :many], grain)
                        for n in range(start, min(start + batch_size, count))
                    ]
                ),
                batch_size,
            )
            for start in range(0, count, batch_size)
        ]
        found.append(of_target(np.concatenate(outputs), targets, score))
    fractions = np.concatenate([[0], removed / (height * width)])
    found = np.stack(found, axis=1).astype(np.float64)
    return Curve(fractions, found, np.trapezoid(found, fractions, axis=1) / fractions[-1])


def _painted_over(image, gone, grain):
    """The image with other values where the numbered pixels were: those their neighbours suggest.

    Each is the weighted mean of its neighbours, next to it twice as heavy as across a corner.
    """
    flat = image.reshape(-1, image.shape[2]).astype(np.float64)
    stays = np.ones(len(flat), bool)
    stays[gone] = False
    rows = _differences(*image.shape[:2])[gone]
    # The matrix is symmetric and its diagonal outweighs each row: no pivots are needed.
    solve = splu(
        rows[:, gone].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    ).solve
    flat[gone] = solve(-(rows[:, stays] @ flat[stays])) + grain.reshape(flat.shape)[gone]
    return flat.reshape(image.shape).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _differences(height, width):
    """What a pixel differs from its neighbours, weighted, as a sparse matrix (H * W, H * W)."""
    at = np.arange(height * width).reshape(height, width)
    links = [
        (at[:, :-1], at[:, 1:], 1 / 6),
        (at[:-1], at[1:], 1 / 6),
        (at[:-1, :-1], at[1:, 1:], 1 / 12),
        (at[:-1, 1:], at[1:, :-1], 1 / 12),
    ]
    first, second = (np.concatenate([link[side].ravel() for link in links]) for side in (0, 1))
    weights = np.concatenate([np.full(link[0].size, link[2]) for link in links])
    one_way = sparse.csr_array((weights, (first, second)), shape=(at.size, at.size))
    return csgraph.laplacian(one_way + one_way.T).tocsr()


def check_explained(model, images, targets, heatmaps):
    """Return images, targets and heatmaps that fit each other, or say what is wrong."""
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    return images, targets, check_heatmaps(heatmaps, images.shape[:3])


def check_heatmaps(heatmaps, shape):
    """Return heat maps as float64 (N, H, W) of this shape, or say what is wrong with them."""
    heatmaps = np.asarray(heatmaps, np.float64)
    if heatmaps.shape != shape:
        raise ValueError(
            f"heatmaps must have shape {shape}, one for each image and of its size, "
            f"got {heatmaps.shape}."
        )
    check_finite("heatmaps", heatmaps)
    return heatmaps


def check_finite(name, heatmaps):
    """Raise ValueError if heat maps, which the caller calls `name`, hold NaN or infinity."""
    if not np.isfinite(heatmaps).all():
        raise ValueError(f"{name} must be finite, but they hold NaN or infinity.")
