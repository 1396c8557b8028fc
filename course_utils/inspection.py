"""Look inside a network: its layers, what each one can see, its filters and feature maps."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers as kl

from course_utils._arrays import check_whole
from course_utils._plain import kept, plain
from course_utils._shared import (
    channels_first,
    check_built,
    check_graph,
    check_images,
    find_layer,
    layer_calls,
    layer_output,
    maps_first,
)


class LayerRow(NamedTuple):
    """One line of a model's table."""

    name: str
    kind: str
    output_shape: tuple
    parameters: int


class ReceptiveField(NamedTuple):
    """What the units of a layer see of the input, in pixels, as (rows, columns).

    The unit in row i and column j of the layer's output sees `size` pixels that begin at
    ``start + (i, j) * stride``; a negative start lies in the padding. A layer that sees the
    whole image has stride (0, 0).
    """

    name: str
    size: tuple
    stride: tuple
    start: tuple


def layer_table(model):
    """Return the table that ``model.summary()`` prints, as a list of LayerRow.

    Output shapes carry None for the batch axis; `parameters` counts trainable and other ones. An
    operation between layers, such as the division of ``inputs / 255``, has a row of its own.

    Raises ValueError if the model is not built, or has no graph of layers.
    """
    check_built(model)
    return [
        LayerRow(layer.name, type(layer).__name__, tuple(outputs[0].shape), _count(layer))
        for layer, _, outputs in layer_calls(model)
    ]


def _count(layer):
    return layer.count_params() if isinstance(layer, keras.Layer) else 0


def receptive_fields(model):
    """Return the receptive field of every layer, as a list of ReceptiveField.

    Follows convolutions, pooling, padding and cropping through chains and branches; what two
    branches see together is the field of the layer that joins them.

    Raises
    ------
    ValueError
        For a model that is not built or does not take images, and for a layer whose field is not
        defined here (upsampling, attention, a nested model) or depends on an image size that the
        model leaves open ("same" padding, global pooling); it names the layer.

    References
    ----------
    Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks,
    Distill (2019), https://doi.org/10.23915/distill.00021
    """
    check_built(model)
    check_graph(model)
    first = channels_first(model)
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4:
        raise ValueError(
            "receptive fields are defined for a model with one input of images (N, height, "
            f"width, channels); this one takes {shape}."
        )
    image_size = _rows_and_columns(shape, first)
    # A field is (size, stride, start), each an array of (rows, columns).
    fields = {id(model.inputs[0]): (np.array([1, 1]), np.array([1, 1]), np.array([0, 0]))}
    rows = []
    for layer, inputs, outputs in layer_calls(model):
        joined = _join(layer, [fields[id(tensor)] for tensor in inputs])
        size = _rows_and_columns(inputs[0].shape, maps_first(model, layer))
        field = _field_after(layer, joined, size, image_size)
        fields[id(outputs[0])] = field
        rows.append(ReceptiveField(layer.name, *(tuple(int(n) for n in part) for part in field)))
    return rows


def _rows_and_columns(shape, first):
    return tuple(shape[2:4] if first else shape[1:3])


_SEES_ALL = (
    kl.Flatten,
    kl.Reshape,
    kl.GlobalAveragePooling2D,
    kl.GlobalMaxPooling2D,
)
_SEES_A_WINDOW = (
    kl.Conv2D,
    kl.DepthwiseConv2D,
    kl.SeparableConv2D,
    kl.MaxPooling2D,
    kl.AveragePooling2D,
)
_SEES_A_POINT = (
    kl.Activation,
    kl.BatchNormalization,
    kl.Dense,
    kl.Dropout,
    kl.ELU,
    kl.GaussianNoise,
    kl.LeakyReLU,
    kl.PReLU,
    kl.ReLU,
    kl.Rescaling,
    kl.Softmax,
    kl.SpatialDropout2D,
)
# The operations between layers that Keras knows by these names.
_POINT_OPERATIONS = (
    *("Absolute", "Cast", "Clip", "Elu", "Exp", "Gelu", "LeakyRelu", "Log", "Negative"),
    *("Relu", "Relu6", "Selu", "Sigmoid", "Silu", "Softplus", "Sqrt", "Square", "Tanh"),
)
_JOINING_OPERATIONS = (
    *("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"),
)
_JOINS = (kl.Add, kl.Average, kl.Concatenate, kl.Maximum, kl.Minimum, kl.Multiply, kl.Subtract)


def _join(layer, fields):
    """The smallest window that holds what all of a layer's inputs see."""
    if len(fields) == 1:
        return fields[0]
    strides = np.array([stride for _, stride, _ in fields])
    joins = isinstance(layer, _JOINS) or _is_operation(layer, _JOINING_OPERATIONS)
    if not joins or (strides != strides[0]).any():
        raise ValueError(
            f"the receptive field of layer {layer.name!r} ({type(layer).__name__}) is not "
            "defined: its inputs move over the image with different strides."
        )
    start = np.min([start for _, _, start in fields], axis=0)
    end = np.max([start + size for size, _, start in fields], axis=0)
    return end - start, strides[0], start


def _is_operation(layer, names):
    """Whether it is no layer, but one of those operations in the graph, which have no weights."""
    return not isinstance(layer, keras.Layer) and type(layer).__name__ in names


def _field_after(layer, field, input_size, image_size):
    """The field behind a layer whose inputs have `input_size`, rows and columns."""
    size, stride, start = field
    if isinstance(layer, _SEES_ALL) or not stride.any():
        if None in image_size:
            raise ValueError(
                f"layer {layer.name!r} sees the whole image, whose size this model leaves open. "
                "Build the model with a fixed image size."
            )
        return np.array(image_size), np.array([0, 0]), np.array([0, 0])
    if isinstance(layer, _SEES_A_POINT + _JOINS):
        return field
    if _is_operation(layer, _POINT_OPERATIONS + _JOINING_OPERATIONS):
        return field
    if isinstance(layer, (kl.ZeroPadding2D, kl.Cropping2D)):
        padding = isinstance(layer, kl.ZeroPadding2D)
        before = np.array([side[0] for side in (layer.padding if padding else layer.cropping)])
        return size, stride, start + (-before if padding else before) * stride
    if isinstance(layer, _SEES_A_WINDOW):
        pooling = isinstance(layer, (kl.MaxPooling2D, kl.AveragePooling2D))
        window = np.array(layer.pool_size if pooling else layer.kernel_size)
        if not pooling:
            window = (window - 1) * np.array(layer.dilation_rate) + 1
        padding = _padding_before(layer, window, input_size)
        strides = np.array(layer.strides)
        return size + (window - 1) * stride, stride * strides, start - padding * stride
    raise ValueError(
        f"the receptive field of layer {layer.name!r} ({type(layer).__name__}) is not defined "
        "here. For a nested model, ask for the receptive fields of the inner model."
    )


def _padding_before(layer, window, input_size):
    """How many rows and columns of zeros a layer puts above and to the left of its input."""
    if layer.padding == "valid":
        return np.array([0, 0])
    if None in input_size:
        raise ValueError(
            f"layer {layer.name!r} pads by the size of its input, which this model leaves open. "
            "Build the model with a fixed image size."
        )
    strides, inputs = np.array(layer.strides), np.array(input_size)
    outputs = -(-inputs // strides)
    return np.maximum((outputs - 1) * strides + window - inputs, 0) // 2


def filters(model, layer):
    """Return the kernels of a convolutional layer, float32 (height, width, channels in, filters).

    `layer` is a name, an index or the layer. The kernels of a depthwise convolution, each of
    which sees one channel, come as (height, width, 1, filters).

    Raises ValueError if there is no such layer, or if it has no two-dimensional kernels.
    """
    found = find_layer(model, layer)
    if isinstance(found, kl.DepthwiseConv2D):
        kernel = np.asarray(found.kernel, np.float32)
        return kernel.reshape(*kernel.shape[:2], 1, -1)
    if isinstance(found, kl.Conv2D):
        return np.asarray(found.kernel, np.float32)
    have = ", ".join(
        repr(other.name)
        for other in model.layers
        if isinstance(other, (kl.Conv2D, kl.DepthwiseConv2D))
    )
    raise ValueError(
        f"layer {found.name!r} is a {type(found).__name__}, which has no two-dimensional filters. "
        + (f"Layers with filters: {have}." if have else "This model has no convolution.")
    )


def feature_maps(model, images, layer, *, batch_size=64):
    """Return what a layer makes of each image: its feature maps, float32 (N, height, width, C).

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, channels)
    layer : str, int or keras layer
        A layer whose output still has rows and columns. Its activation function, if it has
        one, is part of its output.
    batch_size : int
        Images that are in memory at a time.

    Raises
    ------
    ValueError
        If the images do not fit the model, there is no such layer, or its output is not a stack
        of maps.
    """
    images = check_images(model, images)
    check_whole("batch_size", batch_size, 1)
    found, part = find_layer(model, layer), plain(model)
    output = layer_output(model, layer, part)
    if len(output.shape) != 4:
        raise ValueError(
            f"layer {found.name!r} has no feature maps: its output has shape "
            f"{tuple(output.shape)}, not (N, height, width, channels)."
        )
    first = maps_first(model, found) and output is not part.inputs[0]
    up_to_layer = kept(model, ("maps", id(found)), lambda: keras.Model(part.inputs[0], output))
    batches = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    made = [np.asarray(up_to_layer(batch, training=False), np.float32) for batch in batches]
    maps = np.concatenate(made)
    return np.ascontiguousarray(np.moveaxis(maps, 1, -1)) if first else maps
