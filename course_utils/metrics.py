"""Scores of explanations: against a known truth, against the model, and against each other."""

import numpy as np
from scipy.stats import norm, rankdata
from tqdm.auto import tqdm

from course_utils._arrays import check_whole
from course_utils._fidelity import (  # noqa: F401 - the last three are public here
    Curve,
    check_explained,
    check_finite,
    infidelity,
    max_sensitivity,
    road_curve,
)
from course_utils._scores import of_target, predict, score_model
from course_utils._shared import check_fill


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

    Negative values count as none. A constant map, all zeros included, prefers no place and scores
    the object's share of the area. Any other map without positive values has no share to speak of
    and scores 0 by convention.

    Parameters and errors are those of `pointing_game`.

    References
    ----------
    Arras, Osman and Samek, CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of
    Neural Network Explanations (2022), call it relevance mass accuracy. Kohlbrenner et al.,
    Towards Best Practice in Explaining Neural Network Decisions with LRP (2020), had it before as
    the inside-total relevance ratio, with a box in place of the mask.
    """
    heatmaps, masks = _check(heatmaps, masks)
    positive = np.maximum(heatmaps, 0)
    constant = np.ptp(heatmaps, axis=(1, 2)) == 0
    positive[constant] = 1
    total = positive.sum(axis=(1, 2))
    inside = (positive * masks).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def rank_inside(heatmaps, masks):
    """Return the share of each heat map's largest values that lies on the object, float64 (N,).

    As many values are looked at as the object has pixels. Where several share the last of these
    places, those on the object have it in proportion, so that a constant map scores the object's
    share of the area.

    Parameters and errors are those of `pointing_game`.

    References
    ----------
    Arras, Osman and Samek, CLEVR-XAI: A Benchmark Dataset for the Ground Truth Evaluation of
    Neural Network Explanations (2022), call it relevance rank accuracy.
    """
    heatmaps, masks = _check(heatmaps, masks)
    pixels = masks.sum(axis=(1, 2))
    rising = np.sort(heatmaps.reshape(len(heatmaps), -1), axis=1)
    last = rising[np.arange(len(rising)), -pixels][:, np.newaxis, np.newaxis]
    above, level = heatmaps > last, heatmaps == last
    places = pixels - above.sum(axis=(1, 2))
    shared = (level & masks).sum(axis=(1, 2)) / level.sum(axis=(1, 2))
    return ((above & masks).sum(axis=(1, 2)) + places * shared) / pixels


def hit_interval(hits, confidence=0.95):
    """Return in which interval the rate lies of which `hits` are a sample, floats (low, high).

    Wilson's interval. A mean plus or minus its error, and the bootstrap, shrink to nothing where
    all images are hits or none is; of 200 hits out of 200 it does not follow that there are no
    misses, and this interval says so. Parts of a hit, as of `pointing_game`, count as such; for
    them the interval is a little too wide.

    Parameters
    ----------
    hits : array (N,)
        1 for a hit, 0 for a miss, or between.
    confidence : float
        How often such intervals shall hold the rate.

    Raises
    ------
    ValueError
        If there are no hits, they are not from 0 to 1, or the confidence is not between 0 and 1.

    References
    ----------
    Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    """
    hits = np.asarray(hits, np.float64)
    if hits.ndim != 1 or not len(hits) or not ((hits >= 0) & (hits <= 1)).all():
        raise ValueError(f"hits must be from 0 to 1, one for each image, got shape {hits.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}.")
    rate, spread = hits.mean(), norm.ppf((1 + confidence) / 2) ** 2 / len(hits)
    middle = (rate + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (rate * (1 - rate) + spread / 4)) / (1 + spread)
    return float(max(middle - half, 0)), float(min(middle + half, 1))


def rank_correlation(heatmaps, others):
    """Return how alike two heat maps of an image rank its pixels, float64 (N,).

    Spearman's rank correlation: 1 where both put the pixels in the same order, -1 where in the
    opposite order. Equal values share the mean of their ranks. A constant map ranks nothing, so
    that there is no order to compare: with it the correlation is undefined (zero divided by zero),
    and is NaN. It is not 0, which says that two orders have nothing to do with each other. Means
    over several images should leave NaN out and say of how many images they speak.

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
    check_finite("heatmaps", heatmaps)
    check_finite("others", others)
    ranks, other_ranks = _centred_ranks(heatmaps), _centred_ranks(others)
    # The ranks are halves of whole numbers, so that a constant map's are exactly 0.
    sizes = np.sqrt(np.square(ranks).sum(axis=1) * np.square(other_ranks).sum(axis=1))
    product = (ranks * other_ranks).sum(axis=1)
    correlation = np.divide(product, sizes, out=np.full_like(sizes, np.nan), where=sizes > 0)
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
    images, targets, heatmaps = check_explained(model, images, targets, heatmaps)
    baseline = check_fill(baseline, images.shape[1:], "baseline", model)[np.newaxis]
    check_whole("batch_size", batch_size, 1)
    scores = score_model(model, score)
    outputs = predict(scores, images, batch_size).astype(np.float64)
    start = predict(scores, baseline, 1).astype(np.float64).repeat(len(images), axis=0)
    change = of_target(outputs, targets, score) - of_target(start, targets, score)
    gap = np.abs(heatmaps.sum(axis=(1, 2)) - change)
    unchanged = np.where(gap > 0, np.inf, 0.0)
    return np.divide(gap, np.abs(change), out=unchanged, where=change != 0)


def deletion_curve(
    model,
    images,
    targets,
    heatmaps,
    *,
    steps=32,
    fill=0.0,
    score="probability",
    batch_size=64,
    progress=False,
):
    """Delete the pixels of each image, those that its heat map holds largest first.

    A small area speaks for the heat map: the score falls early. Only the order of its values
    matters. Equal values have no order, so their pixels go together; a step that would divide
    them takes the score on the straight line between none of them and all, which is what a
    random order gives a linear model on average. A constant map's curve is therefore the straight
    line from the whole image to the fill.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class whose score is watched, for all images or for each.
    heatmaps : array (N, H, W)
    steps : int
        In how many steps, at most the number of pixels.
    fill : float, array (C,) or array (H, W, C)
        What stands where a pixel is deleted: one value, a colour, or another image.
    score : "probability" or "logit"
        Which score to watch; "probability" is the output as it is, also of a network without a
        softmax or sigmoid at its end.
    batch_size : int
        Altered images that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Curve

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box
    Models (2018), section 4.
    """
    images, targets, heatmaps = check_explained(model, images, targets, heatmaps)
    filled = np.broadcast_to(check_fill(fill, images.shape[1:], model=model), images.shape)
    options = (steps, score, batch_size, progress)
    return _curve(model, images, filled, targets, heatmaps, *options)


def insertion_curve(
    model,
    images,
    targets,
    heatmaps,
    *,
    steps=32,
    fill=0.0,
    score="probability",
    batch_size=64,
    progress=False,
):
    """Insert each image's pixels into the fill, those that its heat map holds largest first.

    A large area speaks for the heat map: the score rises early. All else is as in
    `deletion_curve`.
    """
    images, targets, heatmaps = check_explained(model, images, targets, heatmaps)
    filled = np.broadcast_to(check_fill(fill, images.shape[1:], model=model), images.shape)
    options = (steps, score, batch_size, progress)
    return _curve(model, filled, images, targets, heatmaps, *options)


def _curve(model, start, stop, targets, heatmaps, steps, score, batch_size, progress):
    """The Curve from the images `start` to the images `stop`, both (N, H, W, C)."""
    count, pixels = len(start), heatmaps[0].size
    check_whole("steps", steps, 1, pixels)
    check_whole("batch_size", batch_size, 1)
    scores = score_model(model, score)
    rising, before, behind, share = _cuts(heatmaps.reshape(count, -1), steps)
    # Every altered image is one number, so that each is computed once: which image, which cut.
    keys = np.arange(count)[:, np.newaxis] * (pixels + 1) + np.stack([before, behind])
    needed, inverse = np.unique(keys, return_inverse=True)
    found = np.empty(len(needed))
    bar = tqdm(total=len(needed), disable=not progress, unit="image")
    for first in range(0, len(needed), batch_size):
        which, cuts = np.divmod(needed[first : first + batch_size], pixels + 1)
        # The smallest value that is changed; with a cut of 0, none is.
        smallest = np.where(cuts > 0, rising[which, np.minimum(pixels - cuts, pixels - 1)], np.inf)
        changed = (heatmaps[which] >= smallest[:, np.newaxis, np.newaxis])[..., np.newaxis]
        outputs = predict(scores, np.where(changed, stop[which], start[which]), batch_size)
        found[first : first + batch_size] = of_target(outputs, targets[which], score)
        bar.update(len(which))
    bar.close()
    without, with_all = found[inverse.reshape(keys.shape)]
    values = without + share * (with_all - without)
    fractions = _step_counts(pixels, steps) / pixels
    return Curve(fractions, values, np.trapezoid(values, fractions, axis=1))


def _cuts(heatmaps, steps):
    """Where the steps divide the pixels of heat maps (N, P), largest first.

    Returns the sorted values (N, P), smallest first; and for each step, (N, steps + 1), the cuts
    between unequal pixels next to it (a cut is how many pixels are changed, the largest first),
    before and behind it, and the share of the way from one to the other.
    """
    rising = np.sort(heatmaps, axis=1)
    pixels = heatmaps.shape[1]
    counts = _step_counts(pixels, steps)
    last = rising[:, -np.maximum(counts, 1)]  # the value that each step changes last
    rows = list(zip(rising, last, strict=True))
    before = pixels - np.stack([row.searchsorted(values, "right") for row, values in rows])
    behind = pixels - np.stack([row.searchsorted(values, "left") for row, values in rows])
    share = (counts - before) / (behind - before)
    # A step that ends between unequal pixels needs one image, not two.
    before = np.where(share == 1, behind, before)
    behind = np.where(share == 0, before, behind)
    return rising, before, behind, share


def _step_counts(pixels, steps):
    """How many pixels are changed after each step, from none to all."""
    return np.linspace(0, pixels, steps + 1).round().astype(np.int64)


def _centred_ranks(heatmaps):
    """The ranks of each map's pixels, less their mean, float64 (N, H * W)."""
    ranks = rankdata(heatmaps.reshape(len(heatmaps), -1), axis=1)
    return ranks - (ranks.shape[1] + 1) / 2


def _check(heatmaps, masks):
    heatmaps, masks = np.asarray(heatmaps, np.float64), np.asarray(masks)
    _check_same_shape("heatmaps", heatmaps, "masks", masks)
    if masks.dtype != bool:
        raise ValueError(f"masks must be bool, True on the object, got {masks.dtype}.")
    check_finite("heatmaps", heatmaps)
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
