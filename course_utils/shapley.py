"""Shapley values: what each part of an image contributes, whatever the order they come in."""

from math import comb
from typing import NamedTuple

import numpy as np

from course_utils._arrays import check_whole
from course_utils._parts import check_image, check_segments, fill_image, part_scores
from course_utils._shared import check_images, check_targets
from course_utils._superpixels import superpixels

EXACT = 12  # parts up to which all combinations are tried, 4,096 at most
SAMPLES = 2000  # images for more parts than that


class ShapleyParts(NamedTuple):
    """What each part of an image contributes to a score."""

    segments: np.ndarray
    """int (H, W): the part of each pixel."""
    values: np.ndarray
    """float64 (number of parts,): they add up to the score of the whole image minus that of the
    image with all parts hidden."""
    errors: np.ndarray
    """float64 (number of parts,): the standard error of each value; 0 where they are exact."""
    exact: bool
    """Whether all combinations of parts were tried."""


def shapley_values(worths):
    """Return the Shapley values of a game from the worth of every coalition, float64 (players,).

    Parameters
    ----------
    worths : array (2 ** players,)
        Entry c is the worth of the coalition of those players k whose bit ``c >> k & 1`` is 1:
        the first entry is that of nobody, the last that of all.

    Returns
    -------
    float64 (players,)
        What a player adds to the coalition of those who came before, averaged over all orders.

    Raises
    ------
    ValueError
        If the number of worths is not a power of two, or they are not finite numbers.

    References
    ----------
    Shapley, A Value for n-Person Games (1953).
    """
    worths = np.asarray(worths)
    players = worths.size.bit_length() - 1
    if worths.ndim != 1 or players < 1 or worths.size != 2**players:
        raise ValueError(
            "worths must have shape (2 ** players,), one for each coalition, "
            f"got shape {worths.shape}."
        )
    if worths.dtype.kind not in "fiub" or not np.isfinite(worths).all():
        raise ValueError("worths must be finite numbers.")
    worths = worths.astype(np.float64)
    coalitions = np.arange(len(worths))
    # Of all orders, one in players * comb(players - 1, size) begins with a certain coalition of
    # that size, followed by a certain player.
    share = 1 / (players * np.array([comb(players - 1, size) for size in range(players)]))
    values = np.empty(players)
    for player in range(players):
        before = coalitions[coalitions >> player & 1 == 0]
        adds = worths[before | 1 << player] - worths[before]
        values[player] = share[np.bitwise_count(before)] @ adds
    return values


def explain_parts(
    model,
    image,
    target,
    *,
    segments,
    samples=None,
    fill=0.0,
    score="logit",
    seed=0,
    batch_size=64,
    progress=False,
):
    """Return what each part of an image contributes to the score of the target.

    The parts are players, and the worth of a coalition is the score of the image that shows its
    parts and hides the others. A part's Shapley value is what it adds to those shown before it,
    averaged over all orders in which the parts can be shown.

    Parameters
    ----------
    model : keras.Model
    image : array (H, W, C)
    target : int
        The class to explain.
    segments : int array (H, W)
        The part of each pixel, 0, 1, 2, ..., as `lime_image.superpixels` returns them.
    samples : int, optional
        At most how many images to run. If that is enough for all combinations of parts, they are
        all tried and the values are exact; otherwise orders are drawn at random, each together
        with its reverse. If not given, up to 12 parts are exact, and more get 2,000 images.
    fill : float, array (C,), array (H, W, C) or "mean"
        What hides a part: one value, a colour, another image, or the part's own mean colour.
    score : "logit" or "probability"
    seed : int
        Of the random orders.
    batch_size : int
        Images that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    ShapleyParts
        Exact or sampled, the values add up to the score of the image minus that of the fill.

    Raises
    ------
    ValueError
        If an argument does not fit, or `samples` allows fewer than two pairs of orders, from
        which no standard error can be told.

    References
    ----------
    Lundberg and Lee, A Unified Approach to Interpreting Model Predictions (2017); Castro, Gómez
    and Tejada, Polynomial Calculation of the Shapley Value Based on Sampling (2009); Mitchell et
    al., Sampling Permutations for Shapley Value Estimation (2022), for orders and their reverse.
    """
    image, target = check_image(model, image, target, "shapley_map")
    segments = check_segments(segments, image.shape[:2])
    fill = fill_image(fill, image, segments, model)
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    parts = int(segments.max()) + 1
    if samples is None:
        samples = 2**EXACT if parts <= EXACT else max(SAMPLES, _images(2, parts))
    check_whole("samples", samples, min(2**parts, _images(2, parts)))

    def worth(shown):
        return part_scores(
            model,
            image,
            target,
            shown,
            segments=segments,
            fill=fill,
            score=score,
            batch_size=batch_size,
            progress=progress,
        )

    if 2**parts <= samples:
        coalitions = np.arange(2**parts)[:, np.newaxis] >> np.arange(parts) & 1 == 1
        return ShapleyParts(segments, shapley_values(worth(coalitions)), np.zeros(parts), True)
    pairs = (samples - 2) // (2 * (parts - 1))
    draws = np.random.default_rng(seed).permuted(np.tile(np.arange(parts), (pairs, 1)), axis=1)
    adds = _along(np.stack([draws, draws[:, ::-1]], axis=1).reshape(-1, parts), worth)
    # An order and its reverse are not independent, their means are.
    means = adds.reshape(pairs, 2, parts).mean(axis=1)
    errors = means.std(axis=0, ddof=1) / np.sqrt(pairs)
    return ShapleyParts(segments, means.mean(axis=0), errors, False)


def _images(pairs, parts):
    """How many images as many orders and their reverses take: nobody and all come but once."""
    return 2 + pairs * 2 * (parts - 1)


def _along(orders, worth):
    """What each part adds to those before it, for orders (N, parts), float64 (N, parts)."""
    count, parts = orders.shape
    places = orders.argsort(axis=1)  # of each part in its order
    shown = places[:, np.newaxis] <= np.arange(parts - 1)[:, np.newaxis]
    ends = np.repeat([[False], [True]], parts, axis=1)
    found = worth(np.concatenate([ends, shown.reshape(-1, parts)]))
    nobody, everybody = (np.full((count, 1), end) for end in found[:2])
    ways = np.hstack([nobody, found[2:].reshape(count, parts - 1), everybody])
    return np.take_along_axis(np.diff(ways, axis=1), places, axis=1)


def shapley_map(model, images, targets, *, n_segments=50, method="slic", **options):
    """Return the Shapley values of superpixels, painted on them, float32 (N, H, W), signed.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    n_segments, method
        As in `lime_image.superpixels`.
    **options
        As in `explain_parts`, `segments` excepted. Every image is explained with the same seed,
        so that its map does not depend on the images beside it.

    Raises
    ------
    ValueError
        If an argument does not fit.
    """
    given, images = np.asarray(images), check_images(model, images)
    targets = check_targets(model, targets, len(images))
    heatmaps = np.empty(images.shape[:3], np.float32)
    for n, heatmap in enumerate(heatmaps):
        segments = superpixels(images[n], method, n_segments)
        found = explain_parts(model, given[n], targets[n], segments=segments, **options)
        heatmap[:] = found.values[segments]
    return heatmaps
