"""Class activation maps: a layer's feature maps, weighted by what they do for the target's score.

Grad-CAM and its relatives, which differ in the weights.
"""

import functools
import weakref

import cv2
import numpy as np
import tensorflow as tf
from keras import layers as kl
from tqdm.auto import tqdm

from course_utils._arrays import check_whole
from course_utils._folded import infer
from course_utils._inside import watch
from course_utils._masks import enlarged, enlarging, shown_through
from course_utils._plain import convolves_channels_first, kept
from course_utils._scores import forward, images_spec, of_target, pick, score_model
from course_utils._shared import (
    check_built,
    check_fill,
    check_images,
    check_targets,
    find_layer,
    flat_layers,
    maps_first,
)


def grad_cam(model, images, targets, *, layer=None, score="logit", batch_size=64):
    """Return where the feature maps that speak for the target are active.

    Each feature map weighs as much as the score's mean gradient with respect to it; the weighted
    maps are added up, what is negative becomes 0, and the sum is stretched to the image's size
    (bilinear) and divided by its maximum.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    layer : str, int or keras layer, optional
        Whose feature maps to take: a name, an index into ``model.layers``, or the layer itself;
        a nested model's layer by its name or its path, "inner/conv". If not given, the last layer
        that puts out feature maps and is no pooling, padding or dropout.
    score : "logit" or "probability"
        Which score to differentiate.
    batch_size : int
        Images that are in memory at a time.

    Returns
    -------
    float32 (N, H, W)
        In 0..1, the maximum of each map is 1; all zeros where no part speaks for the target.

    Raises
    ------
    ValueError
        If an argument does not fit, the model has no convolution, or the layer has no feature
        maps or no gradient of the score.

    Notes
    -----
    The detail is that of the feature maps: a cell of a map of 7 × 7 covers a seventh of the image's
    height and width, and what lies between is interpolated. A cell of the map is taken for the
    square of pixels that it covers, where "same" padding puts it; libraries that stretch from
    corner to corner (tf-keras-vis) shift what lies near the edges outwards by half a cell.

    References
    ----------
    Selvaraju et al., Grad-CAM (ICCV 2017). Where a network ends in global average pooling and a
    Dense layer, it equals the class activation maps of Zhou et al. (CVPR 2016) up to scale and
    sign.
    """
    return _class_map(_averaged, model, images, targets, layer, score, batch_size)


def _averaged(maps, gradients):
    return tf.reduce_sum(tf.reduce_mean(gradients, axis=(1, 2), keepdims=True) * maps, axis=-1)


def hires_cam(model, images, targets, *, layer=None, score="logit", batch_size=64):
    """Return where feature maps times their own gradients speak for the target (HiResCAM).

    As `grad_cam`, but each place of a map has its own weight, the gradient there: what the places
    contribute, if the rest of the network is linear. Parameters, result and errors are those of
    `grad_cam`.

    References
    ----------
    Draelos and Carin, Use HiResCAM Instead of Grad-CAM for Faithful Explanations of Convolutional
    Neural Networks (2020).
    """
    return _class_map(_in_place, model, images, targets, layer, score, batch_size)


def _in_place(maps, gradients):
    return tf.reduce_sum(gradients * maps, axis=-1)


def grad_cam_plus_plus(model, images, targets, *, layer=None, score="logit", batch_size=64):
    """Return where the feature maps are active that somewhere speak for the target (Grad-CAM++).

    As `grad_cam`, but a map's weight is the sum of its positive gradients, each weighted so that
    small regions count as much as large ones. Parameters, result and errors are those of
    `grad_cam`.

    References
    ----------
    Chattopadhay et al., Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
    Convolutional Networks (2018), for the exponential of the score, whose factor the division by
    the maximum takes away.
    """
    return _class_map(_plus_plus, model, images, targets, layer, score, batch_size)


def _plus_plus(maps, gradients):
    whole = tf.reduce_sum(maps, axis=(1, 2), keepdims=True)
    # The paper's g² / (2g² + whole g³), where g² cancels: of an unlikely class it would underflow.
    alpha = tf.math.divide_no_nan(1.0, 2 + whole * gradients)
    weights = tf.reduce_sum(alpha * tf.nn.relu(gradients), axis=(1, 2), keepdims=True)
    return tf.reduce_sum(weights * maps, axis=-1)


def layer_cam(model, images, targets, *, layer=None, score="logit", batch_size=64):
    """Return where feature maps times their own positive gradients are large (LayerCAM).

    As `hires_cam`, but what speaks against the target counts nothing, so that finer maps of
    earlier layers are of use. Parameters, result and errors are those of `grad_cam`.

    References
    ----------
    Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization (2021).
    """
    return _class_map(_positive, model, images, targets, layer, score, batch_size)


def _positive(maps, gradients):
    return tf.reduce_sum(tf.nn.relu(gradients) * maps, axis=-1)


def score_cam(
    model,
    images,
    targets,
    *,
    layer=None,
    fill=0.0,
    score="logit",
    batch_size=64,
    progress=False,
):
    """Return where those feature maps are active that, as masks, keep the target's score up.

    No gradient: each map is stretched to the image's size and to 0..1 and laid over the image as
    a mask; the maps weigh as the softmax of the scores of these images. The weighted sum, without
    what is negative, is stretched and divided by its maximum as in `grad_cam`.

    Parameters
    ----------
    model, images, targets, layer, score
        As in `grad_cam`. A forward pass for each map: a layer of 1,280 maps needs as many.
    fill : float, array (C,) or array (H, W, C)
        What stands where a mask is 0.
    batch_size : int
        Masked images that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    float32 (N, H, W)
        As `grad_cam` returns them. A map that is the same everywhere is no mask and counts nothing.

    Raises
    ------
    ValueError
        If an argument does not fit, or the model or the layer has no feature maps.

    References
    ----------
    Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks
    (2020), algorithm 1.
    """
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    fill = check_fill(fill, images.shape[1:], model=model)
    check_whole("batch_size", batch_size, 1)
    scores, found = score_model(model, score), _find_maps(model, layer)
    find_maps, run = _compiled(scores, found, None, _has_first(model, found)), forward(scores)
    coarse, bar = [], None
    for image, target in zip(images, targets, strict=True):
        maps = find_maps(image[np.newaxis], tf.constant([target], tf.int64))[0].numpy()
        grids = np.moveaxis(maps, -1, 0)
        bar = bar or tqdm(total=len(images) * len(grids), disable=not progress, unit="image")
        stretch = [enlarging(maps.shape[a], image.shape[a])[np.newaxis] for a in (0, 1)]
        # shown_through is compiled for each number of masks: filled up, there is but one.
        most = min(batch_size, len(grids))
        filled = np.pad(grids, ((0, -len(grids) % most), (0, 0), (0, 0)))
        outputs = []
        for start in range(0, len(grids), most):
            masks = _stretched_masks(stretch[0], filled[start : start + most], stretch[1])
            drawn = shown_through(masks, image, fill)[: len(grids) - start]
            outputs.append(run(drawn).numpy())
            bar.update(len(outputs[-1]))
        left = of_target(np.concatenate(outputs), np.full(len(grids), target), score)
        varies = np.ptp(grids, axis=(1, 2)) > 0
        weights = np.where(varies, np.exp(left - left[varies].max(initial=-np.inf)), 0)
        coarse.append(np.maximum(maps @ (weights / max(weights.sum(), 1e-30)), 0))
    bar.close()
    return _stretched(coarse, images.shape[1:3])


def _stretched_masks(rows, grids, columns):
    """Feature maps (B, h, w) as masks of the image's size, each from 0 to 1."""
    masks = enlarged(rows, grids, columns)
    masks -= masks.min(axis=(1, 2), keepdims=True)
    most = masks.max(axis=(1, 2), keepdims=True)
    return np.divide(masks, most, out=np.zeros_like(masks), where=most > 0)


def _class_map(combine, model, images, targets, layer, score, batch_size):
    """What Grad-CAM and its relatives do around the sum over maps, `combine`."""
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    check_whole("batch_size", batch_size, 1)
    found = _find_maps(model, layer)
    run = _compiled(score_model(model, score), found, combine, _has_first(model, found))
    coarse = []
    for start in range(0, len(images), batch_size):
        some = slice(start, start + batch_size)
        found = run(tf.constant(images[some]), tf.constant(targets[some]))
        coarse += list(tf.nn.relu(found).numpy())
    return _stretched(coarse, images.shape[1:3])


def _stretched(coarse, size):
    """Maps in the image's size, each divided by its maximum."""
    heatmaps = np.stack([cv2.resize(cam, size[::-1]) for cam in coarse])
    largest = heatmaps.max(axis=(1, 2), keepdims=True)
    return np.divide(heatmaps, largest, out=np.zeros_like(heatmaps), where=largest != 0)


_CONVOLUTIONS = (kl.Conv2D, kl.DepthwiseConv2D, kl.SeparableConv2D, kl.Conv2DTranspose)
_POOLS_OR_PADS = (
    kl.MaxPooling2D,
    kl.AveragePooling2D,
    kl.GlobalMaxPooling2D,
    kl.GlobalAveragePooling2D,
    kl.ZeroPadding2D,
    kl.Cropping2D,
    kl.Dropout,
    kl.SpatialDropout2D,
)


def _find_maps(model, layer):
    """The layer that `layer` names or, for None, the last with feature maps worth taking."""
    check_built(model)
    maps = [candidate for candidate in flat_layers(model) if _is_map(candidate)]
    if layer is not None:
        chosen = find_layer(model, layer)
        if not _is_map(chosen):
            listed = ", ".join(candidate.name for candidate in maps) or "none"
            raise ValueError(
                f"layer {chosen.name!r} puts out no feature maps. Layers that do: {listed}."
            )
        return chosen
    if not any(isinstance(candidate, _CONVOLUTIONS) for candidate in maps):
        raise ValueError(
            f"{model.name} has no convolution, so it has no feature maps for Grad-CAM. Name the "
            "layer whose output to take for them, or use a gradient, occlusion or LIME."
        )
    return [candidate for candidate in maps if not isinstance(candidate, _POOLS_OR_PADS)][-1]


def _is_map(layer):
    """Whether what a layer puts out has rows and columns, more than one of either."""
    if isinstance(layer, kl.InputLayer) or not layer._inbound_nodes:
        return False
    outputs = layer._inbound_nodes[0].output_tensors
    shape = outputs[0].shape
    return len(outputs) == 1 and len(shape) == 4 and sorted(map(str, shape[1:]))[:2] != ["1", "1"]


def _compiled(model, layer, combine, first=False):
    """Return the compiled function (images, targets) -> the layer's maps, combined.

    They are put out as they are if `combine` is None. `model` is as `score_model` returns it;
    `first` says whether the maps have their channels first.
    """
    specs = [images_spec(model), tf.TensorSpec((None,), tf.int64)]
    run = functools.partial(_run, weakref.ref(model), weakref.ref(layer), combine, first)
    # Without autograph, which Keras models do without, errors come as they were raised.
    make = functools.partial(tf.function, run, specs, autograph=False)
    return kept(model, ("maps", id(layer), combine), make)


def _has_first(model, layer):
    """Whether what `watch` hears of a layer has its channels first, once the model is plain."""
    return maps_first(model, layer) and not convolves_channels_first(layer)


def _run(model, layer, combine, first, images, targets):
    with tf.GradientTape(watch_accessed_variables=False) as tape, watch(layer(), tape) as watched:
        scores = pick(tf.cast(infer(model(), images), tf.float32), targets)
    gradients = tape.gradient(scores, watched[-1]) if watched and combine else None
    if gradients is None and combine is not None:
        raise ValueError(
            f"no gradient leads from the score back to layer {layer().name!r}. Name another layer."
        )
    # Layers of half precision put out what OpenCV does not know.
    tensors = [tf.cast(t, tf.float32) for t in (watched[-1], gradients) if t is not None]
    tensors = [tf.transpose(t, (0, 2, 3, 1)) if first else t for t in tensors]
    return tensors[0] if combine is None else combine(*tensors)
