"""Where a network puts its inputs: what its layers put out, maps of it, and its neighbours."""

import keras
import numpy as np
import tensorflow as tf
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from course_utils._arrays import check_whole
from course_utils._plain import kept, plain
from course_utils._scores import forward
from course_utils._shared import check_images, find_layer, layer_output


def layer_outputs(model, inputs, layers, *, mean_over=(), batch_size=64):
    """Return what some layers put out for each input, from one pass through the model.

    Parameters
    ----------
    model : keras.Model
    inputs : array (N, H, W, C)
        Images, or spectrograms (N, bands, time, 1).
    layers : list of str, int or keras layers
        Names, indices into ``model.layers`` or the layers themselves. A layer of a nested model
        goes by its path, "inner/conv", or by its name alone if no other bears it.
    mean_over : int or tuple of int
        Axes of the outputs, counted from 1 (0 holds the inputs), over which to average: 2 is the
        time of a spectrogram, (1, 2) all places of a feature map. None by default.
    batch_size : int
        Inputs that are in memory at a time; of the rest, only the averages are kept.

    Returns
    -------
    dict
        From each item of `layers`, as it was given, to float32 (N, ...): the layer's outputs,
        activation function included, without the axes that were averaged.

    Raises
    ------
    ValueError
        If the inputs do not fit the model, a layer does not exist (those that do are listed), or
        its outputs have no such axis.
    """
    inputs = check_images(model, inputs)
    check_whole("batch_size", batch_size, 1)
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"layers must be a list of layers, such as ['conv_1'], got {layers!r}.")
    run = forward(_up_to(model, layers))
    results = {}
    for start in range(0, len(inputs), batch_size):
        some = slice(start, start + batch_size)
        batch = tf.nest.flatten(run(tf.constant(inputs[some])))  # Keras takes a list of one apart
        for layer, outputs in zip(layers, batch, strict=True):
            means = _average(layer, outputs.numpy(), mean_over)
            if start == 0:
                results[layer] = np.empty((len(inputs), *means.shape[1:]), np.float32)
            results[layer][some] = means
    return results


def _up_to(model, layers):
    """Return the part of `model` that puts out what `layers` do, as a list; made once."""
    found = tuple(id(find_layer(model, layer)) for layer in layers)

    def make():
        part = plain(model)
        return keras.Model(part.inputs[0], [layer_output(model, layer, part) for layer in layers])

    return kept(model, ("layers", found), make)


def _average(layer, outputs, axes):
    """Average the outputs (B, ...) of a layer over `axes`."""
    axes = (axes,) if isinstance(axes, (int, np.integer)) else tuple(axes)
    for axis in axes:
        if isinstance(axis, bool) or not 1 <= axis < outputs.ndim:
            raise ValueError(
                f"mean_over must hold axes from 1 to {outputs.ndim - 1} of the outputs of layer "
                f"{layer!r}, (N, {', '.join(map(str, outputs.shape[1:]))}), got {axis!r}."
            )
    return outputs.mean(axis=axes) if axes else outputs


def project(features, method="pca", seed=0, *, perplexity=None, n_neighbors=None):
    """Return a map of the features: a point in the plane for each, float64 (N, 2).

    Parameters
    ----------
    features : array (N, D)
        One row for each input. Of layer outputs with more axes, flatten or average the others.
    method : "pca", "tsne" or "umap"
        "pca" keeps the two directions of largest variance; it is a linear map, and its signs are
        such that in either direction the largest weight is positive. "tsne" and "umap" keep
        close neighbours close; neither the distances between far points nor the sizes and
        densities of groups need mean anything.
    seed : int
        Of the random numbers of UMAP; t-SNE starts from the map of PCA and draws hardly any, PCA
        none. The same seed gives the same map on the same machine.
    perplexity : float, optional
        Of t-SNE: how many neighbours a point roughly has, 30 if not given.
    n_neighbors : int, optional
        Of UMAP: how many neighbours a point has, itself included, 15 if not given.

    Raises
    ------
    ValueError
        If the features are not finite or all the same, the method is unknown, an option belongs
        to another method, or there are not more points than neighbours.
    ImportError
        If UMAP is asked for and umap-learn is not installed.

    References
    ----------
    Pearson, On Lines and Planes of Closest Fit (1901). Van der Maaten and Hinton, Visualizing
    Data using t-SNE (JMLR 2008). McInnes, Healy and Melville, UMAP (2018), arXiv:1802.03426.
    """
    features = _check_features(features)
    check_whole("seed", seed, 0, 2**32 - 1)
    if method not in ("pca", "tsne", "umap"):
        raise ValueError(f'method must be "pca", "tsne" or "umap", got {method!r}.')
    if len(features) < 5 or features.shape[1] < 2:
        raise ValueError(
            f"a map needs at least 5 points with 2 features each, got {features.shape}."
        )
    for name, value, owner in (
        ("perplexity", perplexity, "tsne"),
        ("n_neighbors", n_neighbors, "umap"),
    ):
        if value is not None and method != owner:
            raise ValueError(f'{name} is an option of "{owner}", not of "{method}".')
    if method == "pca":
        return PCA(2, svd_solver="full").fit_transform(features)
    if method == "tsne":
        return _tsne(features, 30 if perplexity is None else perplexity, seed)
    return _umap(features, 15 if n_neighbors is None else n_neighbors, seed)


def _tsne(features, perplexity, seed):
    if not 1 <= perplexity < len(features):  # NaN fails as well
        raise ValueError(
            f"perplexity must be at least 1 and less than the number of points, {len(features)}, "
            f"got {perplexity!r}."
        )
    # Threads would add up in an order that changes from run to run, and wait for each other on a
    # busy machine.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, random_state=seed).fit_transform(features).astype(float)


def _umap(features, n_neighbors, seed):
    check_whole("n_neighbors", n_neighbors, 2)
    if n_neighbors >= len(features):
        raise ValueError(
            f"{len(features)} points have fewer than {n_neighbors} neighbours each: UMAP needs "
            "more points than n_neighbors."
        )
    try:
        from umap import UMAP, umap_, utils  # takes seconds to import, so only where it is used
    except ImportError:
        raise ImportError(
            'method="umap" needs the package umap-learn: pip install umap-learn, or use "tsne".'
        ) from None
    # With a seed UMAP has one thread; without n_jobs=1 it warns that it has.
    reducer = UMAP(n_neighbors=n_neighbors, random_state=seed, n_jobs=1)
    # UMAP sorts the distances as numpy does, in a loop that takes five seconds to compile: during
    # this call Python runs it. What comes back is umap.utils' own and not what stood here, which
    # may be what another thread has put in. If two threads map at once, the one that ends first
    # puts it back for both: the other may compile it after all, for the same numbers.
    loop = utils.fast_knn_indices
    umap_.fast_knn_indices = getattr(loop, "py_func", loop)
    try:
        return reducer.fit_transform(features).astype(float)
    finally:
        umap_.fast_knn_indices = loop


def neighbour_purity(features, labels, *, k=1, across=None):
    """Return the share of each point's nearest neighbours that bear its label, float64 (N,).

    Its mean is 1 where the features group by label, and where they know nothing of it the chance
    that another point bears the same label.

    Parameters
    ----------
    features : array (N, D)
        One row for each point; neighbours are nearest in Euclidean distance.
    labels : array (N,)
    k : int
        How many neighbours count. Of several equally far ones of which not all count, each
        counts in part, so that the order of the points does not matter.
    across : array (N,), optional
        Another label: only points that differ in it count as neighbours. For what is said, count
        other speakers only; for who says it, other sentences only. Otherwise the nearest
        neighbour may be the same speaker with the same sentence once more, and prove nothing.

    Raises
    ------
    ValueError
        If a shape does not fit, features are not finite or all the same, or a point has fewer
        than k neighbours.
    """
    features = _check_features(features)
    labels = _check_labels("labels", labels, len(features))
    groups = None if across is None else _check_labels("across", across, len(features))
    check_whole("k", k, 1)
    purity = np.empty(len(features))
    for start in range(0, len(features), _ROWS):
        some = np.arange(start, min(start + _ROWS, len(features)))
        distances = cdist(features[some], features)
        apart = some[:, np.newaxis] != np.arange(len(features))
        if groups is not None:
            apart &= groups[some, np.newaxis] != groups
        distances[~apart] = np.inf
        fewest = apart.sum(axis=1).min()
        if fewest < k:
            raise ValueError(
                f"k = {k} neighbours were asked for, but point {some[apart.sum(axis=1).argmin()]} "
                f"has {fewest}. Take a smaller k, or more points."
            )
        purity[some] = _share(distances, labels[some, np.newaxis] == labels, k)
    return purity


_ROWS = 256  # rows of the table of distances that are in memory at a time


def _share(distances, same, k):
    """The share of the k nearest in each row that are `same`; the last place is shared by ties."""
    last = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    nearer, tied = distances < last, distances == last
    places = k - nearer.sum(axis=1)
    return ((nearer & same).sum(axis=1) + places * (tied & same).sum(axis=1) / tied.sum(axis=1)) / k


def _check_features(features):
    """Return `features` as float64 (N, D), or say what is wrong with them."""
    features = np.asarray(features)
    if features.dtype.kind not in "fiub" or features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"features must be numbers of shape (N, D), got {features.dtype} {features.shape}. "
            "Outputs with more axes need averaging or features.reshape(len(features), -1)."
        )
    features = features.astype(np.float64)
    if not np.isfinite(features).all():
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        raise ValueError(
            f"features must be finite, but row {bad[0]} holds NaN or infinity ({len(bad)} of "
            f"{len(features)} do)."
        )
    if (features == features[0]).all():
        raise ValueError("all features are the same: no point is nearer than another.")
    return features


def _check_labels(name, labels, count):
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(f"{name} must be one for each of {count} points, got {labels.shape}.")
    return labels
