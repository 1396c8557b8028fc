"""How far a patch reaches through a layer: which of its pixels change, and from what they follow.

A layer is local if each pixel that it puts out depends on a few pixels of its input. `local_step`
knows Keras's own local layers and operations; of anything else it says nothing.
"""

from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from course_utils._folded import convolve
from course_utils._plain import CHANGING


class Changed(NamedTuple):
    """What each place of the patch changes along one axis of a map, and the window around it."""

    first: np.ndarray  # the first pixel that changes
    stop: np.ndarray  # the pixel behind the last one
    start: np.ndarray  # the pixel that the window begins with
    size: int  # the window's
    length: int  # of the axis

    @property
    def span(self):
        """How many pixels change at most."""
        return max(1, int((self.stop - self.first).max()))


def changes(first, stop, length):
    """The Changed whose windows are as small as they can be, and lie within the map.

    All have the size that the largest needs, so that a batch of places is one tensor.
    """
    first, stop = np.maximum(first, 0), np.minimum(stop, length)
    size = max(1, int((stop - first).max()))
    return Changed(first, stop, first.clip(0, length - size), size, length)


class Step(NamedTuple):
    """A call of a local layer, by its windows."""

    layer: Any
    inputs: list  # the tensors of the graph that it takes
    output: Any
    before: list  # of each input, the Changed of its rows and of its columns
    after: tuple  # the same of the output
    reads: list
    """Of each input, which pixels the layer has to see for each place, (first one of each place,
    number) for rows and for columns; None if it is what the windows hold already."""
    border: float  # what lies outside the map
    run: Any  # from the pixels of each input, and the place, to the output's windows


def local_step(layer, inputs, outputs, before):
    """Return the Step of a layer or operation of a graph, or None if it is not known to be local.

    `inputs` and `outputs` are its tensors in the graph, `before` is what changes in the inputs.
    """
    if not _is_plain(layer, (*inputs, *outputs)):
        return None
    kind = type(layer)
    if kind in _KINDS and len(inputs) == 1:
        found = _KINDS[kind](layer, *before[0])
    elif _is_pointwise_call(layer, outputs[0]):
        found = _together(_caller(layer, inputs, outputs[0]), before)
    else:
        found = None
    if found is None:
        return None
    run, after, reads, border = found
    if reads is not None:
        reads = [None if _is_same(reads, axes) else reads for axes in before]
    return Step(layer, inputs, outputs[0], before, after, reads or [None], border, run)


def _is_same(reads, axes):
    """Whether what a layer has to see is the windows, pixel by pixel.

    Behind a cropping, windows hold pixels that lie outside the map, which no layer may see.
    """
    return all(
        count == axis.size
        and np.array_equal(begin, axis.start)
        and axis.start.min() >= 0
        and axis.start.max() + axis.size <= axis.length
        for (begin, count), axis in zip(reads, axes, strict=True)
    )


def _is_plain(layer, tensors):
    """Whether a layer is as Keras has it, and computes in single precision on maps."""
    if any(len(t.shape) != 4 or t.dtype != "float32" for t in tensors):
        return False
    if not isinstance(layer, keras.Layer):
        return type(layer).__module__.startswith("keras.src.ops")
    node = layer._inbound_nodes[tensors[-1]._keras_history.node_index]
    return (
        "call" not in vars(layer)  # which somebody has exchanged
        and layer.compute_dtype == "float32"
        and getattr(layer, "data_format", "channels_last") in ("channels_last", None)
        and not getattr(layer, "quantization_mode", None)
        and not node.arguments.kwargs.get("training")
        and _is_pointwise(getattr(layer, "activation", None))
    )


def _is_pointwise(function):
    """Whether an activation is Keras's own: those look at one pixel (softmax: its channels)."""
    name = getattr(function, "__name__", "")
    return function is None or getattr(keras.activations, name, None) is function


# What treats every pixel alike and by itself; several inputs, pixel by pixel.
_POINTWISE_LAYERS = (
    *(kl.Activation, kl.ReLU, kl.LeakyReLU, kl.ELU, kl.PReLU, kl.Softmax, kl.Dropout),
    *(kl.SpatialDropout2D, kl.GaussianNoise, kl.GaussianDropout, kl.Identity, kl.Rescaling),
    *(kl.ActivityRegularization, kl.BatchNormalization, kl.LayerNormalization, kl.Normalization),
    *(kl.Add, kl.Subtract, kl.Multiply, kl.Average, kl.Maximum, kl.Minimum, kl.Concatenate),
)
_POINTWISE_OPERATIONS = {
    *("Absolute", "Add", "Cast", "Celu", "Clip", "Concatenate", "Divide", "Elu", "Exp", "Gelu"),
    *("HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "Log", "Maximum", "Minimum", "Mish"),
    *("Multiply", "Negative", "Power", "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "Softmax"),
    *("Softplus", "Softsign", "Sqrt", "Square", "Subtract", "Tanh", "TrueDivide"),
}


def _is_pointwise_call(layer, output):
    """Whether a call gives each pixel from the same pixel of all its inputs."""
    axis = getattr(layer, "axis", -1)
    if not isinstance(layer, keras.Layer):
        arguments = layer._inbound_nodes[output._keras_history.node_index].arguments
        others = [*arguments.args, *arguments.kwargs.values()]
        if type(layer).__name__ == "GetItem":  # of the channels, as x[..., ::-1]
            return others[1][:1] == (...,) and len(others[1]) == 2
        known = type(layer).__name__ in _POINTWISE_OPERATIONS and axis in (-1, 3)
        return known and all(map(_is_alike, keras.tree.flatten(others)))
    if type(layer) is kl.PReLU:
        return list(layer.shared_axes or ()) == [1, 2]
    if type(layer) is kl.Normalization:
        return tuple(layer.axis or ()) in ((), (-1,), (3,)) and all(
            _is_alike(number) for number in (layer.mean, layer.variance)
        )
    last = axis in (-1, 3) or axis in ([-1], [3], (-1,), (3,))
    return type(layer) in _POINTWISE_LAYERS and last


def _is_alike(argument):
    """Whether an argument of an operation is a map, or the same for all pixels."""
    shape = getattr(argument, "shape", ())
    return isinstance(argument, keras.KerasTensor) or np.prod(shape[:-1], dtype=int) == 1


def _caller(layer, inputs, output):
    """The function from windows of the inputs to those of the output, as the graph calls it."""
    arguments = layer._inbound_nodes[output._keras_history.node_index].arguments
    training = {"training": False} if isinstance(layer, keras.Layer) else {}

    def run(windows, places):
        values = dict(zip(map(id, inputs), windows, strict=True))
        args, kwargs = arguments.fill_in(values)
        return layer(*args, **kwargs | training)

    return run


def _together(run, before):
    """Pixel by pixel: what changes in any of the inputs changes."""
    if not before[1:]:
        return run, before[0], None, 0.0
    after = []
    for axes in zip(*before, strict=True):
        length = axes[0].length
        if any(axis.length != length for axis in axes):
            return None
        some = [axis.first < axis.stop for axis in axes]
        first = [np.where(s, axis.first, length) for s, axis in zip(some, axes, strict=True)]
        stop = [np.where(s, axis.stop, 0) for s, axis in zip(some, axes, strict=True)]
        after.append(changes(np.min(first, axis=0), np.max(stop, axis=0), length))
    return run, tuple(after), tuple((axis.start, axis.size) for axis in after), 0.0


_POOLS = (kl.MaxPooling2D, kl.AveragePooling2D)


def _through_windows(layer, *before):
    """A convolution or pooling."""
    kernel = layer.pool_size if isinstance(layer, _POOLS) else layer.kernel_size
    dilation = getattr(layer, "dilation_rate", (1, 1))
    after, reads, shares = [], [], []
    for axis, width, rate, stride in zip(before, kernel, dilation, layer.strides, strict=True):
        reach = (width - 1) * rate + 1
        behind, padding = through(axis, reach, stride, layer.padding)
        begin, count = behind.start * stride - padding, (behind.size - 1) * stride + reach
        after.append(behind)
        reads.append((begin, count))
        shares.append(_shares(begin, count, axis.length, reach, stride))

    def run(windows, places):
        with _unpadded(layer):
            x = layer.call(windows[0])
        if isinstance(layer, kl.AveragePooling2D) and layer.padding == "same":
            x /= of_places(*shares, places, tf.multiply)[..., tf.newaxis]
        return x

    border = -np.inf if isinstance(layer, kl.MaxPooling2D) else 0.0
    return run, tuple(after), tuple(reads), border


def normalised(step, normalisation):
    """The Step of a convolution that also does what the normalisation behind it would."""

    def run(windows, places):
        with _unpadded(step.layer):
            return convolve(step.layer, normalisation, windows[0])

    return step._replace(run=run)


def through(changed, reach, stride, padding):
    """What changes behind a layer along one axis, and how far the layer pads it in front.

    Output i reads the padded input from i * stride to i * stride + reach.
    """
    length, before = (changed.length - reach) // stride + 1, 0
    if padding == "same":
        length = -(-changed.length // stride)
        missing = max(0, (length - 1) * stride + reach - changed.length)
        before = missing // 2  # TensorFlow's way
    first = -((reach - 1 - before - changed.first) // stride)  # rounded up
    stop = (changed.stop - 1 + before) // stride + 1
    return changes(first, stop, length), before


def _shares(begin, count, length, reach, stride):
    """The share of each pool that is no padding, which Keras leaves out of its averages."""
    pixels = begin[:, np.newaxis] + np.arange(count)
    pools = np.lib.stride_tricks.sliding_window_view((pixels >= 0) & (pixels < length), reach, 1)
    return pools[:, ::stride].mean(axis=-1, dtype=np.float32)


@contextmanager
def _unpadded(layer):
    """Let the layer take maps that bring their padding along meanwhile."""
    with CHANGING:
        padding, layer.padding = layer.padding, "valid"
        try:
            yield
        finally:
            layer.padding = padding


def _through_transposed(layer, *before):
    """A transposed convolution: input j adds to the outputs from j * stride on, `width` of them."""
    if layer.output_padding is not None or tuple(layer.dilation_rate) != (1, 1):
        return None
    after, reads, cuts = [], [], []
    for axis, width, stride in zip(before, layer.kernel_size, layer.strides, strict=True):
        same = layer.padding == "same"
        cut = max(width - stride, 0) // 2 if same else 0  # what "same" leaves out in front
        length = axis.length * stride + (0 if same else max(width - stride, 0))
        first = np.maximum(axis.first * stride - cut, 0)
        stop = np.minimum((axis.stop - 1) * stride + width - cut, length)
        start = (first + cut) // stride * stride - cut  # where an input's outputs begin
        size = max(1, int((stop - start).max()))
        more = (width - 1) // stride  # inputs further in front that reach here, too
        after.append(Changed(first, stop, start, size, length))
        reads.append(((start + cut) // stride - more, more + -(-size // stride)))
        cuts.append(slice(more * stride, more * stride + size))

    def run(windows, places):
        with _unpadded(layer):
            x = layer.call(windows[0])
        return x[:, cuts[0], cuts[1]]

    return run, tuple(after), tuple(reads), 0.0


def _through_upsampling(layer, *before):
    """Every pixel becomes several: so do those of the windows."""
    if layer.interpolation != "nearest":
        return None
    axes = zip(before, layer.size, strict=True)
    after = tuple(Changed(*(n * number for number in axis)) for axis, n in axes)
    return lambda windows, places: layer(windows[0]), after, None, 0.0


def _through_padding(layer, *before):
    return _shifted(before, [in_front for in_front, _ in layer.padding], layer.padding)


def _through_cropping(layer, *before):
    cut = [[-n for n in sides] for sides in layer.cropping]
    return _shifted(before, [in_front for in_front, _ in cut], cut)


def _shifted(before, shift, added):
    """The windows stay as they are, at other places of a larger or smaller map."""
    after = []
    for axis, by, sides in zip(before, shift, added, strict=True):
        length = axis.length + sum(sides)
        first, stop = (axis.first + by).clip(0), (axis.stop + by).clip(max=length)
        after.append(Changed(first, stop, axis.start + by, axis.size, length))
    return lambda windows, places: windows[0], tuple(after), None, 0.0


_KINDS = {
    kl.Conv2D: _through_windows,
    kl.DepthwiseConv2D: _through_windows,
    kl.SeparableConv2D: _through_windows,
    kl.MaxPooling2D: _through_windows,
    kl.AveragePooling2D: _through_windows,
    kl.Conv2DTranspose: _through_transposed,
    kl.UpSampling2D: _through_upsampling,
    kl.ZeroPadding2D: _through_padding,
    kl.Cropping2D: _through_cropping,
}


def of_places(rows, columns, places, join=tf.add):
    """Join tables of rows (R, n) and of columns (C, m) to (B, n, m), as each place has them."""
    row, column = places
    return join(tf.gather(rows[:, :, np.newaxis], row), tf.gather(columns[:, np.newaxis], column))
