"""Occlusion of a chain of layers that computes again only what a patch can change.

A patch changes a rectangle of the image and, behind each convolution or pooling, a slightly
larger rectangle of the feature maps. So the image runs through the network once and its feature
maps are kept. For a patch, each layer computes only a window around its rectangle; what it reads
beside the window of the layer before comes from the kept maps. Where the window has grown to the
whole map, or the layers cease to be local, the rest of the network runs as usual.

In each layer, all places of the patch share one size of window, the largest that any of them
needs, so that a batch of places is one tensor. Where such a window would stick out of the map it
is moved inwards: the surplus is computed again and comes out as it was.
"""

import weakref
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils._shared import layer_calls

_POINTWISE = (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Dropout)
_WINDOWED = (layers.Conv2D, layers.MaxPooling2D, layers.AveragePooling2D)


def partial_pass(model, image_shape, patch, stride):
    """Return a function that occludes images, or None if `model` has to run as a whole.

    The function takes an image (H, W, C) and a fill (H, W, C), and returns a function that takes
    a batch of `patch_places`, int (B, 2), and returns the model's outputs for those, (B, K).
    """
    output, kept = _COMPILED.get(model, (None, None))
    if output is not model.outputs[0]:
        kept = {}
        _COMPILED[model] = (model.outputs[0], kept)
    key = (*image_shape, patch, stride)
    if key not in kept:
        plan = make_plan(model, image_shape, patch, stride)
        kept[key] = _compile(model, plan, stride) if plan else None
    return kept[key]


# From a model to its output and its compiled passes. The output tells whether the model has had
# layers added or taken away since.
_COMPILED = weakref.WeakKeyDictionary()


class Changed(NamedTuple):
    """What each place of the patch changes along one axis of a map, and the window around it."""

    first: np.ndarray  # the first pixel that changes
    stop: np.ndarray  # the pixel behind the last one
    length: int  # of the axis

    @property
    def size(self):
        """The window's: the most that any place changes."""
        return max(1, int((self.stop - self.first).max()))

    @property
    def start(self):
        """Where each place's window begins: at `first`, or further inwards."""
        return self.first.clip(0, self.length - self.size)


class Step(NamedTuple):
    """A layer, the windows it gets and puts out, and the padding of its input."""

    layer: layers.Layer
    before: tuple  # Changed of the rows and of the columns
    after: tuple
    reach: tuple  # how many rows and columns of its input a pixel of its output sees
    padding: tuple  # of the rows and of the columns, each (before, behind)


def make_plan(model, image_shape, patch, stride):
    """Return the Steps of the local layers a model begins with, while they leave pixels alone.

    None if there are none, or if the model is not a chain.
    """
    calls = layer_calls(model)
    outputs = [model.inputs[0], *(call[2][0] for call in calls)]
    for (_, inputs, _), previous in zip(calls, outputs, strict=False):
        if len(inputs) != 1 or inputs[0] is not previous:
            return None
    changed = tuple(_patch_changes(length, patch, stride) for length in image_shape[:2])
    steps = []
    for layer, _, (made, *_) in calls:
        if not _is_local(layer, made):
            break
        step = _step(layer, changed)
        if all(axis.size == axis.length for axis in step.after):
            break
        steps.append(step)
        changed = step.after
    return steps or None


def _patch_changes(length, patch, stride):
    first = np.arange(0, length - patch + stride, stride, dtype=np.int32)
    return Changed(first, np.minimum(first + patch, length), length)


def _is_local(layer, output):
    """Whether each pixel a layer puts out depends on its input in a way known here."""
    arguments = layer._inbound_nodes[output._keras_history.node_index].arguments
    if arguments.kwargs.get("training") or layer.compute_dtype != "float32":
        return False
    if isinstance(layer, _WINDOWED) and layer.data_format != "channels_last":
        return False
    if type(layer) is layers.Conv2D:
        plain = layer.groups == 1 and not layer.quantization_mode
        return plain and _is_pointwise(layer.activation)
    if type(layer) is layers.Activation:
        return _is_pointwise(layer.activation)
    if type(layer) is layers.BatchNormalization:
        return layer.axis in (-1, 3)
    return type(layer) in _POINTWISE + _WINDOWED


def _is_pointwise(function):
    """Whether an activation is Keras's own: those look at one pixel (softmax: its channels)."""
    name = getattr(function, "__name__", "")
    return function is None or getattr(keras.activations, name, None) is function


def _step(layer, changed):
    """The Step of a layer, from what changes before it along each axis."""
    if not isinstance(layer, _WINDOWED):
        return Step(layer, changed, changed, (1, 1), ((0, 0), (0, 0)))
    kernel = layer.kernel_size if isinstance(layer, layers.Conv2D) else layer.pool_size
    dilation = getattr(layer, "dilation_rate", (1, 1))
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    axes = zip(changed, reach, layer.strides, strict=True)
    after, padding = zip(*(_through(*axis, layer.padding) for axis in axes), strict=True)
    return Step(layer, changed, after, reach, padding)


def _through(changed, reach, stride, padding):
    """What changes behind a layer along one axis, and how far the layer pads it on both sides.

    Output i reads the padded input from i * stride to i * stride + reach.
    """
    length, before, behind = (changed.length - reach) // stride + 1, 0, 0
    if padding == "same":
        length = -(-changed.length // stride)
        missing = max(0, (length - 1) * stride + reach - changed.length)
        before, behind = missing // 2, missing - missing // 2  # TensorFlow's way
    first = -((reach - 1 - before - changed.first) // stride)  # rounded up
    stop = (changed.stop - 1 + before) // stride + 1
    return Changed(np.maximum(first, 0), np.minimum(stop, length), length), (before, behind)


def _compile(model, steps, stride):
    """Return the function that `partial_pass` promises."""
    last = layer_calls(model)[len(steps) - 1][2][0]
    tail = keras.Model(last, model.outputs[0])
    shape = [axis.length for axis in steps[0].before] + [model.input_shape[-1]]
    image_spec, place_spec = tf.TensorSpec(shape), tf.TensorSpec([None, 2], tf.int32)

    @tf.function(input_signature=[image_spec])
    def run_once(image):
        """The padded input of each step, and the output of the last."""
        maps, x = [], image[tf.newaxis]
        for step in steps:
            border = -np.inf if isinstance(step.layer, layers.MaxPooling2D) else 0.0
            maps.append(tf.pad(x[0], [*step.padding, (0, 0)], constant_values=border))
            x = step.layer(x, training=False)
        return [*maps, x[0]]

    map_specs = [tf.TensorSpec(m.shape) for m in run_once.get_concrete_function().outputs]

    @tf.function(input_signature=[image_spec, image_spec, map_specs, place_spec])
    def run_windows(image, fill, maps, places):
        places = tf.unstack(places // stride, axis=1)
        windows = _cover(image, fill, steps[0].before, places)
        for step, kept in zip(steps, maps, strict=False):
            if isinstance(step.layer, _WINDOWED):
                windows = _apply(step, windows, kept, places)
            else:
                windows = step.layer(windows, training=False)
        at = [tf.gather(axis.start, i) for axis, i in zip(steps[-1].after, places, strict=True)]
        pixels = [_run_of(0 * i, axis.length) for axis, i in zip(step.after, places, strict=True)]
        return tail(_amid(windows, at, maps[-1], pixels), training=False)

    def occlude(image, fill):
        maps = run_once(image)
        return lambda places: run_windows(image, fill, maps, places).numpy()

    return occlude


def _run_of(starts, count):
    """The `count` whole numbers from each of the starts (B,) on, (B, count)."""
    return starts[:, tf.newaxis] + tf.range(count)


def _cover(image, fill, axes, places):
    """The first windows: the image, but the fill where the patch lies."""
    pixels = [_run_of(tf.gather(a.start, i), a.size) for a, i in zip(axes, places, strict=True)]
    # A window that was moved inwards begins before its patch.
    first = [tf.gather(axis.first, i) for axis, i in zip(axes, places, strict=True)]
    rows, columns = (p >= f[:, tf.newaxis] for p, f in zip(pixels, first, strict=True))
    patched = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
    return tf.where(patched[..., tf.newaxis], _read(fill, *pixels), _read(image, *pixels))


def _apply(step, windows, kept, places):
    """Convolve or pool the windows, each amid what lies around it in the kept map."""
    layer, at, pixels = step.layer, [], []
    for axis, i in enumerate(places):
        stride, reach = layer.strides[axis], step.reach[axis]
        at.append(tf.gather(step.before[axis].start, i) + step.padding[axis][0])
        begin = tf.gather(step.after[axis].start, i) * stride
        pixels.append(_run_of(begin, (step.after[axis].size - 1) * stride + reach))
    x = _amid(windows, at, kept, pixels)
    if isinstance(layer, layers.MaxPooling2D):
        return tf.nn.max_pool2d(x, layer.pool_size, layer.strides, "VALID")
    if isinstance(layer, layers.AveragePooling2D):
        inside = tf.pad(tf.ones([a.length for a in step.before] + [1]), [*step.padding, (0, 0)])
        parts = x, _read(inside, *pixels)  # Keras averages over what lies inside the map
        total, share = (tf.nn.avg_pool2d(p, layer.pool_size, layer.strides, "VALID") for p in parts)
        return total / share
    x = tf.nn.conv2d(x, layer.kernel, layer.strides, "VALID", dilations=layer.dilation_rate)
    x = x if layer.bias is None else tf.nn.bias_add(x, layer.bias)
    return x if layer.activation is None else layer.activation(x)


def _amid(windows, at, kept, pixels):
    """Read rows and columns (B, n) of a map, from the window (at rows and columns) if it is there.

    windows (B, h, w, C) and kept (H, W, C) become one table of pixels, so that one look-up does it.
    """
    (rows, columns), (_, height, width, channels) = pixels, windows.shape
    i, j = (p - start[:, tf.newaxis] for p, start in zip(pixels, at, strict=True))
    rows_in, columns_in = (i >= 0) & (i < height), (j >= 0) & (j < width)
    fresh = rows_in[:, :, tf.newaxis] & columns_in[:, tf.newaxis, :]
    batch = tf.shape(windows)[0]
    i = tf.range(batch)[:, tf.newaxis] * height + i
    in_windows = i[:, :, tf.newaxis] * width + j[:, tf.newaxis, :]
    in_kept = rows[:, :, tf.newaxis] * kept.shape[1] + columns[:, tf.newaxis, :]
    index = tf.where(fresh, in_windows, batch * height * width + in_kept)
    table = tf.concat([tf.reshape(part, [-1, channels]) for part in (windows, kept)], axis=0)
    return tf.gather(table, index)


def _read(pixels, rows, columns):
    """Read rows and columns (B, n) of a map (H, W, C)."""
    index = rows[:, :, tf.newaxis] * pixels.shape[1] + columns[:, tf.newaxis, :]
    return tf.gather(tf.reshape(pixels, [-1, pixels.shape[2]]), index)
