"""LIME for images: hide superpixels at random, and fit a weighted linear model to the scores."""

from typing import NamedTuple

import numpy as np

from course_utils._arrays import check_whole
from course_utils._parts import check_image, check_segments, fill_image, part_scores
from course_utils._shared import check_images, check_targets
from course_utils._superpixels import superpixels


class LimeExplanation(NamedTuple):
    """What LIME found: a linear model of the score in the superpixels that are shown."""

    segments: np.ndarray
    """int (H, W): the superpixel of each pixel."""
    weights: np.ndarray
    """float64 (number of superpixels,): what showing a superpixel adds to the score."""
    intercept: float
    """The linear model's score where everything is hidden."""
    r2: float
    """How much of the scores' weighted variance the linear model accounts for, at most 1; NaN
    where the scores do not vary, so that there is nothing to account for."""


def explain_image(
    model,
    image,
    target,
    *,
    segments,
    perturbations=None,
    samples=1000,
    fill="mean",
    kernel_width=0.25,
    ridge=0.0,
    score="probability",
    seed=0,
    batch_size=64,
    progress=False,
):
    """Explain one answer by LIME: what showing each superpixel adds to the score of the target.

    Parameters
    ----------
    model : keras.Model
    image : array (H, W, C)
    target : int
        The class to explain.
    segments : int array (H, W)
        The superpixel of each pixel, 0, 1, 2, ..., as `superpixels` returns them.
    perturbations : 0/1 array (samples, number of superpixels), optional
        Which superpixels each sample shows. If not given, the first sample shows all, and each
        other one shows each superpixel with probability one half.
    samples : int
        How many samples to draw, where `perturbations` is not given. With fewer than one more
        than there are superpixels the fit is perfect and means nothing, unless `ridge` holds it.
    fill : "mean", float, array (C,) or array (H, W, C)
        What hides a superpixel: its mean colour, as in the lime library; a value or colour; or
        another image.
    kernel_width : float
        A sample at cosine distance d from the whole image weighs
        sqrt(exp(-d**2 / kernel_width**2)).
    ridge : float
        Penalty on the squared weights; 0 is plain least squares, 1 what the lime library takes.
    score : "probability" or "logit"
        Which score to explain; "probability" is the output as it is, also of a network without a
        softmax or sigmoid at its end.
    seed : int
        Of the random samples.
    batch_size : int
        Samples that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    LimeExplanation
        Where the samples cannot tell superpixels apart, the smallest weights that fit best.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Ribeiro, Singh and Guestrin, "Why Should I Trust You?" (2016).
    """
    image, target = check_image(model, image, target, "lime_map")
    segments = check_segments(segments, image.shape[:2])
    fill = fill_image(fill, image, segments, model)
    check_whole("batch_size", batch_size, 1)
    if perturbations is None:
        check_whole("samples", samples, 2)
        shown = np.random.default_rng(seed).integers(0, 2, (samples, segments.max() + 1)) == 1
        shown[0] = True
    else:
        shown = _check_perturbations(perturbations, segments.max() + 1)
    scores = part_scores(
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
    weights, intercept, r2 = _fit(shown, scores, _proximity(shown, kernel_width), ridge)
    return LimeExplanation(segments, weights, intercept, r2)


def _proximity(shown, kernel_width):
    """How much each sample weighs: less, the more it hides."""
    if not 0 < kernel_width < np.inf:
        raise ValueError(f"kernel_width must be a positive number, got {kernel_width}.")
    # The cosine distance of a row of zeros and ones from the row of ones.
    distance = 1 - np.sqrt(shown.mean(axis=1))
    proximity = np.sqrt(np.exp(-((distance / kernel_width) ** 2)))
    if not proximity.any():
        raise ValueError(
            f"with kernel_width={kernel_width} every sample weighs nothing: take a larger one."
        )
    return proximity


def _fit(shown, scores, proximity, ridge):
    """Weighted least squares with an intercept: (weights, intercept, r2)."""
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge must be zero or a positive number, got {ridge}.")
    shown = shown.astype(np.float64)
    first, scores = scores[0], scores - scores[0]  # so that scores that are all equal are all 0
    mean_shown = np.average(shown, axis=0, weights=proximity)
    mean_score = np.average(scores, weights=proximity)
    root = np.sqrt(proximity)
    rows, values = (shown - mean_shown) * root[:, np.newaxis], (scores - mean_score) * root
    # The normal equations, because they are small: on the rows themselves, several threads of
    # the linear algebra can take a hundred times longer. lstsq solves singular ones as well.
    normal = rows.T @ rows + ridge * np.eye(shown.shape[1])
    weights = np.linalg.lstsq(normal, rows.T @ values, rcond=1e-12)[0]
    intercept = first + mean_score - mean_shown @ weights
    variance = np.square(values).sum()
    left = np.square(values - rows @ weights).sum()
    return weights, float(intercept), float(1 - left / variance) if variance else np.nan


def _check_perturbations(perturbations, superpixels):
    """Return `perturbations` as bool (samples, superpixels), or say what is wrong with them."""
    perturbations = np.asarray(perturbations)
    if perturbations.ndim != 2 or perturbations.shape[1] != superpixels or len(perturbations) < 2:
        raise ValueError(
            f"perturbations must have shape (samples, {superpixels}), a column for each "
            f"superpixel and at least 2 samples, got {perturbations.shape}."
        )
    if perturbations.dtype.kind not in "fiub" or not np.isin(perturbations, (0, 1)).all():
        raise ValueError("perturbations must hold 0 (hidden) and 1 (shown) and nothing else.")
    return perturbations == 1


def lime_map(model, images, targets, *, n_segments=50, method="slic", **options):
    """Return LIME's weights painted on their superpixels, float32 (N, H, W), signed.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    n_segments, method
        As in `superpixels`.
    **options
        As in `explain_image`, `segments` excepted. Every image is explained with the same seed,
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
        found = explain_image(model, given[n], targets[n], segments=segments, **options)
        heatmap[:] = found.weights[segments]
    return heatmaps
