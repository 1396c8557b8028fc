"""Superpixels: an image cut into patches of neighbouring pixels of similar colour."""

import heapq

import cv2
import numpy as np

from course_utils._arrays import check_whole

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
