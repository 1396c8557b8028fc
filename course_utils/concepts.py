"""Concepts: what a layer knows of an idea that has examples, and whether the score uses it.

A probe tells whether the idea can be read from what the layer puts out; the slope of the score
along the idea's direction, whether a step that way would change the answer; and network
dissection, which single units answer to which things in the picture.
"""

import numpy as np

from course_utils._arrays import check_whole
from course_utils._inside import outputs_of, slopes_of
from course_utils._masks import enlarging
from course_utils._shared import check_images, check_targets


def probe(model, images, concepts, *, layers, folds=5, ridge=0.01, seed=0, batch_size=64):
    """Return how well a linear classifier reads concepts from what some layers put out.

    It is fitted to all images but one fold and asked about those in the fold, for each of the
    folds in turn.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    concepts : bool array (N,) or (N, K)
        Which images show the concept, or each of K concepts.
    layers : list of str, int or keras layers
        As `embedding.layer_outputs` takes them.
    folds : int
        Into how many parts the images are divided, at random.
    ridge : float
        The penalty on the weights of the classifier, as a share of the mean squared length of
        the centred outputs: without one, a layer of more numbers than images fits anything.
    seed : int
        Of the division.
    batch_size : int
        Images that run through the network at a time. The outputs of one layer for all images are
        in memory at once.

    Returns
    -------
    dict
        From each item of `layers` to the balanced accuracy on images that were left out, the mean
        of the share of right answers among those with the concept and among those without: .5 is
        chance. A float, or float64 (K,) for K concepts.

    Raises
    ------
    ValueError
        If an argument does not fit, or a concept is in all images or in none.

    References
    ----------
    Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes (2016),
    arXiv:1610.01644. Hewitt and Liang, Designing and Interpreting Probes with Control Tasks (2019).
    """
    images = check_images(model, images)
    labels, single = _check_concepts(concepts, len(images))
    check_whole("folds", folds, 2, len(images))
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"layers must be a list of layers, such as ['conv_1'], got {layers!r}.")
    fold = np.random.default_rng(seed).permutation(np.arange(len(images)) % folds)
    found = {}
    for layer in layers:
        features = _shortened(_flat(outputs_of(model, images, layer, batch_size)))
        says = np.empty(labels.shape, bool)
        for k in range(folds):
            says[fold == k] = _held_out(features, labels, fold == k, _check_ridge(ridge))
        hits, passes = (
            np.sum((says == of) & (labels == of), axis=0) / np.sum(labels == of, axis=0)
            for of in (True, False)
        )
        found[layer] = float((hits + passes)[0] / 2) if single else (hits + passes) / 2
    return found


def concept_vectors(model, images, concepts, *, layer, ridge=0.01, batch_size=64):
    """Return the direction in what a layer puts out that tells best whether a concept is there.

    It is the normal of the linear classifier that tells the images that show the concept from
    those that do not: ridge regression of the labels on what the layer puts out. When the concept
    appears, what the layer puts out need not move along it (Pahde et al., 2025).

    Parameters
    ----------
    model, images, concepts, ridge, batch_size
        As in `probe`.
    layer : str, int or keras layer
        A name, an index into ``model.layers``, or the layer itself; a nested model's layer by its
        name or its path, "inner/conv".

    Returns
    -------
    float32 (...) or (K, ...)
        Of length 1, in the shape of what the layer puts out for an image, with channels last.

    Raises
    ------
    ValueError
        If an argument does not fit, a concept is in all images or in none, or the layer puts out
        the same for all images.

    References
    ----------
    Kim et al., Interpretability Beyond Feature Attribution: Quantitative Testing with Concept
    Activation Vectors (TCAV) (ICML 2018), arXiv:1711.11279. Pahde et al., Navigating Neural Space
    (ICLR 2025), arXiv:2202.03482.
    """
    images = check_images(model, images)
    labels, single = _check_concepts(concepts, len(images))
    check_whole("batch_size", batch_size, 1)
    outputs = outputs_of(model, images, layer, batch_size)
    features = _flat(outputs)
    same = (features == features[0]).all()  # the mean of equal floats need not be that float
    features = features - features.mean(axis=0)
    vectors = _weights(features, labels, _check_ridge(ridge)).T.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if same or not lengths.all():
        raise ValueError("the layer puts out the same with the concept and without it.")
    vectors = (vectors / lengths).reshape(-1, *outputs.shape[1:])
    return vectors[0] if single else vectors


def sensitivities(model, images, targets, *, layer, vectors, score="logit", batch_size=64):
    """Return how much a score rises for a step along a concept's vector, float64 (N,) or (N, K).

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class whose score it is, for all images or for each.
    layer
        As in `concept_vectors`.
    vectors : array (...) or (K, ...)
        Directions in what the layer puts out, as `concept_vectors` returns them.
    score : "logit" or "probability"
    batch_size : int
        Images that are in memory at a time.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    As for `concept_vectors`, where this is the conceptual sensitivity.
    """
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    check_whole("batch_size", batch_size, 1)
    slopes = slopes_of(model, images, targets, layer, score, batch_size)
    vectors = np.asarray(vectors)
    shape = slopes.shape[1:]
    if vectors.dtype.kind not in "fiu" or vectors.shape[vectors.ndim - len(shape) :] != shape:
        raise ValueError(
            f"vectors must have the shape of what the layer puts out, {shape}, or (K, ...) of it, "
            f"got {vectors.dtype} {vectors.shape}."
        )
    if vectors.ndim not in (len(shape), len(shape) + 1) or not np.isfinite(vectors).all():
        raise ValueError(
            f"vectors must be finite and one {shape} or several, got shape {vectors.shape}."
        )
    along = _flat(slopes).astype(np.float64) @ vectors.reshape(-1, slopes[0].size).T
    return along[:, 0] if vectors.ndim == len(shape) else along


def tcav_scores(model, images, targets, *, layer, vectors, score="logit", batch_size=64):
    """Return the share of images whose score rises along a concept's vector, a float or (K,).

    One half is no evidence of nothing, and what a random direction gets need not be near it:
    compare with the scores of many vectors whose labels were drawn at random.

    Parameters
    ----------
    model, images, targets, layer, vectors, score, batch_size
        As in `sensitivities`. The images are those of a class, not the examples of the concept.

    Returns
    -------
    float, or float64 (K,)
        In 0..1.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    As for `concept_vectors`.
    """
    along = sensitivities(
        model, images, targets, layer=layer, vectors=vectors, score=score, batch_size=batch_size
    )
    return (along > 0).mean(axis=0)


def dissect(model, images, masks, *, layer, quantile=0.995, batch_size=64):
    """Return how well the place where each channel is most active fits each kind of thing.

    A channel is active where its map, stretched to the image (bilinear), exceeds the quantile of
    all its values in all images. What counts is the intersection with the mask over their union,
    both counted in pixels of all images together.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    masks : bool array (N, H, W) or (N, H, W, K)
        Where the thing, or each of K things, is.
    layer
        As in `concept_vectors`; it must put out maps.
    quantile : float
        The share of its values, over all images, that does not make a channel active. Where a
        channel is active on less than a thing covers, no more than the ratio of the two can come
        out.
    batch_size : int
        Images that run through the network at a time. The layer's maps of all images are in
        memory at once.

    Returns
    -------
    float64 (channels,) or (channels, K)
        Intersection over union, in 0..1; 0 for a channel that is the same everywhere.

    Raises
    ------
    ValueError
        If an argument does not fit, or the layer puts out no maps.

    References
    ----------
    Bau et al., Network Dissection: Quantifying Interpretability of Deep Visual Representations
    (CVPR 2017), arXiv:1704.05796.
    """
    images = check_images(model, images)
    check_whole("batch_size", batch_size, 1)
    masks, single = _check_masks(masks, images.shape[:3])
    if not (isinstance(quantile, (int, float, np.number)) and 0 < quantile < 1):
        raise ValueError(f"quantile must be a number between 0 and 1, got {quantile!r}.")
    maps = outputs_of(model, images, layer, batch_size)
    if maps.ndim != 4:
        raise ValueError(
            f"layer {layer!r} puts out no maps (N, rows, columns, channels) but {maps.shape}. "
            "Name a convolution or a pooling."
        )
    limits = np.quantile(maps, quantile, axis=(0, 1, 2))
    rows, columns = (enlarging(maps.shape[k], images.shape[k]) for k in (1, 2))
    both, active = np.zeros((maps.shape[3], masks.shape[3])), np.zeros(maps.shape[3])
    for one, mask in zip(maps, masks, strict=True):
        large = np.moveaxis(rows @ np.moveaxis(one, 2, 0) @ columns.T, 0, 2)
        large = np.minimum(large, one.max(axis=(0, 1)))  # rounding can lead beyond
        above = (large > limits).reshape(-1, len(limits)).astype(np.float32)
        both += above.T @ mask.reshape(-1, masks.shape[3])
        active += above.sum(axis=0)
    either = active[:, np.newaxis] + masks.sum(axis=(0, 1, 2)) - both
    fits = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return fits[:, 0] if single else fits


def _flat(outputs):
    return outputs.reshape(len(outputs), -1)


def _products(features):
    """The products of all pairs of rows, float64 (N, N), a block of columns at a time."""
    blocks = np.array_split(features, features.shape[1] // 4096 + 1, axis=1)
    return sum(np.matmul(b, b.T) for b in (block.astype(np.float64) for block in blocks))


def _shortened(features):
    """Rows that have the same products with one another, of no more numbers than there are rows."""
    if features.shape[1] <= len(features):
        return features.astype(np.float64)
    values, vectors = np.linalg.eigh(_products(features))
    return vectors * np.sqrt(np.maximum(values, 0))


def _weights(features, labels, ridge):
    """Ridge regression of the labels on centred features, (numbers, K)."""
    count, numbers = features.shape
    signs = labels - labels.mean(axis=0)
    few = count < numbers
    products = _products(features if few else features.T)
    penalized = products + (ridge * np.trace(products) / count or 1.0) * np.eye(len(products))
    if few:  # The weights are the images' features, so weighted and added up.
        return features.T @ np.linalg.solve(penalized, signs)
    return np.linalg.solve(penalized, features.T @ signs)


def _held_out(features, labels, out, ridge):
    """What a classifier fitted to the other images says of those in `out`, bool (n, K)."""
    known, known_labels = features[~out], labels[~out]
    weights = _weights(known - known.mean(axis=0), known_labels, ridge)
    counts = np.maximum(known_labels.sum(axis=0), 1), np.maximum((~known_labels).sum(axis=0), 1)
    values = known @ weights
    high = np.sum(values * known_labels, axis=0) / counts[0]
    low = np.sum(values * ~known_labels, axis=0) / counts[1]
    return features[out] @ weights > (high + low) / 2


def _check_ridge(ridge):
    number = isinstance(ridge, (int, float, np.number)) and not isinstance(ridge, bool)
    if not number or not 0 < ridge < np.inf:
        raise ValueError(f"ridge must be a positive number, got {ridge!r}.")
    return float(ridge)


def _check_concepts(concepts, count):
    """Return labels as bool (N, K), and whether there is one concept only."""
    labels = np.asarray(concepts)
    if labels.ndim not in (1, 2) or len(labels) != count or labels.size == 0:
        raise ValueError(
            f"concepts must say for each of {count} images whether it shows the concept, shape "
            f"({count},) or ({count}, K), got {labels.shape}."
        )
    if labels.dtype.kind not in "biu" or not np.isin(labels, (0, 1)).all():
        raise ValueError("concepts must be True or False (or 1 and 0).")
    single, labels = labels.ndim == 1, labels.reshape(count, -1).astype(bool)
    if (labels.all(axis=0) | ~labels.any(axis=0)).any():
        raise ValueError(
            "a concept is in all images or in none: there must be some with it and some without."
        )
    return labels, single


def _check_masks(masks, shape):
    """Return masks as bool (N, H, W, K), and whether there is one thing only."""
    masks = np.asarray(masks)
    if masks.ndim not in (3, 4) or masks.shape[:3] != shape or masks.size == 0:
        raise ValueError(
            f"masks must have shape {shape} or {(*shape, 'K')}, as the images, got {masks.shape}."
        )
    if masks.dtype.kind not in "biu" or masks.min() < 0 or masks.max() > 1:
        raise ValueError("masks must be True or False (or 1 and 0).")
    return masks.reshape(*shape, -1).astype(bool), masks.ndim == 3
