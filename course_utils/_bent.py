"""ReLUs whose gradients have gradients, which an attack on a gradient has to follow."""

import functools
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf


@contextmanager
def bent(model):
    """Let the gradients of `model`'s ReLUs have gradients meanwhile; all else stays as it is.

    What they put out and its gradient do not change, so that the attack is on the network itself.
    """
    changed = []
    for part in parts(model):
        activation = vars(part).get("activation")
        if activation is not None and (found := bends(activation)):
            changed.append((part, "activation", activation))
            part.activation = functools.partial(bent_relu, activation, found)
        elif found := bends(part):
            changed.append((part, "call", None))
            part.call = functools.partial(bent_relu, part.call, found)
    try:
        yield
    finally:
        for part, name, function in changed:
            if name == "call":
                del part.call
            else:
                part.activation = function


def parts(model):
    """The layers and operations of a model, those of nested models in their models' places."""
    for part in getattr(model, "operations", model.layers):
        if isinstance(part, keras.Model):
            yield from parts(part)
        else:
            yield part


def bends(function):
    """(slope below, threshold, largest value) of a ReLU, be it a function or a layer; or None."""
    kind = getattr(function, "__name__", type(function).__name__).lower().replace("_", "")
    if kind not in ("relu", "relu6", "leakyrelu"):
        return None
    slope = getattr(function, "negative_slope", 0.2 if kind == "leakyrelu" else 0.0)
    most = getattr(function, "max_value", 6.0 if kind == "relu6" else None)
    return slope, getattr(function, "threshold", 0.0), np.inf if most is None else most


# The slope of the sigmoid in place of a step, in units of one over the spread of a layer's inputs.
# From 3 to 30 the attacks succeed about equally.
SHARPNESS = 10.0


def bent_relu(relu, numbers, inputs):
    """A ReLU whose gradient, a step, has the gradient of a sigmoid."""
    slope, threshold, most = numbers
    axes = list(range(1, len(inputs.shape)))
    spread = tf.math.reduce_std(tf.cast(inputs, tf.float32), axis=axes, keepdims=True)
    # Never zero, in half precision neither.
    width = tf.cast(tf.stop_gradient(spread) / SHARPNESS + 1e-7, inputs.dtype)

    @tf.custom_gradient
    def bent(x):
        def gradient(upstream):
            steps = tf.cast(x > threshold, x.dtype) * (1 - slope) + slope
            smooth = (1 - slope) * tf.sigmoid((x - threshold) / width)
            if np.isfinite(most):
                steps = tf.where(x < most, steps, 0.0)
                smooth -= tf.sigmoid((x - most) / width)
            return upstream * (steps + smooth - tf.stop_gradient(smooth))

        return relu(x), gradient

    return bent(inputs)
