"""Grad-CAM: a layer's feature maps, each weighted by what it does for the score of the target."""

import functools
import weakref
from contextlib import contextmanager

import cv2
import numpy as np
import tensorflow as tf
from keras import layers as kl

from course_utils._scores import pick, score_model
from course_utils._shared import (
    check_built,
    check_images,
    check_targets,
    check_whole,
    find_layer,
    flat_layers,
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
    The detail is that of the feature maps: with 7 × 7 of them, each covers a 32nd of the image's
    height and width, and what lies between is interpolated. A cell of the map is taken for the
    square of pixels that it covers, where "same" padding puts it; libraries that stretch from
    corner to corner (tf-keras-vis) shift what lies near the edges outwards by half a cell.

    References
    ----------
    Selvaraju et al., Grad-CAM (ICCV 2017). Where a network ends in global average pooling and a
    Dense layer, it equals the class activation maps of Zhou et al. (CVPR 2016) up to scale and
    sign.
    """
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    check_whole("batch_size", batch_size, 1)
    run = _compiled(score_model(model, score), _find_maps(model, layer))
    height, width = images.shape[1:3]
    heatmaps = np.empty(images.shape[:3], np.float32)
    for start in range(0, len(images), batch_size):
        some = slice(start, start + batch_size)
        coarse = run(tf.constant(images[some]), tf.constant(targets[some])).numpy()
        heatmaps[some] = [cv2.resize(cam, (width, height)) for cam in coarse]
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
    return len(outputs) == 1 and len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


# From a model to its output and, by layer, its compiled class activation maps.
_COMPILED = weakref.WeakKeyDictionary()


def _compiled(model, layer):
    """Return the compiled function (images, targets) -> maps before they are stretched."""
    output, kept = _COMPILED.get(model, (None, None))
    if output is not model.outputs[0]:
        kept = weakref.WeakKeyDictionary()
        _COMPILED[model] = (model.outputs[0], kept)
    if layer not in kept:
        shapes = [
            tf.TensorSpec((None, *model.input_shape[1:]), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ]
        run = functools.partial(_run, weakref.ref(model), weakref.ref(layer))
        # Without autograph, which Keras models do without, errors come as they were raised.
        kept[layer] = tf.function(run, input_signature=shapes, autograph=False)
    return kept[layer]


def _run(model, layer, images, targets):
    with tf.GradientTape(watch_accessed_variables=False) as tape, _watch(layer(), tape) as watched:
        scores = pick(model()(images, training=False), targets)
    gradients = tape.gradient(scores, watched[-1]) if watched else None
    if gradients is None:
        raise ValueError(
            f"no gradient leads from the score back to layer {layer().name!r}. Name another layer."
        )
    # Layers of half precision put out what OpenCV does not know.
    maps, gradients = (tf.cast(tensor, tf.float32) for tensor in (watched[-1], gradients))
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))


@contextmanager
def _watch(layer, tape):
    """Let the tape watch whatever the layer puts out meanwhile, however deep it is nested.

    A nested model's layers are not part of the outer model's graph, so no model can be built that
    ends at one of them; to listen at the layer itself works wherever it is called from.
    """
    watched, call, own = [], layer.call, vars(layer).get("call")

    def listen(*arguments, **keywords):
        output = call(*arguments, **keywords)
        tape.watch(output)
        watched.append(output)
        return output

    layer.call = listen
    try:
        yield watched
    finally:
        del layer.call
        if own is not None:  # someone else listens, too
            layer.call = own
