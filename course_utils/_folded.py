"""Runs a network with each batch normalisation taken into the convolution before it.

After training, a batch normalisation multiplies each channel by a number and adds another. So does
a convolution with other weights, in one pass over the maps instead of three. The other weights are
reckoned in every run, from those that the two layers have then; the layers stay as they are.
"""

import functools

import keras
import tensorflow as tf
from keras import layers

from course_utils._plain import can_be_taken_apart
from course_utils._shared import layer_calls


def infer(model, inputs):
    """Return ``model(inputs, training=False)``, to rounding, while TensorFlow traces a function.

    Of several outputs, a list. A layer that somebody listens to, in the place of its ``call``, is
    called.

    References
    ----------
    Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference (CVPR 2018), section 3.2, where the two are folded.
    """
    if "call" in vars(model) or not _folds_within(model):
        return model(inputs, training=False)
    outputs = _Inference(functools.partial(_call, model))(inputs, training=False)
    return outputs if len(outputs) > 1 else outputs[0]


class _Inference(layers.Layer):
    """A function that runs as a layer, so that every layer within knows that none is training."""

    def __init__(self, run):
        super().__init__(name="inference", autocast=False)
        self.run = run

    def call(self, inputs, training=None):
        return self.run(keras.tree.flatten(inputs))


def _folds_within(model):
    """Whether the model, or one nested in it, has a normalisation to take in."""
    return bool(folds(model)) or any(
        _folds_within(layer) for layer, node in _calls(model) if can_be_taken_apart(layer, node)
    )


def _call(model, inputs):
    """The outputs of the model, of which the layers are called one by one."""
    taken_in = folds(model)
    convolutions = {id(node) for _, node in taken_in.values()}
    made = {
        id(tensor): tf.cast(x, tensor.dtype) for tensor, x in zip(model.inputs, inputs, strict=True)
    }
    for layer, node in _calls(model):
        if id(node) in convolutions:
            continue
        if id(node.output_tensors[0]) in taken_in:
            convolution, before = taken_in[id(node.output_tensors[0])]
            called = convolve(convolution, layer, made[id(before.input_tensors[0])])
        elif can_be_taken_apart(layer, node):
            called = _call(layer, [made[id(node.input_tensors[0])]])
        else:
            arguments, keywords = node.arguments.fill_in(made)
            if getattr(layer, "_call_has_training_arg", False):
                keywords["training"] = False
            called = layer(*arguments, **keywords)
        made |= zip(map(id, node.output_tensors), keras.tree.flatten(called), strict=True)
    return [made[id(output)] for output in model.outputs]


def folds(model):
    """From the id of what a normalisation puts out to the convolution before it, and its node."""
    calls = _calls(model)
    read = [id(tensor) for _, node in calls for tensor in node.input_tensors]
    read += map(id, model.outputs)
    convolved = {
        id(node.output_tensors[0]): (layer, node) for layer, node in calls if _convolves(layer)
    }
    return {
        id(node.output_tensors[0]): convolved[id(node.input_tensors[0])]
        for layer, node in calls
        if _normalises(layer)
        and id(node.input_tensors[0]) in convolved
        and read.count(id(node.input_tensors[0])) == 1
    }


def _calls(model):
    """The calls that a model consists of: (layer, node)."""
    return [
        (layer, layer._inbound_nodes[outputs[0]._keras_history.node_index])
        for layer, _, outputs in layer_calls(model)
    ]


def _convolves(layer):
    """Whether a layer does nothing but convolve, with channels last."""
    return (
        type(layer) in (layers.Conv2D, layers.DepthwiseConv2D)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and _is_itself(layer)
    )


def _normalises(layer):
    """Whether a layer normalises the last axis of maps (N, H, W, C)."""
    return type(layer) is layers.BatchNormalization and layer.axis in (-1, 3) and _is_itself(layer)


def _is_itself(layer):
    """Whether a layer computes what its class does, in single precision."""
    single = layer.compute_dtype == layer.variable_dtype == "float32"
    quantised = getattr(layer, "quantization_mode", None)
    return single and not quantised and "call" not in vars(layer)


def convolve(convolution, normalisation, maps):
    """What both layers make of maps (N, H, W, C)."""
    maps = tf.cast(maps, convolution.compute_dtype)  # as Keras does before it calls a layer
    scale = tf.math.rsqrt(normalisation.moving_variance + normalisation.epsilon)
    if normalisation.scale:
        scale *= normalisation.gamma
    shift = -normalisation.moving_mean * scale
    if convolution.use_bias:
        shift += convolution.bias * scale
    if normalisation.center:
        shift += normalisation.beta
    if isinstance(convolution, layers.DepthwiseConv2D):
        kernel = convolution.kernel * tf.reshape(scale, convolution.kernel.shape[2:])
        options = ("strides", "padding", "dilation_rate", "data_format")
        options = {name: getattr(convolution, name) for name in options}
        convolved = keras.ops.depthwise_conv(maps, kernel, **options)
    else:
        convolved = convolution.convolution_op(maps, convolution.kernel * scale)
    return tf.nn.bias_add(convolved, shift)
