"""Scores of explanations: against a known truth, against the model, and against each other."""

import numpy as np
from scipy.stats import rankdata

from course_utils._scores import of_target, predict, score_model
from course_utils._shared import check_fill, check_images, check_targets, check_whole


def pointing_game(heatmaps, masks):
    """Return whether the largest value of each heat map lies on the object, float64 (N,).

    1 if it does, 0 if not; where several pixels share the largest value, the share of them that
    lie on the object, so that a constant map scores the object's share of the area.

    Parameters
    ----------
    heatmaps : array (N, H, W)
    masks : bool array (N, H, W)
        True on the object.

    Raises
    ------
    ValueError
        If the shapes differ, a mask is empty, or a heat map holds NaN or infinity.

    References
    ----------
    Zhang et al., Top-down Neural Attention by Excitation Backprop (2016).
    """
    heatmaps, masks = _check(heatmaps, masks)
    largest = heatmaps == heatmaps.max(axis=(1, 2), keepdims=True)
    return (largest & masks).sum(axis=(1, 2)) / largest.sum(axis=(1, 2))


def mass_inside(heatmaps, masks):
    """Return the share of each heat map's positive values that lies on the object, float64 (N,).

    Negative values count as none. A map without positive values scores 0, but a constant one,
    which prefers no place, scores the object's share of the area.

    Parameters and errors are those of `pointing_game`.
    """
    heatmaps, masks = _check(heatmaps, masks)
    positive = np.maximum(heatmaps, 0)
    constant = np.ptp(heatmaps, axis=(1, 2)) == 0
    positive[constant] = 1
    total = positive.sum(axis=(1, 2))
    inside = (positive * masks).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def rank_correlation(heatmaps, others):
    """Return how alike two heat maps of an image rank its pixels, float64 (N,).

    Spearman's rank correlation: 1 where both put the pixels in the same order, -1 where in the
    opposite order. Equal values share the mean of their ranks. A constant map ranks nothing, and
    so agrees and disagrees with no map, another constant one included: 0.

    Parameters
    ----------
    heatmaps, others : array (N, H, W)

    Raises
    ------
    ValueError
        If the shapes differ, or a heat map holds NaN or infinity.

    References
    ----------
    Adebayo et al., Sanity Checks for Saliency Maps (2018), compare maps in this way.
    """
    heatmaps, others = np.asarray(heatmaps, np.float64), np.asarray(others, np.float64)
    _check_same_shape("heatmaps", heatmaps, "others", others)
    _check_finite("heatmaps", heatmaps)
    _check_finite("others", others)
    ranks, other_ranks = _centred_ranks(heatmaps), _centred_ranks(others)
    # The ranks are halves of whole numbers, so that a constant map's are exactly 0.
    norm = np.sqrt(np.square(ranks).sum(axis=1) * np.square(other_ranks).sum(axis=1))
    product = (ranks * other_ranks).sum(axis=1)
    correlation = np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0)
    return correlation.clip(-1, 1)  # rounding can lead beyond by the last digit


def completeness_gap(
    model, images, targets, heatmaps, *, baseline=0.0, score="logit", batch_size=64
):
    """Return how far each heat map is from adding up to the change of the score, float64 (N,).

    Integrated gradients claim to be complete: their sum is the score of the image less that of
    the baseline. The gap is ``|sum - change| / |change|``: 0 where the claim holds, 1 for a map
    of zeros. Where the score does not change at all, the gap is 0 if the map adds up to 0 and
    infinite if not.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class that was explained, for all images or for each.
    heatmaps : array (N, H, W)
    baseline : float, array (C,) or array (H, W, C)
        The image that the explanation starts from.
    score : "logit" or "probability"
        Which score was explained.
    batch_size : int
        Images that are in memory at a time.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks (2017), section 3.
    """
    images, targets, heatmaps = _check_explained(model, images, targets, heatmaps)
    baseline = check_fill(baseline, images.shape[1:], "baseline")[np.newaxis]
    check_whole("batch_size", batch_size, 1)
    scores = score_model(model, score)
    outputs = predict(scores, images, batch_size).astype(np.float64)
    start = predict(scores, baseline, 1).astype(np.float64).repeat(len(images), axis=0)
    change = of_target(outputs, targets, score) - of_target(start, targets, score)
    gap = np.abs(heatmaps.sum(axis=(1, 2)) - change)
    unchanged = np.where(gap > 0, np.inf, 0.0)
    return np.divide(gap, np.abs(change), out=unchanged, where=change != 0)


def _centred_ranks(heatmaps):
    """The ranks of each map's pixels, less their mean, float64 (N, H * W)."""
    ranks = rankdata(heatmaps.reshape(len(heatmaps), -1), axis=1)
    return ranks - (ranks.shape[1] + 1) / 2


def _check_explained(model, images, targets, heatmaps):
    """Return images, targets and heatmaps that fit each other, or say what is wrong."""
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    heatmaps = np.asarray(heatmaps, np.float64)
    if heatmaps.shape != images.shape[:3]:
        raise ValueError(
            f"heatmaps must have shape {images.shape[:3]}, one for each image and of its size, "
            f"got {heatmaps.shape}."
        )
    _check_finite("heatmaps", heatmaps)
    return images, targets, heatmaps


def _check(heatmaps, masks):
    heatmaps, masks = np.asarray(heatmaps, np.float64), np.asarray(masks)
    _check_same_shape("heatmaps", heatmaps, "masks", masks)
    if masks.dtype != bool:
        raise ValueError(f"masks must be bool, True on the object, got {masks.dtype}.")
    _check_finite("heatmaps", heatmaps)
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(
            f"mask {empty[0]} is empty ({len(empty)} of {len(masks)} are): there is no object to "
            "find. Leave such images out."
        )
    return heatmaps, masks


def _check_same_shape(name, array, other_name, other):
    if array.ndim != 3 or array.shape != other.shape:
        raise ValueError(
            f"{name} and {other_name} must have the same shape (N, height, width), "
            f"got {array.shape} and {other.shape}."
        )


def _check_finite(name, heatmaps):
    if not np.isfinite(heatmaps).all():
        raise ValueError(f"{name} must be finite, but they hold NaN or infinity.")
