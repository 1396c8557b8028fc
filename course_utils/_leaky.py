"""A fault of TensorFlow's that changes what a network computes, said before it is explained."""

import functools
import warnings

import keras
import numpy as np
import tensorflow as tf

from course_utils._shared import calls_its_graph, layer_calls


def warn_of_slopes(model):
    """Warn where TensorFlow takes 0.2 for the slope of a LeakyReLU, whatever it is.

    With oneDNN it does so in compiled functions, `predict` among them, where a LeakyReLU takes
    the sum of a convolution with a bias and something else: they become one that forgets it.
    """
    names = list(_in_danger(model))
    if names and _forgets():
        warnings.warn(
            f"TensorFlow computes {', '.join(names)} with a slope of 0.2 (a fault of its oneDNN, "
            "in model.predict, too): set the environment variable TF_ENABLE_ONEDNN_OPTS=0 before "
            "TensorFlow is imported, or the network that is explained is another one.",
            stacklevel=2,
        )


def _in_danger(model):
    """The names of the LeakyReLUs of another slope that take a sum."""
    for layer, inputs, _ in layer_calls(model):
        if isinstance(layer, keras.Model) and calls_its_graph(layer):
            yield from _in_danger(layer)
        elif type(layer).__name__ in ("LeakyReLU", "LeakyRelu") and layer.negative_slope != 0.2:
            sum_, call, _ = inputs[0]._keras_history
            added = sum_._inbound_nodes[call].input_tensors if type(sum_).__name__ == "Add" else ()
            if any(_is_biased_convolution(tensor._keras_history.operation) for tensor in added):
                yield layer.name


def _is_biased_convolution(layer):
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    return isinstance(layer, keras.layers.Conv2D) and layer.use_bias and linear


@functools.cache
def _forgets():
    """Whether the TensorFlow that is installed does so, tried on a pixel."""
    one = tf.ones((1, 1, 1, 1))

    def run(pixel):
        convolved = tf.nn.bias_add(tf.nn.conv2d(pixel, one, 1, "SAME"), one[0, 0, 0])
        return tf.nn.leaky_relu(convolved + pixel, 0.5)

    pixel = tf.constant(-3.0, shape=(1, 1, 1, 1))
    return not np.allclose(tf.function(run, autograph=False)(pixel), run(pixel))
