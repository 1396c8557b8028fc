"""Grad-CAM: a layer's feature maps, each weighted by what it does for the score of the target."""

import functools
import weakref
from contextlib import contextmanager

import cv2
import numpy as np
import tensorflow as tf
from keras import layers as kl

from course_utils._scores import pick, score_model
from course_utils._shared import check_built, check_images, check_targets, check_whole, flat_layers


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
        Whose feature maps to take: a name (of a nested model's layer, too), an index into
        ``model.layers``, or the layer itself. If not given, the last layer that puts out feature
        maps and is no pooling, padding or dropout.
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
        maps or does not lead to the score.

    Notes
    -----
    The detail is that of the feature maps: with 7 × 7 of them, each covers a 32nd of the image's
    height and width, and what lies between is interpolated.

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
    return np.divide(heatmaps, largest, out=np.zeros_like(heatmaps), where=largest > 0)


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
    found = flat_layers(model)
    if layer is None:
        if not any(isinstance(candidate, _CONVOLUTIONS) for candidate in found):
            raise ValueError(
                f"{model.name} has no convolution, so it has no feature maps for Grad-CAM. "
                "Use a gradient, occlusion or LIME."
            )
        return [c for c in found if _is_map(c) and not isinstance(c, _POOLS_OR_PADS)][-1]
    if isinstance(layer, (int, np.integer)) and -len(model.layers) <= layer < len(model.layers):
        chosen = [model.layers[layer]]
    else:
        chosen = [c for c in found if c is layer or c.name == layer]
    if len(chosen) != 1 or not _is_map(chosen[0]):
        problem = "no layer" if not chosen else "several layers" if chosen[1:] else "no maps in"
        listed = ", ".join(repr(candidate.name) for candidate in found if _is_map(candidate))
        raise ValueError(
            f"{model.name} has {problem} {layer!r}. Layers that put out feature maps: {listed}."
        )
    return chosen[0]


def _is_map(layer):
    """Whether what a layer puts out has rows and columns, more than one of either."""
    if isinstance(layer, kl.InputLayer):
        return False
    shape = getattr(layer._inbound_nodes[0].output_tensors[0], "shape", ())
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


# From a model to its output and, by layer, its compiled class activation maps.
_COMPILED = weakref.WeakKeyDictionary()


def _compiled(model, layer):
    """Return the compiled function (images, targets) -> maps before they are stretched."""
    output, kept = _COMPILED.get(model, (None, None))
    if output is not model.outputs[0]:
        kept = {}
        _COMPILED[model] = (model.outputs[0], kept)
    if layer.name not in kept:
        shapes = [
            tf.TensorSpec((None, *model.input_shape[1:]), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ]
        run = functools.partial(_run, weakref.ref(model), weakref.ref(layer))
        kept[layer.name] = tf.function(run, input_signature=shapes)
    return kept[layer.name]


def _run(model, layer, images, targets):
    with tf.GradientTape(watch_accessed_variables=False) as tape, _watch(layer(), tape) as watched:
        scores = pick(model()(images, training=False), targets)
    gradients = tape.gradient(scores, watched[-1]) if watched else None
    if gradients is None:
        raise ValueError(f"layer {layer().name!r} does not lead to the score.")
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * watched[-1], axis=-1))


@contextmanager
def _watch(layer, tape):
    """Let the tape watch whatever the layer puts out meanwhile, however deep it is nested.

    A nested model's layers are not part of the outer model's graph, so no model can be built that
    ends at one of them; to listen at the layer itself works wherever it is called from.
    """
    watched, call = [], layer.call

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
