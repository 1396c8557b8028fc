"""Occlusion of a chain of layers that computes again only what a patch can change.

A patch changes a rectangle of the image and, behind each convolution or pooling, a slightly
larger rectangle of the feature maps. So the image runs through the network once and its feature
maps are kept. For a patch, each layer computes only a window around its rectangle; what it reads
beside the window of the layer before comes from the kept maps. Where the window has grown to the
whole map, or the layers cease to be local, the rest of the network runs as usual.

In each layer, all places of the patch share one size of window, the largest that any of them
needs, so that a batch of places is one tensor. Where such a window would stick out of the map it
is moved inwards: the surplus is computed again and comes out as it was.

Where a layer reads a pixel, from the window or beside it, depends on the place of the patch alone,
so it is tabulated when the pass is compiled; numpy does that, TensorFlow only looks up.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils._plain import kept
from course_utils._shared import layer_calls

_POINTWISE = (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Dropout)
_WINDOWED = (layers.Conv2D, layers.MaxPooling2D, layers.AveragePooling2D)


def partial_pass(model, image_shape, patch, stride):
    """Return a function that occludes images, or None if `model` has to run as a whole.

    The function takes an image (H, W, C) and a fill (H, W, C), and returns a function that takes
    a batch of `patch_places`, int (B, 2), and returns the model's outputs for those, (B, K).
    """

    def make():
        plan = make_plan(model, image_shape, patch, stride)
        return _compile(model, plan, stride) if plan else None

    return kept(model, ("partial", *image_shape, patch, stride), make)


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


class Held(NamedTuple):
    """The pixels of a map that each place's window has to offer, along one axis."""

    first: np.ndarray
    stop: np.ndarray
    start: np.ndarray  # the pixel that the window begins with


class Reads(NamedTuple):
    """The pixels of a padded map to read for each place, along one axis, int (places, n)."""

    pixels: np.ndarray
    within: np.ndarray  # where in the window they are
    held: np.ndarray  # bool: whether the window has them to offer


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
    if not isinstance(layer, keras.Layer) or "call" in vars(layer):
        return False  # an operation in the graph, or a layer whose call somebody has exchanged
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
    patches = steps[0].before
    shape = [axis.length for axis in patches] + [model.inputs[0].shape[-1]]
    image_spec, place_spec = tf.TensorSpec(shape), tf.TensorSpec([None, 2], tf.int32)

    # Partials, or TensorFlow would take the functions of all models for one, and warn that it is
    # traced too often.
    run_once = tf.function(functools.partial(_run_once, steps), [image_spec], autograph=False)
    map_specs = [tf.TensorSpec(m.shape) for m in run_once.get_concrete_function().outputs]
    run_windows = tf.function(
        functools.partial(_run_windows, steps, stride, tail),
        [image_spec, map_specs, place_spec],
        autograph=False,
    )

    def occlude(image, fill):
        image, fill = tf.constant(image), tf.constant(fill)
        maps = run_once(image)
        return lambda places: run_windows(fill, maps, tf.constant(places)).numpy()

    return occlude


def _run_once(steps, image):
    """The padded input of each step, and the output of the last."""
    maps, x = [], image[tf.newaxis]
    for step in steps:
        border = -np.inf if isinstance(step.layer, layers.MaxPooling2D) else 0.0
        maps.append(tf.pad(x[0], [*step.padding, (0, 0)], constant_values=border))
        x = step.layer(x, training=False)
    return [*maps, x[0]]


def _run_windows(steps, stride, tail, fill, maps, places):
    """The outputs of the model with each place covered, from the maps of `_run_once`."""
    patches, places = steps[0].before, tf.unstack(places // stride, axis=1)
    # At first all places share one window, the whole fill, of which the patch's pixels count.
    windows, held = fill[tf.newaxis], [Held(a.first, a.stop, 0 * a.first) for a in patches]
    for step, kept_map in zip(steps, maps, strict=False):
        if isinstance(step.layer, _WINDOWED):
            windows = _apply(step, windows, held, kept_map, places)
            held = [Held(a.start, a.start + a.size, a.start) for a in step.after]
        else:
            windows = step.layer(windows, training=False)
    whole = [_reads(h, 0 * a.start, a.length) for h, a in zip(held, steps[-1].after, strict=True)]
    outputs = tail(_amid(windows, maps[-1], whole, places), training=False)
    return tf.cast(outputs, tf.float32)


def _reads(held, begin, count, padding=0):
    """The Reads of `count` pixels, for each place from `begin` on, of a map so padded in front."""
    pixels = begin[:, np.newaxis] + np.arange(count, dtype=np.int32)
    first, stop, start = (bound[:, np.newaxis] + padding for bound in held)
    return Reads(pixels, pixels - start, (first <= pixels) & (pixels < stop))


def _apply(step, windows, held, kept, places):
    """Convolve or pool the windows, each amid what lies around it in the kept map."""
    layer, reads = step.layer, []
    for axis, stride in enumerate(layer.strides):
        after, reach, (padding, _) = step.after[axis], step.reach[axis], step.padding[axis]
        count = (after.size - 1) * stride + reach
        reads.append(_reads(held[axis], after.start * stride, count, padding))
    x = _amid(windows, kept, reads, places)
    if isinstance(layer, layers.MaxPooling2D):
        return tf.nn.max_pool2d(x, layer.pool_size, layer.strides, "VALID")
    if isinstance(layer, layers.AveragePooling2D):
        x = tf.nn.avg_pool2d(x, layer.pool_size, layer.strides, "VALID")
        shares = [_inside(step, axis, reads[axis]) for axis in (0, 1)]
        return x / _of_places(*shares, places, tf.multiply)[..., tf.newaxis]
    x = tf.nn.conv2d(x, layer.kernel, layer.strides, "VALID", dilations=layer.dilation_rate)
    x = x if layer.bias is None else tf.nn.bias_add(x, layer.bias)
    return x if layer.activation is None else layer.activation(x)


def _inside(step, axis, reads):
    """The share of each pool that is no padding, which Keras leaves out of its averages."""
    pixels = reads.pixels - step.padding[axis][0]
    inside = (pixels >= 0) & (pixels < step.before[axis].length)
    pools = np.lib.stride_tricks.sliding_window_view(inside, step.reach[axis], axis=1)
    return pools[:, :: step.layer.strides[axis]].mean(axis=-1, dtype=np.float32)


def _amid(windows, kept, reads, places):
    """Read rows and columns of a map (H, W, C), from the window (h, w, C) where that holds them.

    There is a window for each place, or one for all. They and the map become one table of pixels,
    so that one look-up does it.
    """
    (rows, columns), (_, height, width, channels) = reads, windows.shape
    in_map = _of_places(rows.pixels * kept.shape[1], columns.pixels, places)
    rows_within = np.where(rows.held, rows.within * width, _NOT_HELD)
    columns_within = np.where(columns.held, columns.within, _NOT_HELD)
    in_window = _of_places(rows_within, columns_within, places)
    begin = kept.shape[0] * kept.shape[1] + height * width * tf.range(tf.shape(windows)[0])
    index = tf.where(in_window < 0, in_map, in_window + begin[:, tf.newaxis, tf.newaxis])
    table = tf.concat([tf.reshape(part, [-1, channels]) for part in (kept, windows)], axis=0)
    return tf.gather(table, index)


_NOT_HELD = -(2**29)  # so low that row and column together stay below zero, and within 32 bits


def _of_places(rows, columns, places, join=tf.add):
    """Join tables of rows (R, n) and of columns (C, m) to (B, n, m), as each place has them."""
    row, column = places
    return join(tf.gather(rows[:, :, np.newaxis], row), tf.gather(columns[:, np.newaxis], column))
