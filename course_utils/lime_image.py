"""LIME for images: hide superpixels at random, and fit a weighted linear model to the scores."""

import heapq
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from course_utils._scores import forward, of_target, score_model
from course_utils._shared import check_fill, check_images, check_targets, check_whole


class LimeExplanation(NamedTuple):
    """What LIME found: a linear model of the score in the superpixels that are shown."""

    segments: np.ndarray
    """int (H, W): the superpixel of each pixel."""
    weights: np.ndarray
    """float64 (number of superpixels,): what showing a superpixel adds to the score."""
    intercept: float
    """The linear model's score where everything is hidden."""
    r2: float
    """How much of the scores' weighted variance the linear model accounts for, at most 1; it is 1
    where the scores do not vary."""


METHODS = ("slic", "kmeans", "quickshift", "meanshift")


def superpixels(image, method="slic", n_segments=50):
    """Cut an image into superpixels: patches of neighbouring pixels of similar colour.

    Parameters
    ----------
    image : array (H, W, 1) or (H, W, 3)
        Grey or colour, on any scale: its values are stretched to 0..1 first.
    method : "slic", "kmeans", "quickshift" or "meanshift"
        SLIC (Achanta et al., 2012); k-means on colour and position, as document 002 describes;
        quickshift (Vedaldi and Soatto, 2008), the lime library's own; mean shift (Comaniciu and
        Meer, 2002).
    n_segments : int
        About how many. SLIC and k-means come near it; quickshift and mean shift find at most as
        many, fewer where the image has fewer patches to find.

    Returns
    -------
    int64 (H, W)
        Labels 0, 1, 2, ... without gaps. The same image gives the same labels. A patch of SLIC or
        mean shift is in one piece; one of k-means or quickshift can be in several.

    Raises
    ------
    ValueError
        If the image has another shape or is not finite, there is no such method, or `n_segments`
        is not from 2 to the number of pixels.
    """
    image = _stretched(image)
    if method not in METHODS:
        known = ", ".join(repr(name) for name in METHODS)
        raise ValueError(f"there is no method {method!r} to cut an image. There are {known}.")
    check_whole("n_segments", n_segments, 2, image.shape[0] * image.shape[1])
    cut = {"slic": _slic, "kmeans": _kmeans, "quickshift": _quickshift, "meanshift": _meanshift}
    return _without_gaps(cut[method](image, n_segments))


def _stretched(image):
    """An image on any scale as float32 (H, W, 3) in 0..1; grey is repeated."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"image must have shape (height, width, 1 or 3), got {image.shape}. "
            "An image with other channels needs segments of your own making."
        )
    if image.dtype.kind not in "fiub" or not np.isfinite(image).all():
        raise ValueError(f"image must hold finite numbers ({image.dtype}): it does not.")
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    stretched = (image - low) / (high - low) if high > low else np.zeros_like(image)
    return np.repeat(stretched, 3 // image.shape[2], axis=2).astype(np.float32)


def _without_gaps(labels):
    """The same partition with labels 0, 1, 2, ..., int64."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def _slic(image, n_segments):
    from skimage.segmentation import slic

    # skimage's own compactness (10) and smallest size (0.5) leave 24 to 39 of 50 superpixels.
    return slic(image, n_segments, compactness=20, min_size_factor=0.25, start_label=0)


def _kmeans(image, n_segments):
    """k-means on colour (in Lab) and position, started from a grid, so that nothing is random."""
    height, width = image.shape[:2]
    rows = np.clip(round((n_segments * height / width) ** 0.5), 1, min(height, n_segments))
    columns = min(n_segments // rows, width)
    row, column = np.mgrid[:height, :width]
    grid = (row * rows // height) * columns + column * columns // width
    spacing = (height * width / n_segments) ** 0.5
    # A superpixel's width counts as much as 10 units of Lab colour, the rule of SLIC.
    position = np.stack([row, column], axis=-1) * (10 / spacing)
    pixels = np.concatenate([cv2.cvtColor(image, cv2.COLOR_RGB2Lab), position], axis=-1)
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 20, 0.1)
    labels = grid.reshape(-1, 1).astype(np.int32)
    pixels = pixels.reshape(-1, 5).astype(np.float32)
    flags = cv2.KMEANS_USE_INITIAL_LABELS
    return cv2.kmeans(pixels, rows * columns, labels, stop, 1, flags)[1].reshape(height, width)


def _quickshift(image, n_segments):
    """Quickshift's tree, cut at its longest links so that about `n_segments` parts remain."""
    from skimage.segmentation import quickshift

    spacing = (image.shape[0] * image.shape[1] / n_segments) ** 0.5
    # Its time grows with the square of the kernel size: beyond 5 pixels, joining is cheaper.
    settings = {"ratio": 0.2, "kernel_size": np.clip(spacing / 8, 1, 5), "rng": 0}
    _, _, links = quickshift(image, max_dist=np.inf, return_tree=True, **settings)
    links = np.sort(np.asarray(links).ravel())
    longest = links[-min(n_segments + 1, len(links))]
    labels = quickshift(image, max_dist=longest, **settings)
    return _merged(labels, cv2.cvtColor(image, cv2.COLOR_RGB2Lab), n_segments)


def _meanshift(image, n_segments):
    """Colours shifted to the modes of their surroundings; neighbours that meet are one part."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    spacing = (image.shape[0] * image.shape[1] / n_segments) ** 0.5
    in_bytes = cv2.cvtColor((image * 255).round().astype(np.uint8), cv2.COLOR_RGB2Lab)
    modes = cv2.pyrMeanShiftFiltering(in_bytes, np.clip(spacing / 4, 1, 8), 12, maxLevel=0)
    first, second = _neighbours(image.shape[:2])
    colours = modes.reshape(-1, 3).astype(int)
    meet = np.abs(colours[first] - colours[second]).max(axis=1) <= 1
    pixels = image.shape[0] * image.shape[1]
    graph = coo_matrix((np.ones(meet.sum()), (first[meet], second[meet])), (pixels, pixels))
    labels = connected_components(graph, directed=False)[1].reshape(image.shape[:2])
    return _merged(labels, cv2.cvtColor(image, cv2.COLOR_RGB2Lab), n_segments)


def _neighbours(shape):
    """The pairs of pixels that share an edge, as two arrays of indices into the flat image."""
    index = np.arange(np.prod(shape)).reshape(shape)
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    return first, second


def _merged(labels, colours, n_segments):
    """Join the smallest part to the neighbour of the nearest colour, until `n_segments` remain."""
    labels = _without_gaps(labels)
    parts = labels.max() + 1
    sizes = np.bincount(labels.ravel())
    sums = np.stack([np.bincount(labels.ravel(), c.ravel()) for c in np.moveaxis(colours, -1, 0)])
    sums = sums.T
    first, second = (labels.ravel()[side] for side in _neighbours(labels.shape))
    touching = [set() for _ in range(parts)]
    for a, b in np.unique(np.stack([first, second], 1)[first != second], axis=0).tolist():
        touching[a].add(b)
        touching[b].add(a)
    joined = np.arange(parts)
    queue = [(size, part) for part, size in enumerate(sizes.tolist())]
    heapq.heapify(queue)
    while parts > n_segments:
        size, part = heapq.heappop(queue)
        if joined[part] != part or size != sizes[part]:
            continue  # it has been joined to another, or has grown, since it was queued
        others = sorted(touching[part])
        means = sums[others] / sizes[others, np.newaxis]
        distances = np.square(means - sums[part] / size).sum(axis=1)
        into = others[int(distances.argmin())]
        joined[joined == part] = into
        sizes[into] += size
        sums[into] += sums[part]
        for other in others:
            touching[other].discard(part)
            if other != into:
                touching[other].add(into)
                touching[into].add(other)
        heapq.heappush(queue, (int(sizes[into]), into))
        parts -= 1
    return joined[labels]


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
    image, targets = _check_image(model, image, target)
    segments = _check_segments(segments, image.shape[:2])
    fill = _fill_image(fill, image, segments)
    check_whole("batch_size", batch_size, 1)
    if perturbations is None:
        check_whole("samples", samples, 2)
        shown = np.random.default_rng(seed).integers(0, 2, (samples, segments.max() + 1)) == 1
        shown[0] = True
    else:
        shown = _check_perturbations(perturbations, segments.max() + 1)
    run = forward(score_model(model, score))
    batch_size = min(batch_size, len(shown))
    # _draw is compiled for each shape of its rows: filled up, they come in few shapes.
    rows = np.pad(shown, ((0, -len(shown) % batch_size), (0, -shown.shape[1] % 32)))
    outputs = []
    bar = tqdm(total=len(shown), disable=not progress, unit="image")
    for start in range(0, len(shown), batch_size):
        drawn = _draw(rows[start : start + batch_size], segments, image, fill)
        outputs.append(run(drawn[: len(shown) - start]).numpy())
        bar.update(len(outputs[-1]))
    bar.close()
    scores = of_target(np.concatenate(outputs), np.repeat(targets, len(shown)), score)
    weights, intercept, r2 = _fit(shown, scores, _proximity(shown, kernel_width), ridge)
    return LimeExplanation(segments, weights, intercept, r2)


_PICTURE = tf.TensorSpec((None, None, None), tf.float32)


@tf.function(
    input_signature=[
        tf.TensorSpec((None, None), tf.bool),
        tf.TensorSpec((None, None), tf.int64),
        _PICTURE,
        _PICTURE,
    ],
    jit_compile=True,  # one pass over the pixels, eight times as fast as one for each operation
)
def _draw(shown, segments, image, fill):
    """The image with each row's hidden superpixels filled, float32 (rows, H, W, C)."""
    return tf.where(tf.gather(shown, segments, axis=1)[..., tf.newaxis], image, fill)


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
    shown, scores = shown.astype(np.float64), scores.astype(np.float64)
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
    return weights, float(intercept), float(1 - left / variance) if variance else 1.0


def _check_image(model, image, target):
    """The image as float32 (H, W, C) and its target as int64 (1,)."""
    image = np.asarray(image)
    if image.ndim != 3:
        hint = " Explain one image at a time, or use lime_map." if image.ndim == 4 else ""
        raise ValueError(
            f"image must have shape (height, width, channels), got {image.shape}.{hint}"
        )
    return check_images(model, image[np.newaxis])[0], check_targets(model, target, 1)


def _check_segments(segments, size):
    """Return `segments` as int64 (H, W) with labels 0, 1, 2, ..., or say what is wrong."""
    segments = np.asarray(segments)
    if segments.shape != size:
        raise ValueError(f"segments must have the image's size {size}, got {segments.shape}.")
    if segments.dtype.kind not in "iu":
        raise ValueError(f"segments must be whole numbers (labels), got {segments.dtype}.")
    labels = np.unique(segments)
    if not np.array_equal(labels, np.arange(len(labels))):
        raise ValueError(
            f"segments must be labelled 0, 1, 2, ... without gaps, got {len(labels)} labels from "
            f"{labels[0]} to {labels[-1]}. np.unique(segments, return_inverse=True)[1]"
            ".reshape(segments.shape) renumbers them."
        )
    return segments.astype(np.int64)


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


def _fill_image(fill, image, segments):
    """What stands where a superpixel is hidden, float32 (H, W, C)."""
    if isinstance(fill, str):
        if fill != "mean":
            raise ValueError(f'fill must be "mean", a number, a colour or an image, got {fill!r}.')
        labels = segments.ravel()
        sums = [np.bincount(labels, channel.ravel()) for channel in np.moveaxis(image, -1, 0)]
        means = np.stack(sums, axis=-1) / np.bincount(labels)[:, np.newaxis]
        return means.astype(np.float32)[segments]
    return check_fill(fill, image.shape)


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
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    heatmaps = np.empty(images.shape[:3], np.float32)
    for heatmap, image, target in zip(heatmaps, images, targets, strict=True):
        segments = superpixels(image, method, n_segments)
        found = explain_image(model, image, target, segments=segments, **options)
        heatmap[:] = found.weights[segments]
    return heatmaps
