"""A user's network as the package computes with it, and what is kept of it until it changes.

`plain` takes care of all that Keras leaves open: numbers that are integers, channels that come
first, a batch of a fixed size, outputs in a dictionary. Behind it, a network takes float images
(N, H, W, C) of any number and gives one tensor.
"""

import operator
import threading
import weakref
from contextlib import contextmanager
from functools import cache

import keras
import numpy as np
from keras import layers

from course_utils._leaky import warn_of_slopes
from course_utils._shared import (
    calls_its_graph,
    channels_first,
    check_graph,
    flat_layers,
    layer_calls,
)


def plain(model):
    """Return `model` as a function of float images (N, H, W, C) that gives one tensor.

    It shares the layers and weights of `model`, and is `model` itself if that is so already.

    Integers are continued to the numbers between them: the layers are called on floats, without
    the cast that ends every gradient.

    Raises
    ------
    ValueError
        If the network cannot be called so, or gives other outputs for whole numbers than `model`.
    """
    return kept(model, "plain", lambda: _as_plain(model)) or model


def _as_plain(model):
    """The plain model, or None if it is `model` itself: a table must not hold its own key."""
    check_graph(model)
    warn_of_slopes(model)
    taken, output = model.inputs[0], model.outputs[0]
    as_floats = "float" in keras.backend.standardize_dtype(taken.dtype)
    first = channels_first(model)
    if as_floats and taken.shape[0] is None and not first and not _has_channels_first(model):
        tensors = (getattr(model, name, None) for name in ("input", "output"))
        alone = all(isinstance(tensor, keras.KerasTensor) for tensor in tensors)
        return None if alone else keras.Model(taken, output, name=model.name)
    shape = tuple(taken.shape[1:])
    shape = (*shape[1:], shape[0]) if first else shape
    try:
        made = _for_floats(model, shape, first, taken.dtype if as_floats else "float32")
    except Exception as error:  # Keras raises whatever the layer's own code raises
        raise ValueError(
            f"{model.name} takes {_taken(taken)} and cannot be called on any number of float "
            f"images: {in_one_line(error)} Build it with keras.Input({tuple(taken.shape[1:])})."
        ) from error
    if tuple(made.outputs[0].shape[1:]) != tuple(output.shape[1:]):
        raise ValueError(
            f"{model.name} takes {_taken(taken)}, and its layers need exactly that many. "
            f"Build it with keras.Input({tuple(taken.shape[1:])})."
        )
    if not as_floats:
        _check_same(made, _for_floats(model, shape, first, taken.dtype))
    return made


def _for_floats(model, shape, first, dtype):
    """The layers of `model` called on any number of images with channels last."""
    images = keras.Input(shape, dtype=dtype)
    x = keras.ops.transpose(images, TO_FIRST) if first else images
    return keras.Model(images, _call_again(model, x), name=model.name)


def _check_same(made, of_integers):
    """Raise ValueError unless both models give the same for random integers."""
    dtype = of_integers.inputs[0].dtype
    shape = [64 if size is None else size for size in made.inputs[0].shape[1:]]
    most = 2 if dtype == "bool" else 128 if dtype == "int8" else 256
    images = np.random.default_rng(0).integers(0, most, (2, *shape))
    found = np.asarray(made(images.astype(np.float32), training=False))
    expected = np.asarray(of_integers(images.astype(dtype), training=False))
    if not np.allclose(found, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max()):
        raise ValueError(
            f"{made.name} takes {dtype} and computes with them what it does not with floats (it "
            "divides without a remainder, overflows or looks them up), so nothing lies between "
            "two whole numbers. Explain the part behind that, which takes floats."
        )


def _taken(tensor):
    """What a model takes, in words."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return dtype if tensor.shape[0] is None else f"batches of {tensor.shape[0]} ({dtype})"


def flattened(model, shape):
    """A plain model of images (H, W, C) whose nested models' layers are called one by one.

    Nested models stay if two layers have the same name, which a model's own must not have.
    """
    images = keras.Input(shape)
    outputs = _call_again(model, images, lambda layer, taken: True)
    try:
        return keras.Model(images, outputs)
    except ValueError:
        return keras.Model(images, _call_again(model, images, lambda layer, taken: False))


def _call_again(model, x, is_taken_apart=None, turned=None):
    """Call the layers of `model` on another tensor in the place of its input.

    Nested models stay as they are but for those that are to be taken apart. `turned` has what
    stands in for a layer with its channels first, which may be called more than once.
    """
    is_taken_apart = is_taken_apart or _has_to_be_taken_apart
    turned = {} if turned is None else turned
    made = {id(model.inputs[0]): x}
    for layer, inputs, outputs in layer_calls(model):
        node = layer._inbound_nodes[outputs[0]._keras_history.node_index]
        if can_be_taken_apart(layer, node) and is_taken_apart(layer, inputs[0]):
            called = _call_again(layer, made[id(inputs[0])], is_taken_apart, turned)
        else:
            if convolves_channels_first(layer):
                layer = turned.setdefault(id(layer), ChannelsLast(layer))
            arguments, keywords = node.arguments.fill_in(made)
            called = layer(*arguments, **keywords)
        made |= zip(map(id, outputs), keras.tree.flatten(called), strict=True)
    return made[id(model.outputs[0])]


def can_be_taken_apart(layer, node):
    """Whether a call is one of a nested model, on one tensor, that puts out one."""
    return (
        isinstance(layer, keras.Model)
        and calls_its_graph(layer)
        and "call" not in vars(layer)
        and len(getattr(layer, "inputs", None) or ()) == 1
        and len(node.input_tensors) == len(node.output_tensors) == 1
        and not node.arguments.kwargs.get("training")
    )


def _has_to_be_taken_apart(layer, taken):
    """Whether a nested model would cast to integers, or convolve what has its channels first."""
    return "float" not in taken.dtype or _has_channels_first(layer)


def _has_channels_first(model):
    return any(map(convolves_channels_first, flat_layers(model)))


_CONVOLVING = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
    layers.Conv2DTranspose,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.UpSampling2D,
)


def convolves_channels_first(layer):
    """Whether a layer convolves or pools maps (N, C, H, W)."""
    return isinstance(layer, _CONVOLVING) and layer.data_format == "channels_first"


TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)

# Held while a layer of the user's is changed for the length of a call: of two threads that did so
# at a time, the second would put back what the first has changed.
CHANGING = threading.RLock()


class ChannelsLast(layers.Layer):
    """A layer that has its channels first, computed with the channels last.

    TensorFlow's kernels for the CPU have gradients for no others. Weights are the layer's own.
    """

    def __init__(self, layer):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer

    def call(self, inputs):
        with self.turned() as layer:
            maps = layer.call(keras.ops.transpose(inputs, TO_LAST))
        return keras.ops.transpose(maps, TO_FIRST)

    @contextmanager
    def turned(self):
        """Let the layer take and give maps with channels last meanwhile."""
        with CHANGING:
            self.layer.data_format = "channels_last"
            try:
                yield self.layer
            finally:
                self.layer.data_format = "channels_first"

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)


def in_one_line(error):
    """What an error says, in one line that ends."""
    return " ".join(str(error).split())[:300].rstrip(".") + "."


def kept(model, key, make, most=None):
    """Return make(), which is kept under `key` until `model` computes something else.

    What is kept lives as long as `model`, and must not refer to it. Of each kind, the first part of
    a key, the last `most` are kept.
    """
    now = _settings(model)
    before, values = _KEPT.get(model, ((), {}))
    if len(now) != len(before) or not all(map(operator.is_, now, before)):
        values = {}
        _KEPT[model] = (now, values)
    if key not in values:
        values[key] = make()
        alike = [known for known in list(values) if known[:1] == key[:1]]
        for known in alike[:-most] if most else ():
            values.pop(known, None)
    return values[key]


# From a model to its settings, and what is kept of it.
_KEPT = weakref.WeakKeyDictionary()


def _settings(model):
    """What decides the outputs of a model besides the values of its weights, as a list.

    Activations, call functions, dtype policies, variables (LoRA and quantisation have others),
    strides, rates, and what a custom layer has of its own; and the tensors that it puts out,
    which tell whether layers were added. To compare them one by one, by who they are, takes
    less than a millisecond for a hundred layers.
    """
    settings = list(getattr(model, "outputs", None) or ())
    for layer in model._flatten_layers():
        attributes = vars(layer)
        if isinstance(layer, keras.Model) and calls_its_graph(layer):
            settings.append(attributes.get("call"))
        else:
            settings += [
                value
                for name, value in attributes.items()
                if name not in _bookkeeping() and name[:6] != "_self_"
            ]
            settings += layer._trainable_variables
            settings += layer._non_trainable_variables
    return settings


@cache
def _bookkeeping():
    """What every layer has: it says nothing of what a layer computes, except its precision."""
    return frozenset(vars(keras.layers.Layer()) | vars(keras.Model())) - {
        "_dtype_policy",
        "autocast",
    }
